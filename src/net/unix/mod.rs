//! Unix sockets: [`stream`], [`seqpacket`] and [`datagram`] are the sockets, [`listener`] accepts for the first two and [`file`] knows when to
//! remove its name, [`dial`] connects, [`address`] reads and writes names, [`fds`] passes descriptors, [`futures`] is what the methods return,
//! [`methods`] what all sockets have, [`convert`] the ways in and out.

pub(in crate::net) mod address;
mod convert;
mod credentials;
mod datagram;
mod dial;
mod fds;
mod file;
pub(crate) mod futures;
mod listener;
mod methods;
mod seqpacket;
mod stream;

pub use credentials::PeerCred;
pub use datagram::UnixDatagram;
pub use fds::TruncatedFds;
pub use listener::{Incoming, IntoIncoming, UnixListener, UnixSeqpacketListener};
pub use seqpacket::UnixSeqpacket;
pub use stream::UnixStream;

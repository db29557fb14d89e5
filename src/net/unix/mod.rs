//! Unix-domain sockets.
//!
//! * [`stream`], `seqpacket` (not on macOS), [`datagram`]: the socket types. [`methods`]: the
//!   methods that all of them have. [`credentials`]: the credentials of a peer.
//! * [`listener`]: accepting connections. [`file`](mod@file): when a listener's file is removed.
//! * [`dial`]: binding and connecting. [`address`]: socket names. [`fds`]: passing descriptors.
//! * [`futures`]: the futures that send and receive messages and descriptors. [`convert`]:
//!   conversions from and to other types.

mod address;
mod convert;
mod credentials;
mod datagram;
mod dial;
mod fds;
mod file;
pub(crate) mod futures;
pub(crate) mod listener;
mod methods;
#[cfg(not(target_os = "macos"))]
mod seqpacket;
mod stream;

pub use credentials::PeerCred;
pub use datagram::UnixDatagram;
pub use fds::TruncatedFds;
pub use listener::{Incoming, IntoIncoming, UnixListener};
#[cfg(not(target_os = "macos"))]
pub use seqpacket::{UnixSeqpacket, UnixSeqpacketListener};
pub use stream::UnixStream;

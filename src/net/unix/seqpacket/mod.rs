//! Unix-domain seqpacket sockets (SOCK_SEQPACKET). macOS has none, so the module is absent there.
//!
//! * [`socket`]: the connection. [`listener`]: accepting connections. [`convert`]: conversions from
//!   and to other types.

mod convert;
mod listener;
mod socket;

pub use listener::UnixSeqpacketListener;
pub use socket::UnixSeqpacket;

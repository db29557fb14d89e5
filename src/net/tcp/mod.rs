//! TCP sockets.
//!
//! * [`listener`]: accepting connections one by one; [`incoming`]: as a stream, also for Unix
//!   sockets.
//! * [`listen`]: opening listeners with a `ListenConfig`.
//! * [`dial`]: connecting to one address.
//! * [`stream`]: the connection; [`traits`]: futures-io's traits for it and for Unix streams.
//! * [`options`]: the less common socket options; `linux`: options that only Linux has.
//! * [`convert`]: conversions from and to std's types and descriptors.
//! * [`write_vectored_all`]: writing several buffers completely.
//!
//! splice(2), sendfile(2) and MSG_ZEROCOPY are in `net::zero_copy`.

// rustdoc lists inherent impls in module order, so the modules with the main methods come first.
pub(crate) mod listener;
mod stream;

pub(crate) mod convert;
pub(in crate::net) mod dial;
pub(super) mod incoming;
#[cfg(target_os = "linux")]
mod linux;
mod listen;
mod options;
pub(super) mod traits;
pub(crate) mod write_vectored_all;

pub use incoming::{Incoming, IntoIncoming};
pub use listener::TcpListener;
pub use stream::TcpStream;

//! TCP: [`listener`] and [`incoming`] accept, [`stream`] is the connection, [`traits`] its reading and writing by
//! futures-io's traits, [`options`] the lesser options, [`convert`] the ways in and out, [`write_vectored_all`] many buffers at
//! once. What the kernel moves by itself is in `net::zero_copy`.

// rustdoc shows methods in the order of these modules: the main verbs come first.
mod listener;
mod stream;

pub(crate) mod convert;
pub(super) mod incoming;
mod options;
pub(super) mod traits;
pub(crate) mod write_vectored_all;

pub use incoming::{Incoming, IntoIncoming};
pub use listener::TcpListener;
pub use stream::TcpStream;

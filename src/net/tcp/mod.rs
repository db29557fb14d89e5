//! TCP: [`listener`] and [`incoming`] accept, [`stream`] is the connection, [`futures`] what its methods return, [`traits`] its reading and writing by
//! futures-io's traits, [`convert`] the ways in and out.

pub(crate) mod convert;
pub(crate) mod futures;
mod incoming;
mod listener;
mod stream;
mod traits;

pub use incoming::{Incoming, IntoIncoming};
pub use listener::TcpListener;
pub use stream::TcpStream;

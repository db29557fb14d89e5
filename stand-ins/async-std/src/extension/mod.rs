//! The extension traits with async-std's methods and no others, over netpoll's.
//!
//! netpoll's own traits have more methods. A dependent that also imports another crate's trait, such as futures' `AsyncWriteExt`, may not
//! compile when a call finds a method in both.

mod future;
mod io;
mod stream;

pub use future::FutureExt;
pub use io::{BufReadExt, ReadExt, SeekExt, WriteExt};
pub use stream::StreamExt;

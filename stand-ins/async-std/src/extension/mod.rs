//! Extension traits with exactly the methods of async-std's. They call netpoll's extension traits.
//!
//! netpoll's own traits have more methods. If a dependent also imported a trait of another crate that has such a method, such as futures'
//! `AsyncWriteExt`, calls of the method would be ambiguous and would not compile.

mod future;
mod io;
mod stream;

pub use future::FutureExt;
pub use io::{BufReadExt, ReadExt, SeekExt, WriteExt};
pub use stream::StreamExt;

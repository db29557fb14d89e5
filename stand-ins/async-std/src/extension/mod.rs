//! Extension traits over netpoll's, with async-std's methods and no others.
//!
//! netpoll's own traits have more methods. If a dependent also imports a trait of another crate, such as futures' `AsyncWriteExt`, a call
//! that finds a method in both does not compile.

mod future;
mod io;
mod stream;

pub use future::FutureExt;
pub use io::{BufReadExt, ReadExt, SeekExt, WriteExt};
pub use stream::StreamExt;

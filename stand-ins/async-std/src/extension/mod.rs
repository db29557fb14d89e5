//! Extension traits with exactly the methods of async-std's. They call netpoll's extension traits.
//!
//! netpoll's own traits have more methods. Some traits of other crates, such as futures' `AsyncWriteExt`, have methods with the same names.
//! In a dependent that also imports such a trait, calls of these methods would be ambiguous and would not compile.

mod future;
mod io;
mod stream;

pub use future::FutureExt;
pub use io::{BufReadExt, ReadExt, SeekExt, WriteExt};
pub use stream::StreamExt;

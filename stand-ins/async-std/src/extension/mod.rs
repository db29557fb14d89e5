//! Extension traits with exactly the methods of async-std's extension traits. Most methods call
//! those of netpoll's extension traits.
//!
//! netpoll's extension traits are not exported themselves, because they have additional methods.
//! Some traits of other crates, such as `AsyncWriteExt` of futures, have methods with the same
//! names. In a dependent that also imports such a trait, calls of these methods would be ambiguous
//! and would not compile.

mod future;
mod io;
mod stream;

pub use future::FutureExt;
pub use io::{BufReadExt, ReadExt, SeekExt, WriteExt};
pub use stream::StreamExt;

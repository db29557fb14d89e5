//! Extension traits with exactly the methods of async-std's. Most methods call those of netpoll's extension traits.
//!
//! netpoll's traits are not exported themselves, because they have more methods. Some traits of other crates, such as futures'
//! `AsyncWriteExt`, have methods with the same names as the additional ones. In a dependent that imports such a trait too, calls of these
//! methods would be ambiguous and would not compile.

mod future;
mod io;
mod stream;

pub use future::FutureExt;
pub use io::{BufReadExt, ReadExt, SeekExt, WriteExt};
pub use stream::StreamExt;

//! Connections in memory. [`handle`] is the public API, [`end`] moves the bytes and keeps the
//! waiters.

mod end;
mod handle;

pub use handle::{Pipe, PipeRead, PipeWrite, PipeWriteAll, pipe};

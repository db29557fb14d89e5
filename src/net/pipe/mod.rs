//! In-memory connections. [`handle`] has the public API; [`end`] transfers the bytes and keeps the
//! waiters.

mod end;
mod handle;

pub use handle::{Pipe, PipeRead, PipeWrite, PipeWriteAll, pipe};

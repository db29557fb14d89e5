//! A connection in memory: [`handle`] is what users see, [`end`] how bytes cross and who waits.

mod end;
mod handle;

pub use handle::{Pipe, PipeRead, PipeWrite, PipeWriteAll, pipe};

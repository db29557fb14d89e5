//! Any descriptor: [`wrapper`] is the type, [`guard`] what says that it is ready, [`futures`] what its methods return, [`traits`] its
//! reading and writing by futures-io's traits.

mod futures;
mod guard;
mod traits;
mod wrapper;

pub use futures::{AsyncFdReadWith, AsyncFdReadable, AsyncFdWritable, AsyncFdWriteWith};
pub use guard::{AsyncFdReadyGuard, TryIoError};
pub use wrapper::{AsyncFd, NotPollable};

//! Support for any descriptor: [`wrapper`] is the type, [`guard`] its readiness guard, [`futures`]
//! the futures of its methods, [`traits`] futures-io's traits for it.

mod futures;
mod guard;
mod traits;
mod wrapper;

pub use futures::{AsyncFdReadWith, AsyncFdReadable, AsyncFdWritable, AsyncFdWriteWith};
pub use guard::{AsyncFdReadyGuard, TryIoError};
pub use wrapper::{AsyncFd, NotPollable};

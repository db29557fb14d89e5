//! Support for any descriptor: [`wrapper`] is the type, [`calls`] waits, [`guard`] its readiness guard, [`futures`]
//! the futures of its methods, [`traits`] futures-io's traits for it.

// rustdoc shows methods in the order of these modules.
mod wrapper;

mod calls;
mod futures;
mod guard;
mod traits;

pub use futures::{AsyncFdReadWith, AsyncFdReadable, AsyncFdWritable, AsyncFdWriteWith};
pub use guard::{AsyncFdReadyGuard, TryIoError};
pub use wrapper::{AsyncFd, NotPollable};

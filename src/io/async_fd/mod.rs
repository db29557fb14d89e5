//! [`AsyncFd`]: waiting on any descriptor that the poller accepts.
//!
//! [`wrapper`] defines the type, [`calls`] its methods that wait, [`futures`] the futures that they
//! return, [`guard`] the readiness guard, and [`traits`] the implementations of futures-io's
//! traits.

// rustdoc shows methods in the order of these modules.
mod wrapper;

mod calls;
mod futures;
mod guard;
mod traits;

pub use futures::{AsyncFdReadWith, AsyncFdReadable, AsyncFdWritable, AsyncFdWriteWith};
pub use guard::{AsyncFdReadyGuard, TryIoError};
pub use wrapper::{AsyncFd, NotPollable};

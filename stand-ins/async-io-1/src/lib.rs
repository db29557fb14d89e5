//! A stand-in for async-io 1 over netpoll. Crates that depend on async-io 1 are compiled unchanged,
//! and wait on netpoll's poller and timers.
//!
//! The package has async-io's name, so that `[patch.crates-io]` can replace async-io with it.
//! README.md of this package shows how. Most source files are those of the stand-in for async-io 2.
//! In version 1 the type of a handle needs to implement only `AsRawFd`, mutable access is safe, and
//! futures-io's traits are implemented for every handle that implements std's `Read` or `Write`.
#![deny(unsafe_code)]

#[path = "../../async-io/src/adapter.rs"]
mod adapter;
mod handle;
#[path = "../../async-io/src/ready.rs"]
mod ready;
#[path = "../../async-io/src/sockets.rs"]
mod sockets;
#[path = "../../async-io/src/timer.rs"]
mod timer;
#[path = "../../async-io/src/traits.rs"]
mod traits;

mod io_safe {
    //! The bound `IoSafe` of the shared files. In version 1 every type satisfies it.

    /// A trait that every type implements.
    pub(crate) trait IoSafe {}

    impl<T: ?Sized> IoSafe for T {}
}

use std::future::Future;

pub use adapter::Async;
pub use ready::{Readable, ReadableOwned, Writable, WritableOwned};
pub use timer::Timer;

/// Runs a future to completion on the calling thread. While the future is pending, the thread polls
/// the network and the timers if no worker does.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    netpoll::task::block_on(future)
}

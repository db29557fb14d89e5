//! A stand-in for async-io 1 over netpoll. Crates that depend on async-io 1 wait on netpoll's poller and timers, unchanged.
//!
//! The package has async-io's name, so that `[patch.crates-io]` can replace async-io with it. README.md of this package shows how.
//! It shares most source files with the stand-in for async-io 2. In version 1 a handle needs only `AsRawFd`, mutable access is safe, and
//! futures-io's traits are implemented for every type that implements std's `Read` or `Write`.
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
    //! The bound `IoSafe` of the shared files. In this version every type satisfies it.

    pub(crate) trait IoSafe {}

    impl<T: ?Sized> IoSafe for T {}
}

use std::future::Future;

pub use adapter::Async;
pub use ready::{Readable, ReadableOwned, Writable, WritableOwned};
pub use timer::Timer;

/// Runs a future to completion on the calling thread. While the future is pending, the thread polls the network and the timers if no
/// worker does.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    netpoll::task::block_on(future)
}

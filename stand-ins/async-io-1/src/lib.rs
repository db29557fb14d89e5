//! A stand-in for async-io 1 over netpoll. Crates that depend on async-io 1 wait on netpoll's poller and timers, unchanged.
//!
//! The package has async-io's name, so that `[patch.crates-io]` can replace async-io with it; README.md of this package shows the entry.
//! Most files are those of the stand-in for async-io 2. In version 1 a handle needs only `AsRawFd`, mutable access is safe, and every type
//! with std's `Read` or `Write` has the traits of futures-io.
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
    //! The bound of the shared files, which every type meets.

    pub(crate) trait IoSafe {}

    impl<T: ?Sized> IoSafe for T {}
}

use std::future::Future;

pub use adapter::Async;
pub use ready::{Readable, ReadableOwned, Writable, WritableOwned};
pub use timer::Timer;

/// Runs a future to completion on the calling thread. While it waits, the thread polls the network and the timers if no worker does.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    netpoll::task::block_on(future)
}

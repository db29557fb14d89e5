//! A stand-in for async-io 2 over netpoll. Crates that depend on async-io 2 are compiled unchanged,
//! and wait on netpoll's poller and timers.
//!
//! The package has async-io's name, so that `[patch.crates-io]` can replace async-io with it:
//!
//! ```toml
//! [patch.crates-io]
//! async-io = { version = "2", git = "…" }    # netpoll's repository
//! ```
//!
//! [`Async`] wraps [`netpoll::io::AsyncFd`], [`Timer`] wraps [`netpoll::time::Sleep`], and
//! [`block_on`] calls [`netpoll::task::block_on`]. async-io's reactor thread is not started.
//! README.md of this package lists the differences in behaviour.
#![deny(unsafe_code)]

mod adapter;
mod handle;
mod io_safe;
mod ready;
mod sockets;
mod timer;
mod traits;

pub mod os {
    //! Items for specific operating systems.

    pub mod unix {
        //! Items for Unix: the descriptor of the reactor.

        use std::os::fd::BorrowedFd;

        /// Returns `None`, because netpoll's own threads poll. In async-io, returns a descriptor on
        /// which another event loop can wait for the reactor.
        pub fn reactor_fd() -> Option<BorrowedFd<'static>> {
            None
        }
    }
}

use std::future::Future;

pub use adapter::Async;
pub use io_safe::IoSafe;
pub use ready::{Readable, ReadableOwned, Writable, WritableOwned};
pub use timer::Timer;

/// Runs a future to completion on the calling thread. While the future is pending, the thread polls
/// the network and the timers if no worker does.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    netpoll::task::block_on(future)
}

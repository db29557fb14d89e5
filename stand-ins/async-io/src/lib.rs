//! A stand-in for async-io 2 over netpoll: crates that depend on async-io wait on netpoll's poller and timers, unchanged.
//!
//! The package has async-io's name, so that `[patch.crates-io]` puts it in async-io's place:
//!
//! ```toml
//! [patch.crates-io]
//! async-io = { version = "2", git = "…" }    # netpoll's repository
//! ```
//!
//! [`Async`] is over [`netpoll::io::AsyncFd`], [`Timer`] over [`netpoll::time::Sleep`], [`block_on`] is netpoll's. There is no thread of
//! async-io's. README.md of this package says where the behaviour differs.
#![deny(unsafe_code)]

mod adapter;
mod handle;
mod io_safe;
mod ready;
mod sockets;
mod timer;
mod traits;

pub mod os {
    //! What only some systems have.

    pub mod unix {
        //! Unix: the descriptor of the reactor.

        use std::os::fd::BorrowedFd;

        /// The descriptor by which another event loop could wait for the reactor: `None`, since netpoll's threads poll.
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

/// Runs a future on the calling thread to its end. While it waits, the thread polls the network and the timers if no worker does.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    netpoll::task::block_on(future)
}

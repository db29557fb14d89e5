//! A stand-in for async-std 1.13 over netpoll. Crates that depend on async-std run on netpoll's runtime, unchanged.
//!
//! The package has async-std's name, so that `[patch.crates-io]` can replace async-std with it:
//!
//! ```toml
//! [patch.crates-io]
//! async-std = { git = "…" }    # netpoll's repository
//! ```
//!
//! It has async-std's public items and no others. Sockets, tasks, timers and standard streams are netpoll's types. Files and paths are
//! types of this package, over `task::spawn_blocking`. `channel`, `sync` and `process` are those of the crates that async-std uses. Items
//! that need async-std's feature `unstable` need it here too, because an additional method can make a call ambiguous.
//!
//! README.md of this package says where the behaviour differs.
#![deny(unsafe_code)]

#[cfg(any(feature = "tokio1", feature = "tokio02", feature = "tokio03"))]
compile_error!(
    "the stand-in for async-std has no tokio runtime (features `tokio1`, `tokio02`, `tokio03`): wrap futures that need one in \
     `async_compat::Compat`, and disable the feature"
);
#[cfg(feature = "surf")]
compile_error!("async-std's feature `surf` serves its own example only: depend on the crate `surf`");

mod error;
mod extension;

pub mod channel {
    //! Channels between tasks: async-channel 1, as in async-std.

    pub use async_channel_1::*;
}
pub mod fs;
pub mod future;
pub mod io;
pub mod net;
pub mod os;
pub mod path;
#[cfg(feature = "unstable")]
pub mod pin {
    //! `Pin` of the standard library.

    pub use std::pin::Pin;
}
pub mod prelude;
#[cfg(feature = "unstable")]
pub mod process;
pub mod stream;
pub mod sync;
pub mod task;

pub use netpoll::task_local;
#[cfg(feature = "unstable")]
pub use netpoll::{eprint, eprintln, print, println, write, writeln};
#[cfg(feature = "attributes")]
pub use netpoll::{main, test};

// The name under which the attributes find the number of workers.
#[doc(hidden)]
pub use netpoll::rt;

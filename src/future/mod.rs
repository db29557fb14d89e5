//! Futures: timeouts and combinators.
//!
//! `Future`, `pending`, `ready` and `poll_fn` are those of std. The crates `futures` and
//! `futures-lite` have more combinators, which work with every future of this crate.

mod ext;
mod timeout;

#[doc(no_inline)]
pub use std::future::{Future, IntoFuture, Pending, PollFn, Ready, pending, poll_fn, ready};

// Functions of the crates futures and futures-lite that this crate does not have, or has under
// another name.
#[cfg(false)]
pub fn join_all() {} // absent: use task::TaskSet, or the crate futures
#[cfg(false)]
pub fn or() {} // absent: use race of FutureExt
#[cfg(false)]
pub fn select() {} // absent: use race of FutureExt, or the crate futures
#[cfg(false)]
pub fn zip() {} // absent: use join of FutureExt

pub use ext::{DelayFuture, FlattenFuture, FutureExt, Join, Race, TryJoin, TryRace};
pub use timeout::{TimeoutError, TimeoutFuture, timeout};

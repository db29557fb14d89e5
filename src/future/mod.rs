//! Futures: timeouts and combinators.
//!
//! `Future`, `pending`, `ready` and `poll_fn` are those of std. The crates `futures` and
//! `futures-lite` have more combinators, which work with every future of this crate.

mod ext;
mod timeout;

#[doc(no_inline)]
pub use std::future::{Future, IntoFuture, Pending, PollFn, Ready, pending, poll_fn, ready};

pub use ext::{DelayFuture, FlattenFuture, FutureExt, Join, Race, TryJoin, TryRace};
pub use timeout::{TimeoutError, TimeoutFuture, timeout};

//! Extension methods for futures. All of them are `unstable` in async-std.

use std::future::Future;

#[cfg(feature = "unstable")]
use {
    crate::future::{FlattenFuture, IntoFuture},
    netpoll::future::{DelayFuture, FutureExt as Ours, Join, Race, TimeoutFuture, TryJoin, TryRace},
    std::time::Duration,
};

/// Extension methods for futures. See netpoll's [`FutureExt`](netpoll::future::FutureExt) for
/// details. As in async-std, the trait has no methods without the feature `unstable`.
pub trait FutureExt: Future {
    /// Delays the first poll of this future until `duration` has passed since this call.
    #[cfg(feature = "unstable")]
    fn delay(self, duration: Duration) -> DelayFuture<Self>
    where
        Self: Sized,
    {
        Ours::delay(self, duration)
    }

    /// Runs this future, converts its output into a second future, runs that future, and returns
    /// its output.
    #[cfg(feature = "unstable")]
    fn flatten(self) -> FlattenFuture<Self, <Self::Output as IntoFuture>::Future>
    where
        Self: Sized,
        Self::Output: IntoFuture,
    {
        FlattenFuture::new(self)
    }

    /// Runs both futures concurrently, returns the output of the first to complete and drops the
    /// other.
    #[cfg(feature = "unstable")]
    fn race<F>(self, other: F) -> Race<Self, F>
    where
        Self: Sized,
        F: Future<Output = Self::Output>,
    {
        Ours::race(self, other)
    }

    /// Runs both futures concurrently. Returns the first `Ok`, or the later error if both fail.
    #[cfg(feature = "unstable")]
    fn try_race<F, T, E>(self, other: F) -> TryRace<Self, F>
    where
        Self: Sized + Future<Output = Result<T, E>>,
        F: Future<Output = Self::Output>,
    {
        Ours::try_race(self, other)
    }

    /// Runs both futures concurrently and returns both outputs.
    #[cfg(feature = "unstable")]
    fn join<F>(self, other: F) -> Join<Self, F>
    where
        Self: Sized,
        F: Future,
    {
        Ours::join(self, other)
    }

    /// Runs both futures concurrently and returns both values, or the first error as soon as one
    /// future fails.
    #[cfg(feature = "unstable")]
    fn try_join<F, A, B, E>(self, other: F) -> TryJoin<Self, A, F, B>
    where
        Self: Sized + Future<Output = Result<A, E>>,
        F: Future<Output = Result<B, E>>,
    {
        Ours::try_join(self, other)
    }

    /// Returns the output of the future, or a `TimeoutError` if it does not complete within
    /// `duration`.
    #[cfg(feature = "unstable")]
    fn timeout(self, duration: Duration) -> TimeoutFuture<Self>
    where
        Self: Sized,
    {
        Ours::timeout(self, duration)
    }
}

impl<T: Future + ?Sized> FutureExt for T {}

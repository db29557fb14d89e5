//! Methods of futures, all of which are `unstable` in async-std.

use std::future::Future;

#[cfg(feature = "unstable")]
use {
    crate::future::{FlattenFuture, IntoFuture},
    netpoll::future::{DelayFuture, FutureExt as Ours, Join, Race, TimeoutFuture, TryJoin, TryRace},
    std::time::Duration,
};

/// Methods of futures: those of netpoll's [`FutureExt`](netpoll::future::FutureExt), which documents them. As in async-std, there are none
/// without the feature `unstable`.
pub trait FutureExt: Future {
    /// Returns a future that is this one, first polled after `duration`.
    #[cfg(feature = "unstable")]
    fn delay(self, duration: Duration) -> DelayFuture<Self>
    where
        Self: Sized,
    {
        Ours::delay(self, duration)
    }

    /// Returns the output of the future that this one returns.
    #[cfg(feature = "unstable")]
    fn flatten(self) -> FlattenFuture<Self, <Self::Output as IntoFuture>::Future>
    where
        Self: Sized,
        Self::Output: IntoFuture,
    {
        FlattenFuture::new(self)
    }

    /// Returns the output of the future that ends first. The other is dropped.
    #[cfg(feature = "unstable")]
    fn race<F>(self, other: F) -> Race<Self, F>
    where
        Self: Sized,
        F: Future<Output = Self::Output>,
    {
        Ours::race(self, other)
    }

    /// Returns the first `Ok` of either, or the last error.
    #[cfg(feature = "unstable")]
    fn try_race<F, T, E>(self, other: F) -> TryRace<Self, F>
    where
        Self: Sized + Future<Output = Result<T, E>>,
        F: Future<Output = Self::Output>,
    {
        Ours::try_race(self, other)
    }

    /// Returns the outputs of both.
    #[cfg(feature = "unstable")]
    fn join<F>(self, other: F) -> Join<Self, F>
    where
        Self: Sized,
        F: Future,
    {
        Ours::join(self, other)
    }

    /// Returns the values of both, or the first error.
    #[cfg(feature = "unstable")]
    fn try_join<F, A, B, E>(self, other: F) -> TryJoin<Self, A, F, B>
    where
        Self: Sized + Future<Output = Result<A, E>>,
        F: Future<Output = Result<B, E>>,
    {
        Ours::try_join(self, other)
    }

    /// Returns the output if the future ends within `duration`.
    #[cfg(feature = "unstable")]
    fn timeout(self, duration: Duration) -> TimeoutFuture<Self>
    where
        Self: Sized,
    {
        Ours::timeout(self, duration)
    }
}

impl<T: Future + ?Sized> FutureExt for T {}

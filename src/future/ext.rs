//! [`FutureExt`]: async-std's combinators. Unlike in async-std, they need no feature.
//!
//! # Cancellation
//! A combinator owns its futures and drops them at the latest when it is dropped. An `.await` drops
//! a combinator that is ready, and with it the future that has lost a `race` or `try_race`, or the
//! other future of a `try_join` that has failed.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_lite::future;
use pin_project_lite::pin_project;

// These link definitions are for the documentation of the re-exported items.
/// [`FutureExt::or()`]: FutureExt::race
/// [`or()`]: FutureExt::race
/// [`try_zip()`]: FutureExt::try_join
/// [`zip()`]: FutureExt::join
#[doc(inline)]
pub use futures_lite::future::{Or as Race, TryZip as TryJoin, Zip as Join};

use super::TimeoutFuture;
use crate::time::Sleep;

/// Extension methods for every [`Future`].
///
/// The future that a method returns owns the futures that it is made from, and drops them when it
/// is dropped.
///
/// ```
/// use netpoll::prelude::*;
/// use std::time::Duration;
///
/// # netpoll::task::block_on(async {
/// let both = async { 1 }.join(async { "one" });
/// assert_eq!(both.timeout(Duration::from_secs(5)).await, Ok((1, "one")));
/// # });
/// ```
pub trait FutureExt: Future {
    /// Delays the first poll of the future by `duration`, counted from this call.
    ///
    /// ```
    /// use netpoll::prelude::*;
    /// use std::time::Duration;
    ///
    /// # netpoll::task::block_on(async {
    /// assert_eq!(async { 1 }.delay(Duration::from_millis(1)).await, 1);
    /// # });
    /// ```
    fn delay(self, duration: Duration) -> DelayFuture<Self>
    where
        Self: Sized,
    {
        DelayFuture { future: self, sleep: Some(Sleep::new(duration)) }
    }

    /// Awaits the future, and then its output.
    ///
    /// ```
    /// use netpoll::prelude::*;
    ///
    /// # netpoll::task::block_on(async {
    /// assert_eq!(async { async { 1 } }.flatten().await, 1);
    /// # });
    /// ```
    fn flatten(self) -> FlattenFuture<Self, <Self::Output as IntoFuture>::IntoFuture>
    where
        Self: Sized,
        Self::Output: IntoFuture,
    {
        FlattenFuture { outer: Some(self), inner: None }
    }

    /// Returns the output of the future that is ready first, or of `self` if both are ready. The
    /// other future is dropped with the combinator.
    ///
    /// ```
    /// use netpoll::{future, prelude::*};
    ///
    /// # netpoll::task::block_on(async {
    /// assert_eq!(future::pending().race(async { 2 }).await, 2);
    /// # });
    /// ```
    #[doc(alias = "select")]
    fn race<F>(self, other: F) -> Race<Self, F>
    where
        Self: Sized,
        F: Future<Output = Self::Output>,
    {
        future::or(self, other)
    }

    /// Returns the first `Ok` of the two futures. If both fail, returns the later error.
    ///
    /// ```
    /// use netpoll::prelude::*;
    ///
    /// # netpoll::task::block_on(async {
    /// assert_eq!(async { Err("no") }.try_race(async { Ok(2) }).await, Ok(2));
    /// # });
    /// ```
    fn try_race<F, T, E>(self, other: F) -> TryRace<Self, F>
    where
        Self: Sized + Future<Output = Result<T, E>>,
        F: Future<Output = Result<T, E>>,
    {
        TryRace { left: Some(self), right: Some(other) }
    }

    /// Awaits both futures and returns both outputs.
    ///
    /// ```
    /// use netpoll::prelude::*;
    ///
    /// # netpoll::task::block_on(async {
    /// assert_eq!(async { 1 }.join(async { 'b' }).await, (1, 'b'));
    /// # });
    /// ```
    fn join<F>(self, other: F) -> Join<Self, F>
    where
        Self: Sized,
        F: Future,
    {
        future::zip(self, other)
    }

    /// Awaits both futures and returns both values, or the first error. After an error the other
    /// future is dropped with the combinator.
    ///
    /// ```
    /// use netpoll::{future, prelude::*};
    ///
    /// # netpoll::task::block_on(async {
    /// assert_eq!(async { Ok::<_, &str>(1) }.try_join(async { Ok(2) }).await, Ok((1, 2)));
    /// let never = future::pending::<Result<(), &str>>();
    /// assert_eq!(never.try_join(async { Err::<(), _>("no") }).await, Err("no"));
    /// # });
    /// ```
    fn try_join<F, A, B, E>(self, other: F) -> TryJoin<Self, A, F, B>
    where
        Self: Sized + Future<Output = Result<A, E>>,
        F: Future<Output = Result<B, E>>,
    {
        future::try_zip(self, other)
    }

    /// Awaits the future for at most `duration`, counted from this call; see
    /// [`timeout`](super::timeout()).
    ///
    /// ```
    /// use netpoll::{future, prelude::*};
    /// use std::time::Duration;
    ///
    /// # netpoll::task::block_on(async {
    /// let error = future::pending::<()>().timeout(Duration::from_millis(1)).await.unwrap_err();
    /// assert_eq!(error.to_string(), "future has timed out");
    /// # });
    /// ```
    fn timeout(self, duration: Duration) -> TimeoutFuture<Self>
    where
        Self: Sized,
    {
        TimeoutFuture::new(self, duration)
    }
}

impl<F: Future + ?Sized> FutureExt for F {}

pin_project! {
    /// The future returned by [`FutureExt::delay`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless you `.await` or poll them"]
    pub struct DelayFuture<F> {
        #[pin]
        future: F,
        // `None` after the delay.
        sleep: Option<Sleep>,
    }
}

impl<F: Future> Future for DelayFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(sleep) = this.sleep {
            ready!(Pin::new(sleep).poll(cx));
            *this.sleep = None;
        }
        this.future.poll(cx)
    }
}

pin_project! {
    /// The future returned by [`FutureExt::flatten`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless you `.await` or poll them"]
    pub struct FlattenFuture<F, G> {
        // `None` after the outer future has returned the inner future.
        #[pin]
        outer: Option<F>,
        #[pin]
        inner: Option<G>,
    }
}

impl<F> Future for FlattenFuture<F, <F::Output as IntoFuture>::IntoFuture>
where
    F: Future<Output: IntoFuture>,
{
    type Output = <F::Output as IntoFuture>::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(outer) = this.outer.as_mut().as_pin_mut() {
            let inner = ready!(outer.poll(cx)).into_future();
            this.outer.set(None);
            this.inner.set(Some(inner));
        }
        match this.inner.as_pin_mut() {
            Some(inner) => inner.poll(cx),
            // The destructor of the outer future panicked in an earlier poll.
            None => Poll::Pending,
        }
    }
}

pin_project! {
    /// The future returned by [`FutureExt::try_race`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless you `.await` or poll them"]
    pub struct TryRace<L, R> {
        // `None` after the future has failed.
        #[pin]
        left: Option<L>,
        #[pin]
        right: Option<R>,
    }
}

impl<L, R, T, E> Future for TryRace<L, R>
where
    L: Future<Output = Result<T, E>>,
    R: Future<Output = Result<T, E>>,
{
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let left = this.left.as_mut().as_pin_mut().map_or(Poll::Pending, |left| left.poll(cx));
        if let Poll::Ready(result) = left {
            if result.is_ok() || this.right.is_none() {
                return Poll::Ready(result);
            }
            this.left.set(None);
        }
        let right = this.right.as_mut().as_pin_mut().map_or(Poll::Pending, |right| right.poll(cx));
        if let Poll::Ready(result) = right {
            if result.is_ok() || this.left.is_none() {
                return Poll::Ready(result);
            }
            this.right.set(None);
        }
        Poll::Pending
    }
}

//! [`AccumulateFuture`] and [`TryFoldFuture`]: combining the items of a stream into one value.
//!
//! # Cancellation
//! Dropping the future loses the partial result. A borrowed stream can still be used.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use pin_project_lite::pin_project;

pin_project! {
    /// The future returned by [`StreamExt::sum`](super::StreamExt::sum) and
    /// [`StreamExt::product`](super::StreamExt::product).
    #[must_use = "futures do nothing unless you `.await` or poll them"]
    pub struct AccumulateFuture<S: Stream, T> {
        #[pin]
        stream: S,
        // `None` after completion or a panic of `add`.
        total: Option<T>,
        add: fn(T, S::Item) -> T,
    }
}

impl<S: Stream, T> AccumulateFuture<S, T> {
    pub(super) fn new(stream: S, start: T, add: fn(T, S::Item) -> T) -> AccumulateFuture<S, T> {
        AccumulateFuture { stream, total: Some(start), add }
    }
}

impl<S: Stream, T> Future for AccumulateFuture<S, T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let mut this = self.project();
        loop {
            let item = ready!(this.stream.as_mut().poll_next(cx));
            let total = this.total.take().expect("sum or product polled after it was ready");
            match item {
                Some(item) => *this.total = Some((this.add)(total, item)),
                None => return Poll::Ready(total),
            }
        }
    }
}

impl<S: Stream, T: fmt::Debug> fmt::Debug for AccumulateFuture<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccumulateFuture").field("total", &self.total).finish_non_exhaustive()
    }
}

/// The future returned by [`StreamExt::try_fold`](super::StreamExt::try_fold).
#[derive(Debug)]
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct TryFoldFuture<'a, S: ?Sized, F, B> {
    stream: &'a mut S,
    f: F,
    /// `None` after completion or a panic of `f`.
    partial: Option<B>,
}

impl<'a, S: ?Sized, F, B> TryFoldFuture<'a, S, F, B> {
    pub(super) fn new(stream: &'a mut S, start: B, f: F) -> TryFoldFuture<'a, S, F, B> {
        TryFoldFuture { stream, f, partial: Some(start) }
    }
}

impl<S: ?Sized, F, B> Unpin for TryFoldFuture<'_, S, F, B> {}

impl<S, F, B, E> Future for TryFoldFuture<'_, S, F, B>
where
    S: Stream + Unpin + ?Sized,
    F: FnMut(B, S::Item) -> Result<B, E>,
{
    type Output = Result<B, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            let item = ready!(Pin::new(&mut *this.stream).poll_next(cx));
            let partial = this.partial.take().expect("try_fold polled after it was ready");
            match item {
                Some(item) => this.partial = Some((this.f)(partial, item)?),
                None => return Poll::Ready(Ok(partial)),
            }
        }
    }
}

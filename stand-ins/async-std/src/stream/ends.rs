//! Double-ended streams, streams of known length, and fused streams.
//!
//! The asynchronous methods return `impl Future`, because in async-std the types of their futures
//! are private.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use super::{FromIter, Once, Pending, Stream};

/// A stream that yields items from both ends.
pub trait DoubleEndedStream: Stream {
    /// Works like `poll_next`, but returns the last remaining item instead of the first, or `None`
    /// if no items remain.
    fn poll_next_back(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>>;

    /// Returns the last remaining item, or `None` if no items remain.
    fn next_back(&mut self) -> impl Future<Output = Option<Self::Item>> + Unpin
    where
        Self: Unpin,
    {
        poll_fn(|cx| Pin::new(&mut *self).poll_next_back(cx))
    }

    /// Returns the item with index `n`, counted from 0 at the back, or `None` if the stream is
    /// shorter.
    fn nth_back(&mut self, n: usize) -> impl Future<Output = Option<Self::Item>> + Unpin
    where
        Self: Unpin + Sized,
    {
        let mut left = n;
        poll_fn(move |cx| {
            loop {
                match Pin::new(&mut *self).poll_next_back(cx) {
                    Poll::Ready(Some(_)) if left > 0 => left -= 1,
                    poll => return poll,
                }
            }
        })
    }

    /// Returns the last item for which `predicate` is true, or `None` if there is no such item.
    fn rfind<P>(&mut self, predicate: P) -> impl Future<Output = Option<Self::Item>>
    where
        Self: Unpin + Sized,
        P: FnMut(&Self::Item) -> bool,
    {
        let mut predicate = predicate;
        poll_fn(move |cx| {
            loop {
                match Pin::new(&mut *self).poll_next_back(cx) {
                    Poll::Ready(Some(item)) if !predicate(&item) => {}
                    poll => return poll,
                }
            }
        })
    }

    /// Combines all items, from the back, into one value, which is initially `accum`. Calls `f`
    /// with the value and each item, and replaces the value with the result.
    fn rfold<B, F>(self, accum: B, f: F) -> impl Future<Output = B>
    where
        Self: Sized,
        F: FnMut(B, Self::Item) -> B,
    {
        let (mut accum, mut f) = (accum, f);
        async move {
            let mut stream = pin!(self);
            while let Some(item) = poll_fn(|cx| stream.as_mut().poll_next_back(cx)).await {
                accum = f(accum, item);
            }
            accum
        }
    }

    /// Combines the items like [`rfold`](DoubleEndedStream::rfold), but stops at the first error of
    /// `f` and returns the error.
    fn try_rfold<B, F, E>(self, accum: B, f: F) -> impl Future<Output = Result<B, E>>
    where
        Self: Sized,
        F: FnMut(B, Self::Item) -> Result<B, E>,
    {
        let (mut accum, mut f) = (accum, f);
        async move {
            let mut stream = pin!(self);
            while let Some(item) = poll_fn(|cx| stream.as_mut().poll_next_back(cx)).await {
                accum = f(accum, item)?;
            }
            Ok(accum)
        }
    }
}

impl<I: DoubleEndedIterator> DoubleEndedStream for FromIter<I> {
    fn poll_next_back(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<I::Item>> {
        Poll::Ready(self.iter.next_back())
    }
}

impl<T> DoubleEndedStream for Once<T> {
    fn poll_next_back(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<T>> {
        Poll::Ready(self.item.next_back())
    }
}

impl<T> DoubleEndedStream for Pending<T> {
    fn poll_next_back(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<T>> {
        Poll::Pending
    }
}

/// A stream with a known number of remaining items.
#[allow(clippy::len_without_is_empty)] // As in async-std.
pub trait ExactSizeStream: Stream {
    /// Returns the number of remaining items.
    ///
    /// # Panics
    /// Panics if the lower and upper bounds of `size_hint` differ, or if the upper bound is
    /// unknown.
    fn len(&self) -> usize {
        let (lower, upper) = self.size_hint();
        assert_eq!(upper, Some(lower), "the size hint of an ExactSizeStream must be exact");
        lower
    }
}

impl<S: ExactSizeStream + ?Sized + Unpin> ExactSizeStream for &mut S {
    fn len(&self) -> usize {
        (**self).len()
    }
}

impl<T> ExactSizeStream for Pending<T> {
    fn len(&self) -> usize {
        0
    }
}

/// A stream that yields `None` forever after its end.
pub trait FusedStream: Stream {}

impl<S: FusedStream + ?Sized + Unpin> FusedStream for &mut S {}

impl<T> FusedStream for Pending<T> {}

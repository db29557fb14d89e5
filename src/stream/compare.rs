//! Futures that compare items: some find the least or greatest item of a stream, others compare two
//! streams item by item.

use std::cmp::Ordering;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use pin_project_lite::pin_project;

/// The type of [`Ord::cmp`] for items of type `T`.
pub(super) type Natural<T> = fn(&T, &T) -> Ordering;

pin_project! {
    /// The future returned by [`min`](super::StreamExt::min), [`max`](super::StreamExt::max),
    /// [`min_by`](super::StreamExt::min_by) and [`max_by`](super::StreamExt::max_by).
    #[must_use = "futures do nothing unless you `.await` or poll them"]
    pub struct BestFuture<S: Stream, F> {
        #[pin]
        stream: S,
        best: Option<S::Item>,
        compare: F,
        // Whether a later item replaces the current best, given the result of comparing the current
        // best with the later item.
        replaces: fn(Ordering) -> bool,
    }
}

/// Returns a future that finds the least item. Of several equal items, the future returns the
/// first, as [`Iterator`] does.
pub(super) fn least<S: Stream, F>(stream: S, compare: F) -> BestFuture<S, F> {
    BestFuture { stream, best: None, compare, replaces: Ordering::is_gt }
}

/// Returns a future that finds the greatest item. Of several equal items, the future returns the
/// last, as [`Iterator`] does.
pub(super) fn greatest<S: Stream, F>(stream: S, compare: F) -> BestFuture<S, F> {
    BestFuture { stream, best: None, compare, replaces: Ordering::is_le }
}

impl<S: Stream, F: FnMut(&S::Item, &S::Item) -> Ordering> Future for BestFuture<S, F> {
    type Output = Option<S::Item>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        while let Some(item) = ready!(this.stream.as_mut().poll_next(cx)) {
            let replaces = this.best.as_ref().is_none_or(|best| (this.replaces)((this.compare)(best, &item)));
            if replaces {
                *this.best = Some(item);
            }
        }
        Poll::Ready(this.best.take())
    }
}

impl<S: Stream, F> fmt::Debug for BestFuture<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BestFuture").finish_non_exhaustive()
    }
}

pin_project! {
    /// The future returned by [`min_by_key`](super::StreamExt::min_by_key) and
    /// [`max_by_key`](super::StreamExt::max_by_key).
    #[must_use = "futures do nothing unless you `.await` or poll them"]
    pub struct BestByKeyFuture<S: Stream, F, K> {
        #[pin]
        stream: S,
        best: Option<(K, S::Item)>,
        key: F,
        // Whether a later item replaces the current best, given the result of comparing the key of
        // the current best with the key of the later item.
        replaces: fn(Ordering) -> bool,
    }
}

/// Returns a future that finds the item with the least key. Of several items with equal keys, the
/// future returns the first, as [`Iterator`] does.
pub(super) fn least_by_key<S: Stream, F, K>(stream: S, key: F) -> BestByKeyFuture<S, F, K> {
    BestByKeyFuture { stream, best: None, key, replaces: Ordering::is_gt }
}

/// Returns a future that finds the item with the greatest key. Of several items with equal keys,
/// the future returns the last, as [`Iterator`] does.
pub(super) fn greatest_by_key<S: Stream, F, K>(stream: S, key: F) -> BestByKeyFuture<S, F, K> {
    BestByKeyFuture { stream, best: None, key, replaces: Ordering::is_le }
}

impl<S: Stream, F: FnMut(&S::Item) -> K, K: Ord> Future for BestByKeyFuture<S, F, K> {
    type Output = Option<S::Item>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        while let Some(item) = ready!(this.stream.as_mut().poll_next(cx)) {
            let key = (this.key)(&item);
            if this.best.as_ref().is_none_or(|(best, _)| (this.replaces)(best.cmp(&key))) {
                *this.best = Some((key, item));
            }
        }
        Poll::Ready(this.best.take().map(|(_, item)| item))
    }
}

impl<S: Stream, F, K> fmt::Debug for BestByKeyFuture<S, F, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BestByKeyFuture").finish_non_exhaustive()
    }
}

pin_project! {
    /// The future returned by [`cmp`](super::StreamExt::cmp),
    /// [`partial_cmp`](super::StreamExt::partial_cmp), [`eq`](super::StreamExt::eq) and the other
    /// comparisons of two streams. It stops at the first pair of items that are not equal, or when
    /// either stream has ended.
    #[must_use = "futures do nothing unless you `.await` or poll them"]
    pub struct CompareFuture<A: Stream, B: Stream, T> {
        #[pin]
        left: A,
        #[pin]
        right: B,
        // The left item, while the right item is awaited; `Some(None)` if the left stream has
        // ended.
        pending: Option<Option<A::Item>>,
        compare: fn(&A::Item, &B::Item) -> Option<Ordering>,
        answer: fn(Option<Ordering>) -> T,
    }
}

/// Returns a future that compares two streams. `answer` receives the result of comparing the first
/// unequal pair or, if all pairs are equal, the lengths.
pub(super) fn compare<A: Stream, B: Stream, T>(
    left: A,
    right: B,
    compare: fn(&A::Item, &B::Item) -> Option<Ordering>,
    answer: fn(Option<Ordering>) -> T,
) -> CompareFuture<A, B, T> {
    CompareFuture { left, right, pending: None, compare, answer }
}

impl<A: Stream, B: Stream, T> Future for CompareFuture<A, B, T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let mut this = self.project();
        let ordering = loop {
            if this.pending.is_none() {
                *this.pending = Some(ready!(this.left.as_mut().poll_next(cx)));
            }
            let right = ready!(this.right.as_mut().poll_next(cx));
            match (this.pending.take().flatten(), right) {
                (None, None) => break Some(Ordering::Equal),
                (None, Some(_)) => break Some(Ordering::Less),
                (Some(_), None) => break Some(Ordering::Greater),
                (Some(left), Some(right)) => match (this.compare)(&left, &right) {
                    Some(Ordering::Equal) => {}
                    decided => break decided,
                },
            }
        };
        Poll::Ready((this.answer)(ordering))
    }
}

impl<A: Stream, B: Stream, T> fmt::Debug for CompareFuture<A, B, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompareFuture").finish_non_exhaustive()
    }
}

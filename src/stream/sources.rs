//! [`from_fn`] and [`successors`]: streams created from closures. `futures-lite` has neither
//! function.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

/// Returns a stream that yields the values returned by `f`, until `f` returns `None`.
///
/// ```
/// use netpoll::{prelude::*, stream};
///
/// # netpoll::task::block_on(async {
/// let mut count = 0;
/// let three = stream::from_fn(|| {
///     count += 1;
///     (count <= 3).then_some(count)
/// });
/// assert_eq!(three.collect::<Vec<_>>().await, [1, 2, 3]);
/// # });
/// ```
pub fn from_fn<T, F: FnMut() -> Option<T>>(f: F) -> FromFn<F> {
    FromFn { f }
}

/// The stream returned by [`from_fn`].
#[derive(Clone)]
#[must_use = "streams do nothing unless polled"]
pub struct FromFn<F> {
    f: F,
}

impl<F> Unpin for FromFn<F> {}

impl<F> fmt::Debug for FromFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromFn").finish_non_exhaustive()
    }
}

impl<T, F: FnMut() -> Option<T>> Stream for FromFn<F> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<T>> {
        Poll::Ready((self.f)())
    }
}

/// Returns a stream that starts with the item in `first`, or is empty if `first` is `None`. Each
/// following item is the result of calling `next` with the previous item. The stream ends when
/// `next` returns `None`.
///
/// ```
/// use netpoll::{prelude::*, stream};
///
/// # netpoll::task::block_on(async {
/// let delays = stream::successors(Some(5u32), |delay| (*delay < 1000).then(|| delay * 2));
/// assert_eq!(delays.take(4).collect::<Vec<_>>().await, [5, 10, 20, 40]);
/// # });
/// ```
pub fn successors<T, F: FnMut(&T) -> Option<T>>(first: Option<T>, next: F) -> Successors<T, F> {
    Successors { item: first, next }
}

/// The stream returned by [`successors`].
#[derive(Clone)]
#[must_use = "streams do nothing unless polled"]
pub struct Successors<T, F> {
    item: Option<T>,
    next: F,
}

impl<T, F> Unpin for Successors<T, F> {}

impl<T: fmt::Debug, F> fmt::Debug for Successors<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Successors").field("item", &self.item).finish_non_exhaustive()
    }
}

impl<T, F: FnMut(&T) -> Option<T>> Stream for Successors<T, F> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<T>> {
        let this = &mut *self;
        let item = this.item.take();
        this.item = item.as_ref().and_then(&mut this.next);
        Poll::Ready(item)
    }
}

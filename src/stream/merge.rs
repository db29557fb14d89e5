//! [`Merge`]: yields the items of two streams as they arrive.
//!
//! # Invariants
//! * Fairness: the side that did not yield the last item is polled first. A side that has an item
//!   ready waits for at most one item of the other side.
//! * A stream is not polled after its end.
//!
//! async-std polls the sides in random order. This is equally fair on average, but one side may
//! have to wait longer.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use pin_project_lite::pin_project;

pin_project! {
    /// The stream returned by [`StreamExt::merge`](super::StreamExt::merge).
    #[derive(Debug)]
    #[must_use = "streams do nothing unless polled"]
    pub struct Merge<L, R> {
        // `None` after the stream has ended.
        #[pin]
        left: Option<L>,
        #[pin]
        right: Option<R>,
        right_first: bool,
    }
}

impl<L, R> Merge<L, R> {
    pub(super) fn new(left: L, right: R) -> Merge<L, R> {
        Merge { left: Some(left), right: Some(right), right_first: false }
    }
}

/// Polls a side unless it has ended. Drops the stream when it ends.
fn poll_side<S: Stream>(mut side: Pin<&mut Option<S>>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
    let Some(stream) = side.as_mut().as_pin_mut() else { return Poll::Ready(None) };
    let polled = stream.poll_next(cx);
    if matches!(polled, Poll::Ready(None)) {
        side.set(None);
    }
    polled
}

impl<T, L: Stream<Item = T>, R: Stream<Item = T>> Stream for Merge<L, R> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut this = self.project();
        let mut waiting = false;
        for right in [*this.right_first, !*this.right_first] {
            let polled = if right { poll_side(this.right.as_mut(), cx) } else { poll_side(this.left.as_mut(), cx) };
            match polled {
                Poll::Ready(Some(item)) => {
                    *this.right_first = !right;
                    return Poll::Ready(Some(item));
                }
                Poll::Ready(None) => {}
                Poll::Pending => waiting = true,
            }
        }
        if waiting { Poll::Pending } else { Poll::Ready(None) }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let hint = |hint: Option<(usize, Option<usize>)>| hint.unwrap_or((0, Some(0)));
        let (left, right) = (hint(self.left.as_ref().map(L::size_hint)), hint(self.right.as_ref().map(R::size_hint)));
        (left.0.saturating_add(right.0), left.1.zip(right.1).and_then(|(left, right)| left.checked_add(right)))
    }
}

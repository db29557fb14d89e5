//! Streams of existing values. They are types of this package, because such streams of async-std
//! are double-ended, and those of netpoll are not.

use std::iter;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::Stream;

/// The stream returned by [`from_iter`].
#[derive(Clone, Debug)]
pub struct FromIter<I> {
    pub(super) iter: I,
}

impl<I> Unpin for FromIter<I> {}

/// Creates a stream of the items of an iterator.
pub fn from_iter<I: IntoIterator>(iter: I) -> FromIter<I::IntoIter> {
    FromIter { iter: iter.into_iter() }
}

impl<I: Iterator> Stream for FromIter<I> {
    type Item = I::Item;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<I::Item>> {
        Poll::Ready(self.iter.next())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.iter.size_hint()
    }
}

/// The stream returned by [`once`].
#[derive(Clone, Debug)]
pub struct Once<T> {
    pub(super) item: iter::Once<T>,
}

impl<T> Unpin for Once<T> {}

/// Creates a stream of one item.
pub fn once<T>(item: T) -> Once<T> {
    Once { item: iter::once(item) }
}

impl<T> Stream for Once<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<T>> {
        Poll::Ready(self.item.next())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.item.size_hint()
    }
}

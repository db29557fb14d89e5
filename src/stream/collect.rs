//! [`FromStream`]: the types that [`StreamExt::collect`](super::StreamExt::collect) can create.
//!
//! std's `FromIterator` pulls its items from an iterator and cannot wait for them. `FromStream` is
//! therefore driven by its caller, which calls `begin` once, `push` for each item, and `finish`.
//! `push` can end the collection early; `Result` and `Option` do this at the first failure.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, LinkedList, VecDeque};
use std::future::Future;
use std::hash::{BuildHasher, Hash};
use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use pin_project_lite::pin_project;

/// A type that a stream of `T` can be collected into.
///
/// The trait is implemented for std's collections, `String`, `Box<[T]>`, `()`, and `Result` and
/// `Option` of any type that implements it. async-std's trait of this name receives the whole
/// stream. An implementation of this trait receives one item at a time:
///
/// ```
/// use netpoll::{prelude::*, stream::{self, FromStream}};
/// use std::ops::ControlFlow;
///
/// struct Sum(u64);
///
/// impl FromStream<u64> for Sum {
///     type Partial = u64;
///     fn begin(_items_min: usize) -> u64 {
///         0
///     }
///     fn push(sum: &mut u64, item: u64) -> ControlFlow<()> {
///         *sum += item;
///         ControlFlow::Continue(())
///     }
///     fn finish(sum: u64) -> Sum {
///         Sum(sum)
///     }
/// }
///
/// # netpoll::task::block_on(async {
/// let Sum(sum) = stream::from_iter([1, 2, 3]).collect().await;
/// assert_eq!(sum, 6);
/// # });
/// ```
pub trait FromStream<T>: Sized {
    /// The type of the value under construction.
    type Partial;

    /// Creates an empty value. `items_min` is the stream's lower bound for the number of items, or
    /// 0 for the value in a `Result` or `Option`. Treat it as a hint.
    fn begin(items_min: usize) -> Self::Partial;

    /// Adds an item. If this function returns `Break`, the stream is not polled again.
    fn push(partial: &mut Self::Partial, item: T) -> ControlFlow<()>;

    /// Returns the completed value.
    fn finish(partial: Self::Partial) -> Self;
}

/// The maximum number of items for which the size hint of a stream reserves capacity.
const RESERVE_ITEMS_MAX: usize = 4096;

/// Implements `FromStream` for types that have `extend`.
macro_rules! extend {
    ($([$($generics:tt)*] $type:ty, $item:ty, $min:pat => $begin:expr;)*) => {$(
        impl<$($generics)*> FromStream<$item> for $type {
            type Partial = $type;

            fn begin($min: usize) -> $type {
                $begin
            }

            fn push(partial: &mut $type, item: $item) -> ControlFlow<()> {
                partial.extend([item]);
                ControlFlow::Continue(())
            }

            fn finish(partial: $type) -> $type {
                partial
            }
        }
    )*};
}

extend! {
    [T] VecDeque<T>, T, min => VecDeque::with_capacity(min.min(RESERVE_ITEMS_MAX));
    [T] LinkedList<T>, T, _ => LinkedList::new();
    [T: Ord] BinaryHeap<T>, T, _ => BinaryHeap::new();
    [T: Ord] BTreeSet<T>, T, _ => BTreeSet::new();
    [K: Ord, V] BTreeMap<K, V>, (K, V), _ => BTreeMap::new();
    [T: Eq + Hash, S: BuildHasher + Default] HashSet<T, S>, T, _ => HashSet::default();
    [K: Eq + Hash, V, S: BuildHasher + Default] HashMap<K, V, S>, (K, V), _ => HashMap::default();
    [] String, char, _ => String::new();
    ['a] String, &'a char, _ => String::new();
    ['a] String, &'a str, _ => String::new();
    [] String, String, _ => String::new();
    [] (), (), _ => ();
}

impl<T> FromStream<T> for Vec<T> {
    type Partial = Vec<T>;

    fn begin(items_min: usize) -> Vec<T> {
        Vec::with_capacity(items_min.min(RESERVE_ITEMS_MAX))
    }

    fn push(partial: &mut Vec<T>, item: T) -> ControlFlow<()> {
        partial.push(item);
        ControlFlow::Continue(())
    }

    fn finish(partial: Vec<T>) -> Vec<T> {
        partial
    }
}

impl<T> FromStream<T> for Box<[T]> {
    type Partial = Vec<T>;

    fn begin(items_min: usize) -> Vec<T> {
        <Vec<T> as FromStream<T>>::begin(items_min)
    }

    fn push(partial: &mut Vec<T>, item: T) -> ControlFlow<()> {
        Vec::<T>::push(partial, item);
        ControlFlow::Continue(())
    }

    fn finish(partial: Vec<T>) -> Box<[T]> {
        partial.into_boxed_slice()
    }
}

impl<T, E, C: FromStream<T>> FromStream<Result<T, E>> for Result<C, E> {
    type Partial = Result<C::Partial, E>;

    fn begin(_: usize) -> Self::Partial {
        // No capacity is reserved, because the first item may be an error.
        Ok(C::begin(0))
    }

    fn push(partial: &mut Self::Partial, item: Result<T, E>) -> ControlFlow<()> {
        match (partial, item) {
            (Ok(partial), Ok(item)) => C::push(partial, item),
            (partial, Err(error)) => {
                *partial = Err(error);
                ControlFlow::Break(())
            }
            (Err(_), Ok(_)) => ControlFlow::Break(()),
        }
    }

    fn finish(partial: Self::Partial) -> Result<C, E> {
        partial.map(C::finish)
    }
}

impl<T, C: FromStream<T>> FromStream<Option<T>> for Option<C> {
    type Partial = Option<C::Partial>;

    fn begin(_: usize) -> Self::Partial {
        Some(C::begin(0))
    }

    fn push(partial: &mut Self::Partial, item: Option<T>) -> ControlFlow<()> {
        match (partial.as_mut(), item) {
            (Some(partial), Some(item)) => C::push(partial, item),
            _ => {
                *partial = None;
                ControlFlow::Break(())
            }
        }
    }

    fn finish(partial: Self::Partial) -> Option<C> {
        partial.map(C::finish)
    }
}

pin_project! {
    /// The future returned by [`StreamExt::collect`](super::StreamExt::collect).
    #[must_use = "futures do nothing unless you `.await` or poll them"]
    pub struct CollectFuture<S, C>
    where
        S: Stream,
        C: FromStream<S::Item>,
    {
        #[pin]
        stream: S,
        // `None` after completion.
        partial: Option<C::Partial>,
    }
}

impl<S: Stream, C: FromStream<S::Item>> CollectFuture<S, C> {
    pub(super) fn new(stream: S) -> CollectFuture<S, C> {
        let partial = Some(C::begin(stream.size_hint().0));
        CollectFuture { stream, partial }
    }
}

impl<S: Stream + std::fmt::Debug, C: FromStream<S::Item>> std::fmt::Debug for CollectFuture<S, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CollectFuture").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl<S: Stream, C: FromStream<S::Item>> Future for CollectFuture<S, C> {
    type Output = C;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C> {
        let mut this = self.project();
        let partial = this.partial.as_mut().expect("collect polled after it was ready");
        while let Some(item) = ready!(this.stream.as_mut().poll_next(cx)) {
            if C::push(partial, item).is_break() {
                break;
            }
        }
        Poll::Ready(C::finish(this.partial.take().expect("partial was checked above")))
    }
}

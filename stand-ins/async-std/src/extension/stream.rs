//! Extension methods for streams.

use std::cmp::Ordering;

use netpoll::stream::{
    AllFuture, AnyFuture, BestByKeyFuture, BestFuture, CompareFuture, Cycle, Enumerate, FilterMap, FindFuture,
    FindMapFuture, FoldFuture, ForEachFuture, LastFuture, NextFuture, NthFuture, PositionFuture, StreamExt as Ours,
    TryFoldFuture, TryForEachFuture,
};
#[cfg(feature = "unstable")]
use {
    crate::stream::{FlatMap, Flatten, FromStream, IntoStream, Merge, Product, Sum, Timeout},
    netpoll::stream::{CountFuture, Delay, PartitionFuture, Throttle, UnzipFuture},
    std::future::Future,
    std::pin::Pin,
    std::time::Duration,
};

use crate::stream::{
    Chain, Cloned, Copied, Filter, Fuse, Inspect, Map, Scan, Skip, SkipWhile, StepBy, Stream, Take, TakeWhile, Zip,
};

/// The type of a function that compares items by their natural order.
type Natural<T> = fn(&T, &T) -> Ordering;

/// Extension methods for streams. See netpoll's [`StreamExt`](netpoll::stream::StreamExt) for
/// details.
pub trait StreamExt: Stream {
    /// Returns the next item, or `None` after the last one.
    fn next(&mut self) -> NextFuture<'_, Self>
    where
        Self: Unpin,
    {
        Ours::next(self)
    }

    /// Returns a stream of the first `n` items.
    fn take(self, n: usize) -> Take<Self>
    where
        Self: Sized,
    {
        Ours::take(self, n)
    }

    /// Returns a stream that yields items while `predicate` is true, and then ends.
    fn take_while<P>(self, predicate: P) -> TakeWhile<Self, P>
    where
        Self: Sized,
        P: FnMut(&Self::Item) -> bool,
    {
        Ours::take_while(self, predicate)
    }

    /// Returns a stream that yields the items at least `duration` apart.
    #[cfg(feature = "unstable")]
    fn throttle(self, duration: Duration) -> Throttle<Self>
    where
        Self: Sized,
    {
        Ours::throttle(self, duration)
    }

    /// Returns a stream of every `step`th item, beginning with the first.
    ///
    /// # Panics
    /// Panics if `step` is 0.
    fn step_by(self, step: usize) -> StepBy<Self>
    where
        Self: Sized,
    {
        Ours::step_by(self, step)
    }

    /// Returns a stream of the items of this stream, followed by those of `other`.
    fn chain<U>(self, other: U) -> Chain<Self, U>
    where
        Self: Sized,
        U: Stream<Item = Self::Item> + Sized,
    {
        Ours::chain(self, other)
    }

    /// Returns a stream of clones of the items.
    fn cloned<'a, T>(self) -> Cloned<Self>
    where
        Self: Sized + Stream<Item = &'a T>,
        T: Clone + 'a,
    {
        Ours::cloned(self)
    }

    /// Returns a stream of copies of the items.
    fn copied<'a, T>(self) -> Copied<Self>
    where
        Self: Sized + Stream<Item = &'a T>,
        T: Copy + 'a,
    {
        Ours::copied(self)
    }

    /// Returns a stream that repeats this stream forever, each time from a clone of its initial
    /// state. An empty stream stays empty.
    fn cycle(self) -> Cycle<Self>
    where
        Self: Clone + Sized,
    {
        Ours::cycle(self)
    }

    /// Returns a stream of pairs of an index, counted from 0, and an item.
    fn enumerate(self) -> Enumerate<Self>
    where
        Self: Sized,
    {
        Ours::enumerate(self)
    }

    /// Delays the first poll of this stream until `duration` has passed since this call.
    #[cfg(feature = "unstable")]
    fn delay(self, duration: Duration) -> Delay<Self>
    where
        Self: Sized,
    {
        Ours::delay(self, duration)
    }

    /// Calls `f` with each item and returns a stream of the results.
    fn map<B, F>(self, f: F) -> Map<Self, F>
    where
        Self: Sized,
        F: FnMut(Self::Item) -> B,
    {
        Ours::map(self, f)
    }

    /// Returns a stream that calls `f` with a reference to each item before it yields the item.
    fn inspect<F>(self, f: F) -> Inspect<Self, F>
    where
        Self: Sized,
        F: FnMut(&Self::Item),
    {
        Ours::inspect(self, f)
    }

    /// Returns the last item, or `None` if the stream is empty.
    fn last(self) -> LastFuture<Self>
    where
        Self: Sized,
    {
        Ours::last(self)
    }

    /// Returns a stream that yields `None` forever after its end.
    fn fuse(self) -> Fuse<Self>
    where
        Self: Sized,
    {
        Ours::fuse(self)
    }

    /// Returns a stream of the items for which `predicate` is true.
    fn filter<P>(self, predicate: P) -> Filter<Self, P>
    where
        Self: Sized,
        P: FnMut(&Self::Item) -> bool,
    {
        Ours::filter(self, predicate)
    }

    /// Calls `f` with each item and returns a stream of the items of the resulting streams, one
    /// stream after the other.
    #[cfg(feature = "unstable")]
    fn flat_map<U, F>(self, f: F) -> FlatMap<Self, U, F>
    where
        Self: Sized,
        U: Stream,
        F: FnMut(Self::Item) -> U,
    {
        Ours::flat_map(self, f)
    }

    /// Flattens a stream of streams: returns a stream of the items of each inner stream, one stream
    /// after the other.
    #[cfg(feature = "unstable")]
    fn flatten(self) -> Flatten<Self>
    where
        Self: Sized,
        Self::Item: IntoStream,
    {
        Flatten::new(self)
    }

    /// Calls `f` with each item and returns a stream of the values inside the `Some` results.
    fn filter_map<B, F>(self, f: F) -> FilterMap<Self, F>
    where
        Self: Sized,
        F: FnMut(Self::Item) -> Option<B>,
    {
        Ours::filter_map(self, f)
    }

    /// Returns the first item with the smallest key, or `None` if the stream is empty.
    fn min_by_key<B, F>(self, key: F) -> BestByKeyFuture<Self, F, B>
    where
        Self: Sized,
        B: Ord,
        F: FnMut(&Self::Item) -> B,
    {
        Ours::min_by_key(self, key)
    }

    /// Returns the last item with the largest key, or `None` if the stream is empty.
    fn max_by_key<B, F>(self, key: F) -> BestByKeyFuture<Self, F, B>
    where
        Self: Sized,
        B: Ord,
        F: FnMut(&Self::Item) -> B,
    {
        Ours::max_by_key(self, key)
    }

    /// Returns the smallest item according to `compare`, or `None` if the stream is empty. Of
    /// several equal items, returns the first.
    fn min_by<F>(self, compare: F) -> BestFuture<Self, F>
    where
        Self: Sized,
        F: FnMut(&Self::Item, &Self::Item) -> Ordering,
    {
        Ours::min_by(self, compare)
    }

    /// Returns the largest item, or `None` if the stream is empty. Of several equal items, returns
    /// the last.
    fn max(self) -> BestFuture<Self, Natural<Self::Item>>
    where
        Self: Sized,
        Self::Item: Ord,
    {
        Ours::max(self)
    }

    /// Returns the smallest item, or `None` if the stream is empty. Of several equal items, returns
    /// the first.
    fn min(self) -> BestFuture<Self, Natural<Self::Item>>
    where
        Self: Sized,
        Self::Item: Ord,
    {
        Ours::min(self)
    }

    /// Returns the largest item according to `compare`, or `None` if the stream is empty. Of
    /// several equal items, returns the last.
    fn max_by<F>(self, compare: F) -> BestFuture<Self, F>
    where
        Self: Sized,
        F: FnMut(&Self::Item, &Self::Item) -> Ordering,
    {
        Ours::max_by(self, compare)
    }

    /// Returns the item with index `n`, counted from 0, or `None` if the stream is shorter.
    fn nth(&mut self, n: usize) -> NthFuture<'_, Self>
    where
        Self: Unpin + Sized,
    {
        Ours::nth(self, n)
    }

    /// Returns whether `f` is true for all items. For an empty stream, returns true.
    fn all<F>(&mut self, f: F) -> AllFuture<'_, Self, F>
    where
        Self: Unpin + Sized,
        F: FnMut(Self::Item) -> bool,
    {
        Ours::all(self, f)
    }

    /// Returns the first item for which `predicate` is true, or `None` if there is no such item.
    fn find<P>(&mut self, predicate: P) -> FindFuture<'_, Self, P>
    where
        Self: Unpin + Sized,
        P: FnMut(&Self::Item) -> bool,
    {
        Ours::find(self, predicate)
    }

    /// Calls `f` with each item and returns the first result that is `Some`, or `None` if all
    /// results are `None`.
    fn find_map<F, B>(&mut self, f: F) -> FindMapFuture<'_, Self, F>
    where
        Self: Unpin + Sized,
        F: FnMut(Self::Item) -> Option<B>,
    {
        Ours::find_map(self, f)
    }

    /// Combines all items into one value, which is initially `init`. Calls `f` with the value and
    /// each item, and replaces the value with the result.
    fn fold<B, F>(self, init: B, f: F) -> FoldFuture<Self, F, B>
    where
        Self: Sized,
        F: FnMut(B, Self::Item) -> B,
    {
        Ours::fold(self, init, f)
    }

    /// Collects the items into two collections: those for which `f` is true, and the others.
    #[cfg(feature = "unstable")]
    fn partition<B, F>(self, f: F) -> PartitionFuture<Self, F, B>
    where
        Self: Sized,
        F: FnMut(&Self::Item) -> bool,
        B: Default + Extend<Self::Item>,
    {
        Ours::partition(self, f)
    }

    /// Calls `f` with each item.
    fn for_each<F>(self, f: F) -> ForEachFuture<Self, F>
    where
        Self: Sized,
        F: FnMut(Self::Item),
    {
        Ours::for_each(self, f)
    }

    /// Returns whether `f` is true for at least one item. For an empty stream, returns false.
    fn any<F>(&mut self, f: F) -> AnyFuture<'_, Self, F>
    where
        Self: Unpin + Sized,
        F: FnMut(Self::Item) -> bool,
    {
        Ours::any(self, f)
    }

    /// Returns the stream as a mutable reference, so that an adapter does not consume the stream.
    #[cfg(feature = "unstable")]
    fn by_ref(&mut self) -> &mut Self {
        self
    }

    /// Calls `f` with a mutable state, which is initially `initial_state`, and with each item.
    /// Returns a stream of the values inside the `Some` results. The stream ends when `f` returns
    /// `None`.
    fn scan<St, B, F>(self, initial_state: St, f: F) -> Scan<Self, St, F>
    where
        Self: Sized,
        F: FnMut(&mut St, Self::Item) -> Option<B>,
    {
        Ours::scan(self, initial_state, f)
    }

    /// Skips items while `predicate` is true, and returns a stream of the rest.
    fn skip_while<P>(self, predicate: P) -> SkipWhile<Self, P>
    where
        Self: Sized,
        P: FnMut(&Self::Item) -> bool,
    {
        Ours::skip_while(self, predicate)
    }

    /// Returns a stream of the items after the first `n`.
    fn skip(self, n: usize) -> Skip<Self>
    where
        Self: Sized,
    {
        Ours::skip(self, n)
    }

    /// Returns a stream that yields each item as `Ok`, and an `Err` whenever no item arrives within
    /// `duration`.
    #[cfg(feature = "unstable")]
    fn timeout(self, duration: Duration) -> Timeout<Self>
    where
        Self: Stream + Sized,
    {
        Ours::timeout(self, duration)
    }

    /// Combines the items like [`fold`](StreamExt::fold), but stops at the first error of `f` and
    /// returns the error.
    fn try_fold<B, F, E>(&mut self, init: B, f: F) -> TryFoldFuture<'_, Self, F, B>
    where
        Self: Unpin + Sized,
        F: FnMut(B, Self::Item) -> Result<B, E>,
    {
        Ours::try_fold(self, init, f)
    }

    /// Calls `f` with each item. Stops at the first error of `f` and returns the error. Returns
    /// `Ok(())` after the last item.
    fn try_for_each<F, E>(&mut self, f: F) -> TryForEachFuture<'_, Self, F>
    where
        Self: Unpin + Sized,
        F: FnMut(Self::Item) -> Result<(), E>,
    {
        Ours::try_for_each(self, f)
    }

    /// Returns a stream of pairs of an item of this stream and an item of `other`, until either
    /// ends.
    fn zip<U>(self, other: U) -> Zip<Self, U>
    where
        Self: Sized,
        U: Stream + Sized,
    {
        Ours::zip(self, other)
    }

    /// Splits a stream of pairs into two collections.
    #[cfg(feature = "unstable")]
    fn unzip<A, B, FromA, FromB>(self) -> UnzipFuture<Self, FromA, FromB>
    where
        FromA: Default + Extend<A>,
        FromB: Default + Extend<B>,
        Self: Stream<Item = (A, B)> + Sized,
    {
        Ours::unzip(self)
    }

    /// Collects all items into a collection.
    #[cfg(feature = "unstable")]
    fn collect<'a, B>(self) -> Pin<Box<dyn Future<Output = B> + Send + 'a>>
    where
        Self: Sized + Send + 'a,
        B: FromStream<Self::Item>,
        Self::Item: Send,
    {
        FromStream::from_stream(self)
    }

    /// Returns a stream of the items of both streams, in the order in which the items arrive.
    #[cfg(feature = "unstable")]
    fn merge<U>(self, other: U) -> Merge<Self, U>
    where
        Self: Sized,
        U: Stream<Item = Self::Item> + Sized,
    {
        Ours::merge(self, other)
    }

    /// Compares the streams lexicographically by the partial order of their items.
    fn partial_cmp<S>(self, other: S) -> CompareFuture<Self, S, Option<Ordering>>
    where
        Self: Sized,
        S: Stream,
        Self::Item: PartialOrd<S::Item>,
    {
        Ours::partial_cmp(self, other)
    }

    /// Returns the index of the first item for which `predicate` is true, or `None` if there is no
    /// such item.
    fn position<P>(&mut self, predicate: P) -> PositionFuture<'_, Self, P>
    where
        Self: Unpin + Sized,
        P: FnMut(Self::Item) -> bool,
    {
        Ours::position(self, predicate)
    }

    /// Compares the streams lexicographically by the total order of their items.
    fn cmp<S>(self, other: S) -> CompareFuture<Self, S, Ordering>
    where
        Self: Sized,
        S: Stream<Item = Self::Item>,
        Self::Item: Ord,
    {
        Ours::cmp(self, other)
    }

    /// Returns the number of items.
    #[cfg(feature = "unstable")]
    fn count(self) -> CountFuture<Self>
    where
        Self: Sized,
    {
        Ours::count(self)
    }

    /// Returns whether the streams differ in length or in at least one item.
    fn ne<S>(self, other: S) -> CompareFuture<Self, S, bool>
    where
        Self: Sized,
        S: Sized + Stream,
        Self::Item: PartialEq<S::Item>,
    {
        Ours::ne(self, other)
    }

    /// Returns whether the streams have equal items and the same length.
    fn eq<S>(self, other: S) -> CompareFuture<Self, S, bool>
    where
        Self: Sized,
        S: Sized + Stream,
        Self::Item: PartialEq<S::Item>,
    {
        Ours::eq(self, other)
    }

    /// Returns whether this stream is lexicographically greater than or equal to `other`.
    fn ge<S>(self, other: S) -> CompareFuture<Self, S, bool>
    where
        Self: Sized,
        S: Stream,
        Self::Item: PartialOrd<S::Item>,
    {
        Ours::ge(self, other)
    }

    /// Returns whether this stream is lexicographically greater than `other`.
    fn gt<S>(self, other: S) -> CompareFuture<Self, S, bool>
    where
        Self: Sized,
        S: Stream,
        Self::Item: PartialOrd<S::Item>,
    {
        Ours::gt(self, other)
    }

    /// Returns whether this stream is lexicographically less than or equal to `other`.
    fn le<S>(self, other: S) -> CompareFuture<Self, S, bool>
    where
        Self: Sized,
        S: Stream,
        Self::Item: PartialOrd<S::Item>,
    {
        Ours::le(self, other)
    }

    /// Returns whether this stream is lexicographically less than `other`.
    fn lt<S>(self, other: S) -> CompareFuture<Self, S, bool>
    where
        Self: Sized,
        S: Stream,
        Self::Item: PartialOrd<S::Item>,
    {
        Ours::lt(self, other)
    }

    /// Returns the sum of all items.
    #[cfg(feature = "unstable")]
    fn sum<'a, S>(self) -> Pin<Box<dyn Future<Output = S> + 'a>>
    where
        Self: Sized + Stream<Item = S> + 'a,
        S: Sum<Self::Item>,
    {
        Sum::sum(self)
    }

    /// Returns the product of all items.
    #[cfg(feature = "unstable")]
    fn product<'a, P>(self) -> Pin<Box<dyn Future<Output = P> + 'a>>
    where
        Self: Sized + Stream<Item = P> + 'a,
        P: Product,
    {
        Product::product(self)
    }
}

impl<T: Stream + ?Sized> StreamExt for T {}

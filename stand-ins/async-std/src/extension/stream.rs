//! Methods of streams.

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

/// The order of the items themselves.
type Natural<T> = fn(&T, &T) -> Ordering;

/// Methods of streams: those of netpoll's [`StreamExt`](netpoll::stream::StreamExt), which documents them.
pub trait StreamExt: Stream {
    /// The next item; `None` after the last one.
    fn next(&mut self) -> NextFuture<'_, Self>
    where
        Self: Unpin,
    {
        Ours::next(self)
    }

    /// The first `n` items.
    fn take(self, n: usize) -> Take<Self>
    where
        Self: Sized,
    {
        Ours::take(self, n)
    }

    /// The items before the first for which `predicate` is false.
    fn take_while<P>(self, predicate: P) -> TakeWhile<Self, P>
    where
        Self: Sized,
        P: FnMut(&Self::Item) -> bool,
    {
        Ours::take_while(self, predicate)
    }

    /// The same items, at least `duration` apart.
    #[cfg(feature = "unstable")]
    fn throttle(self, duration: Duration) -> Throttle<Self>
    where
        Self: Sized,
    {
        Ours::throttle(self, duration)
    }

    /// Every `step`th item, from the first on.
    fn step_by(self, step: usize) -> StepBy<Self>
    where
        Self: Sized,
    {
        Ours::step_by(self, step)
    }

    /// These items, then those of `other`.
    fn chain<U>(self, other: U) -> Chain<Self, U>
    where
        Self: Sized,
        U: Stream<Item = Self::Item> + Sized,
    {
        Ours::chain(self, other)
    }

    /// Clones of the items.
    fn cloned<'a, T>(self) -> Cloned<Self>
    where
        Self: Sized + Stream<Item = &'a T>,
        T: Clone + 'a,
    {
        Ours::cloned(self)
    }

    /// Copies of the items.
    fn copied<'a, T>(self) -> Copied<Self>
    where
        Self: Sized + Stream<Item = &'a T>,
        T: Copy + 'a,
    {
        Ours::copied(self)
    }

    /// The items again and again.
    fn cycle(self) -> Cycle<Self>
    where
        Self: Clone + Sized,
    {
        Ours::cycle(self)
    }

    /// Each item with its number, from 0.
    fn enumerate(self) -> Enumerate<Self>
    where
        Self: Sized,
    {
        Ours::enumerate(self)
    }

    /// The same items, the first of them after `duration`.
    #[cfg(feature = "unstable")]
    fn delay(self, duration: Duration) -> Delay<Self>
    where
        Self: Sized,
    {
        Ours::delay(self, duration)
    }

    /// The results of `f`.
    fn map<B, F>(self, f: F) -> Map<Self, F>
    where
        Self: Sized,
        F: FnMut(Self::Item) -> B,
    {
        Ours::map(self, f)
    }

    /// The same items, shown to `f` as they pass.
    fn inspect<F>(self, f: F) -> Inspect<Self, F>
    where
        Self: Sized,
        F: FnMut(&Self::Item),
    {
        Ours::inspect(self, f)
    }

    /// The last item.
    fn last(self) -> LastFuture<Self>
    where
        Self: Sized,
    {
        Ours::last(self)
    }

    /// A stream that yields `None` forever after its end.
    fn fuse(self) -> Fuse<Self>
    where
        Self: Sized,
    {
        Ours::fuse(self)
    }

    /// The items for which `predicate` is true.
    fn filter<P>(self, predicate: P) -> Filter<Self, P>
    where
        Self: Sized,
        P: FnMut(&Self::Item) -> bool,
    {
        Ours::filter(self, predicate)
    }

    /// The items of the streams that `f` returns, one stream after the other.
    #[cfg(feature = "unstable")]
    fn flat_map<U, F>(self, f: F) -> FlatMap<Self, U, F>
    where
        Self: Sized,
        U: Stream,
        F: FnMut(Self::Item) -> U,
    {
        Ours::flat_map(self, f)
    }

    /// The items of the streams that are this one's items, one stream after the other.
    #[cfg(feature = "unstable")]
    fn flatten(self) -> Flatten<Self>
    where
        Self: Sized,
        Self::Item: IntoStream,
    {
        Flatten::new(self)
    }

    /// The results of `f` that are `Some`.
    fn filter_map<B, F>(self, f: F) -> FilterMap<Self, F>
    where
        Self: Sized,
        F: FnMut(Self::Item) -> Option<B>,
    {
        Ours::filter_map(self, f)
    }

    /// The first item with the smallest key.
    fn min_by_key<B, F>(self, key: F) -> BestByKeyFuture<Self, F, B>
    where
        Self: Sized,
        B: Ord,
        F: FnMut(&Self::Item) -> B,
    {
        Ours::min_by_key(self, key)
    }

    /// An item with the largest key.
    fn max_by_key<B, F>(self, key: F) -> BestByKeyFuture<Self, F, B>
    where
        Self: Sized,
        B: Ord,
        F: FnMut(&Self::Item) -> B,
    {
        Ours::max_by_key(self, key)
    }

    /// The smallest item by `compare`.
    fn min_by<F>(self, compare: F) -> BestFuture<Self, F>
    where
        Self: Sized,
        F: FnMut(&Self::Item, &Self::Item) -> Ordering,
    {
        Ours::min_by(self, compare)
    }

    /// The largest item.
    fn max(self) -> BestFuture<Self, Natural<Self::Item>>
    where
        Self: Sized,
        Self::Item: Ord,
    {
        Ours::max(self)
    }

    /// The smallest item.
    fn min(self) -> BestFuture<Self, Natural<Self::Item>>
    where
        Self: Sized,
        Self::Item: Ord,
    {
        Ours::min(self)
    }

    /// The largest item by `compare`.
    fn max_by<F>(self, compare: F) -> BestFuture<Self, F>
    where
        Self: Sized,
        F: FnMut(&Self::Item, &Self::Item) -> Ordering,
    {
        Ours::max_by(self, compare)
    }

    /// The item number `n`, counted from 0.
    fn nth(&mut self, n: usize) -> NthFuture<'_, Self>
    where
        Self: Unpin + Sized,
    {
        Ours::nth(self, n)
    }

    /// Whether `f` is true for all items.
    fn all<F>(&mut self, f: F) -> AllFuture<'_, Self, F>
    where
        Self: Unpin + Sized,
        F: FnMut(Self::Item) -> bool,
    {
        Ours::all(self, f)
    }

    /// The first item for which `predicate` is true.
    fn find<P>(&mut self, predicate: P) -> FindFuture<'_, Self, P>
    where
        Self: Unpin + Sized,
        P: FnMut(&Self::Item) -> bool,
    {
        Ours::find(self, predicate)
    }

    /// The first result of `f` that is `Some`.
    fn find_map<F, B>(&mut self, f: F) -> FindMapFuture<'_, Self, F>
    where
        Self: Unpin + Sized,
        F: FnMut(Self::Item) -> Option<B>,
    {
        Ours::find_map(self, f)
    }

    /// All items, folded into `init` by `f`.
    fn fold<B, F>(self, init: B, f: F) -> FoldFuture<Self, F, B>
    where
        Self: Sized,
        F: FnMut(B, Self::Item) -> B,
    {
        Ours::fold(self, init, f)
    }

    /// Two collections: the items for which `f` is true, and the others.
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

    /// Whether `f` is true for an item.
    fn any<F>(&mut self, f: F) -> AnyFuture<'_, Self, F>
    where
        Self: Unpin + Sized,
        F: FnMut(Self::Item) -> bool,
    {
        Ours::any(self, f)
    }

    /// A reference that adapters can take instead of the stream.
    #[cfg(feature = "unstable")]
    fn by_ref(&mut self) -> &mut Self {
        self
    }

    /// The results of `f`, which keeps a state, up to the first `None`.
    fn scan<St, B, F>(self, initial_state: St, f: F) -> Scan<Self, St, F>
    where
        Self: Sized,
        F: FnMut(&mut St, Self::Item) -> Option<B>,
    {
        Ours::scan(self, initial_state, f)
    }

    /// The items from the first on for which `predicate` is false.
    fn skip_while<P>(self, predicate: P) -> SkipWhile<Self, P>
    where
        Self: Sized,
        P: FnMut(&Self::Item) -> bool,
    {
        Ours::skip_while(self, predicate)
    }

    /// The items after the first `n`.
    fn skip(self, n: usize) -> Skip<Self>
    where
        Self: Sized,
    {
        Ours::skip(self, n)
    }

    /// The items, with an error for each `duration` that passes without one.
    #[cfg(feature = "unstable")]
    fn timeout(self, duration: Duration) -> Timeout<Self>
    where
        Self: Stream + Sized,
    {
        Ours::timeout(self, duration)
    }

    /// All items, folded into `init` by `f`, or the first error of `f`.
    fn try_fold<B, F, E>(&mut self, init: B, f: F) -> TryFoldFuture<'_, Self, F, B>
    where
        Self: Unpin + Sized,
        F: FnMut(B, Self::Item) -> Result<B, E>,
    {
        Ours::try_fold(self, init, f)
    }

    /// Calls `f` with each item, up to its first error.
    fn try_for_each<F, E>(&mut self, f: F) -> TryForEachFuture<'_, Self, F>
    where
        Self: Unpin + Sized,
        F: FnMut(Self::Item) -> Result<(), E>,
    {
        Ours::try_for_each(self, f)
    }

    /// Pairs of these items and those of `other`.
    fn zip<U>(self, other: U) -> Zip<Self, U>
    where
        Self: Sized,
        U: Stream + Sized,
    {
        Ours::zip(self, other)
    }

    /// All items, which are pairs, as two collections.
    #[cfg(feature = "unstable")]
    fn unzip<A, B, FromA, FromB>(self) -> UnzipFuture<Self, FromA, FromB>
    where
        FromA: Default + Extend<A>,
        FromB: Default + Extend<B>,
        Self: Stream<Item = (A, B)> + Sized,
    {
        Ours::unzip(self)
    }

    /// All items in a collection.
    #[cfg(feature = "unstable")]
    fn collect<'a, B>(self) -> Pin<Box<dyn Future<Output = B> + Send + 'a>>
    where
        Self: Sized + Send + 'a,
        B: FromStream<Self::Item>,
        Self::Item: Send,
    {
        FromStream::from_stream(self)
    }

    /// The items of both as they come.
    #[cfg(feature = "unstable")]
    fn merge<U>(self, other: U) -> Merge<Self, U>
    where
        Self: Sized,
        U: Stream<Item = Self::Item> + Sized,
    {
        Ours::merge(self, other)
    }

    /// Compares the items of both in order.
    fn partial_cmp<S>(self, other: S) -> CompareFuture<Self, S, Option<Ordering>>
    where
        Self: Sized,
        S: Stream,
        Self::Item: PartialOrd<S::Item>,
    {
        Ours::partial_cmp(self, other)
    }

    /// The number of the first item for which `predicate` is true.
    fn position<P>(&mut self, predicate: P) -> PositionFuture<'_, Self, P>
    where
        Self: Unpin + Sized,
        P: FnMut(Self::Item) -> bool,
    {
        Ours::position(self, predicate)
    }

    /// Compares the items of both in order.
    fn cmp<S>(self, other: S) -> CompareFuture<Self, S, Ordering>
    where
        Self: Sized,
        S: Stream<Item = Self::Item>,
        Self::Item: Ord,
    {
        Ours::cmp(self, other)
    }

    /// The number of items.
    #[cfg(feature = "unstable")]
    fn count(self) -> CountFuture<Self>
    where
        Self: Sized,
    {
        Ours::count(self)
    }

    /// Whether the items of both differ.
    fn ne<S>(self, other: S) -> CompareFuture<Self, S, bool>
    where
        Self: Sized,
        S: Sized + Stream,
        Self::Item: PartialEq<S::Item>,
    {
        Ours::ne(self, other)
    }

    /// Whether the items of both are equal.
    fn eq<S>(self, other: S) -> CompareFuture<Self, S, bool>
    where
        Self: Sized,
        S: Sized + Stream,
        Self::Item: PartialEq<S::Item>,
    {
        Ours::eq(self, other)
    }

    /// Whether the items are greater than or equal to those of `other`, in order.
    fn ge<S>(self, other: S) -> CompareFuture<Self, S, bool>
    where
        Self: Sized,
        S: Stream,
        Self::Item: PartialOrd<S::Item>,
    {
        Ours::ge(self, other)
    }

    /// Whether the items are greater than those of `other`, in order.
    fn gt<S>(self, other: S) -> CompareFuture<Self, S, bool>
    where
        Self: Sized,
        S: Stream,
        Self::Item: PartialOrd<S::Item>,
    {
        Ours::gt(self, other)
    }

    /// Whether the items are less than or equal to those of `other`, in order.
    fn le<S>(self, other: S) -> CompareFuture<Self, S, bool>
    where
        Self: Sized,
        S: Stream,
        Self::Item: PartialOrd<S::Item>,
    {
        Ours::le(self, other)
    }

    /// Whether the items are less than those of `other`, in order.
    fn lt<S>(self, other: S) -> CompareFuture<Self, S, bool>
    where
        Self: Sized,
        S: Stream,
        Self::Item: PartialOrd<S::Item>,
    {
        Ours::lt(self, other)
    }

    /// The sum of all items.
    #[cfg(feature = "unstable")]
    fn sum<'a, S>(self) -> Pin<Box<dyn Future<Output = S> + 'a>>
    where
        Self: Sized + Stream<Item = S> + 'a,
        S: Sum<Self::Item>,
    {
        Sum::sum(self)
    }

    /// The product of all items.
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

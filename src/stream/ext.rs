//! [`StreamExt`]: the methods of streams, with the names that they have in async-std or, for
//! `map_while`, in std's `Iterator`.
//!
//! All methods are in one trait, and therefore in one file, so that one import brings all of them
//! into scope. Methods that only forward to `futures-lite` return its types. This crate implements
//! `by_ref`, `merge`, `collect`, `try_fold`, sums, products, minima, maxima, comparisons and the
//! methods with timers. No method needs a feature, whereas some methods of async-std need its
//! feature `unstable`.
//!
//! # Cancellation
//! Dropping the future of `next` loses no item. Dropping another future that borrows the stream
//! loses the items that the future has read and its partial result, but the stream can still be
//! used.

use std::cmp::Ordering;
use std::iter;
use std::ops;
use std::time::Duration;

use futures_core::Stream;
use futures_lite::stream::StreamExt as Lite;

use super::{
    AccumulateFuture, AllFuture, AnyFuture, BestByKeyFuture, BestFuture, Chain, Cloned, CollectFuture, CompareFuture,
    Copied, CountFuture, Cycle, Delay, Enumerate, Filter, FilterMap, FindFuture, FindMapFuture, FlatMap, Flatten,
    FoldFuture, ForEachFuture, FromStream, Fuse, Inspect, LastFuture, Map, MapWhile, Merge, NextFuture, NthFuture,
    PartitionFuture, PositionFuture, Scan, Skip, SkipWhile, StepBy, Take, TakeWhile, Throttle, Timeout, TryFoldFuture,
    TryForEachFuture, UnzipFuture, Zip, compare,
};

/// Extension methods for every [`Stream`].
///
/// # Cancel safety
/// Dropping the future of [`next`](StreamExt::next) loses no item. Dropping another future loses
/// the items that it has read and its partial result. A stream that the future borrows can still be
/// used.
///
/// ```
/// use netpoll::{prelude::*, stream};
///
/// # netpoll::task::block_on(async {
/// let mut squares = stream::from_iter(1..).map(|n| n * n).filter(|n| n % 2 == 1).take(3);
/// let mut seen = Vec::new();
/// while let Some(square) = squares.next().await {
///     seen.push(square);
/// }
/// assert_eq!(seen, [1, 9, 25]);
/// # });
/// ```
pub trait StreamExt: Stream {
    /// Returns the next item, or `None` at the end of the stream.
    ///
    /// # Cancel safety
    /// Dropping the future loses no item.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// let mut one = stream::once(7);
    /// assert_eq!(one.next().await, Some(7));
    /// assert_eq!(one.next().await, None);
    /// # });
    /// ```
    fn next(&mut self) -> NextFuture<'_, Self>
    where
        Self: Unpin,
    {
        Lite::next(self)
    }

    /// Applies `f` to each item and yields the results.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// let doubled = stream::from_iter([1, 2]).map(|n| n * 2);
    /// assert_eq!(doubled.collect::<Vec<_>>().await, [2, 4]);
    /// # });
    /// ```
    fn map<B, F>(self, f: F) -> Map<Self, F>
    where
        Self: Sized,
        F: FnMut(Self::Item) -> B,
    {
        Lite::map(self, f)
    }

    /// Keeps the items for which `predicate` returns true.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// let even = stream::from_iter(1..5).filter(|n| n % 2 == 0);
    /// assert_eq!(even.collect::<Vec<_>>().await, [2, 4]);
    /// # });
    /// ```
    fn filter<P>(self, predicate: P) -> Filter<Self, P>
    where
        Self: Sized,
        P: FnMut(&Self::Item) -> bool,
    {
        Lite::filter(self, predicate)
    }

    /// Applies `f` to each item and yields the contents of the `Some` results.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// let numbers = stream::from_iter(["1", "x"]).filter_map(|text| text.parse::<u8>().ok());
    /// assert_eq!(numbers.collect::<Vec<_>>().await, [1]);
    /// # });
    /// ```
    fn filter_map<B, F>(self, f: F) -> FilterMap<Self, F>
    where
        Self: Sized,
        F: FnMut(Self::Item) -> Option<B>,
    {
        Lite::filter_map(self, f)
    }

    /// Applies `f` to each item and yields the items of the streams that `f` returns, one stream
    /// after the other.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// let all = stream::from_iter([1, 2]).flat_map(|n| stream::repeat(n).take(n));
    /// assert_eq!(all.collect::<Vec<_>>().await, [1, 2, 2]);
    /// # });
    /// ```
    fn flat_map<U, F>(self, f: F) -> FlatMap<Self, U, F>
    where
        Self: Sized,
        U: Stream,
        F: FnMut(Self::Item) -> U,
    {
        Lite::flat_map(self, f)
    }

    /// Yields the items of a stream of streams, one inner stream after the other.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// let all = stream::from_iter([stream::once(1), stream::once(2)]).flatten();
    /// assert_eq!(all.collect::<Vec<_>>().await, [1, 2]);
    /// # });
    /// ```
    fn flatten(self) -> Flatten<Self>
    where
        Self: Sized,
        Self::Item: Stream,
    {
        Lite::flatten(self)
    }

    /// Calls `f` with a reference to each item, and yields the item.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// let mut sum = 0;
    /// stream::from_iter([1, 2]).inspect(|n| sum += n).count().await;
    /// assert_eq!(sum, 3);
    /// # });
    /// ```
    fn inspect<F>(self, f: F) -> Inspect<Self, F>
    where
        Self: Sized,
        F: FnMut(&Self::Item),
    {
        Lite::inspect(self, f)
    }

    /// Yields each item with its index, starting at 0.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// let numbered = stream::from_iter(['a', 'b']).enumerate();
    /// assert_eq!(numbered.collect::<Vec<_>>().await, [(0, 'a'), (1, 'b')]);
    /// # });
    /// ```
    fn enumerate(self) -> Enumerate<Self>
    where
        Self: Sized,
    {
        Lite::enumerate(self)
    }

    /// Calls `f` with a mutable state and each item, and yields the contents of the `Some` results
    /// until `f` returns `None`.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// let sums = stream::from_iter([1, 2, 3]).scan(0, |sum, n| {
    ///     *sum += n;
    ///     Some(*sum)
    /// });
    /// assert_eq!(sums.collect::<Vec<_>>().await, [1, 3, 6]);
    /// # });
    /// ```
    fn scan<St, B, F>(self, initial_state: St, f: F) -> Scan<Self, St, F>
    where
        Self: Sized,
        F: FnMut(&mut St, Self::Item) -> Option<B>,
    {
        Lite::scan(self, initial_state, f)
    }

    /// Yields the first `n` items.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// assert_eq!(stream::repeat(1).take(2).collect::<Vec<_>>().await, [1, 1]);
    /// # });
    /// ```
    fn take(self, n: usize) -> Take<Self>
    where
        Self: Sized,
    {
        Lite::take(self, n)
    }

    /// Yields the items before the first one for which `predicate` returns false.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// let small = stream::from_iter(1..).take_while(|n| *n < 3);
    /// assert_eq!(small.collect::<Vec<_>>().await, [1, 2]);
    /// # });
    /// ```
    fn take_while<P>(self, predicate: P) -> TakeWhile<Self, P>
    where
        Self: Sized,
        P: FnMut(&Self::Item) -> bool,
    {
        Lite::take_while(self, predicate)
    }

    /// Applies `f` to each item and yields the contents of the `Some` results until `f` returns
    /// `None`.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// let numbers = stream::from_iter(["1", "x", "2"]).map_while(|text| text.parse::<u8>().ok());
    /// assert_eq!(numbers.collect::<Vec<_>>().await, [1]);
    /// # });
    /// ```
    fn map_while<B, F>(self, f: F) -> MapWhile<Self, F>
    where
        Self: Sized,
        F: FnMut(Self::Item) -> Option<B>,
    {
        Lite::map_while(self, f)
    }

    /// Skips the first `n` items.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// assert_eq!(stream::from_iter(1..4).skip(2).collect::<Vec<_>>().await, [3]);
    /// # });
    /// ```
    fn skip(self, n: usize) -> Skip<Self>
    where
        Self: Sized,
    {
        Lite::skip(self, n)
    }

    /// Skips the items before the first one for which `predicate` returns false.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// let large = stream::from_iter([1, 5, 2]).skip_while(|n| *n < 3);
    /// assert_eq!(large.collect::<Vec<_>>().await, [5, 2]);
    /// # });
    /// ```
    fn skip_while<P>(self, predicate: P) -> SkipWhile<Self, P>
    where
        Self: Sized,
        P: FnMut(&Self::Item) -> bool,
    {
        Lite::skip_while(self, predicate)
    }

    /// Yields the first item and then every `step`-th item.
    ///
    /// # Panics
    /// Panics if `step` is 0.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// assert_eq!(stream::from_iter(0..5).step_by(2).collect::<Vec<_>>().await, [0, 2, 4]);
    /// # });
    /// ```
    fn step_by(self, step: usize) -> StepBy<Self>
    where
        Self: Sized,
    {
        Lite::step_by(self, step)
    }

    /// Yields the items of this stream and then those of `other`.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// let all = stream::once(1).chain(stream::once(2));
    /// assert_eq!(all.collect::<Vec<_>>().await, [1, 2]);
    /// # });
    /// ```
    fn chain<U>(self, other: U) -> Chain<Self, U>
    where
        Self: Sized,
        U: Stream<Item = Self::Item>,
    {
        Lite::chain(self, other)
    }

    /// Yields pairs of items of this stream and `other`, until either stream ends.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// let pairs = stream::from_iter(1..).zip(stream::from_iter(['a', 'b']));
    /// assert_eq!(pairs.collect::<Vec<_>>().await, [(1, 'a'), (2, 'b')]);
    /// # });
    /// ```
    fn zip<U>(self, other: U) -> Zip<Self, U>
    where
        Self: Sized,
        U: Stream,
    {
        Lite::zip(self, other)
    }

    /// Yields the items of both streams as they arrive, until both streams have ended. If both
    /// always have an item ready, they alternate.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// let both = stream::repeat(1).merge(stream::repeat(2)).take(4);
    /// assert_eq!(both.collect::<Vec<_>>().await, [1, 2, 1, 2]);
    /// # });
    /// ```
    #[doc(alias = "select")]
    fn merge<U>(self, other: U) -> Merge<Self, U>
    where
        Self: Sized,
        U: Stream<Item = Self::Item>,
    {
        Merge::new(self, other)
    }

    /// Clones the items of a stream of references.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// let names = [String::from("a")];
    /// assert_eq!(stream::from_iter(&names).cloned().collect::<Vec<_>>().await, names);
    /// # });
    /// ```
    fn cloned<'a, T>(self) -> Cloned<Self>
    where
        Self: Sized + Stream<Item = &'a T>,
        T: Clone + 'a,
    {
        Lite::cloned(self)
    }

    /// Copies the items of a stream of references.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// assert_eq!(stream::from_iter(&[1, 2]).copied().collect::<Vec<_>>().await, [1, 2]);
    /// # });
    /// ```
    fn copied<'a, T>(self) -> Copied<Self>
    where
        Self: Sized + Stream<Item = &'a T>,
        T: Copy + 'a,
    {
        Lite::copied(self)
    }

    /// Repeats the stream endlessly, each time from a clone of its initial state. An empty stream
    /// stays empty.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// assert_eq!(stream::from_iter([1, 2]).cycle().take(3).collect::<Vec<_>>().await, [1, 2, 1]);
    /// # });
    /// ```
    fn cycle(self) -> Cycle<Self>
    where
        Self: Clone + Sized,
    {
        Lite::cycle(self)
    }

    /// Returns a stream that can be polled after its end, and then returns `None` again.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// let mut one = stream::once(1).fuse();
    /// one.next().await;
    /// assert_eq!((one.next().await, one.next().await), (None, None));
    /// # });
    /// ```
    fn fuse(self) -> Fuse<Self>
    where
        Self: Sized,
    {
        Lite::fuse(self)
    }

    /// Borrows the stream, so that an adapter can use it without consuming it.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// let mut numbers = stream::from_iter(1..4);
    /// assert_eq!(numbers.by_ref().take(2).count().await, 2);
    /// assert_eq!(numbers.next().await, Some(3));
    /// # });
    /// ```
    fn by_ref(&mut self) -> &mut Self
    where
        Self: Sized,
    {
        self
    }

    /// Yields the items as `Ok`, and an `Err` each time `duration` passes without an item. The
    /// stream continues after an `Err`. The first `duration` is counted from this call, and each
    /// later one from the time at which the previous `Ok` or `Err` was yielded.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    /// use std::time::Duration;
    ///
    /// # netpoll::task::block_on(async {
    /// let mut never = stream::pending::<()>().timeout(Duration::from_millis(1));
    /// assert!(never.next().await.unwrap().is_err());
    /// # });
    /// ```
    fn timeout(self, duration: Duration) -> Timeout<Self>
    where
        Self: Sized,
    {
        Timeout::new(self, duration)
    }

    /// Delays the first poll of the stream by `duration`, counted from this call.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    /// use std::time::Duration;
    ///
    /// # netpoll::task::block_on(async {
    /// assert_eq!(stream::once(1).delay(Duration::from_millis(1)).next().await, Some(1));
    /// # });
    /// ```
    fn delay(self, duration: Duration) -> Delay<Self>
    where
        Self: Sized,
    {
        Delay::new(self, duration)
    }

    /// Yields the items at least `duration` apart. The stream is not polled before the next item
    /// may be yielded, so no item is dropped.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    /// use std::time::{Duration, Instant};
    ///
    /// # netpoll::task::block_on(async {
    /// let begin = Instant::now();
    /// stream::repeat(()).throttle(Duration::from_millis(1)).take(3).count().await;
    /// assert!(begin.elapsed() >= Duration::from_millis(2));
    /// # });
    /// ```
    fn throttle(self, duration: Duration) -> Throttle<Self>
    where
        Self: Sized,
    {
        Throttle::new(self, duration)
    }

    /// Collects all items into a collection; see [`FromStream`]. Collecting into a `Result` or
    /// `Option` ends at the first failure.
    ///
    /// The future of async-std is boxed and always `Send`. This future is not boxed, and it is
    /// `Send` if the stream and the type [`Partial`](FromStream::Partial) of the collection are.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// let texts = stream::from_iter(["1", "x", "2"]);
    /// let numbers: Result<Vec<u8>, _> = texts.map(str::parse).collect().await;
    /// assert!(numbers.is_err());
    /// # });
    /// ```
    fn collect<B>(self) -> CollectFuture<Self, B>
    where
        Self: Sized,
        B: FromStream<Self::Item>,
    {
        CollectFuture::new(self)
    }

    /// Collects the items for which `f` returns true into one collection, and the other items into
    /// another.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// let (even, odd): (Vec<_>, Vec<_>) = stream::from_iter(1..5).partition(|n| n % 2 == 0).await;
    /// assert_eq!((even, odd), (vec![2, 4], vec![1, 3]));
    /// # });
    /// ```
    fn partition<B, F>(self, f: F) -> PartitionFuture<Self, F, B>
    where
        Self: Sized,
        F: FnMut(&Self::Item) -> bool,
        B: Default + Extend<Self::Item>,
    {
        Lite::partition(self, f)
    }

    /// Collects the items of a stream of pairs into two collections.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// let (numbers, letters): (Vec<_>, String) = stream::from_iter([(1, 'a'), (2, 'b')]).unzip().await;
    /// assert_eq!((numbers, letters.as_str()), (vec![1, 2], "ab"));
    /// # });
    /// ```
    fn unzip<A, B, FromA, FromB>(self) -> UnzipFuture<Self, FromA, FromB>
    where
        Self: Sized + Stream<Item = (A, B)>,
        FromA: Default + Extend<A>,
        FromB: Default + Extend<B>,
    {
        Lite::unzip(self)
    }

    /// Combines all items into one value: calls `f` with the value so far, at first `init`, and
    /// each item.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// assert_eq!(stream::from_iter(1..4).fold(0, |sum, n| sum + n).await, 6);
    /// # });
    /// ```
    fn fold<B, F>(self, init: B, f: F) -> FoldFuture<Self, F, B>
    where
        Self: Sized,
        F: FnMut(B, Self::Item) -> B,
    {
        Lite::fold(self, init, f)
    }

    /// Combines items like [`fold`](StreamExt::fold), until `f` returns an error, which is then the
    /// result. The stream can still be used afterwards.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// let sum = stream::from_iter([1u8, 255]).try_fold(0u8, |sum, n| sum.checked_add(n).ok_or("too much")).await;
    /// assert_eq!(sum, Err("too much"));
    /// # });
    /// ```
    fn try_fold<B, F, E>(&mut self, init: B, f: F) -> TryFoldFuture<'_, Self, F, B>
    where
        Self: Unpin + Sized,
        F: FnMut(B, Self::Item) -> Result<B, E>,
    {
        TryFoldFuture::new(self, init, f)
    }

    /// Calls `f` with each item. `f` cannot await; to await, loop over [`next`](StreamExt::next).
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// let mut sum = 0;
    /// stream::from_iter(1..4).for_each(|n| sum += n).await;
    /// assert_eq!(sum, 6);
    /// # });
    /// ```
    fn for_each<F>(self, f: F) -> ForEachFuture<Self, F>
    where
        Self: Sized,
        F: FnMut(Self::Item),
    {
        Lite::for_each(self, f)
    }

    /// Calls `f` with each item until `f` returns an error, which is then the result. The stream
    /// can still be used afterwards.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// let mut numbers = stream::from_iter(1..);
    /// let stopped = numbers.try_for_each(|n| if n < 3 { Ok(()) } else { Err(n) }).await;
    /// assert_eq!((stopped, numbers.next().await), (Err(3), Some(4)));
    /// # });
    /// ```
    fn try_for_each<F, E>(&mut self, f: F) -> TryForEachFuture<'_, Self, F>
    where
        Self: Unpin + Sized,
        F: FnMut(Self::Item) -> Result<(), E>,
    {
        Lite::try_for_each(self, f)
    }

    /// Reads all items and returns their number.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// assert_eq!(stream::from_iter(1..4).count().await, 3);
    /// # });
    /// ```
    fn count(self) -> CountFuture<Self>
    where
        Self: Sized,
    {
        Lite::count(self)
    }

    /// Returns the last item, or `None` if the stream is empty.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// assert_eq!(stream::from_iter(1..4).last().await, Some(3));
    /// # });
    /// ```
    fn last(self) -> LastFuture<Self>
    where
        Self: Sized,
    {
        Lite::last(self)
    }

    /// Skips `n` items and returns the next item, or `None` if the stream ends before it.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// assert_eq!(stream::from_iter(1..4).nth(1).await, Some(2));
    /// # });
    /// ```
    fn nth(&mut self, n: usize) -> NthFuture<'_, Self>
    where
        Self: Unpin + Sized,
    {
        Lite::nth(self, n)
    }

    /// Returns the first item for which `predicate` returns true, or `None` if there is no such
    /// item.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// assert_eq!(stream::from_iter(1..).find(|n| n % 3 == 0).await, Some(3));
    /// # });
    /// ```
    fn find<P>(&mut self, predicate: P) -> FindFuture<'_, Self, P>
    where
        Self: Unpin + Sized,
        P: FnMut(&Self::Item) -> bool,
    {
        Lite::find(self, predicate)
    }

    /// Returns the first `Some` result of applying `f` to the items, or `None` if there is none.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// let number = stream::from_iter(["x", "1"]).find_map(|text| text.parse::<u8>().ok()).await;
    /// assert_eq!(number, Some(1));
    /// # });
    /// ```
    fn find_map<F, B>(&mut self, f: F) -> FindMapFuture<'_, Self, F>
    where
        Self: Unpin + Sized,
        F: FnMut(Self::Item) -> Option<B>,
    {
        Lite::find_map(self, f)
    }

    /// Returns the index of the first item for which `predicate` returns true, or `None` if there
    /// is no such item.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// assert_eq!(stream::from_iter(['a', 'b']).position(|c| c == 'b').await, Some(1));
    /// # });
    /// ```
    fn position<P>(&mut self, predicate: P) -> PositionFuture<'_, Self, P>
    where
        Self: Unpin + Sized,
        P: FnMut(Self::Item) -> bool,
    {
        Lite::position(self, predicate)
    }

    /// Returns whether `f` returns true for every item. Stops at the first item for which `f`
    /// returns false.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// assert!(stream::from_iter(1..4).all(|n| n < 4).await);
    /// # });
    /// ```
    fn all<F>(&mut self, f: F) -> AllFuture<'_, Self, F>
    where
        Self: Unpin + Sized,
        F: FnMut(Self::Item) -> bool,
    {
        Lite::all(self, f)
    }

    /// Returns whether `f` returns true for any item. Stops at the first such item.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// assert!(stream::from_iter(1..).any(|n| n == 4).await);
    /// # });
    /// ```
    fn any<F>(&mut self, f: F) -> AnyFuture<'_, Self, F>
    where
        Self: Unpin + Sized,
        F: FnMut(Self::Item) -> bool,
    {
        Lite::any(self, f)
    }

    /// Returns the least item, or `None` if the stream is empty. Of several equal items, returns
    /// the first.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// assert_eq!(stream::from_iter([2, 1, 3]).min().await, Some(1));
    /// # });
    /// ```
    fn min(self) -> BestFuture<Self, compare::Natural<Self::Item>>
    where
        Self: Sized,
        Self::Item: Ord,
    {
        compare::least(self, Ord::cmp)
    }

    /// Returns the least item in the order of `compare`, or `None` if the stream is empty. Of
    /// several equal items, returns the first.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// let least = stream::from_iter([2.5, 1.5, 3.5]).min_by(|a, b| f64::total_cmp(a, b)).await;
    /// assert_eq!(least, Some(1.5));
    /// # });
    /// ```
    fn min_by<F>(self, compare: F) -> BestFuture<Self, F>
    where
        Self: Sized,
        F: FnMut(&Self::Item, &Self::Item) -> Ordering,
    {
        compare::least(self, compare)
    }

    /// Returns the item with the least key, or `None` if the stream is empty. Of several items with
    /// equal keys, returns the first. `key` is called once per item.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// assert_eq!(stream::from_iter(["bb", "c", "aaa"]).min_by_key(|text| text.len()).await, Some("c"));
    /// # });
    /// ```
    fn min_by_key<K, F>(self, key: F) -> BestByKeyFuture<Self, F, K>
    where
        Self: Sized,
        K: Ord,
        F: FnMut(&Self::Item) -> K,
    {
        compare::least_by_key(self, key)
    }

    /// Returns the greatest item, or `None` if the stream is empty. Of several equal items, returns
    /// the last.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// assert_eq!(stream::from_iter([2, 1, 3]).max().await, Some(3));
    /// # });
    /// ```
    fn max(self) -> BestFuture<Self, compare::Natural<Self::Item>>
    where
        Self: Sized,
        Self::Item: Ord,
    {
        compare::greatest(self, Ord::cmp)
    }

    /// Returns the greatest item in the order of `compare`, or `None` if the stream is empty. Of
    /// several equal items, returns the last.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// let greatest = stream::from_iter([2.5, 1.5, 3.5]).max_by(|a, b| f64::total_cmp(a, b)).await;
    /// assert_eq!(greatest, Some(3.5));
    /// # });
    /// ```
    fn max_by<F>(self, compare: F) -> BestFuture<Self, F>
    where
        Self: Sized,
        F: FnMut(&Self::Item, &Self::Item) -> Ordering,
    {
        compare::greatest(self, compare)
    }

    /// Returns the item with the greatest key, or `None` if the stream is empty. Of several items
    /// with equal keys, returns the last. `key` is called once per item.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// assert_eq!(stream::from_iter(["bb", "c", "aaa"]).max_by_key(|text| text.len()).await, Some("aaa"));
    /// # });
    /// ```
    fn max_by_key<K, F>(self, key: F) -> BestByKeyFuture<Self, F, K>
    where
        Self: Sized,
        K: Ord,
        F: FnMut(&Self::Item) -> K,
    {
        compare::greatest_by_key(self, key)
    }

    /// Compares two streams item by item. If one stream is a prefix of the other, the shorter
    /// stream is less.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    /// use std::cmp::Ordering;
    ///
    /// # netpoll::task::block_on(async {
    /// let ordering = stream::from_iter([1, 2]).cmp(stream::from_iter([1, 3])).await;
    /// assert_eq!(ordering, Ordering::Less);
    /// # });
    /// ```
    fn cmp<S>(self, other: S) -> CompareFuture<Self, S, Ordering>
    where
        Self: Sized,
        S: Stream<Item = Self::Item>,
        Self::Item: Ord,
    {
        compare::compare(self, other, |left, right| Some(left.cmp(right)), |ordering| ordering.expect("a total order"))
    }

    /// Compares two streams of partially ordered items. Returns `None` if the first unequal pair is
    /// not comparable.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// let ordering = stream::once(1.0).partial_cmp(stream::once(f64::NAN)).await;
    /// assert_eq!(ordering, None);
    /// # });
    /// ```
    fn partial_cmp<S>(self, other: S) -> CompareFuture<Self, S, Option<Ordering>>
    where
        Self: Sized,
        S: Stream,
        Self::Item: PartialOrd<S::Item>,
    {
        compare::compare(self, other, PartialOrd::partial_cmp, |ordering| ordering)
    }

    /// Returns whether two streams have equal lengths and equal items.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// assert!(stream::from_iter([1, 2]).eq(stream::from_iter([1, 2])).await);
    /// # });
    /// ```
    fn eq<S>(self, other: S) -> CompareFuture<Self, S, bool>
    where
        Self: Sized,
        S: Stream,
        Self::Item: PartialEq<S::Item>,
    {
        compare::compare(
            self,
            other,
            |a, b| (a == b).then_some(Ordering::Equal),
            |ordering| ordering == Some(Ordering::Equal),
        )
    }

    /// Returns whether two streams differ.
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// assert!(stream::from_iter([1, 2]).ne(stream::once(1)).await);
    /// # });
    /// ```
    fn ne<S>(self, other: S) -> CompareFuture<Self, S, bool>
    where
        Self: Sized,
        S: Stream,
        Self::Item: PartialEq<S::Item>,
    {
        compare::compare(
            self,
            other,
            |a, b| (a == b).then_some(Ordering::Equal),
            |ordering| ordering != Some(Ordering::Equal),
        )
    }

    /// Returns whether this stream is less than `other`, in the order of
    /// [`partial_cmp`](StreamExt::partial_cmp).
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// assert!(stream::from_iter([1, 2]).lt(stream::from_iter([1, 3])).await);
    /// # });
    /// ```
    fn lt<S>(self, other: S) -> CompareFuture<Self, S, bool>
    where
        Self: Sized,
        S: Stream,
        Self::Item: PartialOrd<S::Item>,
    {
        compare::compare(self, other, PartialOrd::partial_cmp, |ordering| ordering.is_some_and(Ordering::is_lt))
    }

    /// Returns whether this stream is less than or equal to `other`, in the order of
    /// [`partial_cmp`](StreamExt::partial_cmp).
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// assert!(stream::once(1).le(stream::once(1)).await);
    /// # });
    /// ```
    fn le<S>(self, other: S) -> CompareFuture<Self, S, bool>
    where
        Self: Sized,
        S: Stream,
        Self::Item: PartialOrd<S::Item>,
    {
        compare::compare(self, other, PartialOrd::partial_cmp, |ordering| ordering.is_some_and(Ordering::is_le))
    }

    /// Returns whether this stream is greater than `other`, in the order of
    /// [`partial_cmp`](StreamExt::partial_cmp).
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// assert!(stream::from_iter([1, 2]).gt(stream::once(1)).await);
    /// # });
    /// ```
    fn gt<S>(self, other: S) -> CompareFuture<Self, S, bool>
    where
        Self: Sized,
        S: Stream,
        Self::Item: PartialOrd<S::Item>,
    {
        compare::compare(self, other, PartialOrd::partial_cmp, |ordering| ordering.is_some_and(Ordering::is_gt))
    }

    /// Returns whether this stream is greater than or equal to `other`, in the order of
    /// [`partial_cmp`](StreamExt::partial_cmp).
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// assert!(stream::once(1).ge(stream::empty()).await);
    /// # });
    /// ```
    fn ge<S>(self, other: S) -> CompareFuture<Self, S, bool>
    where
        Self: Sized,
        S: Stream,
        Self::Item: PartialOrd<S::Item>,
    {
        compare::compare(self, other, PartialOrd::partial_cmp, |ordering| ordering.is_some_and(Ordering::is_ge))
    }

    /// Returns the sum of all items, as any type that implements [`Sum`](iter::Sum) and
    /// [`Add`](ops::Add). For a stream of `Result`, use [`try_fold`](StreamExt::try_fold).
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// assert_eq!(stream::from_iter([1u8, 2, 3]).sum::<u8>().await, 6);
    /// # });
    /// ```
    fn sum<T>(self) -> AccumulateFuture<Self, T>
    where
        Self: Sized,
        T: iter::Sum<Self::Item> + ops::Add<Output = T>,
    {
        AccumulateFuture::new(self, iter::empty().sum(), |total, item| total + iter::once(item).sum())
    }

    /// Returns the product of all items, as any type that implements [`Product`](iter::Product) and
    /// [`Mul`](ops::Mul). For a stream of `Result`, use [`try_fold`](StreamExt::try_fold).
    ///
    /// ```
    /// use netpoll::{prelude::*, stream};
    ///
    /// # netpoll::task::block_on(async {
    /// assert_eq!(stream::from_iter(1..=5u32).product::<u32>().await, 120);
    /// # });
    /// ```
    fn product<T>(self) -> AccumulateFuture<Self, T>
    where
        Self: Sized,
        T: iter::Product<Self::Item> + ops::Mul<Output = T>,
    {
        AccumulateFuture::new(self, iter::empty().product(), |total, item| total * iter::once(item).product())
    }
}

impl<S: Stream + ?Sized> StreamExt for S {}

//! Streams: asynchronous iterators, their adapters and sources.
//!
//! [`Stream`] is the trait of `futures-core`. [`StreamExt`] has all methods of async-std's
//! `StreamExt`, and `map_while`. Simple adapters come from `futures-lite`. The crates `futures` and
//! `futures-lite` work with every stream of this crate.

mod collect;
mod compare;
mod ext;
mod extend;
mod fold;
mod interval;
mod merge;
mod sources;
mod timing;

#[doc(inline)]
pub use futures_core::Stream;

// The doc comment resolves links in the documentation of the re-exported items.
/// [`StreamExt::all()`]: StreamExt::all
/// [`StreamExt::any()`]: StreamExt::any
/// [`StreamExt::chain()`]: StreamExt::chain
/// [`StreamExt::cloned()`]: StreamExt::cloned
/// [`StreamExt::copied()`]: StreamExt::copied
/// [`StreamExt::count()`]: StreamExt::count
/// [`StreamExt::cycle()`]: StreamExt::cycle
/// [`StreamExt::enumerate()`]: StreamExt::enumerate
/// [`StreamExt::filter()`]: StreamExt::filter
/// [`StreamExt::filter_map()`]: StreamExt::filter_map
/// [`StreamExt::find()`]: StreamExt::find
/// [`StreamExt::find_map()`]: StreamExt::find_map
/// [`StreamExt::flat_map()`]: StreamExt::flat_map
/// [`StreamExt::flatten()`]: StreamExt::flatten
/// [`StreamExt::fold()`]: StreamExt::fold
/// [`StreamExt::for_each()`]: StreamExt::for_each
/// [`StreamExt::fuse()`]: StreamExt::fuse
/// [`StreamExt::inspect()`]: StreamExt::inspect
/// [`StreamExt::last()`]: StreamExt::last
/// [`StreamExt::map()`]: StreamExt::map
/// [`StreamExt::map_while()`]: StreamExt::map_while
/// [`StreamExt::next()`]: StreamExt::next
/// [`StreamExt::nth()`]: StreamExt::nth
/// [`StreamExt::partition()`]: StreamExt::partition
/// [`StreamExt::position()`]: StreamExt::position
/// [`StreamExt::scan()`]: StreamExt::scan
/// [`StreamExt::skip()`]: StreamExt::skip
/// [`StreamExt::skip_while()`]: StreamExt::skip_while
/// [`StreamExt::step_by()`]: StreamExt::step_by
/// [`StreamExt::take()`]: StreamExt::take
/// [`StreamExt::take_while()`]: StreamExt::take_while
/// [`StreamExt::try_for_each()`]: StreamExt::try_for_each
/// [`StreamExt::unzip()`]: StreamExt::unzip
/// [`StreamExt::zip()`]: StreamExt::zip
#[doc(inline)]
pub use futures_lite::stream::{
    AllFuture, AnyFuture, Chain, Cloned, Copied, CountFuture, Cycle, Empty, Enumerate, Filter, FilterMap, FindFuture,
    FindMapFuture, FlatMap, Flatten, FoldFuture, ForEachFuture, Fuse, Inspect, Iter as FromIter, LastFuture, Map,
    MapWhile, NextFuture, NthFuture, Once, PartitionFuture, Pending, PositionFuture, Repeat, RepeatWith, Scan, Skip,
    SkipWhile, StepBy, Take, TakeWhile, TryForEachFuture, UnzipFuture, Zip, empty, iter as from_iter, once, pending,
    repeat, repeat_with,
};

// Items of async-std and tokio-stream that this crate does not have, or has under another name.
#[cfg(false)]
pub trait DoubleEndedStream {} // absent: collect into a Vec and reverse it
#[cfg(false)]
pub trait ExactSizeStream {} // absent: use size_hint of Stream
#[cfg(false)]
pub trait FusedStream {} // absent: use fuse of StreamExt, or the crate futures
#[cfg(false)]
pub fn iter() {} // absent: use stream::from_iter
#[cfg(false)]
pub trait Product {} // absent: implement std::iter::Product
#[cfg(false)]
pub trait Sum {} // absent: implement std::iter::Sum

pub use collect::{CollectFuture, FromStream};
pub use compare::{BestByKeyFuture, BestFuture, CompareFuture};
pub use ext::StreamExt;
pub use extend::{Extend, IntoStream, extend};
pub use fold::{AccumulateFuture, TryFoldFuture};
pub use interval::{Interval, interval};
pub use merge::Merge;
pub use sources::{FromFn, Successors, from_fn, successors};
pub use timing::{Delay, Throttle, Timeout, TimeoutError};

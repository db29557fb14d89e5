//! Streams: asynchronous iterators, their combinators and sources.
//!
//! `Stream` is `futures-core`'s. The methods are async-std's, in one trait [`StreamExt`]; those without behaviour of their own come
//! from `futures-lite`. Not here: comparisons (`min`, `max`, `cmp`, `eq` …), `sum` and `product`, which are a
//! [`fold`](StreamExt::fold). `futures` and `futures-lite` work with every stream of this crate.

mod collect;
mod ext;
mod interval;
mod merge;
mod sources;
mod timing;

#[doc(inline)]
pub use futures_core::Stream;

#[doc(inline)]
pub use futures_lite::stream::{
    AllFuture, AnyFuture, Chain, Cloned, Copied, CountFuture, Cycle, Empty, Enumerate, Filter, FilterMap, FindFuture,
    FindMapFuture, FlatMap, Flatten, FoldFuture, ForEachFuture, Fuse, Inspect, Iter as FromIter, LastFuture, Map,
    MapWhile, NextFuture, NthFuture, Once, PartitionFuture, Pending, PositionFuture, Repeat, RepeatWith, Scan, Skip,
    SkipWhile, StepBy, Take, TakeWhile, TryForEachFuture, UnzipFuture, Zip, empty, iter as from_iter, once, pending,
    repeat, repeat_with,
};

pub use collect::{CollectFuture, FromStream};
pub use ext::{StreamExt, TryFoldFuture};
pub use interval::{Interval, interval};
pub use merge::Merge;
pub use sources::{FromFn, Successors, from_fn, successors};
pub use timing::{Delay, Throttle, Timeout, TimeoutError};

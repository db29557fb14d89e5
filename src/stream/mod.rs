//! Streams: asynchronous iterators, their combinators and sources.
//!
//! `Stream` is `futures-core`'s. The methods are async-std's, in one trait [`StreamExt`]; those without behaviour of their own come
//! from `futures-lite`. `futures` and `futures-lite` work with every stream of this crate.

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

#[doc(inline)]
pub use futures_lite::stream::{
    AllFuture, AnyFuture, Chain, Cloned, Copied, CountFuture, Cycle, Empty, Enumerate, Filter, FilterMap, FindFuture,
    FindMapFuture, FlatMap, Flatten, FoldFuture, ForEachFuture, Fuse, Inspect, Iter as FromIter, LastFuture, Map,
    MapWhile, NextFuture, NthFuture, Once, PartitionFuture, Pending, PositionFuture, Repeat, RepeatWith, Scan, Skip,
    SkipWhile, StepBy, Take, TakeWhile, TryForEachFuture, UnzipFuture, Zip, empty, iter as from_iter, once, pending,
    repeat, repeat_with,
};

pub use collect::{CollectFuture, FromStream};
pub use compare::{BestByKeyFuture, BestFuture, CompareFuture};
pub use ext::StreamExt;
pub use extend::{Extend, IntoStream, extend};
pub use fold::{AccumulateFuture, TryFoldFuture};
pub use interval::{Interval, interval};
pub use merge::Merge;
pub use sources::{FromFn, Successors, from_fn, successors};
pub use timing::{Delay, Throttle, Timeout, TimeoutError};

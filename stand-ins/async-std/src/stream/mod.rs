//! Streams: types and functions of netpoll under async-std's names, and types and traits of this
//! package that netpoll does not have.
//!
//! The module `sources` has streams of existing values. The other modules need the feature
//! `unstable`: `accumulate` has sums and products, `collect` the traits for collections, `ends` the
//! traits for double-ended streams, streams of known length and fused streams, and `flatten` the
//! stream of `StreamExt::flatten`.

#[cfg(feature = "unstable")]
mod accumulate;
#[cfg(feature = "unstable")]
mod collect;
#[cfg(feature = "unstable")]
mod ends;
#[cfg(feature = "unstable")]
mod flatten;
mod sources;

pub use futures_core_03::Stream;
pub use netpoll::stream::{
    Chain, Cloned, Copied, Empty, Filter, FromFn, Fuse, Inspect, Map, Repeat, RepeatWith, Scan, Skip, SkipWhile,
    StepBy, Take, TakeWhile, Zip, empty, from_fn, repeat, repeat_with,
};

pub use crate::extension::StreamExt;
pub use sources::{FromIter, Once, from_iter, once};

#[cfg(feature = "unstable")]
pub use {
    accumulate::{Product, Sum},
    collect::{Extend, FromStream, extend},
    ends::{DoubleEndedStream, ExactSizeStream, FusedStream},
    flatten::Flatten,
    netpoll::stream::{
        FlatMap, Interval, IntoStream, Merge, Pending, Timeout, TimeoutError, interval, pending, successors,
    },
};

/// The stream returned by [`successors`].
#[cfg(feature = "unstable")]
pub type Successors<F, T> = netpoll::stream::Successors<T, F>;

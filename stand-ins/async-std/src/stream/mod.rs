//! Streams: netpoll's types under async-std's names, and async-std's traits for collections and for double-ended streams.

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

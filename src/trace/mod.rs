//! Events and spans for `tracing` (feature `tracing`). Without the feature every function is empty.
//!
//! A subscriber is foreign code: these functions are called outside of locks (invariant 12), and a
//! panic in one that is called on the monitor's thread is contained there. docs/INSPECTION.md
//! documents the targets and fields, which are part of the public interface.

#[cfg(not(feature = "tracing"))]
mod off;
#[cfg(feature = "tracing")]
mod on;

#[cfg(not(feature = "tracing"))]
pub(crate) use off::*;
#[cfg(feature = "tracing")]
pub(crate) use on::*;

//! Events and spans for `tracing` (feature `tracing`). Without the feature the functions do
//! nothing.
//!
//! A subscriber is foreign code. These functions are therefore called outside all locks (invariant
//! 12 of ARCHITECTURE.md). A panic of a subscriber is caught in reports of blocked tasks, of spare
//! workers and of closes, and in a shutdown. Elsewhere the panic propagates to the caller.
//! docs/INSPECTION.md documents the targets and fields, which are part of the public interface.

#[cfg(not(feature = "tracing"))]
mod off;
#[cfg(feature = "tracing")]
mod on;

#[cfg(not(feature = "tracing"))]
pub(crate) use off::*;
#[cfg(feature = "tracing")]
pub(crate) use on::*;

//! The runtime.
pub(crate) mod waiters;

//! MSG_ZEROCOPY. On systems other than Linux it cannot be enabled, and sends copy the data.

use std::ops::RangeInclusive;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod portable;

#[cfg(target_os = "linux")]
pub(crate) use linux::*;
#[cfg(not(target_os = "linux"))]
pub(crate) use portable::*;

/// A completion: the kernel has released the memory of a range of zero-copy sends. The kernel
/// counts the sends of each socket from 0.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Completion {
    /// The numbers of the first and the last send. The count wraps.
    pub(crate) calls: RangeInclusive<u32>,
    /// Whether the kernel copied the data instead of sending from the caller's memory.
    pub(crate) copied: bool,
}

//! MSG_ZEROCOPY. If the system does not have it, it cannot be switched on, and sends copy.

use std::ops::RangeInclusive;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod portable;

#[cfg(target_os = "linux")]
pub(crate) use linux::*;
#[cfg(not(target_os = "linux"))]
pub(crate) use portable::*;

/// A range of send calls, counted from 0 per socket, whose memory the kernel has released.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Completion {
    /// First and last call; the count wraps.
    pub(crate) calls: RangeInclusive<u32>,
    /// Whether the kernel copied the data after all.
    pub(crate) copied: bool,
}

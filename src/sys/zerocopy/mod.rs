//! MSG_ZEROCOPY, where the system has it. Elsewhere it cannot be switched on, and sends copy.

use std::ops::RangeInclusive;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod portable;

#[cfg(target_os = "linux")]
pub(crate) use linux::*;
#[cfg(not(target_os = "linux"))]
pub(crate) use portable::*;

/// Calls, counted from 0 per socket, whose memory the kernel has released.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Completion {
    /// First and last; the count wraps.
    pub(crate) calls: RangeInclusive<u32>,
    /// The kernel made a copy after all.
    pub(crate) copied: bool,
}

//! Every public future is dropped at every await: the socket stays usable, no data is lost or duplicated, no waiter is stranded, and no
//! descriptor leaks.
//!
//! For each k the future is polled k times and dropped: once immediately after a poll that returned Pending, and once after it was woken
//! but before it was polled again, so that its wake-up must be passed on. k grows until the future completes.
//!
//! The tests compare counters of the process, so they run one at a time.

#[path = "../common/mod.rs"]
mod common;
mod others;
#[cfg(not(target_os = "macos"))]
mod packets;
mod sweep;
mod tcp;

//! Drops futures of sockets, pipes, timers, tasks, name resolution and copies at every await. The socket must stay usable, no data may be
//! lost (except by a copy) or duplicated, no waiter may be stranded, and no descriptor may leak.
//!
//! For each k the future is dropped after k polls that returned Pending: once immediately and, if k is not 0, once after it was woken but
//! before it was polled again, so that its wake-up must be passed on. k grows until the future completes.
//!
//! The tests compare counters of the process, so they run one at a time.

#[path = "../common/black_hole.rs"]
mod black_hole;
#[path = "../common/mod.rs"]
mod common;
mod others;
#[cfg(not(target_os = "macos"))]
mod packets;
mod sweep;
mod tcp;

//! Drops futures of sockets, `pipe`, timers, tasks, name resolution and copies at every await. The
//! sockets must stay usable, no data may be lost (except by a copy) or duplicated, no waiter may be
//! left, and no descriptor may leak.
//!
//! A test drops a future after k polls that return Pending, for each k from 0 until the future
//! completes or further polls would repeat a case. If k is not 0, the test drops two futures: one
//! immediately after the k-th poll, and one after the wake-up that follows this poll. The drop must
//! pass an unused wake-up on to the next waiter.
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

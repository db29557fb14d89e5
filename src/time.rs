//! Time: [`Sleep`], a sleep that can be reset, and std's [`Duration`] and [`Instant`].
//!
//! | to | use |
//! |---|---|
//! | wait for a duration | [`task::sleep`](crate::task::sleep) |
//! | limit the time of any future | [`future::timeout`](crate::future::timeout()) |
//! | limit the time of socket operations | `set_read_deadline` and similar methods, see [deadlines](crate::guide::deadlines) |
//! | repeat an action periodically | [`stream::interval`](crate::stream::interval) |
//! | reset a sleep, or poll a sleep in your own future | [`Sleep`] |
//!
//! # Examples
//! ```
//! use netpoll::time::{Duration, Instant, Sleep};
//!
//! # netpoll::task::block_on(async {
//! let start = Instant::now();
//! let mut idle = Sleep::new(Duration::from_secs(60));
//! idle.reset(start + Duration::from_millis(1));
//! (&mut idle).await;
//! assert!(start.elapsed() >= Duration::from_millis(1));
//! # });
//! ```

#[doc(no_inline)]
pub use std::time::{Duration, Instant};

pub use crate::rt::time::sleep::Sleep;

// Items of tokio's `time` that this crate does not have, or has in another module.
#[cfg(false)]
pub mod error {} // absent: the error of future::timeout is future::TimeoutError
#[cfg(false)]
pub fn interval() {} // absent: use stream::interval
#[cfg(false)]
pub fn interval_at() {} // absent: use stream::interval, after time::Sleep::until
#[cfg(false)]
pub enum MissedTickBehavior {} // absent: missed ticks of stream::interval count as one
#[cfg(false)]
pub fn sleep() {} // absent: use task::sleep
#[cfg(false)]
pub fn sleep_until() {} // absent: use time::Sleep::until
#[cfg(false)]
pub fn timeout() {} // absent: use future::timeout, or a deadline on the socket
#[cfg(false)]
pub fn timeout_at() {} // absent: use a deadline on the socket, or future::timeout with the time left

pub(crate) mod limit;
mod movable;

// Not public API: netpoll-quinn and netpoll-hyper use this type for timers that are reset often.
#[doc(hidden)]
pub use movable::Movable;

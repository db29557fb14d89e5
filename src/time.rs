//! Time: [`Sleep`], a resettable sleep. See also [`task::sleep`](crate::task::sleep) and
//! `future::timeout`.

#[doc(no_inline)]
pub use std::time::{Duration, Instant};

pub use crate::rt::time::sleep::Sleep;

mod movable;

// Not for users: the timers of netpoll-quinn and netpoll-hyper are sleeps that are moved often.
#[doc(hidden)]
pub use movable::Movable;

//! Time: [`Sleep`], a resettable sleep. See also [`task::sleep`](crate::task::sleep) and
//! `future::timeout`.

#[doc(no_inline)]
pub use std::time::{Duration, Instant};

pub use crate::rt::time::sleep::Sleep;

#[cfg(any(feature = "hyper", feature = "quinn"))]
pub(crate) mod movable;

//! What sockets wait through.
//!
//! `poller` is the interface for descriptors. `poll_desc` is the state of one registered descriptor, in a slot of the `PollCache`: a `side` per
//! direction, on which operations wait as `waiting` and `wait_slot` say. `driver` decides which thread polls, by the `role`. `backend`
//! has the contract of the back ends, `epoll` and `poll`. `closings` has the descriptors whose close other operations wait for.

pub(crate) mod backend;
pub(crate) mod closings;
pub(crate) mod driver;
#[cfg(target_os = "linux")]
mod epoll;
#[cfg(any(test, not(target_os = "linux")))]
mod kqueue;
#[allow(clippy::module_inception)]
mod poll;
pub(crate) mod poll_desc;
pub(crate) mod poller;
pub(crate) mod role;
pub(crate) mod side;
pub(crate) mod wait_slot;
mod waiting;

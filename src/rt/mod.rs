//! The runtime.
pub(crate) mod clock;
pub(crate) mod epoll;
pub(crate) mod poll_cache;
pub(crate) mod poll_desc;
pub(crate) mod timer;
pub(crate) mod waiters;

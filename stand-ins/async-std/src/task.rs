//! Tasks: netpoll's types and functions under async-std's names.

#[cfg(feature = "unstable")]
pub use netpoll::task::spawn_local;
pub use netpoll::task::{
    AccessError, Builder, Context, JoinHandle, LocalKey, Poll, Task, TaskId, Waker, block_on, current, ready, sleep,
    spawn, spawn_blocking, try_current, yield_now,
};

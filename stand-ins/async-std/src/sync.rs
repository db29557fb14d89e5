//! Synchronization between tasks: re-exports async-lock 3, as async-std does, and adds a condition variable.

pub use async_lock_3::{
    Mutex, MutexGuard, MutexGuardArc, RwLock, RwLockReadGuard, RwLockUpgradableReadGuard, RwLockWriteGuard,
};
pub use std::sync::{Arc, Weak};

#[cfg(feature = "unstable")]
pub use {
    async_lock_3::{Barrier, BarrierWaitResult},
    condvar::Condvar,
};

#[cfg(feature = "unstable")]
mod condvar;

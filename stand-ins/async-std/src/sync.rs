//! Locks between tasks: the crate async-lock 3, as in async-std, and a condition variable.

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

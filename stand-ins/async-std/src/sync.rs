//! Synchronization between tasks: items of async-lock 3 and of std, as in async-std, and a
//! condition variable of this package.

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

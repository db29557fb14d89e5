//! Synchronisation primitives used by the other modules.
//!
//! In this crate they are the standard library's types, or thin wrappers around these types. The
//! `models` crate of this workspace compiles some of this crate's source files with its own module
//! `sync`, which has the types of a model checker. A protocol that uses only `crate::sync` can
//! therefore be model-checked without changes.
//!
//! [`Mutex`] does not report poisoning. User code, including wakers of other crates, runs outside
//! these mutexes, so a panic of user code poisons none of them. If this crate's own code panics,
//! other threads must keep working.

pub(crate) use std::sync::Arc;
pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};

pub(crate) use std::thread::yield_now;

use std::sync::{PoisonError, TryLockError};
use std::time::Duration;

pub(crate) use std::sync::MutexGuard;

/// A mutual-exclusion lock without poisoning.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Mutex<T> {
        Mutex(std::sync::Mutex::new(value))
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the mutex, unless it is locked.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// A cell that is accessed through raw pointers, with loom's interface.
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    pub(crate) const fn new(value: T) -> UnsafeCell<T> {
        UnsafeCell(std::cell::UnsafeCell::new(value))
    }

    #[inline]
    pub(crate) fn with<R>(&self, access: impl FnOnce(*const T) -> R) -> R {
        access(self.0.get())
    }

    #[inline]
    pub(crate) fn with_mut<R>(&self, access: impl FnOnce(*mut T) -> R) -> R {
        access(self.0.get())
    }
}

/// A condition variable for [`Mutex`].
#[derive(Debug, Default)]
pub(crate) struct Condvar(std::sync::Condvar);

impl Condvar {
    pub(crate) const fn new() -> Condvar {
        Condvar(std::sync::Condvar::new())
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a notification, for at most `timeout`. The caller must then check its condition
    /// again: the return value does not tell why the wait ended.
    pub(crate) fn wait_timeout<'a, T>(&self, guard: MutexGuard<'a, T>, timeout: Duration) -> MutexGuard<'a, T> {
        self.0.wait_timeout(guard, timeout).unwrap_or_else(PoisonError::into_inner).0
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// Returns whether the injected bug `$name` is enabled; always false in this crate. The `models`
/// crate enables one bug at a time and checks that a model finds it.
macro_rules! injected_bug {
    ($name:literal) => {
        false
    };
}
pub(crate) use injected_bug;

/// Whether this is a build for the model checker. Such a build has small capacities, so that models
/// reach the limits.
pub(crate) const MODEL: bool = false;

/// Declares a `const fn`. The `models` crate declares a plain function instead, because the
/// constructors of the model checkers' types are not `const`.
macro_rules! const_fn {
    ($(#[$meta:meta])* $vis:vis fn $($rest:tt)*) => {
        $(#[$meta])* $vis const fn $($rest)*
    };
}
pub(crate) use const_fn;

/// Creates an array of `$count` elements, each with the value of the constant expression
/// `$element`. The type of the elements need not be `Copy`.
macro_rules! array_of {
    ($element:expr; $count:expr) => {
        [const { $element }; $count]
    };
}
pub(crate) use array_of;

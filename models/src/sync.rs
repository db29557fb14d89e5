//! The crate's `sync.rs`, made of loom's types.

// Reference counts are not what the models are about, and loom's own `Arc` cannot hold a waker.
pub(crate) use std::sync::Arc;

pub(crate) use loom::sync::MutexGuard;
pub(crate) use loom::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};

use std::sync::OnceLock;
use std::time::Duration;

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Mutex<T> {
        Mutex(loom::sync::Mutex::new(value))
    }

    #[track_caller]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().expect("loom's locks are not poisoned")
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().expect("loom's locks are not poisoned")
    }
}

#[derive(Debug, Default)]
pub(crate) struct Condvar(loom::sync::Condvar);

impl Condvar {
    pub(crate) fn new() -> Condvar {
        Condvar(loom::sync::Condvar::new())
    }

    #[track_caller]
    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).expect("loom's locks are not poisoned")
    }

    /// Time does not pass in a model: this waits for a notification, so whoever relies on the timeout deadlocks.
    #[track_caller]
    pub(crate) fn wait_timeout<'a, T>(&self, guard: MutexGuard<'a, T>, _timeout: Duration) -> MutexGuard<'a, T> {
        self.wait(guard)
    }

    #[track_caller]
    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    #[track_caller]
    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// Names the bug that is switched on in this process.
pub(crate) const PLANTED_VARIABLE: &str = "NETPOLL_PLANTED";

pub(crate) fn is_planted(name: &str) -> bool {
    static PLANTED: OnceLock<Option<String>> = OnceLock::new();
    PLANTED.get_or_init(|| std::env::var(PLANTED_VARIABLE).ok()).as_deref() == Some(name)
}

/// Whether the planted bug `name` is switched on.
macro_rules! planted {
    ($name:literal) => {
        $crate::sync::is_planted($name)
    };
}
pub(crate) use planted;

/// Whether this is a model: sizes shrink where it is.
pub(crate) const MODEL: bool = true;

/// A function that is `const` in the crate; loom's types have no `const` constructors.
macro_rules! const_fn {
    ($($function:tt)*) => {
        $($function)*
    };
}
pub(crate) use const_fn;

/// An array of values that are not `Copy`.
macro_rules! array_of {
    ($value:expr; $length:expr) => {
        std::array::from_fn::<_, { $length }, _>(|_| $value)
    };
}
pub(crate) use array_of;

//! A replacement for the crate's `sync.rs`, with the checker's types.

// The models do not check the memory ordering of reference counts, and loom's own `Arc` cannot
// become a `Waker`.
pub(crate) use std::sync::Arc;

pub(crate) use crate::engine::UnsafeCell;
pub(crate) use crate::engine::sync::MutexGuard;
pub(crate) use crate::engine::sync::atomic::{Ordering, fence};
pub(crate) use crate::engine::thread::yield_now;

use std::sync::OnceLock;
use std::time::Duration;

use crate::engine::sync;

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Mutex<T> {
        Mutex(sync::Mutex::new(value))
    }

    #[track_caller]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().expect("a model's locks are not poisoned")
    }

    #[track_caller]
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock().ok()
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().expect("a model's locks are not poisoned")
    }
}

#[derive(Debug, Default)]
pub(crate) struct Condvar(sync::Condvar);

impl Condvar {
    pub(crate) fn new() -> Condvar {
        Condvar(sync::Condvar::new())
    }

    #[track_caller]
    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).expect("a model's locks are not poisoned")
    }

    /// Waits for a notification. Time does not pass in a model, so code that relies on the timeout
    /// deadlocks.
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

/// Surrounds a SeqCst access with fences, because loom treats SeqCst accesses as AcqRel and
/// implements the total order for SeqCst fences only.
///
/// The fences are stronger than the access, so a model does not detect a SeqCst access that should
/// be a fence. shuttle needs no fences, because its memory is always sequentially consistent.
#[inline]
#[track_caller]
fn ordered<T>(ordering: Ordering, access: impl FnOnce() -> T) -> T {
    if ordering != Ordering::SeqCst || cfg!(feature = "shuttle") {
        return access();
    }
    fence(Ordering::SeqCst);
    let result = access();
    fence(Ordering::SeqCst);
    result
}

/// Declares a wrapper of the checker's atomic, with the methods that all types have.
macro_rules! atomic {
    ($name:ident $(<$generic:ident>)?, $value:ty) => {
        #[derive(Debug)]
        pub(crate) struct $name $(<$generic>)?(sync::atomic::$name $(<$generic>)?);

        impl $(<$generic>)? $name $(<$generic>)? {
            pub(crate) fn new(value: $value) -> Self {
                Self(sync::atomic::$name::new(value))
            }

            #[track_caller]
            pub(crate) fn load(&self, ordering: Ordering) -> $value {
                ordered(ordering, || self.0.load(ordering))
            }

            #[track_caller]
            pub(crate) fn store(&self, value: $value, ordering: Ordering) {
                ordered(ordering, || self.0.store(value, ordering));
            }

            #[track_caller]
            pub(crate) fn swap(&self, value: $value, ordering: Ordering) -> $value {
                ordered(ordering, || self.0.swap(value, ordering))
            }

            #[track_caller]
            pub(crate) fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                ordered(success, || self.0.compare_exchange(current, new, success, failure))
            }

            #[track_caller]
            pub(crate) fn compare_exchange_weak(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.compare_exchange(current, new, success, failure)
            }

            #[track_caller]
            pub(crate) fn fetch_update(
                &self,
                success: Ordering,
                failure: Ordering,
                update: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                ordered(success, || self.0.fetch_update(success, failure, update))
            }
        }
    };
}

/// Declares read-modify-write methods that only some integer types have.
macro_rules! arithmetic {
    ($name:ident, $value:ty: $($method:ident)*) => {
        impl $name {
            $(
                #[track_caller]
                pub(crate) fn $method(&self, value: $value, ordering: Ordering) -> $value {
                    ordered(ordering, || self.0.$method(value, ordering))
                }
            )*
        }
    };
}

atomic!(AtomicBool, bool);
atomic!(AtomicU8, u8);
atomic!(AtomicU16, u16);
atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);
atomic!(AtomicUsize, usize);
atomic!(AtomicPtr<T>, *mut T);
arithmetic!(AtomicU32, u32: fetch_add fetch_sub fetch_or fetch_and fetch_max);
arithmetic!(AtomicU64, u64: fetch_add fetch_sub fetch_or fetch_and fetch_max);
arithmetic!(AtomicUsize, usize: fetch_add fetch_sub fetch_or fetch_and fetch_max);

/// The environment variable with the name of the bug that is injected in this process.
pub(crate) const INJECTED_VARIABLE: &str = "NETPOLL_INJECTED_BUG";

/// Returns whether the bug `name` is injected in this process.
pub(crate) fn is_injected(name: &str) -> bool {
    static INJECTED: OnceLock<Option<String>> = OnceLock::new();
    INJECTED.get_or_init(|| std::env::var(INJECTED_VARIABLE).ok()).as_deref() == Some(name)
}

/// Returns whether the bug of this name is injected in this process.
macro_rules! injected_bug {
    ($name:literal) => {
        $crate::sync::is_injected($name)
    };
}
pub(crate) use injected_bug;

/// Whether the code is compiled for a model, in which sizes are smaller.
pub(crate) const MODEL: bool = true;

/// Declares a function that is `const` in the crate. The constructors of loom's types are not
/// `const`.
macro_rules! const_fn {
    ($($function:tt)*) => {
        $($function)*
    };
}
pub(crate) use const_fn;

/// Creates an array of values whose type need not be `Copy`.
macro_rules! array_of {
    ($value:expr; $length:expr) => {
        std::array::from_fn::<_, { $length }, _>(|_| $value)
    };
}
pub(crate) use array_of;

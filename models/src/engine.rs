//! The types of the model checker: loom by default, shuttle with the feature `shuttle`.
//!
//! loom tries every order of events within a bound on preemptions, and shuttle tries many random
//! orders. An execution under shuttle may have more preemptions than loom's bound permits. Unlike
//! loom, shuttle has sequentially consistent memory, so it does not detect memory orderings that
//! are too weak.

#[cfg(not(feature = "shuttle"))]
pub(crate) use loom::{cell::UnsafeCell, sync, thread, thread_local};
#[cfg(feature = "shuttle")]
pub(crate) use shuttle::{sync, thread, thread_local};

#[cfg(feature = "shuttle")]
pub(crate) use cell::UnsafeCell;

#[cfg(feature = "shuttle")]
mod cell {
    use super::sync::atomic::{AtomicUsize, Ordering};

    /// The count of an exclusive access.
    const EXCLUSIVE: usize = usize::MAX / 2;

    /// A replacement for loom's cell. It panics if conflicting accesses overlap. Other threads may
    /// run during an access.
    #[derive(Debug)]
    pub(crate) struct UnsafeCell<T> {
        value: std::cell::UnsafeCell<T>,
        /// The number of shared accesses in progress, plus `EXCLUSIVE` per exclusive access.
        accesses: AtomicUsize,
    }

    impl<T> UnsafeCell<T> {
        pub(crate) fn new(value: T) -> UnsafeCell<T> {
            UnsafeCell { value: std::cell::UnsafeCell::new(value), accesses: AtomicUsize::new(0) }
        }

        #[track_caller]
        pub(crate) fn with<R>(&self, access: impl FnOnce(*const T) -> R) -> R {
            self.counted(1, EXCLUSIVE, || access(self.value.get()))
        }

        #[track_caller]
        pub(crate) fn with_mut<R>(&self, access: impl FnOnce(*mut T) -> R) -> R {
            self.counted(EXCLUSIVE, 1, || access(self.value.get()))
        }

        #[track_caller]
        fn counted<R>(&self, add: usize, free_below: usize, access: impl FnOnce() -> R) -> R {
            let others = self.accesses.fetch_add(add, Ordering::SeqCst);
            assert!(others < free_below, "{}: two accesses at once", crate::harness::RACE);
            let result = access();
            self.accesses.fetch_sub(add, Ordering::SeqCst);
            result
        }
    }
}

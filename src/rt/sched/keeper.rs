//! [`Keeper`]: the reference that keeps a waiting task alive until its future is dropped.
//!
//! `async-task` ends a detached task when the last of its wakers is dropped. If the task has no
//! waker when a poll returns `Pending`, `async-task` frees it without running the destructor of the
//! future. So the first poll that returns `Pending` leaves a waker beside the task's
//! [`Record`](super::record::Record). A shutdown wakes the task by this waker, without consuming
//! it, so that the task is dropped even if nothing else wakes it.
//!
//! # States
//! *empty* → ([`keep`](Keeper::keep)) *kept* ⇄ *in use* (a shutdown wakes the task), *kept* →
//! ([`release`](Keeper::release)) *empty*.
//!
//! # Invariants
//! * The waker exists until the future is dropped, so the task is not freed before.
//! * `keep` and `release` are called by the thread that owns the task's `Runnable`, so they do not
//!   overlap.
//!
//! # Memory ordering
//! The store in `keep` publishes the virtual table to the exchange in `wake`. The end of a use is a
//! Release, and the exchange in `release` an Acquire, so the task is not freed, and the virtual
//! table of the next task not stored, before the use has ended (model
//! `keeper_is_used_while_its_task_exists`).
//!
//! A first poll may return after the shutdown has looked for wakers. The thread stores the waker
//! and then reads the epoch; the shutdown advances the epoch and then looks for wakers. A fence
//! separates the two accesses on both sides, so at least one of the two threads wakes the task
//! (model `first_wait_against_shutdown`).

#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::panic::RefUnwindSafe;
use std::ptr;
use std::task::{RawWakerVTable, Waker};

use super::own_waker;
use crate::rt::fork;
use crate::sync::{AtomicPtr, Ordering, UnsafeCell, const_fn, injected_bug, yield_now};

/// Set in the data pointer while a shutdown uses the waker. `async-task` aligns its tasks to words.
const IN_USE: usize = 1;

/// The place of a task's waker; see the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Keeper {
    /// The data pointer of the waker, or null.
    data: AtomicPtr<()>,
    vtable: UnsafeCell<*const RawWakerVTable>,
}

// SAFETY: the virtual table is written while the keeper is empty, and otherwise only read.
unsafe impl Send for Keeper {}
// SAFETY: as above. The waker may be cloned and dropped by any thread.
unsafe impl Sync for Keeper {}
// No user code runs while the keeper changes, so a panic cannot leave it in an inconsistent state.
impl RefUnwindSafe for Keeper {}

impl Keeper {
    const_fn! {
        pub(crate) fn new() -> Keeper {
            Keeper { data: AtomicPtr::new(ptr::null_mut()), vtable: UnsafeCell::new(ptr::null()) }
        }
    }

    /// Keeps `waker`, which must be a waker of `async-task`. The keeper must be empty.
    pub(crate) fn keep(&self, waker: Waker) {
        let waker = ManuallyDrop::new(waker);
        // SAFETY: no thread reads the virtual table of an empty keeper.
        self.vtable.with_mut(|vtable| unsafe { *vtable = waker.vtable() });
        // ORDERING: Release publishes the virtual table to `wake`.
        let order = if injected_bug!("keeper_is_not_published") { Ordering::Relaxed } else { Ordering::Release };
        self.data.store(waker.data().cast_mut(), order);
    }

    /// Drops the waker, if there is one. Waits while a shutdown uses the waker. In a child of
    /// fork(2), leaks a waker that was in use at the fork.
    pub(crate) fn release(&self) {
        // ORDERING: Relaxed: this thread or one before it has stored the pointer; a shutdown only
        // changes `IN_USE`.
        let data = self.data.load(Ordering::Relaxed).map_addr(|addr| addr & !IN_USE);
        if data.is_null() {
            return;
        }
        // ORDERING: Acquire pairs with the store at the end of a use.
        while self.data.compare_exchange(data, ptr::null_mut(), Ordering::Acquire, Ordering::Relaxed).is_err()
            && !injected_bug!("keeper_is_released_while_it_is_used")
        {
            if fork::is_child() {
                // The thread that used the waker exists only in the parent.
                return;
            }
            yield_now();
        }
        drop(self.waker(data));
    }

    /// Wakes the task, unless there is no waker or another thread uses it. The caller must
    /// [defer](crate::rt::context::defer_discards) the drops of tasks, so that no user code runs
    /// here.
    pub(crate) fn wake(&self) {
        let data = self.data.load(Ordering::Relaxed);
        if data.is_null() || data.addr() & IN_USE != 0 {
            return;
        }
        let in_use = data.map_addr(|addr| addr | IN_USE);
        // ORDERING: Acquire pairs with the store in `keep`.
        if self.data.compare_exchange(data, in_use, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            ManuallyDrop::new(self.waker(data)).wake_by_ref();
            // ORDERING: Release: the use ends before `release` drops the waker.
            self.data.store(data, Ordering::Release);
        }
    }

    /// Returns the kept waker, whose data pointer is `data`. The caller must have set [`IN_USE`] or
    /// own the task's `Runnable`, so that no other thread writes the virtual table.
    fn waker(&self, data: *const ()) -> Waker {
        // SAFETY: no thread writes the virtual table.
        own_waker::waker(data, self.vtable.with(|vtable| unsafe { *vtable }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counting_waker::CountingWaker;
    use std::sync::Arc;

    #[test]
    fn task_is_woken_until_its_waker_is_released() {
        let (keeper, count) = (Keeper::new(), Arc::<CountingWaker>::default());
        keeper.release();
        keeper.wake();
        for round in 1..=3 {
            keeper.keep(Waker::from(count.clone()));
            keeper.wake();
            assert_eq!((count.wakeups(), Arc::strong_count(&count)), (round, 2));
            keeper.release();
            keeper.wake();
            assert_eq!((count.wakeups(), Arc::strong_count(&count)), (round, 1));
        }
    }
}

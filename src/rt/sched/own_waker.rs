//! The waker of the running task, and the reference that a wake-up leaves with its task.
//!
//! A task of a server usually waits with its own waker, is woken by the poller, and waits again. If
//! each wait cloned the waker and each wake-up consumed the clone, the two changes of the reference
//! count would cost two atomic read-modify-writes, and the first one would make a compare-exchange
//! of `async-task` fail. So the thread that polls wakes such a task *by reference* and leaves the
//! reference that the waker holds with the task. The next wait makes its waker from this *spare*
//! reference.
//!
//! # States
//! The reference of a waker goes through these places:
//!
//! 1. In a wait slot, in a waker that is marked as own ([`to_store`]).
//! 2. In [`wake`], which offers the reference while it wakes the task. If the wake-up queues the
//!    task at this thread's processor, [`accept`] stores the reference in the task's [`Spare`].
//!    Otherwise, `wake` drops it.
//! 3. On the thread that runs the turn ([`begin`]).
//! 4. In the waker of the next wait, or dropped at the [`end`] of the turn.
//!
//! A waker that is marked as own may also be woken or dropped like any other waker, for example by
//! a close.
//!
//! No spare reference outlives the turn that follows the wake-up. A spare reference is never the
//! last reference to a waiting task, because of the task's [`Keeper`](super::keeper::Keeper).
//!
//! # Invariants
//! * Only the owner of the task's `Runnable` accesses its [`Spare`]: the schedule function, before
//!   it queues the task, and the thread that has taken the task out of a queue. The queue orders
//!   these accesses. The thread that drops the last reference to the task also reads whether the
//!   task has ended.
//! * A waker is own if both its data pointer and its virtual table are those with which
//!   `async-task` polls the task. A user's waker may have the same data pointer, but it has another
//!   table.
//! * A task that is dropped without a turn drops its spare reference ([`Spare::release`]).

#![allow(unsafe_code)]

use std::cell::Cell;
use std::fmt;
use std::ptr;
use std::task::{RawWakerVTable, Waker};

use crate::sync::{AtomicPtr, Ordering};

/// The value of `Turn::data` outside turns. No waker has this data pointer.
const NO_TURN: *const () = ptr::without_provenance(usize::MAX);

/// The own waker and the spare reference of the turn that this thread is in.
struct Turn {
    /// The data pointer of the waker of the task whose turn this thread is in, or [`NO_TURN`].
    data: Cell<*const ()>,
    /// The virtual table of the waker with which `async-task` last polled a task on this thread.
    vtable: Cell<*const RawWakerVTable>,
    /// The virtual table of the waker whose reference is spare, or null if there is none.
    spare: Cell<*const RawWakerVTable>,
    /// The data pointer of that waker.
    spare_data: Cell<*const ()>,
    /// The data pointer and the virtual table of the waker whose reference [`wake`] offers. The
    /// pointer is null outside `wake`, and after the reference was accepted.
    offered: Cell<*const ()>,
    offered_vtable: Cell<*const RawWakerVTable>,
}

impl Turn {
    #[inline]
    fn is_own(&self, waker: &Waker) -> bool {
        self.data.get() == waker.data() && ptr::eq(self.vtable.get(), waker.vtable())
    }
}

thread_local! {
    static TURN: Turn = const {
        Turn {
            data: Cell::new(NO_TURN),
            vtable: Cell::new(ptr::null()),
            spare: Cell::new(ptr::null()),
            spare_data: Cell::new(ptr::null()),
            offered: Cell::new(ptr::null()),
            offered_vtable: Cell::new(ptr::null()),
        }
    };
}

/// The spare reference of a task that is queued: the virtual table of its waker, or null if there
/// is none. [`ENDED`] if the task has ended and has freed its record.
pub(crate) struct Spare(AtomicPtr<RawWakerVTable>);

/// The word of a task that has freed its record. It is not the address of a virtual table.
const ENDED: *mut RawWakerVTable = ptr::without_provenance_mut(1);

impl Spare {
    pub(crate) fn new() -> Spare {
        Spare(AtomicPtr::new(ptr::null_mut()))
    }

    /// Records that the task has ended, and that the caller frees its record. The caller must be in
    /// the last turn of the task, or drop the task.
    #[inline]
    pub(super) fn end(&self) {
        // ORDERING: Relaxed: the caller owns the `Runnable`, and the end of the last reference to
        // the task orders `has_ended` after this.
        self.0.store(ENDED, Ordering::Relaxed);
    }

    /// Returns whether [`end`](Spare::end) was called.
    #[inline]
    pub(super) fn has_ended(&self) -> bool {
        ptr::eq(self.0.load(Ordering::Relaxed), ENDED)
    }

    /// Takes the reference.
    #[inline]
    fn take(&self) -> *const RawWakerVTable {
        // ORDERING: Relaxed: the caller owns the `Runnable`.
        let vtable = self.0.load(Ordering::Relaxed);
        self.0.store(ptr::null_mut(), Ordering::Relaxed);
        vtable
    }

    /// Drops the reference, if there is one. The caller must own the task's `Runnable`, whose
    /// pointer is `data`.
    pub(crate) fn release(&self, data: *const ()) {
        drop_spare(data, self.take());
    }
}

impl fmt::Debug for Spare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Spare").finish_non_exhaustive()
    }
}

/// Makes a waker from the reference of a forgotten waker with this data pointer and this virtual
/// table. The caller must have taken the reference.
#[inline]
pub(super) fn waker(data: *const (), vtable: *const RawWakerVTable) -> Waker {
    // SAFETY: the pointer comes from `Waker::vtable`, which returns a static reference.
    let vtable = unsafe { &*vtable };
    // SAFETY: a waker with this data pointer and this virtual table was forgotten. The reference
    // was taken, so no other waker is made from it.
    unsafe { Waker::new(data, vtable) }
}

fn drop_spare(data: *const (), vtable: *const RawWakerVTable) {
    if !vtable.is_null() {
        drop(waker(data, vtable));
    }
}

/// Returns the data pointer of the waker of the task whose turn this thread is in. Returns `None`
/// if it is not known: outside turns, in the part of a turn that follows a nested turn, and in
/// turns without an own waker, such as blocking calls.
#[inline]
pub(crate) fn data() -> Option<*const ()> {
    Some(TURN.with(|turn| turn.data.get())).filter(|&data| data != NO_TURN)
}

/// Returns whether `waker` has the data pointer of the waker of the task whose turn this thread is
/// in.
#[inline]
pub(crate) fn has_data_of(waker: &Waker) -> bool {
    TURN.with(|turn| turn.data.get() == waker.data())
}

/// Returns whether `waker` is own: the waker with which `async-task` polls the task whose turn this
/// thread is in.
#[inline]
pub(crate) fn is_own(waker: &Waker) -> bool {
    TURN.with(|turn| turn.is_own(waker))
}

/// Sets the result of [`data`].
#[inline]
pub(crate) fn set_data(data: Option<*const ()>) {
    TURN.with(|turn| turn.data.set(data.unwrap_or(NO_TURN)));
}

/// Begins a turn of the task whose `Runnable` has the pointer `data`, and takes its spare
/// reference. This thread must be in no other such turn.
#[inline]
pub(crate) fn begin(data: *const (), spare: &Spare) {
    TURN.with(|turn| {
        debug_assert!(turn.spare.get().is_null(), "the turn has begun inside another turn");
        turn.spare.set(spare.take());
        turn.spare_data.set(data);
    });
}

/// Records the waker with which `async-task` polls the running task.
#[inline]
pub(crate) fn note(waker: &Waker) {
    TURN.with(|turn| turn.vtable.set(waker.vtable()));
}

/// Ends the turn. Drops the spare reference if no wait has used it.
#[inline]
pub(crate) fn end() {
    TURN.with(|turn| {
        if !turn.spare.get().is_null() {
            drop_rest(turn);
        }
    });
}

#[cold]
#[inline(never)]
fn drop_rest(turn: &Turn) {
    let vtable = turn.spare.replace(ptr::null());
    drop_spare(turn.spare_data.get(), vtable);
}

/// Returns a waker for the task of `waker`, and whether it is an own waker. Uses the spare
/// reference, if it belongs to the same task, and otherwise clones `waker`.
#[inline]
pub(crate) fn to_store(waker: &Waker) -> (Waker, bool) {
    TURN.with(|turn| {
        if turn.spare_data.get() == waker.data() && ptr::eq(turn.spare.get(), waker.vtable()) {
            turn.spare.set(ptr::null());
            return (self::waker(waker.data(), waker.vtable()), true);
        }
        (waker.clone(), turn.is_own(waker))
    })
}

/// Wakes a task by a waker that [`to_store`] has returned as own. Leaves the waker's reference with
/// the task if the wake-up schedules the task on this thread's processor. The caller must
/// [defer](crate::rt::context::defer_discards) the drops of tasks, so that no user code runs here.
///
/// Another thread may run the task and drop the reference before `wake_by_ref` returns. So this
/// relies on `async-task` 4.7, which does not access the task after it has called a schedule
/// function without captured values (`task.rs` asserts that it has none, and Cargo.toml names the
/// version).
#[inline]
pub(crate) fn wake(waker: Waker) {
    TURN.with(|turn| {
        turn.offered_vtable.set(waker.vtable());
        turn.offered.set(waker.data());
    });
    waker.wake_by_ref();
    let offered = TURN.with(|turn| turn.offered.replace(ptr::null()));
    if offered.is_null() {
        // The reference was accepted.
        std::mem::forget(waker);
    }
}

/// Accepts the reference that [`wake`] offers, if it is a reference to the task that is being
/// scheduled. The caller must own the task's `Runnable`, whose pointer is `data`.
#[inline]
pub(crate) fn accept(data: *const (), spare: &Spare) {
    TURN.with(|turn| {
        if turn.offered.get() == data {
            turn.offered.set(ptr::null());
            // ORDERING: Relaxed: the caller owns the `Runnable`, and the queue publishes the store.
            spare.0.store(turn.offered_vtable.get().cast_mut(), Ordering::Relaxed);
        }
    });
}

#[cfg(test)]
#[path = "own_waker_tests.rs"]
mod tests;

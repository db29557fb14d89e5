//! [`WaitSlot`]: a place for one waker, which is claimed and vacated without a lock.
//!
//! A direction of a socket usually has one waiter, which uses this slot. Further waiters use the
//! list of [`Side`](crate::rt::poll::side::Side). The bit PLACED of the word of the `Side` shows
//! whether the slot is *published*. As in `rt/waiters.rs`, a waiter is a *future* or a *poll* (a
//! task that has called a `poll_*` method).
//!
//! # States
//! | tag | published | state |
//! |---|---|---|
//! | free | no | the slot is empty; the thread that changes the tag to taken gets exclusive access |
//! | taken | no | the thread that claimed the slot or cleared the bit has exclusive access |
//! | taken | yes | the slot contains a waker; the thread that clears the bit gets exclusive access |
//!
//! A thread with exclusive access either publishes the slot, possibly again, or empties it with
//! [`vacate`](WaitSlot::vacate).
//!
//! # Invariants
//! * K1 — only the thread that has the slot exclusively accesses the waker (the models of
//!   `wait_state` verify this with loom's cell).
//! * K2 — each tag of a taken slot is used once in the lifetime of the slot, so a waiter that has
//!   left or was taken out is never mistaken for a later one.
//! * K3 — no thread waits for the slot: a thread that does not get it uses the list or makes its
//!   call. No user code runs while a thread has the slot exclusively.
//!
//! # Memory ordering
//! The bit publishes the waker (Release by the thread that sets it, Acquire by the thread that
//! clears it). The tag publishes the removal of the waker (Release in `vacate`, Acquire in
//! `claim`).

#![allow(unsafe_code)]

use std::fmt;
use std::mem::MaybeUninit;
use std::num::NonZeroU64;
use std::panic::RefUnwindSafe;
use std::task::Waker;

use crate::rt::waiters::Key;
use crate::sync::{AtomicU64, Ordering, UnsafeCell, injected_bug};

/// The bit of the tag of a taken slot. No key of a list has this bit.
const TAKEN: NonZeroU64 = NonZeroU64::new(1 << 62).unwrap();
/// The bit of the tag of a slot that a poll has taken.
const POLL: u64 = 1 << 61;
/// The bit of the tag of a slot whose waker is the own waker of a task; see
/// [`own_waker`](crate::rt::sched::own_waker). It is not part of the key.
const OWN: u64 = 1 << 60;
/// The bits of a tag that count the waiters that have had the slot.
const COUNT: u64 = OWN - 1;

/// Returns whether a future's key is for a slot rather than a list.
#[inline]
pub(crate) fn is_of_slot(key: Key) -> bool {
    key.get() & TAKEN.get() != 0
}

/// A place for one waker; see the [module documentation](self).
pub(crate) struct WaitSlot {
    tag: AtomicU64,
    waker: UnsafeCell<MaybeUninit<Waker>>,
}

// SAFETY: one thread at a time accesses the cell (K1), and any thread may use and drop a waker.
unsafe impl Sync for WaitSlot {}

// No user code runs while the slot changes, so no panic can leave it inconsistent.
impl RefUnwindSafe for WaitSlot {}

impl WaitSlot {
    pub(crate) fn new() -> WaitSlot {
        WaitSlot { tag: AtomicU64::new(0), waker: UnsafeCell::new(MaybeUninit::uninit()) }
    }

    /// Claims the slot if it is free, and stores `waker`. The caller then has the slot exclusively.
    /// Returns the key, or `waker` if the slot is taken. `is_own` says whether `waker` is the own
    /// waker of a task.
    #[inline]
    pub(crate) fn claim(&self, is_poll: bool, waker: Waker, is_own: bool) -> Result<Key, Waker> {
        let free = self.tag.load(Ordering::Relaxed);
        let taken = TAKEN | (free.wrapping_add(1) & COUNT) | if is_poll { POLL } else { 0 };
        let tag = taken.get() | if is_own { OWN } else { 0 };
        // ORDERING: Acquire pairs with the Release in `vacate`, so the previous waker has been
        // moved out.
        if free & TAKEN.get() != 0
            || self.tag.compare_exchange(free, tag, Ordering::Acquire, Ordering::Relaxed).is_err()
        {
            return Err(waker);
        }
        self.waker.with_mut(|place| {
            // SAFETY: the slot was free and now belongs to the caller, which has not published it.
            unsafe { (*place).write(waker) };
        });
        Ok(taken)
    }

    /// Returns whether the slot is free. The result may already be outdated.
    #[inline]
    pub(crate) fn is_free(&self) -> bool {
        self.tag.load(Ordering::Relaxed) & TAKEN.get() == 0
    }

    /// Returns whether the future `key` has the slot. If the result is true, it may already be
    /// outdated: a caller that relies on it must clear the bit, and then check again, by this
    /// method or by the result of `vacate`.
    #[inline]
    pub(crate) fn is_of(&self, key: Key) -> bool {
        // ORDERING: Acquire pairs with the Release in `vacate`: a thread that sees that the future
        // was taken out also sees the reason (model `a_dropped_reader_passes_on`).
        let order = if injected_bug!("slot_tag_is_relaxed") { Ordering::Relaxed } else { Ordering::Acquire };
        self.tag.load(order) & !OWN == key.get()
    }

    /// Returns whether a poll has the slot. The result may already be outdated.
    #[inline]
    pub(crate) fn is_poll(&self) -> bool {
        self.tag.load(Ordering::Relaxed) & (TAKEN.get() | POLL) == TAKEN.get() | POLL
    }

    /// Returns whether a poll with an equivalent waker has the slot.
    ///
    /// # Safety
    /// The slot must be taken, and the caller must have it exclusively.
    #[inline]
    pub(crate) unsafe fn holds_poll(&self, waker: &Waker) -> bool {
        self.is_poll()
            && self.waker.with(|place| {
                // SAFETY: the caller guarantees exclusive access.
                let place = unsafe { &*place };
                // SAFETY: the slot is taken, so there is a waker.
                unsafe { place.assume_init_ref() }.will_wake(waker)
            })
    }

    /// Replaces the waker and returns the previous one. `is_own` says whether `waker` is the own
    /// waker of a task.
    ///
    /// # Safety
    /// The slot must be taken, and the caller must have it exclusively.
    pub(crate) unsafe fn replace(&self, waker: Waker, is_own: bool) -> Waker {
        let tag = self.tag.load(Ordering::Relaxed) & !OWN;
        self.tag.store(tag | if is_own { OWN } else { 0 }, Ordering::Relaxed);
        self.waker.with_mut(|place| {
            // SAFETY: the caller guarantees exclusive access.
            let place = unsafe { &mut *place };
            // SAFETY: the slot is taken, so there is a waker.
            std::mem::replace(unsafe { place.assume_init_mut() }, waker)
        })
    }

    /// Empties the slot and returns the waiter.
    ///
    /// # Safety
    /// The slot must be taken, and the caller must have it exclusively.
    #[inline]
    pub(crate) unsafe fn vacate(&self) -> Vacated {
        let tag = self.tag.load(Ordering::Relaxed);
        if injected_bug!("slot_freed_before_it_is_empty") {
            self.tag.store(tag & COUNT, Ordering::Release);
        }
        let waker = self.waker.with_mut(|place| {
            // SAFETY: the caller guarantees exclusive access.
            let place = unsafe { &*place };
            // SAFETY: the slot is taken, so there is a waker. The new tag marks it as moved out.
            unsafe { place.assume_init_read() }
        });
        // ORDERING: Release pairs with the Acquire in `claim`.
        self.tag.store(tag & COUNT, Ordering::Release);
        Vacated { tag, waker }
    }
}

/// A waiter that was taken out of a slot.
pub(crate) struct Vacated {
    tag: u64,
    pub(crate) waker: Waker,
}

impl Vacated {
    /// Returns the key of the waiter, or `None` for a poll.
    #[inline]
    pub(crate) fn key(&self) -> Option<Key> {
        if self.tag & POLL == 0 { Key::new(self.tag & !OWN) } else { None }
    }

    /// Returns whether the waker is the own waker of a task.
    #[inline]
    pub(crate) fn is_own(&self) -> bool {
        self.tag & OWN != 0
    }
}

impl Drop for WaitSlot {
    fn drop(&mut self) {
        if !self.is_free() {
            // SAFETY: the slot is taken, and there is no other reference.
            drop(unsafe { self.vacate() });
        }
    }
}

impl fmt::Debug for WaitSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitSlot").field("is_free", &self.is_free()).finish_non_exhaustive()
    }
}

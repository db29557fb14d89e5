//! `WaitSlot`: the place of one waker, which is taken and left without a lock.
//!
//! A direction of a socket has one waiter nearly always: this is its place. A second waits in the list of
//! [`Side`](crate::rt::poll::side::Side), which also keeps the bit that says whether the slot is *published*.
//!
//! # States
//! | tag | published | state |
//! |---|---|---|
//! | free | no | free: whoever moves the tag on has the slot to itself |
//! | taken | no | one thread has it to itself: it has moved in, or has cleared the bit |
//! | taken | yes | a waker waits; whoever clears the bit has the slot to itself |
//!
//! Who has the slot to itself publishes it (again, if it is its own), or empties it with [`vacate`](WaitSlot::vacate).
//!
//! # Invariants
//! * K1 — the waker is touched only by who has the slot to itself (the checker's cell says so in the models of `wait_state`).
//! * K2 — a tag is used once in the slot's life, so that who has left, or was taken out, is not mistaken for who came after.
//! * K3 — nobody waits for a slot: who does not get it goes elsewhere. No foreign code runs while a thread has one to itself.
//!
//! # Memory ordering
//! The waker travels with the bit (Release by who publishes, Acquire by who clears) and its absence with the tag (Release in `vacate`,
//! Acquire in `claim`).

#![allow(unsafe_code)]

use std::fmt;
use std::mem::MaybeUninit;
use std::num::NonZeroU64;
use std::panic::RefUnwindSafe;
use std::task::Waker;

use crate::rt::waiters::Key;
use crate::sync::{AtomicU64, Ordering, UnsafeCell, planted};

/// The tag of a slot that is taken has this bit, and [`POLL`] if by a poll; the bits below count those who had it. No key of a list
/// has it.
const TAKEN: NonZeroU64 = NonZeroU64::new(1 << 62).unwrap();
const POLL: u64 = 1 << 61;
const COUNT: u64 = POLL - 1;

/// Whether a future's key is for a slot rather than a list.
#[inline]
pub(crate) fn is_of_slot(key: Key) -> bool {
    key.get() & TAKEN.get() != 0
}

/// See the module's header.
pub(crate) struct WaitSlot {
    tag: AtomicU64,
    waker: UnsafeCell<MaybeUninit<Waker>>,
}

// SAFETY: K1: the cell is reached by one thread at a time, and a waker may be used and dropped by any.
unsafe impl Sync for WaitSlot {}

// No foreign code runs while it is changed.
impl RefUnwindSafe for WaitSlot {}

impl WaitSlot {
    pub(crate) fn new() -> WaitSlot {
        WaitSlot { tag: AtomicU64::new(0), waker: UnsafeCell::new(MaybeUninit::uninit()) }
    }

    /// Moves in, if the slot is free, and has it to itself then. Returns the key of a future.
    #[inline]
    pub(crate) fn claim(&self, is_poll: bool, waker: Waker) -> Result<Key, Waker> {
        let free = self.tag.load(Ordering::Relaxed);
        let taken = TAKEN | (free.wrapping_add(1) & COUNT) | if is_poll { POLL } else { 0 };
        // ORDERING: Acquire pairs with the Release in `vacate`: the last waker was moved out.
        if free & TAKEN.get() != 0
            || self.tag.compare_exchange(free, taken.get(), Ordering::Acquire, Ordering::Relaxed).is_err()
        {
            return Err(waker);
        }
        self.waker.with_mut(|place| {
            // SAFETY: the slot was free and is the caller's now, who has not published it.
            unsafe { (*place).write(waker) };
        });
        Ok(taken)
    }

    /// Whether it is free, at this moment.
    #[inline]
    pub(crate) fn is_free(&self) -> bool {
        self.tag.load(Ordering::Relaxed) & TAKEN.get() == 0
    }

    /// Whether the future `key` has it, at this moment.
    #[inline]
    pub(crate) fn is_of(&self, key: Key) -> bool {
        // ORDERING: Acquire pairs with the Release in `vacate`: who sees that it was taken out sees the reason (model
        // `a_dropped_reader_passes_on`). That it is there is a hint: who acts on it clears the bit first and looks at what `vacate` says.
        let order = if planted!("slot_tag_is_relaxed") { Ordering::Relaxed } else { Ordering::Acquire };
        self.tag.load(order) == key.get()
    }

    /// Whether a poll has it, at this moment.
    #[inline]
    pub(crate) fn is_of_poll(&self) -> bool {
        self.tag.load(Ordering::Relaxed) & (TAKEN.get() | POLL) == TAKEN.get() | POLL
    }

    /// Whether it is taken by a poll with a waker like this one.
    ///
    /// # Safety
    /// The slot is taken, and the caller has it to itself.
    #[inline]
    pub(crate) unsafe fn holds_poll(&self, waker: &Waker) -> bool {
        self.is_of_poll()
            && self.waker.with(|place| {
                // SAFETY: nobody else touches it, by the caller's word.
                let place = unsafe { &*place };
                // SAFETY: taken, so there is a waker.
                unsafe { place.assume_init_ref() }.will_wake(waker)
            })
    }

    /// Puts another waker in the place of the one that it returns.
    ///
    /// # Safety
    /// The slot is taken, and the caller has it to itself.
    pub(crate) unsafe fn replace(&self, waker: Waker) -> Waker {
        self.waker.with_mut(|place| {
            // SAFETY: nobody else touches it, by the caller's word.
            let place = unsafe { &mut *place };
            // SAFETY: taken, so there is a waker.
            std::mem::replace(unsafe { place.assume_init_mut() }, waker)
        })
    }

    /// Empties the slot: returns its waker, and the future's key, or none if it was a poll's.
    ///
    /// # Safety
    /// The slot is taken, and the caller has it to itself.
    #[inline]
    pub(crate) unsafe fn vacate(&self) -> (Option<Key>, Waker) {
        let tag = self.tag.load(Ordering::Relaxed);
        if planted!("slot_freed_before_it_is_empty") {
            self.tag.store(tag & COUNT, Ordering::Release);
        }
        let waker = self.waker.with_mut(|place| {
            // SAFETY: nobody else touches it, by the caller's word.
            let place = unsafe { &*place };
            // SAFETY: taken, so there is a waker; the tag says from now on that it is gone.
            unsafe { place.assume_init_read() }
        });
        // ORDERING: Release pairs with the Acquire in `claim`.
        self.tag.store(tag & COUNT, Ordering::Release);
        (if tag & POLL == 0 { Key::new(tag) } else { None }, waker)
    }
}

impl Drop for WaitSlot {
    fn drop(&mut self) {
        if !self.is_free() {
            // SAFETY: taken, and there is no other reference.
            drop(unsafe { self.vacate() });
        }
    }
}

impl fmt::Debug for WaitSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitSlot").field("is_free", &self.is_free()).finish_non_exhaustive()
    }
}

//! [`Batch`]: several wakers that a thread calls, and that another thread can take over.
//!
//! A polling thread takes the wakers of all events and due timers out of the wait slots and lists.
//! From then on, only this thread has them, and a close, a deadline or a shutdown finds no waiter.
//! A waker is user code and may block, so another thread must be able to call the remaining wakers.
//! The same applies to other threads that wake several waiters
//! ([`wake_watched`](super::user_code::wake_watched)). A polling thread with a processor of the
//! current epoch calls the own wakers of tasks ([`own_waker`](super::own_waker)), which then run no
//! user code, before the batch. On other threads, these wakers are the last of the batch.
//!
//! # States
//! *empty* → *filled* by its owner → *empty*, after the owner has taken the wakers one by one, in
//! order. Another thread may take all remaining wakers before that: sysmon, if their number is the
//! same at two consecutive checks, or a shutdown.
//!
//! # Invariants
//! * B1 — each waker is called once, by the owner, or after another thread has taken it.
//! * B2 — a single waker is called directly, without a batch, because no other waker waits behind
//!   it.
//!
//! # Memory ordering
//! `left` decides which thread takes a waker. The owner's Release publishes the slots; the swap
//! that takes the remaining wakers acquires them. The owner's decrements continue the release
//! sequence. An owner that finds its wakers taken waits for `taking`, so that it does not fill the
//! slots while they are read (model `wakers_of_a_batch_are_called_once`).

#![allow(unsafe_code)]

use std::task::Waker;

use crate::rt::waiters::{Wakers, wake};
use crate::sync::{AtomicUsize, Mutex, Ordering, UnsafeCell, injected_bug};

/// Several wakers that a thread calls; see the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Batch {
    /// The number of wakers that no thread has taken. They are in the last slots.
    left: AtomicUsize,
    slots: UnsafeCell<Slots>,
    /// Held by a thread other than the owner while it takes the remaining wakers.
    taking: Mutex<()>,
    /// The value of `left` at the last check of sysmon.
    seen: AtomicUsize,
}

/// The allocation of the owner's vector.
#[derive(Clone, Copy, Debug)]
struct Slots {
    first: *const Waker,
    len: usize,
}

impl Slots {
    /// Moves the waker with the index `at` out of its slot. The caller must have taken it by a
    /// change of `left`, and [`Batch::call`] must not have returned, because its caller may then
    /// free the allocation.
    fn waker(self, at: usize) -> Waker {
        // SAFETY: the slot is within the allocation, which remains until `Batch::call` returns, as
        // the caller ensures.
        let slot = unsafe { self.first.add(at) };
        // SAFETY: as above. The slot has a waker, which the change of `left` gave to this thread
        // alone.
        unsafe { slot.read() }
    }
}

// SAFETY: each waker is moved out of its slot by one thread, see `Batch::call` and `Batch::take`,
// and wakers may be called and dropped by any thread.
unsafe impl Send for Batch {}
// SAFETY: as above.
unsafe impl Sync for Batch {}

impl Batch {
    pub(crate) fn new() -> Batch {
        Batch {
            left: AtomicUsize::new(0),
            slots: UnsafeCell::new(Slots { first: std::ptr::null(), len: 0 }),
            taking: Mutex::new(()),
            seen: AtomicUsize::new(0),
        }
    }

    /// Calls `wakers` in order, until another thread takes the remaining wakers. Returns the number
    /// of `wakers`, which must have no separate own wakers of tasks. Only the owner may call this,
    /// and not while another call is in progress.
    pub(crate) fn call(&self, wakers: &mut Wakers) -> usize {
        let (first, rest) = wakers.parts();
        let Some(first) = first.take() else { return 0 };
        let (own, len) = (Slots { first: rest.as_ptr(), len: rest.len() }, rest.len());
        // SAFETY: zero is within the capacity. The loop below or `take` moves each waker out of its
        // slot once. Until then, nothing else uses the vector, because this call borrows it: a
        // waker that runs here, such as `first`, cannot add wakers to it, so it is not reallocated.
        unsafe { rest.set_len(0) };
        // SAFETY: no thread reads the slots, because `left` is 0, and the last `take` that found
        // wakers has returned.
        self.slots.with_mut(|slots| unsafe { *slots = own });
        // ORDERING: Release publishes the slots and pairs with the swap in `take`. A store would
        // suffice, but loom does not order a store against that swap.
        let order = if injected_bug!("batch_is_not_published") { Ordering::Relaxed } else { Ordering::Release };
        self.left.swap(len, order);
        wake(first);
        for at in 0..len {
            let left = len - at;
            // ORDERING: Relaxed: the owner filled the slots itself, and its release sequence
            // continues.
            if self.left.compare_exchange(left, left - 1, Ordering::Relaxed, Ordering::Relaxed).is_err() {
                if !injected_bug!("batch_is_filled_while_it_is_read") {
                    drop(self.taking.lock());
                }
                break;
            }
            // The exchange gave this slot to this thread.
            wake(own.waker(at));
        }
        len + 1
    }

    /// Moves the wakers that no thread has taken to `wakers`.
    pub(crate) fn take(&self, wakers: &mut Wakers) {
        let _taking = self.taking.lock();
        // ORDERING: Acquire pairs with the swap in `call`.
        let left = self.left.swap(0, Ordering::Acquire);
        if left == 0 {
            return;
        }
        // SAFETY: the owner fills the slots again only after it has locked `taking`.
        let slots = self.slots.with(|slots| unsafe { *slots });
        // The swap gave the last `left` slots to this thread.
        wakers.extend((slots.len - left..slots.len).map(|at| slots.waker(at)));
    }

    /// Returns whether wakers are left and, if so, whether their number is the same as at the last
    /// check. Called by sysmon.
    pub(crate) fn check(&self) -> (bool, bool) {
        // ORDERING: Relaxed: a hint. The swap in `take` decides.
        let left = self.left.load(Ordering::Relaxed);
        let seen = self.seen.swap(left, Ordering::Relaxed);
        (left > 0, left > 0 && left == seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::task::Wake;

    type Calls = std::sync::Mutex<Vec<usize>>;

    /// A waker that records its number, and takes the remaining wakers of the batch if `takes` is
    /// `Some`.
    struct Numbered {
        number: usize,
        takes: Option<Arc<std::sync::Mutex<Wakers>>>,
        calls: Arc<(Batch, Calls)>,
    }

    impl Wake for Numbered {
        fn wake(self: Arc<Numbered>) {
            self.calls.1.lock().unwrap().push(self.number);
            if let Some(taken) = &self.takes {
                self.calls.0.take(&mut taken.lock().unwrap());
            }
        }
    }

    #[test]
    fn wakers_are_called_in_order_until_the_rest_is_taken() {
        let calls = Arc::new((Batch::new(), Calls::default()));
        let (mut wakers, taken) = (Wakers::new(), Arc::new(std::sync::Mutex::new(Wakers::new())));
        for taker in [None, Some(0), Some(3), Some(9), None] {
            let numbered = |number| {
                let takes = (taker == Some(number)).then(|| taken.clone());
                Waker::from(Arc::new(Numbered { number, takes, calls: calls.clone() }))
            };
            wakers.extend((0..10).map(numbered));
            assert_eq!((calls.0.call(&mut wakers), wakers.len(), calls.0.check()), (10, 0, (false, false)));
            let until = taker.map_or(10, |taker| taker + 1);
            assert_eq!(*calls.1.lock().unwrap(), (0..until).collect::<Vec<_>>());
            let rest: Vec<_> = taken.lock().unwrap().drain().collect();
            assert_eq!(rest.len(), 10 - until);
            rest.into_iter().for_each(Waker::wake);
            assert_eq!(std::mem::take(&mut *calls.1.lock().unwrap()), (0..10).collect::<Vec<_>>());
        }
        assert_eq!((calls.0.call(&mut wakers), Arc::strong_count(&calls)), (0, 1));
    }
}

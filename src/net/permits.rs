//! A limited number of permits, and the list of accepts that are parked until a permit is returned.
//!
//! # Invariants
//! * L1 — no more permits are in use than the limit allows, and each permit is returned once.
//! * L2 — while a permit is free and an accept is parked, another accept was woken for the permit
//!   and has not acted yet. That accept takes the permit and keeps it, takes it and returns it, or
//!   does not take it, for example because it has to wait for a connection. In the last two cases
//!   it wakes the next parked accept (models `parked_accepts_get_their_turn`,
//!   `dropped_waiter_passes_the_permit_on`).
//!
//! The count and the list change under one lock; wakers run outside this lock. A snapshot reads the
//! count without it.

use std::task::{Context, Poll};

use crate::rt::waiters::{Interest, Key, Waiters, Wakers};
use crate::sync::{Arc, AtomicUsize, Mutex, Ordering, injected_bug};

/// A limited number of permits.
#[derive(Debug)]
pub(crate) struct Limit {
    most: usize,
    /// The number of permits in use.
    // ORDERING: Relaxed, because the number is changed, and compared with `most`, only under the
    // lock of `parked`.
    out: AtomicUsize,
    parked: Mutex<Waiters>,
}

impl Limit {
    pub(crate) fn new(most: usize) -> Limit {
        Limit { most, out: AtomicUsize::new(0), parked: Mutex::new(Waiters::new()) }
    }

    /// Takes a permit, if one is free.
    pub(crate) fn try_take(self: &Arc<Limit>) -> Option<Permit> {
        let _parked = self.parked.lock();
        if !self.is_free() {
            return None;
        }
        self.out.store(self.taken() + 1, Ordering::Relaxed);
        Some(Permit { limit: self.clone() })
    }

    /// Returns the number of permits in use.
    pub(crate) fn taken(&self) -> usize {
        self.out.load(Ordering::Relaxed)
    }

    /// Returns the total number of permits.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    fn is_free(&self) -> bool {
        self.taken() < self.most
    }

    /// Waits until a permit is free, without taking it. `place` is the caller's place among the
    /// parked accepts.
    pub(crate) fn poll_free(&self, place: &mut Option<Key>, cx: &mut Context<'_>) -> Poll<()> {
        // The waker is cloned and dropped outside the lock, because it is foreign code.
        let waker = cx.waker().clone();
        let (polled, _removed) = {
            let mut parked = self.parked.lock();
            if self.is_free() {
                // If something other than a permit woke the caller, the caller is still in the list
                // and is removed. `place` stays set, as if a permit had woken the caller.
                (Poll::Ready(()), place.and_then(|key| parked.remove(key)))
            } else {
                let (key, replaced) = parked.insert(*place, Interest::Event, waker);
                *place = Some(key);
                (Poll::Pending, replaced)
            }
        };
        polled
    }

    /// Gives up a place. If the accept was woken for a permit and a permit is still free, wakes the
    /// next parked accept.
    pub(crate) fn leave(&self, place: &mut Option<Key>) {
        let Some(key) = place.take() else { return };
        let mut wakers = Wakers::new();
        let _removed = {
            let mut parked = self.parked.lock();
            let removed = parked.remove(key);
            if removed.is_none() && self.is_free() && !injected_bug!("dropped_waiter_keeps_the_permit") {
                parked.take_event(&mut wakers);
            }
            removed
        };
        wakers.wake_all();
    }

    fn give_back(&self) {
        let mut wakers = Wakers::new();
        {
            let mut parked = self.parked.lock();
            self.out.store(self.taken() - 1, Ordering::Relaxed);
            if !injected_bug!("permit_comes_back_unheard") {
                parked.take_event(&mut wakers);
            }
        }
        wakers.wake_all();
    }
}

/// A permit of a [`Limit`], held by a connection. Dropping it returns it to the limit.
#[derive(Debug)]
pub(crate) struct Permit {
    limit: Arc<Limit>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limit.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counting_waker::CountingWaker;
    use std::task::Waker;

    /// A parked accept, reduced to its waker and its place.
    #[derive(Default)]
    struct Parked {
        count: std::sync::Arc<CountingWaker>,
        place: Option<Key>,
    }

    impl Parked {
        fn poll(&mut self, limit: &Limit) -> Poll<()> {
            limit.poll_free(&mut self.place, &mut Context::from_waker(&Waker::from(self.count.clone())))
        }

        fn wakes(&self) -> usize {
            self.count.wakeups()
        }
    }

    #[test]
    fn permit_is_returned_once() {
        let limit = Arc::new(Limit::new(2));
        let (first, _second) = (limit.try_take().unwrap(), limit.try_take().unwrap());
        assert!(limit.try_take().is_none());
        drop(first);
        assert_eq!(limit.taken(), 1);
        assert!(limit.try_take().is_some());
    }

    #[test]
    fn each_returned_permit_wakes_one_accept() {
        let limit = Arc::new(Limit::new(1));
        let permit = limit.try_take().unwrap();
        let mut parked = [Parked::default(), Parked::default(), Parked::default()];
        for parked in &mut parked {
            assert!(parked.poll(&limit).is_pending());
            assert!(parked.poll(&limit).is_pending(), "a second poll was ready");
        }
        drop(permit);
        assert_eq!(parked.each_ref().map(Parked::wakes), [1, 0, 0]);
        // The first waiter is dropped before it acts.
        limit.leave(&mut parked[0].place);
        assert_eq!(parked.each_ref().map(Parked::wakes), [1, 1, 0]);
        // The second waiter takes the permit. No other waiter is woken until the permit is
        // returned.
        assert!(parked[1].poll(&limit).is_ready());
        let permit = limit.try_take().unwrap();
        assert_eq!(parked.each_ref().map(Parked::wakes), [1, 1, 0]);
        drop(permit);
        assert_eq!(parked.each_ref().map(Parked::wakes), [1, 1, 1]);
    }

    #[test]
    fn cancelled_waiter_is_not_woken() {
        let limit = Arc::new(Limit::new(1));
        let permit = limit.try_take().unwrap();
        let mut parked = [Parked::default(), Parked::default()];
        assert!(parked.iter_mut().all(|parked| parked.poll(&limit).is_pending()));
        limit.leave(&mut parked[0].place);
        drop(permit);
        assert_eq!(parked.each_ref().map(Parked::wakes), [0, 1]);
    }
}

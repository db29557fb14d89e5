//! A limited number of permits, and the list of accepts that are parked until one is returned.
//!
//! # Invariants
//! * L1 — no more permits are in use than the limit allows, and each is returned once.
//! * L2 — while a permit is free and an accept is parked, some accept that was woken for it has not
//!   acted yet. It takes the permit, returns it, or leaves (also to wait for a connection); the
//!   last two wake the next (models `parked_accepts_get_their_turn`,
//!   `dropped_waiter_passes_the_permit_on`).
//!
//! Count and list change under one lock; wakers run outside it. A snapshot reads the count without
//! the lock.

use std::task::{Context, Poll};

use crate::rt::waiters::{Interest, Key, Waiters, Wakers};
use crate::sync::{Arc, AtomicUsize, Mutex, Ordering, injected_bug};

/// A limited number of permits.
#[derive(Debug)]
pub(crate) struct Limit {
    most: usize,
    /// The number of permits in use.
    // ORDERING: Relaxed: it is changed, and compared with `most`, under the lock of `parked` only.
    out: AtomicUsize,
    parked: Mutex<Waiters>,
}

impl Limit {
    pub(crate) fn new(most: usize) -> Limit {
        Limit { most, out: AtomicUsize::new(0), parked: Mutex::new(Waiters::new()) }
    }

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

    /// Returns the number of permits.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    fn is_free(&self) -> bool {
        self.taken() < self.most
    }

    /// Ready while a permit is free; does not take it. A parked caller keeps its `place`.
    pub(crate) fn poll_free(&self, place: &mut Option<Key>, cx: &mut Context<'_>) -> Poll<()> {
        // Cloned and dropped outside the lock, because it is foreign code.
        let waker = cx.waker().clone();
        let (polled, _removed) = {
            let mut parked = self.parked.lock();
            if self.is_free() {
                // Still listed if something other than a permit woke it; the place is kept as if a
                // permit had.
                (Poll::Ready(()), place.and_then(|key| parked.remove(key)))
            } else {
                let (key, replaced) = parked.insert(*place, Interest::Event, waker);
                *place = Some(key);
                (Poll::Pending, replaced)
            }
        };
        polled
    }

    /// Gives up a place. An accept that was woken and took no permit passes it to the next.
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

/// The right to be one of a limited number of connections.
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
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A parked accept, as the limit sees it.
    #[derive(Default)]
    struct Parked {
        count: std::sync::Arc<Count>,
        place: Option<Key>,
    }

    impl Parked {
        fn poll(&mut self, limit: &Limit) -> Poll<()> {
            limit.poll_free(&mut self.place, &mut Context::from_waker(&Waker::from(self.count.clone())))
        }

        fn wakes(&self) -> usize {
            self.count.0.load(Ordering::SeqCst)
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
    fn each_returned_permit_wakes_one() {
        let limit = Arc::new(Limit::new(1));
        let permit = limit.try_take().unwrap();
        let mut parked = [Parked::default(), Parked::default(), Parked::default()];
        for parked in &mut parked {
            assert!(parked.poll(&limit).is_pending());
            assert!(parked.poll(&limit).is_pending(), "it is listed only once");
        }
        drop(permit);
        assert_eq!(parked.each_ref().map(Parked::wakes), [1, 0, 0]);
        // It is dropped before it acts.
        limit.leave(&mut parked[0].place);
        assert_eq!(parked.each_ref().map(Parked::wakes), [1, 1, 0]);
        // It acts: no other is woken until the permit is returned.
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

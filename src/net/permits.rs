//! A limited number of permits, and who is parked until one comes back.
//!
//! # Invariants
//! * L1 — no more permits are out than the limit allows, and each comes back once.
//! * L2 — while a permit is free and somebody is parked, somebody who was woken for it has yet to act: it takes the permit, or
//!   gives it back, or leaves (also to wait for a connection); the last two wake the next (models `parked_accepts_get_their_turn`,
//!   `who_leaves_passes_the_permit_on`).
//!
//! Count and list share one lock; wakers run outside it.

use std::task::{Context, Poll};

use crate::rt::waiters::{Interest, Key, Waiters, Wakers};
use crate::sync::{Arc, AtomicBool, Mutex, Ordering, planted};

/// A number of permits.
#[derive(Debug)]
pub(crate) struct Limit {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    out: usize,
    parked: Waiters,
}

impl Limit {
    pub(crate) fn new(most: usize) -> Limit {
        Limit { most, state: Mutex::new(State { out: 0, parked: Waiters::new() }) }
    }

    pub(crate) fn try_take(self: &Arc<Limit>) -> Option<Permit> {
        let mut state = self.state.lock();
        if state.out >= self.most {
            return None;
        }
        state.out += 1;
        Some(Permit { limit: self.clone(), held: AtomicBool::new(true) })
    }

    /// Permits that are out.
    pub(crate) fn taken(&self) -> usize {
        self.state.lock().out
    }

    /// Ready while a permit is free, which is not taken. Who is parked keeps its `place`.
    pub(crate) fn poll_free(&self, place: &mut Option<Key>, cx: &mut Context<'_>) -> Poll<()> {
        // Cloned and dropped outside the lock: it is foreign code.
        let waker = cx.waker().clone();
        let (polled, _removed) = {
            let mut state = self.state.lock();
            if state.out < self.most {
                // Still in the list if something else than a permit woke it; the place is kept as if it had been woken.
                (Poll::Ready(()), place.and_then(|key| state.parked.remove(key)))
            } else {
                let (key, replaced) = state.parked.insert(*place, Interest::Event, waker);
                *place = Some(key);
                (Poll::Pending, replaced)
            }
        };
        polled
    }

    /// Gives up a place. Who was woken and took no permit leaves it to the next.
    pub(crate) fn leave(&self, place: &mut Option<Key>) {
        let Some(key) = place.take() else { return };
        let mut wakers = Wakers::new();
        let _removed = {
            let mut state = self.state.lock();
            let removed = state.parked.remove(key);
            if removed.is_none() && state.out < self.most && !planted!("permit_kept_by_who_leaves") {
                state.parked.take_event(&mut wakers);
            }
            removed
        };
        wakers.wake_all();
    }

    fn give_back(&self) {
        let mut wakers = Wakers::new();
        {
            let mut state = self.state.lock();
            state.out -= 1;
            if !planted!("permit_comes_back_unheard") {
                state.parked.take_event(&mut wakers);
            }
        }
        wakers.wake_all();
    }
}

/// The right to be one of a limited number.
#[derive(Debug)]
pub(crate) struct Permit {
    limit: Arc<Limit>,
    held: AtomicBool,
}

impl Permit {
    /// The permit, for whoever asks first.
    pub(crate) fn take(&self) -> Option<Permit> {
        let held = self.held.swap(false, Ordering::Relaxed);
        held.then(|| Permit { limit: self.limit.clone(), held: AtomicBool::new(true) })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.held.swap(false, Ordering::Relaxed) {
            self.limit.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::task::{Wake, Waker};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A parked accept, as far as the limit knows it.
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
    fn a_permit_comes_back_once() {
        let limit = Arc::new(Limit::new(2));
        let (first, _second) = (limit.try_take().unwrap(), limit.try_take().unwrap());
        assert!(limit.try_take().is_none());
        let taken = first.take().unwrap();
        assert!(first.take().is_none());
        drop(first);
        assert!(limit.try_take().is_none(), "who took it has it");
        drop(taken);
        assert_eq!(limit.taken(), 1);
    }

    #[test]
    fn each_permit_that_comes_back_wakes_one() {
        let limit = Arc::new(Limit::new(1));
        let permit = limit.try_take().unwrap();
        let mut parked = [Parked::default(), Parked::default(), Parked::default()];
        for parked in &mut parked {
            assert!(parked.poll(&limit).is_pending());
            assert!(parked.poll(&limit).is_pending(), "listed once, however often it is polled");
        }
        drop(permit);
        assert_eq!(parked.each_ref().map(Parked::wakes), [1, 0, 0]);
        // It is dropped before it acts.
        limit.leave(&mut parked[0].place);
        assert_eq!(parked.each_ref().map(Parked::wakes), [1, 1, 0]);
        // It acts: nobody else is woken until the permit comes back.
        assert!(parked[1].poll(&limit).is_ready());
        let permit = limit.try_take().unwrap();
        assert_eq!(parked.each_ref().map(Parked::wakes), [1, 1, 0]);
        drop(permit);
        assert_eq!(parked.each_ref().map(Parked::wakes), [1, 1, 1]);
    }

    #[test]
    fn who_leaves_in_time_is_not_woken() {
        let limit = Arc::new(Limit::new(1));
        let permit = limit.try_take().unwrap();
        let mut parked = [Parked::default(), Parked::default()];
        assert!(parked.iter_mut().all(|parked| parked.poll(&limit).is_pending()));
        limit.leave(&mut parked[0].place);
        drop(permit);
        assert_eq!(parked.each_ref().map(Parked::wakes), [0, 1]);
    }
}

//! `Closings`: who waits for a descriptor of ours to be closed.
//!
//! An accept loop that met EMFILE backs off on a timer, and may go on as soon as a number is free again. Closing is counted;
//! a waiter that has seen fewer goes on at once, so no closing is missed between the failed call and the wait.
//!
//! # Memory ordering
//! The count and the list share one lock; `anybody` spares the lock while nobody waits. Who waits sets it under the lock and then
//! reads the count; who closes counts and then reads `anybody`: both SeqCst, one of the two sees the other (model
//! `a_closing_is_not_missed`).

use std::task::{Context, Poll};

use crate::rt::waiters::{Waiters, Wakers};
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering, const_fn, planted};

/// See the module's header.
#[derive(Debug)]
pub(crate) struct Closings {
    count: AtomicU64,
    anybody: AtomicBool,
    waiting: Mutex<Waiters>,
}

impl Closings {
    const_fn! {
        pub(crate) fn new() -> Closings {
            Closings { count: AtomicU64::new(0), anybody: AtomicBool::new(false), waiting: Mutex::new(Waiters::new()) }
        }
    }

    /// A descriptor was closed.
    pub(crate) fn note(&self) {
        // ORDERING: SeqCst, see the header.
        self.count.fetch_add(1, Ordering::SeqCst);
        if self.anybody.load(Ordering::SeqCst) {
            let mut wakers = Wakers::new();
            {
                let mut waiting = self.waiting.lock();
                self.anybody.store(false, Ordering::SeqCst);
                waiting.take_all(&mut wakers);
            }
            wakers.wake_all();
        }
    }

    /// Descriptors closed so far: read before the call that may lack one.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Ready when a descriptor was closed since [`count`](Closings::count) said `seen`.
    pub(crate) fn poll(&self, cx: &mut Context<'_>, seen: u64) -> Poll<()> {
        if planted!("closings_look_first") && self.count() != seen {
            return Poll::Ready(());
        }
        let (waker, mut old) = (cx.waker().clone(), Wakers::new());
        let _unused = {
            let mut waiting = self.waiting.lock();
            self.anybody.store(true, Ordering::SeqCst);
            waiting.insert_poll(waker, &mut old)
        };
        old.wake_all();
        // ORDERING: SeqCst, see the header (model `a_closing_is_not_missed`).
        let closed = self.count() != seen && !planted!("closings_look_first");
        if closed { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::waiters::POLLS_MAX;
    use std::task::{Wake, Waker};

    struct Silent;

    impl Wake for Silent {
        fn wake(self: std::sync::Arc<Silent>) {}
    }

    #[test]
    fn polls_with_ever_new_wakers_do_not_pile_up() {
        let closings = Closings::new();
        for _ in 0..3 * POLLS_MAX {
            let waker = Waker::from(std::sync::Arc::new(Silent));
            assert!(closings.poll(&mut Context::from_waker(&waker), 0).is_pending());
            assert!(closings.waiting.lock().len() <= POLLS_MAX);
        }
        closings.note();
        assert!(closings.waiting.lock().is_empty());
        assert!(closings.poll(&mut Context::from_waker(Waker::noop()), 0).is_ready());
    }
}

//! `Closings`: who waits for a descriptor of ours to be closed.
//!
//! An accept loop that met EMFILE backs off on a timer, and may go on as soon as a number is free again. Closing is counted;
//! a waiter that has seen fewer goes on at once, so no closing is missed between the failed call and the wait.
//!
//! # Memory ordering
//! The count and the list share one lock; `anybody` spares the lock while nobody waits. Who waits sets it under the lock and then
//! reads the count; who closes counts and then reads `anybody`: both SeqCst, one of the two sees the other (model
//! `a_closing_is_not_missed`).

use std::task::{Context, Poll, Waker};

use super::waiters::Wakers;
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering, const_fn, planted};

/// See the module's header.
#[derive(Debug)]
pub(crate) struct Closings {
    count: AtomicU64,
    anybody: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

impl Closings {
    const_fn! {
        pub(crate) fn new() -> Closings {
            Closings { count: AtomicU64::new(0), anybody: AtomicBool::new(false), waiting: Mutex::new(Vec::new()) }
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
                wakers.extend(waiting.drain(..));
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
        let waker = cx.waker().clone();
        {
            let mut waiting = self.waiting.lock();
            if !waiting.iter().any(|held| held.will_wake(&waker)) {
                waiting.push(waker);
            }
            self.anybody.store(true, Ordering::SeqCst);
        }
        // ORDERING: SeqCst, see the header (model `a_closing_is_not_missed`).
        let closed = self.count() != seen && !planted!("closings_look_first");
        if closed { Poll::Ready(()) } else { Poll::Pending }
    }
}

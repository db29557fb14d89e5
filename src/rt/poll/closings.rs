//! [`Closings`]: operations that wait until this crate closes a socket.
//!
//! After an accept has failed for lack of descriptors, memory or epoll registrations (EMFILE,
//! ENFILE, ENOBUFS, ENOMEM or ENOSPC), a stream of connections waits for a timer, but continues as
//! soon as this crate closes a socket. Closings are counted. An operation that has read a smaller
//! count continues immediately, so it misses no closing between the failed call and the wait. The
//! release of a number that a closed socket kept in use (`net/fd/closing.rs`) counts as a closing
//! too. Closes of other descriptors are not counted.
//!
//! # Memory ordering
//! A lock protects the list, and `has_waiters` avoids the lock while there are no waiters. A waiter
//! sets `has_waiters` under the lock and then reads the count. A thread that has closed a
//! descriptor increments the count and then reads `has_waiters`. All these accesses are SeqCst, so
//! one of the two threads sees the other (model `a_closing_is_not_missed`).

use std::task::{Context, Poll};

use crate::rt::waiters::{Waiters, Wakers};
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering, const_fn, injected_bug};

/// The number of closings, and the operations that wait for the next one; see the
/// [module documentation](self).
#[derive(Debug)]
pub(crate) struct Closings {
    count: AtomicU64,
    has_waiters: AtomicBool,
    waiting: Mutex<Waiters>,
}

impl Closings {
    const_fn! {
        pub(crate) fn new() -> Closings {
            Closings {
                count: AtomicU64::new(0),
                has_waiters: AtomicBool::new(false),
                waiting: Mutex::new(Waiters::new()),
            }
        }
    }

    /// Counts a closing and wakes the waiters.
    pub(crate) fn note(&self) {
        // ORDERING: SeqCst; see the module documentation.
        self.count.fetch_add(1, Ordering::SeqCst);
        if self.has_waiters.load(Ordering::SeqCst) {
            let mut wakers = Wakers::new();
            {
                let mut waiting = self.waiting.lock();
                self.has_waiters.store(false, Ordering::SeqCst);
                waiting.take_all(&mut wakers);
            }
            wakers.wake_all();
        }
    }

    /// Returns the number of closings so far. A caller reads it before a call that may fail for
    /// lack of descriptors or memory.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Waits until the number of closings differs from `seen`.
    pub(crate) fn poll(&self, cx: &mut Context<'_>, seen: u64) -> Poll<()> {
        if injected_bug!("closings_look_first") && self.count() != seen {
            return Poll::Ready(());
        }
        let (waker, mut old) = (cx.waker().clone(), Wakers::new());
        let _unused = {
            let mut waiting = self.waiting.lock();
            self.has_waiters.store(true, Ordering::SeqCst);
            waiting.insert_poll(waker, &mut old)
        };
        old.wake_all();
        // ORDERING: SeqCst; see the module documentation (model `a_closing_is_not_missed`).
        let closed = self.count() != seen && !injected_bug!("closings_look_first");
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
    fn polls_with_new_wakers_do_not_accumulate() {
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

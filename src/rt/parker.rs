//! [`Parker`]: blocks a thread until another thread passes it a token.
//!
//! It is used instead of `std::thread::park`, whose token is shared with user code on the same
//! thread.
//!
//! # States
//! EMPTY → (`park`) PARKED → (`unpark`) NOTIFIED → (`park` returns) EMPTY. If the deadline passes
//! first, PARKED → EMPTY. An `unpark` before `park` stores a token, so that `park` returns
//! immediately. Several calls store only one token.
//!
//! # Memory ordering
//! All transitions are read-modify-writes with AcqRel, so writes before `unpark` are visible after
//! `park`. `unpark` takes the lock only because the parking thread may be between its last check of
//! the state and its wait (models `parker_*`).

use std::time::{Duration, Instant};

use crate::sync::{AtomicU32, Condvar, Mutex, Ordering, const_fn, injected_bug};

const EMPTY: u32 = 0;
const PARKED: u32 = 1;
const NOTIFIED: u32 = 2;

/// The token of one thread; see the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Parker {
    state: AtomicU32,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Parker {
    const_fn! {
        pub(crate) fn new() -> Parker {
            Parker { state: AtomicU32::new(EMPTY), lock: Mutex::new(()), wake: Condvar::new() }
        }
    }

    /// Takes the token if it is available. Returns whether it was available.
    pub(crate) fn try_take(&self) -> bool {
        self.state.compare_exchange(NOTIFIED, EMPTY, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Waits for the token and takes it.
    pub(crate) fn park(&self) {
        self.park_until(None);
    }

    /// Waits for the token until `deadline` at most, or without a limit if it is `None`, and takes
    /// the token. Returns whether the token has arrived.
    pub(crate) fn park_until(&self, deadline: Option<Instant>) -> bool {
        if self.try_take() {
            return true;
        }
        let mut guard = self.lock.lock();
        // ORDERING: AcqRel. This fails if the token has arrived in the meantime. In this case no
        // notification follows.
        if self.state.compare_exchange(EMPTY, PARKED, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // A swap reads the value of the last of several `unpark`s, so that their writes become
            // visible. A store could overwrite a token without making the writes before it visible.
            if injected_bug!("parker_overwrites_token") {
                self.state.store(EMPTY, Ordering::Release);
            } else {
                self.state.swap(EMPTY, Ordering::AcqRel);
            }
            return true;
        }
        loop {
            guard = match deadline {
                None => self.wake.wait(guard),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left == Duration::ZERO {
                        return self.state.swap(EMPTY, Ordering::AcqRel) == NOTIFIED
                            && !injected_bug!("parker_timeout_eats_token");
                    }
                    self.wake.wait_timeout(guard, left)
                }
            };
            if self.try_take() {
                return true;
            }
        }
    }

    /// Passes the token to the thread, and wakes it if it is parked.
    pub(crate) fn unpark(&self) {
        if self.state.swap(NOTIFIED, Ordering::AcqRel) != PARKED {
            return;
        }
        // The parking thread holds the lock from its transition to PARKED until it waits. Once this
        // thread has held the lock, the parking thread either waits or has returned.
        if !injected_bug!("unpark_without_lock") {
            drop(self.lock.lock());
        }
        self.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timed_out_park_returns_whether_the_token_has_arrived() {
        let parker = Parker::new();
        let over = || parker.park_until(Some(Instant::now()));
        assert!(!over(), "no token");
        parker.unpark();
        parker.unpark();
        assert!(over(), "one token");
        assert!(!over(), "the token was taken");
    }
}

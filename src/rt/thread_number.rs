//! Numbers of threads, which are never reused, for locks that store the number of their owner.
//!
//! # States
//! *none* (0) → (`assign`) → *assigned*, until the thread ends. The thread of a child of fork(2)
//! has the number of the thread that called fork(2), so the child must not use such a lock.

use std::cell::Cell;

use crate::sync::{AtomicUsize, Ordering};

/// The value of [`current`] for a thread without a number.
pub(crate) const NONE: usize = 0;

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(NONE) };
}

/// Returns the number of this thread, or [`NONE`].
#[inline]
pub(crate) fn current() -> usize {
    CURRENT.get()
}

/// Returns the number of this thread, which is less than `usize::MAX`. Assigns a number if the
/// thread has none. Returns [`NONE`] if it has none and all numbers are used up.
pub(crate) fn assign() -> usize {
    static LAST: AtomicUsize = AtomicUsize::new(NONE);
    if current() == NONE {
        // ORDERING: Relaxed: the numbers only have to differ.
        let last =
            LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| (last < usize::MAX - 1).then_some(last + 1));
        CURRENT.set(last.map_or(NONE, |last| last + 1));
    }
    current()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_have_different_numbers() {
        let other = std::thread::spawn(|| [current(), assign(), assign()]).join().unwrap();
        assert_eq!(other[0], NONE);
        assert_ne!(other[1], NONE);
        assert_eq!(other[1], other[2]);
        assert_ne!(other[1], assign());
    }
}

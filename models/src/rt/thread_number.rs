//! A replacement for the crate's `rt::thread_number`, with the checker's thread-local variables.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(crate) const NONE: usize = 0;

crate::engine::thread_local! {
    static CURRENT: Cell<usize> = Cell::new(NONE);
}

pub(crate) fn current() -> usize {
    CURRENT.with(Cell::get)
}

pub(crate) fn assign() -> usize {
    /// The last number that was assigned. It is not one of the checker's atomics, because the
    /// numbers only have to differ.
    static LAST: AtomicUsize = AtomicUsize::new(NONE);
    if current() == NONE {
        CURRENT.with(|number| number.set(LAST.fetch_add(1, Ordering::Relaxed) + 1));
    }
    current()
}

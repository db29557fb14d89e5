//! The number of operations that the current thread has refused.
//!
//! An operation that is refused, because the budget or the time of the turn is used up, wakes its
//! task and returns `Pending` although it need not wait. Code that must distinguish this from a
//! wait compares the number before and after a poll. All operations count, also those of a nested
//! `block_on`, so a changed number does not prove that the task will be polled again.

use std::cell::Cell;

thread_local! {
    static COUNT: Cell<u32> = const { Cell::new(0) };
}

/// Returns the number, which wraps around.
pub(crate) fn count() -> u32 {
    COUNT.get()
}

/// Counts a refusal.
pub(crate) fn record() {
    COUNT.set(count().wrapping_add(1));
}

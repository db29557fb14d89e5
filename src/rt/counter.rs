//! [`Counter`]: a counter for `metrics`.

use crate::sync::{AtomicU64, Ordering};

/// A plain counter, written by its owner and summed by `metrics`.
#[derive(Debug)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) const fn new() -> Counter {
        Counter(AtomicU64::new(0))
    }

    /// Adds to the counter; only for the thread that owns it.
    #[inline]
    pub(crate) fn add_owned(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }

    /// Adds to the counter, from any thread.
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

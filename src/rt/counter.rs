//! [`Counter`]: a counter for metrics.

use crate::sync::{AtomicU64, Ordering};

/// A counter that one thread or several threads increment, and that `metrics` and snapshots read.
#[derive(Debug)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) const fn new() -> Counter {
        Counter(AtomicU64::new(0))
    }

    /// Adds `count`. No other thread may add to the counter at the same time.
    #[inline]
    pub(crate) fn add_owned(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }

    /// Adds `count`. Any thread may call this.
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

//! [`Awake`]: the number of threads that own a processor, or to which one is assigned, and that are
//! not asleep in epoll.
//!
//! The count belongs to an epoch. A thread that is still in a task when the runtime has been shut
//! down decrements the count when the task returns, possibly in the next epoch. That epoch has not
//! counted the thread, so the decrement has no effect.
//!
//! # Memory ordering
//! All changes of the count, and the load in `count`, are SeqCst: a thread that goes to sleep
//! decrements the count and then looks for work; a thread that has work publishes it and then reads
//! the count (R1 of `runtime.rs`).

use crate::sync::{AtomicU64, Ordering, const_fn};

const EPOCH_SHIFT: u32 = 32;

/// The number of awake threads; see the [module documentation](self). The high half of the word is
/// the epoch, and the low half the count.
#[derive(Debug)]
pub(crate) struct Awake(AtomicU64);

impl Awake {
    const_fn! {
        pub(crate) fn new() -> Awake {
            Awake(AtomicU64::new(0))
        }
    }

    /// Starts a new epoch with a count of 0.
    pub(crate) fn begin(&self, epoch: u32) {
        self.0.store(u64::from(epoch) << EPOCH_SHIFT, Ordering::SeqCst);
    }

    /// Increments the count, if `epoch` is the current one.
    #[inline]
    pub(crate) fn up(&self, epoch: u32) {
        self.change(epoch, 1);
    }

    /// Decrements the count, if `epoch` is the current one.
    #[inline]
    pub(crate) fn down(&self, epoch: u32) {
        self.change(epoch, u64::MAX);
    }

    #[inline]
    fn change(&self, epoch: u32, by: u64) {
        let mut word = self.0.load(Ordering::Relaxed);
        while (word >> EPOCH_SHIFT) as u32 == epoch {
            debug_assert!(by == 1 || word as u32 != 0, "more threads went to sleep than were awake");
            match self.0.compare_exchange_weak(word, word.wrapping_add(by), Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    /// Returns the count of the current epoch.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst) as u32 as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_another_epoch_have_no_effect() {
        let awake = Awake::new();
        awake.begin(7);
        (0..3).for_each(|_| awake.up(7));
        awake.down(7);
        assert_eq!(awake.count(), 2);
        awake.begin(8);
        awake.down(7);
        awake.up(7);
        assert_eq!(awake.count(), 0);
        awake.up(8);
        awake.down(7);
        assert_eq!(awake.count(), 1);
    }
}

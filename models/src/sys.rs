//! Replacements for the parts of the crate's `sys` that the models use.

/// A replacement for membarrier(2), in which the light and the heavy fence are SeqCst fences.
pub(crate) mod membarrier {
    use crate::engine::thread;
    use crate::sync::{Ordering, fence};

    pub(crate) fn is_registered() -> bool {
        true
    }

    #[track_caller]
    pub(crate) fn light() {
        fence(Ordering::SeqCst);
    }

    #[track_caller]
    pub(crate) fn heavy() {
        fence(Ordering::SeqCst);
    }

    #[track_caller]
    pub(crate) fn pause(_round: u32) {
        thread::yield_now();
    }
}

/// Numbers that differ between systems.
pub(crate) mod os {
    pub(crate) use libc::CLOCK_MONOTONIC_COARSE as COARSE_CLOCK;
}

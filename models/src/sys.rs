//! The crate's `sys`, as far as the models use it.

pub(crate) mod os {
    pub(crate) use libc::CLOCK_MONOTONIC_COARSE as COARSE_CLOCK;
}

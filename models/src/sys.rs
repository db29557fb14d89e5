//! The parts of the crate's `sys` that the models use.

pub(crate) mod os {
    pub(crate) use libc::CLOCK_MONOTONIC_COARSE as COARSE_CLOCK;
}

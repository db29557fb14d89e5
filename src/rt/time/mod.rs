//! Time.
//!
//! * [`clock`] — monotonic time in nanoseconds, for deadlines and sleeps.
//! * [`ticks`] — the CPU's time stamp counter, for estimates.
//! * [`horizon`] — whether a time has passed, in most cases without reading a clock.
//! * [`timer`] — the heap of timers of a processor.
//! * [`sleep`] — the future that completes at a given time.

pub(crate) mod clock;
pub(crate) mod horizon;
pub(crate) mod sleep;
pub(crate) mod ticks;
pub(crate) mod timer;

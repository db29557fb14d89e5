//! Time: the clock, the heap of timers, and sleeps.

pub(crate) mod clock;
pub(crate) mod sleep;
pub(crate) mod ticks;
pub(crate) mod timer;

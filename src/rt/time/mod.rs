//! Time: clocks, timer heaps and sleeps.

pub(crate) mod clock;
pub(crate) mod horizon;
pub(crate) mod sleep;
pub(crate) mod ticks;
pub(crate) mod timer;

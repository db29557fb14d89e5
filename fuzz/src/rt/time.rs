//! The crate's `rt::time`, as far as the targets use it.

#[path = "../../../src/rt/time/clock.rs"]
pub(crate) mod clock;
#[path = "../../../src/rt/time/timer.rs"]
pub(crate) mod timer;

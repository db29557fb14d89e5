//! The parts of the crate's `rt::time` that the targets need.

#[path = "../../../src/rt/time/clock.rs"]
pub(crate) mod clock;
#[path = "../../../src/rt/time/timer.rs"]
pub(crate) mod timer;

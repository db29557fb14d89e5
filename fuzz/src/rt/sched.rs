//! The parts of the crate's `rt::sched` that the targets need.

#[path = "../../../src/rt/sched/own_waker.rs"]
pub(crate) mod own_waker;

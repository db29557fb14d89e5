//! The parts of the crate's `rt` that the targets need.

pub(crate) mod poll;
pub(crate) mod sched;
#[path = "../../../src/rt/slab.rs"]
pub(crate) mod slab;
pub(crate) mod time;
#[path = "../../../src/rt/waiters.rs"]
pub(crate) mod waiters;

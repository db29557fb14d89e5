//! The modelled files of the crate's `rt`.

pub(crate) mod fork;
#[path = "../../../src/rt/parker.rs"]
pub(crate) mod parker;
pub(crate) mod poll;
pub(crate) mod sched;
#[path = "../../../src/rt/slab.rs"]
pub(crate) mod slab;
pub(crate) mod thread_number;
pub(crate) mod time;
#[path = "../../../src/rt/waiters.rs"]
pub(crate) mod waiters;

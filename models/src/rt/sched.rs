//! The crate's `rt::sched`, as far as it is modelled.

#[path = "../../../src/rt/sched/queue.rs"]
pub(crate) mod queue;

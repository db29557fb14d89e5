//! The modelled files of the crate's `rt::sched`.

#[path = "../../../src/rt/sched/awake.rs"]
pub(crate) mod awake;
#[path = "../../../src/rt/sched/batch.rs"]
pub(crate) mod batch;
#[path = "../../../src/rt/sched/event_ring.rs"]
pub(crate) mod event_ring;
#[path = "../../../src/rt/sched/keeper.rs"]
pub(crate) mod keeper;
#[path = "../../../src/rt/sched/own_waker.rs"]
pub(crate) mod own_waker;
#[path = "../../../src/rt/sched/queue.rs"]
pub(crate) mod queue;
#[path = "../../../src/rt/sched/ring.rs"]
pub(crate) mod ring;
#[path = "../../../src/rt/sched/root.rs"]
pub(crate) mod root;
#[path = "../../../src/rt/sched/shared_queue.rs"]
pub(crate) mod shared_queue;
#[path = "../../../src/rt/sched/turn_ring.rs"]
pub(crate) mod turn_ring;

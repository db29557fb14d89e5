//! The crate's `rt`, as far as it is modelled.

#[path = "../../../src/rt/clock.rs"]
pub(crate) mod clock;
#[path = "../../../src/rt/closings.rs"]
pub(crate) mod closings;
#[path = "../../../src/rt/parker.rs"]
pub(crate) mod parker;
#[path = "../../../src/rt/poll_cache.rs"]
pub(crate) mod poll_cache;
#[path = "../../../src/rt/poll_desc.rs"]
pub(crate) mod poll_desc;
#[path = "../../../src/rt/role.rs"]
pub(crate) mod role;
pub(crate) mod sched;
#[path = "../../../src/rt/side.rs"]
pub(crate) mod side;
#[path = "../../../src/rt/timer.rs"]
pub(crate) mod timer;
#[path = "../../../src/rt/wait_slot.rs"]
pub(crate) mod wait_slot;
#[path = "../../../src/rt/waiters.rs"]
pub(crate) mod waiters;
#[path = "../../../src/rt/waiting.rs"]
mod waiting;

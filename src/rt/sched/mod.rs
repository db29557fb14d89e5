//! The scheduler. [`worker`] is the loop; [`queue`] and [`processor`] are what it works on; [`idle`] is who rests; [`block_on`] and
//! [`blocking`] are the other threads that run user code; [`sysmon`] looks after them all; [`task`] is what they run.

pub(crate) mod awake;
pub(crate) mod block_on;
pub(crate) mod blocking;
pub(crate) mod idle;
pub(crate) mod polling;
pub(crate) mod processor;
pub(crate) mod queue;
pub(crate) mod root;
mod shortage;
pub(crate) mod sysmon;
pub(crate) mod task;
pub(crate) mod worker;

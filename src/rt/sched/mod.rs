//! The scheduler.
//!
//! * [`worker`] — the loop of a thread that runs tasks. [`pacing`]: when it reads the clock, polls and
//!   wakes a second worker. [`queue`] and [`processor`]: what it works on.
//! * [`idle`] — resting threads and free processors. [`awake`]: the number of awake threads.
//! * [`polling`] — a poll for events.
//! * [`block_on`], [`root`] and [`blocking`]: the other threads that run user code.
//! * [`sysmon`] — the thread that watches all others. `shortage`: what happens when no thread can be
//!   started.
//! * [`task`] — tasks. [`contained`]: the wakers of futures that await them.

pub(crate) mod awake;
pub(crate) mod block_on;
pub(crate) mod blocking;
pub(crate) mod contained;
#[cfg(feature = "sim")]
pub(crate) mod hooks;
pub(crate) mod idle;
mod pacing;
pub(crate) mod polling;
pub(crate) mod processor;
pub(crate) mod queue;
pub(crate) mod record;
pub(crate) mod root;
mod shortage;
pub(crate) mod sysmon;
pub(crate) mod task;
pub(crate) mod worker;

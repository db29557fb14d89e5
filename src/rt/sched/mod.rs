//! The scheduler: threads that run tasks, their queues, and the data of tasks.
//!
//! # Terms
//! A *processor* is the right to run tasks ([`processor`]). A *worker* is a thread of the runtime
//! that runs tasks while it owns a processor. A *turn* is one poll of a task. The *root future* is
//! the future of a `block_on`. The *role* of a *shard* of the poller is the right to poll it
//! (`rt/poll/roles.rs`). An *epoch* is the time between two shutdowns (`rt/runtime.rs`). A sleep
//! *in epoll* is a sleep in the poller, with any of its back ends.
//!
//! # Modules
//! * [`worker`] — the loop of a thread that runs tasks. [`pacing`]: when the loop reads the clock,
//!   polls, and wakes a second worker. [`queue`] and `ring`: the run queue of a processor.
//!   [`processor`]: the other data of a processor.
//! * [`resting`] and [`idle`] — resting workers and free processors. [`awake`]: the number of awake
//!   threads. [`injector`] and [`shared_queue`]: the queues that all threads share. `steal`: taking
//!   tasks from other processors.
//! * [`lanes`] — tasks that run before others, and their share of the time.
//! * [`polling`] — polls and sleeps. `looks`: how long a worker looks for events before it rests.
//!   [`own_waker`]: the own wakers of tasks, by which a poll wakes them. `batch`: the other wakers.
//! * [`block_on`] and [`root`] — threads in `block_on`. [`blocking`] and [`pool`]: threads for
//!   blocking calls.
//! * [`monitor`] — sysmon, the thread that watches the other threads. [`sysmon`]: its state.
//!   `check_times`: the times of its checks. `cpus`: whether a CPU is free. [`user_code`]: the
//!   threads that run user code for it, from the queues `reports` and `wake_queue`. `shortage`:
//!   progress while the system refuses to create threads.
//! * [`turn_ring`] and [`event_ring`] — the last turns of a processor, and its last other events,
//!   for the [black box](crate::rt::black_box()).
//! * [`task`] — spawning and running tasks. [`task_data`], [`identity`], [`record`], `rare`,
//!   `place`, [`waits`] and [`cpu_time`]: the data of a task. [`keeper`]: the reference that keeps
//!   a waiting task alive. [`contained`]: the wakers of futures that await tasks. `hooks`: the
//!   functions of the simulator.

pub(crate) mod awake;
mod batch;
pub(crate) mod block_on;
pub(crate) mod blocking;
mod check_times;
pub(crate) mod contained;
pub(crate) mod cpu_time;
mod cpus;
pub(crate) mod event_ring;
#[cfg(feature = "sim")]
pub(crate) mod hooks;
pub(crate) mod identity;
pub(crate) mod idle;
mod injector;
pub(crate) mod keeper;
pub(crate) mod lanes;
mod looks;
pub(crate) mod monitor;
pub(crate) mod own_waker;
mod pacing;
mod place;
pub(crate) mod polling;
pub(crate) mod pool;
pub(crate) mod processor;
pub(crate) mod queue;
mod rare;
pub(crate) mod record;
mod reports;
mod resting;
mod ring;
pub(crate) mod root;
pub(crate) mod shared_queue;
mod shortage;
mod steal;
pub(crate) mod sysmon;
pub(crate) mod task;
pub(crate) mod task_data;
pub(crate) mod turn_ring;
pub(super) mod user_code;
pub(crate) mod waits;
mod wake_queue;
pub(crate) mod worker;

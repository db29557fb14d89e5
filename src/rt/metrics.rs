//! Metrics of the runtime.

use super::runtime::runtime;
use super::sched::processor::{Counter, Processor};
use crate::sync::Ordering;

/// Metrics of the runtime at one moment; returned by [`metrics`].
///
/// Totals are counted from the start of the process and continue across a
/// [`shutdown`](crate::rt::shutdown). Each value is exact, but they are not read at the same
/// instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Maximum number of threads that run tasks at the same time, as configured.
    pub workers: usize,
    /// Current number of worker threads, without threads inside `block_on`.
    pub worker_threads: usize,
    /// Current number of threads for blocking calls and name look-ups.
    pub blocking_threads: usize,
    /// Current number of tasks: spawned and not ended.
    pub tasks_alive: u64,
    /// Total number of spawned tasks.
    pub tasks_spawned: u64,
    /// Current number of tasks in the queue that all threads share.
    pub tasks_injected: usize,
    /// Total number of polls of tasks.
    pub polls: u64,
    /// Total number of times that a thread took tasks from another thread's queue.
    pub steals: u64,
    /// Total number of times that a thread parked.
    pub parks: u64,
    /// Total number of calls that waited for events or checked for them.
    pub poller_waits: u64,
    /// Total number of events that these calls returned.
    pub events: u64,
    /// Total number of events for descriptors that were already closed; they are dropped.
    pub stale_events: u64,
    /// Current number of operations that wait for a descriptor.
    pub waiters: usize,
    /// Total number of armed timers: sleeps and deadlines. One that is moved later counts again
    /// when it is re-armed.
    pub timers_armed: u64,
    /// Total number of timers that fired.
    pub timers_fired: u64,
    /// Current number of timer entries, including dead ones.
    pub timer_entries: usize,
    /// Total number of times that a task was found to block its thread.
    pub blocked_tasks: u64,
    /// Current number of threads inside a `block_on` that was called from a task.
    pub nested_block_on: u32,
    /// Current number of open sockets of this crate.
    pub descriptors: usize,
    /// Total number of calls of splice(2) to a socket and of sendfile(2) that moved bytes: the work
    /// that [`io::copy`](crate::io::copy()) and [`send_file`](crate::net::TcpStream::send_file)
    /// leave to the kernel.
    pub kernel_copies: u64,
    /// Total number of panics that escaped a task's own containment (in destructors).
    pub contained_panics: u64,
}

static KERNEL_COPIES: Counter = Counter::new();

/// Returns the counter of calls that move bytes inside the kernel.
pub(crate) fn kernel_copies() -> &'static Counter {
    &KERNEL_COPIES
}

/// Returns the current metrics of the runtime. Does not start the runtime.
///
/// # Examples
/// ```
/// use netpoll::{rt, task};
///
/// let before = rt::metrics().tasks_spawned;
/// task::block_on(async { task::spawn(async {}).await });
/// assert!(rt::metrics().tasks_spawned > before);
/// ```
pub fn metrics() -> Metrics {
    let runtime = runtime();
    let sum = |counter: fn(&Processor) -> &Counter| runtime.processors().map(|p| counter(p).get()).sum::<u64>();
    let sides = || runtime.cache.iter().flat_map(|desc| desc.sides());
    Metrics {
        workers: runtime.config().workers,
        worker_threads: runtime.worker_threads(),
        blocking_threads: runtime.pool.threads() + runtime.lookups.threads(),
        tasks_alive: runtime.tasks_alive(),
        tasks_spawned: runtime.spawned.get() + sum(|p| &p.spawned),
        tasks_injected: runtime.injected(),
        polls: sum(|p| &p.polls),
        steals: sum(|p| &p.steals),
        parks: sum(|p| &p.parks),
        poller_waits: runtime.driver.waits.get(),
        events: runtime.driver.events.get(),
        stale_events: runtime.driver.stale.get(),
        waiters: sides().map(|side| side.waiting()).sum(),
        timers_armed: runtime.timers_armed(),
        timers_fired: runtime.timers_fired.get(),
        timer_entries: runtime.processors().map(|p| p.timers.len()).sum::<usize>() + runtime.shared_timers.len(),
        blocked_tasks: runtime.sysmon.blocked.load(Ordering::Relaxed),
        nested_block_on: runtime.nested.load(Ordering::SeqCst),
        descriptors: runtime.descriptors.load(Ordering::Relaxed),
        kernel_copies: KERNEL_COPIES.get(),
        contained_panics: runtime.panics.get(),
    }
}

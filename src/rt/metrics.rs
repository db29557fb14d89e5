//! Counters of the runtime.

use super::runtime::runtime;
use super::sched::processor::{Counter, Processor};
use crate::sync::Ordering;

/// The runtime's counters at one moment; taken by [`metrics`].
///
/// Totals are since the process started and go on over a [`shutdown`](crate::rt::shutdown). Each is exact, but they are
/// not read in one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Threads that may run tasks at the same time, as configured.
    pub workers: usize,
    /// Worker threads that exist now, threads inside `block_on` not counted.
    pub worker_threads: usize,
    /// Threads for blocking calls and for name look-ups that exist now.
    pub blocking_threads: usize,
    /// Tasks that were spawned and have not ended.
    pub tasks_alive: u64,
    /// Tasks that were ever spawned.
    pub tasks_spawned: u64,
    /// Tasks waiting in the queue that all threads share.
    pub tasks_injected: usize,
    /// Times that a task was polled, total.
    pub polls: u64,
    /// Times that a thread took tasks from another's queue, total.
    pub steals: u64,
    /// Times that a thread went to rest, total.
    pub parks: u64,
    /// Calls that waited or asked for events, total.
    pub poller_waits: u64,
    /// Events that they brought, total.
    pub events: u64,
    /// Events for descriptors that were gone, total; they are dropped.
    pub stale_events: u64,
    /// Operations that wait for a descriptor now.
    pub waiters: usize,
    /// Timers ever armed: sleeps and deadlines; one moved later counts when it goes back in.
    pub timers_armed: u64,
    /// Timers that came due, total.
    pub timers_fired: u64,
    /// Timer entries held now, dead ones included.
    pub timer_entries: usize,
    /// Times that a task was found to block its thread, total.
    pub blocked_tasks: u64,
    /// Threads inside a `block_on` that was called within a task, now.
    pub nested_block_on: u32,
    /// Sockets open now, as far as they are this crate's.
    pub descriptors: usize,
    /// Calls of splice(2) to a socket and of sendfile(2) that moved something, total: what [`io::copy`](crate::io::copy()) and
    /// [`send_file`](crate::net::TcpStream::send_file) leave to the kernel.
    pub kernel_copies: u64,
    /// Panics that escaped a task's own containment (destructors), total.
    pub contained_panics: u64,
}

static KERNEL_COPIES: Counter = Counter::new();

/// Counts calls that move bytes inside the kernel.
pub(crate) fn kernel_copies() -> &'static Counter {
    &KERNEL_COPIES
}

/// The runtime's counters now. Does not start the runtime.
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

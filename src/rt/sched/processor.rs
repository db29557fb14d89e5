//! `Processor`: the right to run tasks, with the queue, timers and counters that go with it.
//!
//! Go's P. There are as many as workers, and spare ones that sysmon hands out while tasks block their threads. A thread owns
//! at most one; a processor that nobody owns has an empty queue (its timers are run by others).

use super::queue::RunQueue;
use crate::rt::context::BUDGET;
use crate::rt::time::timer::TimerSet;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Beside a turn longer than this, a look at the clock or a poll costs nothing.
pub(crate) const LONG_NANOS: u64 = 50_000;

/// Plain counters: written by the owner, summed by `metrics`.
#[derive(Debug)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) const fn new() -> Counter {
        Counter(AtomicU64::new(0))
    }

    /// For the one thread that owns the counter.
    #[inline]
    pub(crate) fn add_owned(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }

    /// For any thread.
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// See the module's header.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Processor {
    pub(crate) id: usize,
    pub(crate) queue: RunQueue,
    pub(crate) timers: TimerSet,
    /// I/O operations left to the running task; see `context::poll_budget`.
    pub(crate) budget: AtomicU32,
    /// Mean length of a turn, weighted towards the recent ones. The owner's; a thief reads it, sysmon corrects it.
    pub(crate) turn_nanos: AtomicU64,
    /// The id of the task that is being polled, or 0.
    pub(crate) running: AtomicU64,
    /// Sysmon has seen the same poll for too long: anybody may take what is queued here, the next slot too.
    pub(crate) stuck: AtomicBool,
    /// A thread owns it.
    pub(crate) owned: AtomicBool,
    /// The epoch in which it was handed to its owner.
    pub(crate) epoch: AtomicU32,
    pub(crate) spawned: Counter,
    pub(crate) ended: Counter,
    pub(crate) polls: Counter,
    pub(crate) steals: Counter,
    pub(crate) parks: Counter,
}

impl Processor {
    pub(crate) fn new(id: usize) -> Processor {
        Processor {
            id,
            queue: RunQueue::new(),
            timers: TimerSet::new(),
            budget: AtomicU32::new(BUDGET),
            turn_nanos: AtomicU64::new(1000),
            running: AtomicU64::new(0),
            stuck: AtomicBool::new(false),
            owned: AtomicBool::new(false),
            epoch: AtomicU32::new(0),
            spawned: Counter::new(),
            ended: Counter::new(),
            polls: Counter::new(),
            steals: Counter::new(),
            parks: Counter::new(),
        }
    }

    /// Whether its thread is in a turn, of which the recent ones were long.
    pub(crate) fn is_in_long_turn(&self) -> bool {
        self.running.load(Ordering::Relaxed) != 0 && self.turn_nanos.load(Ordering::Relaxed) > LONG_NANOS
    }
}

//! [`Processor`]: the right to run tasks, with its queue, timers and counters.
//!
//! It corresponds to Go's P. There is one processor per configured worker, and there are spare
//! ones, which are used mainly while tasks block their threads. A thread owns at most one
//! processor. A processor without an owner has an empty queue, and other threads run its timers.

use std::ptr;
use std::sync::OnceLock;

use super::event_ring::{EventRing, Mark};
use super::queue::RunQueue;
use super::record::{Pool, Record};
use super::turn_ring::TurnRing;
use crate::rt::counter::Counter;
use crate::rt::histogram::{Recorder, Unit};
use crate::rt::slab::Slot;
use crate::rt::time::ticks;
use crate::rt::time::timer::TimerSet;
use crate::sync::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// The length above which a turn is long, in nanoseconds. Compared with such a turn, the cost of
/// reading the clock or of polling is negligible.
pub(crate) const LONG_NANOS: u64 = 50_000;

/// The number of units that the operations of a task may take in one poll before the task yields.
/// An operation that need not wait, such as a read or a sleep whose time has passed, takes one, and
/// more if it moves more than 16 KiB.
///
/// Without a budget, a task whose socket is always ready would occupy its thread forever. The value
/// is one less than a multiple of [`CHECK_EVERY`], so that a turn of at most three units does not
/// check its duration.
pub(crate) const BUDGET: u32 = 31;

/// The number of units between two checks of the turn's duration. The budget alone does not bound
/// the time, because one operation takes from one microsecond to tens of microseconds.
pub(crate) const CHECK_EVERY: u32 = 4;

/// The time after which a turn ends at the next check, in nanoseconds. A task that becomes runnable
/// during the turn waits for the end of the turn.
pub(crate) const TURN_NANOS: u64 = 20_000;

/// The budget for the rest of a poll in which [`BUDGET`] or the time was used up. A turn that ends
/// with this much or less counts as possibly long.
pub(crate) const REFILL: u32 = BUDGET * 3 / 4;

/// The right to run tasks; see the [module documentation](self).
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Processor {
    pub(crate) id: usize,
    pub(crate) queue: RunQueue,
    pub(crate) timers: TimerSet,
    /// The remaining budget of the running task; see `context::poll_budget`.
    pub(crate) budget: AtomicU32,
    /// The mean length of a turn, weighted towards recent turns. Written by the owner, read by
    /// threads that steal, and corrected by sysmon.
    pub(crate) turn_nanos: AtomicU64,
    /// The record of the task or root future that is being polled, or null. `nobody` if the task
    /// has freed its record in this turn.
    pub(crate) running: AtomicPtr<Record>,
    /// A record that belongs to no task.
    nobody: Record,
    /// Whether sysmon has found the owner in the same poll, or in the wakers of the same batch, at
    /// two consecutive checks. If so, other threads may take every queued task, including the tasks
    /// in the two slots.
    pub(crate) stuck: AtomicBool,
    /// Whether a thread owns the processor.
    pub(crate) owned: AtomicBool,
    /// The epoch in which the owner got the processor.
    pub(crate) epoch: AtomicU32,
    /// The number of tasks that owners have spawned.
    pub(crate) spawned: Counter,
    /// The number of tasks that have ended on the threads of owners.
    pub(crate) ended: Counter,
    /// Free records and ids for new tasks. Only the owner accesses the pool.
    pub(crate) pool: Pool,
    /// The number of times that an owner has taken tasks from another processor.
    pub(crate) steals: Counter,
    /// The number of times that an owner has given the processor back.
    pub(crate) parks: Counter,
    /// The number of turns in which a control task ran before ordinary tasks.
    pub(crate) control_turns: Counter,
    /// The number of times that a control task was queued behind ordinary tasks.
    pub(crate) control_queued: Counter,
    /// Samples of the duration of one poll of a task.
    pub(crate) poll_times: Recorder,
    /// Samples of the time between the wake-up of a task and its next poll.
    pub(crate) wake_delays: Recorder,
    /// The last turns, for the black box, and the number of completed turns. Written by the owner.
    pub(crate) turns: TurnRing,
    /// The last events other than turns, for the black box. Written by the owner.
    pub(crate) events: EventRing,
}

impl Processor {
    /// Returns the time, in ticks, at which the turn in progress began, or `None` if no turn is in
    /// progress or the time is not recorded. Only the owner may call this.
    #[inline]
    pub(crate) fn turn_began(&self) -> Option<u64> {
        let began = self.turns.began();
        // Between turns, this is the time stamp of an old turn.
        (began != 0 && !self.running.load(Ordering::Relaxed).is_null()).then_some(began)
    }

    /// Returns whether the turn in progress has taken more than [`TURN_NANOS`]. Only the owner may
    /// call this. Returns false if the duration of the turn is not known.
    pub(crate) fn is_turn_over(&self) -> bool {
        self.has_lasted(1).unwrap_or(false)
    }

    /// Returns whether the turn in progress has taken more than `turns` times [`TURN_NANOS`], or
    /// `None` if that is not known: no turn is in progress, the rate of the counter is not measured
    /// yet, or the beginnings of turns are not recorded (in a simulation, or with
    /// `--cfg netpoll_no_black_box`). Only the owner may call this.
    pub(crate) fn has_lasted(&self, turns: u64) -> Option<bool> {
        static LIMIT: OnceLock<u64> = OnceLock::new();
        let began = self.turn_began()?;
        let limit = LIMIT.get().copied().or_else(|| {
            let ticks = ticks::in_nanos(TURN_NANOS)?;
            Some(*LIMIT.get_or_init(|| ticks))
        })?;
        Some(ticks::ticks().saturating_sub(began) > limit.saturating_mul(turns))
    }

    pub(crate) fn new(id: usize) -> Processor {
        Processor {
            id,
            queue: RunQueue::new(),
            timers: TimerSet::new(),
            budget: AtomicU32::new(BUDGET),
            turn_nanos: AtomicU64::new(1000),
            running: AtomicPtr::new(ptr::null_mut()),
            nobody: Record::vacant(0),
            stuck: AtomicBool::new(false),
            owned: AtomicBool::new(false),
            epoch: AtomicU32::new(0),
            spawned: Counter::new(),
            ended: Counter::new(),
            pool: Pool::new(),
            steals: Counter::new(),
            parks: Counter::new(),
            control_turns: Counter::new(),
            control_queued: Counter::new(),
            poll_times: Recorder::new(Unit::Seconds),
            wake_delays: Recorder::new(Unit::Seconds),
            turns: TurnRing::new(),
            events: EventRing::new(),
        }
    }

    /// Records an event with the current time. Only the owner may call this.
    #[inline(never)]
    pub(crate) fn record(&self, mark: Mark, value: u64) {
        if !cfg!(netpoll_no_black_box) {
            self.events.record(mark, ticks::ticks(), value);
        }
    }

    /// Records that the task of `record`, which is about to be freed, has ended. If the task is the
    /// one that is being polled, the rest of the turn, which may drop its output, belongs to no
    /// task. Only the owner may call this.
    #[inline]
    pub(crate) fn task_ends(&self, record: &Record) {
        if ptr::eq(self.running.load(Ordering::Relaxed), record) {
            // ORDERING: Relaxed: `nobody` is as old as the processor.
            self.running.store(ptr::from_ref(&self.nobody).cast_mut(), Ordering::Relaxed);
        }
    }

    /// Returns the record of the task or root future that is being polled, or `None`. The task may
    /// already have ended. If it has freed its record, the returned record has the id 0.
    #[allow(unsafe_code)]
    pub(crate) fn running(&self) -> Option<&Record> {
        // ORDERING: Acquire pairs with the Release at the beginning of the turn.
        let running = self.running.load(Ordering::Acquire);
        // SAFETY: null, or set from a reference to a record that is never unmapped, or to `nobody`
        // of this processor.
        unsafe { running.as_ref() }
    }

    /// Returns the id of the task or root future that is being polled, or 0.
    pub(crate) fn running_id(&self) -> u64 {
        self.running().map_or(0, Record::id)
    }

    /// Returns whether the owner is in a turn and the mean length of its turns exceeds
    /// [`LONG_NANOS`].
    pub(crate) fn is_in_long_turn(&self) -> bool {
        !self.running.load(Ordering::Relaxed).is_null() && self.turn_nanos.load(Ordering::Relaxed) > LONG_NANOS
    }
}

//! The loop of a thread that owns a processor.
//!
//! Sources of work, in order: the root future of `block_on`, if it was woken; the next slot (a few
//! turns in a row at most); the processor's own queue; the shared queue (every 61st turn it comes
//! first); due timers; tasks of other processors, if they are worth the move. Without work the
//! thread sleeps: in epoll if no other thread does, otherwise at rest.
//!
//! # The length of a turn
//! It determines when the clock is read, when to poll and when to wake another thread. It is
//! measured between two readings of the clock, which happen every 16 turns, or fewer that take 1
//! ms, and after a turn that used much of its budget. Between two sleeps there may be fewer turns
//! than that. So after some sleeps the clock is read at once and after the first turn: after those
//! that wake several tasks, after every eighth of the others, and after all while turns are long.
//!
//! # Polling while busy
//! While there are moments without work, the sleep in epoll is the only poll. A thread that has had
//! none for long polls from its tick, without waiting: after 100 µs and more turns than the last
//! poll brought events (plus 32), or after 100 µs and any number of long turns ([`LONG_NANOS`]), or
//! after 1 ms. This avoids Go's weakness W2 (10 ms) without a fourth system call per request.
//!
//! # Waking other threads
//! For short tasks a second thread costs more than it brings. One is woken, at rest or asleep in
//! epoll, only when the backlog is worth more than [`WAKE_NANOS`] by the mean length of a turn. It
//! steals only from a queue worth [`STEAL_NANOS`], or one whose owner sysmon calls stuck. Long
//! turns are considered as soon as they are queued: at the end of a sleep, and by a thread that has
//! stolen some. Where the length is not known yet (a few long tasks after many short ones), sysmon
//! detects the backlog.
//!
//! # Invariants
//! * 11 — a panic that escapes a task's machinery ends the turn, not the worker.
//! * R1 (`runtime.rs`) — `awake` is decremented before the last check of the queues, and
//!   incremented before anything is run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::idle::Sleeper;
use super::polling::{Polling, Slept};
use super::processor::{LONG_NANOS, Processor};
use super::queue::{Item, RING};
use super::record::Record;
use super::root::Root;
use super::task::{TaskData, discard, from_item};
use crate::rt::context::{self, BUDGET, REFILL};
use crate::rt::poll::role::By;
use crate::rt::runtime::{Runtime, runtime};
use crate::rt::time::clock;
use crate::rt::waiters::let_go;
use crate::sync::{Arc, Ordering};

/// The maximum number of consecutive turns for tasks that the running one woke, before older ones
/// run.
const NEXT_MAX: u32 = 3;
/// Every this many turns, and after each reading of the clock, the shared queue comes first (a
/// prime, as in Go, so that it does not match a rhythm of the tasks).
const SHARED_EVERY: u32 = 61;
/// The clock is read after this many turns,
const CLOCK_EVERY: u32 = 16;
/// or fewer that take this long.
const CLOCK_NANOS: u64 = 1_000_000;
/// After every this many sleeps the following turns are measured from the first on,
const SAMPLE_EVERY: u32 = 8;
/// and after a sleep that wakes this many tasks.
const SAMPLE_FROM: u32 = 4;
const POLL_MIN_NANOS: u64 = 100_000;
const POLL_MAX_NANOS: u64 = 1_000_000;
const POLL_MARGIN: u32 = 32;
/// A backlog worth less than this is done before a woken thread has warmed up.
const WAKE_NANOS: u64 = 100_000;
const STEAL_NANOS: u64 = 50_000;
/// After this many consecutive sleeps whose events woke no task, a thread in `block_on` may have
/// the role.
const LONELY: u32 = 4;
/// The pause of a worker without work in a process that has no descriptor left for an epoll
/// instance.
const NO_POLLER: Duration = Duration::from_millis(10);

/// Why the loop was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The root future was woken. The thread still owns the processor.
    Root,
    /// The thread gave the processor back. A worker is listed as resting.
    Resting,
    /// A nested `block_on` gave the processor away.
    Lost,
    /// The epoch ended. The thread gave the processor up.
    Stopped,
}

/// The state of the loop, in addition to a processor.
pub(crate) struct Core {
    polling: Polling,
    tick: u32,
    next_run: u32,
    /// The number of turns since the last poll, and the number of events that it returned.
    since_poll: u32,
    delivered: u32,
    /// The time of the last reading of the clock in this stretch of work, or 0, and the turns since
    /// the last poll at that time.
    clock: u64,
    clock_turns: u32,
    /// The tick of the next reading, and the number of turns in between.
    clock_at: u32,
    spacing: u32,
    /// The number of sleeps, and whether the turns since the last one are measured.
    sleeps: u32,
    sampled: bool,
    polled_at: u64,
    /// The processor's polls at the last sleep, and the number of consecutive sleeps that ended
    /// without a turn.
    slept_at: u64,
    lonely: u32,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("tick", &self.tick).field("spacing", &self.spacing).finish_non_exhaustive()
    }
}

impl Core {
    pub(crate) fn new() -> Core {
        Core {
            polling: Polling::new(),
            tick: 0,
            next_run: 0,
            since_poll: 0,
            delivered: 0,
            clock: 0,
            clock_turns: 0,
            clock_at: 2,
            spacing: 1,
            sleeps: 0,
            sampled: true,
            polled_at: 0,
            slept_at: 0,
            lonely: 0,
        }
    }

    /// Runs tasks until there is a reason to leave. `sleeper` is that of a worker; `root` is that
    /// of a thread in `block_on`.
    pub(crate) fn run(
        &mut self,
        processor: &'static Processor,
        sleeper: Option<&Arc<Sleeper>>,
        root: Option<&Root>,
        epoch: u32,
    ) -> Exit {
        let runtime = runtime();
        // A root future that is woken when it returns has yielded: queued tasks go first.
        // (Otherwise the root future goes first.)
        let mut owed = if root.is_some_and(Root::is_woken) { processor.queue.len().clamp(1, RING) } else { 0 };
        loop {
            if runtime.epoch() != epoch {
                self.give_up(processor);
                return Exit::Stopped;
            }
            if owed == 0 && root.is_some_and(Root::is_woken) {
                return Exit::Root;
            }
            self.tick = self.tick.wrapping_add(1);
            let is_shared_first = self.tick == self.clock_at || self.tick.is_multiple_of(SHARED_EVERY);
            if self.tick == self.clock_at && !self.maintain(runtime, processor) {
                return Exit::Lost;
            }
            if let Some(item) =
                self.next(runtime, processor, is_shared_first).or_else(|| self.search(runtime, processor))
            {
                if !self.turn(runtime, processor, item, epoch) {
                    return Exit::Lost;
                }
                owed = owed.saturating_sub(1);
            } else if owed > 0 {
                owed = 0;
            } else if let Some(exit) = self.idle(runtime, processor, sleeper, root, epoch) {
                return exit;
            }
        }
    }

    /// Ends the epoch of the processor: cancels its tasks and frees the processor for the next epoch.
    fn give_up(&mut self, processor: &'static Processor) {
        let runtime = runtime();
        self.polling.forget_instance();
        // From here on a scheduled task is queued by its own epoch: one of the new epoch is queued
        // there, others are cancelled.
        context::set_processor(None);
        let items: Vec<_> = processor.queue.drain().collect();
        items.into_iter().for_each(super::task::reschedule_item);
        let epoch = processor.epoch.load(Ordering::Relaxed);
        processor.owned.store(false, Ordering::SeqCst);
        runtime.awake.down(epoch);
        // A thread that brought work to the new epoch may have relied on this thread, which was
        // asleep in epoll, to run it.
        runtime.attend_after_leaving();
    }

    fn next(
        &mut self,
        runtime: &'static Runtime,
        processor: &'static Processor,
        is_shared_first: bool,
    ) -> Option<Item> {
        if is_shared_first && let Some(item) = runtime.take_injected(processor, 0) {
            return Some(item);
        }
        if let Some(item) = processor.queue.pop_next() {
            if self.next_run < NEXT_MAX {
                self.next_run += 1;
                return Some(item);
            }
            processor.queue.push(item);
        }
        self.next_run = 0;
        processor.queue.pop()
    }

    fn search(&mut self, runtime: &'static Runtime, processor: &'static Processor) -> Option<Item> {
        if let Some(item) = runtime.take_injected(processor, RING / 2) {
            return Some(item);
        }
        if runtime.awake.count() <= 1 {
            return None;
        }
        runtime
            .processors()
            .filter(|victim| victim.id != processor.id && victim.owned.load(Ordering::Relaxed))
            .find_map(|victim| {
                let stuck = victim.stuck.load(Ordering::Relaxed);
                let turn = victim.turn_nanos.load(Ordering::Relaxed);
                if !stuck && (victim.queue.len() as u64).saturating_mul(turn) < STEAL_NANOS {
                    return None;
                }
                let stolen =
                    victim.queue.steal(&processor.queue).or_else(|| stuck.then(|| victim.queue.pop_next())?)?;
                processor.steals.add_owned(1);
                processor.turn_nanos.store(turn, Ordering::Relaxed);
                share(runtime, processor, processor.queue.len());
                Some(stolen)
            })
    }

    /// Runs one turn of one task. Returns false if it gave the processor away.
    #[allow(unsafe_code)]
    fn turn(&mut self, runtime: &'static Runtime, processor: &'static Processor, item: Item, epoch: u32) -> bool {
        // SAFETY: the item was just taken out of a queue and is used once, here.
        let runnable = unsafe { from_item(item) };
        if runnable.metadata().epoch() != epoch {
            // Queued in an epoch that is over.
            discard(runnable);
            return owns_processor();
        }
        let data: *const TaskData = runnable.metadata();
        let record = runnable.metadata().record();
        // The data pointer of the task's wakers, as `async-task` creates them.
        let own = item.as_ptr().cast_const();
        self.since_poll = self.since_poll.wrapping_add(1);
        begin_turn(processor, record);
        // The future's own panics are kept by its task; what is left are panics of destructors.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| context::run_turn(data, own, || runnable.run()))) {
            let_go(payload);
            runtime.panics.add(1);
        }
        if !owns_processor() {
            // The wait was not part of the turn.
            self.clock = 0;
            return false;
        }
        end_turn(processor);
        // ORDERING: Relaxed, as in `context::poll_budget`.
        if processor.budget.load(Ordering::Relaxed) <= REFILL {
            self.clock_at = self.tick.wrapping_add(1);
        }
        true
    }

    /// Reads the clock: measures the turns since the last reading.
    fn measure(&mut self, processor: &Processor, now: u64) -> u64 {
        let mut mean = processor.turn_nanos.load(Ordering::Relaxed);
        let turns = self.since_poll.wrapping_sub(self.clock_turns);
        if self.clock != 0 && turns > 0 {
            mean = (mean * 3 + now.saturating_sub(self.clock) / u64::from(turns)) / 4;
            processor.turn_nanos.store(mean, Ordering::Relaxed);
        }
        (self.clock, self.clock_turns) = (now, self.since_poll);
        mean
    }

    /// Called after a sleep, when the events that it returned are recorded.
    fn begin_stretch(&mut self, processor: &Processor) {
        let is_long = processor.turn_nanos.load(Ordering::Relaxed) > LONG_NANOS;
        self.polled(0);
        self.sampled = is_long || self.delivered >= SAMPLE_FROM || self.sleeps.is_multiple_of(SAMPLE_EVERY);
        self.sleeps = self.sleeps.wrapping_add(1);
        (self.clock, self.spacing) = if self.sampled { (clock::now(), 1) } else { (0, CLOCK_EVERY) };
        self.polled_at = self.clock;
        // The tick before the first turn is one more.
        self.clock_at = self.tick.wrapping_add(self.spacing + 1);
    }

    /// Called every [`CLOCK_EVERY`] turns, or fewer: reads the clock, runs timers, polls if a poll
    /// is due, and wakes a helper if it is worthwhile. Returns false if a waker gave the processor
    /// away.
    #[cold]
    fn maintain(&mut self, runtime: &'static Runtime, processor: &'static Processor) -> bool {
        let now = clock::now();
        let turn = self.measure(processor, now);
        let most = (CLOCK_NANOS / turn.max(1)).clamp(1, u64::from(CLOCK_EVERY));
        self.spacing = (self.spacing * 4).min(most as u32);
        self.clock_at = self.tick.wrapping_add(self.spacing);
        if processor.stuck.load(Ordering::Relaxed) {
            processor.stuck.store(false, Ordering::Relaxed);
        }
        self.polling.run_timers(runtime, now);
        self.polling.wakers.wake_all();
        if self.polled_at == 0 {
            self.polled_at = now;
        }
        let since = now.saturating_sub(self.polled_at);
        let pays = turn > LONG_NANOS || self.since_poll > self.delivered + POLL_MARGIN;
        if since > POLL_MAX_NANOS || (since > POLL_MIN_NANOS && pays) {
            self.poll_now(runtime, processor, now);
        }
        let is_owned = owns_processor();
        if is_owned {
            // One of them is this thread's own.
            share(runtime, processor, (processor.queue.len() + runtime.injected()).saturating_sub(1));
            if turn > LONG_NANOS && !runtime.driver.role.is_taken() {
                // A thread in `block_on` need not wait for the end of such turns.
                let others = runtime.processors().filter(|other| other.id != processor.id && other.is_in_long_turn());
                if runtime.awake.count() <= others.count() + 1 {
                    runtime.nudge_root();
                }
            }
        }
        is_owned
    }

    /// Takes available events, without waiting. Tasks that they wake go behind all queued ones.
    fn poll_now(&mut self, runtime: &'static Runtime, processor: &'static Processor, now: u64) {
        if self.polling.poll_now(runtime, processor.epoch.load(Ordering::Relaxed), now) {
            self.polled(now);
            self.polling.wakers.wake_all();
        }
    }

    fn polled(&mut self, now: u64) {
        self.polled_at = now;
        (self.since_poll, self.clock_turns) = (0, 0);
        self.delivered = self.polling.wakers.len() as u32;
    }

    /// Called when there is nothing to run. Sleeps in epoll, or gives the processor back. Returns
    /// why the loop must be left, if it must.
    fn idle(
        &mut self,
        runtime: &'static Runtime,
        processor: &'static Processor,
        sleeper: Option<&Arc<Sleeper>>,
        root: Option<&Root>,
        epoch: u32,
    ) -> Option<Exit> {
        if self.clock != 0 && self.clock_turns == 0 {
            self.measure(processor, clock::now());
        }
        self.clock = 0;
        let polls = processor.polls.get();
        self.lonely = if polls == self.slept_at { self.lonely.saturating_add(1) } else { 0 };
        self.slept_at = polls;
        runtime.set_lonely(self.lonely >= LONELY);
        if !runtime.driver.role.try_take() {
            return runtime.give_back(processor, sleeper).then_some(Exit::Resting);
        }
        if let Some(sleeper) = sleeper
            && runtime.grant_role(processor, sleeper)
        {
            return Some(Exit::Resting);
        }
        // ORDERING: SeqCst: announced and decremented, then one more check; see `attend` and the
        // documentation of the role.
        let falls_asleep = || {
            runtime.awake.down(epoch);
            runtime.injected() > 0
                || root.is_some_and(|root| !root.enter_poll())
                || (sleeper.is_some() && runtime.is_role_wished())
        };
        let rises = || {
            runtime.awake.up(epoch);
            if let Some(root) = root {
                root.leave_poll();
            }
        };
        match self.polling.sleep(runtime, By::Worker, epoch, falls_asleep, rises) {
            Slept::Polled => {
                self.begin_stretch(processor);
                self.polling.wakers.wake_all();
                if self.sampled && owns_processor() && processor.turn_nanos.load(Ordering::Relaxed) > LONG_NANOS {
                    share(runtime, processor, processor.queue.len().saturating_sub(1));
                }
            }
            Slept::TimersRan => _ = self.polling.wakers.wake_all(),
            // Try again in a while: a descriptor may be free then.
            Slept::NoPoller => std::thread::sleep(NO_POLLER),
        }
        (!owns_processor()).then_some(Exit::Lost)
    }
}

/// Returns whether this thread still owns its processor. A `block_on` in a task, a waker or a
/// destructor gives it away, so this must be checked after any of them has run, before the
/// processor is used again.
fn owns_processor() -> bool {
    context::processor().is_some()
}

/// Wakes another thread if the `backlog` of turns queued here is worth it.
fn share(runtime: &'static Runtime, processor: &Processor, backlog: usize) {
    let turn = processor.turn_nanos.load(Ordering::Relaxed);
    if (backlog as u64).saturating_mul(turn) > WAKE_NANOS {
        runtime.wake_helper(turn > LONG_NANOS);
    }
}

/// Marks the beginning of a turn: sysmon sees which task runs, and the task gets its budget.
#[inline]
pub(crate) fn begin_turn(processor: &Processor, record: &'static Record) {
    processor.budget.store(BUDGET, Ordering::Relaxed);
    processor.running.store(std::ptr::from_ref(record).cast_mut(), Ordering::Relaxed);
    record.begin_poll();
}

/// Marks the end of a turn.
#[inline]
pub(crate) fn end_turn(processor: &Processor) {
    processor.running.store(std::ptr::null_mut(), Ordering::Relaxed);
    processor.polls.add_owned(1);
}

/// The main function of a worker thread, starting with its first processor.
pub(crate) fn main(runtime: &'static Runtime, epoch: u32, first: &'static Processor) {
    let sleeper = Arc::new(Sleeper::new());
    let mut core = Core::new();
    let mut processor = Some(first);
    while let Some(owned) = processor {
        context::set_processor(Some(owned));
        runtime.sysmon.notice();
        if core.run(owned, Some(&sleeper), None, epoch) == Exit::Stopped {
            runtime.unlist(&sleeper);
            runtime.worker_ends();
            return;
        }
        processor = runtime.rest(&sleeper, epoch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processor(turn_nanos: u64) -> &'static Processor {
        let processor: &'static Processor = Box::leak(Box::new(Processor::new(0)));
        processor.turn_nanos.store(turn_nanos, Ordering::Relaxed);
        processor
    }

    /// Runs `test` on a thread that owns `processor`, so that tasks that it spawns stay there.
    fn on(processor: &'static Processor, test: impl FnOnce() + Send) {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                context::set_processor(Some(processor));
                test();
                context::set_processor(None);
            });
        });
    }

    #[test]
    fn next_slot_runs_first_three_times_in_a_row() {
        let (mut core, processor) = (Core::new(), processor(1000));
        core.clock_at = 0;
        let item = |number: usize| Item::new(std::ptr::without_provenance_mut(number)).unwrap();
        (1..=4).for_each(|number| processor.queue.push(item(number)));
        let mut taken = Vec::new();
        for number in 11..=18 {
            processor.queue.push_next(item(number));
            core.tick += 1;
            taken.extend(core.next(runtime(), processor, false).map(|item| item.as_ptr().addr()));
        }
        assert_eq!(taken, [11, 12, 13, 1, 15, 16, 17, 2]);
        taken.clear();
        while let Some(item) = core.next(runtime(), processor, false) {
            taken.push(item.as_ptr().addr());
        }
        assert_eq!(taken, [3, 4, 14, 18]);
    }

    /// A turn that used much of its budget was a long one: the clock is read after it.
    #[test]
    fn clock_is_read_after_a_long_turn() {
        let (mut core, processor) = (Core::new(), processor(1000));
        on(processor, || {
            for (left, is_long) in [(BUDGET, false), (REFILL + 1, false), (REFILL, true), (0, true)] {
                let task = crate::task::spawn(async move { processor.budget.store(left, Ordering::Relaxed) });
                let item = processor.queue.pop().unwrap();
                (core.tick, core.clock_at) = (20, 25);
                core.turn(runtime(), processor, item, runtime().epoch());
                assert!(task.is_finished() && processor.running_id() == 0);
                assert_eq!(core.clock_at, if is_long { 21 } else { 25 }, "{left}");
            }
            assert_eq!((core.since_poll, processor.polls.get()), (4, 4));
            // A task of another epoch is dropped, which is not a turn.
            drop(crate::task::spawn(async { panic!("it ran") }));
            core.turn(runtime(), processor, processor.queue.pop().unwrap(), runtime().epoch().wrapping_add(1));
            assert_eq!((core.since_poll, processor.polls.get(), processor.ended.get()), (4, 4, 5));
        });
    }

    #[test]
    fn woken_task_runs_next_and_self_woken_task_runs_last() {
        let (mut core, processor) = (Core::new(), processor(1000));
        let mut turn = || core.turn(runtime(), processor, processor.queue.pop().unwrap(), runtime().epoch());
        on(processor, || {
            let spawner = crate::task::spawn(async { drop(crate::task::spawn(async { 7 })) });
            let yielder = crate::task::spawn(crate::task::yield_now());
            assert!(processor.queue.pop_next().is_none(), "no task has woken them");
            turn();
            assert!(spawner.is_finished());
            processor.queue.push(processor.queue.pop_next().expect("the one that it spawned"));
            turn();
            assert!(!yielder.is_finished() && processor.queue.pop_next().is_none());
            turn();
            assert!(!yielder.is_finished());
            turn();
            assert!(yielder.is_finished() && processor.queue.len() == 0);
        });
    }

    #[test]
    fn turns_are_measured_between_two_clock_readings() {
        let (mut core, processor) = (Core::new(), processor(1000));
        core.since_poll = 3;
        assert_eq!(core.measure(processor, 5000), 1000, "the clock was not read before");
        assert_eq!((core.clock, core.clock_turns), (5000, 3));
        assert_eq!(core.measure(processor, 9000), 1000, "no turn between");
        core.since_poll = 7;
        assert_eq!(core.measure(processor, 9000 + 4 * 9000), (3 * 1000 + 9000) / 4);
        assert_eq!(processor.turn_nanos.load(Ordering::Relaxed), 3000);
        assert_eq!((core.clock, core.clock_turns), (45_000, 7));
        core.since_poll = 8;
        assert_eq!(core.measure(processor, 40_000), 2250, "a clock that goes back");
    }

    #[test]
    fn turns_after_some_sleeps_are_measured() {
        let mut core = Core::new();
        let mut begin = |sleeps, delivered, turn_nanos| {
            (core.tick, core.sleeps, core.since_poll, core.clock_turns) = (100, sleeps, 5, 5);
            (0..delivered).for_each(|_| core.polling.wakers.push(std::task::Waker::noop().clone()));
            core.begin_stretch(processor(turn_nanos));
            core.polling.wakers.wake_all();
            assert_eq!((core.since_poll, core.clock_turns, core.delivered), (0, 0, delivered));
            assert_eq!((core.sleeps, core.polled_at), (sleeps + 1, core.clock));
            assert_eq!((core.clock != 0, core.clock_at), (core.sampled, 101 + core.spacing));
            assert_eq!(core.spacing, if core.sampled { 1 } else { CLOCK_EVERY });
            core.sampled
        };
        assert!(!begin(1, 0, 1000) && !begin(7, SAMPLE_FROM - 1, LONG_NANOS));
        assert!(begin(8, 0, 1000) && begin(16, 0, 1000), "every eighth sleep");
        assert!(begin(1, SAMPLE_FROM, 1000), "sleeps that wake several tasks");
        assert!(begin(1, 0, LONG_NANOS + 1), "all sleeps while turns are long");
    }

    /// Reads the clock more often after long turns, and step by step less often after short ones.
    #[test]
    fn clock_is_read_less_often_with_short_turns() {
        for (turn_nanos, spacings) in
            [(1000, [4, 16, 16]), (0, [4, 16, 16]), (CLOCK_NANOS / 8, [4, 8, 8]), (3 * CLOCK_NANOS, [1, 1, 1])]
        {
            let (mut core, processor) = (Core::new(), processor(turn_nanos));
            core.tick = 50;
            for spacing in spacings {
                processor.stuck.store(true, Ordering::Relaxed);
                core.maintain(runtime(), processor);
                assert_eq!((core.spacing, core.clock_at), (spacing, 50 + spacing));
                assert!(!processor.stuck.load(Ordering::Relaxed) && core.polled_at != 0);
            }
        }
    }
}

//! The loop of a thread that owns a processor.
//!
//! Sources of work, in order:
//! 1. The root future of `block_on`, if it was woken. If it has yielded, up to [`RING`] queued
//!    tasks run before it.
//! 2. The control lane ([`lanes`](super::lanes)), within its share.
//! 3. The next slot of the processor's [`queue`](super::queue), for at most three turns in a row.
//! 4. The other tasks of this queue.
//! 5. The shared queue, also called the injector. After a reading of the clock, it comes before the
//!    next slot, unless it did so in the turn before. So this happens at least every 17th turn.
//! 6. Tasks of other processors, if their queues are worth stealing from or their owners are stuck.
//!
//! Due timers run when the clock is read and before a sleep.
//!
//! A thread without work takes the free roles of its home shard and of some others (`roles.rs`),
//! and *sleeps* in epoll; it keeps its processor. If it gets no role, it may [look](Core::look) for
//! events. If it finds no work, it gives its processor back. A worker then *rests*: it waits on the
//! idle list, without a role, until it is woken (see [`resting`](super::resting)).
//!
//! [`pacing`](super::pacing) decides when a busy thread reads the clock, polls, and wakes a second
//! worker.
//!
//! # Invariants
//! * 11 — a panic that a task does not catch itself (`task.rs`) ends the turn, not the worker.
//! * R1 (`runtime.rs`) — `awake` is decremented before the last check of the queues, and
//!   incremented before the thread runs anything.

use std::panic::{AssertUnwindSafe, catch_unwind};

use async_task::Runnable;

use super::event_ring::Mark;
use super::idle::Sleeper;
use super::lanes::{Account, share, turns_per_control_turn};
use super::looks::Looks;
use super::own_waker;
use super::pacing::{self, Pacing, maybe_wake_helper};
use super::polling::{self, Polling, Slept};
use super::processor::{LONG_NANOS, Processor};
use super::queue::{Item, RING};
use super::record::Record;
use super::root::Root;
use super::steal::{steal, take_from_stuck};
use super::task::{from_item, take_item};
use super::task_data::TaskData;
use super::turn_ring::CallPlace;
use crate::rt::context::{self, BUDGET, REFILL};
use crate::rt::fork;
use crate::rt::poll::role::By;
use crate::rt::runtime::{Runtime, runtime};
use crate::rt::time::{clock, ticks};
use crate::rt::unsent;
use crate::rt::waiters::drop_payload;
use crate::sync::{Arc, Ordering};

/// The maximum number of consecutive turns from the next slot. After them, the oldest queued task
/// runs.
const NEXT_MAX: u32 = 3;
/// If a thread has run out of work this often without a turn in between, the workers count as
/// lonely, and a thread in `block_on` may ask for the role of polling.
const LONELY: u32 = 4;
/// The maximum number of consecutive polls while control tasks exist and each batch is full.
const POLLS_MAX: u32 = 8;

/// The reason why `Core::run` returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The root future was woken. The thread still owns the processor.
    Root,
    /// The thread gave the processor back. If it is a worker of the current epoch, it was added to
    /// the idle list.
    Resting,
    /// A nested `block_on` gave the processor away.
    Lost,
    /// The epoch ended, and the thread gave the processor up.
    Stopped,
}

/// The state of a thread's loop that does not belong to the processor.
pub(crate) struct Core {
    polling: Polling,
    /// The number of passes through the loop.
    tick: u32,
    /// The number of consecutive turns from the next slot.
    next_run: u32,
    /// The tick of the last turn for which the shared queue came first.
    shared_at: u32,
    pacing: Pacing,
    looks: Looks,
    account: Account,
    /// The number of turns that the processor had completed when the thread last ran out of work.
    slept_at: u64,
    /// The number of consecutive times that the thread has run out of work without a turn in
    /// between.
    lonely: u32,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("tick", &self.tick).field("pacing", &self.pacing).finish_non_exhaustive()
    }
}

impl Core {
    pub(crate) fn new() -> Core {
        Core {
            polling: Polling::new(),
            tick: 0,
            next_run: 0,
            shared_at: 0,
            pacing: Pacing::new(),
            looks: Looks::default(),
            account: Account::new(),
            slept_at: 0,
            lonely: 0,
        }
    }

    /// Runs tasks until there is a reason to leave the loop. `sleeper` is `Some` for a worker, and
    /// `root` is `Some` for any other thread.
    pub(crate) fn run(
        &mut self,
        processor: &'static Processor,
        sleeper: Option<&Arc<Sleeper>>,
        root: Option<&Root>,
        epoch: u32,
    ) -> Exit {
        let runtime = runtime();
        // A root future that is already woken when its poll returns has yielded, so up to `RING`
        // queued tasks run first. If it is woken later, it runs before them.
        let mut owed = if root.is_some_and(Root::is_woken) { processor.queue.len().clamp(1, RING) } else { 0 };
        loop {
            if runtime.epoch() != epoch {
                self.give_up(processor);
                return Exit::Stopped;
            }
            if owed == 0 && root.is_some_and(Root::is_woken) {
                processor.queue.settle();
                return Exit::Root;
            }
            self.tick = self.tick.wrapping_add(1);
            let is_due = self.pacing.is_due(self.tick);
            if is_due && !self.maintain(runtime, processor) {
                return Exit::Lost;
            }
            if runtime.control.queue.len() > 0
                && let Some(kept) = self.control_turn(runtime, processor, epoch, is_due)
            {
                if !kept {
                    return Exit::Lost;
                }
                owed = owed.saturating_sub(1);
                continue;
            }
            if let Some(item) = self.next(runtime, processor, is_due).or_else(|| self.search(runtime, processor)) {
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

    /// Drops the queued tasks of the epoch that has ended, and frees the processor for the next
    /// epoch. In a child of fork(2), only leaks the tasks.
    fn give_up(&mut self, processor: &'static Processor) {
        let runtime = runtime();
        self.polling.forget_instances();
        // From here on, scheduling depends on the epoch of the task: a task of the new epoch is
        // queued, and any other task is dropped.
        context::set_processor(None);
        let items: Vec<_> = processor.queue.drain().collect();
        if fork::is_child() {
            // The tasks are the parent's, whose other threads may have held locks at the fork.
            return items.into_iter().map(take_item).for_each(std::mem::forget);
        }
        items.into_iter().map(take_item).for_each(|runnable| runtime.inject(runnable));
        let epoch = processor.epoch.load(Ordering::Relaxed);
        processor.record(Mark::Leave, 0);
        processor.owned.store(false, Ordering::SeqCst);
        runtime.awake.down(epoch);
        // A thread that brought work to the new epoch may have relied on this thread to run it, if
        // this thread was asleep in epoll.
        runtime.ensure_worker_after_leaving();
        runtime.report_end(processor);
    }

    fn next(
        &mut self,
        runtime: &'static Runtime,
        processor: &'static Processor,
        is_shared_first: bool,
    ) -> Option<Item> {
        // If every turn is used up, the clock is read after each of them, so the shared queue would
        // come first in every turn. This check lets it come first in every second turn at most.
        if is_shared_first && self.shared_at.wrapping_add(1) != self.tick {
            self.shared_at = self.tick;
            if let Some(item) = self.next_shared(runtime, processor) {
                return Some(item);
            }
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

    /// Returns a task of the shared queue. First moves tasks that are queued behind stuck tasks to
    /// this processor's queue.
    fn next_shared(&self, runtime: &'static Runtime, processor: &'static Processor) -> Option<Item> {
        if runtime.sysmon.stuck() > 0 {
            take_from_stuck(runtime, processor);
        }
        runtime.take_injected(processor, 0)
    }

    fn search(&mut self, runtime: &'static Runtime, processor: &'static Processor) -> Option<Item> {
        if let Some(item) = runtime.take_injected(processor, RING / 2) {
            return Some(item);
        }
        if runtime.awake.count() <= 1 {
            return None;
        }
        steal(runtime, processor)
    }

    /// Runs one turn of a control task, and returns whether the thread still owns the processor.
    /// Returns `None` without running a turn if the lane is empty, or if ordinary tasks must run
    /// first. If few ordinary tasks must run first, queues the control task behind them. `is_due`
    /// says whether this turn would otherwise check the shared queue first. If so, and a control
    /// task runs, a task of the shared queue moves to the processor's queue.
    #[cold]
    #[inline(never)]
    fn control_turn(
        &mut self,
        runtime: &'static Runtime,
        processor: &'static Processor,
        epoch: u32,
        is_due: bool,
    ) -> Option<bool> {
        let queued = processor.queue.len() + runtime.injector.len();
        let (precedes, now, share) = (queued > 0, clock::now(), share());
        if precedes && !self.account.has_credit(now, share) && !self.account.has_turn(self.tick, share) {
            if queued < turns_per_control_turn(share)
                && let Some(item) = runtime.control.queue.pop(0, |_| ())
            {
                processor.control_queued.add_owned(1);
                processor.queue.push(item);
            }
            return None;
        }
        let item = runtime.control.queue.pop(0, |_| ())?;
        if is_due && let Some(shared) = self.next_shared(runtime, processor) {
            processor.queue.push(shared);
        }
        let kept = self.turn(runtime, processor, item, epoch);
        if precedes {
            self.account.charge(now, clock::now().saturating_sub(now), share);
            self.account.take_turn(self.tick);
            if kept {
                processor.control_turns.add_owned(1);
            }
        }
        Some(kept)
    }

    /// Runs one turn of a task. A task of another epoch gets no turn. It is queued if its epoch is
    /// the current one, and otherwise dropped. Returns false if the processor was given away.
    #[allow(unsafe_code)]
    #[inline(always)]
    fn turn(&mut self, runtime: &'static Runtime, processor: &'static Processor, item: Item, epoch: u32) -> bool {
        // SAFETY: the item was just taken out of a queue and is used once, here.
        let runnable = unsafe { from_item(item) };
        if runnable.metadata().epoch_word() != epoch && !is_control_of(&runnable, epoch) {
            // Either the task's epoch is over, or this thread's epoch is over and the task belongs
            // to a later one.
            runtime.inject(runnable);
            return owns_processor();
        }
        let data: *const TaskData = runnable.metadata();
        let record = runnable.metadata().record();
        // The data pointer of the task's wakers, as `async-task` creates them.
        let own = item.as_ptr().cast_const();
        own_waker::begin(own, runnable.metadata().spare());
        self.pacing.begin_turn();
        begin_turn(processor, record);
        // The task catches the panics of its future and of its destructors. Other panics end only
        // the turn.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| context::run_turn(data, Some(own), || runnable.run()))) {
            drop_payload(payload);
            runtime.panics.add(1);
        }
        own_waker::end();
        unsent::flush();
        if !owns_processor() {
            // The time since the last reading includes the wait in the nested `block_on`.
            self.pacing.forget_reading();
            return false;
        }
        end_turn(processor);
        // ORDERING: Relaxed, as in `Context::left`.
        if processor.budget.load(Ordering::Relaxed) <= REFILL {
            self.pacing.read_next(self.tick);
        }
        true
    }

    /// Reads the clock, runs due timers, polls if a poll is due, and wakes a second worker if the
    /// queued tasks are worth it. Returns false if a waker or a destructor gave the processor away.
    #[cold]
    fn maintain(&mut self, runtime: &'static Runtime, processor: &'static Processor) -> bool {
        let (now, turn) = self.pacing.read(processor, self.tick);
        let has_control = runtime.control.alive() > 0;
        if has_control {
            self.pacing.read_soon(self.tick, turn);
        }
        if processor.stuck.load(Ordering::Relaxed) {
            processor.stuck.store(false, Ordering::Relaxed);
        }
        let home = runtime.driver.roles.home(processor.id);
        self.polling.run_timers(runtime, runtime.driver.roles.looked_at(home, now), now);
        if self.polling.wakers.len() > 0 {
            processor.record(Mark::Timers, self.polling.wakers.len() as u64);
            self.polling.wake_all(runtime);
        }
        let has_aside = processor.queue.has_aside();
        if owns_processor() && self.pacing.is_poll_due(now, turn, has_aside, has_control) {
            if has_control {
                self.poll_all(runtime, processor, home, now);
            } else {
                self.poll_now(runtime, processor, home, now);
            }
        }
        let is_owned = owns_processor();
        if is_owned {
            // Appends the task in the aside slot behind the tasks that the timers and the poll have
            // woken.
            processor.queue.settle();
            // This thread runs one of the tasks itself.
            maybe_wake_helper(runtime, processor, (processor.queue.len() + runtime.injected()).saturating_sub(1));
            if turn > LONG_NANOS && !runtime.driver.roles.are_taken() {
                // A thread in `block_on` can poll, so that events do not wait for the end of long
                // turns.
                let others = runtime.processors().filter(|other| other.id != processor.id && other.is_in_long_turn());
                if runtime.awake.count() <= others.count() + 1 {
                    runtime.nudge_root();
                }
            }
        }
        is_owned
    }

    /// Takes available events of the home shard and of stale shards without waiting, and wakes
    /// their tasks. Ordinary tasks are queued behind all others except the task in the aside slot.
    /// Returns whether there may be more events.
    fn poll_now(&mut self, runtime: &'static Runtime, processor: &'static Processor, home: usize, now: u64) -> bool {
        let shards = runtime.driver.roles.take_to_look(home, now);
        let mut is_full = false;
        if !shards.is_empty() {
            is_full = self.polling.poll_now(runtime, shards, processor.epoch.load(Ordering::Relaxed), now);
            self.pacing.polled(now, self.polling.wakers.len() as u32);
            processor.record(Mark::Poll, self.polling.wakers.len() as u64);
            self.polling.wake_all(runtime);
            if owns_processor() {
                self.pacing.probe(processor, now);
            }
        }
        is_full
    }

    /// Polls until a batch is not full, at most [`POLLS_MAX`] times, because the event of a control
    /// task may be behind many others.
    #[cold]
    fn poll_all(&mut self, runtime: &'static Runtime, processor: &'static Processor, home: usize, now: u64) {
        for _ in 0..POLLS_MAX {
            if !self.poll_now(runtime, processor, home, now) || !owns_processor() {
                return;
            }
        }
    }

    /// Called when there is nothing to run. Sleeps in epoll, looks for events, or gives the
    /// processor back. Returns the reason if the loop must be left.
    fn idle(
        &mut self,
        runtime: &'static Runtime,
        processor: &'static Processor,
        sleeper: Option<&Arc<Sleeper>>,
        root: Option<&Root>,
        epoch: u32,
    ) -> Option<Exit> {
        self.pacing.end_stretch(processor);
        let polls = processor.turns.ended();
        self.lonely = if polls == self.slept_at { self.lonely.saturating_add(1) } else { 0 };
        self.slept_at = polls;
        runtime.set_lonely(self.lonely >= LONELY);
        let roles = &runtime.driver.roles;
        let shards = roles.take(roles.home(processor.id), || runtime.awake.count() <= 1, clock::now);
        if shards.is_empty() {
            if self.look(runtime, processor, roles.home(processor.id), sleeper.is_some()) {
                return (!owns_processor()).then_some(Exit::Lost);
            }
            return runtime.give_back(processor, sleeper).then_some(Exit::Resting);
        }
        if let Some(sleeper) = sleeper
            && runtime.grant_role(shards, processor, sleeper)
        {
            return Some(Exit::Resting);
        }
        // ORDERING: SeqCst: the sleep is announced and `awake` decremented before the last check;
        // see `ensure_worker` and the documentation of the role.
        let falls_asleep = || {
            runtime.awake.down(epoch);
            runtime.injected() > 0
                || root.is_some_and(|root| !root.enter_poll(shards.first()))
                || (sleeper.is_some() && runtime.is_role_wished())
        };
        let rises = || {
            runtime.awake.up(epoch);
            if let Some(root) = root {
                root.leave_poll();
            }
        };
        processor.record(Mark::Sleep, 0);
        match self.polling.sleep(runtime, shards, By::Worker, epoch, falls_asleep, rises) {
            Slept::Polled => {
                processor.record(Mark::Rise, self.polling.wakers.len() as u64);
                self.begin_stretch(runtime, processor);
            }
            Slept::TimersRan => {
                processor.record(Mark::Timers, self.polling.wakers.len() as u64);
                self.polling.wake_all(runtime);
            }
            // The next attempt to open an instance may succeed.
            Slept::NoPoller => polling::pause(root),
        }
        (!owns_processor()).then_some(Exit::Lost)
    }

    /// Takes some of the available events of the shard `home` and wakes their tasks, if the thread
    /// with the role of the shard sleeps, the shared queues are empty and a second worker pays off.
    /// Returns whether there were events. If there were none and looks may be repeated, also takes
    /// tasks of the shared queue or of another processor, and returns whether there were any.
    /// [`looks`](super::looks) has the reason for looks, and the rules by which they are repeated.
    fn look(&mut self, runtime: &'static Runtime, processor: &'static Processor, home: usize, is_worker: bool) -> bool {
        let epoch = processor.epoch.load(Ordering::Relaxed);
        let may_find = || runtime.driver.roles.role(home).asleep().is_some() && runtime.injected() == 0;
        let repeats = is_worker && pacing::always_pays_off(processor);
        let look = || if may_find() { self.polling.look(runtime, home, epoch) } else { None };
        if pacing::pays_off(runtime, processor) && self.looks.run(repeats, look) {
            processor.record(Mark::Poll, self.polling.wakers.len() as u64);
            self.begin_stretch(runtime, processor);
            return true;
        }
        // During the looks, another thread may have queued tasks and found no free processor for a
        // second worker.
        let found = if repeats { self.search(runtime, processor) } else { None };
        found.is_some_and(|item| {
            processor.queue.push(item);
            true
        })
    }

    /// Begins a [stretch](super::pacing): wakes the tasks of a batch that a thread without work has
    /// taken. After some batches, begins to measure the turns. Wakes a second worker if turns are
    /// long and the tasks are worth it.
    #[inline]
    fn begin_stretch(&mut self, runtime: &'static Runtime, processor: &'static Processor) {
        let delivered = self.polling.wakers.len() as u32;
        let is_sampled = self.pacing.begin_stretch(processor, self.tick, delivered, runtime.control.alive() > 0);
        self.polling.wake_all(runtime);
        if is_sampled && owns_processor() {
            self.pacing.probe_some(processor);
            if processor.turn_nanos.load(Ordering::Relaxed) > LONG_NANOS {
                maybe_wake_helper(runtime, processor, processor.queue.len().saturating_sub(1));
            }
        }
    }
}

/// Returns whether `runnable` is a control task of `epoch`. The caller has checked that its epoch
/// word differs from `epoch`, so it is not an ordinary task of that epoch.
#[cold]
fn is_control_of(runnable: &Runnable<TaskData>, epoch: u32) -> bool {
    runnable.metadata().epoch() == epoch
}

/// Returns whether this thread still owns its processor. A `block_on` in a task, a waker or a
/// destructor gives it away. The caller must therefore check after any of them has run, before it
/// uses the processor again.
fn owns_processor() -> bool {
    context::processor().is_some()
}

/// Marks the beginning of a turn, refills the budget, and records the poll. The mark shows sysmon
/// which task runs.
#[inline]
fn begin_turn(processor: &'static Processor, record: &'static Record) {
    let ticks = ticks::ticks();
    mark_turn(processor, record, ticks);
    record.begin_poll(ticks);
}

/// Marks the beginning of a turn and refills the budget, as [`begin_turn`] does. The caller records
/// the poll.
#[inline]
pub(crate) fn mark_turn(processor: &'static Processor, record: &'static Record, ticks: u64) {
    processor.budget.store(BUDGET, Ordering::Relaxed);
    // ORDERING: Release publishes the record, which may be of a new block, to `Processor::running`.
    processor.running.store(std::ptr::from_ref(record).cast_mut(), Ordering::Release);
    context::record_calls_at(processor.turns.begin(record.id(), ticks));
}

/// Marks the end of a turn.
#[inline]
pub(crate) fn end_turn(processor: &Processor) {
    processor.running.store(std::ptr::null_mut(), Ordering::Relaxed);
    processor.turns.end();
    context::record_calls_at(CallPlace::NONE);
}

/// The main function of a worker thread, which owns `first` at the beginning.
pub(crate) fn main(runtime: &'static Runtime, epoch: u32, first: &'static Processor) {
    let sleeper = Arc::new(Sleeper::new());
    let mut core = Core::new();
    let mut processor = Some(first);
    while let Some(owned) = processor {
        context::set_processor(Some(owned));
        owned.record(Mark::Begin, 0);
        runtime.notice_activity();
        if core.run(owned, Some(&sleeper), None, epoch) == Exit::Stopped {
            runtime.worker_ends();
            return;
        }
        processor = runtime.rest(&sleeper, epoch);
    }
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;

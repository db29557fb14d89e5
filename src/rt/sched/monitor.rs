//! Sysmon: the thread that watches the other threads.
//!
//! Sysmon makes a check every [`TICK`] while the runtime is active:
//! * If tasks are in the shared queues, sysmon makes sure that a worker is awake.
//! * If no thread has polled since the previous check, and a processor has run only a few turns
//!   while tasks were queued, sysmon wakes or starts another worker.
//! * A task that is in the same poll as at the previous check is *stuck*. Unless the policy is
//!   [`BlockedPolicy::Off`], it is asked to yield at its next operation, counted and reported.
//!   Other threads, even busy ones, may take any task queued behind it. A thread that is still
//!   calling wakers of the same batch, or still in the turn of a task that has ended, also counts
//!   as stuck, but no task is asked to yield, counted or reported.
//! * If a thread is stuck, and tasks are queued behind stuck threads or in the shared queues,
//!   sysmon wakes a resting worker or starts one. If all awake threads are stuck, it instead wakes
//!   a sleeping worker or, if none sleeps, wakes or starts up to four workers. With the policy
//!   [`BlockedPolicy::AddWorkers`], these may get spare processors, and one of them is woken or
//!   started even if no task is queued, unless a thread sleeps. So tasks, timers and the network
//!   make progress.
//! * If gathered writes have waited since the previous check, because a turn is long, sysmon sends
//!   them (`rt/unsent.rs`).
//! * If no thread has polled a shard of the poller since the previous check, and none sleeps in it,
//!   sysmon interrupts a thread that sleeps in other shards; that thread then sleeps in this shard
//!   as well. If there is no such thread, or if the shard was already unpolled at the previous
//!   check, sysmon polls the shard. Unless an awake worker will poll soon, sysmon also wakes a
//!   thread that is parked in `block_on` or, if there is none and no thread is awake, wakes or
//!   starts a worker, to poll from then on.
//! * If a thread has called no waker of its batch since the previous check, sysmon passes the
//!   remaining wakers to other threads (`wake_queue.rs`).
//! * Sysmon takes a sample of the CPU usage (`cpus.rs`), and tries again to start threads that the
//!   system has refused to create (`shortage.rs`).
//!
//! A late check does not look for stuck tasks, because the process may have been stopped (SIGSTOP,
//! a paused virtual machine), so that no task could make progress. The next check does, even if it
//! is late as well. A check soon after the previous one does not look for stuck tasks either.
//!
//! # States
//! *ticking* (makes a check every [`TICK`]) → after five checks without activity, *asleep* without
//! a time limit → woken by the next thread that becomes active (`notice_activity`), *ticking*. Each
//! epoch has its own thread. The thread of an earlier epoch ends, but may still be in user code. If
//! the system refuses to create the thread, or its start is *deferred*, it is *missing*; see
//! `shortage.rs`.
//!
//! User code may block, so it runs on other threads; see [`user_code`](super::user_code). If the
//! system refuses to create these threads, sysmon runs the wakers, reports and tasks itself. If one
//! of them waits in `block_on`, another thread takes over as sysmon, as soon as the system permits
//! it, and the replaced thread ends when the user code returns.
//!
//! # Invariants
//! * 10 — sysmon sleeps when the process is idle. Waking it costs one system call per idle period
//!   of at least 50 ms.
//! * 12 — sysmon runs no user code unless the system refuses to create threads.
//!
//! # Compared with Go (runtime/proc.go, sysmon)
//! A future cannot be preempted, so a stuck thread keeps its processor, and another processor is
//! added. While anything runs, Go's sysmon wakes up every 20 µs to 10 ms; netpoll's sysmon wakes up
//! every 10 ms.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::time::Instant;

use super::check_times::{Check, CheckTimes, TICK};
use super::cpus::Cpus;
use super::event_ring::Mark;
use super::identity::{self, TaskId};
use super::pacing::correct_and_wake;
use super::polling::Polling;
use super::record::Record;
use super::shortage::LASTS;
use super::worker::Core;
use crate::rt::config::{BlockedPolicy, BlockedTask};
use crate::rt::context;
use crate::rt::parker::Parker;
use crate::rt::poll::roles::{SHARDS_MAX, Shards};
use crate::rt::runtime::Runtime;
use crate::rt::time::{clock, ticks};
use crate::rt::unsent;
use crate::rt::waiters::Wakers;
use crate::sync::{Arc, Ordering};

/// The number of checks without activity before sysmon sleeps.
const QUIET_TICKS: u32 = 5;
/// The maximum number of threads that one check adds.
const ADD_MAX: usize = 4;

thread_local! {
    /// The epoch of sysmon, if this thread is sysmon and runs user code.
    static WATCHED_EPOCH: Cell<Option<u32>> = const { Cell::new(None) };
}

/// The state of a processor at the last check that looked for stuck tasks.
#[derive(Debug, Default)]
struct Seen {
    /// The number of turns that had ended.
    polls: u64,
    /// Whether the owner was in a turn.
    in_turn: bool,
    /// The id in the record of the turn, or 0.
    id: u64,
    /// The number of events that the processor has recorded in its event ring.
    events: u64,
    /// The time of the last check that found a change, plus the time for which the process was
    /// stopped since.
    since: Option<Instant>,
    /// Whether the current poll was reported.
    reported: bool,
}

struct Monitor {
    runtime: &'static Runtime,
    parker: Arc<Parker>,
    times: CheckTimes,
    /// The states of the processors, by number.
    seen: HashMap<usize, Seen>,
    /// The number of polls of each shard at the last check.
    waits: [u64; SHARDS_MAX],
    /// The shards that the last check found unpolled and in which no thread slept.
    handed_over: Shards,
    /// The result of [`activity`](Monitor::activity) at the last check.
    activity: u64,
    /// The number of consecutive checks without activity.
    quiet: u32,
    /// The samples of the CPU usage, or `None` if there is only one worker.
    cpus: Option<Cpus>,
    polling: Polling,
    /// The time since which the system has refused to create threads.
    short_since: Option<Instant>,
    /// The state for running tasks on this thread while the system refuses to create others.
    core: Option<Box<Core>>,
    /// Whether another thread has taken over.
    is_replaced: bool,
}

impl Runtime {
    /// Makes sysmon resume its checks. Called by a thread that becomes active.
    #[inline]
    pub(crate) fn notice_activity(&'static self) {
        if !self.sysmon.is_ticking() {
            self.rouse_sysmon();
        }
    }

    #[cold]
    fn rouse_sysmon(&'static self) {
        if !self.sysmon.rouse() {
            // The error cannot be returned here. The next operation that waits tries again.
            let _ = self.ensure_sysmon();
        }
    }

    /// Starts the sysmon thread of `epoch`, unless it exists or the epoch is over. Ends a deferral,
    /// even on error.
    ///
    /// # Errors
    /// Returns the error of creating the thread.
    pub(crate) fn start_sysmon(&'static self, epoch: u32) -> io::Result<()> {
        let mut thread = self.sysmon.thread.lock();
        // The epoch is checked under the lock, because a shutdown advances it before it takes the
        // thread.
        if thread.is_some() || self.epoch() != epoch || self.is_stopping() {
            return Ok(());
        }
        self.sysmon.end_deferral();
        let parker = Arc::new(Parker::new());
        let mut monitor = Monitor {
            runtime: self,
            parker: parker.clone(),
            times: CheckTimes::new(),
            seen: HashMap::new(),
            waits: [0; SHARDS_MAX],
            handed_over: Shards::NONE,
            activity: 0,
            quiet: 0,
            cpus: (self.config().workers > 1).then(Cpus::new),
            polling: Polling::new(),
            short_since: None,
            core: None,
            is_replaced: false,
        };
        self.threads.start(format!("{}-sysmon", self.config().thread_name), move || monitor.run(epoch))?;
        *thread = Some(parker);
        self.sysmon.is_missing.store(false, Ordering::Relaxed);
        self.sysmon.are_cpus_busy.store(false, Ordering::Relaxed);
        self.sysmon.ticking.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Starts another thread that takes over as sysmon, if the calling thread is sysmon and is in a
    /// waker, a report or a task. Called by a thread that waits in `block_on`.
    pub(crate) fn replace_sysmon(&'static self) {
        let Some(epoch) = WATCHED_EPOCH.take() else { return };
        {
            let mut thread = self.sysmon.thread.lock();
            // The epoch is checked under the lock, because a shutdown advances it before it takes
            // the thread.
            if self.epoch() != epoch {
                return;
            }
            *thread = None;
            self.sysmon.ticking.store(false, Ordering::SeqCst);
        }
        if self.start_sysmon(epoch).is_err() {
            // This thread tries again while it waits, and so does every use of the runtime.
            self.sysmon.set_missing();
            self.refused();
        }
    }
}

impl Monitor {
    fn run(&mut self, epoch: u32) {
        let runtime = self.runtime;
        let sysmon = &runtime.sysmon;
        while runtime.epoch() == epoch && !self.is_replaced {
            if self.quiet < QUIET_TICKS {
                self.parker.park_until(Some(Instant::now() + TICK));
            } else if sysmon.set_ticking(&self.parker, false) {
                // ORDERING: SeqCst; see `Sysmon::is_ticking`.
                let is_quiet = runtime.awake.count() == 0
                    && self.activity() == self.activity
                    && !runtime.has_root_turns()
                    && !runtime.is_short_of_threads()
                    && sysmon.watched.load(Ordering::SeqCst) == 0;
                if is_quiet && runtime.epoch() == epoch {
                    self.forget_cpus();
                    self.parker.park();
                    self.times.forget();
                }
                sysmon.set_ticking(&self.parker, true);
                self.quiet = 0;
            }
            if runtime.epoch() == epoch {
                sysmon.check_begins();
                self.check(epoch);
            }
        }
        // Closes /proc/loadavg before the thread is unregistered.
        self.cpus = None;
        if runtime.epoch() == epoch {
            runtime.threads.leave();
        }
    }

    /// Discards the samples of the CPU usage.
    fn forget_cpus(&mut self) {
        if let Some(cpus) = &mut self.cpus {
            cpus.reset();
            self.runtime.sysmon.are_cpus_busy.store(false, Ordering::Relaxed);
        }
    }

    /// Calls `f`, which runs wakers, reports or tasks on this thread.
    fn run_user_code<T>(&mut self, epoch: u32, f: impl FnOnce(&mut Monitor) -> T) {
        WATCHED_EPOCH.set(Some(epoch));
        context::set_sysmon(true);
        f(self);
        context::set_sysmon(false);
        self.is_replaced |= WATCHED_EPOCH.take().is_none();
    }

    /// Returns a number that changes whenever a turn ends or a thread polls.
    fn activity(&self) -> u64 {
        let polls: u64 = self.runtime.processors().map(|processor| processor.turns.ended()).sum();
        let driver = &self.runtime.driver;
        let waits = |shard: usize| driver.counts(shard).waits.get();
        polls + driver.roles.open().into_iter().map(waits).sum::<u64>()
    }

    /// Makes one check; see the [module documentation](self).
    fn check(&mut self, epoch: u32) {
        let runtime = self.runtime;
        unsent::flush_old();
        let activity = self.activity();
        let busy = runtime.awake.count() > 0
            || activity != self.activity
            || runtime.has_root_turns()
            || runtime.injected() > 0;
        if runtime.injected() > 0 {
            runtime.ensure_worker();
        }
        let wakes = self.check_wakers(epoch);
        if self.is_replaced {
            return;
        }
        if busy
            && runtime.epoch() == epoch
            && let Some(cpus) = &mut self.cpus
        {
            // ORDERING: Relaxed: a hint.
            let are_busy = cpus.sample(runtime.awake.count(), runtime.config().workers);
            runtime.sysmon.are_cpus_busy.store(are_busy, Ordering::Relaxed);
        }
        self.quiet = if busy || wakes { 0 } else { self.quiet + 1 };
        self.activity = activity;
        let policy = runtime.config().blocked_tasks;
        let open = runtime.driver.roles.open();
        let unpolled = self.unpolled(open);
        let no_thread_polled = unpolled == open;
        let (stuck, backlog) = self.find_stuck(policy, no_thread_polled);
        if self.is_replaced {
            return;
        }
        if runtime.is_short_of_threads() {
            self.make_up(epoch);
        } else {
            self.short_since = None;
        }
        if self.is_replaced {
            return;
        }
        let is_asleep = runtime.driver.roles.asleep(0, None).is_some();
        if busy || self.short_since.is_some() {
            self.poll_unpolled(unpolled, is_asleep, epoch);
        }
        if stuck == 0 {
            return;
        }
        let adds = policy == BlockedPolicy::AddWorkers;
        let work = backlog + runtime.injected();
        if runtime.awake.count() > stuck {
            // Another thread is awake and takes the queued tasks in addition to its own.
            if work > 0 {
                runtime.wake_one(|| false);
            }
        } else if (work > 0 && !runtime.wake_worker() && runtime.awake.count() <= stuck) || (adds && !is_asleep) {
            // A worker that slept at the first check of `awake` has not risen since. A resting
            // worker takes the queued tasks, whatever the policy is.
            for _ in 0..work.clamp(1, ADD_MAX) {
                runtime.wake_one(|| adds);
            }
        }
    }

    /// Tries again to start the threads that the system has refused to create, and does their work
    /// if the refusal lasts.
    fn make_up(&mut self, epoch: u32) {
        let runtime = self.runtime;
        self.quiet = 0;
        let since = *self.short_since.get_or_insert_with(Instant::now);
        let lasts = since.elapsed() >= LASTS;
        // A further refusal sets the flag again.
        runtime.set_short_of_threads(false);
        runtime.ensure_worker_after_leaving();
        runtime.ensure_pool_thread(&runtime.pool, lasts);
        runtime.ensure_pool_thread(&runtime.lookups, lasts);
        runtime.ensure_pool_thread(&runtime.closes, lasts);
        if !runtime.ensure_reporter(epoch, lasts) {
            self.run_user_code(epoch, |_| runtime.make_reports(epoch));
        }
        if lasts && !self.is_replaced && runtime.is_short_of_threads() && runtime.awake.count() == 0 {
            // A task may block this thread, so a thread in `block_on` polls in the meantime.
            runtime.sysmon.stuck.store(1, Ordering::Relaxed);
            runtime.nudge_root();
            self.run_user_code(epoch, |own| runtime.run_queued(own.core.get_or_insert_with(|| Box::new(Core::new()))));
        }
    }

    /// Marks the processors that have been in the same poll, or in the wakers of the same batch,
    /// since the last check. Returns their number, and the number of tasks queued behind them.
    /// Returns zeros if this check is late or came soon after the previous one.
    fn find_stuck(&mut self, policy: BlockedPolicy, no_thread_polled: bool) -> (usize, usize) {
        let (mut stuck, mut backlog, mut reports) = (0, 0, Vec::new());
        let (now, epoch) = (Instant::now(), self.runtime.epoch());
        let (gap, is_without_polls) = match self.times.check(now, no_thread_polled) {
            Check::Early => return (0, 0),
            Check::Late(stopped_for) => {
                // This time is not charged to tasks.
                self.seen.values_mut().for_each(|seen| seen.since = seen.since.map(|since| since + stopped_for));
                return (0, 0);
            }
            Check::Regular { gap, is_without_polls } => (gap, is_without_polls),
        };
        for processor in self.runtime.processors() {
            let seen = self.seen.entry(processor.id).or_default();
            let (polls, running) = (processor.turns.ended(), processor.running_id());
            let (events, is_waking) = processor.events.is_waking();
            // If the task has ended and has freed its record, the id is 0. If it frees the record
            // during this access, the id may be that of the next task of the record.
            let in_turn = processor.running().is_some();
            let turns = polls.saturating_sub(seen.polls);
            if let Some(record) = processor.running() {
                record.add_cpu(gap.as_nanos() as u64);
            }
            if is_without_polls && in_turn {
                correct_and_wake(self.runtime, processor, turns, gap);
            }
            let moved = !processor.owned.load(Ordering::Relaxed)
                || processor.epoch.load(Ordering::Relaxed) != epoch
                || in_turn != seen.in_turn
                || polls != seen.polls
                || (!in_turn && (!is_waking || events != seen.events));
            let is_same = std::mem::replace(&mut seen.id, running) == running;
            (seen.polls, seen.in_turn, seen.events) = (polls, in_turn, events);
            if moved {
                (seen.since, seen.reported) = (Some(now), false);
                processor.stuck.store(false, Ordering::Relaxed);
                continue;
            }
            stuck += 1;
            backlog += processor.queue.len();
            processor.stuck.store(true, Ordering::Relaxed);
            if running == 0 || !is_same {
                // The thread is in a waker, or the task has ended, so there is no task to report.
                continue;
            }
            let blocked_for = seen.since.map_or(TICK, |since| now - since);
            let record = processor.running().filter(|record| record.id() == running);
            if let Some(record) = record {
                record.poll_lasts(blocked_for);
            }
            if policy == BlockedPolicy::Off {
                continue;
            }
            context::ask_to_yield(processor);
            if !std::mem::replace(&mut seen.reported, true) {
                self.runtime.sysmon.events.get_or_default().record(Mark::Stuck, ticks::ticks(), running);
                let place = record.and_then(Record::place);
                // If the task has ended, the record and the place may be those of another task.
                let spawned_at = place.filter(|_| processor.running_id() == running);
                let (id, name) = (TaskId::from_number(running), None);
                reports.push(BlockedTask { id, name, spawned_at, blocked_for });
            }
        }
        self.runtime.sysmon.stuck.store(stuck, Ordering::Relaxed);
        self.report(reports, epoch);
        (stuck, backlog)
    }

    fn report(&mut self, mut reports: Vec<BlockedTask>, epoch: u32) {
        self.runtime.sysmon.blocked.fetch_add(reports.len() as u64, Ordering::Relaxed);
        if !reports.is_empty() {
            (self.runtime.config().on_stall)();
        }
        reports.iter_mut().for_each(|task| task.name = identity::name_of(task.id));
        let runtime = self.runtime;
        if !runtime.report_blocked(epoch, reports) {
            self.run_user_code(epoch, |_| runtime.make_reports(epoch));
        }
    }

    /// Calls `wakers` on another thread, or on this thread if the system refuses to create another.
    fn wake_elsewhere(&mut self, epoch: u32, wakers: &mut Wakers) {
        let runtime = self.runtime;
        if wakers.len() > 0 && runtime.sysmon.wakes.push(epoch, wakers) && runtime.start_waking(epoch).is_err() {
            self.run_user_code(epoch, |_| runtime.run_wake_queue(epoch));
        }
    }

    /// Takes the wakers of batches that make no progress, and calls them on another thread. Returns
    /// whether batches or the wake queue have further wakers.
    fn check_wakers(&mut self, epoch: u32) -> bool {
        let (runtime, mut wakers) = (self.runtime, Wakers::new());
        let are_left = runtime.sysmon.take_stuck_wakers(&mut wakers);
        self.wake_elsewhere(epoch, &mut wakers);
        let (is_filled, starts) = runtime.sysmon.wakes.check(epoch);
        if starts && runtime.start_waking(epoch).is_err() {
            runtime.refused();
            if self.short_since.is_some_and(|since| since.elapsed() >= LASTS) {
                self.run_user_code(epoch, |_| runtime.run_wake_queue(epoch));
            } else {
                // The next check tries again.
                runtime.sysmon.wakes.forget_thread(epoch);
            }
        }
        are_left || is_filled
    }

    /// Returns those of `shards` that were not polled since the last check.
    fn unpolled(&mut self, shards: Shards) -> Shards {
        let is_unpolled = |&shard: &usize| {
            let waits = self.runtime.driver.counts(shard).waits.get();
            waits == std::mem::replace(&mut self.waits[shard], waits)
        };
        shards.into_iter().filter(is_unpolled).collect()
    }

    /// Makes sure that the shards `unpolled`, which were not polled since the last check, are
    /// polled. Skips those in which a thread sleeps. For the rest, interrupts a thread that sleeps
    /// in another shard, whose next sleep is then in these shards too. Polls these shards itself if
    /// no thread sleeps, or if one of them was already unpolled at the previous check.
    fn poll_unpolled(&mut self, unpolled: Shards, is_asleep: bool, epoch: u32) {
        let roles = &self.runtime.driver.roles;
        let free: Shards = unpolled.into_iter().filter(|&shard| roles.role(shard).asleep().is_none()).collect();
        let again = free.without(std::mem::replace(&mut self.handed_over, free)) != free;
        if !free.is_empty() && (!is_asleep || again || !self.runtime.driver.wake_sleeper()) {
            self.poll(free, epoch);
        }
    }

    /// Takes the events and due timers of those of `shards` whose roles are free, on behalf of busy
    /// threads.
    fn poll(&mut self, shards: Shards, epoch: u32) {
        let runtime = self.runtime;
        let now = clock::now();
        // The shards are not recorded as polled, so that the next thread that goes to sleep takes
        // them.
        let shards = runtime.driver.roles.take_each(shards.into_iter());
        if shards.is_empty() {
            return;
        }
        self.polling.poll_now(runtime, shards, epoch, now);
        // During this poll, a worker may have gone to rest because the role was taken (model
        // `sysmon_gives_the_role_back`). A thread in `block_on` must poll while all workers are
        // stuck.
        runtime.ensure_poller();
        if runtime.needs_poller() {
            runtime.nudge_root();
        }
        self.polling.run_timers(runtime, shards, now);
        let mut wakers = std::mem::take(&mut self.polling.wakers);
        self.wake_elsewhere(epoch, &mut wakers);
        self.polling.wakers = wakers;
        // The next check does not count these polls.
        let _own = self.unpolled(shards);
        self.activity += shards.len() as u64;
    }
}

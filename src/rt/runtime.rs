//! [`Runtime`]: the global state of the runtime, and its life cycle.
//!
//! # States
//! ```text
//!               use, Builder::start                 rt::shutdown
//!  STOPPED ───────────────────────────→ RUNNING ─────────────────→ STOPPING ──→ STOPPED
//! ```
//! One word holds the state and the *epoch*, which advances with every shutdown, and in a child of
//! fork(2). A task or a registration of another epoch belongs to a runtime that no longer exists.
//! Processors and the poll cache stay in memory, so that a late wake-up can always check its epoch.
//! Queued tasks, the timers of sleeps and the instances of the back end do not outlive their epoch.
//! Neither do threads, unless user code keeps them longer than the shutdown waits.
//!
//! # Invariants
//! * 10 — nothing runs periodically while the process is idle: without traffic, the threads that
//!   poll sleep until the next timer is due, or without a time limit if there is no timer, and
//!   sysmon sleeps until a thread becomes active.
//! * R1 — `awake` counts the threads that own a processor, or to which one is assigned, and that do
//!   not sleep in the poller. If it is 0, either threads sleep in all open shards of the poller, or
//!   the next work wakes a resting worker, starts one or, while the start of threads is deferred
//!   (`sched/shortage.rs`), wakes the threads in `block_on`.

use std::collections::VecDeque;
use std::sync::OnceLock;

use async_task::Runnable;

use super::config::{BlockedPolicy, Config, PROCESSORS_MAX};
use super::context;
use super::counter::Counter;
use super::sched::awake::Awake;
use super::sched::idle::Idle;
use super::sched::lanes::ControlLane;
use super::sched::pool::Pool;
use super::sched::processor::Processor;
use super::sched::shared_queue::SharedQueue;
use super::sched::sysmon::Sysmon;
use super::sched::task_data::TaskData;
use super::still_running::StillRunning;
use super::threads::Threads;
use super::waiters::Wakers;
use crate::rt::poll::closings::Closings;
use crate::rt::poll::driver::Driver;
use crate::rt::poll::poll_desc::{PollCache, PollDesc};
use crate::rt::poll::roles::Shards;
use crate::rt::time::timer::{Target, TimerSet};
use crate::rt::time::{clock, ticks};
use crate::sync::{Arc, AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Condvar, Mutex, Ordering, fence};

const STOPPED: u64 = 0;
const RUNNING: u64 = 1;
const STOPPING: u64 = 2;
const STATE_MASK: u64 = 3;
const EPOCH_SHIFT: u32 = 32;

/// The global state of the runtime; see the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Runtime {
    /// The epoch and the state.
    word: AtomicU64,
    /// Locked while the state changes and while a start creates threads. Contains the result of the
    /// last shutdown.
    pub(crate) lifecycle: Mutex<Result<(), StillRunning>>,
    /// Notified when a shutdown has ended.
    pub(crate) stopped: Condvar,
    pub(super) config: Mutex<Option<Arc<Config>>>,
    pub(crate) cache: PollCache,
    processors: [OnceLock<Box<Processor>>; PROCESSORS_MAX],
    /// One more than the highest number of the processors that have ever been used.
    processors_len: AtomicUsize,
    pub(crate) injector: SharedQueue,
    pub(crate) control: ControlLane,
    pub(crate) idle: Mutex<Idle>,
    pub(crate) awake: Awake,
    pub(crate) driver: Driver,
    /// The timers of threads without a processor.
    pub(crate) shared_timers: TimerSet,
    pub(crate) sysmon: Sysmon,
    /// The threads for blocking calls other than name look-ups and closes.
    pub(crate) pool: Pool,
    pub(crate) lookups: Pool,
    pub(crate) closes: Pool,
    pub(crate) threads: Threads,
    /// Tasks whose drop was deferred, because drops were nested too deeply on the stack, or because
    /// the caller must run no destructors.
    pub(crate) deferred: Mutex<VecDeque<Runnable<TaskData>>>,
    pub(crate) spawned: Counter,
    pub(crate) ended: Counter,
    pub(crate) timers_fired: Counter,
    pub(crate) descriptors: AtomicUsize,
    /// The number of panics of user code that were caught outside the polls of futures.
    pub(crate) panics: Counter,
    /// The number of calls of `block_on` that have waited inside a task, a blocking call or another
    /// `block_on`, and have not returned.
    pub(crate) nested: AtomicU32,
    /// The number of threads in the turn of a root future or between two such turns, except those
    /// that sleep in the poller, are parked in `park_root`, or run tasks.
    roots: AtomicUsize,
    /// The number of threads that run tasks and are not workers.
    pub(crate) visitors: AtomicUsize,
    /// Whether a thread in `block_on` asks for the role of polling; see `Wish`.
    pub(crate) role_wished: AtomicBool,
    /// Whether the last sleeps of the workers led to no turns.
    lonely: AtomicBool,
    /// Whether the system has refused to create a thread, and sysmon has not tried again since.
    pub(super) short_of_threads: AtomicBool,
    pub(crate) closings: Closings,
}

static RUNTIME: Runtime = Runtime {
    word: AtomicU64::new(STOPPED),
    lifecycle: Mutex::new(Ok(())),
    stopped: Condvar::new(),
    config: Mutex::new(None),
    cache: PollCache::new(),
    processors: [const { OnceLock::new() }; PROCESSORS_MAX],
    processors_len: AtomicUsize::new(0),
    injector: SharedQueue::new(),
    control: ControlLane::new(),
    idle: Mutex::new(Idle::new()),
    awake: Awake::new(),
    driver: Driver::new(),
    shared_timers: TimerSet::new(),
    sysmon: Sysmon::new(),
    pool: Pool::new(),
    lookups: Pool::new(),
    closes: Pool::new(),
    threads: Threads::new(),
    deferred: Mutex::new(VecDeque::new()),
    spawned: Counter::new(),
    ended: Counter::new(),
    timers_fired: Counter::new(),
    descriptors: AtomicUsize::new(0),
    panics: Counter::new(),
    nested: AtomicU32::new(0),
    roots: AtomicUsize::new(0),
    visitors: AtomicUsize::new(0),
    role_wished: AtomicBool::new(false),
    lonely: AtomicBool::new(false),
    short_of_threads: AtomicBool::new(false),
    closings: Closings::new(),
};

/// Returns the runtime of the process, which may not be running.
#[inline]
pub(crate) fn runtime() -> &'static Runtime {
    &RUNTIME
}

impl Runtime {
    /// Returns the current epoch. Tasks and registrations of other epochs are no longer valid.
    #[inline]
    pub(crate) fn epoch(&self) -> u32 {
        (self.word.load(Ordering::Acquire) >> EPOCH_SHIFT) as u32
    }

    /// Returns the current epoch like [`epoch`](Runtime::epoch), by an access that is ordered with
    /// other SeqCst accesses.
    #[inline]
    pub(crate) fn epoch_in_order(&self) -> u32 {
        (self.word.load(Ordering::SeqCst) >> EPOCH_SHIFT) as u32
    }

    /// Advances the epoch, so that all earlier state becomes invalid. Called in a forked child; see
    /// `fork`.
    pub(crate) fn disown(&self) {
        self.word.fetch_add(1 << EPOCH_SHIFT, Ordering::Relaxed);
    }

    pub(crate) fn is_running(&self) -> bool {
        self.word.load(Ordering::Acquire) & STATE_MASK == RUNNING
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.word.load(Ordering::Acquire) & STATE_MASK == STOPPED
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.word.load(Ordering::Acquire) & STATE_MASK == STOPPING
    }

    /// Starts the runtime if necessary, and returns its epoch. Tasks and registrations made while a
    /// shutdown is in progress belong to the ending epoch and end with it.
    #[inline]
    pub(crate) fn ensure_running(&'static self) -> u32 {
        let word = self.word.load(Ordering::Acquire);
        if word & STATE_MASK == RUNNING {
            return (word >> EPOCH_SHIFT) as u32;
        }
        self.start_by_use()
    }

    /// Changes the state from STOPPED to RUNNING. The caller must hold `lifecycle`.
    pub(super) fn begin_run(&self, epoch: u32) {
        // ORDERING: Release, so that a thread that sees RUNNING also sees the configuration and the
        // idle lists.
        self.word.store(u64::from(epoch) << EPOCH_SHIFT | RUNNING, Ordering::Release);
    }

    /// Changes the state from RUNNING to STOPPING and advances the epoch. The caller must hold
    /// `lifecycle`.
    pub(crate) fn begin_stop(&self) {
        self.word.store(u64::from(self.epoch().wrapping_add(1)) << EPOCH_SHIFT | STOPPING, Ordering::SeqCst);
    }

    /// Changes the state from STOPPING to STOPPED. The caller must hold `lifecycle`.
    pub(crate) fn end_stop(&self) {
        self.word.store(u64::from(self.epoch()) << EPOCH_SHIFT | STOPPED, Ordering::SeqCst);
    }

    /// Returns the configuration of the current or last runtime, or that of the environment if
    /// there was none.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.lock().get_or_insert_with(|| Arc::new(Config::from_environment())).clone()
    }

    /// Returns the processor `id`. The first call creates it, and it is never dropped.
    pub(crate) fn processor_at(&'static self, id: usize) -> &'static Processor {
        let processor = self.processors[id].get_or_init(|| Box::new(Processor::new(id)));
        self.processors_len.fetch_max(id + 1, Ordering::SeqCst);
        processor
    }

    /// Returns whether a thread, possibly of an earlier epoch, owns the processor `id`.
    pub(super) fn is_owned(&self, id: usize) -> bool {
        self.processors[id].get().is_some_and(|processor| processor.owned.load(Ordering::Acquire))
    }

    /// Returns all processors that have ever been used.
    pub(crate) fn processors(&'static self) -> impl Iterator<Item = &'static Processor> {
        let len = self.processors_len.load(Ordering::SeqCst);
        self.processors[..len].iter().filter_map(|slot| slot.get().map(|processor| &**processor))
    }

    // ---- waking ----

    /// Makes sure that a worker that is not stuck is awake. Called when there is work. If no
    /// ordinary processor is free, uses a spare one if no thread is awake or the policy is
    /// [`BlockedPolicy::AddWorkers`]. While the start of threads is deferred, makes the threads in
    /// `block_on` check for tasks instead.
    pub(crate) fn ensure_worker(&'static self) {
        // ORDERING: SeqCst: the caller publishes the work before this thread reads `awake`. A
        // thread that goes to sleep decrements `awake` before it looks for work (R1).
        fence(Ordering::SeqCst);
        // Stuck threads do not look for work.
        let needs_worker = || self.awake.count() <= self.sysmon.stuck();
        // A worker that slept at the first check may have risen since. It increments `awake` before
        // it rises.
        if needs_worker() && !self.wake_worker() && needs_worker() {
            let adds = self.config().blocked_tasks == BlockedPolicy::AddWorkers;
            self.wake_one(|| adds || self.awake.count() == 0);
        }
    }

    /// Makes sure that other threads poll all open shards. Called by a thread that will not poll
    /// itself, for example after it has registered a descriptor or armed a timer.
    pub(crate) fn ensure_poller(&'static self) {
        // ORDERING: SeqCst: the caller's change precedes the reads of `awake` and of the roles; see
        // the table in `poll/roles.rs`.
        fence(Ordering::SeqCst);
        // If a thread sleeps in some of the shards, it is interrupted, and its next sleep is in all
        // of them. It may also have risen since the first check, so there is a second check.
        if self.leaves_a_shard() && !self.driver.wake_sleeper() && !self.nudge_root() && self.leaves_a_shard() {
            self.wake_one(|| self.awake.count() == 0);
        }
    }

    /// Returns whether no thread is awake and the role of some open shard is free (R1).
    #[inline]
    pub(crate) fn leaves_a_shard(&self) -> bool {
        self.awake.count() == 0 && !self.driver.roles.are_taken()
    }

    /// Interrupts a worker that sleeps in the poller, preferably in this thread's home shard.
    /// Returns whether a worker was sleeping.
    pub(crate) fn wake_worker(&'static self) -> bool {
        self.driver.wake_worker(self.home_shard())
    }

    // ---- shards of the poller ----

    /// Returns the *own* shard of this thread's processor ([`roles`](crate::rt::poll::roles)), or
    /// shard 0 if the thread has none. Descriptors are registered there, unless [`Driver::add`]
    /// chooses another shard.
    pub(crate) fn own_shard(&'static self) -> usize {
        context::processor_in(self.epoch()).map_or(0, |processor| self.driver.roles.own(processor.id))
    }

    /// Returns the shards to which a timer that this thread has just armed may belong.
    fn timer_shards(&'static self) -> Shards {
        let is_epoch_over = context::processor().is_some_and(|it| it.epoch.load(Ordering::Relaxed) != self.epoch());
        // The epoch of the processor may have ended since this thread chose the timer set.
        if is_epoch_over { self.driver.roles.open() } else { Shards::one(self.home_shard()) }
    }

    /// Returns the *home* of this thread's processor, or shard 0 if the thread has none.
    fn home_shard(&'static self) -> usize {
        context::processor_in(self.epoch()).map_or(0, |processor| self.driver.roles.home(processor.id))
    }

    // ---- threads in `block_on` ----

    /// Counts this thread as in the turn of a root future.
    pub(crate) fn root_begins(&'static self) {
        // ORDERING: SeqCst: this thread increments the count before it checks whether sysmon
        // sleeps. Sysmon announces its sleep before it checks the count.
        self.roots.fetch_add(1, Ordering::SeqCst);
        self.notice_activity();
    }

    pub(crate) fn root_ends(&self) {
        self.roots.fetch_sub(1, Ordering::SeqCst);
    }

    /// Returns whether `roots` counts any thread.
    pub(crate) fn has_root_turns(&self) -> bool {
        self.roots.load(Ordering::SeqCst) > 0
    }

    /// Returns whether no worker will poll soon, because none is awake, all awake workers are
    /// stuck, or all of them are in long turns.
    pub(crate) fn needs_poller(&'static self) -> bool {
        let awake = self.awake.count();
        awake <= self.sysmon.stuck()
            || awake <= self.processors().filter(|processor| processor.is_in_long_turn()).count()
    }

    pub(crate) fn is_role_wished(&self) -> bool {
        self.role_wished.load(Ordering::SeqCst)
    }

    /// Returns whether the last sleeps of the workers led to no turns, so that the workers poll
    /// only for threads in `block_on`. The result is a hint.
    pub(crate) fn is_lonely(&self) -> bool {
        self.lonely.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn set_lonely(&self, is_lonely: bool) {
        if self.lonely.load(Ordering::Relaxed) != is_lonely {
            self.lonely.store(is_lonely, Ordering::Relaxed);
        }
    }

    /// Returns whether this thread will soon poll or make sure that another thread does, because it
    /// owns a processor or is in the turn of a root future. If the turn is long, sysmon, unless it
    /// is missing, makes sure that another thread polls.
    pub(crate) fn polls_here(&self) -> bool {
        context::is_root() || context::processor_in(self.epoch()).is_some()
    }

    // ---- tasks ----

    /// Counts a new task.
    pub(crate) fn task_begins(&self) {
        match counting_processor() {
            Some(processor) => processor.spawned.add_owned(1),
            None => self.spawned.add(1),
        }
    }

    /// Returns the [rough](ticks::rough) time at which this thread spawns a task. In a turn, if
    /// sysmon makes checks, this is the beginning of the turn or, if that is later, the time of the
    /// last check. It is up to about 10 ms too early (the time between two checks), but costs no
    /// reading of the counter.
    #[inline]
    pub(crate) fn time_of_spawn(&self) -> u32 {
        let began = counting_processor().and_then(Processor::turn_began);
        match began.zip(self.sysmon.checked()) {
            Some((began, checked)) => ticks::rough(began.max(checked)),
            None => ticks::rough_now(),
        }
    }

    /// Counts a task whose future was dropped.
    pub(crate) fn task_ended(&self) {
        // ORDERING: Release pairs with the fence in `tasks_alive`.
        fence(Ordering::Release);
        match counting_processor() {
            Some(processor) => processor.ended.add_owned(1),
            None => self.ended.add(1),
        }
    }

    /// Returns the number of tasks that have begun and not ended.
    pub(crate) fn tasks_alive(&'static self) -> u64 {
        // `ended` is read first, so that a task that ends between the two reads counts as alive.
        let ended: u64 = self.ended.get() + self.processors().map(|processor| processor.ended.get()).sum::<u64>();
        // ORDERING: Acquire pairs with the fence in `task_ended`: their spawns are seen.
        fence(Ordering::Acquire);
        let spawned: u64 = self.spawned.get() + self.processors().map(|processor| processor.spawned.get()).sum::<u64>();
        spawned.saturating_sub(ended)
    }

    // ---- timers ----

    /// Returns this thread's timer set.
    pub(crate) fn timers(&'static self) -> &'static TimerSet {
        context::processor_in(self.epoch()).map_or(&self.shared_timers, |processor| &processor.timers)
    }

    /// Returns the total number of timers that were armed.
    pub(crate) fn timers_armed(&'static self) -> u64 {
        self.all_timer_sets().map(TimerSet::armed).sum()
    }

    fn all_timer_sets(&'static self) -> impl Iterator<Item = &'static TimerSet> {
        self.processors().map(|processor| &processor.timers).chain(std::iter::once(&self.shared_timers))
    }

    /// Returns the timer sets of `shards`.
    fn timer_sets(&'static self, shards: Shards) -> impl Iterator<Item = &'static TimerSet> {
        let len = self.processors_len.load(Ordering::SeqCst);
        let processors = self.driver.roles.processors_of(shards, len).flat_map(|ids| &self.processors[ids]);
        let sets = processors.filter_map(|slot| slot.get().map(|processor| &processor.timers));
        sets.chain(shards.contains(0).then_some(&self.shared_timers))
    }

    /// Takes the wakers of all sleeps. Called by a shutdown.
    pub(crate) fn clear_sleeps(&'static self, wakers: &mut Wakers) {
        self.all_timer_sets().for_each(|set| set.clear_sleeps(wakers, |target, when| self.entry_counts(target, when)));
    }

    /// Returns the time of the first timer entry of `shards`, or [`clock::NEVER`] if there is none.
    #[inline]
    pub(crate) fn next_timer(&'static self, shards: Shards) -> u64 {
        if !self.driver.roles.is_single() {
            return self.next_timer_of(shards);
        }
        self.all_timer_sets().map(TimerSet::next).min().unwrap_or(clock::NEVER)
    }

    #[cold]
    fn next_timer_of(&'static self, shards: Shards) -> u64 {
        self.timer_sets(shards).map(TimerSet::next).min().unwrap_or(clock::NEVER)
    }

    /// Returns whether a timer entry must be kept when dead entries are swept.
    pub(crate) fn entry_counts(&self, target: Target, when: u64) -> bool {
        match target {
            Target::Poll { index } => self.cache.get(index).is_some_and(|desc| desc.has_valid_entry(when)),
            Target::Sleep { .. } => true,
        }
    }

    /// Adds the timer entry of a poll descriptor.
    pub(crate) fn arm_poll(&'static self, desc: &PollDesc, at: u64) {
        let target = Target::Poll { index: desc.index };
        if self.timers().add(at, target, |target, when| self.entry_counts(target, when)) {
            self.timer_moved(at);
        }
    }

    /// Interrupts a thread that would sleep beyond `at` in the timer's shard. If no thread sleeps
    /// in this shard and the calling thread will not poll, makes sure that another one polls.
    /// Called when a timer for `at` has become the first of its set. Does not start the runtime,
    /// because a shutdown also runs timers; timers that the shutdown arms again wait for the next
    /// start.
    pub(crate) fn timer_moved(&'static self, at: u64) {
        // A simulation checks its timers whenever it moves its clock.
        #[cfg(feature = "sim")]
        if crate::sim::is_here() {
            return;
        }
        let wake = |is_asleep, shard| self.driver.wake_if_later(shard, at) | is_asleep;
        if self.timer_shards().into_iter().fold(false, wake) || self.polls_here() {
            return;
        }
        // ORDERING: SeqCst: the caller arms the timer before this thread reads the state. `start`
        // stores the state before it reads the timers (model `timer_armed_against_start`).
        fence(Ordering::SeqCst);
        if self.is_running() {
            self.ensure_poller();
        }
    }

    /// Fires all timers of `shards` that are due at `now`, and adds their wakers to `wakers`.
    /// `due` is a buffer, which is empty before and after the call.
    pub(crate) fn run_timers(
        &'static self,
        shards: Shards,
        now: u64,
        due: &mut Vec<(u64, Target)>,
        wakers: &mut Wakers,
    ) {
        for set in self.timer_sets(shards) {
            if set.next() > now {
                continue;
            }
            let count = set.run(now, due, wakers);
            self.timers_fired.add(count as u64);
            for (when, target) in due.drain(..) {
                let Target::Poll { index } = target else { continue };
                let Some(desc) = self.cache.get(index) else { continue };
                if let Some(at) = desc.fire(when, now, wakers) {
                    self.arm_poll(desc, at);
                }
            }
        }
    }

    // ---- shutdown ----

    /// Takes the task whose drop was deferred first. The other tasks stay in the shared list, so
    /// that other threads can drop them if the destructor of this one blocks.
    pub(crate) fn pop_deferred(&self) -> Option<Runnable<TaskData>> {
        self.deferred.lock().pop_front()
    }

    /// Takes the tasks whose drop was deferred.
    pub(crate) fn take_deferred(&self) -> Vec<Runnable<TaskData>> {
        self.deferred.lock().drain(..).collect()
    }
}

/// Returns this thread's processor, unless it belongs to a simulation, whose processor is not in
/// the list.
#[inline]
fn counting_processor() -> Option<&'static Processor> {
    #[cfg(feature = "sim")]
    if crate::sim::is_here() {
        return None;
    }
    context::processor()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::sched::lanes::Lane;
    use crate::rt::sched::record::Kind;
    use std::future::Future;
    use std::panic::Location;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    /// A thread may be delayed between its check of the epoch and its access to the queue, while
    /// the runtime shuts down and starts again. The task must not stay in a queue that has already
    /// been emptied, and a blocking call must not run in another epoch.
    #[test]
    fn tasks_queued_after_their_epoch_ended_are_dropped() {
        let runtime = runtime();
        let over = runtime.ensure_running().wrapping_sub(1);
        let queues: [&dyn Fn(Runnable<TaskData>); 3] = [
            &|runnable| runtime.inject(runnable),
            &|runnable| runtime.inject_quietly(std::iter::once(runnable.into_raw())),
            &|runnable| runtime.pool_push(&runtime.pool, runnable),
        ];
        for queue in queues {
            let (runnable, task) = async_task::Builder::new()
                .metadata(TaskData::new(Kind::Task, None, Lane::Normal, over, Location::caller(), 0))
                .spawn(|_| async { panic!("the task ran") }, |_| panic!("the task was woken"));
            queue(runnable);
            let polled: Poll<Option<()>> = pin!(task.fallible()).poll(&mut Context::from_waker(Waker::noop()));
            assert_eq!(polled, Poll::Ready(None));
        }
    }
}

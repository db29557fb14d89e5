//! Sysmon: the thread that looks after the others.
//!
//! Every [`TICK`] while anything happens: where few turns were made with others queued, another worker is woken, if one rests or sleeps in
//! epoll. A task that is in the same poll as at the last look is *stuck*. It is asked to yield at its
//! next I/O operation, it is counted and reported, and what is queued behind it may be taken by anybody, whatever it is worth. If
//! all who are awake are stuck, threads are added with spare processors, so that tasks, timers and the network go on. And if no thread
//! polled since the last look, sysmon does, and lets a thread go on with it: one that is parked in `block_on`, or a worker at rest.
//!
//! # States
//! ticking → (five looks without any turn or poll) asleep, without limit → (`notice`, by whoever comes out of idleness) ticking.
//!
//! # Invariants
//! * 10 — asleep when the process is idle. The wake-up is paid once per stretch of at least 50 ms of idleness.
//! * 12 — the user's report runs on this thread without any lock.
//!
//! # Compared with Go (runtime/proc.go, sysmon)
//! A future cannot be preempted, so a processor is not taken away from a stuck thread; another is added. Go wakes every
//! 20 µs…10 ms while anything runs, this one every 10 ms.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::polling::Polling;
use super::task::TaskId;
use crate::rt::builder::BlockedPolicy;
use crate::rt::clock;
use crate::rt::context;
use crate::rt::parker::Parker;
use crate::rt::runtime::Runtime;
use crate::rt::waiters::let_go;
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Time between two looks.
const TICK: Duration = Duration::from_millis(10);
/// Looks without activity before the deep sleep.
const QUIET_TICKS: u32 = 5;
/// Threads added at one look at most.
const ADD_MAX: usize = 4;
/// A processor with fewer turns between two looks makes long ones.
const FEW_TURNS: u64 = 100;

/// A task that blocks its thread, as told to [`Builder::on_blocked_task`](crate::rt::Builder::on_blocked_task).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BlockedTask {
    /// The task's number, as [`task::current`](crate::task::current) gives it.
    pub id: TaskId,
    /// Its name, if it was given one.
    pub name: Option<String>,
    /// For how long it has been in the same poll, at least.
    pub blocked_for: Duration,
}

/// See the module's header.
#[derive(Debug)]
pub(crate) struct Sysmon {
    asleep: AtomicBool,
    running: AtomicBool,
    parker: Parker,
    pub(crate) blocked: AtomicU64,
    /// Workers that were stuck at the last look.
    stuck: AtomicUsize,
}

impl Sysmon {
    pub(crate) const fn new() -> Sysmon {
        Sysmon {
            asleep: AtomicBool::new(false),
            running: AtomicBool::new(false),
            parker: Parker::new(),
            blocked: AtomicU64::new(0),
            stuck: AtomicUsize::new(0),
        }
    }

    /// How many workers were stuck at the last look.
    pub(crate) fn stuck(&self) -> usize {
        // ORDERING: Relaxed, a hint that may come late.
        self.stuck.load(Ordering::Relaxed)
    }

    /// Something happens after a time of idleness.
    #[inline]
    pub(crate) fn notice(&self) {
        // ORDERING: SeqCst: the activity's counter or `awake` before, `asleep` after; `look` has them the other way round.
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            self.parker.unpark();
        }
    }

    /// For a shutdown: the thread looks at the epoch.
    pub(crate) fn unpark(&self) {
        self.parker.unpark();
    }
}

/// What sysmon remembers of a processor.
#[derive(Debug, Default)]
struct Seen {
    polls: u64,
    running: u64,
    since: Option<Instant>,
    reported: bool,
}

struct Monitor {
    runtime: &'static Runtime,
    seen: HashMap<usize, Seen>,
    waits: u64,
    activity: u64,
    quiet: u32,
    polling: Polling,
}

impl Runtime {
    /// Starts the thread; at most one runs.
    pub(crate) fn start_sysmon(&'static self) {
        if self.sysmon.running.swap(true, Ordering::SeqCst) {
            return;
        }
        let epoch = self.epoch();
        let started = self.threads.start(format!("{}-sysmon", self.config().thread_name), move || {
            let mut monitor = Monitor {
                runtime: self,
                seen: HashMap::new(),
                waits: 0,
                activity: 0,
                quiet: 0,
                polling: Polling::new(),
            };
            monitor.run(epoch);
            // ORDERING: SeqCst, then the look at the state: a start either finds this thread gone or is seen here.
            self.sysmon.running.store(false, Ordering::SeqCst);
            if self.is_running() {
                self.start_sysmon();
            }
        });
        if started.is_err() {
            self.sysmon.running.store(false, Ordering::SeqCst);
        }
    }
}

impl Monitor {
    fn run(&mut self, epoch: u32) {
        let runtime = self.runtime;
        let sysmon = &runtime.sysmon;
        while runtime.epoch() == epoch {
            if self.quiet < QUIET_TICKS {
                sysmon.parker.park_until(Some(Instant::now() + TICK));
            } else {
                // ORDERING: SeqCst, see `notice`.
                sysmon.asleep.store(true, Ordering::SeqCst);
                let is_quiet =
                    runtime.awake.count() == 0 && self.activity() == self.activity && !runtime.has_root_turns();
                if is_quiet && runtime.epoch() == epoch {
                    sysmon.parker.park();
                }
                sysmon.asleep.store(false, Ordering::SeqCst);
                self.quiet = 0;
            }
            if runtime.epoch() == epoch {
                self.look();
            }
        }
    }

    /// A number that changes whenever something is run or polled.
    fn activity(&self) -> u64 {
        let polls: u64 = self.runtime.processors().map(|processor| processor.polls.get()).sum();
        polls + self.runtime.driver.waits.get()
    }

    fn look(&mut self) {
        let runtime = self.runtime;
        let activity = self.activity();
        let busy = runtime.awake.count() > 0 || activity != self.activity || runtime.has_root_turns();
        self.quiet = if busy { 0 } else { self.quiet + 1 };
        self.activity = activity;
        let policy = runtime.config().blocked_tasks;
        let waits = runtime.driver.waits.get();
        let nobody_polled = waits == std::mem::replace(&mut self.waits, waits);
        let (stuck, backlog) = self.find_stuck(policy, nobody_polled);
        let is_asleep = runtime.driver.role.asleep().is_some();
        if nobody_polled && busy && !is_asleep {
            self.poll();
        }
        if policy != BlockedPolicy::AddWorkers || stuck == 0 {
            return;
        }
        let work = backlog + runtime.injected();
        if runtime.awake.count() > stuck {
            // Somebody else is awake and takes the work when it is through its own.
            if work > 0 {
                runtime.wake_one(false);
            }
        } else if (work > 0 && !runtime.driver.wake_worker()) || !is_asleep {
            for _ in 0..work.clamp(1, ADD_MAX) {
                runtime.wake_one(true);
            }
        }
    }

    /// Marks the processors whose task has not moved since the last look. Returns how many, and what is queued behind them.
    fn find_stuck(&mut self, policy: BlockedPolicy, nobody_polled: bool) -> (usize, usize) {
        let (mut stuck, mut backlog, mut reports) = (0, 0, Vec::new());
        let (now, epoch) = (Instant::now(), self.runtime.epoch());
        for processor in self.runtime.processors() {
            let seen = self.seen.entry(processor.id).or_default();
            let (polls, running) = (processor.polls.get(), processor.running.load(Ordering::Relaxed));
            let turns = polls.saturating_sub(seen.polls);
            if nobody_polled && running != 0 && (1..FEW_TURNS).contains(&turns) && processor.queue.len() > 0 {
                // It was busy all the time, and its owner may not know yet how long its turns are.
                processor.turn_nanos.store(TICK.as_nanos() as u64 / turns, Ordering::Relaxed);
                self.runtime.wake_helper(true);
            }
            let moved = !processor.owned.load(Ordering::Relaxed)
                || processor.epoch.load(Ordering::Relaxed) != epoch
                || running == 0
                || running != seen.running
                || polls != seen.polls;
            (seen.polls, seen.running) = (polls, running);
            if moved {
                (seen.since, seen.reported) = (Some(now), false);
                processor.stuck.store(false, Ordering::Relaxed);
                continue;
            }
            stuck += 1;
            if policy == BlockedPolicy::Off {
                continue;
            }
            backlog += processor.queue.len();
            processor.stuck.store(true, Ordering::Relaxed);
            context::ask_to_yield(processor);
            if !std::mem::replace(&mut seen.reported, true) {
                let blocked_for = seen.since.map_or(TICK, |since| now - since);
                reports.push((TaskId::from_number(running), blocked_for));
            }
        }
        self.runtime.sysmon.stuck.store(stuck, Ordering::Relaxed);
        self.report(reports);
        (stuck, backlog)
    }

    fn report(&self, reports: Vec<(TaskId, Duration)>) {
        self.runtime.sysmon.blocked.fetch_add(reports.len() as u64, Ordering::Relaxed);
        let Some(report) = &self.runtime.config().on_blocked_task else { return };
        for (id, blocked_for) in reports {
            let task = BlockedTask { id, name: self.runtime.name_of(id), blocked_for };
            // The user's function: its panic is its own.
            if let Err(payload) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| report(&task))) {
                let_go(payload);
            }
        }
    }

    /// Takes events and due timers in place of busy threads.
    fn poll(&mut self) {
        let runtime = self.runtime;
        let now = clock::now();
        if !self.polling.poll_now(runtime, now) {
            return;
        }
        // A worker may have gone to rest meanwhile because the role was taken (model `sysmon_gives_the_role_back`), and a thread in
        // `block_on` may poll while all workers are stuck.
        runtime.attend_poller();
        if runtime.needs_poller() {
            runtime.nudge_root();
        }
        self.polling.run_timers(runtime, now);
        self.polling.wakers.wake_all();
        self.waits = runtime.driver.waits.get();
        self.activity += 1;
    }
}

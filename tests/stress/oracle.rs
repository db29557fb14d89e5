//! The oracle: the properties that must hold, their checks, and the thread that detects operations
//! that do not end and a process that is not idle.
//!
//! # Time
//! Bounds are counted in beats, not by the clock. A heartbeat thread adds the time since its last
//! beat, at most [`BEAT_MAX`], so time in which the machine stands still hardly counts. The thread
//! multiplies this time by the ratio of the time in which threads of the process ran to the time in
//! which they were runnable, according to the scheduler. So other load on the machine does not
//! count either. In a program with slow reports, time in which threads of the runtime may be
//! blocked ([`Blocking`]) does not count towards a bound.
//!
//! # Bounds
//! A [`Watch`] guards every operation that must end. If its bound passes, the heartbeat thread
//! prints the state of the run, including the program, the current action of every actor and the
//! overdue operations, and ends the process. The thread does not use the tested runtime, so a hang
//! of the runtime does not hang the process.
//!
//! # Idleness
//! An actor that only sleeps declares this with a [`Quiet`]. In a program without events and stops,
//! the process must not use more than [`IDLE_SHARE`] of a CPU while all running actors only sleep
//! and there is no [`Blocking`] value.
//!
//! # Storms
//! A *storm* is a time in which the runtime is shut down: operations fail and tasks are dropped. A
//! [`Span`] tells whether a storm may have happened since the span began. Results are compared with
//! the expected results only if no storm has happened.
//!
//! # Counting
//! A value that must be dropped exactly once, such as the future of a task, a waker or a
//! thread-local value, holds a [`Token`]. At the end no token may be left.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::fmt::{Display, Write as _};
use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use netpoll::rt;

use crate::faults;
use crate::program::{Config, Preempt, Program};
use crate::tasks::ON_PURPOSE;
use crate::words::Word;

/// The interval of the heartbeat thread.
const BEAT: Duration = Duration::from_millis(10);
/// The maximum time that one beat adds.
const BEAT_MAX: Duration = Duration::from_millis(40);
/// The number of beats between two readings of the scheduler's figures, which are slow to read.
const SHARE_EVERY: u32 = 20;
/// The maximum share of one CPU that the process may use while all of its actors sleep.
const IDLE_SHARE: f64 = 0.5;
/// The default bound on lateness, in milliseconds.
pub const LATE_MS: u64 = 20_000;

/// The exit code when a property does not hold.
pub const EXIT_WRONG: i32 = 101;
/// The exit code when an operation does not end.
pub const EXIT_HANGS: i32 = 102;

/// The operation that a [`Watch`] guards.
#[derive(Debug)]
struct Watched {
    what: String,
    /// The value of [`Oracle::calm`] at which the bound passes.
    due: u64,
}

/// The progress of an actor.
#[derive(Debug, Default)]
struct Seat {
    host: String,
    /// The current action.
    action: String,
    /// The index of the current action.
    step: usize,
    /// The number of actions.
    steps: usize,
    /// The value of [`Oracle::beats`] when the current action began.
    since: u64,
    state: &'static str,
}

const NOT_BEGUN: &str = "not begun";
const IS_AT: &str = "is at";

#[derive(Debug)]
struct Oracle {
    label: String,
    program: Program,
    late: Duration,
    /// The time counted so far, in microseconds.
    beats: AtomicU64,
    /// The time that counts towards bounds, in microseconds. If the program has slow reports, this
    /// omits the beats during which threads may be blocked.
    calm: AtomicU64,
    /// The number of [`Blocking`] values.
    blockers: AtomicU64,
    /// The number of [`Quiet`] values.
    quiet: AtomicU64,
    /// The number of calls of [`keep`] that actors wait for.
    kept: AtomicU64,
    /// The number of storms that have begun.
    begun: AtomicU64,
    /// The number of storms that are over.
    over: AtomicU64,
    /// The number of the next [`Watch`].
    next: AtomicU64,
    /// Whether tasks are left that only a shutdown ends.
    leaves_tasks: AtomicBool,
    watched: Mutex<HashMap<u64, Watched>>,
    seats: Mutex<Vec<Seat>>,
    tokens: Mutex<BTreeMap<&'static str, i64>>,
    failed: Mutex<()>,
}

static ORACLE: OnceLock<Oracle> = OnceLock::new();

fn oracle() -> &'static Oracle {
    ORACLE.get().expect("a program runs")
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the oracle. `label` says how to run the program again.
pub fn begin(label: String, program: Program) {
    let late = std::env::var("NETPOLL_STRESS_LATE_MS").ok().and_then(|text| text.parse().ok()).unwrap_or(LATE_MS);
    let late = if program.config.late.0 > 0 { program.config.late.0 } else { late };
    let seats = program.actors.iter().map(|actor| Seat {
        host: actor.host.write(),
        steps: actor.actions.len(),
        state: NOT_BEGUN,
        ..Seat::default()
    });
    let seats = Mutex::new(seats.collect());
    let oracle = Oracle {
        label,
        program,
        late: Duration::from_millis(late),
        beats: AtomicU64::new(0),
        calm: AtomicU64::new(0),
        blockers: AtomicU64::new(0),
        quiet: AtomicU64::new(0),
        kept: AtomicU64::new(0),
        begun: AtomicU64::new(0),
        over: AtomicU64::new(0),
        next: AtomicU64::new(0),
        leaves_tasks: AtomicBool::new(false),
        watched: Mutex::default(),
        seats,
        tokens: Mutex::default(),
        failed: Mutex::new(()),
    };
    assert!(ORACLE.set(oracle).is_ok(), "one program per process");
    faults::own_thread("heartbeat", heartbeat);
}

/// Returns the configuration of the running program.
pub fn config() -> &'static Config {
    &oracle().program.config
}

/// Returns the number of actors of the program.
pub fn actors() -> usize {
    oracle().program.actors.len()
}

/// Returns the bound on lateness.
pub fn late() -> Duration {
    oracle().late
}

fn heartbeat() {
    let oracle = oracle();
    let (mut last, mut share, mut count, mut is_idle) = (Instant::now(), 1.0, 0, false);
    let mut figures = Figures::read();
    loop {
        thread::sleep(BEAT);
        let passed = last.elapsed();
        last += passed;
        count += 1;
        if count % SHARE_EVERY == 0 {
            let now = Figures::read();
            share = now.share_since(&figures);
            let was_idle = std::mem::replace(&mut is_idle, all_are_quiet());
            let used = now.used_since(&figures);
            if was_idle && is_idle && used > IDLE_SHARE {
                end(EXIT_WRONG, &format!("uses {used:.1} CPUs while all actors sleep"));
            }
            figures = now;
        }
        let beat = (passed.min(BEAT_MAX).as_micros() as f64 * share) as u64;
        oracle.beats.fetch_add(beat, SeqCst);
        if oracle.blockers.load(SeqCst) == 0 || oracle.program.config.report.0 == 0 {
            oracle.calm.fetch_add(beat, SeqCst);
        }
        let calm = oracle.calm.load(SeqCst);
        let overdue: Vec<_> = {
            let watched = locked(&oracle.watched);
            watched.values().filter(|watched| watched.due < calm).map(|watched| watched.what.clone()).collect()
        };
        if !overdue.is_empty() {
            end(EXIT_HANGS, &format!("does not end within its bound: {}", overdue.join("; ")));
        }
    }
}

/// The times, in nanoseconds, that each thread of the process has run and has waited for a CPU,
/// according to the scheduler.
#[derive(Debug)]
struct Figures {
    at: Instant,
    threads: HashMap<String, (u64, u64)>,
}

impl Figures {
    fn read() -> Figures {
        let mut threads = HashMap::new();
        for entry in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
            let Ok(text) = std::fs::read_to_string(entry.path().join("schedstat")) else { continue };
            let mut numbers = text.split_whitespace().filter_map(|number| number.parse().ok());
            if let (Some(ran), Some(waited)) = (numbers.next(), numbers.next()) {
                threads.insert(entry.file_name().to_string_lossy().into_owned(), (ran, waited));
            }
        }
        Figures { at: Instant::now(), threads }
    }

    /// Returns the number of CPUs that were used since `before`, on average.
    fn used_since(&self, before: &Figures) -> f64 {
        let ran = |figures: &Figures| figures.threads.values().map(|times| times.0).sum::<u64>();
        let passed = self.at.duration_since(before.at).as_nanos() as f64;
        ran(self).saturating_sub(ran(before)) as f64 / passed
    }

    /// Returns the ratio of the time in which threads ran to the time in which they were runnable,
    /// since `before`, but at least 0.02. Returns 1 if the threads waited for a CPU for less than a
    /// tenth of the time.
    fn share_since(&self, before: &Figures) -> f64 {
        let (mut ran, mut waited) = (0, 0);
        for (thread, now) in &self.threads {
            let then = before.threads.get(thread).copied().unwrap_or_default();
            ran += now.0.saturating_sub(then.0);
            waited += now.1.saturating_sub(then.1);
        }
        let passed = self.at.duration_since(before.at).as_nanos() as u64;
        if waited < passed / 10 { 1.0 } else { (ran as f64 / (ran + waited) as f64).max(0.02) }
    }
}

/// Guards an operation. The bound applies until the value is dropped.
#[derive(Debug)]
#[must_use]
pub struct Watch(u64);

impl Drop for Watch {
    fn drop(&mut self) {
        locked(&oracle().watched).remove(&self.0);
    }
}

/// Requires that `what` ends within `length` plus the bound on lateness.
pub fn watch_for(length: Duration, what: impl Into<String>) -> Watch {
    let oracle = oracle();
    let number = oracle.next.fetch_add(1, SeqCst);
    let due = oracle.calm.load(SeqCst) + (length + oracle.late).as_micros() as u64;
    locked(&oracle.watched).insert(number, Watched { what: what.into(), due });
    Watch(number)
}

/// Requires that `what` ends within the bound on lateness.
pub fn watch(what: impl Into<String>) -> Watch {
    watch_for(Duration::ZERO, what)
}

/// Occupies the calling thread for `length`. `on_behalf_of_actor` says whether an actor waits for
/// the call. If `length` exceeds the bound on lateness, the call may return earlier: as soon as
/// every actor that has not ended waits for a call of this function. So the call outlasts the bound
/// of an actor that wrongly waits for this thread, but does not delay a correct program for the
/// whole `length`.
pub fn keep(length: Duration, on_behalf_of_actor: bool) {
    if length <= oracle().late {
        return thread::sleep(length);
    }
    let (start, own) = (Instant::now(), u64::from(on_behalf_of_actor));
    oracle().kept.fetch_add(own, SeqCst);
    while start.elapsed() < length && !all_actors_are_kept() {
        thread::sleep(BEAT);
    }
    oracle().kept.fetch_sub(own, SeqCst);
}

/// Returns whether every actor that has not ended waits for a call of [`keep`].
fn all_actors_are_kept() -> bool {
    let left = locked(&oracle().seats).iter().filter(|seat| matches!(seat.state, NOT_BEGUN | IS_AT)).count() as u64;
    left <= oracle().kept.load(SeqCst)
}

/// Declares, while a value exists, that threads of the runtime may be blocked, so that timers and
/// events may have to wait for sysmon.
#[derive(Debug)]
pub struct Blocking(());

impl Blocking {
    pub fn begin() -> Blocking {
        oracle().blockers.fetch_add(1, SeqCst);
        Blocking(())
    }
}

impl Drop for Blocking {
    fn drop(&mut self) {
        oracle().blockers.fetch_sub(1, SeqCst);
    }
}

/// Records that tasks are left that only a shutdown ends.
pub fn leave_tasks() {
    oracle().leaves_tasks.store(true, SeqCst);
}

/// Returns whether the program has shutdowns.
pub fn is_stormy() -> bool {
    oracle().program.is_stormy()
}

/// Returns whether all tasks must have ended or been dropped before the last shutdown.
pub fn tasks_end() -> bool {
    !oracle().leaves_tasks.load(SeqCst) && !is_stormy()
}

/// Declares, while a value exists, that an actor only sleeps.
#[derive(Debug)]
pub struct Quiet(());

impl Quiet {
    pub fn begin() -> Quiet {
        oracle().quiet.fetch_add(1, SeqCst);
        Quiet(())
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        oracle().quiet.fetch_sub(1, SeqCst);
    }
}

/// Returns whether all running actors only sleep, there is no [`Blocking`] value, and the program
/// has no events and no stops.
fn all_are_quiet() -> bool {
    let oracle = oracle();
    let left = locked(&oracle.seats).iter().filter(|seat| seat.state == IS_AT).count() as u64;
    let is_undisturbed = oracle.program.config.preempt == Preempt::Off && oracle.program.events.is_empty();
    is_undisturbed && left > 0 && oracle.quiet.load(SeqCst) == left && oracle.blockers.load(SeqCst) == 0
}

/// A shutdown in progress. Contains the number of shutdowns begun, including this one, or `None` if
/// another one was in progress when it began.
#[derive(Debug)]
pub struct Storm(Option<u64>);

impl Storm {
    /// Returns whether no other shutdown overlapped with this one.
    pub fn is_alone(&self) -> bool {
        self.0.is_some_and(|begun| oracle().begun.load(SeqCst) == begun)
    }
}

/// Records that a shutdown is about to begin.
pub fn storm_begins() -> Storm {
    let others = oracle().begun.fetch_add(1, SeqCst);
    Storm((oracle().over.load(SeqCst) == others).then_some(others + 1))
}

/// Records that the runtime may be used again.
pub fn storm_is_over() {
    oracle().over.fetch_add(1, SeqCst);
}

/// A period in which the runtime may have been shut down. Contains the number of shutdowns begun
/// before it, or `None` if one was in progress when it began.
#[derive(Clone, Copy, Debug)]
pub struct Span(Option<u64>);

impl Span {
    pub fn begin() -> Span {
        let begun = oracle().begun.load(SeqCst);
        Span((oracle().over.load(SeqCst) == begun).then_some(begun))
    }

    /// Returns whether the runtime ran during the whole span, without a shutdown.
    pub fn is_calm(self) -> bool {
        self.0.is_some_and(|begun| oracle().begun.load(SeqCst) == begun)
    }

    /// Requires `holds`, unless the runtime was shut down in the meantime.
    #[track_caller]
    pub fn check(self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.is_calm() {
            fail(what());
        }
    }

    /// Returns the value of a call that must succeed, or `None` if it failed and the runtime was
    /// shut down in the meantime.
    #[track_caller]
    pub fn ok<T, E: Display>(self, result: Result<T, E>, what: &str) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.check(false, || format!("{what} fails: {error}"));
                None
            }
        }
    }
}

/// A token that must be dropped exactly once. Tokens are counted per kind.
#[derive(Debug)]
pub struct Token(&'static str);

impl Token {
    pub fn new(kind: &'static str) -> Token {
        *locked(&oracle().tokens).entry(kind).or_default() += 1;
        Token(kind)
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        *locked(&oracle().tokens).entry(self.0).or_default() -= 1;
    }
}

/// Returns the number of tokens of a kind that have not been dropped.
pub fn tokens(kind: &'static str) -> i64 {
    locked(&oracle().tokens).get(kind).copied().unwrap_or(0)
}

/// Returns the kinds of which tokens have not been dropped, with the number of these tokens.
pub fn tokens_left() -> Vec<(&'static str, i64)> {
    locked(&oracle().tokens).iter().map(|(kind, left)| (*kind, *left)).filter(|(_, left)| *left != 0).collect()
}

/// Records the action that actor `number` starts.
pub fn at(number: usize, step: usize, action: &str) {
    let mut seats = locked(&oracle().seats);
    let seat = &mut seats[number];
    (seat.action, seat.step, seat.since) = (action.to_owned(), step, oracle().beats.load(SeqCst));
    seat.state = IS_AT;
}

/// Records that actor `number` has ended or was dropped.
pub fn leaves(number: usize, state: &'static str) {
    locked(&oracle().seats)[number].state = state;
}

/// Blocks the thread until `condition` holds. Requires that it holds within the bound on lateness.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let _watch = watch(what);
    let mut nap = Duration::from_micros(100);
    while !condition() {
        thread::sleep(nap);
        nap = (nap * 2).min(Duration::from_millis(5));
    }
}

/// Reports a property that does not hold: prints all available information and ends the process.
#[track_caller]
pub fn fail(what: impl Display) -> ! {
    let place = std::panic::Location::caller();
    end(EXIT_WRONG, &format!("{what} [{place}]"))
}

/// Ignores a panic that is part of a program or that a shutdown may cause. Any other panic is a
/// failure.
pub fn judge_panic(panic: &PanicHookInfo<'_>) {
    let text = panic_text(panic.payload());
    let is_known = text == ON_PURPOSE || text.contains("a shutdown of the runtime has dropped");
    if !is_known {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let backtrace = std::backtrace::Backtrace::force_capture();
        end(EXIT_WRONG, &format!("a panic: {text} [{place}]\n{backtrace}"));
    }
}

/// Returns the message of a panic.
pub fn panic_text(payload: &(dyn Any + Send)) -> String {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "a payload that is not text".to_owned(),
    }
}

fn end(code: i32, what: &str) -> ! {
    let oracle = oracle();
    // A second caller waits here for the end of the process.
    let _failed = locked(&oracle.failed);
    let mut text = format!("\nFAILED: {what}\n\n{}\n\n{}\n", oracle.label, oracle.program);
    for (number, seat) in locked(&oracle.seats).iter().enumerate() {
        let Seat { host, action, step, steps, since, state } = seat;
        let beats = (oracle.beats.load(SeqCst) - since) / 1000;
        let _ = writeln!(text, "actor {number} ({host}) {state} {step}/{steps} `{action}`, begun {beats} ms ago");
    }
    let _ = writeln!(text, "beats {} ms", oracle.beats.load(SeqCst) / 1000);
    let calm = oracle.calm.load(SeqCst);
    for watched in locked(&oracle.watched).values() {
        let left = watched.due as i64 - calm as i64;
        let _ = writeln!(text, "waits ({} ms left): {}", left / 1000, watched.what);
    }
    let _ = writeln!(text, "shutdowns {} begun, {} ended", oracle.begun.load(SeqCst), oracle.over.load(SeqCst));
    let _ = writeln!(text, "not dropped {:?}; threads {}", tokens_left(), faults::threads());
    text += &descriptors_and_threads();
    let _ = io::stderr().write_all(text.as_bytes());
    // Uses a separate thread, because `metrics` takes locks, and a thread that hangs may hold one.
    let metrics = faults::own_thread("metrics", || {
        let _ = writeln!(io::stderr(), "{:?}", rt::metrics());
    });
    let asked = Instant::now();
    while !metrics.is_finished() && asked.elapsed() < Duration::from_secs(2) {
        thread::sleep(BEAT);
    }
    // SAFETY: no precondition. The process ends at once, without destructors, which might hang.
    unsafe { libc::_exit(code) }
}

/// Describes the open descriptors, and the kernel's view of each thread.
fn descriptors_and_threads() -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        let _ = writeln!(text, "descriptor {} {}", entry.file_name().display(), target.display());
    }
    for entry in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let read = |name: &str| std::fs::read_to_string(entry.path().join(name)).unwrap_or_default().trim().to_owned();
        let stat = read("stat");
        let state =
            stat.rsplit(')').next().unwrap_or_default().split_whitespace().next().unwrap_or_default().to_owned();
        let call = read("syscall");
        let call = call.split_whitespace().next().unwrap_or_default();
        let _ = writeln!(text, "thread {} {} {state} in call {call}", entry.file_name().display(), read("comm"));
    }
    text
}

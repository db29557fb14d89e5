//! Runs simulations: one thread per run, a watchdog, seeds, replay and minimisation.
//!
//! Each run has a new OS thread, so that the per-thread state of std and other libraries (such as
//! the keys of `HashMap`) is new. The calling thread waits for that thread, and reports a task that
//! does not yield.
//!
//! # Environment
//! | variable | meaning |
//! |---|---|
//! | `NETPOLL_SEED` | run only this seed, and print the end of the log if it fails |
//! | `NETPOLL_SEEDS` | the number of seeds that each test runs, instead of the number in the test |
//! | `NETPOLL_LOG_LINES` | the number of log lines that a failing run prints, instead of 200 |
//! | `NETPOLL_SIM=twice` | run each seed twice and compare the digests |
//! | `NETPOLL_SIM=minimize` | repeat a failing seed with fewer faults, to find the faults that are needed |
//! | `NETPOLL_SIM=everywhere` | `block_on` runs its future in a simulation of one host, with the seed `NETPOLL_SEED`, or 0 |
//! | `NETPOLL_SIM=diagram` | print a diagram of the packets and notes in the log when a run fails |
//! | `NETPOLL_DIAGRAM=FILE` | write a picture of the packets and notes in the log to FILE as SVG when a run fails |
//!
//! [`test()`] applies `NETPOLL_SEED`, `NETPOLL_SEEDS`, `NETPOLL_SIM=twice` and
//! `NETPOLL_SIM=minimize`; [`Builder::run`] does not. A run of [`test()`] with `NETPOLL_SEED` keeps
//! a log from its start. Any other run keeps a log from a call of [`Sim::keep_log`] on.

use std::any::Any;
use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use super::api::{self, Counters, Sim};
use super::machine::current::TIME_MAX;
use super::machine::is_here;
use super::outcome::Outcome;
use super::shared::lock;
use super::world::{Order, World};
use super::{picture, report};

/// The default of [`Builder::stuck_after`].
const STUCK: Duration = Duration::from_secs(60);

/// The stack size of a run's thread in bytes. It equals the default stack limit of a main thread on
/// Linux.
const STACK: usize = 8 << 20;

/// The number of log lines that a failing run prints, unless `NETPOLL_LOG_LINES` is set.
const LINES: usize = 200;

/// The result of a run; returned by [`Builder::run`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Run<T> {
    /// The output of the test.
    pub output: T,
    /// The digest of the run; see [`Sim::digest`].
    pub digest: u64,
    /// The virtual time that the run has taken.
    pub elapsed: Duration,
    /// The counters of the run; see [`Sim::counters`].
    pub counters: Counters,
    /// The names of the threads outside the simulation that woke a task or closed a socket. A seed
    /// does not reproduce their actions.
    pub foreign: Vec<String>,
}

impl Sim {
    /// Runs `test` in a new simulation and returns its output. [`Builder`] has more settings.
    ///
    /// # Panics
    /// Panics in the same cases as [`Builder::run`].
    pub fn run<F, Fut>(seed: u64, test: F) -> Fut::Output
    where
        F: FnOnce(Sim) -> Fut + Send + 'static,
        Fut: Future,
        Fut::Output: Send + 'static,
    {
        Builder::new().seed(seed).run(test).output
    }
}

/// Settings of a simulation.
///
/// # Examples
/// ```
/// use netpoll::sim::{Builder, Order, ms};
///
/// let run = Builder::new().seed(3).order(Order::Fifo).run(async |_| netpoll::task::sleep(ms(5000)).await);
/// assert_eq!(run.elapsed, ms(5000));
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing runs before `run`"]
pub struct Builder {
    seed: u64,
    order: Order,
    limit: Duration,
    stuck_after: Duration,
    logs: bool,
    plan: Plan,
}

/// The selection of the drawn faults that take place in a run.
#[derive(Clone, Debug, Default)]
struct Plan {
    /// The number of the first fault that does not take place. Later faults do not take place
    /// either. `None` means no limit.
    most: Option<u64>,
    /// The numbers of other faults that do not take place.
    skipped: Vec<u64>,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder::new()
    }
}

impl Builder {
    /// Creates settings: seed 0, random order, a [limit](Builder::limit) of 30 days, and one minute
    /// for [`stuck_after`](Builder::stuck_after).
    pub fn new() -> Builder {
        Builder {
            seed: 0,
            order: Order::Random,
            limit: Duration::from_secs(30 * 24 * 3600),
            stuck_after: STUCK,
            logs: false,
            plan: Plan::default(),
        }
    }

    /// Sets the seed of all random choices.
    pub fn seed(mut self, seed: u64) -> Builder {
        self.seed = seed;
        self
    }

    /// Sets the order in which runnable tasks are polled.
    pub fn order(mut self, order: Order) -> Builder {
        self.order = order;
        self
    }

    /// Sets the virtual time after which the simulation fails if it has not ended. The default is
    /// 30 days, and the maximum is 146 years.
    pub fn limit(mut self, limit: Duration) -> Builder {
        self.limit = limit;
        self
    }

    /// Sets the real time after which the simulation fails because a task has not yielded, or
    /// because a task could always run, so that the virtual clock has not advanced. The check for a
    /// task that has not yielded takes place once in each such period, so it may fail the
    /// simulation up to one period later. A simulation with [threads](Sim::allow_threads) also
    /// waits this long for them when nothing else can make a task run. The default is one minute.
    pub fn stuck_after(mut self, bound: Duration) -> Builder {
        self.stuck_after = bound;
        self
    }

    /// Runs `test` and returns its result.
    ///
    /// # Panics
    /// Panics if `test` panics, if a host's program fails, if `test` has not ended but no event can
    /// make a task run, if the [limit](Builder::limit) has passed, or if a task does not yield, or
    /// tasks do nothing but yield, for the real time of [`stuck_after`](Builder::stuck_after). Also
    /// panics inside a simulation, and if no thread can be started.
    pub fn run<F, Fut>(&self, test: F) -> Run<Fut::Output>
    where
        F: FnOnce(Sim) -> Fut + Send + 'static,
        Fut: Future,
        Fut::Output: Send + 'static,
    {
        let (run, notes) = self.try_run(test);
        match run {
            Ok(run) => run,
            Err(payload) => {
                print(&notes);
                std::panic::resume_unwind(payload)
            }
        }
    }

    /// Runs `test`. Returns the run, or the panic that ended it, and the notes for a failure
    /// message.
    fn try_run<F, Fut>(&self, test: F) -> (std::thread::Result<Run<Fut::Output>>, Notes)
    where
        F: FnOnce(Sim) -> Fut + Send + 'static,
        Fut: Future,
        Fut::Output: Send + 'static,
    {
        assert!(!is_here(), "a simulation cannot run inside another: use the existing `Sim`");
        prepare();
        let (settings, seed) = (self.clone(), self.seed);
        let (sender, receiver) = sync_channel(1);
        let (to_watch, watched) = sync_channel(1);
        let name = std::thread::current().name().unwrap_or("netpoll-sim").to_owned();
        let thread = std::thread::Builder::new().name(name).stack_size(STACK).spawn(move || {
            let world = World::new(seed);
            world.order.set(settings.order);
            let limit = u64::try_from(settings.limit.as_nanos()).unwrap_or(TIME_MAX);
            world.limit.set(limit.min(TIME_MAX));
            world.patience_ms.set(u64::try_from(settings.stuck_after.as_millis()).unwrap_or(u64::MAX));
            world.kernel(|kernel| {
                kernel.faults.most = settings.plan.most.unwrap_or(u64::MAX);
                kernel.faults.skipped = settings.plan.skipped.iter().copied().collect();
                if settings.logs {
                    kernel.log.keep();
                }
            });
            let _ = to_watch.send(world.shared.clone());
            let sim = Sim { id: world.id() };
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run(|| test(sim))));
            let run = result.map(|output| summary(&world, output));
            let notes = notes(&world);
            drop(world);
            let _ = sender.send((run, notes));
        });
        let thread = thread.unwrap_or_else(|error| panic!("cannot start a thread for a simulation: {error}"));
        let shared = watched.recv().unwrap_or_else(|_| panic!("the simulation's thread ended before its first turn"));
        let mut turns = 0;
        let outcome = loop {
            match receiver.recv_timeout(self.stuck_after) {
                Ok(outcome) => break outcome,
                Err(RecvTimeoutError::Timeout) => {
                    let now = shared.turns.load(Ordering::Relaxed);
                    if std::mem::replace(&mut turns, now) != now {
                        continue;
                    }
                    let running = lock(&shared.running).clone();
                    let text = format!(
                        "the simulation with seed {seed} is stuck: `{running}` has run for {:?} without yielding: let it \
                         await, or raise the time with `Builder::stuck_after`",
                        self.stuck_after
                    );
                    // The panic hook prints the text. The log belongs to the thread, which is left
                    // behind.
                    let stuck = std::panic::catch_unwind(|| panic!("{text}"));
                    return (stuck, Notes { foreign: shared.foreign(), ..Notes::default() });
                }
                Err(RecvTimeoutError::Disconnected) => panic!("the simulation's thread ended without a result"),
            }
        };
        let _ = thread.join();
        outcome
    }
}

/// Creates process-wide tables on this thread. A table takes its hash keys from the thread that
/// creates it, so a simulation must not create one.
pub(super) fn prepare() {
    crate::net::prepare_look_ups();
    crate::rt::poll::addresses::prepare();
    crate::rt::poll::labels::prepare();
    crate::rt::sched::identity::prepare();
}

/// Details of a run for the message about a failure.
#[derive(Clone, Debug, Default)]
struct Notes {
    log: String,
    diagram: String,
    /// A picture, if `NETPOLL_DIAGRAM` is set and there is a log.
    picture: Option<String>,
    /// The number of faults that took place, or `None` if the run was left behind because a task
    /// did not yield.
    faults: Option<u64>,
    /// The numbers and descriptions of the first faults that took place.
    struck: Vec<(u64, String)>,
    foreign: Vec<String>,
}

fn summary<T>(world: &World, output: T) -> Run<T> {
    let (elapsed, counters) = world.kernel(|kernel| (Duration::from_nanos(kernel.now), api::counters(kernel)));
    Run { output, digest: world.digest.get(), elapsed, counters, foreign: world.shared.foreign() }
}

fn notes(world: &World) -> Notes {
    let draws = std::env::var_os("NETPOLL_DIAGRAM").is_some();
    world.kernel(|kernel| Notes {
        log: report::log(kernel),
        diagram: report::diagram(kernel),
        picture: (draws && kernel.log.entries().next().is_some()).then(|| picture::svg(kernel)),
        faults: Some(kernel.faults.count()),
        struck: kernel.faults.struck.clone(),
        foreign: world.shared.foreign(),
    })
}

fn print(notes: &Notes) {
    let lines: Vec<_> = notes.log.lines().collect();
    if !lines.is_empty() {
        let most = log_lines();
        eprintln!("last {} lines of the log:", lines.len().min(most));
        lines[lines.len().saturating_sub(most)..].iter().for_each(|line| eprintln!("{line}"));
    }
    if mode("diagram") {
        eprintln!("{}", notes.diagram);
    }
    if let (Some(file), Some(picture)) = (std::env::var_os("NETPOLL_DIAGRAM"), &notes.picture) {
        let file = std::path::Path::new(&file);
        match std::fs::write(file, picture) {
            Ok(()) => eprintln!("a picture of the packets is in {}", file.display()),
            Err(error) => eprintln!("cannot write a picture of the packets to {}: {error}", file.display()),
        }
    }
    if !notes.foreign.is_empty() {
        eprintln!(
            "the seed does not reproduce this run: other threads have woken tasks or closed sockets ({})",
            notes.foreign.join(", ")
        );
    }
}

/// Returns the number of log lines that a failing run prints. A value that is not a number is
/// reported and ignored, because a panic would hide the failure of the run.
fn log_lines() -> usize {
    let Some(text) = std::env::var_os("NETPOLL_LOG_LINES") else { return LINES };
    text.to_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| {
        eprintln!("NETPOLL_LOG_LINES must be a number, not `{}`", text.display());
        LINES
    })
}

/// Returns the number in an environment variable, or `None` if the variable is not set. Panics if
/// its value is not a number.
pub(super) fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    match text.parse() {
        Ok(number) => Some(number),
        Err(_) => panic!("{variable} must be a number, not `{text}`"),
    }
}

/// Returns whether `NETPOLL_SIM` has the value `name`.
pub(super) fn mode(name: &str) -> bool {
    std::env::var("NETPOLL_SIM").is_ok_and(|mode| mode == name)
}

/// Panics if `NETPOLL_SIM` has a value without a meaning.
fn check_mode() {
    const MODES: [&str; 5] = ["", "twice", "minimize", "diagram", "everywhere"];
    if let Some(mode) = std::env::var_os("NETPOLL_SIM") {
        let is_known = MODES.iter().any(|known| mode == *known);
        assert!(is_known, "NETPOLL_SIM must be twice, minimize, diagram or everywhere, not `{}`", mode.display());
    }
}

type Failure = (Box<dyn Any + Send>, Box<Notes>);

/// Runs a test once and returns the digest of the run. An error returned by the test is a failure.
fn attempt<F, Fut>(settings: &Builder, test: F) -> Result<u64, Failure>
where
    F: FnOnce(Sim) -> Fut + Send + 'static,
    Fut: Future,
    Fut::Output: Outcome,
{
    let (run, notes) = settings.try_run(async move |sim| test(sim).await.failure());
    match run {
        Ok(Run { output: Some(text), .. }) => {
            let text = format!("the test returned an error: {text}");
            // This is not a panic, so no panic hook prints the text.
            eprintln!("{text}");
            Err((Box::new(text), Box::new(notes)))
        }
        Ok(run) => Ok(run.digest),
        Err(payload) => Err((payload, Box::new(notes))),
    }
}

/// Runs `test` with each seed; `#[netpoll::test(sim)]` expands to a call of this function.
///
/// # Panics
/// Panics if the test fails with a seed, after printing how to repeat the run. With
/// `NETPOLL_SIM=twice`, also panics if the digests of the two runs of a seed differ. Panics if
/// `NETPOLL_SEED`, `NETPOLL_SEEDS` or `NETPOLL_SIM` has an invalid value.
#[doc(hidden)]
pub fn test<F, Fut>(name: &str, seeds: u64, test: F)
where
    F: Fn(Sim) -> Fut + Clone + Send + 'static,
    Fut: Future,
    Fut::Output: Outcome,
{
    check_mode();
    let only = number("NETPOLL_SEED");
    let seeds = number("NETPOLL_SEEDS").unwrap_or(seeds);
    assert!(seeds > 0, "NETPOLL_SEEDS must be at least 1: with 0 the test would not run");
    let (first, last) = only.map_or((0, seeds - 1), |seed| (seed, seed));
    for seed in first..=last {
        let settings = Builder { logs: only.is_some(), ..Builder::new().seed(seed) };
        let failure = match attempt(&settings, test.clone()) {
            Err(failure) => failure,
            Ok(digest) if mode("twice") => match attempt(&settings, test.clone()) {
                Ok(again) if again == digest => continue,
                Ok(again) => panic!(
                    "seed {seed} of {name} does not repeat itself: digests {digest:016x} and {again:016x}; {}; \
                     docs/SIMULATION.md lists what leaks into a simulation",
                    first_difference(&settings, &test)
                ),
                Err(failure) => failure,
            },
            Ok(_) => continue,
        };
        eprintln!(
            "seed {seed} of {name} failed; to repeat the run: NETPOLL_SEED={seed} cargo test {}",
            arguments(name)
        );
        if mode("minimize") {
            minimize(&settings, &test, &failure.1);
        }
        print(&failure.1);
        std::panic::resume_unwind(failure.0);
    }
}

/// Runs a test twice and describes the first difference between the logs.
fn first_difference<F, Fut>(settings: &Builder, test: &F) -> String
where
    F: Fn(Sim) -> Fut + Clone + Send + 'static,
    Fut: Future,
    Fut::Output: Outcome,
{
    let [first, second] = [(); 2].map(|()| {
        let test = test.clone();
        let settings = Builder { logs: true, ..settings.clone() };
        settings.try_run(async move |sim| test(sim).await.failure()).1.log
    });
    let (mut first, mut second) = (first.lines(), second.lines());
    for line in 1.. {
        match (first.next(), second.next()) {
            (None, None) => break,
            (one, other) if one == other => {}
            (one, other) => {
                let show = |line: Option<&str>| line.map_or("the end".to_owned(), |line| format!("`{}`", line.trim()));
                return format!("line {line} of the log is {} in one run and {} in another", show(one), show(other));
            }
        }
    }
    "the logs of two further runs are equal".to_owned()
}

/// Returns the arguments with which `cargo test` runs a test.
fn arguments(name: &str) -> String {
    // The harness prints the name of a test without the crate.
    let mut arguments = name.split_once("::").map_or(name, |(_, rest)| rest).to_owned();
    if let Ok(package) = std::env::var("CARGO_PKG_NAME") {
        arguments.insert_str(0, &format!("-p {package} "));
    }
    if let Some(flag) = std::env::args_os().find(|flag| flag == "--ignored" || flag == "--include-ignored") {
        arguments.push_str(&format!(" -- {}", flag.display()));
    }
    arguments
}

/// Repeats a failing seed with fewer faults, and prints the smallest set of faults found with which
/// it still fails.
fn minimize<F, Fut>(settings: &Builder, test: &F, failed: &Notes)
where
    F: Fn(Sim) -> Fut + Clone + Send + 'static,
    Fut: Future,
    Fut::Output: Outcome,
{
    let Some(all) = failed.faults else {
        eprintln!(
            "the faults of this run are not known, because a task did not yield, so their number is not minimized"
        );
        return;
    };
    let fails = |plan: &Plan| {
        let failure = attempt(&Builder { plan: plan.clone(), ..settings.clone() }, test.clone()).err();
        failure.filter(|(_, notes)| notes.faults.is_some())
    };
    let mut plan = Plan::default();
    // First searches for the smallest number of faults, from the beginning, with which the run
    // still fails.
    let (mut low, mut high) = (0, all);
    let mut notes = failed.clone();
    while low < high {
        let middle = low + (high - low) / 2;
        match fails(&Plan { most: Some(middle), skipped: Vec::new() }) {
            Some((_, of)) => (high, notes) = (middle, *of),
            None => low = middle + 1,
        }
    }
    plan.most = Some(high);
    // Then tries to omit each of the last 256 of these faults in turn.
    for number in (0..high).rev().take(256) {
        let mut fewer = plan.clone();
        fewer.skipped.push(number);
        if let Some((_, of)) = fails(&fewer) {
            (plan, notes) = (fewer, *of);
        }
    }
    eprint!("{}", needed(all, &notes));
}

/// Describes the needed faults, which are those of the run `notes`. `all` is the number of faults
/// before the search.
fn needed(all: u64, notes: &Notes) -> String {
    let faults = notes.faults.unwrap_or_default();
    let mut text = format!("{faults} of {all} faults are needed:\n");
    notes.struck.iter().for_each(|(number, what)| text.push_str(&format!("  fault {number}: {what}\n")));
    let listed = notes.struck.len() as u64;
    if listed < faults {
        text.push_str(&format!("  {} more, which are not listed\n", faults - listed));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [`test()`] prints how to repeat a run only if [`attempt`] returns the failure.
    #[test]
    fn task_that_does_not_yield_is_a_failure_of_the_run() {
        use std::sync::Arc;
        use std::sync::atomic::AtomicBool;
        let stop = Arc::new(AtomicBool::new(false));
        let spins = stop.clone();
        let settings = Builder::new().stuck_after(Duration::from_millis(300));
        let run = attempt(&settings, async move |_| {
            while !spins.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        stop.store(true, Ordering::Relaxed);
        let (payload, notes) = run.expect_err("the task does not yield");
        assert_eq!(notes.faults, None, "not known, so not minimized");
        let text = payload.downcast_ref::<String>().expect("a formatted text");
        assert!(text.contains("is stuck") && text.contains("without yielding"), "{text}");
    }

    #[test]
    fn needed_faults_beyond_those_listed_are_counted() {
        let struck: Vec<_> = (0..3).map(|number| (number, "packet lost".to_owned())).collect();
        let text = |faults| needed(9, &Notes { faults: Some(faults), struck: struck.clone(), ..Notes::default() });
        assert!(text(3).starts_with("3 of 9 faults are needed:\n  fault 0: packet lost\n"), "{}", text(3));
        assert!(!text(3).contains("not listed") && text(5).starts_with("5 of 9 "));
        assert!(text(5).ends_with("  fault 2: packet lost\n  2 more, which are not listed\n"), "{}", text(5));
    }
}

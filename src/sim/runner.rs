//! Runs of simulations: a thread per run, a watchdog, seeds, replay and minimisation.
//!
//! A run has a fresh OS thread, so that what std and others keep per thread (the keys of `HashMap`, for one) begins anew. The caller waits for
//! it, and tells where a task does not come back.
//!
//! # Environment
//! | variable | meaning |
//! |---|---|
//! | `NETPOLL_SEED` | a test runs this seed alone, and prints its log if it fails |
//! | `NETPOLL_SEEDS` | how many seeds each test runs, in place of its own number |
//! | `NETPOLL_SIM=twice` | each seed runs twice, and the digests must be equal |
//! | `NETPOLL_SIM=minimize` | a failing seed is run again with fewer faults, down to those that are needed |
//! | `NETPOLL_SIM=diagram` | a failing run with `NETPOLL_SEED` prints a picture of its packets |

use std::any::Any;
use std::fmt::Debug;
use std::future::Future;
use std::ops::Range;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use super::api::{Counters, Sim};
use super::world::{Order, World};

/// A task that has not come back for so long, in real time, is told of.
const STUCK: Duration = Duration::from_secs(60);

/// The stack of a run's thread: as much as a main thread has.
const STACK: usize = 8 << 20;

/// Lines of the log that a failing run prints.
const LINES: usize = 200;

/// What a test, or the program of a host, returns: nothing, or a `Result`.
pub trait Outcome {
    /// What went wrong, if anything did.
    fn failure(&self) -> Option<String>;
}

impl Outcome for () {
    fn failure(&self) -> Option<String> {
        None
    }
}

impl<T, E: Debug> Outcome for Result<T, E> {
    fn failure(&self) -> Option<String> {
        self.as_ref().err().map(|error| format!("{error:?}"))
    }
}

/// A run that has ended; returned by [`Builder::run`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Run<T> {
    /// What the test returned.
    pub output: T,
    /// See [`Sim::digest`].
    pub digest: u64,
    /// Virtual time that has passed.
    pub elapsed: Duration,
    /// See [`Sim::counters`].
    pub counters: Counters,
    /// Threads from outside that woke a task: a seed does not repeat what they do.
    pub foreign: Vec<String>,
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
    logs: bool,
    plan: Plan,
}

/// Which of the faults of a run happen.
#[derive(Clone, Debug, Default)]
struct Plan {
    /// Faults from this one on do not happen.
    most: Option<u64>,
    /// Nor do these.
    skipped: Vec<u64>,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder::new()
    }
}

impl Builder {
    /// Seed 0, random order, a limit of 30 days.
    pub fn new() -> Builder {
        Builder {
            seed: 0,
            order: Order::Random,
            limit: Duration::from_secs(30 * 24 * 3600),
            logs: false,
            plan: Plan::default(),
        }
    }

    /// The seed of all that is drawn.
    pub fn seed(mut self, seed: u64) -> Builder {
        self.seed = seed;
        self
    }

    /// In which order runnable tasks have their turns.
    pub fn order(mut self, order: Order) -> Builder {
        self.order = order;
        self
    }

    /// The virtual time after which a simulation that has not ended fails.
    pub fn limit(mut self, limit: Duration) -> Builder {
        self.limit = limit;
        self
    }

    /// Runs `test` and returns what came out.
    ///
    /// # Panics
    /// If `test` panics, a host's program fails, nothing can happen any more, the limit is over, or a task does not come back for a
    /// minute of real time. Inside of a simulation.
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

    /// The run or its panic, and what there is to say about it.
    fn try_run<F, Fut>(&self, test: F) -> (std::thread::Result<Run<Fut::Output>>, Notes)
    where
        F: FnOnce(Sim) -> Fut + Send + 'static,
        Fut: Future,
        Fut::Output: Send + 'static,
    {
        assert!(!super::is_here(), "a simulation inside another: use the `Sim` that there is");
        // Tables of the process take the keys of their hashers from the thread that makes them: from this one.
        crate::net::prepare_look_ups();
        crate::rt::runtime::runtime().names.lock().get_or_insert_default();
        let (settings, seed) = (self.clone(), self.seed);
        let (sender, receiver) = sync_channel(1);
        let (to_watch, watched) = sync_channel(1);
        let name = std::thread::current().name().unwrap_or("netpoll-sim").to_owned();
        let thread = std::thread::Builder::new().name(name).stack_size(STACK).spawn(move || {
            let world = World::new(seed);
            world.order.set(settings.order);
            world.limit.set(u64::try_from(settings.limit.as_nanos()).unwrap_or(u64::MAX));
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
            let run = result.map(|output| world.summary(output));
            let notes = world.notes();
            drop(world);
            let _ = sender.send((run, notes));
        });
        let thread = thread.unwrap_or_else(|error| panic!("no thread for a simulation: {error}"));
        let shared = watched.recv().unwrap_or_else(|_| panic!("the simulation's thread ended before it began"));
        let mut turns = 0;
        let outcome = loop {
            match receiver.recv_timeout(STUCK) {
                Ok(outcome) => break outcome,
                Err(RecvTimeoutError::Timeout) => {
                    let now = shared.turns.load(Ordering::Relaxed);
                    assert!(
                        std::mem::replace(&mut turns, now) != now,
                        "a simulation with seed {seed} does not go on: `{}` has run for {} s without coming to an await",
                        shared.running.lock().unwrap_or_else(PoisonError::into_inner),
                        STUCK.as_secs()
                    );
                }
                Err(RecvTimeoutError::Disconnected) => panic!("the simulation's thread ended without a result"),
            }
        };
        let _ = thread.join();
        outcome
    }
}

/// What a run leaves behind for a failure's message.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes {
    pub(super) log: String,
    pub(super) diagram: String,
    pub(super) faults: u64,
    /// What each fault was that happened, by number.
    pub(super) struck: Vec<(u64, String)>,
    pub(super) foreign: Vec<String>,
}

fn print(notes: &Notes) {
    let lines: Vec<_> = notes.log.lines().collect();
    if !lines.is_empty() {
        eprintln!("the last {} lines of the log:", lines.len().min(LINES));
        lines[lines.len().saturating_sub(LINES)..].iter().for_each(|line| eprintln!("{line}"));
    }
    if std::env::var_os("NETPOLL_SIM").is_some_and(|mode| mode == "diagram") {
        eprintln!("{}", notes.diagram);
    }
    if !notes.foreign.is_empty() {
        eprintln!(
            "the seed does not repeat this run: threads from outside have woken tasks ({})",
            notes.foreign.join(", ")
        );
    }
}

/// A number from the environment.
fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    match text.parse() {
        Ok(number) => Some(number),
        Err(_) => panic!("{variable} must be a number, not `{text}`"),
    }
}

fn mode(name: &str) -> bool {
    std::env::var("NETPOLL_SIM").is_ok_and(|mode| mode == name)
}

type Failure = (Box<dyn Any + Send>, Notes);

/// One run of a test. An error that it returns is a failure.
fn attempt<F, Fut>(settings: &Builder, test: F) -> Result<u64, Failure>
where
    F: FnOnce(Sim) -> Fut + Send + 'static,
    Fut: Future,
    Fut::Output: Outcome,
{
    let (run, notes) = settings.try_run(async move |sim| test(sim).await.failure());
    match run {
        Ok(Run { output: Some(text), .. }) => Err((Box::new(format!("the test returned an error: {text}")), notes)),
        Ok(run) => Ok(run.digest),
        Err(payload) => Err((payload, notes)),
    }
}

/// What `#[netpoll::test(sim)]` expands to: runs `test` with each seed.
///
/// # Panics
/// If a seed fails, after printing how to repeat it.
#[doc(hidden)]
pub fn test<F, Fut>(name: &str, seeds: u64, test: F)
where
    F: Fn(Sim) -> Fut + Clone + Send + 'static,
    Fut: Future,
    Fut::Output: Outcome,
{
    let only = number("NETPOLL_SEED");
    let seeds = number("NETPOLL_SEEDS").unwrap_or(seeds);
    let seeds: Range<u64> = only.map_or(0..seeds, |seed| seed..seed.saturating_add(1));
    for seed in seeds {
        let settings = Builder { logs: only.is_some(), ..Builder::new().seed(seed) };
        let failure = match attempt(&settings, test.clone()) {
            Err(failure) => failure,
            Ok(digest) if mode("twice") => match attempt(&settings, test.clone()) {
                Ok(again) if again == digest => continue,
                Ok(again) => panic!(
                    "seed {seed} of {name} does not repeat itself: digests {digest:016x} and {again:016x}; \
                     docs/SIMULATION.md lists what leaks into a simulation"
                ),
                Err(failure) => failure,
            },
            Ok(_) => continue,
        };
        eprintln!("seed {seed} of {name} failed; the same run again: NETPOLL_SEED={seed} cargo test {}", last(name));
        if mode("minimize") {
            minimize(&settings, &test, &failure.1);
        }
        print(&failure.1);
        std::panic::resume_unwind(failure.0);
    }
}

/// The name of a test as its crate's harness has it, without the crate.
fn last(name: &str) -> &str {
    name.split_once("::").map_or(name, |(_, rest)| rest)
}

/// Runs a failing seed with fewer faults, and prints those that it needs to fail.
fn minimize<F, Fut>(settings: &Builder, test: &F, failed: &Notes)
where
    F: Fn(Sim) -> Fut + Clone + Send + 'static,
    Fut: Future,
    Fut::Output: Outcome,
{
    let fails = |plan: &Plan| attempt(&Builder { plan: plan.clone(), ..settings.clone() }, test.clone()).err();
    let mut plan = Plan::default();
    // The fewest faults from the first on.
    let (mut low, mut high) = (0, failed.faults);
    let mut notes = failed.clone();
    while low < high {
        let middle = low + (high - low) / 2;
        match fails(&Plan { most: Some(middle), skipped: Vec::new() }) {
            Some((_, of)) => (high, notes) = (middle, of),
            None => low = middle + 1,
        }
    }
    plan.most = Some(high);
    // Then each of them alone.
    for number in (0..high).rev().take(256) {
        let mut fewer = plan.clone();
        fewer.skipped.push(number);
        if let Some((_, of)) = fails(&fewer) {
            (plan, notes) = (fewer, of);
        }
    }
    eprintln!("of {} faults {} are needed:", failed.faults, notes.struck.len());
    notes.struck.iter().for_each(|(number, text)| eprintln!("  fault {number}: {text}"));
}

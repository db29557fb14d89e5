//! Runs programs in child processes, and shrinks a program that fails.
//!
//! Every run is a separate process, so it has the settings of its program, and the effects of a
//! failure end with the process. In addition to the child's own bounds, [`CHILD_MAX`] limits a
//! child that does not detect its own hang.
//!
//! # Shrinking
//! A smaller program is kept if it fails in [`FAILS`] of at most [`TRIES`] runs, because schedules
//! differ from run to run. First, halves of the actors are removed, then single events, actors and
//! actions; then settings and values are simplified, one at a time. Shrinking continues until no
//! smaller program fails or its time is over.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::generate;
use crate::oracle::{EXIT_HANGS, EXIT_WRONG};
use crate::program::{Config, Preempt, Program, RootMode};
use crate::words::Ms;

/// The environment variable that contains a child's program.
pub const PROGRAM: &str = "NETPOLL_STRESS_PROGRAM";
/// The environment variable that says how to run the program again.
pub const LABEL: &str = "NETPOLL_STRESS_LABEL";

/// The maximum duration of a child.
const CHILD_MAX: Duration = Duration::from_secs(600);
/// The maximum number of runs that decide about a smaller program.
const TRIES: u64 = 12;
/// The number of these runs that must fail.
const FAILS: u64 = 2;
/// The number of parallel runs of a smaller program.
const PARALLEL_RUNS: usize = 4;

/// The outcome of a run.
#[derive(Debug)]
pub enum Outcome {
    Passed,
    /// The program failed with this output.
    Failed(String),
}

/// Runs a program in a child process.
pub fn run(program: &Program, label: &str) -> Outcome {
    let mut command = Command::new(std::env::current_exe().expect("the test binary has a path"));
    command.args(["--exact", "child_runs_the_program_in_its_environment", "--nocapture", "--test-threads=1"]);
    command.env(PROGRAM, program.to_string()).env(LABEL, label).env_remove("NETPOLL_THREADS");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("a child process");
    let report = reader(child.stdout.take().expect("its standard output"));
    let output = reader(child.stderr.take().expect("its standard error"));
    let ended = wait(&mut child);
    let (report, text) = (report.join().unwrap_or_default(), output.join().unwrap_or_default());
    match ended {
        // Without a test of this name, the child succeeds too.
        Some(status) if status.success() && report.contains("1 passed") => Outcome::Passed,
        Some(status) => {
            let known = matches!(status.code(), Some(EXIT_WRONG | EXIT_HANGS)) && text.contains("FAILED: ");
            let how = match status.signal() {
                _ if known => String::new(),
                Some(signal) => format!("FAILED: ended by signal {signal}\n{label}\n{program}"),
                None => format!("FAILED: {status}\n{label}\n{program}"),
            };
            Outcome::Failed(format!("{text}\n{how}"))
        }
        None => Outcome::Failed(format!("{text}\nFAILED: the process hangs\n{label}\n{program}")),
    }
}

/// Reads all output of a child in another thread.
fn reader(mut output: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = Vec::new();
        let _ = output.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    })
}

fn wait(child: &mut Child) -> Option<std::process::ExitStatus> {
    let start = Instant::now();
    let mut nap = Duration::from_millis(1);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if start.elapsed() < CHILD_MAX => thread::sleep(nap),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
        nap = (nap * 2).min(Duration::from_millis(20));
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.trim().parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// The settings of one run of the stress test.
#[derive(Debug)]
pub struct Plan {
    /// If set, the only program, its label and the number of runs.
    one: Option<(Program, String, u64)>,
    /// The seed of the first program.
    first: u64,
    /// The time after which no further random program starts.
    length: Duration,
    /// The number of programs that run at the same time.
    jobs: usize,
    /// The time after which shrinking tries no further program.
    shrink_time: Duration,
    /// Whether to continue after a failure.
    keep_going: bool,
}

impl Plan {
    pub fn from_environment() -> Plan {
        let length = Duration::from_secs(number("NETPOLL_STRESS_SECONDS").unwrap_or(4));
        let runs = number("NETPOLL_STRESS_RUNS").unwrap_or(1);
        let one = match (number("NETPOLL_STRESS_SEED"), std::env::var("NETPOLL_STRESS_FILE")) {
            (Some(seed), _) => Some((program_of(seed), label(seed), runs)),
            (None, Ok(path)) => {
                let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
                let program = text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
                Some((program, format!("NETPOLL_STRESS_FILE={path}"), runs))
            }
            _ => None,
        };
        Plan {
            one,
            first: number("NETPOLL_STRESS_FIRST").unwrap_or(1),
            length,
            jobs: number("NETPOLL_STRESS_JOBS").unwrap_or(2) as usize,
            shrink_time: Duration::from_secs(number("NETPOLL_STRESS_SHRINK").unwrap_or(0)),
            keep_going: number("NETPOLL_STRESS_KEEP_GOING") == Some(1),
        }
    }

    /// Runs the programs. Prints the first failure, or every failure with `keep_going`. Shrinks the
    /// first failing program if that is configured, and panics if a program failed.
    pub fn carry_out(&self) {
        let (next, stop) = (AtomicU64::new(self.first), AtomicBool::new(false));
        let failed = Mutex::new(Vec::new());
        let begin = Instant::now();
        let ran = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(|| {
                    while !stop.load(SeqCst) {
                        let seed = next.fetch_add(1, SeqCst);
                        let is_over = match &self.one {
                            Some((_, _, runs)) => seed - self.first >= *runs,
                            None => begin.elapsed() >= self.length,
                        };
                        if is_over {
                            return;
                        }
                        let (program, label) = match &self.one {
                            Some((program, label, _)) => (program.clone(), label.clone()),
                            None => (program_of(seed), label(seed)),
                        };
                        if !is_wanted(&program) {
                            continue;
                        }
                        ran.fetch_add(1, SeqCst);
                        if let Outcome::Failed(text) = run(&program, &label) {
                            stop.store(!self.keep_going, SeqCst);
                            if self.keep_going {
                                println!("{text}");
                            }
                            failed.lock().unwrap_or_else(PoisonError::into_inner).push((program, text));
                        }
                    }
                });
            }
        });
        let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (ran, seconds) = (ran.load(SeqCst), begin.elapsed().as_secs());
        println!("{ran} programs from seed {} in {seconds} s, {} failed", self.first, failed.len());
        let Some((program, text)) = failed.into_iter().next() else { return };
        println!("{text}");
        if !self.shrink_time.is_zero() {
            let small = shrink(program, Instant::now() + self.shrink_time);
            println!("\nSHRUNK to {} parts:\n{small}", small.parts());
        }
        panic!("a stress program failed");
    }
}

/// Returns the command that runs the program of a seed again.
fn label(seed: u64) -> String {
    let without = std::env::var("NETPOLL_STRESS_WITHOUT")
        .map_or(String::new(), |words| format!(" NETPOLL_STRESS_WITHOUT='{words}'"));
    format!(
        "NETPOLL_STRESS_SEED={seed}{without} cargo test --test stress random (same program; the schedule of its threads varies)"
    )
}

/// Returns whether the program's text contains the word in NETPOLL_STRESS_WITH, or true if the
/// variable is not set.
fn is_wanted(program: &Program) -> bool {
    std::env::var("NETPOLL_STRESS_WITH").map_or(true, |word| program.to_string().contains(&word))
}

/// Returns the program of `seed`, without the actions and events whose text has a word that the
/// environment excludes. A word that occurs in `Refuse` also removes the refusals of the
/// configuration.
fn program_of(seed: u64) -> Program {
    let mut program = generate::program(seed);
    let Ok(words) = std::env::var("NETPOLL_STRESS_WITHOUT") else { return program };
    let excluded = |text: String| words.split(',').any(|word| !word.is_empty() && text.contains(word));
    if excluded("Refuse".to_owned()) {
        program.config.refuse = 0;
    }
    program.events.retain(|event| !excluded(event.to_string()));
    program.actors.iter_mut().for_each(|actor| actor.actions.retain(|action| !excluded(action.to_string())));
    program
}

/// Returns whether enough runs of a program fail.
fn fails(program: &Program) -> bool {
    let (left, failed) = (AtomicU64::new(TRIES), AtomicU64::new(0));
    let take = || left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
    thread::scope(|scope| {
        for _ in 0..PARALLEL_RUNS {
            scope.spawn(|| {
                while failed.load(SeqCst) < FAILS && take() {
                    if let Outcome::Failed(_) = run(program, "shrinking") {
                        failed.fetch_add(1, SeqCst);
                    }
                }
            });
        }
    });
    failed.load(SeqCst) >= FAILS
}

/// Returns the smallest failing program found. Tries no further program after `end`.
pub fn shrink(mut program: Program, end: Instant) -> Program {
    loop {
        let before = program.clone();
        for step in [fewer_actors, fewer_parts, simpler_settings, simpler_values] {
            let mut at = 0;
            while Instant::now() < end {
                let Some(smaller) = step(&program).into_iter().nth(at) else { break };
                if fails(&smaller) {
                    println!("{} parts still fail", smaller.parts());
                    program = smaller;
                } else {
                    at += 1;
                }
            }
        }
        if program == before || Instant::now() >= end {
            return program;
        }
    }
}

/// Returns two programs, each with one half of the actors of `program`, or none if there is only
/// one actor.
fn fewer_actors(program: &Program) -> Vec<Program> {
    let half = program.actors.len() / 2;
    if half == 0 {
        return Vec::new();
    }
    let with = |actors: &[_]| Program { actors: actors.to_vec(), ..program.clone() };
    vec![with(&program.actors[..half]), with(&program.actors[half..])]
}

/// Returns every variant of `program` without one actor, one event or one action. The last actor,
/// and the last action of an actor, stay.
fn fewer_parts(program: &Program) -> Vec<Program> {
    let mut found = Vec::new();
    let mut without = |remove: &dyn Fn(&mut Program)| {
        let mut smaller = program.clone();
        remove(&mut smaller);
        found.push(smaller);
    };
    for event in 0..program.events.len() {
        without(&|smaller| _ = smaller.events.remove(event));
    }
    if program.actors.len() > 1 {
        for actor in 0..program.actors.len() {
            without(&|smaller| _ = smaller.actors.remove(actor));
        }
    }
    for (number, actor) in program.actors.iter().enumerate() {
        if actor.actions.len() > 1 {
            for action in 0..actor.actions.len() {
                without(&|smaller| _ = smaller.actors[number].actions.remove(action));
            }
        }
    }
    found
}

/// Returns every variant of `program` with one setting at its simplest value. The settings `late`
/// and `refuse` stay.
fn simpler_settings(program: &Program) -> Vec<Program> {
    let default = Config::default();
    let mut found = Vec::new();
    let mut with = |set: &dyn Fn(&mut Config)| {
        let mut simpler = program.clone();
        set(&mut simpler.config);
        if simpler != *program {
            found.push(simpler);
        }
    };
    with(&|config| config.preempt = Preempt::Off);
    with(&|config| config.root = RootMode::Default);
    with(&|config| config.spares = default.spares);
    with(&|config| config.blocking = default.blocking);
    with(&|config| config.report = Ms(0));
    with(&|config| config.workers = 1);
    found
}

/// Returns every variant of `program` with one simpler value in an event or an action.
fn simpler_values(program: &Program) -> Vec<Program> {
    let mut found = Vec::new();
    for (number, event) in program.events.iter().enumerate() {
        for simpler in event.simpler() {
            let mut smaller = program.clone();
            smaller.events[number] = simpler;
            found.push(smaller);
        }
    }
    for (number, actor) in program.actors.iter().enumerate() {
        for (step, action) in actor.actions.iter().enumerate() {
            for simpler in action.simpler() {
                let mut smaller = program.clone();
                smaller.actors[number].actions[step] = simpler;
                found.push(smaller);
            }
        }
    }
    found
}

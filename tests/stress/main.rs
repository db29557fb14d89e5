//! A model-based stress test of the runtime: random programs that use most of its parts, and an
//! oracle.
//!
//! A seed determines a program ([`program`], [`generate`]). The interpreter ([`actors`] and the
//! modules of actions) runs the program in a separate process. The oracle ([`oracle`]) checks that
//! every operation that must end ends within its bound, that no timer is early, that bytes, results
//! and errors are right, that the process is idle while all actors sleep, and that no resource is
//! left at the end. A program that fails is printed and can be shrunk ([`shrink`]).
//!
//! `cargo test --test stress` runs random programs for a few seconds, and the directed programs of
//! [`scenarios`]. `ci/runtime-stress.sh SECONDS` runs random programs for the given time.
//!
//! | variable | effect |
//! |---|---|
//! | `NETPOLL_STRESS_SEED=n` | run only the program of this seed; the schedule of its threads still varies |
//! | `NETPOLL_STRESS_FILE=path` | run only the program in this file, unless `NETPOLL_STRESS_SEED` is set |
//! | `NETPOLL_STRESS_RUNS=n` | run the program of `NETPOLL_STRESS_SEED` or `NETPOLL_STRESS_FILE` n times (default 1) |
//! | `NETPOLL_STRESS_FIRST=n` | run random programs from this seed on (default 1) |
//! | `NETPOLL_STRESS_SECONDS=n` | start random programs for n seconds (default 4) |
//! | `NETPOLL_STRESS_WITH=word` | run only programs whose text has the word |
//! | `NETPOLL_STRESS_WITHOUT=word,…` | remove the actions and events whose text has one of the words from generated programs |
//! | `NETPOLL_STRESS_KEEP_GOING=1` | continue after a failure |
//! | `NETPOLL_STRESS_JOBS=n` | run n processes at a time (default 2) |
//! | `NETPOLL_STRESS_SHRINK=n` | shrink a failing program, and try no further smaller program after n seconds (default 0: do not shrink) |
//! | `NETPOLL_STRESS_LATE_MS=n` | the bound on lateness, in milliseconds, of programs that do not set one (default 20000) |
//!
//! `NETPOLL_STRESS_PROGRAM` and `NETPOLL_STRESS_LABEL` pass a program to a child process.
#![cfg(target_os = "linux")] // `faults` replaces functions of the C library.
#![allow(unreachable_pub)]

mod actors;
mod conn;
mod deadlines;
mod endings;
mod faults;
mod generate;
mod inspection;
mod oracle;
#[path = "../common/original.rs"]
mod original;
mod program;
mod scenarios;
mod shared;
mod shrink;
mod sockets;
mod tasks;
mod timers;
mod waits;
mod wakes;
mod words;

use program::Program;
use shrink::Plan;

/// A child process runs this test, with a program in the environment. Otherwise the test does
/// nothing.
#[test]
fn child_runs_the_program_in_its_environment() {
    let Ok(text) = std::env::var(shrink::PROGRAM) else { return };
    let program: Program = text.parse().unwrap_or_else(|error| panic!("{error}"));
    let label = std::env::var(shrink::LABEL).unwrap_or_default();
    oracle::begin(label, program.clone());
    std::panic::set_hook(Box::new(oracle::judge_panic));
    actors::run(program);
}

/// Runs random programs for a few seconds, or the programs that the environment selects.
#[test]
fn random_programs_complete_and_keep_guarantees() {
    if std::env::var(shrink::PROGRAM).is_ok() {
        return;
    }
    Plan::from_environment().carry_out();
}

/// A call that blocks the thread of a root future delays the root future by design, so the call
/// must not outlast the bound on lateness.
#[test]
fn calls_on_threads_of_roots_end_within_the_bound() {
    use program::{Action, RootMode};
    let runs_tasks = |program: &Program| program.config.root == RootMode::Yes;
    let is_bounded = |action: &Action| !matches!(action, Action::Recv { ms, .. } if ms.0 >= oracle::LATE_MS);
    let programs: Vec<_> = (0..5_000).map(generate::program).collect();
    let is_short = |actor: &program::Actor| actor.actions.iter().all(is_bounded);
    let all_are_bounded = |program: &Program| program.actors.iter().all(is_short);
    assert!(programs.iter().filter(|program| runs_tasks(program)).all(all_are_bounded));
    assert!(!programs.iter().all(all_are_bounded), "the other programs have longer calls");
}

#[test]
fn programs_parse_as_they_are_printed() {
    for seed in 0..300 {
        let program = generate::program(seed);
        let text = program.to_string();
        assert_eq!(text.parse::<Program>().as_ref(), Ok(&program), "{text}");
        assert_eq!(program, generate::program(seed), "the seed alone determines the program");
    }
    assert!("actor task\n    Sleep ms=x how=plain".parse::<Program>().is_err());
    assert!("actor task\n    Dance".parse::<Program>().is_err());
}

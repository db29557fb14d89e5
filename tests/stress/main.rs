//! A model-based stress of the runtime: random programs over everything that it does, and an oracle.
//!
//! A seed gives a program ([`program`], [`generate`]); the interpreter ([`actors`] and the modules of actions) runs it in a process of its own;
//! the oracle ([`oracle`]) says that everything that can end ends within its bound, that nothing is early, that bytes, results and
//! errors are right, and that nothing is left at the end. A program that fails is printed and can be shrunk ([`shrink`]).
//!
//! `cargo test --test stress` runs a few seconds of random programs and the directed ones ([`scenarios`]), each of which a mended
//! defect once failed. `ci/runtime-stress.sh SECONDS` runs random ones for as long as it is told.
//!
//! | variable | |
//! |---|---|
//! | `NETPOLL_STRESS_SEED=n` | runs the program of this seed only; the same program, though threads are scheduled as they are |
//! | `NETPOLL_STRESS_FILE=path` | runs the program in this file only |
//! | `NETPOLL_STRESS_RUNS=n` | runs such a program so many times |
//! | `NETPOLL_STRESS_FIRST=n`, `NETPOLL_STRESS_SECONDS=n` | runs random ones from this seed on, for so long |
//! | `NETPOLL_STRESS_WITH=word`, `NETPOLL_STRESS_WITHOUT=word,…` | only those whose text has this word; without the actions and events that have one of these |
//! | `NETPOLL_STRESS_KEEP_GOING=1` | goes on after a failure |
//! | `NETPOLL_STRESS_JOBS=n` | so many processes at a time |
//! | `NETPOLL_STRESS_SHRINK=n` | shrinks a program that fails, for so many seconds |
//! | `NETPOLL_STRESS_LATE_MS=n` | how late anything may be |
#![cfg(target_os = "linux")] // the C library's functions
#![allow(unreachable_pub)]

mod actors;
mod conn;
mod deadlines;
mod endings;
mod faults;
mod generate;
mod oracle;
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

/// Child processes run this test with the program in the environment.
#[test]
fn child() {
    let Ok(text) = std::env::var(shrink::PROGRAM) else { return };
    let program: Program = text.parse().unwrap_or_else(|error| panic!("{error}"));
    let label = std::env::var(shrink::LABEL).unwrap_or_default();
    oracle::begin(label, program.clone());
    std::panic::set_hook(Box::new(oracle::judge_panic));
    actors::run(program);
}

/// A few seconds of random programs, or what the environment says.
#[test]
fn random_programs_complete_and_keep_guarantees() {
    if std::env::var(shrink::PROGRAM).is_ok() {
        return;
    }
    Plan::from_environment().carry_out();
}

#[test]
fn programs_parse_as_they_are_printed() {
    for seed in 0..300 {
        let program = generate::program(seed, true);
        let text = program.to_string();
        assert_eq!(text.parse::<Program>().as_ref(), Ok(&program), "{text}");
        assert_eq!(program, generate::program(seed, true));
    }
    assert!("actor task\n    Sleep ms=x how=plain".parse::<Program>().is_err());
    assert!("actor task\n    Dance".parse::<Program>().is_err());
}

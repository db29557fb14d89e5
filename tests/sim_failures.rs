//! Tests the output of simulated tests that fail (feature `sim`). The failing tests run in child
//! processes.
#![cfg(feature = "sim")]

use std::io;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use netpoll::sim::{Sim, ms};
use netpoll::task;

/// The environment variable that makes the tests fail. It is set for the child processes.
const FAILS: &str = "NETPOLL_TEST_FAILS";

/// Returns whether the tests are to fail.
fn fails() -> bool {
    std::env::var_os(FAILS).is_some()
}

#[netpoll::test(sim)]
async fn returns_an_error_on_request(_sim: Sim) -> io::Result<()> {
    task::sleep(ms(1)).await;
    if fails() { Err(io::Error::other("the reason of the test")) } else { Ok(()) }
}

#[netpoll::test(sim)]
async fn has_a_host_that_returns_an_error_on_request(sim: Sim) {
    sim.host("server")
        .spawn(async || if fails() { Err(io::Error::other("the reason of the program")) } else { Ok(()) });
    task::sleep(ms(1)).await;
}

#[netpoll::test(sim)]
async fn notes_and_fails_on_request(sim: Sim) -> io::Result<()> {
    sim.note("begins");
    sim.note("ends");
    if fails() { Err(io::Error::other("the reason of the test")) } else { Ok(()) }
}

/// If the test is to fail, the second run sleeps longer than the first, because the counter is not
/// part of the simulation.
#[netpoll::test(sim)]
async fn differs_between_runs_on_request(sim: Sim) {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    let run = if fails() { RUNS.fetch_add(1, Ordering::Relaxed) } else { 0 };
    sim.note("begins");
    task::sleep(ms(1 + run)).await;
    sim.note("ends");
}

#[netpoll::test(sim)]
async fn names_a_host_that_does_not_exist_on_request(sim: Sim) {
    if fails() {
        sim.partition("nobody", "test");
    }
}

#[netpoll::test(sim)]
async fn is_used_outside_its_simulation_on_request(sim: Sim) {
    sim.allow_threads();
    let outside = move || {
        if fails() {
            sim.note("outside");
        }
    };
    if let Err(payload) = std::thread::spawn(outside).join() {
        std::panic::resume_unwind(payload);
    }
}

/// Runs a failing test in a child process, and returns its output.
fn output(test: &str, arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .args(arguments)
        .env(FAILS, "1")
        .env_remove("NETPOLL_SEED")
        .env_remove("NETPOLL_SEEDS")
        .env_remove("NETPOLL_SIM")
        .env("RUST_BACKTRACE", "0")
        .env("CARGO_PKG_NAME", "a-package")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{text}");
    text
}

#[test]
fn error_of_a_test_is_printed() {
    let text = output("returns_an_error_on_request", &[], &[]);
    assert!(text.contains("the test returned an error: ") && text.contains("the reason of the test"), "{text}");
    let again = "to repeat the run: NETPOLL_SEED=0 cargo test -p a-package returns_an_error_on_request\n";
    assert!(text.contains(again), "{text}");
}

#[test]
fn largest_seed_is_run() {
    let text = output("returns_an_error_on_request", &[], &[("NETPOLL_SEED", &u64::MAX.to_string())]);
    assert!(text.contains("to repeat the run: NETPOLL_SEED=18446744073709551615 cargo test"), "{text}");
}

#[test]
fn misuse_of_a_simulation_names_the_line_of_the_caller() {
    let text = output("names_a_host_that_does_not_exist_on_request", &[], &[]);
    assert!(text.contains("there is no host `nobody`: the hosts are test"), "{text}");
    assert!(text.contains("panicked at tests/sim_failures.rs"), "{text}");
    let text = output("is_used_outside_its_simulation_on_request", &[], &[]);
    assert!(text.contains("a `Sim` was used outside its simulation"), "{text}");
    assert!(text.contains("panicked at tests/sim_failures.rs"), "{text}");
}

#[test]
fn error_of_a_host_is_printed() {
    let text = output("has_a_host_that_returns_an_error_on_request", &["--include-ignored"], &[]);
    assert!(
        text.contains("the program of host `server` failed: ") && text.contains("the reason of the program"),
        "{text}"
    );
    assert!(text.contains("returns_an_error_on_request -- --include-ignored\n"), "{text}");
}

#[test]
fn first_difference_between_two_runs_is_printed() {
    let text = output("differs_between_runs_on_request", &[], &[("NETPOLL_SIM", "twice")]);
    assert!(text.contains("does not repeat itself"), "{text}");
    assert!(text.contains("line 2 of the log is `0.003000 ") && text.contains("in one run and `0.004000 "), "{text}");
}

#[test]
fn invalid_values_of_variables_fail_the_test() {
    let text = output("returns_an_error_on_request", &[], &[("NETPOLL_SIM", "twise")]);
    assert!(text.contains("NETPOLL_SIM must be twice, minimize, diagram or everywhere, not `twise`"), "{text}");
    let text = output("returns_an_error_on_request", &[], &[("NETPOLL_SEEDS", "0")]);
    assert!(text.contains("NETPOLL_SEEDS must be at least 1"), "{text}");
    let text = output("returns_an_error_on_request", &[], &[("NETPOLL_SEED", "one")]);
    assert!(text.contains("NETPOLL_SEED must be a number, not `one`"), "{text}");
}

/// Regression: the run panicked because of the number, instead of printing its log.
#[test]
fn invalid_number_of_log_lines_does_not_hide_the_failure() {
    let variables = [("NETPOLL_SEED", "0"), ("NETPOLL_LOG_LINES", "all")];
    let text = output("notes_and_fails_on_request", &[], &variables);
    assert!(text.contains("NETPOLL_LOG_LINES must be a number, not `all`"), "{text}");
    assert!(text.contains(" lines of the log:"), "{text}");
    assert!(text.contains("the reason of the test"), "{text}");
    assert!(text.contains("to repeat the run: NETPOLL_SEED=0 cargo test"), "{text}");
    let variables = [("NETPOLL_SEED", "0"), ("NETPOLL_LOG_LINES", "1")];
    let text = output("notes_and_fails_on_request", &[], &variables);
    assert!(text.contains("last 1 lines of the log:"), "{text}");
}

//! Counts the system calls and the user instructions of a server.
//!
//! The calls, and the instructions in the functions that serve a request
//! ([`profile::of_requests`]), are reproducible. The number of all instructions depends on the
//! speed of the machine, because sysmon runs more often under valgrind if the machine is slow.

use super::cases::{CASES, Case};
use super::child::{Load, Process, Server};
use super::profile::{self, Run};
use crate::generator::Amount;
use crate::sys;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// The tool that counts system calls on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tracer {
    /// `perf stat` on the tracepoint `raw_syscalls:sys_enter`.
    Perf,
    /// `strace -c -f`. It slows the server down, which may change the number of calls.
    Strace,
}

impl Tracer {
    /// Returns perf if it works on this machine, or else strace if that works.
    #[must_use]
    pub fn available() -> Option<Tracer> {
        let works = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
        let perf = Command::new("perf").args(["stat", "-e", "raw_syscalls:sys_enter", "true"]).output();
        let counted = perf.is_ok_and(|output| {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            output.status.success() && !said.contains("not supported") && !said.contains("not counted")
        });
        if counted {
            Some(Tracer::Perf)
        } else if works(Command::new("strace").args(["-c", "-f", "-o", "/dev/null", "true"])) {
            Some(Tracer::Strace)
        } else {
            None
        }
    }

    /// Calls `work` and returns the number of system calls that process `pid` makes in the
    /// meantime.
    fn count(self, pid: u32, work: impl FnOnce() -> Result<(), String>) -> Result<u64, String> {
        match self {
            Tracer::Perf => count_with_perf(pid, work),
            Tracer::Strace => count_with_strace(pid, work),
        }
    }
}

/// Returns the number of system calls per request of a case's server, with one worker and in
/// lock-step on `cpu`.
///
/// # Errors
/// Returns an error if the server, the generator or the tracer fails.
pub fn calls(case: &Case, runtime: &str, tracer: Tracer, cpu: usize, quick: bool) -> Result<f64, String> {
    let server = Server::start(&case.server(runtime, 1, Some(cpu)), &[])?;
    let mut load = Load::start(&case.load(true, Some(cpu)), server.port)?;
    let requests = if quick { 12_800 } else { 64_000 };
    let amount = Amount::Requests((requests / case.connections as u64).clamp(2, 4000));
    // This run is not counted, because it includes registrations and the start of threads.
    load.run(Amount::Requests(20))?;
    let mut done = 0;
    let calls = tracer.count(server.id(), || {
        done = load.run(amount)?.requests;
        Ok(())
    })?;
    Ok(calls as f64 / done as f64)
}

/// Counts as [`Tracer::count`] does, with perf.
fn count_with_perf(pid: u32, work: impl FnOnce() -> Result<(), String>) -> Result<u64, String> {
    // Commands on a control pipe enable and disable perf, so it counts exactly the calls during the
    // work. The shell duplicates its input to descriptor 8, from which perf reads commands, and its
    // output to descriptor 9, to which perf writes acknowledgements.
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "exec 8<&0 9>&1 && exec perf stat -x, -e raw_syscalls:sys_enter -D -1 --control fd:8,9 -p \"$1\" </dev/null >&2",
        "sh",
        &pid.to_string(),
    ]);
    let mut perf = Process::start(command)?;
    let order = |perf: &mut Process, order: &str| {
        perf.tell(order)?;
        let answer = perf.line()?;
        if answer.contains("ack") { Ok(()) } else { Err(format!("perf answered `{answer}`")) }
    };
    order(&mut perf, "enable")?;
    work()?;
    order(&mut perf, "disable")?;
    sys::interrupt(perf.id());
    let said = perf.finish()?;
    let line = said.iter().find(|line| line.contains("raw_syscalls:sys_enter"));
    line.and_then(|line| line.split(',').next()?.parse().ok())
        .ok_or_else(|| format!("perf counted nothing: {}", said.join(" / ")))
}

/// Counts as [`Tracer::count`] does, with strace.
fn count_with_strace(pid: u32, work: impl FnOnce() -> Result<(), String>) -> Result<u64, String> {
    let mut command = Command::new("strace");
    command.args(["-c", "-f", "-p", &pid.to_string()]);
    let mut strace = Process::start(command)?;
    strace.error_line("attached")?;
    work()?;
    sys::interrupt(strace.id());
    let said = strace.finish()?;
    let total = said.iter().find(|line| line.trim_end().ends_with("total"));
    total
        .and_then(|line| line.split_whitespace().nth(3)?.parse().ok())
        .ok_or_else(|| format!("strace counted nothing: {}", said.join(" / ")))
}

/// Returns the number of user instructions per request of a case's server, and the number in [the
/// functions that serve a request](profile::of_requests). Each is the difference in instructions of
/// two runs under callgrind, divided by the difference in requests, so that start-up and exit do
/// not count. The server has one worker. The runs are in lock-step on `cpu`, because the figures
/// depend on the number of events per wait.
///
/// # Errors
/// Returns an error if the runtime does not work under valgrind, or if the server or the generator
/// fails.
pub fn instructions(case: &Case, runtime: &str, cpu: usize, quick: bool) -> Result<[f64; 2], String> {
    if runtime == "monoio" {
        return Err("under valgrind, threads do not return from io_uring_enter(2)".to_owned());
    }
    if runtime == crate::servers::go::NAME {
        return Err("Go programs do not run under valgrind".to_owned());
    }
    let [less, more] = runs(case, runtime, cpu, quick)?;
    let all = (more.instructions as f64 - less.instructions as f64) / (more.requests - less.requests) as f64;
    Ok([all, profile::of_requests(less.costs(), more.costs())])
}

/// Returns the tables of [`profile::markdown`] for an echo on 64 connections.
///
/// # Errors
/// Returns an error if the server does not run under valgrind, or if the server or the generator
/// fails.
pub fn profile(runtime: &str, cpu: usize, quick: bool) -> Result<String, String> {
    let case = CASES.iter().find(|case| case.name == "instructions-echo").ok_or("no such case")?;
    let [less, more] = runs(case, runtime, cpu, quick)?;
    Ok(profile::markdown(less.costs(), more.costs()))
}

/// The result of a run of a server under callgrind.
struct Counted {
    instructions: u64,
    requests: u64,
    run: Run,
}

impl Counted {
    fn costs(&self) -> (&Run, u64) {
        (&self.run, self.requests)
    }
}

/// Makes a short and a long run under callgrind.
fn runs(case: &Case, runtime: &str, cpu: usize, quick: bool) -> Result<[Counted; 2], String> {
    let [few, many] = if quick { [20, 120] } else { [50, 550] };
    Ok([callgrind(case, runtime, cpu, few)?, callgrind(case, runtime, cpu, many)?])
}

/// Returns whether valgrind, of which callgrind is a part, is installed.
#[must_use]
pub fn callgrind_works() -> bool {
    Command::new("valgrind").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// A file that is removed when the value is dropped.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Runs a server under callgrind, with `rounds` requests per connection after the first one.
fn callgrind(case: &Case, runtime: &str, cpu: usize, rounds: u64) -> Result<Counted, String> {
    static RUN: AtomicU32 = AtomicU32::new(0);
    // ORDERING: Relaxed: the numbers only have to differ.
    let run = RUN.fetch_add(1, Ordering::Relaxed);
    let out = Temporary(std::env::temp_dir().join(format!("netpoll-bench-{}-{run}.callgrind", std::process::id())));
    let wrapper =
        ["valgrind", "--tool=callgrind", &format!("--callgrind-out-file={}", out.0.display())].map(str::to_owned);
    let server = Server::start(&case.server(runtime, 1, Some(cpu)), &wrapper)?;
    let mut load = Load::start(&case.load(true, Some(cpu)), server.port)?;
    let requests = load.run(Amount::Requests(rounds))?.requests;
    // The server ends before the generator, because the handling of disconnects is not part of a
    // request.
    let said = server.finish()?;
    drop(load);
    let costs = std::fs::read_to_string(&out.0).map_err(|error| format!("callgrind wrote no file: {error}"))?;
    let line = said.iter().find(|line| line.contains("Collected"));
    let count = line.and_then(|line| line.split(':').nth(1)?.trim().parse().ok());
    let instructions = count.ok_or_else(|| format!("callgrind counted nothing: {}", said.join(" / ")))?;
    Ok(Counted { instructions, requests, run: Run::parse(&costs) })
}

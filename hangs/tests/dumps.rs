//! Runs each program until its dump has the most important of the lines that docs/HANGS.md
//! explains, and then kills the program. Also tests that the programs exit by themselves.
//! `cargo test -p netpoll-hangs -- --nocapture` prints the dumps.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The time limit for an expected dump, and for the exit of a program.
const BOUND: Duration = Duration::from_secs(120);

/// A running program, which is killed when the value is dropped.
struct Program {
    child: Child,
    path: PathBuf,
}

impl Program {
    /// Starts a program with a socket for its dumps.
    fn start(executable: &str) -> Program {
        let name = executable.rsplit('/').next().unwrap();
        let path = std::env::temp_dir().join(format!("netpoll-hang-{}-{name}", std::process::id()));
        let child = Command::new(executable)
            .env("NETPOLL_INSPECT", &path)
            .env("NETPOLL_HANG_SECONDS", "300")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Program { child, path }
    }

    /// Returns the dump that the program sends over its socket.
    fn dump(&self) -> std::io::Result<String> {
        let mut client = UnixStream::connect(&self.path)?;
        client.write_all(b"text\n")?;
        let mut text = String::new();
        client.read_to_string(&mut text)?;
        Ok(text)
    }

    /// Waits until, for each list in `expected`, the dump has a line that contains all texts of the
    /// list.
    fn until(&self, expected: &[&[&str]]) {
        let begin = Instant::now();
        loop {
            let dump = self.dump().unwrap_or_default();
            let has = |parts: &&[&str]| dump.lines().any(|line| parts.iter().all(|part| line.contains(part)));
            if expected.iter().all(has) {
                println!("{}:\n{dump}", self.path.display());
                return;
            }
            assert!(begin.elapsed() < BOUND, "no lines with {expected:?} within {BOUND:?}:\n{dump}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.path);
    }
}

#[test]
fn client_of_a_lost_message_waits_for_something_foreign() {
    let program = Program::start(env!("CARGO_BIN_EXE_lost_message"));
    program.until(&[&["client", "waiting", "something foreign", "src/bin/lost_message.rs:"]]);
}

#[test]
fn holder_of_a_lock_waits_for_a_socket_and_users_for_something_foreign() {
    let program = Program::start(env!("CARGO_BIN_EXE_lock_over_await"));
    program.until(&[
        &["refresher", "waiting", "read of fd", "(peer 127.0.0.1:"],
        &["user 0", "waiting", "something foreign"],
        &["user 2", "waiting", "something foreign"],
    ]);
}

#[test]
fn blocking_task_is_running_and_blocks_its_worker() {
    let program = Program::start(env!("CARGO_BIN_EXE_blocking_task"));
    program.until(&[&["resizer", "running"], &["task ", "(blocks)"]]);
}

#[test]
fn write_waits_on_a_socket_with_unsent_bytes() {
    let program = Program::start(env!("CARGO_BIN_EXE_zero_window"));
    program.until(&[&["sender", "waiting", "write to fd"], &["tcp", "ESTABLISHED", "write task", "unsent "]]);
}

#[test]
fn read_waits_on_a_socket_without_a_deadline() {
    let program = Program::start(env!("CARGO_BIN_EXE_no_deadline"));
    program.until(&[&["client", "waiting", "read of fd"], &["tcp", "ESTABLISHED", "read task", "  none  "]]);
}

#[test]
fn acceptor_waits_for_a_timer_beside_a_full_accept_queue() {
    let program = Program::start(env!("CARGO_BIN_EXE_full_accept_queue"));
    program.until(&[&["acceptor", "waiting", "a timer, in"], &["tcp", "LISTEN", "accept queue 5 of 4"]]);
}

#[test]
fn joins_in_a_cycle_are_shown_as_a_cycle() {
    let program = Program::start(env!("CARGO_BIN_EXE_join_cycle"));
    program.until(&[&["parser", "which waits for task", ": a cycle"], &["writer", ": a cycle"]]);
}

#[test]
fn starved_task_is_ready_like_its_neighbours() {
    let program = Program::start(env!("CARGO_BIN_EXE_chatty_neighbour"));
    program.until(&[&["quiet", "ready"], &["chatty 0", "ready"], &["chatty 19", "ready"]]);
}

#[test]
fn programs_exit_at_their_time_limit() {
    let programs = [
        env!("CARGO_BIN_EXE_lost_message"),
        env!("CARGO_BIN_EXE_lock_over_await"),
        env!("CARGO_BIN_EXE_blocking_task"),
        env!("CARGO_BIN_EXE_zero_window"),
        env!("CARGO_BIN_EXE_no_deadline"),
        env!("CARGO_BIN_EXE_full_accept_queue"),
        env!("CARGO_BIN_EXE_join_cycle"),
        env!("CARGO_BIN_EXE_chatty_neighbour"),
    ];
    let start = |program: &&str| Command::new(program).env("NETPOLL_HANG_SECONDS", "1").spawn().unwrap();
    // The programs run concurrently, so the test takes only as long as one program.
    for (program, mut child) in programs.iter().zip(programs.iter().map(start).collect::<Vec<_>>()) {
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if begin.elapsed() > BOUND {
                child.kill().unwrap();
                panic!("{program} still runs after {BOUND:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(status.code(), Some(i32::from(netpoll_hangs::ENDED)), "{program}");
    }
}

//! Runs an example in its own process, and reads its output line by line and its exit status. Every
//! wait for a line or for the exit has a bound, and a process that still runs at the end of a test
//! is killed.
#![allow(dead_code, unreachable_pub)] // Each test binary uses a part.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// The bound of each wait. A correct example does not reach the bound even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// A running example.
#[derive(Debug)]
pub struct Example {
    pub child: Child,
    lines: Receiver<String>,
}

impl Example {
    pub fn start(name: &str, args: &[&str]) -> Example {
        Example::spawn(Command::new(path(name)).args(args))
    }

    pub fn spawn(command: &mut Command) -> Example {
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let (send, lines) = channel();
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        Example { child, lines }
    }

    /// Waits for the next line of the standard output.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line of output")
    }

    /// Waits for the next line, which must be `listening on ADDRESS` or begin with this text and a
    /// comma. Returns the address.
    pub fn addr(&self) -> SocketAddr {
        let line = self.line();
        let text = line.strip_prefix("listening on ").expect("an address").split(',').next().unwrap_or_default();
        text.parse().expect("an address")
    }

    pub fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("stdin is piped")
    }

    /// Sends SIGTERM to the example.
    pub fn terminate(&self) {
        terminate(self.child.id()).expect("the example runs");
    }

    /// Waits for the exit. Returns the status and the rest of the standard output.
    pub fn end(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + PATIENCE;
        let mut output = String::new();
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            output += &line;
            output.push('\n');
        }
        // The output has ended or the deadline has passed. After the end of the output, the process
        // exits soon.
        loop {
            match self.child.try_wait().expect("a child") {
                Some(status) => return (status, output),
                None => assert!(Instant::now() < deadline, "the example does not end: {output}"),
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends SIGTERM to the process `id`, which the test or an example has started.
pub fn terminate(id: u32) -> std::io::Result<()> {
    let pid = rustix::process::Pid::from_raw(id.cast_signed()).expect("a process");
    Ok(rustix::process::kill_process(pid, rustix::process::Signal::TERM)?)
}

/// Returns the path of an example's executable, which must exist.
pub fn path(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let path = test.parent().and_then(|deps| deps.parent()).expect("target/PROFILE/deps").join("examples").join(name);
    assert!(path.exists(), "{} is missing; `cargo test` and `cargo build --examples` build it", path.display());
    path
}

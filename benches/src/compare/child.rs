//! Servers and generators as child processes, which are controlled through pipes. Dropping a
//! [`Process`], a [`Server`] or a [`Load`] ends the child process.

use crate::generator::{Amount, Churn, Outcome};
use crate::servers::{Hog, Mode};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

/// The time limit for a line from a child. It is long, because a server under valgrind is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// Returns the path of a program in the directory of the running executable.
///
/// # Errors
/// Returns an error if the path of the running executable is unknown, or if the directory has no
/// such program.
pub fn program(name: &str) -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let path = own.with_file_name(name);
    if path.exists() { Ok(path) } else { Err(format!("{} is not built", path.display())) }
}

/// A child process, whose standard output and standard error are read line by line.
#[derive(Debug)]
pub struct Process {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Receiver<String>,
    name: String,
}

impl Process {
    /// Starts `command`.
    ///
    /// # Errors
    /// Returns an error if the command cannot be started.
    pub fn start(mut command: Command) -> Result<Process, String> {
        // Uses the name, not the path, because the text may appear in a report.
        let program = PathBuf::from(command.get_program());
        let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("{name}: {error}"))?;
        let lines = reader(child.stdout.take());
        let errors = reader(child.stderr.take());
        Ok(Process { input: child.stdin.take(), child, lines, errors, name })
    }

    /// Returns the process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the next line of standard output.
    ///
    /// # Errors
    /// Returns an error if the process has ended, or prints no line there for a minute.
    pub fn line(&mut self) -> Result<String, String> {
        self.lines.recv_timeout(PATIENCE).map_err(|error| match error {
            RecvTimeoutError::Timeout => format!("{}: no line within {PATIENCE:?}", self.name),
            RecvTimeoutError::Disconnected => format!("{} has ended: {}", self.name, self.rest_of_errors()),
        })
    }

    /// Returns the lines on standard error until it is closed, or until no line follows for a
    /// second.
    fn rest_of_errors(&self) -> String {
        let lines = std::iter::from_fn(|| self.errors.recv_timeout(Duration::from_secs(1)).ok());
        lines.collect::<Vec<_>>().join(" / ")
    }

    /// Waits for a line on standard error that contains `text`. Returns the line.
    ///
    /// # Errors
    /// Returns an error if the process has ended without printing such a line, or prints no line
    /// there for a minute.
    pub fn error_line(&mut self, text: &str) -> Result<String, String> {
        loop {
            let line = self.errors.recv_timeout(PATIENCE).map_err(|error| format!("{}: {error}", self.name))?;
            if line.contains(text) {
                return Ok(line);
            }
        }
    }

    /// Sends a line to the process.
    ///
    /// # Errors
    /// Returns an error if the process has ended or has closed its input.
    pub fn tell(&mut self, line: &str) -> Result<(), String> {
        let Some(input) = &mut self.input else { return Err(format!("{}: its input is closed", self.name)) };
        writeln!(input, "{line}").map_err(|error| format!("{}: {error}", self.name))
    }

    /// Closes the input and waits for the end of the process. Returns the lines on standard error
    /// that were not read yet.
    ///
    /// # Errors
    /// Returns an error if the process neither ends nor prints a line for a minute, and kills it.
    /// Returns the errors of kill(2) and waitpid(2).
    pub fn finish(&mut self) -> Result<Vec<String>, String> {
        self.input = None;
        let ended = loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break true,
                Err(RecvTimeoutError::Timeout) => break false,
            }
        };
        if !ended {
            self.child.kill().map_err(|error| format!("{}: {error}", self.name))?;
        }
        let said = self.errors.iter().collect();
        self.child.wait().map_err(|error| format!("{}: {error}", self.name))?;
        if ended { Ok(said) } else { Err(format!("{} does not exit when its input ends", self.name)) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.input = None;
        // An error of either call means that the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a thread that reads `pipe` line by line. Returns the receiver of the lines.
fn reader(pipe: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    if let Some(pipe) = pipe {
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines() {
                let Ok(line) = line else { break };
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
    }
    receiver
}

/// The settings with which a server is started.
#[derive(Debug, Clone)]
pub struct ServerPlan {
    /// The name of the runtime, one of [`RUNTIMES`](crate::servers::RUNTIMES).
    pub runtime: String,
    /// How the server handles a connection.
    pub mode: Mode,
    /// The number of worker threads.
    pub workers: usize,
    /// The size of a connection's buffer in bytes.
    pub buffer: usize,
    /// Whether the future of `block_on`, not a spawned task, serves the connection.
    pub in_block_on: bool,
    /// Whether the server has one more thread, which does nothing.
    pub idle_thread: bool,
    /// The number of hogs: tasks (in the bare loop, threads) that compete with the echo for the
    /// CPUs.
    pub hogs: usize,
    /// The behaviour of the hogs.
    pub hog: Hog,
    /// The user CPU time that the server spends on each request in addition to the echo, in
    /// microseconds.
    pub work_us: u64,
    /// The CPU to which the server is pinned under SCHED_BATCH. `None` permits all CPUs, under the
    /// inherited policy.
    pub cpu: Option<usize>,
}

impl ServerPlan {
    /// Returns the settings of an echo server with one worker and without any additions.
    #[must_use]
    pub fn new(runtime: &str) -> ServerPlan {
        ServerPlan {
            runtime: runtime.to_owned(),
            mode: Mode::Echo,
            workers: 1,
            buffer: 4096,
            in_block_on: false,
            idle_thread: false,
            hogs: 0,
            hog: Hog::Spin,
            work_us: 0,
            cpu: None,
        }
    }
}

/// A running server process that listens on 127.0.0.1.
#[derive(Debug)]
pub struct Server {
    process: Process,
    /// The port on which the server listens.
    pub port: u16,
}

impl Server {
    /// Starts a server. `wrapper` is a command that runs it, such as `valgrind` and its options,
    /// and may be empty.
    ///
    /// # Errors
    /// Returns an error if the server does not start, for example because the runtime does not work
    /// on this machine.
    pub fn start(plan: &ServerPlan, wrapper: &[String]) -> Result<Server, String> {
        let server = program("server")?;
        let mut command = match wrapper.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(server);
                command
            }
            None => Command::new(server),
        };
        let hog = match plan.hog {
            Hog::Spin => "spin",
            Hog::Yield => "yield",
            Hog::Sleep => "sleep",
        };
        command.args(["--runtime", &plan.runtime, "--mode", plan.mode.name(), "--hog", hog]);
        for (name, number) in [
            ("--workers", plan.workers as u64),
            ("--buffer", plan.buffer as u64),
            ("--hogs", plan.hogs as u64),
            ("--work-us", plan.work_us),
        ] {
            command.arg(name).arg(number.to_string());
        }
        if plan.in_block_on {
            command.arg("--serve-in-block-on");
        }
        // A Go program always has several threads.
        if plan.idle_thread && plan.runtime != crate::servers::go::NAME {
            command.arg("--idle-thread");
        }
        place(&mut command, plan.cpu);
        let mut process = Process::start(command)?;
        let line = process.line()?;
        let port = line.strip_prefix("ready ").and_then(|port| port.parse().ok());
        Ok(Server { port: port.ok_or_else(|| format!("{}: `{line}` contains no port", plan.runtime))?, process })
    }

    /// Returns the process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Returns the server's CPU time in nanoseconds. This does not interrupt the server.
    ///
    /// # Errors
    /// Returns the errors of [`process_cpu_ns`](crate::sys::process_cpu_ns).
    pub fn cpu_ns(&self) -> Result<u64, String> {
        crate::sys::process_cpu_ns(self.id()).map_err(|error| error.to_string())
    }

    /// Returns the server's memory and context switches. This does not interrupt the server.
    ///
    /// # Errors
    /// Returns the errors of [`procfs::snapshot`](crate::procfs::snapshot).
    pub fn snapshot(&self) -> Result<crate::procfs::Snapshot, String> {
        crate::procfs::snapshot(self.id()).map_err(|error| error.to_string())
    }

    /// Ends the server. Returns the lines that the server and its wrapper have printed to standard
    /// error.
    ///
    /// # Errors
    /// Returns the errors of [`Process::finish`].
    pub fn finish(mut self) -> Result<Vec<String>, String> {
        self.process.finish()
    }
}

/// The settings with which a generator is started.
#[derive(Debug, Clone, Copy)]
pub struct LoadPlan {
    /// The number of concurrent connections.
    pub connections: usize,
    /// The number of bytes per message.
    pub size: usize,
    /// The side that closes a connection after one echo, or `None` if connections stay open.
    pub churn: Option<Churn>,
    /// The CPU to which the generator is pinned under SCHED_BATCH. `None` permits all CPUs, under
    /// the inherited policy.
    pub cpu: Option<usize>,
    /// Whether the generator runs in lock-step rather than freely. If `cpu` or `churn` is set, it
    /// always runs in lock-step.
    pub lock_step: bool,
    /// The [patience](crate::generator::Plan::patience) of the generator, in seconds. It must
    /// suffice for a server under valgrind, which is slow. It limits the wait for a server that
    /// gets no CPU time because of hogs.
    pub patience_seconds: u64,
}

/// A generator with open connections.
#[derive(Debug)]
pub struct Load(Process);

impl Load {
    /// Starts a generator, and waits until it has exchanged one message on each connection with the
    /// server at `port`.
    ///
    /// # Errors
    /// Returns an error if the generator is not built, cannot be started, or fails.
    pub fn start(plan: &LoadPlan, port: u16) -> Result<Load, String> {
        let mut command = Command::new(program("load")?);
        command.arg("--stay");
        for (name, number) in [
            ("--port", u64::from(port)),
            ("--connections", plan.connections as u64),
            ("--size", plan.size as u64),
            ("--patience", plan.patience_seconds),
        ] {
            command.arg(name).arg(number.to_string());
        }
        if let Some(churn) = plan.churn {
            command.args(["--churn", if churn == Churn::Server { "server" } else { "client" }]);
        }
        if plan.cpu.is_none() && !plan.lock_step {
            command.arg("--free");
        }
        place(&mut command, plan.cpu);
        let mut process = Process::start(command)?;
        match process.line()?.as_str() {
            "warm" => Ok(Load(process)),
            line => Err(line.to_owned()),
        }
    }

    /// Makes a run. Returns its figures.
    ///
    /// # Errors
    /// Returns an error if the generator fails; see
    /// [`Generator::run`](crate::generator::Generator::run).
    pub fn run(&mut self, amount: Amount) -> Result<Outcome, String> {
        self.0.tell(&match amount {
            Amount::Requests(count) => count.to_string(),
            Amount::Time(time) => format!("{}s", time.as_secs_f64()),
        })?;
        let line = self.0.line()?;
        line.strip_prefix("result ").ok_or_else(|| line.clone())?.parse()
    }
}

/// Adds the options that pin the process to `cpu` under SCHED_BATCH.
fn place(command: &mut Command, cpu: Option<usize>) {
    if let Some(cpu) = cpu {
        command.args(["--cpu", &cpu.to_string(), "--batch"]);
    }
}

//! Servers and generators as child processes, spoken to over pipes. Dropping one ends it.

use crate::generator::{Amount, Churn, Outcome};
use crate::servers::{Hog, Mode};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

/// The longest any answer of a child is waited for. Valgrind is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the programs are: beside this one.
///
/// # Errors
/// The program's own path is unknown.
pub fn program(name: &str) -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let path = own.with_file_name(name);
    if path.exists() { Ok(path) } else { Err(format!("{} is not built", path.display())) }
}

/// A child whose output arrives line by line.
#[derive(Debug)]
pub struct Process {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Receiver<String>,
    what: String,
}

impl Process {
    /// Starts `command`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(mut command: Command) -> Result<Process, String> {
        // Its name, not its path: the text may appear in a report.
        let program = PathBuf::from(command.get_program());
        let what = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("{what}: {error}"))?;
        let lines = reader(child.stdout.take());
        let errors = reader(child.stderr.take());
        Ok(Process { input: child.stdin.take(), child, lines, errors, what })
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line of its output.
    ///
    /// # Errors
    /// It ended, or was silent for a minute.
    pub fn line(&mut self) -> Result<String, String> {
        self.lines.recv_timeout(PATIENCE).map_err(|error| {
            let said: Vec<String> = self.errors.try_iter().collect();
            format!("{}: {error}: {}", self.what, said.join(" / "))
        })
    }

    /// Waits for a line of its standard error that contains `text`.
    ///
    /// # Errors
    /// It ended without one, or was silent for a minute.
    pub fn error_line(&mut self, text: &str) -> Result<String, String> {
        loop {
            let line = self.errors.recv_timeout(PATIENCE).map_err(|error| format!("{}: {error}", self.what))?;
            if line.contains(text) {
                return Ok(line);
            }
        }
    }

    /// Sends it a line.
    ///
    /// # Errors
    /// It closed its input.
    pub fn tell(&mut self, line: &str) -> Result<(), String> {
        let Some(input) = &mut self.input else { return Err(format!("{}: its input is closed", self.what)) };
        writeln!(input, "{line}").map_err(|error| format!("{}: {error}", self.what))
    }

    /// Closes its input, waits for its end, and returns its new output on standard error.
    ///
    /// # Errors
    /// It does not end (and is killed), or cannot be waited for.
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
            self.child.kill().map_err(|error| format!("{}: {error}", self.what))?;
        }
        let said = self.errors.iter().collect();
        self.child.wait().map_err(|error| format!("{}: {error}", self.what))?;
        if ended { Ok(said) } else { Err(format!("{} does not end with its input", self.what)) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.input = None;
        // An error of either means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

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

/// How a server is started.
#[derive(Debug, Clone)]
pub struct ServerPlan {
    /// Which runtime.
    pub runtime: String,
    /// The server's mode for a connection.
    pub mode: Mode,
    /// Worker threads.
    pub workers: usize,
    /// Bytes of a connection's buffer.
    pub buffer: usize,
    /// Whether the future of `block_on` serves.
    pub in_block_on: bool,
    /// Tasks beside the echo.
    pub hogs: usize,
    /// The kind of tasks.
    pub hog: Hog,
    /// User CPU of a request.
    pub work_us: u64,
    /// The CPU it shares with the generator under SCHED_BATCH; none: free.
    pub cpu: Option<usize>,
}

impl ServerPlan {
    /// A plain echo server with one worker.
    #[must_use]
    pub fn new(runtime: &str) -> ServerPlan {
        ServerPlan {
            runtime: runtime.to_owned(),
            mode: Mode::Echo,
            workers: 1,
            buffer: 4096,
            in_block_on: false,
            hogs: 0,
            hog: Hog::Spin,
            work_us: 0,
            cpu: None,
        }
    }
}

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    process: Process,
    /// Its port.
    pub port: u16,
}

impl Server {
    /// Starts one, under `wrapper` (a program and its arguments, such as valgrind's) if there is any.
    ///
    /// # Errors
    /// It does not come up: the runtime may not work on this machine.
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
        place(&mut command, plan.cpu);
        let mut process = Process::start(command)?;
        let line = process.line()?;
        let port = line.strip_prefix("ready ").and_then(|port| port.parse().ok());
        Ok(Server { port: port.ok_or_else(|| format!("{}: `{line}` is not its port", plan.runtime))?, process })
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its CPU time, read without its doing anything.
    ///
    /// # Errors
    /// It has ended.
    pub fn cpu_ns(&self) -> Result<u64, String> {
        crate::sys::process_cpu_ns(self.id()).map_err(|error| error.to_string())
    }

    /// Its memory and context switches, read without its doing anything.
    ///
    /// # Errors
    /// It has ended.
    pub fn snapshot(&self) -> Result<crate::procfs::Snapshot, String> {
        crate::procfs::snapshot(self.id()).map_err(|error| error.to_string())
    }

    /// Kills it and returns what it and its wrapper wrote to standard error.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn finish(mut self) -> Result<Vec<String>, String> {
        self.process.finish()
    }
}

/// How a generator is started.
#[derive(Debug, Clone, Copy)]
pub struct LoadPlan {
    /// Connections at a time.
    pub connections: usize,
    /// Bytes of a message.
    pub size: usize,
    /// Whether connections are short, and which side ends them.
    pub churn: Option<Churn>,
    /// Lock-step on this CPU; none: free-running.
    pub cpu: Option<usize>,
    /// Lock-step without a CPU of its own, for counting.
    pub lock_step: bool,
    /// Seconds that a missing echo is waited for; valgrind is slow, and a server that is starved never answers.
    pub patience_seconds: u64,
}

/// A generator with its connections open.
#[derive(Debug)]
pub struct Load(Process);

impl Load {
    /// Starts one against `port`.
    ///
    /// # Errors
    /// The server does not answer.
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

    /// Makes it run.
    ///
    /// # Errors
    /// The server ended, garbled or did not answer.
    pub fn run(&mut self, amount: Amount) -> Result<Outcome, String> {
        self.0.tell(&match amount {
            Amount::Requests(count) => count.to_string(),
            Amount::Time(time) => format!("{}s", time.as_secs_f64()),
        })?;
        let line = self.0.line()?;
        line.strip_prefix("result ").ok_or_else(|| line.clone())?.parse()
    }
}

fn place(command: &mut Command, cpu: Option<usize>) {
    if let Some(cpu) = cpu {
        command.args(["--cpu", &cpu.to_string(), "--batch"]);
    }
}

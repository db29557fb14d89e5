//! `Builder`: what can be set before the runtime starts.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::thread::available_parallelism;

use super::context;
use super::runtime::{PROCESSORS_MAX, runtime};
use super::sched::sysmon::BlockedTask;
use crate::sync::Arc;

/// What is done about tasks that block their thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlockedPolicy {
    /// They are counted and reported, and workers are added while they block (up to [`Builder::spare_workers`]).
    #[default]
    AddWorkers,
    /// They are counted and reported.
    ReportOnly,
    /// Nothing.
    Off,
}

pub(crate) type Report = dyn Fn(&BlockedTask) + Send + Sync;

/// The settings of a running runtime.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) workers: usize,
    pub(crate) spares: usize,
    pub(crate) blocking_threads: usize,
    pub(crate) thread_name: String,
    pub(crate) blocked_tasks: BlockedPolicy,
    pub(crate) on_blocked_task: Option<Arc<Report>>,
    pub(crate) block_on_runs_tasks: bool,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("workers", &self.workers)
            .field("spares", &self.spares)
            .field("blocking_threads", &self.blocking_threads)
            .field("thread_name", &self.thread_name)
            .field("blocked_tasks", &self.blocked_tasks)
            .field("on_blocked_task", &self.on_blocked_task.is_some())
            .field("block_on_runs_tasks", &self.block_on_runs_tasks)
            .finish()
    }
}

const SPARES: usize = 64;
/// Beside the spare ones, of which the environment cannot say how many.
const WORKERS_MAX: usize = PROCESSORS_MAX - SPARES;
const BLOCKING_THREADS: usize = 256;
const THREADS_VARIABLE: &str = "NETPOLL_THREADS";
const NAME_VARIABLE: &str = "NETPOLL_THREAD_NAME";
/// async-std's, read where ours are not set.
const THREADS_FALLBACK: &str = "ASYNC_STD_THREAD_COUNT";
const NAME_FALLBACK: &str = "ASYNC_STD_THREAD_NAME";

impl Config {
    fn new() -> Config {
        Config {
            workers: available_parallelism().map_or(1, usize::from).min(WORKERS_MAX),
            spares: SPARES,
            blocking_threads: BLOCKING_THREADS,
            thread_name: "netpoll".to_owned(),
            blocked_tasks: BlockedPolicy::default(),
            on_blocked_task: None,
            block_on_runs_tasks: false,
        }
    }

    /// The defaults with what the environment says. A first use cannot return an error: a value that makes no sense is named on
    /// standard error and the default is taken.
    pub(crate) fn from_environment() -> Config {
        let mut config = Config::new();
        match workers_from_environment() {
            Ok(Some(workers)) => config.workers = workers,
            Ok(None) => {}
            Err(error) => eprintln!("netpoll: {error}; using {} workers", config.workers),
        }
        if let Some(name) = thread_name_from_environment() {
            config.thread_name = name;
        }
        config
    }
}

/// Ours where it is set, otherwise async-std's.
fn variable(ours: &'static str, fallback: &'static str) -> Option<(&'static str, OsString)> {
    [ours, fallback].into_iter().find_map(|name| Some((name, std::env::var_os(name)?)))
}

/// async-std takes a number that makes no sense for its default, silently; so does the fallback.
fn workers_from_environment() -> io::Result<Option<usize>> {
    let Some((name, value)) = variable(THREADS_VARIABLE, THREADS_FALLBACK) else { return Ok(None) };
    let workers = value.to_str().and_then(|value| value.trim().parse().ok());
    match workers {
        Some(workers @ 1..=WORKERS_MAX) => Ok(Some(workers)),
        _ if name == THREADS_FALLBACK => Ok(None),
        _ => Err(invalid(format!("{name}={} is not a number of threads from 1 to {}", value.display(), WORKERS_MAX))),
    }
}

/// The environment cannot hold a NUL byte, so any name will do that is text.
fn thread_name_from_environment() -> Option<String> {
    variable(NAME_VARIABLE, NAME_FALLBACK)?.1.into_string().ok()
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// Settings for the runtime, which starts at its first use if nobody started it.
///
/// # Examples
/// ```
/// use netpoll::rt::{BlockedPolicy, Builder};
///
/// Builder::new()
///     .workers(2)
///     .thread_name("app")
///     .blocked_tasks(BlockedPolicy::AddWorkers)
///     .on_blocked_task(|task| eprintln!("task {} {:?} blocks its thread", task.id, task.name))
///     .start()?;
/// assert_eq!(netpoll::rt::metrics().workers, 2);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "settings do nothing until `start`"]
pub struct Builder {
    config: Config,
    workers: Option<usize>,
    thread_name: Option<String>,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder::new()
    }
}

impl Builder {
    /// The defaults: a worker a CPU, 64 spare workers, 256 threads for blocking calls.
    ///
    /// The environment variables `NETPOLL_THREADS` and `NETPOLL_THREAD_NAME` count where [`workers`](Builder::workers) and
    /// [`thread_name`](Builder::thread_name) are not called, and where they are not set async-std's `ASYNC_STD_THREAD_COUNT` and
    /// `ASYNC_STD_THREAD_NAME`.
    pub fn new() -> Builder {
        Builder { config: Config::new(), workers: None, thread_name: None }
    }

    /// How many threads run tasks at the same time, from 1 up. Threads start when there is work for them. A thread in
    /// [`block_on`](crate::task::block_on) is none of them.
    pub fn workers(mut self, workers: usize) -> Builder {
        self.workers = Some(workers);
        self
    }

    /// How many workers may be added while tasks block their threads. 0: none.
    pub fn spare_workers(mut self, spares: usize) -> Builder {
        self.config.spares = spares;
        self
    }

    /// How many threads [`spawn_blocking`](crate::task::spawn_blocking) may use, from 1 up. Calls beyond that wait in a queue. Name
    /// look-ups may use as many threads of their own, so that they do not wait for other calls.
    pub fn blocking_threads(mut self, threads: usize) -> Builder {
        self.config.blocking_threads = threads;
        self
    }

    /// The name of the runtime's threads; ones with another duty than tasks have it with a suffix. The kernel shows 15 bytes.
    pub fn thread_name(mut self, name: impl Into<String>) -> Builder {
        self.thread_name = Some(name.into());
        self
    }

    /// What is done about tasks that block their thread for longer than 10 ms.
    pub fn blocked_tasks(mut self, policy: BlockedPolicy) -> Builder {
        self.config.blocked_tasks = policy;
        self
    }

    /// Called once for each time that a task is found to block its thread, on a thread that runs no tasks. A panic in it is
    /// contained.
    pub fn on_blocked_task(mut self, report: impl Fn(&BlockedTask) + Send + Sync + 'static) -> Builder {
        self.config.on_blocked_task = Some(Arc::new(report));
        self
    }

    /// Whether a thread in [`block_on`](crate::task::block_on) also runs spawned tasks while it waits, as long as a worker's place is
    /// free. The default is `false`: workers run the tasks.
    ///
    /// With `true`, a task that blocks such a thread keeps the future of `block_on` from going on. If the task waits for that future,
    /// neither ends.
    pub fn block_on_runs_tasks(mut self, runs: bool) -> Builder {
        self.config.block_on_runs_tasks = runs;
        self
    }

    /// Starts the runtime with these settings.
    ///
    /// # Errors
    /// `AlreadyExists` if it runs already, by an earlier `start` or by its first use (spawning, waiting, sleeping); settings
    /// can be changed after [`shutdown`](crate::rt::shutdown). `InvalidInput` for a number that makes no sense, also one
    /// in `NETPOLL_THREADS` where [`workers`](Builder::workers) was not called. `Unsupported` inside a runtime that a shutdown ends.
    /// `Other` if the system refuses a thread for a quarter of a second.
    pub fn start(self) -> io::Result<()> {
        let Builder { mut config, workers, thread_name } = self;
        config.workers = match workers {
            Some(workers) => workers,
            None => workers_from_environment()?.unwrap_or(config.workers),
        };
        if let Some(name) = thread_name.or_else(thread_name_from_environment) {
            config.thread_name = name;
        }
        if config.workers == 0 {
            return Err(invalid("a runtime needs at least one worker".to_owned()));
        }
        if config.blocking_threads == 0 {
            return Err(invalid(
                "a runtime needs at least one thread for blocking calls: names are resolved there".to_owned(),
            ));
        }
        if config.workers.saturating_add(config.spares) > PROCESSORS_MAX {
            return Err(invalid(format!(
                "{} workers and {} spare ones are more than {PROCESSORS_MAX}",
                config.workers, config.spares
            )));
        }
        if config.thread_name.contains('\0') {
            return Err(invalid("a thread's name cannot contain a NUL byte".to_owned()));
        }
        super::fork::check()?;
        let runtime = runtime();
        if runtime.is_stopping() && context::is_inside() {
            // A destructor that the shutdown runs, or a task that has not ended: the shutdown waits for it.
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the runtime cannot be started from inside one that ends",
            ));
        }
        let _lifecycle = runtime.lifecycle_at_rest();
        if runtime.is_running() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "the runtime runs already: call rt::Builder::start before its first use, or after rt::shutdown",
            ));
        }
        let started = runtime.prepare_start(config);
        started.map_err(|error| io::Error::other(format!("netpoll cannot start a thread: {error}")))?;
        runtime.start();
        Ok(())
    }
}

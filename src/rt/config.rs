//! [`Config`]: the settings of a running runtime, and the environment variables that set some of
//! them.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::panic::Location;
use std::thread::available_parallelism;
use std::time::Duration;

use super::poll::back_ends::Instance;
use super::poll::roles::SHARDS_MAX;
use super::sched::identity::TaskId;
use super::sched::lanes;
use super::warn::warn;
use crate::sync::{Arc, AtomicBool, Ordering};

/// How the runtime handles tasks that block their thread.
///
/// # Examples
/// ```no_run
/// use netpoll::rt::{BlockedPolicy, Builder};
///
/// Builder::new().blocked_tasks(BlockedPolicy::ReportOnly).start()?;
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlockedPolicy {
    /// Counts and reports blocked tasks, and adds workers while blocked tasks occupy all awake
    /// threads, up to [`Builder::spare_workers`](crate::rt::Builder::spare_workers).
    #[default]
    AddWorkers,
    /// Counts and reports blocked tasks, but adds no workers. The tasks queued behind a blocked
    /// task run on other workers, or wait while all workers are blocked.
    ReportOnly,
    /// Neither counts nor reports blocked tasks, and adds no workers. The tasks queued behind a
    /// blocked task run as with [`ReportOnly`](BlockedPolicy::ReportOnly).
    Off,
}

/// A task that blocks its thread, as passed to
/// [`Builder::on_blocked_task`](crate::rt::Builder::on_blocked_task).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BlockedTask {
    /// The task's id, as returned by [`Task::id`](crate::task::Task::id).
    pub id: TaskId,
    /// The task's name, if it has one.
    pub name: Option<String>,
    /// The file and line of the call that spawned the task. `None` if the task has ended in the
    /// meantime, or if the call is in a library that is loaded far from this crate in memory.
    pub spawned_at: Option<&'static Location<'static>>,
    /// A lower bound of the time that the task has spent in its current poll.
    pub blocked_for: Duration,
}

/// The maximum number of workers and spare workers together.
pub(crate) const PROCESSORS_MAX: usize = 512;

pub(crate) type Report = dyn Fn(&BlockedTask) + Send + Sync;

/// The settings of a running runtime.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) workers: usize,
    /// The number of shards of the poller, or `None` for one per [`WORKERS_PER_SHARD`] workers.
    pub(super) shards: Option<usize>,
    pub(crate) spares: usize,
    pub(crate) blocking_threads: usize,
    pub(crate) thread_name: String,
    pub(crate) blocked_tasks: BlockedPolicy,
    pub(crate) on_blocked_task: Option<Arc<Report>>,
    pub(crate) block_on_runs_tasks: bool,
    pub(crate) single_threaded: bool,
    pub(crate) wrap_io_errors: bool,
    /// The share of the control lane, in percent.
    pub(crate) control_share: u32,
    /// Called by sysmon when it finds that a task blocks its thread. Must return soon.
    pub(crate) on_stall: fn(),
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("workers", &self.workers)
            .field("shards", &self.shards)
            .field("spares", &self.spares)
            .field("blocking_threads", &self.blocking_threads)
            .field("thread_name", &self.thread_name)
            .field("blocked_tasks", &self.blocked_tasks)
            .field("on_blocked_task", &self.on_blocked_task.is_some())
            .field("block_on_runs_tasks", &self.block_on_runs_tasks)
            .field("single_threaded", &self.single_threaded)
            .field("wrap_io_errors", &self.wrap_io_errors)
            .field("control_share", &self.control_share)
            .finish()
    }
}

/// The setting `wrap_io_errors` of the current or last runtime. Accepts, dials and failed
/// operations read it.
static WRAPS_IO_ERRORS: AtomicBool = AtomicBool::new(false);

/// Returns whether OS errors name the operation and the addresses; see
/// [`Builder::wrap_io_errors`](crate::rt::Builder::wrap_io_errors).
#[inline]
pub(crate) fn wraps_io_errors() -> bool {
    WRAPS_IO_ERRORS.load(Ordering::Relaxed)
}

/// The default number of workers per shard. According to the model in docs/SCALING.md, 16 busy
/// workers keep one shard busy for two thirds of the time.
const WORKERS_PER_SHARD: usize = 8;
pub(super) const SPARES: usize = 64;
/// The maximum number of workers of the default and of the environment. It leaves room for the
/// default number of spare workers.
pub(super) const WORKERS_MAX: usize = PROCESSORS_MAX - SPARES;
const BLOCKING_THREADS: usize = 256;
const THREADS_VARIABLE: &str = "NETPOLL_THREADS";
const NAME_VARIABLE: &str = "NETPOLL_THREAD_NAME";
const SHARDS_VARIABLE: &str = "NETPOLL_POLLER_SHARDS";
/// async-std's variables, which are read if this crate's are not set.
const THREADS_FALLBACK: &str = "ASYNC_STD_THREAD_COUNT";
const NAME_FALLBACK: &str = "ASYNC_STD_THREAD_NAME";

impl Config {
    pub(super) fn new() -> Config {
        Config {
            workers: available_parallelism().map_or(1, usize::from).min(WORKERS_MAX),
            shards: None,
            spares: SPARES,
            blocking_threads: BLOCKING_THREADS,
            thread_name: "netpoll".to_owned(),
            blocked_tasks: BlockedPolicy::default(),
            on_blocked_task: None,
            block_on_runs_tasks: false,
            single_threaded: false,
            wrap_io_errors: false,
            control_share: lanes::SHARE,
            on_stall: || (),
        }
    }

    /// Copies the settings that are read without a lock into their atomics.
    pub(crate) fn publish(&self) {
        WRAPS_IO_ERRORS.store(self.wrap_io_errors, Ordering::Relaxed);
        lanes::set_share(self.control_share);
    }

    /// Returns the defaults with the values from the environment. A start by a use cannot return an
    /// error, so an invalid number in a variable of this crate is replaced with the default and
    /// reported on standard error.
    pub(crate) fn from_environment() -> Config {
        let mut config = Config::new();
        match workers_from_environment() {
            Ok(Some(workers)) => config.workers = workers,
            Ok(None) => {}
            Err(error) => warn(format_args!("{error}; using {} workers", config.workers)),
        }
        match shards_from_environment() {
            Ok(shards) => config.shards = shards,
            Err(error) => warn(format_args!("{error}; using {} shards", config.poller_shards())),
        }
        if let Some(name) = thread_name_from_environment() {
            config.thread_name = name;
        }
        config
    }

    /// Returns the number of shards of the poller, which is 1 if the back end supports no more.
    pub(crate) fn poller_shards(&self) -> usize {
        match self.shards {
            _ if !Instance::shards_by_environment() => 1,
            Some(shards) => shards,
            None => (self.workers / WORKERS_PER_SHARD).clamp(1, SHARDS_MAX),
        }
    }
}

/// Returns the name and the value of this crate's variable or, if it is not set, of async-std's
/// variable.
fn variable(ours: &'static str, fallback: &'static str) -> Option<(&'static str, OsString)> {
    [ours, fallback].into_iter().find_map(|name| Some((name, std::env::var_os(name)?)))
}

/// Returns the number of workers that the environment sets, if it sets one.
///
/// An invalid number in async-std's variable is ignored, as async-std does.
///
/// # Errors
/// Returns `InvalidInput` if `NETPOLL_THREADS` is not a number from 1 to [`WORKERS_MAX`].
pub(super) fn workers_from_environment() -> io::Result<Option<usize>> {
    let Some((name, value)) = variable(THREADS_VARIABLE, THREADS_FALLBACK) else { return Ok(None) };
    let workers = value.to_str().and_then(|value| value.trim().parse().ok());
    match workers {
        Some(workers @ 1..=WORKERS_MAX) => Ok(Some(workers)),
        _ if name == THREADS_FALLBACK => Ok(None),
        _ => Err(invalid(format!("{name}={} is not a number of threads from 1 to {}", value.display(), WORKERS_MAX))),
    }
}

/// Returns the number of shards that the environment sets, if it sets one.
///
/// # Errors
/// Returns `InvalidInput` if `NETPOLL_POLLER_SHARDS` is not a number from 1 to [`SHARDS_MAX`].
pub(super) fn shards_from_environment() -> io::Result<Option<usize>> {
    let Some(value) = std::env::var_os(SHARDS_VARIABLE) else { return Ok(None) };
    match value.to_str().and_then(|value| value.trim().parse().ok()) {
        Some(shards @ 1..=SHARDS_MAX) => Ok(Some(shards)),
        _ => Err(invalid(format!(
            "{SHARDS_VARIABLE}={} is not a number of shards from 1 to {SHARDS_MAX}",
            value.display()
        ))),
    }
}

/// Returns the thread name that the environment sets. Returns `None` if it sets none, or one that
/// is not valid UTF-8. The environment cannot contain a NUL byte, so the name is valid.
pub(super) fn thread_name_from_environment() -> Option<String> {
    variable(NAME_VARIABLE, NAME_FALLBACK)?.1.into_string().ok()
}

pub(super) fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

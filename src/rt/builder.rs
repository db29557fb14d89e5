//! [`Builder`]: settings for the runtime before it starts.

use std::io;
use std::path::PathBuf;

use super::config::{
    BlockedPolicy, BlockedTask, Config, PROCESSORS_MAX, invalid, shards_from_environment, thread_name_from_environment,
    workers_from_environment,
};
use super::context;
use super::poll::roles::SHARDS_MAX;
use super::runtime::runtime;
use crate::sync::Arc;

/// Settings for the runtime. Without `start`, the runtime starts with the defaults when it is first
/// used.
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
#[doc(alias = "runtime::Builder")]
#[doc(alias = "GOMAXPROCS")]
pub struct Builder {
    config: Config,
    workers: Option<usize>,
    thread_name: Option<String>,
    inspect_socket: Option<PathBuf>,
    black_box_file: Option<PathBuf>,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder::new()
    }
}

impl Builder {
    /// Creates settings with the defaults: one worker per CPU, 64 spare workers, 256 threads for
    /// blocking calls, one shard of the poller per 8 workers.
    ///
    /// If [`workers`](Builder::workers) or [`thread_name`](Builder::thread_name) is not called, the
    /// environment variable `NETPOLL_THREADS` or `NETPOLL_THREAD_NAME` applies, and if it is not
    /// set, async-std's `ASYNC_STD_THREAD_COUNT` or `ASYNC_STD_THREAD_NAME`. If
    /// [`poller_shards`](Builder::poller_shards) is not called, `NETPOLL_POLLER_SHARDS` applies.
    pub fn new() -> Builder {
        Builder { config: Config::new(), workers: None, thread_name: None, inspect_socket: None, black_box_file: None }
    }

    /// Sets the number of threads that run tasks at the same time, at least 1. Threads are started
    /// when there is work for them. A thread in [`block_on`](crate::task::block_on) is not counted.
    #[doc(alias = "worker_threads")]
    pub fn workers(mut self, workers: usize) -> Builder {
        self.workers = Some(workers);
        self
    }

    /// Sets the number of workers that may be added while tasks block their threads. 0 adds none.
    pub fn spare_workers(mut self, spares: usize) -> Builder {
        self.config.spares = spares;
        self
    }

    /// Sets the number of shards of the poller, from 1 to 64. The default is one per 8 workers, and
    /// one for fewer than 16 workers. This is for tests and tuning.
    ///
    /// A shard is an epoll instance, which one thread at a time waits in. A descriptor is registered
    /// in one shard and stays there, preferably in that of the worker that registers it. More shards
    /// let more threads take events at the same time, and contend less for the kernel's lock of an
    /// instance. But a thread that waits while no other one is awake waits in all shards, which costs
    /// a system call more. An instance, with two descriptors, is opened when it is first used.
    ///
    /// On other back ends than epoll there is one shard, whatever this is set to.
    ///
    /// # Examples
    /// ```
    /// use netpoll::rt;
    ///
    /// rt::Builder::new().workers(2).poller_shards(2).start()?;
    /// # if cfg!(target_os = "linux") && std::env::var_os("NETPOLL_BACKEND").is_none() {
    /// assert_eq!(rt::metrics().poller_shards, 2);
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    pub fn poller_shards(mut self, shards: usize) -> Builder {
        self.config.shards = Some(shards);
        self
    }

    /// Sets the maximum number of threads for [`spawn_blocking`](crate::task::spawn_blocking), at
    /// least 1. Further calls wait in a queue. Name look-ups, and closes of sockets for which
    /// SO_LINGER is set, have separate threads, up to the same number each, so that they do not wait
    /// for other calls.
    #[doc(alias = "max_blocking_threads")]
    pub fn blocking_threads(mut self, threads: usize) -> Builder {
        self.config.blocking_threads = threads;
        self
    }

    /// Sets the name of the runtime's threads; threads that do not run tasks have a suffix. The
    /// kernel shows 15 bytes.
    pub fn thread_name(mut self, name: impl Into<String>) -> Builder {
        self.thread_name = Some(name.into());
        self
    }

    /// Sets how tasks that block their thread for more than 10 ms are handled.
    pub fn blocked_tasks(mut self, policy: BlockedPolicy) -> Builder {
        self.config.blocked_tasks = policy;
        self
    }

    /// Sets a function that is called once for each time that a task is found to block its thread.
    /// It is called on a thread of its own, for one task after the other, and may block: further
    /// reports wait, at most 256 of them. A panic in it is contained.
    pub fn on_blocked_task(mut self, report: impl Fn(&BlockedTask) + Send + Sync + 'static) -> Builder {
        self.config.on_blocked_task = Some(Arc::new(report));
        self
    }

    /// Sets whether a thread in [`block_on`](crate::task::block_on) also runs spawned tasks while
    /// it waits, if the number of workers allows it. The default is `false`: only workers run
    /// tasks.
    ///
    /// With `true`, a task that blocks such a thread delays the future of `block_on`. If the task
    /// waits for that future, both deadlock.
    pub fn block_on_runs_tasks(mut self, runs: bool) -> Builder {
        self.config.block_on_runs_tasks = runs;
        self
    }

    /// Sets whether the operating system's errors of reads, writes and accepts name the operation
    /// and the addresses, as Go's do (default: no).
    ///
    /// With `true`, a reset connection fails with `read tcp 127.0.0.1:2->127.0.0.1:1: read:
    /// connection reset by peer`, an [`OpError`](crate::net::OpError) of the same kind. The addresses
    /// of accepted connections and of dialed TCP connections are asked for at the beginning, because
    /// the kernel forgets them with a reset: two system calls per connection. The errno of
    /// such an error is returned by [`net::raw_os_error`](crate::net::raw_os_error()), and no longer
    /// by `io::Error::raw_os_error`. The errors of binding, dialing and resolving, and those that
    /// this crate makes, are always `OpError`s.
    ///
    /// # Examples
    /// ```
    /// use netpoll::{net::{self, TcpListener, TcpStream}, prelude::*, rt, task};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// rt::Builder::new().wrap_io_errors(true).start()?;
    /// task::block_on(async {
    ///     let listener = TcpListener::bind("127.0.0.1:0").await?;
    ///     let client = TcpStream::connect(listener.local_addr()?).await?;
    ///     let (server, _) = listener.accept().await?;
    ///     server.set_linger(Some(std::time::Duration::ZERO))?;
    ///     server.force_close().await?; // resets the connection
    ///     let error = client.read(&mut [0; 8]).await.unwrap_err();
    ///     assert!(error.to_string().ends_with(": read: connection reset by peer"), "{error}");
    ///     assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    ///     assert!(net::raw_os_error(&error).is_some());
    ///     Ok(())
    /// })
    /// # }
    /// ```
    #[doc(alias = "net.OpError")]
    pub fn wrap_io_errors(mut self, wrap: bool) -> Builder {
        self.config.wrap_io_errors = wrap;
        self
    }

    /// Sets the share of each worker's time or turns, in per cent, that tasks of the lane
    /// [`Control`](crate::rt::Lane::Control) may take before others. The default is 5, at most 100.
    ///
    /// What the lane does not use is saved up for 50 ms, so that at 5 % a burst of control tasks takes
    /// 2.5 ms. Beyond that, at 5 %, one of 20 turns is theirs, or they queue with the other tasks
    /// if those are fewer. With 0 they always queue with the others; with 100 they always go first,
    /// and other tasks run only while no control task can.
    ///
    /// # Examples
    /// ```
    /// netpoll::rt::Builder::new().control_share(10).start()?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn control_share(mut self, percent: u32) -> Builder {
        self.config.control_share = percent;
        self
    }

    /// Serves snapshots on a Unix socket at `path`, as an
    /// [`InspectServer`](crate::rt::InspectServer) does, from [`start`](Builder::start) until the
    /// process ends.
    ///
    /// # Examples
    /// ```
    /// let path = std::env::temp_dir().join(format!("inspect-socket-{}", std::process::id()));
    /// netpoll::rt::Builder::new().inspect_socket(&path).start()?;
    /// assert!(path.exists()); // netpoll-top PATH
    /// # std::fs::remove_file(&path)?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn inspect_socket(mut self, path: impl Into<PathBuf>) -> Builder {
        self.inspect_socket = Some(path.into());
        self
    }

    /// Writes the [`black_box`](crate::rt::black_box()) to a file at `path` when a task blocks its
    /// worker, at most every 10 s, and with the snapshots of
    /// [`dump_on_panic`](crate::rt::dump_on_panic) and
    /// [`dump_on_sigusr1`](crate::rt::dump_on_sigusr1). An older file is replaced.
    ///
    /// Without this call, the environment variable `NETPOLL_BLACK_BOX` names the file. With
    /// [`BlockedPolicy::Off`], blocked tasks are not reported and cause no file. A file that cannot be
    /// written is reported on standard error.
    ///
    /// # Examples
    /// ```
    /// let path = std::env::temp_dir().join(format!("black-box-file-{}.json", std::process::id()));
    /// netpoll::rt::Builder::new().black_box_file(&path).start()?;
    /// # let stalled = path.clone();
    /// netpoll::task::block_on(netpoll::task::spawn(async move {
    ///     // A loop that never awaits.
    /// #   let path = stalled;
    ///     while !path.exists() {}
    /// }));
    /// # std::fs::remove_file(&path)?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn black_box_file(mut self, path: impl Into<PathBuf>) -> Builder {
        self.black_box_file = Some(path.into());
        self
    }

    /// Starts the runtime with these settings.
    ///
    /// # Errors
    /// * the error of [`InspectServer::bind`](crate::rt::InspectServer::bind), if
    ///   [`inspect_socket`](Builder::inspect_socket) was called; the runtime is then not started;
    /// * `AlreadyExists` if the runtime is running, because of an earlier `start` or its first use
    ///   (spawning, waiting, sleeping); settings can be changed after
    ///   [`shutdown`](crate::rt::shutdown);
    /// * `InvalidInput` for an invalid number, also in `NETPOLL_THREADS` if
    ///   [`workers`](Builder::workers) was not called;
    /// * `Unsupported` inside a runtime that is shutting down;
    /// * `Other` if the system refuses to create a thread for a quarter of a second.
    pub fn start(self) -> io::Result<()> {
        #[cfg(feature = "sim")]
        if crate::sim::is_here() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a runtime cannot be started inside of a simulation",
            ));
        }
        let Builder { mut config, workers, thread_name, inspect_socket, black_box_file } = self;
        config.workers = match workers {
            Some(workers) => workers,
            None => workers_from_environment()?.unwrap_or(config.workers),
        };
        match config.shards {
            None => config.shards = shards_from_environment()?,
            Some(1..=SHARDS_MAX) => {}
            Some(shards) => return Err(invalid(format!("the poller has 1 to {SHARDS_MAX} shards, not {shards}"))),
        }
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
        if config.control_share > 100 {
            return Err(invalid(format!("a share of {} % is more than 100 %", config.control_share)));
        }
        if config.thread_name.contains('\0') {
            return Err(invalid("thread name must not contain a NUL byte".to_owned()));
        }
        super::fork::check()?;
        let runtime = runtime();
        if runtime.is_stopping() && context::is_inside() {
            // Called from a destructor that the shutdown runs, or a task that has not ended: the
            // shutdown waits for it.
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the runtime cannot be started while it is shutting down",
            ));
        }
        let _lifecycle = runtime.lifecycle_at_rest();
        if runtime.is_running() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "the runtime is already running: call rt::Builder::start before its first use, or after rt::shutdown",
            ));
        }
        if let Some(path) = inspect_socket {
            super::inspect::serve_at(&path)?;
        }
        super::inspect::set_black_box_file(black_box_file);
        let started = runtime.prepare_start(config);
        started.map_err(|error| io::Error::other(format!("netpoll cannot start a thread: {error}")))?;
        runtime.start();
        Ok(())
    }
}

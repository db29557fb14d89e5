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
use super::start::Replaced;
use crate::sync::Arc;

/// Settings for the runtime. If [`start`](Builder::start) is not called, the runtime starts with
/// the defaults of [`new`](Builder::new) when it is first used.
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
    /// Creates settings with the defaults: one worker per CPU that the process may use
    /// ([`available_parallelism`](std::thread::available_parallelism); at most 448), 64 spare
    /// workers, 256 threads for blocking calls, and one poller shard per 8 workers.
    ///
    /// Environment variables replace some of the defaults. [`start`](Builder::start) reads each of
    /// the following variables only if the corresponding method was not called:
    /// * [`workers`](Builder::workers), unless the runtime is
    ///   [single-threaded](Builder::single_threaded): `NETPOLL_THREADS`, or else async-std's
    ///   `ASYNC_STD_THREAD_COUNT`;
    /// * [`thread_name`](Builder::thread_name): `NETPOLL_THREAD_NAME`, or else async-std's
    ///   `ASYNC_STD_THREAD_NAME`;
    /// * [`poller_shards`](Builder::poller_shards): `NETPOLL_POLLER_SHARDS`.
    pub fn new() -> Builder {
        Builder { config: Config::new(), workers: None, thread_name: None, inspect_socket: None, black_box_file: None }
    }

    /// Sets the maximum number of threads that run tasks at the same time, not counting [spare
    /// workers](Builder::spare_workers). It must be at least 1; together with the number of spare
    /// workers, it must be at most 512. A thread is started when there is work for it. A thread in
    /// [`block_on`](crate::task::block_on) counts only if it [runs
    /// tasks](Builder::block_on_runs_tasks).
    #[doc(alias = "worker_threads")]
    pub fn workers(mut self, workers: usize) -> Builder {
        self.workers = Some(workers);
        self
    }

    /// Sets the maximum number of workers that are added while tasks block their threads. With 0,
    /// no worker is added.
    pub fn spare_workers(mut self, spares: usize) -> Builder {
        self.config.spares = spares;
        self
    }

    /// Sets the number of shards of the poller, from 1 to 64. The default is one per 8 workers, and
    /// one for fewer than 16 workers. This setting is meant for tests and tuning.
    ///
    /// A shard is an epoll instance in which one thread at a time waits. A descriptor is registered
    /// in one shard, preferably that of the registering worker, and stays there. With more shards,
    /// more threads can take events at the same time, with less contention for the kernel's lock of
    /// each instance. However, if no other thread is awake, a thread waits in all open shards in
    /// which no other thread waits, and a wait in several shards costs additional system calls. An
    /// instance uses two descriptors and is opened when it is first used.
    ///
    /// Back ends other than epoll always have one shard.
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

    /// Sets the maximum number of threads for [`spawn_blocking`](crate::task::spawn_blocking),
    /// which must be at least 1. Further calls wait in a queue. Name look-ups have separate
    /// threads, and so have closes that may wait, such as those of sockets with SO_LINGER, so that
    /// they do not wait for other calls. The maximum applies to each of the three groups.
    #[doc(alias = "max_blocking_threads")]
    pub fn blocking_threads(mut self, threads: usize) -> Builder {
        self.config.blocking_threads = threads;
        self
    }

    /// Sets the name of the runtime's threads. The names of threads that are not workers have a
    /// suffix. Threads that serve or print snapshots, or write files, have fixed names. Linux shows
    /// the first 15 bytes of a name.
    pub fn thread_name(mut self, name: impl Into<String>) -> Builder {
        self.thread_name = Some(name.into());
        self
    }

    /// Sets how the runtime handles tasks that block their thread. A check every 10 ms finds the
    /// tasks that are still in the same poll as at the previous check.
    pub fn blocked_tasks(mut self, policy: BlockedPolicy) -> Builder {
        self.config.blocked_tasks = policy;
        self
    }

    /// Sets a function that is called each time a task is found to block its thread.
    ///
    /// The function runs on a separate thread, one call at a time, and may block. (If the system
    /// refuses to create this thread, the thread that makes the checks calls the function.) Up to
    /// 256 reports wait while a call is in progress; further reports are dropped. A panic in the
    /// function is caught. With [`BlockedPolicy::Off`], the function is not called.
    pub fn on_blocked_task(mut self, report: impl Fn(&BlockedTask) + Send + Sync + 'static) -> Builder {
        self.config.on_blocked_task = Some(Arc::new(report));
        self
    }

    /// Sets whether a thread in [`block_on`](crate::task::block_on) also runs spawned tasks while
    /// it waits, if fewer threads than [`workers`](Builder::workers) run tasks or poll. The default
    /// is `false`: only workers run tasks, unless the system refuses to create threads or the
    /// runtime is [single-threaded](Builder::single_threaded).
    ///
    /// With `true`, a task that blocks such a thread delays the future of `block_on`. If the task
    /// blocks until that future makes progress, the two deadlock.
    pub fn block_on_runs_tasks(mut self, runs: bool) -> Builder {
        self.config.block_on_runs_tasks = runs;
        self
    }

    /// Sets whether tasks run only on the thread in [`block_on`](crate::task::block_on), and the
    /// runtime starts no other thread until it needs one. The default is `false`.
    ///
    /// Linux makes system calls on descriptors faster in a process with one thread, and a short
    /// program ends sooner if it starts none. With `true`:
    /// * Tasks run while a thread is in `block_on`. If several threads are in `block_on`, one at a
    ///   time runs tasks. When the last one leaves, the tasks wait, including the one that sends
    ///   [gathered writes](crate::net::TcpStream::set_auto_cork) to a peer that does not read.
    /// * A task or root future that blocks its thread delays all tasks, timers and events, also
    ///   those of other threads in `block_on`, and is not reported. So it must not block its thread
    ///   to wait for one of these, for example in another executor or in
    ///   [`JoinHandle::join`](std::thread::JoinHandle::join): it would wait forever.
    ///   [`blocked_tasks`](Builder::blocked_tasks) and
    ///   [`on_blocked_task`](Builder::on_blocked_task) have no effect, and a blocked task causes no
    ///   write of the [black box](Builder::black_box_file). Writes that a blocked turn has gathered
    ///   are not sent before its end.
    /// * Blocking calls, such as [`spawn_blocking`](crate::task::spawn_blocking) and name look-ups,
    ///   have threads as usual, which end after 10 s without a call.
    /// * The number of [`workers`](Builder::workers) is 1, and
    ///   [`block_on_runs_tasks`](Builder::block_on_runs_tasks) is `true`.
    ///
    /// Two uses need another thread:
    /// * a `block_on` that waits inside a task, a blocking call or another `block_on`;
    /// * a future of this crate that waits under another executor, unless its thread is in
    ///   `block_on`.
    ///
    /// The first such use starts the threads of an ordinary runtime, which stay until a shutdown.
    ///
    /// # Examples
    /// ```
    /// use netpoll::{rt, task};
    ///
    /// rt::Builder::new().single_threaded(true).start()?;
    /// let main = std::thread::current().id();
    /// let thread = task::block_on(async { task::spawn(async { std::thread::current().id() }).await });
    /// assert_eq!(thread, main);
    /// # std::io::Result::Ok(())
    /// ```
    #[doc(alias = "new_current_thread")]
    #[doc(alias = "current_thread")]
    pub fn single_threaded(mut self, is_single: bool) -> Builder {
        self.config.single_threaded = is_single;
        self
    }

    /// Sets whether OS errors of reads, writes, accepts and other calls on a socket name the
    /// operation and the addresses, as Go's errors do. The default is `false`.
    ///
    /// With `true`, a read from a reset connection fails with
    /// `read tcp 127.0.0.1:2->127.0.0.1:1: read: connection reset by peer`, which is an
    /// [`OpError`](crate::net::OpError) with the `ErrorKind` of the OS error. Because the kernel
    /// forgets the peer's address when a TCP connection is reset, the addresses are queried when
    /// the connection is dialled or accepted. This costs two system calls per TCP connection.
    /// [`net::raw_os_error`](crate::net::raw_os_error()) returns the errno of such an error;
    /// `io::Error::raw_os_error` returns `None`. With either setting, errors of binding, dialling
    /// and resolving are `OpError`s, and so are the errors of operations that end because the
    /// socket was closed, a deadline has passed or the runtime was shut down.
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

    /// Sets the share of each worker's time or turns, in percent, in which tasks of the lane
    /// [`Control`](crate::rt::Lane::Control) run before others. The default is 5; the maximum
    /// is 100.
    ///
    /// An unused share accumulates for 50 ms, so at 5 % a burst of control tasks may take 2.5 ms.
    /// After such a burst, at 5 %, control tasks get 5 % of the time or one of 20 turns, whichever
    /// is more. If fewer than 20 other tasks are queued, control tasks beyond the share are queued
    /// behind them. With 0, control tasks are always queued behind other tasks. With 100, they
    /// always run first, and other tasks run only while no control task is runnable.
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
    /// process ends. The socket file remains, and the next server at this path replaces it.
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

    /// Sets the path of a file to which the [`black_box`](crate::rt::black_box()) is written. The
    /// file is written when a task blocks its worker, at most once per 10 s, and together with the
    /// snapshots of [`dump_on_panic`](crate::rt::dump_on_panic) and
    /// [`dump_on_sigusr1`](crate::rt::dump_on_sigusr1). An existing file is replaced.
    ///
    /// If this method is not called, the environment variable `NETPOLL_BLACK_BOX` names the file.
    /// The path stays set until the next [`start`](Builder::start). With [`BlockedPolicy::Off`], no
    /// file is written when a task blocks its worker. A failure to write the file is reported on
    /// standard error.
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

    /// Starts the runtime with these settings. If another thread is shutting the runtime down,
    /// first waits for the end of the shutdown.
    ///
    /// # Errors
    /// If an error is returned, the runtime is not started:
    /// * `AlreadyExists` if the runtime is running, because of an earlier `start` or because it was
    ///   already used, for example by [`block_on`](crate::task::block_on), a spawned task or a
    ///   sleep. The settings can be changed after a [`shutdown`](crate::rt::shutdown).
    /// * `InvalidInput` if a number is out of range, a [single-threaded](Builder::single_threaded)
    ///   runtime has more than one worker, or the thread name contains a NUL byte. The numbers
    ///   include `NETPOLL_THREADS`, unless [`workers`](Builder::workers) was called or the runtime
    ///   is single-threaded, and `NETPOLL_POLLER_SHARDS`, unless
    ///   [`poller_shards`](Builder::poller_shards) was called.
    /// * `Unsupported` in a simulation, and inside a runtime that is shutting down: in a task, in
    ///   [`block_on`](crate::task::block_on), in a blocking call or in a destructor that the
    ///   shutdown runs.
    /// * `Other` in a child of fork(2) that did not call exec(2), and if the system still refuses
    ///   to create a thread after a quarter of a second.
    /// * The error of [`InspectServer::bind`](crate::rt::InspectServer::bind), if
    ///   [`inspect_socket`](Builder::inspect_socket) was called.
    pub fn start(self) -> io::Result<()> {
        #[cfg(feature = "sim")]
        if crate::sim::is_here() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "a runtime cannot be started inside a simulation"));
        }
        let Builder { mut config, workers, thread_name, inspect_socket, black_box_file } = self;
        config.block_on_runs_tasks |= config.single_threaded;
        config.workers = match workers {
            Some(workers) if workers > 1 && config.single_threaded => {
                return Err(invalid(format!("a single-threaded runtime has 1 worker, not {workers}")));
            }
            Some(workers) => workers,
            None if config.single_threaded => 1,
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
                "a runtime needs at least one thread for blocking calls, such as name look-ups".to_owned(),
            ));
        }
        if config.workers.saturating_add(config.spares) > PROCESSORS_MAX {
            return Err(invalid(format!(
                "{} workers and {} spare workers exceed the maximum of {PROCESSORS_MAX}",
                config.workers, config.spares
            )));
        }
        if config.control_share > 100 {
            return Err(invalid(format!("a share of {} % is more than 100 %", config.control_share)));
        }
        if config.thread_name.contains('\0') {
            return Err(invalid("a thread name must not contain a NUL byte".to_owned()));
        }
        super::fork::check()?;
        let runtime = runtime();
        // Dropped after the lock is released.
        let mut replaced = Replaced::default();
        let mut lifecycle = runtime.lifecycle.lock();
        // Checked under the lock, under which a shutdown begins.
        if runtime.is_stopping() && context::is_inside() {
            // The caller is, for example, a destructor that the shutdown runs, or a task that has
            // not ended. Waiting for the shutdown here could deadlock, because the shutdown may
            // wait for the caller.
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the runtime cannot be started while it is shutting down",
            ));
        }
        while runtime.is_stopping() {
            lifecycle = runtime.stopped.wait(lifecycle);
        }
        if runtime.is_running() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "the runtime is already running: call rt::Builder::start before its first use, or after rt::shutdown",
            ));
        }
        let is_new_server = inspect_socket.as_deref().map_or(Ok(false), super::inspect::serve_at)?;
        if let Err(error) = runtime.prepare_start(config, &mut replaced) {
            runtime.restore_config(&mut replaced);
            if let Some(path) = inspect_socket.filter(|_| is_new_server) {
                super::inspect::stop_serving_at(&path);
            }
            return Err(io::Error::other(format!("netpoll cannot start a thread: {error}")));
        }
        super::inspect::set_black_box_file(black_box_file);
        runtime.start();
        Ok(())
    }
}

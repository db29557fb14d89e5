//! Progress while the system refuses to create threads (pthread_create(3): EAGAIN).
//!
//! A refusal is recorded, unless sysmon immediately does the work of the refused thread. All work
//! that waits for a thread then makes progress without further external events (`reapers.rs`
//! describes the threads of a shutdown):
//!
//! | refused thread | meanwhile | retry |
//! |---|---|---|
//! | a worker | tasks wait for the existing threads | sysmon tries again every 10 ms; after [`LASTS`], while no thread is awake, it runs the tasks and polls itself |
//! | a blocking thread | calls wait for the existing threads | sysmon tries again every 10 ms; after [`LASTS`], it queues calls as tasks |
//! | a spare worker | – | sysmon tries again every 10 ms while tasks block their threads |
//! | a thread for wakers, or for reports about blocked tasks | – | sysmon does the work itself; see `wake_queue.rs` and `reports.rs` |
//! | a thread for reports about spare workers | reports wait | sysmon tries again every 10 ms; after [`LASTS`], it makes the reports itself |
//! | the replacement of a sysmon that waits in `block_on` | the waiting thread polls | the waiting thread tries again every 10 ms |
//! | sysmon | the start, or the use that ends a deferral, waits; a nested `block_on` polls meanwhile | it tries again for a quarter of a second, and a nested `block_on` every 10 ms; then [`Builder::start`](crate::rt::Builder::start) fails, and a start by a use continues without any thread |
//!
//! # Without any thread
//! No worker is started before sysmon, because a blocked worker relies on sysmon. Every use of the
//! runtime tries again to start sysmon. Until that succeeds, a thread in `block_on` runs tasks and
//! polls; in a nested `block_on`, it only polls. Under another executor, a thread that spawns a
//! task, or polls a future that waits, *stands in*: it does a slice of the work, and the future is
//! polled again ([`Runtime::stand_in`]). Under another executor, an operation on a socket that is
//! not registered fails with an error if it would have to wait. Blocking calls are queued as tasks.
//! Such a call occupies the thread that does the work. If the call waits for another task without
//! `block_on`, for example under another executor, neither makes progress until another thread uses
//! the runtime while the system permits threads.
//!
//! # Deferred threads
//! With [`Builder::single_threaded`](crate::rt::Builder::single_threaded), a start of the runtime
//! defers the start of sysmon, and so of workers, although the system would permit it. A thread in
//! `block_on` runs the tasks and polls, as above. A thread under another executor does not stand
//! in: a task that it spawns waits for a thread in `block_on`.
//!
//! Two uses end the deferral, for the rest of the epoch, and start sysmon: a nested `block_on` that
//! waits, and a future that waits, or registers its socket, outside `block_on`. A blocking call
//! that polls with another executor is outside too, because the thread in `block_on` may leave.
//! Blocking calls get their threads without ending the deferral, unless the system refuses such a
//! thread. If the system then refuses to start sysmon, the runtime is without any thread, as above.

use std::io;
use std::task::{Context, Waker};
use std::thread;
use std::time::{Duration, Instant};

use super::polling::Polling;
use super::root::Root;
use super::worker::{Core, Exit};
use crate::rt::context;
use crate::rt::fork;
use crate::rt::poll::roles::Shards;
use crate::rt::runtime::Runtime;
use crate::rt::time::clock;
use crate::rt::unsent;
use crate::sync::Ordering;

/// The time after which a refusal counts as permanent.
pub(crate) const LASTS: Duration = Duration::from_millis(300);
/// The length of a slice: the time after which a thread that runs tasks in place of the workers
/// begins no further round.
const SLICE: Duration = Duration::from_millis(10);
/// The time for which a thread that stands in pauses if there was no work.
const PAUSE: Duration = Duration::from_millis(1);
/// The pauses between the attempts of a start, in milliseconds.
const PAUSES_MS: [u64; 8] = [1, 2, 4, 8, 16, 32, 64, 128];

impl Runtime {
    /// Returns whether the system has refused to create a thread, and sysmon has not tried again
    /// since.
    pub(crate) fn is_short_of_threads(&self) -> bool {
        // ORDERING: SeqCst: `refused` stores this before it checks whether sysmon sleeps; sysmon
        // announces its sleep before it reads this.
        self.short_of_threads.load(Ordering::SeqCst)
    }

    pub(crate) fn set_short_of_threads(&self, is_short: bool) {
        self.short_of_threads.store(is_short, Ordering::SeqCst);
    }

    /// Records that the system has refused to create a thread, and wakes the threads that try again
    /// or do the work.
    pub(crate) fn refused(&'static self) {
        self.set_short_of_threads(true);
        // If sysmon is missing, a thread in `block_on` runs the tasks.
        self.wake_roots();
        self.notice_activity();
    }

    /// Leaves the queued reports to sysmon, because the system has refused to create their thread.
    pub(super) fn defer_reports(&'static self, epoch: u32) {
        self.sysmon.reports.forget_thread(epoch);
        self.refused();
    }

    /// Tries again to start the thread for queued reports, if the system has refused to create it.
    /// Returns false if the system refuses again and the refusal lasts. The caller must then make
    /// the reports.
    pub(super) fn ensure_reporter(&'static self, epoch: u32, lasts: bool) -> bool {
        if !self.sysmon.reports.lacks_thread(epoch) || self.queue_reports(epoch, []) {
            return true;
        }
        if !lasts {
            self.defer_reports(epoch);
        }
        !lasts
    }

    /// Returns whether the shared queues have tasks while sysmon is missing. A thread in `block_on`
    /// may then have to run them.
    pub(super) fn lacks_threads_for_tasks(&self) -> bool {
        self.sysmon.is_missing() && self.injected() > 0
    }

    /// Makes all threads in `block_on` that sleep or are parked check whether they should run
    /// tasks.
    pub(super) fn wake_roots(&'static self) {
        self.driver.wake();
        self.nudge_roots();
    }

    /// Starts sysmon, for a runtime that is about to start or whose deferral ends. Tries again for
    /// a quarter of a second.
    ///
    /// # Errors
    /// Returns the error of creating the thread.
    pub(crate) fn start_sysmon_patiently(&'static self, epoch: u32) -> io::Result<()> {
        for pause_ms in PAUSES_MS {
            if self.start_sysmon(epoch).is_ok() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(pause_ms));
        }
        self.start_sysmon(epoch)
    }

    /// Starts sysmon if it is missing, which ends a deferral. If its start was deferred, tries
    /// again for a quarter of a second, unless the calling thread runs tasks or is in `block_on`.
    ///
    /// # Errors
    /// Returns `Other` if the thread cannot be created.
    pub(crate) fn ensure_sysmon(&'static self) -> io::Result<()> {
        if !self.sysmon.is_missing() {
            return Ok(());
        }
        let is_outside = !context::is_inside() || context::is_call();
        let started = if self.sysmon.is_deferred() && is_outside {
            self.start_sysmon_patiently(self.epoch())
        } else {
            self.start_sysmon(self.epoch())
        };
        started.map_err(|error| io::Error::other(format!("netpoll cannot start a thread: {error}")))
    }

    /// Ends a deferral. If the runtime has no thread and cannot start sysmon, does a slice of the
    /// work on the calling thread and wakes the task of `cx`, so that it is polled again. Called
    /// when a future is pending. Does nothing on a thread inside the runtime, except in a blocking
    /// call. The caller must hold no lock.
    #[inline]
    pub(crate) fn stand_in(&'static self, cx: &Context<'_>) {
        self.stand_in_for(cx.waker());
    }

    /// Flushes gathered writes and then [stands in](Runtime::stand_in). Called when a future is
    /// pending that does not [note](context::note) its wait.
    pub(crate) fn wait_begins(&'static self, cx: &Context<'_>) {
        unsent::flush();
        self.stand_in(cx);
    }

    /// Works like [`stand_in`](Runtime::stand_in), with the waker of the task.
    #[inline]
    pub(crate) fn stand_in_for(&'static self, waker: &Waker) {
        if self.sysmon.is_missing() && self.stand_in_now() {
            waker.wake_by_ref();
        }
    }

    /// Does a slice of the work on a thread that has spawned a task, if the runtime has no thread
    /// and cannot start sysmon. If the start of threads is deferred, the task waits for a thread in
    /// `block_on`.
    #[inline]
    pub(crate) fn stand_in_once(&'static self) {
        if self.sysmon.is_missing() && !self.sysmon.is_deferred() {
            self.stand_in_now();
        }
    }

    /// Starts sysmon or, if that fails, does a slice of the work. Returns false if another thread
    /// or an outer call on this thread does the work.
    #[cold]
    fn stand_in_now(&'static self) -> bool {
        // A thread in `block_on` does the work between the turns of its root future, and a thread
        // that stands in is already doing it. A blocking call has a thread of its own, which does
        // no other work.
        if fork::is_child() || (context::is_inside() && !context::is_call()) {
            return false;
        }
        if self.ensure_sysmon().is_ok() {
            self.ensure_worker_after_leaving();
            return false;
        }
        context::enter();
        let mut polling = Polling::new();
        polling.poll_free(self, self.epoch(), clock::now());
        polling.run_timers(self, Shards::ALL, clock::now());
        let woken = polling.wake_all(self);
        if !self.run_queued(&mut Core::new()) && woken == 0 {
            thread::sleep(PAUSE);
        }
        context::leave();
        true
    }

    /// Runs queued tasks on the calling thread, which is not a worker. Returns false if no tasks
    /// were queued or no processor is free.
    pub(crate) fn run_queued(&'static self, core: &mut Core) -> bool {
        if self.injected() == 0 {
            return false;
        }
        let Some(processor) = self.acquire() else { return false };
        let epoch = processor.epoch.load(Ordering::Relaxed);
        self.visitors.fetch_add(1, Ordering::SeqCst);
        let until = Instant::now() + SLICE;
        // A root future that counts as woken, so that the loop returns after the queued tasks.
        let root = Root::new();
        let mut exit = core.run(processor, None, Some(&root), epoch);
        while exit == Exit::Root && processor.queue.len() + self.injected() > 0 && Instant::now() < until {
            exit = core.run(processor, None, Some(&root), epoch);
        }
        if exit == Exit::Root {
            self.leave(processor);
        }
        self.visitors.fetch_sub(1, Ordering::SeqCst);
        true
    }
}

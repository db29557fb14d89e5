//! [`shutdown()`]: ends the runtime within a time limit.
//!
//! # Order
//! 1. The epoch advances. From now on, a task that is woken is queued for step 3, and registrations
//!    are refused.
//! 2. All sleeping and resting threads are woken and see the new epoch. Workers and sysmon end;
//!    threads in `block_on` continue without a processor.
//! 3. Every waiter on a socket is woken and gets an error, every sleep is woken and checks the
//!    clock again, due timers fire, and every waiting task is woken by its
//!    [`Keeper`](super::sched::keeper::Keeper). Tasks of the ended epoch that were woken or queued
//!    are dropped. This repeats until nothing is left, because a destructor may wake other tasks,
//!    and may itself sleep.
//! 4. Threads are joined when they have ended, including their thread-local destructors. Then the
//!    instances of the back end are closed.
//! 5. The state changes to STOPPED. All waiters and sleeps are woken once more, because a future on
//!    another executor may have begun to wait in the meantime. Tasks whose drop was deferred are
//!    dropped.
//!
//! # The time limit
//! Destructors and wakers run on `Reapers`. They run on the calling thread only if no thread can be
//! started. Otherwise, the calling thread runs no user code except the `tracing` subscriber, and
//! takes no lock under which user code runs. While destructors or wakers run, the time limit is at
//! least [`LEAST`]. The shutdown does not wait beyond the time limit for threads and tasks that
//! have not ended, except for up to [`LEAST`] for the thread-local destructors of reapers, and up
//! to [`LEAST`] for wakers that it calls at the end. A worker that is stuck in a task sees the new
//! epoch when the task's poll returns, and ends. A reaper that is stuck in a destructor later
//! continues with the jobs queued behind it.
//!
//! # Concurrent shutdowns
//! The state STOPPING lasts from step 1 to step 5. A second call waits for the first, within its
//! own time limit, and returns the same result. A call from inside the runtime, or from a
//! destructor that the shutdown runs, would wait for its own thread and is refused.
//! [`Builder::start`](crate::rt::Builder::start) waits for the shutdown, or fails if it is called
//! inside the runtime. A use of the runtime does not wait: its tasks and registrations belong to
//! the ending epoch.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::reapers::Reapers;
use super::runtime::{Runtime, runtime};
use super::sched::identity::{self, TaskId};
use super::sched::record::{self, Kind, Reading, Record};
use super::still_running::StillRunning;
use super::waiters::{Wakers, drop_payload};
use crate::rt::context;
use crate::rt::fork;
use crate::rt::poll::roles::Shards;
use crate::rt::time::clock;
use crate::sync::{MutexGuard, Ordering};
use crate::trace;

/// Shuts the runtime down: wakes every waiter with an error, drops every task, joins the runtime's
/// threads and closes the poller.
///
/// Returns when all this is done or when `timeout` has elapsed. While destructors or wakers run, a
/// timeout shorter than 200 ms counts as 200 ms. Wakers and thread-local destructors that block may
/// delay the return by up to 400 ms.
///
/// Sockets stay open and can be used again. The next use of the runtime, such as an operation that
/// has to wait, starts a new one with the default settings, unless
/// [`Builder::start`](crate::rt::Builder::start) is called first. Tasks are dropped at their
/// current `.await`, whatever they wait for. Local tasks and futures in `block_on` continue.
/// Awaiting the handle of a dropped task panics, unless the awaiting task is dropped too;
/// [`cancel`](crate::task::JoinHandle::cancel) on the handle returns `None`.
///
/// Wakers and the destructors of tasks run on threads of the runtime. They may sleep, block or take
/// locks that the caller holds. They run on the calling thread only if the system refuses to create
/// a thread. Tasks that they spawn are dropped immediately, and their operations on sockets fail if
/// they have to wait.
///
/// The call also waits for tasks that an earlier shutdown has left, because they were still being
/// polled or dropped, and for blocking calls that were still running.
///
/// If another thread is already shutting the runtime down, the call waits for that shutdown, for at
/// most its own `timeout`, and returns the same result. In a child of fork(2) that did not call
/// exec(2), the call does nothing.
///
/// # Errors
/// Returns [`StillRunning`], which names threads and tasks, if some of them have not ended in time.
/// They end when their current polls and destructors return. `StillRunning` is also returned, and
/// the call has no effect, if it is made inside the runtime, for example in a task, in `block_on`,
/// in a simulation, in a blocking call or in a destructor that the shutdown runs.
///
/// # Examples
/// ```
/// use netpoll::{rt, task};
/// use std::time::Duration;
///
/// task::block_on(async { task::spawn(async { 7 }).await });
/// rt::shutdown(Duration::from_secs(5))?;
/// assert_eq!(rt::metrics().worker_threads, 0);
/// # Ok::<(), rt::StillRunning>(())
/// ```
#[doc(alias = "shutdown_timeout")]
pub fn shutdown(timeout: Duration) -> Result<(), StillRunning> {
    if fork::is_child() {
        // The runtime's threads exist only in the parent, and may have held locks at the fork.
        return Ok(());
    }
    if context::is_inside() {
        return Err(StillRunning::on_runtime_thread());
    }
    let runtime = runtime();
    let deadline = Instant::now().checked_add(timeout);
    let lifecycle = runtime.lifecycle.lock();
    if runtime.is_stopping() {
        return wait_for_another(runtime, lifecycle, deadline);
    }
    if !runtime.is_running() {
        drop(lifecycle);
        return wait_for_left(runtime, deadline);
    }
    runtime.begin_stop();
    drop(lifecycle);
    report(|| trace::shutdown_begins(timeout));
    let still = stop(runtime, deadline);
    let (threads, tasks) = (still.threads.len(), still.tasks);
    let outcome = if still.threads.is_empty() && still.tasks == 0 { Ok(()) } else { Err(still) };
    {
        let mut lifecycle = runtime.lifecycle.lock();
        lifecycle.clone_from(&outcome);
        runtime.end_stop();
    }
    runtime.stopped.notify_all();
    // A future on another executor may have started to wait again while the runtime could not be
    // started.
    let mut reapers = Reapers::new(runtime);
    reapers.wake(interrupt(runtime));
    let until = Instant::now().checked_add(LEAST);
    while !reapers.wait(NAP_MAX) && !is_over(until) {}
    drop(reapers);
    let mut reapers = Reapers::new(runtime);
    reapers.discard(runtime.take_deferred());
    report(|| trace::shutdown_ended(threads, tasks));
    outcome
}

/// Calls `event`, which reports to the `tracing` subscriber. The shutdown continues if the
/// subscriber panics.
fn report(event: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(event)) {
        drop_payload(payload);
    }
}

/// The minimum time for user code, so that tasks with short destructors are dropped even with a
/// timeout of zero. Also the maximum time of each step after the time limit.
const LEAST: Duration = Duration::from_millis(200);
/// The first pause between two checks. Each pause is twice as long as the previous one, up to
/// [`NAP_MAX`].
const NAP_MIN: Duration = Duration::from_micros(50);
/// The longest pause between two checks.
const NAP_MAX: Duration = Duration::from_millis(2);

/// Returns whether `deadline` has passed. `None` never passes.
fn is_over(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| Instant::now() >= deadline)
}

/// Waits for another thread's shutdown and returns its result. Returns the threads and tasks that
/// are still running if `deadline` passes first.
fn wait_for_another(
    runtime: &'static Runtime,
    mut lifecycle: MutexGuard<'_, Result<(), StillRunning>>,
    deadline: Option<Instant>,
) -> Result<(), StillRunning> {
    let epoch = runtime.epoch();
    while runtime.is_stopping() && runtime.epoch() == epoch {
        let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            drop(lifecycle);
            return Err(survey(runtime));
        }
        lifecycle = runtime.stopped.wait_timeout(lifecycle, left.min(LONGEST));
    }
    lifecycle.clone()
}

/// Waits until the tasks that an earlier shutdown has left have ended. Returns those that are left
/// at `deadline`. If another thread starts the runtime in the meantime, shuts it down.
fn wait_for_left(runtime: &'static Runtime, deadline: Option<Instant>) -> Result<(), StillRunning> {
    if runtime.tasks_alive() == 0 {
        return Ok(());
    }
    let (mut droppers, mut nap, mut next_scan) = (Reapers::new(runtime), NAP_MIN, Instant::now());
    let least = Instant::now().checked_add(LEAST);
    loop {
        wake_tasks(runtime, &mut next_scan, false);
        droppers.discard(runtime.take_deferred());
        let is_idle = droppers.wait(nap);
        if is_idle && runtime.tasks_alive() == 0 {
            return Ok(());
        }
        if !runtime.is_stopped() {
            // The reapers would count as threads of the runtime that is shut down next.
            drop(droppers);
            let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
            return shutdown(left);
        }
        if is_over(deadline) && (is_idle || is_over(least)) {
            return Err(survey(runtime));
        }
        std::thread::sleep(nap);
        nap = (nap * 2).min(NAP_MAX);
    }
}

/// The longest single wait on the condition variable. A much longer timeout could overflow the
/// clock.
const LONGEST: Duration = Duration::from_secs(3600);

/// Ends threads and tasks until `deadline`. Returns the threads and tasks that are still running.
fn stop(runtime: &'static Runtime, deadline: Option<Instant>) -> StillRunning {
    for sleeper in runtime.idle.lock().empty() {
        sleeper.parker.unpark();
    }
    runtime.driver.wake();
    runtime.sysmon.stop();
    let (mut wakers, mut droppers) = (Reapers::new(runtime), Reapers::new(runtime));
    let least = Instant::now().checked_add(LEAST);
    let (mut nap, mut was_quiet, mut was_done, mut next_scan) = (NAP_MIN, false, false, Instant::now());
    let (threads, is_done) = loop {
        wakers.wake(interrupt(runtime));
        let scans = wake_tasks(runtime, &mut next_scan, was_quiet);
        let all_woken = wakers.wait(nap);
        let tasks = runtime.take_queued();
        let found = !tasks.is_empty();
        droppers.discard(tasks);
        let all_dropped = droppers.wait(nap);
        let is_idle = all_woken && all_dropped;
        let threads = runtime.threads.join_ended().saturating_sub(wakers.started() + droppers.started());
        // Threads in `block_on` that run a task or poll, and turns and blocking calls that an
        // earlier shutdown has left.
        let is_used = runtime.visitors.load(Ordering::SeqCst) > 0
            || runtime.driver.roles.is_any_taken()
            || runtime.tasks_alive() > 0;
        let is_quiet = is_idle && !found && threads == 0 && !is_used;
        let is_done = is_quiet && scans;
        // A thread that has ended during this pass may have left a task that began to wait in its
        // last turn. The next pass finds it.
        if is_done && was_done || !is_done && is_over(deadline) && (is_idle || is_over(least)) {
            break (threads, is_done);
        }
        runtime.driver.wake();
        if is_idle && !found && !is_done {
            std::thread::sleep(nap);
        }
        was_done = is_quiet && (scans || was_done);
        was_quiet = is_quiet;
        nap = (nap * 2).min(NAP_MAX);
    };
    let threads = threads + wakers.kept() + droppers.kept();
    drop((wakers, droppers));
    // Reapers without a job now run their thread-local destructors and end.
    let until = Instant::now().checked_add(LEAST);
    nap = NAP_MIN;
    while runtime.threads.join_ended() > threads && !(is_over(until) && is_over(deadline)) {
        std::thread::sleep(nap);
        nap = (nap * 2).min(NAP_MAX);
    }
    runtime.driver.close();
    let mut still = survey(runtime);
    if is_done {
        // Other threads may have spawned tasks since, which are dropped immediately.
        (still.tasks, still.running, still.places) = (0, Vec::new(), Vec::new());
    }
    runtime.threads.detach_all();
    still
}

/// Wakes all waiting tasks of ended epochs, whose drops are deferred. Unless `is_quiet` is true,
/// does nothing before `next_scan`, so that scans of many records take at most a tenth of the time.
/// Returns whether it scanned.
fn wake_tasks(runtime: &'static Runtime, next_scan: &mut Instant, is_quiet: bool) -> bool {
    let begin = Instant::now();
    let scans = is_quiet || begin >= *next_scan;
    if scans {
        context::defer_discards(|| record::wake_others(runtime.epoch()));
        *next_scan = Instant::now() + begin.elapsed() * 10;
    }
    scans
}

/// Takes the wakers of all waiters, sleeps and due timers, and those that other threads were about
/// to call. A waiter then gets an error, and a sleep checks the clock.
fn interrupt(runtime: &'static Runtime) -> Wakers {
    let mut wakers = Wakers::new();
    runtime.sysmon.take_wakers(&mut wakers);
    runtime.run_timers(Shards::ALL, clock::now(), &mut Vec::new(), &mut wakers);
    runtime.cache.iter().flat_map(|desc| desc.sides()).for_each(|side| side.interrupt(&mut wakers));
    runtime.clear_sleeps(&mut wakers);
    wakers
}

/// Returns the threads and tasks that have not ended.
fn survey(runtime: &'static Runtime) -> StillRunning {
    let in_turns = runtime
        .processors()
        .filter(|processor| processor.owned.load(Ordering::SeqCst))
        .filter_map(|processor| processor.running().filter(|record| !record.is_root()).and_then(Record::read));
    let is_call = |reading: &Reading| reading.kind() == Kind::Call && reading.is_running();
    let in_calls = record::all().filter_map(Record::read).filter(is_call);
    let (running, places) = in_turns
        .chain(in_calls)
        .map(|reading| {
            let task = TaskId::from_number(reading.id);
            ((task, identity::name_of(task)), reading.place())
        })
        .unzip();
    let (threads, tasks) = (runtime.threads.names(), runtime.tasks_alive());
    StillRunning { on_runtime_thread: false, threads, running, tasks, places }
}

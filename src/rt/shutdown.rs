//! Ending the runtime.
//!
//! # Order
//! 1. The epoch moves: from here on a task that is woken is dropped, a registration refused.
//! 2. Everybody who sleeps is woken and sees the epoch: workers end, threads inside `block_on` go on without a processor.
//! 3. Every waiter on a socket is woken (and gets an error), every sleeper too (and looks at the clock again), and what is
//!    queued is dropped, until nothing is queued any more: destructors may wake further tasks.
//! 4. Threads are joined, as long as the time lasts; then the epoll instance is closed.
//!
//! A thread that is stuck in a task is left behind; when the task returns, the thread sees the epoch and ends.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use super::context;
use super::runtime::runtime;
use super::sched::task::{TaskId, discard};
use super::waiters::Wakers;
use crate::sync::Ordering;

/// What was still there when [`shutdown`] gave up waiting, or why it did nothing.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StillRunning {
    /// It was called on a thread that runs tasks or reports of blocked ones, or is inside `block_on`, and did nothing.
    pub on_runtime_thread: bool,
    /// Names of the runtime's threads that have not ended.
    pub threads: Vec<String>,
    /// Tasks that keep their threads, with their names if they have one.
    pub running: Vec<(TaskId, Option<String>)>,
    /// Tasks that have not ended, those that keep a thread included: the others wait for something outside the runtime and end
    /// when they are woken.
    pub tasks: u64,
}

impl fmt::Display for StillRunning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.on_runtime_thread {
            return f.write_str(
                "the runtime cannot be shut down from a task or from inside block_on: call rt::shutdown outside",
            );
        }
        write!(f, "{} threads and {} tasks are still running", self.threads.len(), self.tasks)?;
        for (at, (id, name)) in self.running.iter().enumerate() {
            f.write_str(if at == 0 { ": " } else { ", " })?;
            match name {
                Some(name) => write!(f, "task {id} ({name})")?,
                None => write!(f, "task {id}")?,
            }
        }
        Ok(())
    }
}

/// The text of the error: `main` prints the error that it returns by `Debug`.
impl fmt::Debug for StillRunning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for StillRunning {}

impl From<StillRunning> for io::Error {
    fn from(still: StillRunning) -> io::Error {
        let kind = if still.on_runtime_thread { io::ErrorKind::Unsupported } else { io::ErrorKind::TimedOut };
        io::Error::new(kind, still)
    }
}

/// Ends the runtime: drops every task that is queued, wakes every waiter with an error, joins the threads that end within `timeout`
/// and closes the poller.
///
/// Sockets survive: they register again when they are next used, which starts the runtime afresh, with new settings if
/// [`Builder::start`](crate::rt::Builder::start) comes first. Tasks end at their current `.await`, as if dropped. Handles of
/// tasks that were dropped panic when they are awaited from outside; [`cancel`](crate::task::JoinHandle::cancel) on one gives `None`.
///
/// # Errors
/// [`StillRunning`] says what did not end in time (it ends by itself when its tasks return), or that the call came from
/// inside the runtime, which is refused.
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
pub fn shutdown(timeout: Duration) -> Result<(), StillRunning> {
    if context::is_inside() {
        return Err(StillRunning { on_runtime_thread: true, threads: Vec::new(), running: Vec::new(), tasks: 0 });
    }
    let runtime = runtime();
    let _lifecycle = runtime.lifecycle.lock();
    if !runtime.is_running() {
        return Ok(());
    }
    let deadline = Instant::now().checked_add(timeout);
    runtime.begin_stop();
    for sleeper in runtime.idle.lock().empty() {
        sleeper.parker.unpark();
    }
    runtime.driver.wake();
    runtime.sysmon.unpark();
    let mut threads = std::mem::take(&mut *runtime.threads.lock());
    let left = |deadline: Option<Instant>| deadline.is_none_or(|deadline| Instant::now() < deadline);
    let mut nap = Duration::from_micros(50);
    loop {
        let dropped = settle();
        // One that was being started when the epoch moved.
        threads.append(&mut runtime.threads.lock());
        let all_ended = threads.iter().all(|(_, thread)| thread.is_finished())
            && runtime.visitors.load(Ordering::SeqCst) == 0
            && !runtime.driver.role.is_taken();
        if (all_ended && dropped == 0) || !left(deadline) {
            break;
        }
        runtime.driver.wake();
        std::thread::sleep(nap);
        nap = (nap * 2).min(Duration::from_millis(2));
    }
    settle();
    let (ended, remaining): (Vec<_>, Vec<_>) = threads.into_iter().partition(|(_, thread)| thread.is_finished());
    for (_, thread) in ended {
        let _ = thread.join();
    }
    runtime.driver.close();
    let running: Vec<_> = runtime
        .processors()
        .filter(|processor| processor.owned.load(Ordering::SeqCst))
        .map(|processor| processor.running.load(Ordering::Relaxed))
        .filter(|&number| number != 0)
        .map(|number| {
            let task = TaskId::from_number(number);
            (task, runtime.name_of(task))
        })
        .collect();
    let still = StillRunning {
        on_runtime_thread: false,
        threads: remaining.iter().map(|(_, thread)| thread.thread().name().unwrap_or("?").to_owned()).collect(),
        running,
        tasks: runtime.tasks_alive(),
    };
    runtime.end_stop();
    // Who slept under another executor looked at the clock and may have gone back to sleep while nothing could be started: once more.
    let mut wakers = Wakers::new();
    runtime.clear_sleeps(&mut wakers);
    wakers.wake_all();
    if still.threads.is_empty() && still.tasks == 0 { Ok(()) } else { Err(still) }
}

/// Wakes all waiters and sleepers and drops all that is queued. Returns how many tasks were.
fn settle() -> usize {
    let runtime = runtime();
    // Once: who sleeps under another executor may go back to sleep as often as it is woken.
    let mut wakers = Wakers::new();
    runtime.cache.iter().flat_map(|desc| desc.sides()).for_each(|side| side.interrupt(&mut wakers));
    runtime.clear_sleeps(&mut wakers);
    wakers.wake_all();
    let mut total = 0;
    loop {
        let calls = runtime.pool.stop();
        let dropped = runtime.discard_queued() + calls.len();
        calls.into_iter().for_each(discard);
        total += dropped;
        if dropped == 0 {
            return total;
        }
    }
}

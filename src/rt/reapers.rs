//! [`Reapers`]: threads on which a shutdown runs user code.
//!
//! A shutdown wakes waiters and drops tasks. Wakers and destructors are user code: they may take
//! locks that the caller of the shutdown holds, wait for a timer, or wait forever. So they do not
//! run on the thread that shuts the runtime down, which watches its deadline and the timers in the
//! meantime. If jobs are queued while all reapers are occupied and none of their jobs ends, another
//! reaper is started, up to [`REAPERS_MAX`].
//!
//! A shutdown has two sets of reapers: one calls wakers and one drops tasks. So a destructor that
//! sleeps under another executor is woken even if such destructors occupy all threads of their set.
//! If a waker wakes a task whose epoch is over, the task is deferred to the set that drops tasks.
//! If the shutdown has ended by then, the thread that called the waker drops the task.
//!
//! # States of a job
//! *queued* → *running* → *done*. A reaper ends when the queue is closed and empty. If the shutdown
//! reaches its time limit, the remaining jobs run later, when the jobs before them are done.
//!
//! # If no thread can be started
//! If the first thread of a set cannot be started, the jobs run on the thread that shuts the
//! runtime down. A destructor that waits in `block_on` then drops other tasks. If it waits in
//! another way, or forever, the shutdown does not end.

use std::collections::VecDeque;
use std::mem;
use std::task::Waker;
use std::time::{Duration, Instant};

use async_task::Runnable;

use super::context;
use super::runtime::{Runtime, runtime};
use super::sched::task::discard;
use super::sched::task_data::TaskData;
use super::waiters::{Wakers, wake};
use crate::sync::{Arc, Condvar, Mutex};

/// The maximum number of threads in a set. If this many jobs wait for jobs behind them in the
/// queue, the shutdown reaches its time limit.
const REAPERS_MAX: usize = 64;

#[derive(Debug)]
enum Job {
    Wake(Waker),
    Drop(Runnable<TaskData>),
}

impl Job {
    fn run(self) {
        match self {
            Job::Wake(waker) => {
                if context::defer_discards(|| wake(waker)) {
                    // Has no effect during a shutdown, which takes the deferred tasks itself.
                    runtime().discard_deferred();
                }
            }
            Job::Drop(task) => discard(task),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Job>,
    running: usize,
    /// The total number of completed jobs.
    done: u64,
    is_closed: bool,
}

impl State {
    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.running == 0
    }
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Notified when a job is queued or the queue is closed.
    work: Condvar,
    /// Notified when the last job is done.
    idle: Condvar,
}

impl Shared {
    fn run_next(&self) -> bool {
        let mut state = self.state.lock();
        let Some(job) = state.queue.pop_front() else { return false };
        state.running += 1;
        drop(state);
        job.run();
        let mut state = self.state.lock();
        state.running -= 1;
        state.done += 1;
        if state.is_idle() {
            self.idle.notify_all();
        }
        true
    }

    fn run(&self) {
        loop {
            while self.run_next() {}
            let mut state = self.state.lock();
            while state.queue.is_empty() {
                if state.is_closed {
                    return;
                }
                state = self.work.wait(state);
            }
        }
    }
}

/// A set of threads on which a shutdown runs user code; see the [module documentation](self).
/// Dropping it closes the queue.
#[derive(Debug)]
pub(crate) struct Reapers {
    runtime: &'static Runtime,
    shared: Arc<Shared>,
    started: usize,
    /// The number of completed jobs when [`wait`](Reapers::wait) last returned false.
    done: u64,
}

impl Reapers {
    /// Creates a set. The first thread is started for the first job.
    pub(crate) fn new(runtime: &'static Runtime) -> Reapers {
        Reapers { runtime, shared: Arc::default(), started: 0, done: 0 }
    }

    /// Queues wakers, which a reaper wakes.
    pub(crate) fn wake(&mut self, mut wakers: Wakers) {
        self.push(wakers.drain().map(Job::Wake));
    }

    /// Queues tasks, which a reaper drops.
    pub(crate) fn discard(&mut self, tasks: Vec<Runnable<TaskData>>) {
        self.push(tasks.into_iter().map(Job::Drop));
    }

    fn push(&mut self, jobs: impl Iterator<Item = Job>) {
        let mut state = self.shared.state.lock();
        state.queue.extend(jobs);
        let is_empty = state.queue.is_empty();
        drop(state);
        self.shared.work.notify_all();
        if !is_empty && self.started == 0 {
            self.start();
        }
    }

    /// Waits until all jobs are done, for at most `most`. Returns whether all jobs are done. If no
    /// job was completed since the last call that returned false, and all threads are occupied,
    /// starts another thread for the queued jobs.
    pub(crate) fn wait(&mut self, most: Duration) -> bool {
        let until = Instant::now() + most;
        let mut state = self.shared.state.lock();
        loop {
            if state.is_idle() {
                return true;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.shared.idle.wait_timeout(state, left);
        }
        let has_moved = mem::replace(&mut self.done, state.done) != state.done;
        let is_stuck = !state.queue.is_empty() && state.running >= self.started && !has_moved;
        drop(state);
        if is_stuck && self.started < REAPERS_MAX {
            self.start();
        }
        false
    }

    /// Returns the number of threads that were started.
    pub(crate) fn started(&self) -> usize {
        self.started
    }

    /// Returns the number of threads that run or will run a job.
    pub(crate) fn kept(&self) -> usize {
        let state = self.shared.state.lock();
        if state.queue.is_empty() { state.running } else { self.started }
    }

    /// Runs the queued jobs on this thread. The tasks are added to the deferred ones, which a
    /// destructor drops while it waits in `block_on`, because it may wait for one of them.
    fn run_here(&self) {
        // The thread counts as inside the runtime, so that a call of `shutdown` in a job is refused
        // and does not wait for itself.
        context::enter();
        loop {
            let jobs = mem::take(&mut self.shared.state.lock().queue);
            if jobs.is_empty() {
                break;
            }
            for job in jobs {
                match job {
                    Job::Drop(task) => self.runtime.deferred.lock().push_back(task),
                    Job::Wake(_) => job.run(),
                }
            }
            while let Some(task) = self.runtime.pop_deferred() {
                discard(task);
            }
        }
        context::leave();
    }

    fn start(&mut self) {
        let (runtime, shared) = (self.runtime, self.shared.clone());
        let started = runtime.threads.start(format!("{}-shutdown", runtime.config().thread_name), move || {
            shared.run();
            if !runtime.is_stopping() {
                runtime.threads.leave();
            }
        });
        match started {
            Ok(()) => self.started += 1,
            Err(_) if self.started == 0 => self.run_here(),
            Err(_) => {}
        }
    }
}

impl Drop for Reapers {
    fn drop(&mut self) {
        self.shared.state.lock().is_closed = true;
        self.shared.work.notify_all();
    }
}

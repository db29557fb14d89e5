//! The pools of threads for calls that block: one for name look-ups, one for all else (files, computations).
//!
//! Look-ups have threads of their own, so that a program whose other calls take all their threads still resolves names: a dial has a
//! deadline, and does not know of those calls. So has Go, whose look-ups are limited apart from other blocked threads.
//!
//! Threads start on demand up to a bound and end after resting for [`REST`]. A task here is an ordinary task whose one poll
//! is the call, so it is awaited, cancelled (before it starts) and panics like any other.
//!
//! # Invariants
//! * P1 — at most `blocking_threads` threads per pool; what is queued beyond them waits.
//! * P2 — a queued task has a thread that will come to it, unless no thread can be started at all: then it runs where it was queued.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use async_task::Runnable;

use super::task::{TaskData, discard};
use crate::rt::context;
use crate::rt::runtime::Runtime;
use crate::rt::waiters::let_go;
use crate::sync::{Condvar, Mutex, MutexGuard};

/// How long a thread without work stays.
const REST: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct State {
    queue: VecDeque<Runnable<TaskData>>,
    threads: usize,
    resting: usize,
}

/// See the module's header.
#[derive(Debug)]
pub(crate) struct Pool {
    state: Mutex<State>,
    work: Condvar,
}

impl Pool {
    pub(crate) const fn new() -> Pool {
        Pool { state: Mutex::new(State { queue: VecDeque::new(), threads: 0, resting: 0 }), work: Condvar::new() }
    }

    pub(crate) fn threads(&self) -> usize {
        self.state.lock().threads
    }

    /// For a shutdown: takes what is queued and has resting threads look at the epoch.
    pub(crate) fn stop(&self) -> VecDeque<Runnable<TaskData>> {
        let mut state = self.state.lock();
        // Who rests is told to end: nobody may count on it any more.
        state.resting = 0;
        let queue = std::mem::take(&mut state.queue);
        drop(state);
        self.work.notify_all();
        queue
    }
}

impl Runtime {
    /// Queues a call.
    pub(crate) fn pool_push(&'static self, pool: &'static Pool, runnable: Runnable<TaskData>) {
        let epoch = runnable.metadata().epoch();
        let bound = self.config().blocking_threads;
        let mut state = pool.state.lock();
        // Under the lock: a shutdown moves the epoch before it empties the queue, and would not find what is queued afterwards.
        if self.epoch() != epoch {
            drop(state);
            return discard(runnable);
        }
        state.queue.push_back(runnable);
        if state.resting >= state.queue.len() {
            drop(state);
            pool.work.notify_one();
            return;
        }
        if state.threads < bound {
            self.start_pool_thread(pool, state, epoch);
        }
    }

    fn start_pool_thread(&'static self, pool: &'static Pool, mut state: MutexGuard<'_, State>, epoch: u32) {
        state.threads += 1;
        drop(state);
        let name = format!("{}-blocking", self.config().thread_name);
        if self.threads.start(name, move || self.pool_thread(pool, epoch)).is_err() {
            let mut state = pool.state.lock();
            state.threads -= 1;
            let stranded = if state.threads == 0 { state.queue.pop_back() } else { None };
            drop(state);
            if let Some(stranded) = stranded {
                run(stranded);
            }
        }
    }

    fn pool_thread(&'static self, pool: &'static Pool, epoch: u32) {
        let mut state = pool.state.lock();
        let mut until = Instant::now() + REST;
        while self.epoch() == epoch {
            if let Some(runnable) = state.queue.pop_front() {
                drop(state);
                run(runnable);
                state = pool.state.lock();
                until = Instant::now() + REST;
                continue;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state.resting += 1;
            state = pool.work.wait_timeout(state, left);
            // After the epoch has moved `stop` counts everybody out.
            if self.epoch() == epoch {
                state.resting -= 1;
            }
        }
        state.threads -= 1;
        if !state.queue.is_empty() && self.is_running() {
            // One that a shutdown left behind took the place of one of this epoch.
            let now = self.epoch();
            self.start_pool_thread(pool, state, now);
        } else {
            drop(state);
        }
        if self.epoch() == epoch {
            self.threads.leave();
        }
    }
}

fn run(runnable: Runnable<TaskData>) {
    let data: *const TaskData = runnable.metadata();
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| context::run_task(data, || runnable.run()))) {
        let_go(payload);
    }
}

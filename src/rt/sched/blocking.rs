//! The thread pools for blocking calls: one for name look-ups, one for closes that may wait, and
//! one for all other calls (files, computations).
//!
//! Look-ups have separate threads, so that a program whose other calls occupy all of their threads
//! can still resolve names: the deadline of a dial must not depend on those calls. Go also limits
//! look-ups separately from other blocked threads. Closes that may wait, for SO_LINGER or for the
//! buffers of `send_zerocopy`, have separate threads too, because the peer waits for the FIN.
//!
//! Threads start on demand, up to a limit, and end after [`REST`] without work. A call is a task
//! with a single poll, which makes the call. So it can be awaited, its panics are handled as those
//! of other tasks, and it can be cancelled before it starts.
//!
//! # Invariants
//! * P1 — a pool has at most `blocking_threads` threads per epoch. Further calls are queued.
//! * P2 — a thread of the pool runs each queued call, unless the call is cancelled, a shutdown
//!   drops it, or the system refuses to create threads (see `shortage.rs`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use async_task::Runnable;

use super::pool::{Pool, State, pop_front};
use super::task::discard;
use super::task_data::TaskData;
use crate::rt::context;
use crate::rt::runtime::{Runtime, runtime};
use crate::rt::waiters::drop_payload;
use crate::sync::MutexGuard;

/// The time after which a thread without work ends.
const REST: Duration = Duration::from_secs(10);

impl Runtime {
    /// Queues a call, and makes sure that a thread runs it. Drops the call if its epoch is over.
    pub(crate) fn pool_push(&'static self, pool: &'static Pool, runnable: Runnable<TaskData>) {
        let epoch = runnable.metadata().epoch();
        let bound = self.config().blocking_threads;
        let mut state = pool.state.lock();
        // The epoch is checked under the lock. A shutdown advances the epoch before it empties the
        // queue, so calls of the old epoch are not queued afterwards.
        if self.epoch() != epoch {
            drop(state);
            return discard(runnable);
        }
        state.queue.push_back(runnable);
        if state.free >= state.queue.len() {
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
        state.free += 1;
        drop(state);
        let name = format!("{}-blocking", self.config().thread_name);
        let is_watched = self.sysmon.is_deferred() || self.ensure_sysmon().is_ok();
        if is_watched && self.threads.start(name, move || self.pool_thread(pool, epoch)).is_ok() {
            return;
        }
        {
            let mut state = pool.state.lock();
            state.leave_free(self.epoch() == epoch);
            state.forget_thread(self.epoch() == epoch);
        }
        if self.sysmon.is_deferred() {
            // Sysmon tries again to start the thread. The call does not become a task, because the
            // thread in `block_on` would run it, and the call could wait forever for that thread.
            let _ = self.start_sysmon_patiently(epoch);
        }
        if self.sysmon.is_missing() {
            self.ensure_pool_thread(pool, true);
        }
        self.refused();
    }

    /// If calls are queued that no free thread will take, and the pool may have more threads, tries
    /// again to start one. If the refusal to create threads `lasts`, queues these calls as tasks
    /// instead. Called after a refusal.
    pub(crate) fn ensure_pool_thread(&'static self, pool: &'static Pool, lasts: bool) {
        let bound = self.config().blocking_threads;
        let mut state = pool.state.lock();
        // The epoch is read under the lock. Otherwise a thread of an epoch that is over might stay
        // counted.
        let epoch = self.epoch();
        let free = state.free;
        if state.queue.len() <= free || state.threads >= bound {
            return;
        }
        if !lasts {
            return self.start_pool_thread(pool, state, epoch);
        }
        // The free threads take the first calls.
        let calls = state.queue.split_off(free);
        drop(state);
        calls.into_iter().for_each(|call| self.inject(call));
    }

    fn pool_thread(&'static self, pool: &'static Pool, epoch: u32) {
        let mut state = pool.state.lock();
        state.leave_free(self.epoch() == epoch);
        let mut until = Instant::now() + REST;
        while self.epoch() == epoch {
            if let Some(runnable) = pop_front(&mut state.queue) {
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
            state.free += 1;
            state = pool.work.wait_timeout(state, left);
            // After the epoch has advanced, `stop` resets the counts.
            state.leave_free(self.epoch() == epoch);
        }
        state.forget_thread(self.epoch() == epoch);
        drop(state);
        if self.epoch() == epoch {
            self.threads.leave();
        }
    }
}

fn run(runnable: Runnable<TaskData>) {
    let data: *const TaskData = runnable.metadata();
    let record = runnable.metadata().record();
    let run = || context::run_call(data, || record.polling(|| runnable.run()));
    if let Err(payload) = catch_unwind(AssertUnwindSafe(run)) {
        drop_payload(payload);
        runtime().panics.add(1);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::Location;

    use super::*;
    use crate::rt::sched::lanes::Lane;
    use crate::rt::sched::record::Kind;

    /// Regression: the worker counted such a panic, and a thread of a pool did not.
    #[test]
    fn panic_that_a_call_does_not_catch_is_counted() {
        let data = TaskData::new(Kind::Call, None, Lane::Normal, runtime().epoch(), Location::caller(), 0);
        let panics = |_: &TaskData| async { panic!("on purpose") };
        let (runnable, task) = async_task::Builder::new().metadata(data).spawn(panics, |_| {});
        let before = runtime().panics.get();
        run(runnable);
        assert!(task.is_finished() && runtime().panics.get() > before);
        task.detach();
    }
}

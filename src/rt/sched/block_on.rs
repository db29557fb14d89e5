//! [`block_on`]: runs one future, the root future, on the calling thread.
//!
//! By default, no task delays the root future, unless the future waits for the task. The thread
//! polls the future whenever it is woken. When the thread has nothing to do, it sleeps in epoll if
//! no worker polls, and parks otherwise. Spawned tasks run on workers, including tasks that the
//! root future or a poll by this thread has woken. So a server that serves one connection in
//! `block_on` needs no switch between threads per request. Neither does a server that spawns a task
//! per connection: the first event for a task wakes a worker, which polls from then on.
//!
//! # Which thread polls
//! * If no worker is awake, this thread takes the roles of all free shards of the poller just
//!   before it sleeps (D2 of `driver.rs`).
//! * If a worker polls and its events no longer wake tasks ([`Runtime::is_lonely`]), this thread
//!   asks for the role. The worker then releases its roles and rests.
//! * If all awake workers are stuck or in long turns, sysmon or one of them nudges this thread,
//!   which then polls.
//!
//! While this thread is in a long turn of its root future and no other thread polls, sysmon, unless
//! it is missing, polls, and wakes another thread, which polls from then on.
//!
//! # Inside a task or another `block_on`
//! The same applies, but before the thread polls or waits, it gives its processor away, if it has
//! one. Another thread then runs the queued tasks, and the rest of the task's turn continues
//! without a processor. So any number of nested calls make progress, as long as the system permits
//! that many threads.
//!
//! # `Builder::block_on_runs_tasks`
//! With this option, the thread takes a free processor, if there is one, and acts as a worker that
//! gives priority to its root future. A task that blocks the thread delays the root future. Without
//! the option, the thread runs tasks only if sysmon could not be started, because then no other
//! thread does. A nested call never runs tasks.
//!
//! # `Builder::single_threaded`
//! The start of sysmon is deferred ([`Sysmon::defer`](super::sysmon::Sysmon::defer)), and with it
//! the start of workers: [`Runtime::wake_one`] starts none, but wakes the threads in `block_on`,
//! one of which takes the processor. A nested call that waits ends the deferral, because its thread
//! cannot run the queued tasks. A future that waits, or registers its socket, outside `block_on`
//! also ends the deferral (see `shortage.rs`).
//!
//! # Cancellation
//! If the root future panics, `Drop` releases everything that the thread holds.

use std::future::Future;
use std::panic::Location;
use std::pin::pin;
use std::task::{Context, Poll, Wake, Waker};

use super::identity::Name;
use super::lanes::Lane;
use super::polling::{Polling, Slept};
use super::processor::Processor;
use super::record::{Kind, Record};
use super::root::Root;
use super::task::{RootLocals, discard};
use super::task_data::TaskData;
use super::worker::{Core, Exit, end_turn, mark_turn};
use crate::rt::context;
use crate::rt::fork;
use crate::rt::poll::role::By;
use crate::rt::poll::roles::Shards;
use crate::rt::runtime::{Runtime, runtime};
use crate::rt::time::{clock, ticks};
use crate::rt::unsent;
use crate::sync::{Arc, Ordering};

/// The minimum time between polls of the network by a thread in `block_on` that never sleeps in
/// epoll, in nanoseconds.
const POLL_EVERY_NANOS: u64 = 50_000;

impl Wake for Root {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        Root::wake(self, |shard| _ = runtime().driver.wake_if_later(shard, 0));
    }
}

/// Runs `future` to completion on this thread.
#[track_caller]
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    block_on_named(None, future)
}

/// Runs `future` to completion on this thread, as a task called `name`.
#[track_caller]
pub(crate) fn block_on_named<F: Future>(name: Option<Name>, future: F) -> F::Output {
    fork::assert_not_child();
    #[cfg(feature = "sim")]
    assert!(
        !crate::sim::is_here(),
        "`block_on` inside a simulation would block its only thread: await the future, or use `sim::Host::run`"
    );
    #[cfg(feature = "sim")]
    if crate::sim::replaces_block_on() {
        return crate::sim::block_on(future);
    }
    let data = TaskData::new(
        Kind::Root,
        name,
        Lane::Normal,
        runtime().ensure_running(),
        Location::caller(),
        ticks::rough_now(),
    );
    // Flushes the gathered writes of the turn that makes this call, because that turn now waits.
    unsent::flush();
    let mut thread = Thread::enter(data.record());
    let _locals = RootLocals(&data);
    let waker = Waker::from(thread.root.clone());
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if thread.begin_turn() {
            let polled = context::run_turn(&data, Some(waker.data()), || {
                data.record().polling(|| future.as_mut().poll(&mut cx))
            });
            unsent::flush();
            if let Poll::Ready(output) = polled {
                context::run_task(&data, || data.clear_locals());
                return output;
            }
        }
        thread.end_turn();
        // A child of fork(2) would take the events of its parent.
        fork::assert_not_child();
        thread.idle();
    }
}

/// A thread in `block_on`.
struct Thread {
    runtime: &'static Runtime,
    root: Arc<Root>,
    /// The record of the root future.
    record: &'static Record,
    /// Whether the thread was already inside the runtime, for example in a task or another
    /// `block_on`.
    is_nested: bool,
    /// Whether the call is inside the turn of another root future, so that the thread is already
    /// counted.
    was_root: bool,
    /// Whether the thread is counted in `Runtime::nested`.
    is_blocked: bool,
    /// Whether the thread runs tasks even if others do (`Builder::block_on_runs_tasks`).
    runs_tasks: bool,
    /// The processor that the thread has taken to run tasks.
    processor: Option<&'static Processor>,
    core: Option<Box<Core>>,
    polling: Option<Box<Polling>>,
    /// Whether the thread has asked a worker for the role.
    has_asked: bool,
    /// The time of the last poll by [`poll_between_turns`](Thread::poll_between_turns), or 0.
    polled_at: u64,
}

impl Thread {
    fn enter(record: &'static Record) -> Thread {
        let runtime = runtime();
        let is_nested = context::enter();
        let was_root = context::set_root(true);
        if !was_root {
            runtime.root_begins();
        }
        Thread {
            runtime,
            root: Arc::new(Root::new()),
            record,
            is_nested,
            was_root,
            is_blocked: false,
            runs_tasks: !is_nested && runtime.config().block_on_runs_tasks,
            processor: None,
            core: None,
            polling: None,
            has_asked: false,
            polled_at: 0,
        }
    }

    /// Begins a turn of the root future if it was woken. Returns whether it was.
    fn begin_turn(&mut self) -> bool {
        if !self.root.begin_turn() {
            return false;
        }
        if self.has_asked {
            self.settle_wish();
        }
        if self.runs_tasks && self.processor.is_none() {
            self.processor = self.runtime.acquire();
        }
        match self.processor {
            Some(processor) => mark_turn(processor, self.record, ticks::ticks()),
            None => context::refill_budget(),
        }
        true
    }

    fn end_turn(&mut self) {
        // A nested call may have given the processor away.
        self.processor = self.processor.filter(|_| context::processor().is_some());
        if let Some(processor) = self.processor {
            end_turn(processor);
        }
    }

    /// Does the work of the thread between two turns of the root future: runs tasks if this thread
    /// may or must, gives its processor away if it still has one, and polls or waits.
    fn idle(&mut self) {
        if (self.runs_tasks || self.must_run_tasks()) && self.run_tasks() {
            return;
        }
        if self.is_nested && !self.is_blocked {
            self.is_blocked = true;
            self.runtime.nested.fetch_add(1, Ordering::SeqCst);
            self.runtime.replace_sysmon();
            if self.runtime.sysmon.is_deferred() {
                // Another thread must run the queued tasks. If it cannot be started, this thread
                // tries again.
                let _ = self.runtime.ensure_sysmon();
            }
        }
        if let Some(processor) = context::processor() {
            self.processor = None;
            self.runtime.leave(processor);
        }
        if self.root.is_woken() { self.poll_between_turns() } else { self.wait() }
    }

    /// Returns whether this thread must run the queued tasks, because sysmon is missing. First
    /// tries to start a worker for them. A nested call does not run tasks, because its thread must
    /// first finish its own task.
    fn must_run_tasks(&self) -> bool {
        !self.is_nested && self.runtime.lacks_threads_for_tasks() && !self.runtime.wake_one(|| true)
    }

    /// Acts as a worker until the root future is woken or the thread loses its processor, for
    /// example because there is no work and another thread polls. Returns whether the root future
    /// was woken. Returns false at once if the thread has no processor and none is free.
    fn run_tasks(&mut self) -> bool {
        self.processor = self.processor.or_else(|| self.runtime.acquire());
        let Some(processor) = self.processor else { return false };
        context::set_root(false);
        self.runtime.root_ends();
        self.runtime.visitors.fetch_add(1, Ordering::SeqCst);
        let epoch = processor.epoch.load(Ordering::Relaxed);
        let exit = self.core.get_or_insert_with(|| Box::new(Core::new())).run(processor, None, Some(&self.root), epoch);
        self.runtime.visitors.fetch_sub(1, Ordering::SeqCst);
        self.processor = (exit == Exit::Root).then_some(processor);
        context::set_root(true);
        self.runtime.root_begins();
        exit == Exit::Root
    }

    /// Runs due timers and polls, at most every [`POLL_EVERY_NANOS`]. Called while the root future
    /// keeps yielding, or while a timer is due at each wait, because the thread then never sleeps
    /// in epoll.
    fn poll_between_turns(&mut self) {
        // The epoch is read before the check that the runtime is running, so the runtime was
        // running in this epoch.
        let (now, epoch) = (clock::now(), self.runtime.epoch());
        if now.saturating_sub(self.polled_at) < POLL_EVERY_NANOS || !self.runtime.is_running() {
            return;
        }
        self.polled_at = now;
        let polling = self.polling.get_or_insert_with(|| Box::new(Polling::new()));
        polling.run_timers(self.runtime, Shards::ALL, now);
        polling.poll_free(self.runtime, epoch, now);
        polling.wake_all(self.runtime);
    }

    /// Sleeps in epoll if no other thread polls, and parks otherwise.
    fn wait(&mut self) {
        if self.runtime.is_stopping() {
            return self.wait_in_shutdown();
        }
        if self.is_nested && self.runtime.sysmon.is_missing() && self.runtime.ensure_sysmon().is_err() {
            return self.wait_without_sysmon();
        }
        let (runtime, root) = (self.runtime, &self.root);
        let epoch = runtime.epoch();
        let was_granted = std::mem::take(&mut self.has_asked) && runtime.withdraw_wish(root);
        let polls = runtime.is_running() && (was_granted || runtime.needs_poller());
        let shards = if polls { runtime.driver.roles.take_free() } else { Shards::NONE };
        if shards.is_empty() {
            self.has_asked = runtime.is_lonely() && !runtime.sysmon.is_deferred() && runtime.ask_for_role(root);
            return runtime.park_root(root);
        }
        let is_nested = self.is_nested;
        let polling = self.polling.get_or_insert_with(|| Box::new(Polling::new()));
        let falls_asleep = || {
            runtime.root_ends();
            !root.enter_poll(shards.first())
                || (!is_nested && runtime.lacks_threads_for_tasks() && runtime.has_free_processor())
        };
        let rises = || {
            root.leave_poll();
            runtime.root_begins();
        };
        let slept = polling.sleep(runtime, shards, By::Root, epoch, falls_asleep, rises);
        if slept == Slept::NoPoller {
            root.park_until(clock::to_instant(runtime.next_timer(Shards::ALL).min(clock::now() + 10_000_000)));
        }
        polling.wake_all(runtime);
        if runtime.epoch() != epoch {
            polling.forget_instances();
            // A thread of the new epoch may have relied on this thread to poll.
            runtime.ensure_worker_after_leaving();
        }
        if slept == Slept::TimersRan {
            // If a timer is due every time, the thread never sleeps in epoll, so it polls here.
            self.poll_between_turns();
        }
    }

    /// Waits for at most 1 ms while the runtime is shutting down, and first runs due timers. In the
    /// destructor of a dropped task, instead drops one task whose drop was deferred, if there is
    /// one. `block_on` may have been called in a destructor on the thread that shuts the runtime
    /// down, which would otherwise do this work.
    #[cold]
    fn wait_in_shutdown(&mut self) {
        if context::is_discarding()
            && let Some(task) = self.runtime.pop_deferred()
        {
            return discard(task);
        }
        let polling = self.polling.get_or_insert_with(|| Box::new(Polling::new()));
        polling.run_timers(self.runtime, Shards::ALL, clock::now());
        polling.wake_all(self.runtime);
        self.root.park_until(clock::to_instant(clock::now() + 1_000_000));
    }

    /// Waits while the system refuses to start sysmon: runs due timers, polls once, parks for at
    /// most 10 ms, and returns, so that the caller tries again. The thread may be the previous
    /// sysmon, which waits for tasks that need another worker.
    #[cold]
    fn wait_without_sysmon(&mut self) {
        let (epoch, now) = (self.runtime.epoch(), clock::now());
        let polling = self.polling.get_or_insert_with(|| Box::new(Polling::new()));
        polling.run_timers(self.runtime, Shards::ALL, now);
        polling.poll_free(self.runtime, epoch, now);
        polling.wake_all(self.runtime);
        self.root.park_until(clock::to_instant(clock::now() + 10_000_000));
    }

    /// Withdraws the wish for the role. If it was granted, makes sure that another thread polls.
    fn settle_wish(&mut self) {
        self.has_asked = false;
        if self.runtime.withdraw_wish(&self.root) {
            self.runtime.ensure_poller();
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // The writes have not been flushed yet if the root future has panicked.
        unsent::flush();
        context::set_root(self.was_root);
        context::leave();
        if fork::is_child() {
            // The threads that would take over exist only in the parent, and may have held locks at
            // the fork.
            return;
        }
        if self.has_asked {
            self.settle_wish();
        }
        if self.is_blocked {
            self.runtime.nested.fetch_sub(1, Ordering::SeqCst);
        }
        if !self.was_root {
            self.runtime.root_ends();
        }
        match self.processor.filter(|_| context::processor().is_some()) {
            Some(processor) => self.runtime.leave(processor),
            None if context::processor().is_none() => self.runtime.ensure_worker_after_leaving(),
            None => {}
        }
    }
}

//! `block_on`: a thread that waits for one future takes part in the runtime meanwhile.
//!
//! It takes a free processor, polls its root future whenever that was woken (before anything else), and otherwise does what a
//! worker does; it prefers the role of polling, so that a server with one connection has no hop between threads. When the root future is
//! done it hands on what it holds: processor, tasks, role. So it does for a while after sysmon saw it kept by a task: its root future
//! can go on nowhere else.
//!
//! # Nested
//! Inside a task or another `block_on` it runs no other task: it would have to finish that one first. It parks, and counts as a
//! task that blocks its thread: its processor's tasks go to everybody and another thread is woken, with a spare processor if need be.
//! With more nested waits than workers and spare ones no task runs until one of them ends; sysmon polls for them meanwhile, so
//! those that wait for the clock or the network do end.
//!
//! # Memory ordering
//! The root waker sets `woken` and then looks whether the thread sleeps in epoll; the thread says that it will sleep there and then
//! looks at `woken`. Both SeqCst: one of the two sees the other (model `root_waker_against_sleep`).

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Wake, Waker};

use super::idle::Sleeper;
use super::processor::Processor;
use super::task::{Name, TaskData};
use super::worker::{Core, Exit, begin_turn, end_turn};
use crate::rt::context;
use crate::rt::fork;
use crate::rt::parker::Parker;
use crate::rt::runtime::{Runtime, runtime};
use crate::sync::{Arc, AtomicBool, Ordering};

/// The root future's waker.
struct Root {
    woken: AtomicBool,
    sleeper: Arc<Sleeper>,
}

impl Wake for Root {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // ORDERING: SeqCst, see the header.
        if self.woken.swap(true, Ordering::SeqCst) {
            return;
        }
        if self.sleeper.in_poll.load(Ordering::SeqCst) {
            runtime().driver.wake();
        }
        self.sleeper.parker.unpark();
    }
}

/// Runs `future` to its end on this thread.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    block_on_named(None, future)
}

/// The same as a task with a name.
pub(crate) fn block_on_named<F: Future>(name: Option<Name>, future: F) -> F::Output {
    fork::refuse();
    let data = TaskData::new(name, runtime().ensure_running()).staying();
    if context::is_inside() { nested(data, future) } else { participate(data, future) }
}

/// A processor that is given up whatever happens to the root future.
struct Participant {
    runtime: &'static Runtime,
    sleeper: Arc<Sleeper>,
    processor: Option<&'static Processor>,
}

impl Participant {
    /// Takes no part from here on: processor, tasks and role go to others.
    fn withdraw(&mut self) {
        let mut attend = false;
        if let Some(processor) = self.processor.take().or_else(|| self.runtime.unlist(&self.sleeper)) {
            self.runtime.leave(processor);
        }
        if self.sleeper.has_role.swap(false, Ordering::SeqCst) {
            self.runtime.driver.release();
            attend = true;
        }
        if attend {
            self.runtime.attend_after_leaving();
        }
    }
}

impl Drop for Participant {
    fn drop(&mut self) {
        self.withdraw();
    }
}

fn participate<F: Future>(data: TaskData, future: F) -> F::Output {
    let runtime = runtime();
    let mut epoch = runtime.ensure_running();
    let _inside = context::enter();
    let may_take_part = runtime.config().block_on_runs_tasks;
    let mut takes_part = false;
    let sleeper = Arc::new(Sleeper::new());
    let root = Arc::new(Root { woken: AtomicBool::new(true), sleeper: sleeper.clone() });
    let waker = Waker::from(root.clone());
    let mut cx = Context::from_waker(&waker);
    let mut core = None;
    let mut future = pin!(future);
    let mut held = Participant { runtime, sleeper: sleeper.clone(), processor: None };
    runtime.sysmon.notice();
    loop {
        let took_part = std::mem::replace(&mut takes_part, may_take_part && !runtime.sysmon.spares_roots());
        if took_part && !takes_part {
            held.withdraw();
        }
        if takes_part && held.processor.is_none() {
            epoch = runtime.ensure_running();
            held.processor = runtime.acquire(&sleeper);
            if let Some(processor) = held.processor {
                // A stop and a start may lie between: what counts is the epoch that it was handed out in.
                epoch = processor.epoch.load(Ordering::Relaxed);
                processor.root.store(data.task().id().number(), Ordering::Relaxed);
            }
        }
        if root.woken.load(Ordering::Acquire) && sleeper.has_role.swap(false, Ordering::SeqCst) {
            // Handed over, but the root future comes first.
            runtime.driver.release();
        }
        // ORDERING: AcqRel: what the waker's thread wrote is visible to the poll that follows.
        if root.woken.swap(false, Ordering::AcqRel) {
            if let Some(processor) = held.processor {
                begin_turn(processor, data.task().id().number());
            }
            let polled = context::run_task(&data, || future.as_mut().poll(&mut cx));
            if let Some(processor) = held.processor {
                end_turn(processor);
            }
            if let Poll::Ready(output) = polled {
                context::run_task(&data, || data.clear_locals());
                return output;
            }
        }
        let exit = held
            .processor
            .map(|processor| core.get_or_insert_with(Core::new).run(processor, &sleeper, Some(&root.woken), epoch));
        match exit {
            Some(Exit::Root) => continue,
            Some(Exit::Stopped | Exit::Resting) => held.processor = None,
            None => {}
        }
        if !root.woken.load(Ordering::Acquire) && exit != Some(Exit::Stopped) {
            sleeper.parker.park();
        }
    }
}

fn nested<F: Future>(data: TaskData, future: F) -> F::Output {
    /// Wakes a parked thread.
    struct Unpark(Parker);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
        fn wake_by_ref(self: &Arc<Self>) {
            self.0.unpark();
        }
    }
    /// The thread as blocked, until dropped.
    struct Blocked(&'static Runtime, Option<&'static Processor>);
    impl Drop for Blocked {
        fn drop(&mut self) {
            self.0.nested.fetch_sub(1, Ordering::SeqCst);
            if let Some(processor) = self.1 {
                context::set_processor(Some(processor));
                self.0.awake.up(processor.epoch.load(Ordering::Relaxed));
            }
        }
    }
    let runtime = runtime();
    let unpark = Arc::new(Unpark(Parker::new()));
    let waker = Waker::from(unpark.clone());
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    let mut blocked = None;
    loop {
        if let Poll::Ready(output) = context::run_task(&data, || future.as_mut().poll(&mut cx)) {
            context::run_task(&data, || data.clear_locals());
            return output;
        }
        if blocked.is_none() {
            let processor = context::processor();
            context::set_processor(None);
            blocked = Some(Blocked(runtime, processor));
            runtime.nested.fetch_add(1, Ordering::SeqCst);
            if let Some(processor) = processor {
                runtime.inject_quietly(processor.queue.drain());
                runtime.awake.down(processor.epoch.load(Ordering::Relaxed));
            }
            runtime.replace_blocked();
            runtime.sysmon.notice();
        }
        unpark.0.park();
    }
}

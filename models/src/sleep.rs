//! Models of going to sleep and waking up, with workers, threads in `block_on`, the role of polling
//! and the eventfd. The poller has one open shard. [`shards`](crate::shards) has the models with
//! two.
//!
//! A worker without work sleeps in epoll if it has the role of polling. Otherwise it gives its
//! processor up and *rests*. The *root future* is the future of a `block_on`. Its thread may *wish*
//! for the role, and a worker then *grants* the wish (`rt/sched/resting.rs`).

use std::sync::Arc;

use crate::engine::thread;
use crate::miniature::{EPOCH, Runtime, spawn};
use crate::rt::poll::roles::Shards;
use crate::sync::{AtomicBool, Ordering, injected_bug};

/// Tasks are injected while the only worker goes to sleep in epoll. The worker must run the tasks.
pub fn sleep_against_inject() {
    let runtime = Runtime::new(1);
    let worker = spawn(&runtime, |runtime| runtime.work(2));
    runtime.inject();
    runtime.inject();
    worker.join().unwrap();
}

/// Two threads interrupt a sleep at the same time, and one of them does so again. One write to the
/// eventfd may serve several interrupts, but not those after the end of the sleep.
pub fn breaks_are_not_lost() {
    let runtime = Runtime::new(1);
    let worker = spawn(&runtime, |runtime| runtime.work(3));
    let other = spawn(&runtime, Runtime::inject);
    runtime.inject();
    runtime.inject();
    other.join().unwrap();
    worker.join().unwrap();
}

/// A thread that does not have the role looks for events, and takes the interrupt that another
/// thread has sent to the sleeping worker. The worker must still run the task.
pub fn interrupt_against_look() {
    let runtime = Runtime::new(1);
    let worker = spawn(&runtime, |runtime| runtime.work(1));
    let looking = spawn(&runtime, |runtime| _ = runtime.epoll(0).look());
    runtime.inject();
    looking.join().unwrap();
    worker.join().unwrap();
}

/// A task is injected while the worker goes to rest because another thread has the role. That
/// thread releases the role and gives up its processor. The worker must run the task.
pub fn rest_against_inject() {
    let runtime = Runtime::new(2);
    assert!(runtime.roles.role(0).try_take());
    let worker = spawn(&runtime, |runtime| runtime.work(1));
    let injecting = spawn(&runtime, Runtime::inject);
    runtime.roles.role(0).release();
    runtime.leave();
    injecting.join().unwrap();
    worker.join().unwrap();
}

/// A task is injected while the thread in `block_on` goes to sleep in epoll. The resting worker
/// must run the task.
pub fn inject_against_the_sleep_of_a_root() {
    let runtime = Runtime::new(0);
    runtime.set_resting();
    runtime.root.begin_turn();
    let worker = spawn(&runtime, |runtime| {
        runtime.rest();
        runtime.work(1);
        // The task has run, so the root future ends, and with it the model.
        runtime.wake_root();
    });
    let injecting = spawn(&runtime, Runtime::inject);
    runtime.block_on();
    injecting.join().unwrap();
    worker.join().unwrap();
}

/// Runs a worker until it has the role. No other thread keeps the role, so the worker must get it.
fn ends_up_polling(runtime: &Runtime) {
    while !runtime.roles.role(0).try_take() {
        if runtime.give_back(0) {
            runtime.rest();
        }
    }
}

/// A thread returns from epoll and gives up its processor while the worker goes to rest because the
/// role is taken. The worker must be woken to poll.
pub fn some_thread_polls_when_all_rest() {
    let runtime = Runtime::new(2);
    assert!(runtime.roles.role(0).try_take());
    let worker = spawn(&runtime, ends_up_polling);
    runtime.roles.role(0).release();
    runtime.leave();
    worker.join().unwrap();
}

/// The worker goes to rest while sysmon polls. The worker must be woken to poll.
///
/// Mirrors `Monitor::poll`.
pub fn sysmon_gives_the_role_back() {
    let runtime = Runtime::new(1);
    let worker = spawn(&runtime, ends_up_polling);
    if runtime.roles.role(0).try_take() {
        runtime.epoll(0).wait(false);
        runtime.roles.role(0).release();
        if !injected_bug!("sysmon_leaves_no_poller") {
            runtime.ensure_poller();
        }
    }
    worker.join().unwrap();
}

/// The thread in `block_on` parks while sysmon polls. Afterwards, the thread must poll.
///
/// Mirrors `Thread::wait` and `Monitor::poll`.
pub fn a_root_polls_after_sysmon() {
    let runtime = Runtime::new(0);
    runtime.root.begin_turn();
    let root = spawn(&runtime, |runtime| {
        while !(runtime.needs_poller() && runtime.roles.role(0).try_take()) {
            runtime.park_root();
        }
    });
    if runtime.roles.role(0).try_take() {
        runtime.roles.role(0).release();
        if !injected_bug!("sysmon_leaves_no_poller") {
            runtime.ensure_poller();
        }
    }
    root.join().unwrap();
}

/// The worker grants the wish of the thread in `block_on`, whose root future is woken in the
/// meantime. The thread does not poll, so the worker must.
///
/// Mirrors `Thread::wait` and `Thread::settle_wish`.
pub fn the_role_is_not_lost_when_a_wish_is_granted() {
    let runtime = Runtime::new(1);
    runtime.root.begin_turn();
    let worker = spawn(&runtime, |runtime| {
        loop {
            if !runtime.roles.role(0).try_take() {
                if runtime.give_back(0) {
                    runtime.rest();
                }
            } else if runtime.grant_role(Shards::one(0)) {
                runtime.rest();
            } else {
                break;
            }
        }
    });
    if runtime.ask_for_role() {
        let waking = spawn(&runtime, Runtime::wake_root);
        runtime.park_root();
        // The thread was woken, and the turn of the root future begins.
        if runtime.withdraw_wish() {
            runtime.ensure_poller();
        }
        waking.join().unwrap();
    }
    worker.join().unwrap();
}

/// A task is injected while the worker grants the role and goes to rest. The worker must run the
/// task.
pub fn a_granted_role_against_inject() {
    let runtime = Runtime::new(1);
    runtime.root.begin_turn();
    runtime.ask_for_role();
    let worker = spawn(&runtime, |runtime| runtime.work(1));
    runtime.inject();
    worker.join().unwrap();
}

/// The root future is woken while its thread goes to sleep in epoll. The thread must begin the
/// future's turn.
pub fn root_waker_against_sleep() {
    let runtime = Runtime::new(0);
    runtime.root.begin_turn();
    let waiting = spawn(&runtime, Runtime::block_on);
    runtime.wake_root();
    waiting.join().unwrap();
}

/// The root future is woken twice while its thread, which may be nudged, parks because a worker is
/// awake. The root future must have two turns.
pub fn root_waker_against_park() {
    let runtime = Runtime::new(1);
    runtime.root.begin_turn();
    let waiting = spawn(&runtime, |runtime| {
        runtime.block_on();
        runtime.block_on();
    });
    let nudging = spawn(&runtime, |runtime| _ = runtime.nudge_root());
    runtime.wake_root();
    while runtime.root.is_woken() {
        thread::yield_now();
    }
    runtime.wake_root();
    nudging.join().unwrap();
    waiting.join().unwrap();
}

/// A shutdown advances the epoch and closes the epoll instance while a worker goes to sleep in it.
/// The worker must see the new epoch.
///
/// Mirrors `shutdown` and `Core::run`.
pub fn an_epoch_ends_against_sleep() {
    let runtime = Runtime::new(1);
    let worker = spawn(&runtime, |runtime| {
        while runtime.epoch.load(Ordering::SeqCst) == EPOCH {
            if runtime.roles.role(0).try_take() {
                runtime.sleep_as_worker(Shards::one(0));
            }
        }
    });
    runtime.epoch.store(EPOCH + 1, Ordering::SeqCst);
    runtime.wake();
    runtime.close();
    worker.join().unwrap();
}

/// A worker polls and then runs a task. Another thread must be able to poll in the meantime.
///
/// Mirrors `Polling::poll_now`, and checks invariant D2 of `rt/poll/driver.rs`.
pub fn the_role_is_free_while_a_task_runs() {
    let (runtime, in_turn) = (Runtime::new(1), Arc::new(AtomicBool::new(false)));
    let worker = thread::spawn({
        let (runtime, in_turn) = (runtime.clone(), in_turn.clone());
        move || {
            if runtime.roles.role(0).try_take() {
                runtime.epoll(0).wait(false);
                if !injected_bug!("role_held_in_a_turn") {
                    runtime.roles.role(0).release();
                }
            }
            in_turn.store(true, Ordering::SeqCst);
        }
    });
    if in_turn.load(Ordering::SeqCst) {
        assert!(runtime.roles.role(0).try_take(), "the role is held in a turn");
    }
    worker.join().unwrap();
}

//! Models of the poller with two shards: the shards in which threads sleep, and the wake-ups that
//! reach these threads.
//!
//! Most models post an event to a shard, inject tasks or arm a timer, and end only if a thread
//! takes the event, runs the tasks or runs the timer. `rt/poll/roles.rs`, which is compiled here,
//! defines the terms and has the rules for taking shards. No shard is ever stale in a model, so a
//! worker takes a shard other than its home only by the last rule.

use std::sync::Arc;

use crate::miniature::{EPOCH, Runtime, spawn};
use crate::rt::poll::role::By;
use crate::rt::poll::roles::Shards;
use crate::sync::{Ordering, injected_bug};

/// Runs a worker until it takes a task or an event, or until a timer is due. Then the worker gives
/// up its processor. Unless it took a task, it first injects one, which ends another worker.
fn until_an_event(runtime: &Runtime, home: usize) {
    while !runtime.take_injected() {
        if runtime.idle(home) {
            runtime.inject_in(home);
            break;
        }
    }
    runtime.leave();
}

/// A thread that checks shard 1 first injects tasks while the only worker goes to sleep in both
/// shards. The worker must run the tasks.
pub fn sleep_in_two_shards_against_inject() {
    let runtime = Runtime::with_open(2, 1);
    let worker = spawn(&runtime, |runtime| runtime.work(2));
    runtime.inject_in(1);
    runtime.inject_in(1);
    worker.join().unwrap();
}

/// An event arrives in shard 1 while the only worker, whose home is shard 0, goes to sleep. The
/// worker must take the event.
pub fn only_thread_polls_both_shards() {
    let runtime = Runtime::with_open(2, 1);
    let worker = spawn(&runtime, |runtime| while !runtime.idle(0) {});
    runtime.event(1);
    worker.join().unwrap();
}

/// A worker of shard 1 gives up its processor while the worker of shard 0 goes to sleep. The latter
/// must take the event of shard 1.
pub fn some_thread_polls_both_shards() {
    let runtime = Runtime::with_open(2, 2);
    let worker = spawn(&runtime, |runtime| while !runtime.idle(0) {});
    if runtime.roles.role(1).try_take() {
        runtime.roles.role(1).release();
    }
    runtime.leave();
    runtime.event(1);
    worker.join().unwrap();
}

/// Two workers of shard 0 go to sleep or to rest, and an event arrives in shard 1. One of the
/// workers must take the event.
pub fn last_awake_thread_polls_both_shards() {
    let runtime = Runtime::with_open(2, 2);
    let other = spawn(&runtime, |runtime| until_an_event(runtime, 0));
    runtime.event(1);
    until_an_event(&runtime, 0);
    other.join().unwrap();
}

/// Workers of both shards go to sleep, and an event arrives in shard 1. One of the workers must
/// take the event.
pub fn workers_of_both_shards_sleep() {
    let runtime = Runtime::with_open(2, 2);
    let other = spawn(&runtime, |runtime| until_an_event(runtime, 1));
    runtime.event(1);
    until_an_event(&runtime, 0);
    other.join().unwrap();
}

/// A thread without a processor opens a shard and registers a ready descriptor in it, while the
/// only worker goes to sleep. The worker must take the event.
///
/// Mirrors `Driver::add` and `PollHandle::register`.
pub fn shard_opened_against_sleep() {
    let runtime = Runtime::with_open(1, 1);
    let worker = spawn(&runtime, |runtime| while !runtime.idle(0) {});
    drop(runtime.epoll(1));
    runtime.roles.set_open(1);
    runtime.event(1);
    if !injected_bug!("shard_is_opened_quietly") {
        runtime.ensure_poller();
    }
    worker.join().unwrap();
}

/// A thread arms a timer of shard 1 while the only worker, whose home is shard 0, goes to sleep.
/// The worker must run the timer.
pub fn timer_against_sleep_in_two_shards() {
    let runtime = Runtime::with_open(2, 1);
    let worker = spawn(&runtime, |runtime| while !runtime.idle(0) {});
    runtime.arm(1, 5);
    worker.join().unwrap();
}

/// A thread without a processor arms a timer, which belongs to shard 0, while the last worker of
/// shard 1 goes to sleep. The worker must run the timer.
pub fn timer_without_processor_against_sleep() {
    let runtime = Runtime::with_open(2, 2);
    let other = spawn(&runtime, |runtime| until_an_event(runtime, 1));
    runtime.leave();
    runtime.arm(0, 5);
    other.join().unwrap();
}

/// A shutdown advances the epoch and closes the instances while a worker of each shard goes to
/// sleep. Both must see the new epoch.
///
/// Mirrors `shutdown` and `Core::run`.
pub fn an_epoch_ends_against_two_sleeps() {
    let runtime = Runtime::with_open(2, 2);
    let workers = [0, 1].map(|home| {
        spawn(&runtime, move |runtime| {
            while runtime.epoch.load(Ordering::SeqCst) == EPOCH {
                if runtime.roles.role(home).try_take() {
                    runtime.sleep_as_worker(Shards::one(home));
                }
            }
        })
    });
    runtime.epoch.store(EPOCH + 1, Ordering::SeqCst);
    runtime.wake();
    runtime.close();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
}

/// The last worker, of shard 0, goes to sleep while sysmon polls shard 1, in which an event arrives
/// afterwards. The worker must take the event.
///
/// Mirrors `Monitor::poll`.
pub fn sysmon_gives_the_second_shard_back() {
    let runtime = Runtime::with_open(2, 1);
    let worker = spawn(&runtime, |runtime| while !runtime.idle(0) {});
    let taken = runtime.roles.take_each(std::iter::once(1));
    runtime.roles.release(taken);
    if !taken.is_empty() && !injected_bug!("sysmon_leaves_no_poller") {
        runtime.ensure_poller();
    }
    runtime.event(1);
    worker.join().unwrap();
}

/// The root future is woken while its thread goes to sleep in shard 1, because another thread
/// sleeps in shard 0. The thread must begin the future's turn.
pub fn root_waker_against_sleep_in_second_shard() {
    let runtime = Runtime::with_open(2, 0);
    runtime.root.begin_turn();
    assert!(runtime.roles.role(0).try_take());
    runtime.roles.sleep(Shards::one(0), 7, By::Worker);
    let waiting = spawn(&runtime, Runtime::block_on);
    runtime.wake_root();
    waiting.join().unwrap();
}

/// The thread in `block_on` sleeps in both shards, and must take an event of shard 1.
pub fn root_polls_both_shards() {
    let runtime = Runtime::with_open(2, 0);
    runtime.root.begin_turn();
    let waiting = spawn(&runtime, |runtime| while !runtime.wait_as_root(false) {});
    runtime.event(1);
    waiting.join().unwrap();
}

/// The last worker grants the roles of both shards to the thread in `block_on`. One of the two
/// threads must take the event of shard 1.
///
/// Mirrors `Thread::wait`.
pub fn granted_role_is_that_of_both_shards() {
    let runtime = Runtime::with_open(2, 1);
    runtime.root.begin_turn();
    let worker = spawn(&runtime, |runtime| {
        until_an_event(runtime, 0);
        runtime.wake_root();
    });
    let mut has_asked = runtime.ask_for_role();
    runtime.event(1);
    while !runtime.root.begin_turn() {
        let was_granted = std::mem::take(&mut has_asked) && runtime.withdraw_wish();
        if runtime.wait_as_root(was_granted) {
            runtime.inject();
            break;
        }
    }
    worker.join().unwrap();
}

//! Models of the end and the start of an epoch, while tasks are queued, a turn continues, or timers
//! are armed.
//!
//! The epoch is a number that advances with every shutdown. A task of another epoch belongs to a
//! runtime that no longer exists (`rt/runtime.rs`). A turn is one poll of a task.
//!
//! `RunQueue` and `TimerSet` are the crate's. The other code mirrors functions of the runtime that
//! cannot be compiled here. The comment of each model names these functions.

use std::sync::Arc;
use std::task::Waker;

use crate::engine::thread;
use crate::rt::sched::queue::{Item, RunQueue};
use crate::rt::time::clock::NEVER;
use crate::rt::time::timer::TimerSet;
use crate::sync::{AtomicBool, AtomicU32, AtomicUsize, Condvar, Mutex, Ordering, fence, injected_bug};

/// A thread adds a task to the shared queue while a shutdown advances the epoch and empties this
/// queue. One of the two threads must drop the task.
///
/// Mirrors `Runtime::inject_quietly`, `Runtime::begin_stop` and `Runtime::take_queued`.
pub fn epoch_ends_against_scheduling() {
    struct Shared {
        epoch: AtomicU32,
        injector: Mutex<usize>,
        dropped: AtomicUsize,
    }
    let shared = Arc::new(Shared { epoch: AtomicU32::new(0), injector: Mutex::new(0), dropped: AtomicUsize::new(0) });
    let scheduling = thread::spawn({
        let shared = shared.clone();
        move || {
            let task = 0;
            let early = injected_bug!("epoch_read_before_the_lock") && shared.epoch.load(Ordering::Acquire) == task;
            let mut injector = shared.injector.lock();
            if early || shared.epoch.load(Ordering::Acquire) == task {
                *injector += 1;
            } else {
                shared.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    shared.epoch.store(1, Ordering::SeqCst);
    let taken = std::mem::take(&mut *shared.injector.lock());
    shared.dropped.fetch_add(taken, Ordering::Relaxed);
    scheduling.join().unwrap();
    assert_eq!(shared.dropped.load(Ordering::Relaxed), 1, "a task stays in a queue of an epoch that is over");
}

/// A turn queues tasks behind itself and waits until they are dropped. A shutdown must drop them,
/// although the thread is still in its turn.
///
/// Mirrors `schedule` and the loop of `stop` with `Runtime::take_queued`.
pub fn turn_that_waits_for_its_queue_ends_at_shutdown() {
    const TASKS: usize = 2;
    struct Shared {
        epoch: AtomicU32,
        queue: RunQueue,
        /// Whether the turn has queued all of its tasks, and the number of dropped tasks.
        state: Mutex<(bool, usize)>,
        changed: Condvar,
    }
    impl Shared {
        fn change(&self, change: impl FnOnce(&mut (bool, usize))) {
            change(&mut self.state.lock());
            self.changed.notify_all();
        }

        fn wait_until(&self, condition: impl Fn(&(bool, usize)) -> bool) {
            let mut state = self.state.lock();
            while !condition(&state) {
                state = self.changed.wait(state);
            }
        }

        fn take_queued(&self) {
            if injected_bug!("queue_behind_a_turn_is_left") {
                return;
            }
            let thief = RunQueue::new();
            let mut count = 0;
            while self.queue.steal(&thief).is_some() {
                count += 1 + thief.drain().count();
            }
            count += usize::from(self.queue.pop_next().is_some());
            self.change(|state| state.1 += count);
        }
    }
    let shared = Arc::new(Shared {
        epoch: AtomicU32::new(0),
        queue: RunQueue::new(),
        state: Mutex::new((false, 0)),
        changed: Condvar::new(),
    });
    let turn = thread::spawn({
        let shared = shared.clone();
        move || {
            for number in 1..=TASKS {
                if shared.epoch.load(Ordering::Acquire) == 0 {
                    shared.queue.push_next(Item::new(std::ptr::without_provenance_mut(number)).expect("not null"));
                } else {
                    shared.change(|state| state.1 += 1);
                }
            }
            shared.change(|state| state.0 = true);
            shared.wait_until(|state| state.1 == TASKS);
        }
    });
    shared.epoch.store(1, Ordering::SeqCst);
    shared.take_queued();
    // A shutdown calls `take_queued` again and again while a thread is in a turn.
    shared.wait_until(|state| state.0);
    shared.take_queued();
    turn.join().unwrap();
}

/// A timer is armed while the runtime starts. The thread that arms the timer, or the one that
/// starts the runtime, must make sure that a thread polls.
///
/// Mirrors `Runtime::timer_moved` and `Runtime::start`.
pub fn timer_armed_against_start() {
    struct Shared {
        timers: TimerSet,
        is_running: AtomicBool,
        is_attended: AtomicBool,
    }
    let shared = Arc::new(Shared {
        timers: TimerSet::new(),
        is_running: AtomicBool::new(false),
        is_attended: AtomicBool::new(false),
    });
    let arming = thread::spawn({
        let shared = shared.clone();
        move || {
            let _ = shared.timers.arm_sleep(10, Waker::noop().clone(), |_, _| true);
            fence(Ordering::SeqCst);
            if shared.is_running.load(Ordering::Acquire) {
                shared.is_attended.store(true, Ordering::Relaxed);
            }
        }
    });
    let early = injected_bug!("start_looks_before_it_runs") && shared.timers.next() == NEVER;
    shared.is_running.store(true, Ordering::Release);
    fence(Ordering::SeqCst);
    if !early && shared.timers.next() != NEVER {
        shared.is_attended.store(true, Ordering::Relaxed);
    }
    arming.join().unwrap();
    assert!(shared.is_attended.load(Ordering::Relaxed), "no thread polls for the timer");
}

/// A thread that still owns a processor of the previous epoch schedules a task of the current
/// epoch. The task must not be lost.
///
/// Mirrors `schedule`, `context::processor_in` and `Core::give_up`. `queue` is the queue of the old
/// processor.
pub fn an_epoch_begins_against_scheduling() {
    struct Shared {
        epoch: AtomicU32,
        injected: AtomicUsize,
        queue: Mutex<Vec<u32>>,
        scheduled: AtomicUsize,
    }
    let shared = Arc::new(Shared {
        epoch: AtomicU32::new(0),
        injected: AtomicUsize::new(0),
        queue: Mutex::new(Vec::new()),
        scheduled: AtomicUsize::new(0),
    });
    let left_behind = thread::spawn({
        let shared = shared.clone();
        move || {
            let task = 1;
            // The task is woken on this thread, whose processor is of epoch 0.
            let epoch = shared.epoch.load(Ordering::SeqCst);
            if task == epoch {
                if injected_bug!("queue_of_the_last_epoch") {
                    shared.queue.lock().push(task);
                } else {
                    shared.injected.fetch_add(1, Ordering::SeqCst);
                }
                shared.scheduled.fetch_add(1, Ordering::SeqCst);
            }
            // The turn ends and the thread gives up its processor. The model drops all tasks in the
            // queue; `give_up` drops those of the old epoch.
            shared.queue.lock().clear();
        }
    });
    shared.epoch.store(1, Ordering::SeqCst);
    left_behind.join().unwrap();
    let [injected, scheduled] = [&shared.injected, &shared.scheduled].map(|count| count.load(Ordering::SeqCst));
    assert_eq!(injected, scheduled, "a task is lost");
}

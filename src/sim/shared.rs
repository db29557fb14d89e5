//! `Shared`: the part of a simulation that other threads access. It consists of the inbox of tasks
//! that they wake, the names of these threads, and the state that the watchdog of
//! [`runner`](super::runner) checks.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use async_task::Runnable;

use crate::rt::sched::task::discard;
use crate::rt::sched::task_data::TaskData;

/// The shared part of a simulation; see the [module documentation](self).
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// The tasks that other threads have woken and the simulation has not queued yet.
    pub(super) inbox: Mutex<Vec<Runnable<TaskData>>>,
    /// Whether another thread has woken a task or closed a descriptor of the simulation since the
    /// last `take_poke`. Changed under the lock of `inbox`.
    is_poked: AtomicBool,
    /// Whether the simulation has ended. Tasks that are woken later are discarded.
    pub(super) is_over: AtomicBool,
    /// The names of the other threads that woke a task or closed a descriptor.
    foreign: Mutex<Vec<String>>,
    /// The number of turns that have begun, for the watchdog. While the simulation waits for
    /// threads, the number grows by one per millisecond.
    pub(super) turns: AtomicU64,
    /// The name of the task that runs, for the watchdog.
    pub(super) running: Mutex<String>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Puts a task into the inbox. Called on the thread that has woken the task, which is not the
    /// thread of the simulation. Discards the task if the simulation has ended.
    pub(super) fn push(&self, runnable: Runnable<TaskData>) {
        let mut inbox = lock(&self.inbox);
        if self.is_over.load(Ordering::SeqCst) {
            drop(inbox);
            return discard(runnable);
        }
        inbox.push(runnable);
        drop(inbox);
        self.note_foreign();
    }

    /// Returns whether another thread has woken a task or closed a descriptor since the last call,
    /// or has woken a task that is still in the inbox.
    pub(super) fn take_poke(&self) -> bool {
        let inbox = lock(&self.inbox);
        self.is_poked.swap(false, Ordering::SeqCst) || !inbox.is_empty()
    }

    /// Records that this thread, which is not that of the simulation, has woken a task or closed a
    /// descriptor.
    pub(super) fn note_foreign(&self) {
        let inbox = lock(&self.inbox);
        self.is_poked.store(true, Ordering::SeqCst);
        drop(inbox);
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("a thread without a name").to_owned();
        let mut foreign = lock(&self.foreign);
        if !foreign.contains(&name) {
            foreign.push(name);
        }
    }

    /// Returns the names of the other threads that woke a task or closed a descriptor.
    pub(super) fn foreign(&self) -> Vec<String> {
        lock(&self.foreign).clone()
    }
}

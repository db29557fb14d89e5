//! Models of `SharedQueue`: threads push items while a worker takes them or goes to sleep.

use std::ptr::NonNull;
use std::sync::Arc;

use crate::engine::thread;
use crate::rt::sched::awake::Awake;
use crate::rt::sched::queue::Item;
use crate::rt::sched::shared_queue::{SendItem, SharedQueue};
use crate::sync::{AtomicBool, Ordering, fence, injected_bug};

const EPOCH: u32 = 0;

fn item(number: usize) -> Item {
    NonNull::new(std::ptr::without_provenance_mut(number)).expect("not null")
}

fn push(queue: &SharedQueue, number: usize) {
    queue.change(|items| items.push_back(SendItem(item(number))));
}

/// A thread without a processor pushes a task while the only worker goes to sleep. The worker must
/// see the task, or the thread must wake the worker.
///
/// Mirrors `Runtime::inject` with `Runtime::ensure_worker`, and the check in `Core::idle`.
pub fn shared_queue_against_sleep() {
    struct Shared {
        queue: SharedQueue,
        awake: Awake,
        woken: AtomicBool,
    }
    let shared = Arc::new(Shared { queue: SharedQueue::new(), awake: Awake::new(), woken: AtomicBool::new(false) });
    shared.awake.begin(EPOCH);
    shared.awake.up(EPOCH);
    let waker = thread::spawn({
        let shared = shared.clone();
        move || {
            push(&shared.queue, 1);
            fence(Ordering::SeqCst);
            if shared.awake.count() == 0 {
                shared.woken.store(true, Ordering::Relaxed);
            }
        }
    });
    let early = injected_bug!("queue_checked_before_awake").then(|| shared.queue.len() > 0);
    shared.awake.down(EPOCH);
    let sees = early.unwrap_or_else(|| shared.queue.len() > 0);
    waker.join().unwrap();
    assert!(sees || shared.woken.load(Ordering::Relaxed), "a task waits in a queue, and every thread sleeps");
    assert_eq!(shared.queue.pop(0, |_| ()), Some(item(1)));
}

/// Two threads push while the worker takes. No item may be left in a queue that looks empty.
pub fn shared_queue_two_pushers() {
    let queue = Arc::new(SharedQueue::new());
    let pushers = [1, 2].map(|number| {
        let queue = queue.clone();
        thread::spawn(move || push(&queue, number))
    });
    let mut taken = usize::from(queue.pop(0, |_| ()).is_some());
    pushers.into_iter().for_each(|pusher| pusher.join().unwrap());
    while queue.pop(0, |_| ()).is_some() {
        taken += 1;
    }
    assert_eq!((taken, queue.len()), (2, 0), "an item was lost or taken twice");
}

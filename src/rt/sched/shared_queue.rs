//! [`SharedQueue`]: a FIFO queue of runnable tasks that all threads share.
//!
//! The runtime has two such queues: the injector, which the worker's loop calls *the* shared queue,
//! and the control lane ([`lanes`](super::lanes)). The injector has ordinary tasks that are in no
//! processor's queue, for example because a thread without a processor has spawned or woken them,
//! or because they were queued at a processor that its thread has given up.
//!
//! # Invariants
//! * Q1 (`queue.rs`) — every pushed item is taken exactly once.
//! * R1 (`runtime.rs`) — if an item is in the queue when the last awake thread goes to sleep,
//!   either that thread stays awake, or the thread that pushed the item wakes another one.
//!
//! # Memory ordering
//! A lock protects the items. `len` is their number and is stored before the lock is released, so
//! that threads detect an empty queue without taking the lock. Its accesses are SeqCst: a thread
//! that has work pushes it and then reads the number of awake threads; a thread that goes to sleep
//! decrements that number and then reads `len` (model `shared_queue_against_sleep`). Pushes and
//! takes store `len` in the order in which they take the lock (model `shared_queue_two_pushers`).

use std::collections::VecDeque;

use super::queue::Item;
use crate::sync::{AtomicUsize, Mutex, Ordering, const_fn, injected_bug};

/// The maximum capacity, in items, of an empty queue. If it is larger, the memory is freed. Without
/// this, each queue would keep the memory of its longest backlog.
const ROOM_MAX: usize = 4096;

/// An [`Item`] in a list that is shared between threads.
#[derive(Debug)]
pub(crate) struct SendItem(pub(crate) Item);

// SAFETY: an item owns a runnable task, which may be run on any thread (`spawn` requires the future
// to be `Send`).
#[allow(unsafe_code)]
unsafe impl Send for SendItem {}

/// A FIFO queue that all threads share; see the [module documentation](self).
#[derive(Debug)]
pub(crate) struct SharedQueue {
    len: AtomicUsize,
    items: Mutex<VecDeque<SendItem>>,
}

impl SharedQueue {
    const_fn! {
        pub(crate) fn new() -> SharedQueue {
            SharedQueue { len: AtomicUsize::new(0), items: Mutex::new(VecDeque::new()) }
        }
    }

    /// Returns the number of items.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        // ORDERING: SeqCst; see the module documentation.
        self.len.load(Ordering::SeqCst)
    }

    /// Locks the items, calls `change` with them, and publishes their new number.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut VecDeque<SendItem>) -> T) -> T {
        let mut items = self.items.lock();
        let result = change(&mut items);
        let len = items.len();
        if len == 0 && items.capacity() > ROOM_MAX {
            *items = VecDeque::new();
        }
        if injected_bug!("shared_len_after_the_lock") {
            drop(items);
            self.len.store(len, Ordering::SeqCst);
            return result;
        }
        // ORDERING: SeqCst; see the module documentation.
        self.len.store(len, Ordering::SeqCst);
        result
    }

    /// Takes the oldest item, and passes up to `more` further items to `rest`, under the lock.
    pub(crate) fn pop(&self, more: usize, rest: impl FnMut(Item)) -> Option<Item> {
        if self.len() == 0 {
            return None;
        }
        self.change(|items| {
            let first = items.pop_front();
            let more = more.min(items.len());
            items.drain(..more).map(|SendItem(item)| item).for_each(rest);
            first.map(|SendItem(item)| item)
        })
    }

    /// Takes all items.
    pub(crate) fn take(&self) -> Vec<Item> {
        self.change(|items| items.drain(..).map(|SendItem(item)| item).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(number: usize) -> Item {
        Item::new(std::ptr::without_provenance_mut(number)).unwrap()
    }

    fn push(queue: &SharedQueue, numbers: impl Iterator<Item = usize>) {
        queue.change(|items| items.extend(numbers.map(item).map(SendItem)));
    }

    #[test]
    fn items_are_taken_in_order_one_or_several_at_a_time() {
        let queue = SharedQueue::new();
        assert_eq!(queue.pop(9, |_| panic!("it is empty")), None);
        push(&queue, 1..=10);
        assert_eq!((queue.pop(0, |_| panic!("one only")), queue.len()), (Some(item(1)), 9));
        let mut rest = Vec::new();
        assert_eq!(queue.pop(3, |item| rest.push(item)), Some(item(2)));
        assert_eq!((rest, queue.len()), ((3..=5).map(item).collect(), 5));
        assert_eq!((queue.take(), queue.len()), ((6..=10).map(item).collect(), 0));
    }

    #[test]
    fn memory_of_a_long_backlog_is_freed() {
        let queue = SharedQueue::new();
        push(&queue, 1..=100_000);
        assert_eq!(queue.take().len(), 100_000);
        assert_eq!(queue.items.lock().capacity(), 0);
    }
}

//! [`RunQueue`]: the run queue of one processor.
//!
//! It has three parts, listed here from the front to the back. Only the owner pushes items; any
//! thread may take them.
//! * The *next* slot, for a task that the running task has spawned or woken and whose data is
//!   likely in the cache.
//! * A [`Ring`], which grows.
//! * The *aside* slot, for a task that was woken in its own turn and has used at least a quarter of
//!   the turn's budget. Usually, such a task has used up its turn.
//!
//! # The aside slot
//! A task stays in this slot until the thread reads the clock before its next turn. The thread then
//! runs due timers, and polls if a poll is due. The tasks that this wakes are queued in front of
//! the task in the slot. After that, or before a turn of the root future,
//! [`settle`](RunQueue::settle) appends the task. So if a poll is due, and an event arrives during
//! the turn of a connection that always has data, the task of the event runs before that of the
//! connection. Tasks that are appended after the task of the connection do not overtake it.
//!
//! # Invariants
//! * Q1 — every pushed item is taken exactly once, by one thread (models `ring_*`,
//!   `next_slot_against_thief`, `aside_slot_against_thief`).
//! * Q2 — the order is FIFO, except for the items of the two slots and for stolen items. A long
//!   queue never moves items to another queue.
//! * Q3–Q5 (`ring.rs`) — thieves take valid items, from memory that exists.
//!
//! # Memory ordering
//! A swap takes the item out of a slot, so only one thread gets it. The orderings of the ring are
//! in [`ring`](super::ring).
//!
//! # Compared with Go (runtime/proc.go)
//! The ring begins with the same size, 256. When the ring is full, Go moves half of it to the
//! global queue under the scheduler's lock; here, the ring grows. In Go, a goroutine in the next
//! slot inherits the time slice. Here, the worker takes an item from the ring after three
//! consecutive turns from the next slot.

use std::ptr::{self, NonNull};

use super::ring::Ring;
use crate::sync::{AtomicPtr, Ordering, injected_bug};

pub(crate) use super::ring::{Item, RING};

/// The run queue of one processor; see the [module documentation](self).
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct RunQueue {
    next: AtomicPtr<()>,
    aside: AtomicPtr<()>,
    ring: Ring,
}

impl RunQueue {
    pub(crate) fn new() -> RunQueue {
        RunQueue { next: AtomicPtr::new(ptr::null_mut()), aside: AtomicPtr::new(ptr::null_mut()), ring: Ring::new() }
    }

    /// Returns the number of items. The number is exact only if the owner calls this and no thread
    /// steals at the same time.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        let slots = [&self.next, &self.aside].map(|slot| usize::from(!slot.load(Ordering::Relaxed).is_null()));
        self.ring.len() + slots[0] + slots[1]
    }

    /// Returns the position at which the next item will be appended, for
    /// [`has_passed`](RunQueue::has_passed). Only the owner may call this.
    pub(crate) fn end(&self) -> u32 {
        self.ring.end()
    }

    /// Returns whether all items before the position `place` have been taken.
    pub(crate) fn has_passed(&self, place: u32) -> bool {
        self.ring.has_passed(place)
    }

    /// Appends an item. Only the owner may call this.
    #[inline]
    pub(crate) fn push(&self, item: Item) {
        self.ring.push(item);
    }

    /// Puts an item into the next slot, and appends the previous item of the slot. Only the owner
    /// may call this.
    #[inline]
    pub(crate) fn push_next(&self, item: Item) {
        // ORDERING: AcqRel: the swap that takes the pointer out must also see the data of the item.
        let old = self.next.swap(item.as_ptr(), Ordering::AcqRel);
        if let Some(old) = NonNull::new(old) {
            self.push(old);
        }
    }

    /// Takes the item of the next slot. Any thread may call this.
    #[inline]
    pub(crate) fn pop_next(&self) -> Option<Item> {
        if self.next.load(Ordering::Relaxed).is_null() {
            return None;
        }
        if injected_bug!("next_taken_twice") {
            let item = NonNull::new(self.next.load(Ordering::Acquire));
            self.next.store(ptr::null_mut(), Ordering::Release);
            return item;
        }
        NonNull::new(self.next.swap(ptr::null_mut(), Ordering::AcqRel))
    }

    /// Puts an item into the aside slot, and appends the previous item of the slot. Only the owner
    /// may call this.
    pub(crate) fn push_aside(&self, item: Item) {
        // ORDERING: AcqRel, as in `push_next`.
        let old = self.aside.swap(item.as_ptr(), Ordering::AcqRel);
        if let Some(old) = NonNull::new(old) {
            self.push(old);
        }
    }

    /// Returns whether the aside slot has an item.
    pub(crate) fn has_aside(&self) -> bool {
        !self.aside.load(Ordering::Relaxed).is_null()
    }

    /// Takes the item of the aside slot. Any thread may call this.
    pub(crate) fn pop_aside(&self) -> Option<Item> {
        if !self.has_aside() {
            return None;
        }
        if injected_bug!("aside_taken_twice") {
            let item = NonNull::new(self.aside.load(Ordering::Acquire));
            self.aside.store(ptr::null_mut(), Ordering::Release);
            return item;
        }
        // ORDERING: AcqRel, as in `push_next`.
        NonNull::new(self.aside.swap(ptr::null_mut(), Ordering::AcqRel))
    }

    /// Appends the item of the aside slot. Only the owner may call this.
    pub(crate) fn settle(&self) {
        if let Some(item) = self.pop_aside() {
            self.push(item);
        }
    }

    /// Takes the oldest item of the ring. Only the owner may call this.
    #[inline]
    pub(crate) fn pop(&self) -> Option<Item> {
        self.ring.pop()
    }

    /// Takes half of the items of the ring, rounded up, but at most 128. Returns the youngest of
    /// them, and moves the other items to `thief`. The queue `thief` must belong to the calling
    /// thread and have an empty ring.
    pub(crate) fn steal(&self, thief: &RunQueue) -> Option<Item> {
        self.ring.steal(&thief.ring)
    }

    /// Takes items until it has at least `least` of them or the queue is empty. It may take more,
    /// because it steals several at a time. Items that the owner pushes at the same time may
    /// remain. Any thread may call this.
    pub(crate) fn take(&self, least: usize) -> Vec<Item> {
        let mut taken = Vec::new();
        while taken.len() < least {
            if !self.ring.take(&mut taken) {
                let Some(item) = self.pop_slots() else { break };
                taken.push(item);
            }
        }
        taken
    }

    /// Takes the item of the next slot or, if that is empty, of the aside slot. Any thread may call
    /// this.
    pub(crate) fn pop_slots(&self) -> Option<Item> {
        self.pop_next().or_else(|| self.pop_aside())
    }

    /// Takes all items. Only the owner may call this.
    pub(crate) fn drain(&self) -> impl Iterator<Item = Item> + '_ {
        std::iter::from_fn(|| self.pop_next().or_else(|| self.pop()).or_else(|| self.pop_aside()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(number: usize) -> Item {
        NonNull::new(ptr::without_provenance_mut(number + 1)).expect("not null")
    }

    #[test]
    fn thieves_take_half_and_the_next_slot_runs_first() {
        let (queue, thief) = (RunQueue::new(), RunQueue::new());
        (0..10).for_each(|number| queue.push(item(number)));
        assert!(queue.steal(&thief).is_some());
        assert_eq!((queue.len(), thief.len()), (5, 4));
        queue.push_next(item(20));
        queue.push_next(item(21));
        assert_eq!(queue.pop_next(), Some(item(21)));
        assert_eq!(queue.drain().last(), Some(item(20)));
    }

    #[test]
    fn items_are_taken_oldest_first_and_the_next_slot_last() {
        let queue = RunQueue::new();
        (0..RING + 40).for_each(|number| queue.push(item(number)));
        queue.push_next(item(RING + 40));
        let first = queue.take(1);
        assert_eq!(first, (0..RING / 2).map(item).collect::<Vec<_>>(), "a theft takes at most half of a new ring");
        assert_eq!(queue.take(usize::MAX), (RING / 2..=RING + 40).map(item).collect::<Vec<_>>());
        assert!(queue.take(usize::MAX).is_empty() && queue.len() == 0);
    }

    #[test]
    fn item_set_aside_is_overtaken_by_the_items_pushed_before_it_settles() {
        let queue = RunQueue::new();
        // Covers an empty ring, a full ring and a ring that has grown.
        for older in [0, 1, RING - 1, RING, RING + 1, 1000, 10_000] {
            (0..older).for_each(|number| queue.push(item(number)));
            queue.push_aside(item(older + 2));
            assert_eq!((queue.len(), queue.has_aside()), (older + 1, true));
            (older..older + 2).for_each(|number| queue.push(item(number)));
            queue.settle();
            assert!(!queue.has_aside());
            queue.settle();
            queue.push(item(older + 3));
            assert_eq!(queue.drain().collect::<Vec<_>>(), (0..older + 4).map(item).collect::<Vec<_>>());
            assert_eq!(queue.len(), 0);
        }
        // A second item takes the slot of the first, which is appended.
        (0..2).for_each(|number| queue.push_aside(item(number)));
        assert_eq!((queue.pop(), queue.pop(), queue.pop_slots()), (Some(item(0)), None, Some(item(1))));
        queue.push_aside(item(2));
        assert_eq!(queue.take(usize::MAX), [item(2)]);
    }
}

//! [`RunQueue`]: the run queue of one processor.
//!
//! It has four parts, listed here from the front to the back. Only the owner pushes items; any thread may
//! take them.
//! * The *next* slot, for a task that the running task has woken and whose data is likely in the cache.
//! * A ring of [`RING`] items.
//! * An unbounded overflow list, which is FIFO.
//! * The *aside* slot, for a task that has used up its turn.
//!
//! # The aside slot
//! A task that has used up its turn stays in this slot until the next poll has woken other tasks, which are
//! queued in front of it. Then [`settle`](RunQueue::settle) appends it. So the task of a connection that
//! always has data does not run before a task whose event arrived during its turn. Only the tasks that one
//! poll wakes can overtake it, because it is appended before the next poll.
//!
//! # Invariants
//! * Q1 — every pushed item is taken exactly once, by one thread (models `ring_*`,
//!   `next_slot_against_thief`, `aside_slot_against_thief`).
//! * Q2 — the order is FIFO, except for the items of the two slots and for stolen items: while the overflow
//!   list is not empty, new items go to its end. A full ring never moves items to another queue.
//! * Q3 — a slot of the ring is overwritten only after `head` has passed it, and a thief uses its copies
//!   only if `head` did not move while it made them.
//!
//! # Memory ordering
//! The owner stores `tail` with Release, and thieves load it with Acquire, so they see the items in the
//! slots below `tail`. The owner and the thieves advance `head` by compare-and-swap with Release. The
//! owner loads it with Acquire before it reuses a slot.
//!
//! # Compared with Go (runtime/proc.go)
//! The ring has the same size, 256. When the ring is full, Go moves half of it to the global queue under
//! the scheduler's lock; here, each processor has its own overflow list. In Go, a goroutine in the next
//! slot inherits the time slice. Here, the worker takes an item from the ring after three consecutive
//! turns from the next slot.

use std::collections::VecDeque;
use std::ptr::{self, NonNull};

use crate::sync::{AtomicPtr, AtomicU32, AtomicUsize, MODEL, Mutex, Ordering, injected_bug};

/// The number of slots in the ring, equal to the maximum number of events in a batch.
pub(crate) const RING: usize = if MODEL { 4 } else { 256 };
/// The maximum number of items that one call moves to a ring.
const BATCH: usize = RING / 2;
/// The maximum capacity, in items, of an empty overflow list. If it is larger, the memory is freed.
const ROOM_MAX: usize = 16 * RING;

/// A runnable task as a raw pointer. The thread that takes it out of a queue owns it.
pub(crate) type Item = NonNull<()>;

/// The run queue of one processor; see the [module documentation](self).
#[derive(Debug)]
pub(crate) struct RunQueue {
    head: AtomicU32,
    tail: AtomicU32,
    next: AtomicPtr<()>,
    aside: AtomicPtr<()>,
    overflow_len: AtomicUsize,
    overflow: Mutex<VecDeque<SendItem>>,
    ring: [AtomicPtr<()>; RING],
}

/// An [`Item`] in a list that is shared between threads.
#[derive(Debug)]
pub(crate) struct SendItem(pub(crate) Item);

// SAFETY: an item owns a runnable task, which may be run on any thread (`spawn` requires the future
// to be `Send`).
#[allow(unsafe_code)]
unsafe impl Send for SendItem {}

impl RunQueue {
    pub(crate) fn new() -> RunQueue {
        RunQueue {
            head: AtomicU32::new(0),
            tail: AtomicU32::new(0),
            next: AtomicPtr::new(ptr::null_mut()),
            aside: AtomicPtr::new(ptr::null_mut()),
            overflow_len: AtomicUsize::new(0),
            overflow: Mutex::new(VecDeque::new()),
            ring: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
        }
    }

    /// Returns the number of items. The number is exact only if the owner calls this and no thread steals
    /// at the same time.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        let ring = self.tail.load(Ordering::Relaxed).wrapping_sub(self.head.load(Ordering::Relaxed));
        // A thief may move `head` between the loads. A difference greater than the ring then means
        // that the ring is empty.
        let ring = if ring as usize > RING { 0 } else { ring as usize };
        let slots = [&self.next, &self.aside].map(|slot| usize::from(!slot.load(Ordering::Relaxed).is_null()));
        ring + self.overflow_len.load(Ordering::Relaxed) + slots[0] + slots[1]
    }

    /// Returns the position at which the next item will be appended, for
    /// [`has_passed`](RunQueue::has_passed). Only the owner may call this.
    pub(crate) fn end(&self) -> u32 {
        self.tail.load(Ordering::Relaxed).wrapping_add(self.overflow_len.load(Ordering::Relaxed) as u32)
    }

    /// Returns whether all items before the position `place` have been taken. The result may be wrong if
    /// thieves took items of the overflow list.
    pub(crate) fn has_passed(&self, place: u32) -> bool {
        self.head.load(Ordering::Relaxed).wrapping_sub(place) as i32 >= 0
    }

    /// Appends an item. Only the owner may call this.
    #[inline]
    pub(crate) fn push(&self, item: Item) {
        // ORDERING: Relaxed: only the owner stores `tail`.
        let tail = self.tail.load(Ordering::Relaxed);
        // ORDERING: Acquire pairs with the thieves' Release, so they have finished reading the slots that
        // `head` has passed (Q3).
        let head = self.head.load(Ordering::Acquire);
        if tail.wrapping_sub(head) as usize == RING || self.overflow_len.load(Ordering::Relaxed) != 0 {
            return self.push_overflow(item);
        }
        self.ring[tail as usize % RING].store(item.as_ptr(), Ordering::Relaxed);
        // ORDERING: Release pairs with the Acquire of `tail` in `steal`.
        let order = if injected_bug!("ring_relaxed_tail") { Ordering::Relaxed } else { Ordering::Release };
        self.tail.store(tail.wrapping_add(1), order);
    }

    #[cold]
    fn push_overflow(&self, item: Item) {
        let mut overflow = self.overflow.lock();
        overflow.push_back(SendItem(item));
        self.overflow_len.store(overflow.len(), Ordering::Relaxed);
    }

    /// Puts an item into the next slot, and appends the previous item of the slot. Only the owner may call
    /// this.
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

    /// Puts an item into the aside slot, and appends the previous item of the slot. Only the owner may call
    /// this.
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
        // ORDERING: AcqRel, as in `pop_next`.
        NonNull::new(self.aside.swap(ptr::null_mut(), Ordering::AcqRel))
    }

    /// Appends the item of the aside slot. Only the owner may call this.
    pub(crate) fn settle(&self) {
        if let Some(item) = self.pop_aside() {
            self.push(item);
        }
    }

    /// Takes the oldest item of the ring or, if the ring is empty, of the overflow list. Only the owner may
    /// call this.
    #[inline]
    pub(crate) fn pop(&self) -> Option<Item> {
        loop {
            let mut head = self.head.load(Ordering::Acquire);
            let tail = self.tail.load(Ordering::Relaxed);
            while head != tail {
                let item = self.ring[head as usize % RING].load(Ordering::Relaxed);
                // ORDERING: AcqRel, as in `steal`: the slot is read before a later `push` reuses it.
                match self.head.compare_exchange_weak(head, head.wrapping_add(1), Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => return NonNull::new(item),
                    Err(now) => head = now,
                }
            }
            if self.overflow_len.load(Ordering::Relaxed) == 0 || !self.refill() {
                return None;
            }
        }
    }

    /// Moves items from the front of the overflow list to the empty ring. Returns false if thieves have
    /// emptied the list.
    #[cold]
    fn refill(&self) -> bool {
        let mut overflow = self.overflow.lock();
        let count = overflow.len().min(BATCH);
        let tail = self.tail.load(Ordering::Relaxed);
        for (at, SendItem(item)) in overflow.drain(..count).enumerate() {
            self.ring[tail.wrapping_add(at as u32) as usize % RING].store(item.as_ptr(), Ordering::Relaxed);
        }
        self.overflow_len.store(overflow.len(), Ordering::Relaxed);
        release_room(&mut overflow);
        // ORDERING: Release, as in `push`.
        self.tail.store(tail.wrapping_add(count as u32), Ordering::Release);
        count > 0
    }

    /// Takes half of the items of the ring or, if it is empty, of the overflow list. Returns the youngest of
    /// them, which the caller runs immediately, and moves the other items to `thief`. The queue `thief` must
    /// belong to the calling thread and have an empty ring.
    pub(crate) fn steal(&self, thief: &RunQueue) -> Option<Item> {
        let start = thief.tail.load(Ordering::Relaxed);
        let mut head = self.head.load(Ordering::Acquire);
        let count = loop {
            // ORDERING: Acquire pairs with the owner's Release: the slots below `tail` are written.
            let tail = self.tail.load(Ordering::Acquire);
            let held = tail.wrapping_sub(head);
            let count = held - held / 2;
            if count as usize > BATCH {
                // `head` moved between the two loads.
                head = self.head.load(Ordering::Acquire);
                continue;
            }
            if count == 0 {
                break 0;
            }
            for at in 0..count {
                let item = self.ring[head.wrapping_add(at) as usize % RING].load(Ordering::Relaxed);
                thief.ring[start.wrapping_add(at) as usize % RING].store(item, Ordering::Relaxed);
            }
            if injected_bug!("steal_without_claim") {
                self.head.store(head.wrapping_add(count), Ordering::Release);
                break count;
            }
            // ORDERING: Release: the slots are read before the owner can reuse them (Q3).
            match self.head.compare_exchange(head, head.wrapping_add(count), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break count,
                Err(now) => head = now,
            }
        };
        let Some(rest) = count.checked_sub(1) else { return self.steal_overflow(thief) };
        // ORDERING: Release, as in `push`.
        thief.tail.store(start.wrapping_add(rest), Ordering::Release);
        NonNull::new(thief.ring[start.wrapping_add(rest) as usize % RING].load(Ordering::Relaxed))
    }

    #[cold]
    fn steal_overflow(&self, thief: &RunQueue) -> Option<Item> {
        if self.overflow_len.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut overflow = self.overflow.lock();
        let count = (overflow.len() - overflow.len() / 2).min(BATCH);
        let mut taken: Vec<_> = overflow.drain(..count).collect();
        self.overflow_len.store(overflow.len(), Ordering::Relaxed);
        release_room(&mut overflow);
        drop(overflow);
        let last = taken.pop()?;
        taken.into_iter().for_each(|SendItem(item)| thief.push(item));
        Some(last.0)
    }

    /// Takes items until it has at least `least` of them or the queue is empty. It may take more, because it
    /// steals several at a time. Items that the owner pushes at the same time may remain. Any thread may call
    /// this.
    pub(crate) fn take(&self, least: usize) -> Vec<Item> {
        let (thief, mut taken) = (RunQueue::new(), Vec::new());
        while taken.len() < least
            && let Some(item) = self.steal(&thief).or_else(|| self.pop_slots())
        {
            taken.extend(thief.drain());
            taken.push(item);
        }
        taken
    }

    /// Takes the item of the next slot or, if that is empty, of the aside slot, from a queue whose owner is
    /// stuck. Any thread may call this.
    pub(crate) fn pop_slots(&self) -> Option<Item> {
        self.pop_next().or_else(|| self.pop_aside())
    }

    /// Takes all items. Only the owner may call this.
    pub(crate) fn drain(&self) -> impl Iterator<Item = Item> + '_ {
        std::iter::from_fn(|| self.pop_next().or_else(|| self.pop()).or_else(|| self.pop_aside()))
    }
}

/// Frees the memory of an empty list whose capacity exceeds [`ROOM_MAX`]. Without this, each list would
/// keep the memory of its longest backlog.
pub(super) fn release_room(list: &mut VecDeque<SendItem>) {
    if list.is_empty() && list.capacity() > ROOM_MAX {
        *list = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(unsafe_code)]
    fn item(number: usize) -> Item {
        NonNull::new(ptr::without_provenance_mut(number + 1)).expect("not null")
    }

    #[test]
    fn order_is_fifo_across_the_overflow_list() {
        let queue = RunQueue::new();
        for number in 0..3 * RING {
            queue.push(item(number));
        }
        assert_eq!(queue.len(), 3 * RING);
        for number in 0..RING {
            assert_eq!(queue.pop(), Some(item(number)));
        }
        queue.push(item(3 * RING));
        for number in RING..=3 * RING {
            assert_eq!(queue.pop(), Some(item(number)));
        }
        assert_eq!((queue.pop(), queue.len()), (None, 0));
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
    fn thieves_take_half_of_the_overflow_list_too() {
        let (queue, thief) = (RunQueue::new(), RunQueue::new());
        (0..RING + 6).for_each(|number| queue.push(item(number)));
        while queue.len() > 6 {
            assert!(queue.steal(&thief).is_some());
            thief.drain().for_each(drop);
        }
        assert_eq!(queue.steal(&thief), Some(item(RING + 2)), "the youngest of three");
        assert_eq!((queue.len(), thief.len()), (3, 2));
    }

    #[test]
    fn memory_of_a_long_overflow_list_is_freed_when_it_is_empty() {
        let queue = RunQueue::new();
        let room = || queue.overflow.lock().capacity();
        (0..2 * ROOM_MAX).for_each(|number| queue.push(item(number)));
        assert!(room() > ROOM_MAX);
        assert_eq!(queue.drain().count(), 2 * ROOM_MAX);
        assert_eq!(room(), 0);
        (0..2 * ROOM_MAX).for_each(|number| queue.push(item(number)));
        assert_eq!(queue.take(usize::MAX).len(), 2 * ROOM_MAX);
        assert_eq!(room(), 0);
        // The memory of a short list is kept.
        (0..2 * RING).for_each(|number| queue.push(item(number)));
        assert_eq!(queue.drain().count(), 2 * RING);
        assert!(room() > 0);
    }

    #[test]
    fn items_are_taken_oldest_first_and_the_next_slot_last() {
        let queue = RunQueue::new();
        (0..RING + 40).for_each(|number| queue.push(item(number)));
        queue.push_next(item(RING + 40));
        let first = queue.take(1);
        assert_eq!(first, (0..RING / 2).map(item).collect::<Vec<_>>(), "a theft takes half of the ring");
        assert_eq!(queue.take(usize::MAX), (RING / 2..=RING + 40).map(item).collect::<Vec<_>>());
        assert!(queue.take(usize::MAX).is_empty() && queue.len() == 0);
    }

    #[test]
    fn item_set_aside_is_overtaken_by_the_items_pushed_before_it_settles() {
        let queue = RunQueue::new();
        // Covers an empty overflow list, a full ring and a long overflow list.
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

    #[test]
    fn no_item_is_lost_or_duplicated_under_theft() {
        const ITEMS: usize = 200_000;
        let queue = RunQueue::new();
        let seen: Vec<AtomicU32> = (0..ITEMS).map(|_| AtomicU32::new(0)).collect();
        let done = AtomicUsize::new(0);
        let see = |item: Item| {
            seen[item.as_ptr().addr() - 1].fetch_add(1, Ordering::Relaxed);
            done.fetch_add(1, Ordering::Relaxed);
        };
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let own = RunQueue::new();
                    while done.load(Ordering::Relaxed) < ITEMS {
                        queue.steal(&own).into_iter().for_each(see);
                        own.drain().for_each(see);
                    }
                });
            }
            for number in 0..ITEMS {
                queue.push(item(number));
                if number % 3 == 0 {
                    queue.pop().into_iter().for_each(see);
                }
            }
            queue.drain().for_each(see);
        });
        assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    }
}

//! [`TimerSet`]: a 4-ary heap of timers. Each processor has one, and threads without a processor
//! share one.
//!
//! An entry has 16 bytes: a time and a target. It contains no pointer and need not be removed,
//! because the authoritative state is in the target, and an entry that does not match it is *dead*.
//! There are two kinds of targets:
//!
//! * the deadlines and timeouts of a slot of the poll cache, identified by its index: those of the
//!   descriptor that has the slot when the entry is due (`armed` in the
//!   [`PollDesc`](crate::rt::poll::poll_desc::PollDesc) determines which entry is valid);
//! * a sleep, whose waker is in a slot of this set, identified by slot number and generation.
//!
//! # States of a sleep slot
//! *free* (in the free list) → `arm_sleep` → *armed* → `run`, or `clear_sleeps` at a shutdown →
//! *fired* → `release` → *free*; or *armed* → `release` → *free*, with a dead entry. Every release
//! changes the generation.
//!
//! # Invariants
//! * T1 — `next` is never later than the earliest live entry, so a thread that sleeps until the
//!   earliest `next` of the sets of its shards is never late. The thread may be early, because the
//!   first entry may be dead.
//! * T2 — before an entry is added, dead entries are removed if the heap has at least [`SWEEP_MIN`]
//!   entries, and at least twice as many as the last such removal or a later `run` has left,
//!   whichever left the fewest. So the memory of the heap is proportional to the maximum number of
//!   live entries.
//! * T3 — when the last sleep of a set is released, the slots are freed if there are more than
//!   [`ROOM_MAX`] and more than a quarter as many as entries. The entries for sleeps, which are
//!   dead, are then removed. A `run` that leaves the heap less than a quarter full frees a part of
//!   its memory. So a burst of timers keeps no memory, except slots while a sleep is armed.
//! * 4 — an entry for a sleep whose generation has changed has no effect.
//!
//! # Memory ordering
//! A thread that arms a timer stores `next` under the set's lock, and then loads the end of the
//! sleep that is announced in the poller's role. A thread that goes to sleep stores that end and
//! then loads every `next`. All these accesses are SeqCst, so one of the two threads sees the
//! other's store (model `earlier_timer_breaks_the_wait`).
//!
//! # Cancellation
//! Dropping a sleep releases its slot. The waker is dropped outside the lock.
//!
//! # Compared with Go (runtime/time.go)
//! Go's entries point to timers, which are modified in place and contain a callback. Here, `run`
//! calls no user code: it returns the due entries and the wakers, and the caller uses them after
//! the lock is released.

use std::task::Waker;

use crate::rt::time::clock::NEVER;
use crate::rt::waiters::Wakers;
use crate::sync::{AtomicU64, Mutex, Ordering, const_fn, injected_bug};

/// The target of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The deadlines and timeouts of the slot of the poll cache with this index.
    Poll { index: u32 },
    /// A sleep slot of the same set.
    Sleep { slot: u32, generation: u32 },
}

const SLEEP: u32 = 1 << 31;

/// A heap entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    when: u64,
    /// The index or the slot number, with the bit [`SLEEP`] for a sleep.
    id: u32,
    /// The generation of a sleep; 0 for a poll descriptor.
    generation: u32,
}

impl Entry {
    fn new(when: u64, target: Target) -> Entry {
        match target {
            Target::Poll { index } => Entry { when, id: index, generation: 0 },
            Target::Sleep { slot, generation } => Entry { when, id: slot | SLEEP, generation },
        }
    }

    fn target(self) -> Target {
        match self.id & SLEEP {
            0 => Target::Poll { index: self.id },
            _ => Target::Sleep { slot: self.id & !SLEEP, generation: self.generation },
        }
    }
}

const _: () = assert!(size_of::<Entry>() == 16);

/// A 4-ary heap, with the earliest entry at the top.
#[derive(Debug)]
struct Heap(Vec<Entry>);

impl Heap {
    fn push(&mut self, entry: Entry) {
        self.0.push(entry);
        self.sift_up(self.0.len() - 1);
    }

    fn peek(&self) -> Option<&Entry> {
        self.0.first()
    }

    fn pop(&mut self) -> Option<Entry> {
        let last = self.0.pop()?;
        let Some(first) = self.0.first_mut() else { return Some(last) };
        let top = std::mem::replace(first, last);
        self.sift_down(0);
        Some(top)
    }

    /// If the heap is less than a quarter full, and has memory for more than [`ROOM_MAX`] entries,
    /// frees so much memory that it is half full. So the cost per removed entry is constant.
    fn shrink(&mut self) {
        let (room, len) = (self.0.capacity(), self.0.len());
        if room > ROOM_MAX && len < room / 4 {
            self.0.shrink_to(ROOM_MAX.max(len * 2));
        }
    }

    /// Keeps the entries for which `live` returns true, without duplicates. If an entry was
    /// superseded and then added again with the same time, the heap has it twice, and `live`
    /// returns true for both.
    #[cfg(not(feature = "sim"))]
    fn retain(&mut self, live: impl FnMut(&Entry) -> bool) {
        self.0.retain(live);
        // A sorted vector is a heap.
        self.0.sort_unstable_by_key(|entry| (entry.when, entry.id, entry.generation));
        self.0.dedup();
    }

    /// Keeps the entries for which `live` returns true, without duplicates. The resulting order
    /// does not depend on slot numbers, which differ between two runs of a simulation.
    #[cfg(feature = "sim")]
    fn retain(&mut self, mut live: impl FnMut(&Entry) -> bool) {
        let mut seen = std::collections::BTreeSet::new();
        self.0.retain(|entry| live(entry) && seen.insert((entry.when, entry.id, entry.generation)));
        (0..self.0.len()).rev().for_each(|at| self.sift_down(at));
    }

    fn sift_up(&mut self, mut at: usize) {
        let entry = self.0[at];
        while at > 0 {
            let parent = (at - 1) / 4;
            if self.0[parent].when <= entry.when {
                break;
            }
            self.0[at] = self.0[parent];
            at = parent;
        }
        self.0[at] = entry;
    }

    fn sift_down(&mut self, mut at: usize) {
        let entry = self.0[at];
        loop {
            let first = 4 * at + 1;
            let children = first..(first + 4).min(self.0.len());
            let Some(least) = children.min_by_key(|&child| self.0[child].when) else { break };
            if self.0[least].when >= entry.when {
                break;
            }
            self.0[at] = self.0[least];
            at = least;
        }
        self.0[at] = entry;
    }
}

#[derive(Debug)]
struct SleepSlot {
    generation: u32,
    fired: bool,
    waker: Option<Waker>,
    next_free: u32,
}

const NO_SLOT: u32 = u32::MAX;

#[derive(Debug)]
struct Inner {
    heap: Heap,
    /// The number of entries at which dead entries are removed next.
    sweep_at: usize,
    slots: Vec<SleepSlot>,
    free: u32,
    /// The number of slots that are not free.
    taken: usize,
}

impl Inner {
    /// Removes the entries of released sleeps, and those for which `counts` returns false.
    fn retain(&mut self, counts: impl Fn(Target, u64) -> bool) {
        let Inner { heap, slots, .. } = self;
        heap.retain(|entry| {
            let is_over = match entry.target() {
                Target::Sleep { slot, generation } => slots[slot as usize].generation != generation,
                Target::Poll { .. } => false,
            };
            !is_over && counts(entry.target(), entry.when)
        });
    }

    fn doubled(&self) -> usize {
        (self.heap.0.len() * 2).max(SWEEP_MIN)
    }

    /// Frees the slots if all of them are free and there are more than [`ROOM_MAX`]. New slots
    /// begin again with generation 0, so the entries of the old ones are removed as well. The heap
    /// is then sorted, so slots that are few beside the entries are kept: otherwise, each burst of
    /// sleeps would sort the entries of all deadlines. Returns the memory of the slots, which is
    /// freed outside the lock.
    fn take_surplus(&mut self) -> Vec<SleepSlot> {
        // The order of entries with the same time must not depend on earlier simulations.
        #[cfg(feature = "sim")]
        if crate::sim::is_here() {
            return Vec::new();
        }
        if self.taken > 0 || self.slots.len() <= ROOM_MAX.max(self.heap.0.len() / 4) {
            return Vec::new();
        }
        self.heap.retain(|entry| matches!(entry.target(), Target::Poll { .. }));
        self.heap.shrink();
        self.sweep_at = self.doubled();
        self.free = NO_SLOT;
        std::mem::take(&mut self.slots)
    }
}

/// The key of an armed sleep in a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SleepKey {
    slot: u32,
    generation: u32,
}

/// A set of timers; see the [module documentation](self).
#[derive(Debug)]
pub(crate) struct TimerSet {
    inner: Mutex<Inner>,
    /// The time of the first entry, or [`NEVER`] if there is none.
    next: AtomicU64,
    /// The total number of entries that were added. Changed under the lock.
    armed: AtomicU64,
}

/// The minimum number of entries at which dead entries are removed.
const SWEEP_MIN: usize = 64;
/// The number of slots that are kept although all are free, and the number of entries for which the
/// memory is kept.
const ROOM_MAX: usize = 4096;

impl TimerSet {
    const_fn! {
        pub(crate) fn new() -> TimerSet {
            TimerSet {
                inner: Mutex::new(Inner {
                    heap: Heap(Vec::new()),
                    sweep_at: SWEEP_MIN,
                    slots: Vec::new(),
                    free: NO_SLOT,
                    taken: 0,
                }),
                next: AtomicU64::new(NEVER),
                armed: AtomicU64::new(0),
            }
        }
    }

    /// Returns the time of the first entry, or [`NEVER`] if there is none.
    #[inline]
    pub(crate) fn next(&self) -> u64 {
        // ORDERING: SeqCst; see the module documentation.
        self.next.load(Ordering::SeqCst)
    }

    /// Returns the total number of entries that were added.
    pub(crate) fn armed(&self) -> u64 {
        self.armed.load(Ordering::Relaxed)
    }

    /// Adds an entry. If dead entries are removed, `counts` returns whether an entry is valid.
    /// Returns whether the new entry is the first to be due.
    fn push(&self, inner: &mut Inner, entry: Entry, counts: impl Fn(Target, u64) -> bool) -> bool {
        if inner.heap.0.len() >= inner.sweep_at {
            inner.retain(|target, when| matches!(target, Target::Sleep { .. }) || counts(target, when));
            inner.sweep_at = inner.doubled();
            self.publish(inner);
        }
        inner.heap.push(entry);
        self.armed.store(self.armed.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        let first = entry.when < self.next.load(Ordering::Relaxed);
        if first {
            self.publish(inner);
        }
        first
    }

    fn publish(&self, inner: &Inner) {
        // ORDERING: SeqCst; see the module documentation.
        self.next.store(inner.heap.peek().map_or(NEVER, |entry| entry.when), Ordering::SeqCst);
    }

    /// Adds an entry for a poll descriptor. If dead entries are removed, `counts` returns whether
    /// an entry is valid. Returns whether the new entry is the first to be due.
    pub(crate) fn add(&self, when: u64, target: Target, counts: impl Fn(Target, u64) -> bool) -> bool {
        self.push(&mut self.inner.lock(), Entry::new(when, target), counts)
    }

    /// Arms a sleep. If dead entries are removed, `counts` returns whether an entry is valid.
    /// Returns the key of the sleep, and whether it is the first to be due.
    pub(crate) fn arm_sleep(&self, when: u64, waker: Waker, counts: impl Fn(Target, u64) -> bool) -> (SleepKey, bool) {
        let mut inner = self.inner.lock();
        inner.taken += 1;
        let slot = match inner.free {
            NO_SLOT => {
                inner.slots.push(SleepSlot { generation: 0, fired: false, waker: None, next_free: NO_SLOT });
                (inner.slots.len() - 1) as u32
            }
            slot => slot,
        };
        let place = &mut inner.slots[slot as usize];
        let free = std::mem::replace(&mut place.next_free, NO_SLOT);
        (place.fired, place.waker) = (false, Some(waker));
        let generation = place.generation;
        inner.free = free;
        let first = self.push(&mut inner, Entry::new(when, Target::Sleep { slot, generation }), counts);
        (SleepKey { slot, generation }, first)
    }

    /// Returns whether the sleep has fired. If it has not, stores `waker`.
    pub(crate) fn poll_sleep(&self, key: SleepKey, waker: &Waker) -> bool {
        let mut replaced = None;
        let mut inner = self.inner.lock();
        let place = &mut inner.slots[key.slot as usize];
        if place.fired || place.waker.as_ref().is_some_and(|held| held.will_wake(waker)) {
            return place.fired;
        }
        drop(inner);
        let fresh = waker.clone();
        inner = self.inner.lock();
        let place = &mut inner.slots[key.slot as usize];
        if !place.fired && !injected_bug!("sleep_keeps_the_old_waker") {
            replaced = place.waker.replace(fresh);
        }
        let fired = place.fired;
        drop(inner);
        drop(replaced);
        fired
    }

    /// Releases the slot of a sleep, whether or not it has fired.
    pub(crate) fn release(&self, key: SleepKey) {
        let mut inner = self.inner.lock();
        let free = inner.free;
        let place = &mut inner.slots[key.slot as usize];
        debug_assert_eq!(place.generation, key.generation, "the sleep was released twice");
        place.generation = place.generation.wrapping_add(1);
        let waker = place.waker.take();
        place.next_free = free;
        inner.free = key.slot;
        inner.taken -= 1;
        let surplus = inner.take_surplus();
        if !surplus.is_empty() {
            self.publish(&inner);
        }
        drop(inner);
        drop((waker, surplus));
    }

    /// Removes the entries that are due at `now`. Appends the wakers of sleeps to `wakers` and the
    /// entries of poll descriptors to `due`. Returns the number of removed entries, including dead
    /// entries.
    pub(crate) fn run(&self, now: u64, due: &mut Vec<(u64, Target)>, wakers: &mut Wakers) -> usize {
        let mut inner = self.inner.lock();
        let mut count = 0;
        while inner.heap.peek().is_some_and(|entry| entry.when <= now) {
            let Some(entry) = inner.heap.pop() else { break };
            count += 1;
            match entry.target() {
                target @ Target::Poll { .. } => due.push((entry.when, target)),
                Target::Sleep { slot, generation } => {
                    let place = &mut inner.slots[slot as usize];
                    if place.generation == generation {
                        place.fired = true;
                        wakers.extend(place.waker.take());
                    }
                }
            }
        }
        inner.heap.shrink();
        inner.sweep_at = inner.sweep_at.min(inner.doubled());
        self.publish(&inner);
        count
    }

    /// Takes the wakers of all sleeps, which then check the clock. Removes the entries of sleeps
    /// and all dead entries. Deadlines remain, because their sockets do. Called by a shutdown.
    pub(crate) fn clear_sleeps(&self, wakers: &mut Wakers, counts: impl Fn(Target, u64) -> bool) {
        let mut inner = self.inner.lock();
        for place in &mut inner.slots {
            if place.waker.is_some() {
                place.fired = true;
                wakers.extend(place.waker.take());
            }
        }
        inner.retain(|target, when| matches!(target, Target::Poll { .. }) && counts(target, when));
        inner.sweep_at = inner.doubled();
        self.publish(&inner);
    }

    /// Resets the set for the next simulation: removes all entries, and sorts the free slots, so
    /// that they are used in order.
    #[cfg(feature = "sim")]
    pub(crate) fn reset(&self) {
        let mut inner = self.inner.lock();
        let mut free = Vec::new();
        let mut next = inner.free;
        while next != NO_SLOT {
            free.push(next);
            next = inner.slots[next as usize].next_free;
        }
        free.sort_unstable();
        inner.free = NO_SLOT;
        for slot in free.into_iter().rev() {
            inner.slots[slot as usize].next_free = inner.free;
            inner.free = slot;
        }
        inner.heap.0.clear();
        inner.sweep_at = SWEEP_MIN;
        self.publish(&inner);
    }

    /// Returns the number of entries, including dead entries.
    pub(crate) fn len(&self) -> usize {
        self.inner.lock().heap.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BinaryHeap;

    fn random(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    #[test]
    fn heap_agrees_with_an_oracle() {
        let (mut state, mut heap, mut oracle) = (0x9e37_79b9, Heap(Vec::new()), BinaryHeap::new());
        for step in 0..200_000_u32 {
            if random(&mut state) % 5 < 3 {
                let when = random(&mut state) % 1000;
                heap.push(Entry { when, id: step, generation: 0 });
                oracle.push(std::cmp::Reverse(when));
            } else {
                assert_eq!(heap.pop().map(|entry| entry.when), oracle.pop().map(|when| when.0));
            }
            if step % 5000 == 0 {
                let limit = random(&mut state) % 1000;
                heap.retain(|entry| entry.when < limit);
                oracle.retain(|when| when.0 < limit);
            }
        }
        while let Some(entry) = heap.pop() {
            assert_eq!(Some(entry.when), oracle.pop().map(|when| when.0));
        }
        assert!(oracle.is_empty());
    }

    #[test]
    fn cancelled_sleeps_do_not_accumulate() {
        let set = TimerSet::new();
        for round in 0..100_000 {
            let (key, _) = set.arm_sleep(1_000_000 + round, Waker::noop().clone(), |_, _| true);
            set.release(key);
        }
        assert!(set.len() <= SWEEP_MIN * 2, "{} entries without a sleep", set.len());
        assert!(set.inner.lock().slots.len() == 1, "the slot is reused");
    }

    #[test]
    fn memory_of_a_burst_of_sleeps_is_freed() {
        const BURST: u64 = 100_000;
        let (set, far) = (TimerSet::new(), Target::Poll { index: 7 });
        set.add(u64::MAX - 1, far, |_, _| true);
        let arm = |when| set.arm_sleep(when, Waker::noop().clone(), |_, _| true).0;
        for round in 0..3 {
            let keys: Vec<_> = (1..=BURST).map(arm).collect();
            // In the last round, the sleeps are released before they have fired.
            if round < 2 {
                set.run(BURST, &mut Vec::new(), &mut Wakers::new());
                assert!(set.inner.lock().heap.0.capacity() <= ROOM_MAX);
            }
            let (last, others) = keys.split_last().unwrap();
            others.iter().for_each(|&key| set.release(key));
            assert!(!set.poll_sleep(*last, Waker::noop()) || round < 2, "its slot exists");
            set.release(*last);
            let inner = set.inner.lock();
            assert_eq!((inner.slots.capacity(), inner.heap.0.len()), (0, 1), "round {round}");
            drop(inner);
            assert_eq!(set.next(), u64::MAX - 1);
        }
        // New slots have the numbers and generations of the old ones.
        let key = arm(BURST + 7);
        set.run(BURST + 6, &mut Vec::new(), &mut Wakers::new());
        assert!(!set.poll_sleep(key, Waker::noop()));
        set.run(BURST + 7, &mut Vec::new(), &mut Wakers::new());
        assert!(set.poll_sleep(key, Waker::noop()));
        set.release(key);
    }

    #[test]
    fn burst_of_sleeps_does_not_sort_many_deadlines() {
        const SLEEPS: usize = ROOM_MAX + 1;
        let set = TimerSet::new();
        for index in 0..4 * SLEEPS as u32 {
            set.add(100, Target::Poll { index }, |_, _| true);
        }
        let burst = || {
            let keys: Vec<_> = (0..SLEEPS).map(|_| set.arm_sleep(200, Waker::noop().clone(), |_, _| true).0).collect();
            keys.into_iter().for_each(|key| set.release(key));
            set.inner.lock().slots.len()
        };
        assert_eq!(burst(), SLEEPS, "the slots are kept beside the deadlines");
        set.run(200, &mut Vec::new(), &mut Wakers::new());
        assert_eq!(burst(), 0);
    }

    #[test]
    fn dead_entries_do_not_accumulate_after_a_shutdown_with_many_sleeps() {
        let set = TimerSet::new();
        for when in 0..10_000 {
            let _ = set.arm_sleep(1_000_000 + when, Waker::noop().clone(), |_, _| true);
        }
        set.clear_sleeps(&mut Wakers::new(), |_, _| true);
        for when in 0..5000 {
            set.add(1_000_000 + when, Target::Poll { index: 7 }, |_, _| false);
        }
        assert!(set.len() <= SWEEP_MIN * 2, "{} dead entries", set.len());
    }

    /// Short timeouts expire on a socket whose deadline is far in the future. Each of them
    /// supersedes the entry of the deadline, which is then added again.
    #[test]
    fn repeatedly_added_entries_do_not_accumulate() {
        let (set, far) = (TimerSet::new(), Target::Poll { index: 7 });
        for short in 0..10_000 {
            let counts = |target, when| target == far && when == 1_000_000;
            set.add(1_000_000, far, counts);
            set.add(short, far, counts);
            assert_eq!(set.run(short, &mut Vec::new(), &mut Wakers::new()), 1);
        }
        assert!(set.len() <= SWEEP_MIN * 2, "{} entries for one deadline", set.len());
    }

    #[test]
    fn due_entries_are_returned_once_and_in_order() {
        let set = TimerSet::new();
        let (early, first) = set.arm_sleep(10, Waker::noop().clone(), |_, _| true);
        assert!(first);
        let (late, first) = set.arm_sleep(30, Waker::noop().clone(), |_, _| true);
        assert!(!first);
        assert!(!set.add(20, Target::Poll { index: 7 }, |_, _| true));
        let (mut due, mut wakers) = (Vec::new(), Wakers::new());
        assert_eq!(set.run(20, &mut due, &mut wakers), 2);
        assert_eq!(due, [(20, Target::Poll { index: 7 })]);
        assert_eq!(wakers.wake_all(), 1);
        assert!(set.poll_sleep(early, Waker::noop()) && !set.poll_sleep(late, Waker::noop()));
        assert_eq!(set.next(), 30);
        set.release(early);
        set.release(late);
        assert_eq!((set.run(40, &mut due, &mut wakers), wakers.wake_all()), (1, 0), "the released sleep is dead");
        assert_eq!(set.next(), NEVER);
    }
}

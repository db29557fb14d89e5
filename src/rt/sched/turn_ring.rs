//! [`TurnRing`]: the last turns of one processor and the calls on descriptors in them, for the
//! [black box](crate::rt::Builder::black_box_file).
//!
//! At the beginning of each turn, the owner overwrites the oldest entry. It adds the calls while
//! the turn runs. Other threads can read the ring at any time, including the turn in progress,
//! without stopping the owner.
//!
//! An entry has room for two calls, which is enough for an echo. To record a further call, the
//! owner moves the calls of the full entry to its [`EventRing`](super::event_ring::EventRing).
//!
//! # Memory ordering
//! A reader must not combine the words of two turns:
//! * The time stamp of an entry is stored after its other words, with Release. A reader loads it
//!   first, with Acquire, so the other words belong to the turn of this time stamp or to a later
//!   turn.
//! * The number of ended turns is stored before an entry is reused. The words of an entry are
//!   stored with Release and loaded with Acquire. So a reader that finds a word of a later turn
//!   also finds a number that shows that the entry was reused, and drops the entry (model
//!   `turn_ring_reader_against_owner`).

use std::marker::PhantomData;
use std::ptr;

use crate::sync::{AtomicU32, AtomicU64, MODEL, Ordering, injected_bug};

/// The number of entries.
const TURNS: usize = if MODEL { 2 } else { 2048 };
/// The number of calls in an entry.
const CALLS: usize = if MODEL { 1 } else { 2 };
const ENTRY_BYTES: usize = 32;
/// The increment of `ended` per turn. With this unit, the offset of an entry in bytes is eight
/// times `ended`, modulo the size of the ring. x86 computes this multiplication in an addressing
/// mode.
const UNITS: u64 = ENTRY_BYTES as u64 / 8;
/// The offset of an entry's calls.
const OFFSET: usize = std::mem::offset_of!(Entry, calls);
/// The bit that is set in the address of a [`CallPlace`] if its entry has no room for another call.
const FULL: usize = CALLS * size_of::<AtomicU32>();

/// The last turns of one processor; see the [module documentation](self).
#[derive(Debug)]
pub(crate) struct TurnRing {
    /// The number of turns that have ended, times [`UNITS`]. This number of turns, modulo
    /// [`TURNS`], is the index of the entry of the turn in progress or, between turns, of the next
    /// turn.
    ended: AtomicU64,
    entries: Box<[Entry; TURNS]>,
}

#[derive(Debug)]
#[repr(C, align(32))]
struct Entry {
    /// The time at which the turn began.
    ticks: AtomicU64,
    /// The id of the task.
    task: AtomicU64,
    /// Fills the entry.
    unused: u64,
    /// The packed calls, or 0.
    calls: [AtomicU32; CALLS],
}

const _: () = assert!(MODEL || (size_of::<Entry>() == ENTRY_BYTES && align_of::<Entry>() == ENTRY_BYTES));
const _: () = assert!(MODEL || (FULL.is_power_of_two() && OFFSET + FULL <= ENTRY_BYTES));

/// The address at which the next call of a turn is recorded, minus [`OFFSET`]. For the first call
/// this is the address of the entry. The bit [`FULL`] is set if the entry is full, or if calls are
/// not recorded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallPlace<'a>(*const AtomicU32, PhantomData<&'a Entry>);

impl<'a> CallPlace<'a> {
    pub(crate) const NONE: CallPlace<'a> = CallPlace(ptr::without_provenance(FULL), PhantomData);

    pub(crate) fn is_none(self) -> bool {
        ptr::eq(self.0, Self::NONE.0)
    }

    /// Stores a call on the descriptor `fd`. Returns the next place, or `None` if there is no room.
    /// Only the owner of the ring may call this.
    #[inline]
    #[allow(unsafe_code)]
    pub(crate) fn store(self, writes: bool, fd: i32) -> Option<CallPlace<'a>> {
        if self.0.addr() & FULL != 0 {
            return None;
        }
        // SAFETY: the result is within the entry, which has room and whose address is a multiple of
        // its size.
        let place = unsafe { self.0.byte_add(OFFSET) };
        // SAFETY: the pointer is that of an element of the entry's calls. The entry lives for 'a.
        let call = unsafe { &*place };
        // ORDERING: Release; see the module documentation.
        call.store(pack(writes, fd), Ordering::Release);
        // SAFETY: the result is within the entry.
        Some(CallPlace(unsafe { self.0.add(1) }, PhantomData))
    }
}

/// A recorded turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) ticks: u64,
    pub(crate) task: u64,
    calls: [u32; CALLS],
}

/// Packs a call into a word that is not 0. `fd` must be at least 0 and less than `i32::MAX`.
#[inline]
fn pack(writes: bool, fd: i32) -> u32 {
    (fd as u32).wrapping_mul(2).wrapping_add(2 + u32::from(writes))
}

/// Returns the calls in the value of a [`Mark::Calls`](super::event_ring::Mark::Calls): the
/// descriptor of each, and whether it was a write.
pub(crate) fn unpack_word(word: u64) -> impl Iterator<Item = (i32, bool)> {
    [word as u32, (word >> 32) as u32].into_iter().filter_map(unpack)
}

fn unpack(call: u32) -> Option<(i32, bool)> {
    (call != 0).then(|| ((call.wrapping_sub(2) >> 1) as i32, call % 2 == 1))
}

impl TurnRing {
    pub(crate) fn new() -> TurnRing {
        let entry = || Entry {
            ticks: AtomicU64::new(0),
            task: AtomicU64::new(0),
            unused: 0,
            calls: std::array::from_fn(|_| AtomicU32::new(0)),
        };
        let entries: Vec<_> = std::iter::repeat_with(entry).take(TURNS).collect();
        let Ok(entries) = entries.into_boxed_slice().try_into() else { unreachable!("it has that length") };
        TurnRing { ended: AtomicU64::new(0), entries }
    }

    #[inline]
    fn entry(&self, number: u64) -> &Entry {
        &self.entries[number as usize % TURNS]
    }

    /// Returns the entry of the turn in progress or, between turns, of the next turn.
    #[inline]
    fn current(&self) -> &Entry {
        self.entry(self.ended())
    }

    /// Records that a turn of `task` begins at `ticks`. Returns the place for its first call. Only
    /// the owner may call this.
    #[inline]
    pub(crate) fn begin(&self, task: u64, ticks: u64) -> CallPlace<'_> {
        if cfg!(netpoll_no_black_box) {
            return CallPlace::NONE;
        }
        let entry = self.current();
        // ORDERING: Release, and the time stamp last; see the module documentation.
        entry.calls.iter().for_each(|call| call.store(0, Ordering::Release));
        let task_order = if injected_bug!("turn_without_its_end") { Ordering::Relaxed } else { Ordering::Release };
        entry.task.store(task, task_order);
        let order = if injected_bug!("turn_without_its_task") { Ordering::Relaxed } else { Ordering::Release };
        entry.ticks.store(ticks, order);
        entry.place(0)
    }

    /// Returns the time stamp of the turn in progress. Between turns, returns that of an old turn,
    /// or 0. Only the owner may call this.
    #[inline]
    pub(crate) fn began(&self) -> u64 {
        self.current().ticks.load(Ordering::Relaxed)
    }

    /// Replaces the calls of the turn in progress with one call. Returns the previous calls as the
    /// value of a [`Mark::Calls`](super::event_ring::Mark::Calls), and the place for the next call.
    /// Only the owner may call this.
    pub(crate) fn replace_calls(&self, writes: bool, fd: i32) -> (u64, CallPlace<'_>) {
        let entry = self.current();
        let calls = &entry.calls;
        let word = calls.iter().rev().fold(0, |word, call| word << 32 | u64::from(call.load(Ordering::Relaxed)));
        // ORDERING: Release; see the module documentation.
        calls[1..].iter().for_each(|call| call.store(0, Ordering::Release));
        calls[0].store(pack(writes, fd), Ordering::Release);
        (word, entry.place(1))
    }

    /// Records that the turn ends. Only the owner may call this.
    #[inline]
    pub(crate) fn end(&self) {
        // ORDERING: Release publishes the turn.
        self.ended.store(self.ended.load(Ordering::Relaxed) + UNITS, Ordering::Release);
    }

    /// Returns the number of turns that have ended.
    #[inline]
    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed) / UNITS
    }

    /// Returns the turns in the ring, oldest first, and whether they are all turns so far. Turns
    /// that the owner may be overwriting are omitted. The last turn may be in progress. Any thread
    /// may call this.
    pub(crate) fn read(&self) -> (Vec<Turn>, bool) {
        if cfg!(netpoll_no_black_box) {
            return (Vec::new(), self.ended() == 0);
        }
        // ORDERING: Acquire pairs with the Release in `end`: the turns that have ended are visible.
        let end = self.ended.load(Ordering::Acquire) / UNITS;
        let first = end.saturating_sub(TURNS as u64 - 1);
        let mut turns: Vec<_> = (first..=end).map(|number| self.entry(number).read()).collect();
        let now = self.ended();
        // The last entry belongs to an old turn if no turn is in progress.
        if let Some((last, before)) = turns.split_last()
            && before.last().map_or(last.ticks == 0, |before| last.ticks <= before.ticks)
        {
            turns.pop();
        }
        // The owner may already be writing the entry of the turn that follows the last ended turn.
        let begun = if injected_bug!("turn_in_progress_counts") { 0 } else { 1 };
        let reused = (now + begun).saturating_sub(TURNS as u64).saturating_sub(first);
        turns.drain(..turns.len().min(reused as usize));
        (turns, first == 0 && reused == 0)
    }
}

impl Entry {
    /// Returns the place of the call `index`.
    #[inline]
    fn place(&self, index: usize) -> CallPlace<'_> {
        CallPlace(ptr::from_ref(self).cast::<AtomicU32>().wrapping_add(index), PhantomData)
    }

    fn read(&self) -> Turn {
        // ORDERING: Acquire, and the time stamp first; see the module documentation.
        let ticks = self.ticks.load(Ordering::Acquire);
        let task = self.task.load(Ordering::Acquire);
        Turn { ticks, task, calls: self.calls.each_ref().map(|call| call.load(Ordering::Acquire)) }
    }
}

impl Turn {
    /// Returns the descriptor of each call, and whether it was a write.
    pub(crate) fn calls(&self) -> impl Iterator<Item = (i32, bool)> + use<> {
        self.calls.into_iter().filter_map(unpack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(not(netpoll_no_black_box))]
    fn ids(ring: &TurnRing) -> Vec<u64> {
        ring.read().0.iter().map(|turn| turn.task).collect()
    }

    #[test]
    #[cfg(not(netpoll_no_black_box))]
    fn turns_are_read_in_order_with_their_calls() {
        let ring = TurnRing::new();
        assert_eq!(ring.read(), (Vec::new(), true));
        let mut moved = Vec::new();
        for at in 1..=5 {
            let mut place = ring.begin(at + 10, at);
            for fd in 0..at as i32 {
                let (is_write, is_full) = (fd % 2 == 1, fd > 0 && fd % CALLS as i32 == 0);
                place = match place.store(is_write, fd) {
                    Some(next) => next,
                    None => {
                        assert!(is_full, "{fd}");
                        let (word, next) = ring.replace_calls(is_write, fd);
                        moved.push(unpack_word(word).collect::<Vec<_>>());
                        next
                    }
                };
            }
            ring.end();
        }
        let (turns, is_whole) = ring.read();
        assert!(is_whole && ring.ended() == 5);
        let (first, second) = ([(0, false), (1, true)], [(2, false), (3, true)]);
        let expected: [&[_]; 5] = [&first[..1], &first, &second[..1], &second, &[(4, false)]];
        for ((turn, expected), at) in turns.iter().zip(expected).zip(1..) {
            assert_eq!((turn.task, turn.ticks), (at + 10, at));
            assert_eq!(turn.calls().collect::<Vec<_>>(), expected);
        }
        assert_eq!(moved, [first, first, first, second]);
    }

    #[test]
    #[cfg(not(netpoll_no_black_box))]
    fn turn_in_progress_is_read() {
        let ring = TurnRing::new();
        for number in 1..3 * TURNS as u64 {
            assert!(ring.begin(number, number).store(false, 7).is_some());
            assert_eq!(ring.read().0.last().unwrap().calls().collect::<Vec<_>>(), [(7, false)]);
            assert_eq!(*ids(&ring).last().unwrap(), number);
            ring.end();
            assert_eq!(*ids(&ring).last().unwrap(), number);
            let kept = ring.read().0.len() as u64;
            assert!(kept == number || kept == TURNS as u64 - 1, "{kept} after {number}");
        }
        let (turns, is_whole) = ring.read();
        assert!(!is_whole && turns.windows(2).all(|two| two[0].task + 1 == two[1].task));
    }

    #[test]
    #[cfg(netpoll_no_black_box)]
    fn turns_are_not_recorded() {
        let ring = TurnRing::new();
        assert!(ring.begin(7, 1).is_none());
        assert_eq!(ring.read(), (Vec::new(), true));
        ring.end();
        assert_eq!((ring.read(), ring.ended()), ((Vec::new(), false), 1));
    }

    #[test]
    fn call_without_a_place_is_not_recorded() {
        assert!(CallPlace::NONE.is_none() && CallPlace::NONE.store(true, 5).is_none());
    }

    #[test]
    fn calls_survive_packing() {
        for (fd, writes) in [(0, false), (0, true), (1, false), (1 << 20, true)] {
            assert_eq!(unpack(pack(writes, fd)), Some((fd, writes)));
        }
        assert_eq!(unpack(0), None);
        let (one, two) = (pack(false, 7), pack(true, 9));
        assert_eq!(unpack_word(u64::from(two) << 32 | u64::from(one)).collect::<Vec<_>>(), [(7, false), (9, true)]);
    }

    /// A concurrent reader must see only consecutive turns that were recorded.
    #[test]
    #[cfg(not(netpoll_no_black_box))]
    fn concurrent_reader_sees_whole_turns() {
        const LAST: u64 = 200_000;
        let ring = TurnRing::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for at in 1..=LAST {
                    assert!(ring.begin(at + 10, at).store(at % 2 == 0, at as i32).is_some());
                    ring.end();
                }
            });
            let mut seen = 0;
            while seen < LAST {
                let (turns, _) = ring.read();
                for two in turns.windows(2) {
                    assert_eq!(two[0].ticks + 1, two[1].ticks);
                }
                for turn in &turns {
                    assert_eq!(turn.task, turn.ticks + 10);
                    // The last turn may not have made its call yet.
                    let expected = (turn.ticks as i32, turn.ticks % 2 == 0);
                    assert!(turn.calls().all(|call| call == expected), "{turn:?}");
                }
                seen = seen.max(turns.last().map_or(0, |turn| turn.ticks));
            }
        });
    }
}

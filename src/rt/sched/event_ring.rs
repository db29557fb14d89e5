//! [`EventRing`]: the last events of one processor other than its turns, or of sysmon, for the
//! [black box](crate::rt::black_box()).
//!
//! The ring has entries of two words. The owner appends events and overwrites the oldest events.
//! Other threads can read the ring at any time, without stopping the owner. Turns are recorded in a
//! [`TurnRing`](super::turn_ring::TurnRing).
//!
//! # Memory ordering
//! `end`, the number of events, is stored after the words of an event. Words are stored with
//! Release and loaded with Acquire. So a reader that finds a new word in place of an old one also
//! finds the `end` that was stored before it, and drops all entries that may have been overwritten
//! in the meantime (model `event_ring_reader_against_owner`).

use crate::sync::{AtomicU64, MODEL, Ordering, injected_bug};

/// The number of entries.
const ENTRIES: usize = if MODEL { 2 } else { 2048 };

/// The number of bits of the kind of an event, which are below its time stamp.
const MARK_BITS: u32 = 4;
/// The mask of a time stamp, which has 60 bits.
const TICKS_MASK: u64 = u64::MAX >> MARK_BITS;

/// The kind of an event. In the comments, the meaning of the event's value is in parentheses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The thread goes to sleep in the poller.
    Sleep,
    /// The sleep has ended (the number of wake-ups).
    Rise,
    /// The thread has polled without sleeping (the number of wake-ups).
    Poll,
    /// The thread has run due timers (the number of wake-ups).
    Timers,
    /// The thread gives its processor back, because there is no work.
    Rest,
    /// The thread gives its processor up, because a task, a root future, a waker or a destructor on
    /// it waits in a nested `block_on`, because it is not a worker and stops running tasks, or
    /// because the epoch is over.
    Leave,
    /// The thread gets a processor.
    Begin,
    /// The thread has taken tasks from another processor (the number of that processor).
    Steal,
    /// Sysmon has found a task in the same turn at two consecutive checks (the id of the task).
    Stuck,
    /// The current turn has made more calls than fit into its entry of the turn ring (two packed
    /// calls).
    Calls,
}

const MARKS: [Mark; 10] = [
    Mark::Sleep,
    Mark::Rise,
    Mark::Poll,
    Mark::Timers,
    Mark::Rest,
    Mark::Leave,
    Mark::Begin,
    Mark::Steal,
    Mark::Stuck,
    Mark::Calls,
];

/// A recorded event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) mark: Mark,
    pub(crate) ticks: u64,
    pub(crate) value: u64,
}

/// The last events of one processor or of sysmon; see the [module documentation](self).
#[derive(Debug)]
pub(crate) struct EventRing {
    /// The total number of events that were appended.
    end: AtomicU64,
    entries: Box<[[AtomicU64; 2]; ENTRIES]>,
}

impl Default for EventRing {
    fn default() -> EventRing {
        EventRing::new()
    }
}

impl EventRing {
    pub(crate) fn new() -> EventRing {
        let entries: Vec<_> = (0..ENTRIES).map(|_| [AtomicU64::new(0), AtomicU64::new(0)]).collect();
        let Ok(entries) = entries.into_boxed_slice().try_into() else { unreachable!("it has that length") };
        EventRing { end: AtomicU64::new(0), entries }
    }

    /// Appends an event that happens at `ticks`. Only the owner may call this.
    pub(crate) fn record(&self, mark: Mark, ticks: u64, value: u64) {
        let end = self.end.load(Ordering::Relaxed);
        let [first, second] = &self.entries[end as usize % ENTRIES];
        // ORDERING: Release; see the module documentation.
        let order = if injected_bug!("event_word_without_its_end") { Ordering::Relaxed } else { Ordering::Release };
        first.store(ticks << MARK_BITS | mark as u64, order);
        second.store(value, order);
        self.end.store(end + 1, Ordering::Release);
    }

    /// Returns the total number of events that were appended, and whether calls of wakers follow
    /// the last event. Any thread may call this.
    pub(crate) fn is_waking(&self) -> (u64, bool) {
        // ORDERING: Acquire pairs with the Release of `end`. If the entry is overwritten in the
        // meantime, the caller gets a different number at its next call.
        let end = self.end.load(Ordering::Acquire);
        let word = self.entries[end.wrapping_sub(1) as usize % ENTRIES][0].load(Ordering::Acquire);
        let mark = MARKS.get((word & !(TICKS_MASK << MARK_BITS)) as usize);
        (end, end > 0 && matches!(mark, Some(Mark::Rise | Mark::Poll | Mark::Timers)))
    }

    /// Returns the events in the ring, oldest first, and whether they are all events so far. Events
    /// that the owner may be overwriting are omitted. Any thread may call this.
    pub(crate) fn read(&self) -> (Vec<Event>, bool) {
        // ORDERING: Acquire pairs with the Release of `end`: the words of all events up to it are
        // visible.
        let end = self.end.load(Ordering::Acquire);
        let first = end.saturating_sub(ENTRIES as u64);
        let read = |number: u64| {
            // ORDERING: Acquire; see the module documentation.
            let [word, value] =
                self.entries[number as usize % ENTRIES].each_ref().map(|word| word.load(Ordering::Acquire));
            let mark = *MARKS.get((word & !(TICKS_MASK << MARK_BITS)) as usize)?;
            Some(Event { mark, ticks: word >> MARK_BITS, value })
        };
        let mut events: Vec<_> = (first..end).map(read).collect();
        let now = self.end.load(Ordering::Relaxed);
        let begun = if injected_bug!("event_in_progress_counts") { 0 } else { 1 };
        let overwritten = (now + begun).saturating_sub(ENTRIES as u64).saturating_sub(first);
        events.drain(..events.len().min(overwritten as usize));
        (events.into_iter().flatten().collect(), first == 0 && overwritten == 0)
    }
}

/// Returns the number of ticks from `then`, the time stamp of an event, to `now`. Returns 0 if the
/// counter of the CPU that recorded the event is ahead.
pub(crate) fn ticks_since(then: u64, now: u64) -> u64 {
    let ticks = now.wrapping_sub(then) & TICKS_MASK;
    if ticks > TICKS_MASK / 2 { 0 } else { ticks }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_in_order() {
        let ring = EventRing::new();
        assert_eq!(ring.read(), (Vec::new(), true));
        let mut expected: Vec<_> =
            (0..).zip(MARKS).map(|(at, mark)| Event { mark, ticks: at, value: at + 10 }).collect();
        for event in &expected {
            ring.record(event.mark, event.ticks, event.value);
        }
        ring.record(Mark::Calls, u64::MAX, u64::MAX);
        expected.push(Event { mark: Mark::Calls, ticks: TICKS_MASK, value: u64::MAX });
        assert_eq!(ring.read(), (expected, true));
    }

    #[test]
    fn old_events_are_overwritten() {
        let ring = EventRing::new();
        for at in 0..2 * ENTRIES as u64 {
            ring.record(Mark::Rise, at, at + 1);
            let (events, is_whole) = ring.read();
            assert_eq!(events.last(), Some(&Event { mark: Mark::Rise, ticks: at, value: at + 1 }));
            // A reader must assume that the oldest entry is being overwritten.
            assert_eq!(events.len() as u64, (at + 1).min(ENTRIES as u64 - 1));
            assert_eq!(is_whole, at + 1 < ENTRIES as u64);
        }
    }

    #[test]
    fn time_between_stamps_survives_overflow_and_other_cores() {
        assert_eq!(ticks_since(5, 12), 7);
        assert_eq!(ticks_since(TICKS_MASK - 1, 3), 5);
        assert_eq!(ticks_since(12, 5), 0);
    }

    /// A concurrent reader must see only consecutive events that were recorded.
    #[test]
    fn concurrent_reader_sees_whole_events() {
        let ring = EventRing::new();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..200_000).for_each(|at| ring.record(Mark::Rise, at, at + 1)));
            let mut last = 0;
            while last < 199_999 {
                let mut before = None;
                for Event { mark, ticks, value } in ring.read().0 {
                    assert_eq!((mark, value), (Mark::Rise, ticks + 1));
                    assert!(before.is_none_or(|before| before + 1 == ticks), "{before:?}, then {ticks}");
                    before = Some(ticks);
                }
                last = last.max(before.unwrap_or(0));
            }
        });
    }
}

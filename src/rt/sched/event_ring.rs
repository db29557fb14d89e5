//! [`EventRing`]: the last events of one thread, for the black box.
//!
//! A ring of words of 64 bits. Its owner appends; other threads read it at any time, without stopping
//! the owner. Old words are overwritten.
//!
//! # Words
//! The highest four bits are the kind, the others the value. An event with a time is two words: its
//! kind with the time stamp, and [`VALUE`]. A socket call that did not have to wait is one word,
//! [`READ`] or [`WRITE`] with the number of the descriptor; it belongs to the turn before it.
//! The first words that a reader gets may be the rest of an overwritten event.
//!
//! # Memory ordering
//! `end` is stored after the words that it covers. Words are stored with Release and loaded with
//! Acquire: a reader that finds a new word in the place of an old one also finds the `end` that was
//! stored before it, and drops all words that may have been overwritten by then (model
//! `event_ring_reader_against_owner`).

use crate::sync::{AtomicU64, MODEL, Ordering, injected_bug};

/// The number of words: some 2,000 turns.
const WORDS: usize = if MODEL { 4 } else { 8192 };
/// The number of words per event, at most.
const EVENT_WORDS: u64 = 2;

const KIND_SHIFT: u32 = 60;
const VALUE_MASK: u64 = (1 << KIND_SHIFT) - 1;
const VALUE: u64 = 0;
const READ: u64 = 1;
const WRITE: u64 = 2;
/// Kinds from here on have a time: this plus [`Mark`].
const TIMED: u64 = 3;

/// The kind of an event with a time. The value is in parentheses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// A turn begins (the task's id).
    Turn,
    /// The thread goes to sleep in the poller.
    Sleep,
    /// It returns from there (the number of events).
    Rise,
    /// It has polled without sleeping (the number of events).
    Poll,
    /// Timers are due (the number of wake-ups).
    Timers,
    /// It gives its processor back, because there is no work.
    Rest,
    /// It leaves its processor to other threads, in a task that waits in `block_on`, or because the
    /// runtime has ended.
    Leave,
    /// It gets a processor.
    Begin,
    /// It has taken tasks of another processor (that processor's number).
    Steal,
    /// Sysmon has found a task in the same turn twice (the task's id).
    Stuck,
}

const MARKS: [Mark; 10] = [
    Mark::Turn,
    Mark::Sleep,
    Mark::Rise,
    Mark::Poll,
    Mark::Timers,
    Mark::Rest,
    Mark::Leave,
    Mark::Begin,
    Mark::Steal,
    Mark::Stuck,
];

/// One decoded event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Timed { mark: Mark, ticks: u64, value: u64 },
    Call { writes: bool, fd: i32 },
}

/// The last events of one thread; see the [module documentation](self).
#[derive(Debug)]
pub(crate) struct EventRing {
    /// The number of words ever appended.
    end: AtomicU64,
    words: Box<[AtomicU64; WORDS]>,
}

impl Default for EventRing {
    fn default() -> EventRing {
        EventRing::new()
    }
}

impl EventRing {
    pub(crate) fn new() -> EventRing {
        let words: Vec<_> = (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        let Ok(words) = words.into_boxed_slice().try_into() else { unreachable!("it has that length") };
        EventRing { end: AtomicU64::new(0), words }
    }

    /// Appends an event that happens at `ticks`. Owner only.
    #[inline]
    pub(crate) fn record(&self, mark: Mark, ticks: u64, value: u64) {
        let end = self.end.load(Ordering::Relaxed);
        self.store(end, (TIMED + mark as u64) << KIND_SHIFT | ticks & VALUE_MASK);
        self.store(end + 1, VALUE << KIND_SHIFT | value & VALUE_MASK);
        self.end.store(end + 2, Ordering::Release);
    }

    /// Appends a socket call that did not have to wait. Owner only.
    #[inline]
    pub(crate) fn record_call(&self, writes: bool, fd: i32) {
        let end = self.end.load(Ordering::Relaxed);
        self.store(end, (READ + u64::from(writes)) << KIND_SHIFT | u64::from(fd as u32));
        self.end.store(end + 1, Ordering::Release);
    }

    #[inline]
    fn store(&self, at: u64, word: u64) {
        // ORDERING: Release; see the module documentation.
        let order = if injected_bug!("event_word_without_its_end") { Ordering::Relaxed } else { Ordering::Release };
        self.words[at as usize % WORDS].store(word, order);
    }

    /// Returns the events that are still there, oldest first. Any thread.
    pub(crate) fn read(&self) -> Vec<Event> {
        decode(&self.words())
    }

    fn words(&self) -> Vec<u64> {
        // ORDERING: Acquire pairs with the Release of `end`: the words that it covers are visible.
        let end = self.end.load(Ordering::Acquire);
        let first = end.saturating_sub(WORDS as u64);
        // ORDERING: Acquire; see the module documentation.
        let mut words: Vec<_> =
            (first..end).map(|at| self.words[at as usize % WORDS].load(Ordering::Acquire)).collect();
        let now = self.end.load(Ordering::Relaxed);
        let begun = if injected_bug!("event_in_progress_counts") { 0 } else { EVENT_WORDS };
        let overwritten = (now + begun).saturating_sub(WORDS as u64).saturating_sub(first);
        words.drain(..words.len().min(overwritten as usize));
        words
    }
}

fn decode(words: &[u64]) -> Vec<Event> {
    let mut events = Vec::new();
    let mut words = words.iter().map(|word| (word >> KIND_SHIFT, word & VALUE_MASK)).peekable();
    while let Some((kind, value)) = words.next() {
        match kind {
            READ | WRITE => events.push(Event::Call { writes: kind == WRITE, fd: value as u32 as i32 }),
            TIMED.. => {
                if let Some(&mark) = MARKS.get((kind - TIMED) as usize)
                    && let Some((_, of)) = words.next_if(|&(kind, _)| kind == VALUE)
                {
                    events.push(Event::Timed { mark, ticks: value, value: of });
                }
            }
            // The second word of an event whose first one was overwritten.
            _ => {}
        }
    }
    events
}

/// Returns the number of ticks from the time stamp `then` of an event to `now`. 0 if the event is of
/// a processor core whose counter is ahead.
pub(crate) fn ticks_since(then: u64, now: u64) -> u64 {
    let ticks = now.wrapping_sub(then) & VALUE_MASK;
    if ticks > VALUE_MASK / 2 { 0 } else { ticks }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(at: u64) -> Event {
        Event::Timed { mark: Mark::Turn, ticks: at, value: at + 1 }
    }

    #[test]
    fn events_are_read_in_order() {
        let ring = EventRing::new();
        assert!(ring.read().is_empty());
        for (at, mark) in (0..).zip(MARKS) {
            ring.record(mark, at, at + 10);
            ring.record_call(at % 2 == 1, at as i32);
        }
        ring.record(Mark::Turn, u64::MAX, u64::MAX);
        let mut expected = Vec::new();
        for (at, mark) in (0..).zip(MARKS) {
            expected.push(Event::Timed { mark, ticks: at, value: at + 10 });
            expected.push(Event::Call { writes: at % 2 == 1, fd: at as i32 });
        }
        expected.push(Event::Timed { mark: Mark::Turn, ticks: VALUE_MASK, value: VALUE_MASK });
        assert_eq!(ring.read(), expected);
    }

    #[test]
    fn old_events_are_overwritten_as_a_whole() {
        let ring = EventRing::new();
        let turns = WORDS as u64;
        for at in 0..turns {
            ring.record(Mark::Turn, at, at + 1);
            // An odd number of words: the oldest event is cut.
            if at == turns / 2 + 7 {
                ring.record_call(false, 5);
            }
        }
        let events = ring.read();
        let kept = (WORDS as u64 - EVENT_WORDS - 1) / 2;
        assert_eq!(events.iter().filter(|&&event| event != Event::Call { writes: false, fd: 5 }).count() as u64, kept);
        assert_eq!(events.last(), Some(&turn(turns - 1)));
        assert_eq!(events.first(), Some(&turn(turns - kept)));
    }

    #[test]
    fn time_between_stamps_survives_overflow_and_other_cores() {
        assert_eq!(ticks_since(5, 12), 7);
        assert_eq!(ticks_since(VALUE_MASK - 1, 3), 5);
        assert_eq!(ticks_since(12, 5), 0);
    }

    /// A reader beside the owner sees only events that were recorded, one after the other.
    #[test]
    fn reader_beside_the_owner_sees_whole_events() {
        let ring = EventRing::new();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..200_000).for_each(|at| ring.record(Mark::Turn, at, at + 1)));
            let mut last = 0;
            while last < 199_999 {
                let events = ring.read();
                let mut before = None;
                for event in &events {
                    let Event::Timed { mark: Mark::Turn, ticks, value } = *event else { panic!("{event:?}") };
                    assert_eq!(value, ticks + 1);
                    assert!(before.is_none_or(|before| before + 1 == ticks), "{before:?}, then {ticks}");
                    before = Some(ticks);
                }
                last = last.max(before.unwrap_or(0));
            }
        });
    }
}

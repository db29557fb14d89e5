//! [`Waits`]: the wait of a task, or the cause of its last wake-up, as one word of its
//! [`Record`](super::record::Record).
//!
//! An operation that returns `Pending` stores its wait in the record of the current task. The
//! beginning of each poll clears the word or, outside a worker's turn, sets it to [`RUNNING`]. A
//! wait for an edge replaces the previous wait of the poll. Any other wait sets a flag if the word
//! already has a different wait, and then the wait of a socket operation takes precedence over a
//! wait for a timer, a task or the next turn. A task whose word is clear waits for something
//! outside this crate, is in a worker's turn, or is about to run.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::rt::time::clock;

/// The event that a pending operation waits for, or the cause of a wake-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    /// Nothing is recorded.
    Nothing,
    /// The task has yielded or was woken in its own turn, and is about to run.
    Turn,
    /// A read edge of the socket with this [tag](crate::rt::poll::poll_desc::PollDesc::tag).
    Readable(u32),
    /// A write edge of the socket with this tag.
    Writable(u32),
    /// The read lock of the socket with this tag.
    ReadLock(u32),
    /// The write lock of the socket with this tag.
    WriteLock(u32),
    /// A hang-up by the peer of the socket with this tag.
    HangUp(u32),
    /// A point in time on the [`clock`].
    Time(u64),
    /// The end of the task with this id, of which only the lowest 28 bits are kept.
    Task(u64),
    /// The task was woken by a thread that runs no task.
    WokenByThread,
    /// The task was woken by the task with this id, of which only the lowest 27 bits are kept.
    WokenByTask(u64),
}

// From the lowest bit up, a word consists of the argument, the kind, and a flag which says that the
// task also waits for something else.
const ARGUMENT_BITS: u32 = 28;
const ARGUMENT_MAX: u32 = (1 << ARGUMENT_BITS) - 1;
const KIND_MASK: u32 = 7 << ARGUMENT_BITS;
const SEVERAL: u32 = 1 << 31;
/// Marks the argument of a [`Waits::WokenByTask`], which has the kind of [`Waits::Nothing`].
const BY_TASK: u32 = 1 << WAKER_BITS;
const WAKER_BITS: u32 = ARGUMENT_BITS - 1;
/// The word of a future that is being polled outside a worker's turn. In a worker's turn, the
/// processor records the current task.
pub(super) const RUNNING: u32 = SEVERAL;
/// The word of a task whose future was dropped.
pub(super) const ENDED: u32 = 3;
/// The binary logarithm of the unit of a stored time, in nanoseconds. Times are stored modulo 2²⁸
/// units. The upper half of the range counts as past, so only a time up to 39 hours ahead can be
/// stored.
const TIME_SHIFT: u32 = 20;
/// A time that is further ahead than this number of nanoseconds (19.5 hours), when it is stored, is
/// far.
const NEAR_MAX: u64 = 1 << 46;
/// Marks the argument of a far [`Waits::Time`], which has the kind of [`Waits::Nothing`].
const FAR: u32 = 1 << FAR_BITS;
const FAR_BITS: u32 = WAKER_BITS - 1;
/// The binary logarithm of the unit of a far time, in nanoseconds (4.6 minutes). No time exceeds
/// 2²⁶ units.
const FAR_SHIFT: u32 = u64::BITS - FAR_BITS;

/// Returns whether `time` is far. Reads the clock only for a time that may be far.
fn is_far(time: u64) -> bool {
    /// A time that was not far when it was stored here.
    // ORDERING: Relaxed, here and below: no other memory depends on it.
    static NEAR: AtomicU64 = AtomicU64::new(0);
    #[cold]
    fn is_far_by_clock(time: u64) -> bool {
        let near = clock::now().saturating_add(NEAR_MAX);
        // The clock of a simulation may be ahead.
        #[cfg(feature = "sim")]
        if crate::sim::is_here() {
            return time > near;
        }
        NEAR.store(near, Ordering::Relaxed);
        time > near
    }
    time > NEAR.load(Ordering::Relaxed) && is_far_by_clock(time)
}

impl Waits {
    /// Returns the number of bits that a [`Waits::Task`] or [`Waits::WokenByTask`] keeps of an id.
    pub(crate) fn id_bits(self) -> u32 {
        if matches!(self, Waits::Task(_)) { ARGUMENT_BITS } else { WAKER_BITS }
    }

    #[inline]
    pub(crate) fn pack(self) -> u32 {
        let (kind, argument) = match self {
            Waits::Nothing => (0, 0),
            Waits::Turn => (0, 1),
            Waits::WokenByThread => (0, 2),
            Waits::WokenByTask(id) => (0, BY_TASK | id as u32 & (BY_TASK - 1)),
            Waits::Readable(index) => (1, index),
            Waits::Writable(index) => (2, index),
            Waits::ReadLock(index) => (3, index),
            Waits::WriteLock(index) => (4, index),
            Waits::HangUp(index) => (5, index),
            Waits::Time(time) if is_far(time) => (0, FAR | (time >> FAR_SHIFT) as u32),
            Waits::Time(time) => (6, (time >> TIME_SHIFT) as u32),
            Waits::Task(id) => (7, id as u32),
        };
        argument & ARGUMENT_MAX | kind << ARGUMENT_BITS
    }

    /// Decodes a word at the time `now`. Returns the wait, and whether the task also waits for
    /// something else.
    pub(super) fn unpack(word: u32, now: u64) -> (Waits, bool) {
        let argument = word & ARGUMENT_MAX;
        let waits = match (word & KIND_MASK) >> ARGUMENT_BITS {
            1 => Waits::Readable(argument),
            2 => Waits::Writable(argument),
            3 => Waits::ReadLock(argument),
            4 => Waits::WriteLock(argument),
            5 => Waits::HangUp(argument),
            6 => {
                let units = argument.wrapping_sub((now >> TIME_SHIFT) as u32) & ARGUMENT_MAX;
                // The upper half of the range is in the past.
                let units = if units > ARGUMENT_MAX / 2 { 0 } else { units };
                Waits::Time(now.saturating_add(u64::from(units) << TIME_SHIFT))
            }
            7 => Waits::Task(u64::from(argument)),
            _ if argument & BY_TASK != 0 => Waits::WokenByTask(u64::from(argument ^ BY_TASK)),
            // The end of the unit, so that a task does not look due too early.
            _ if argument & FAR != 0 => Waits::Time(u64::from(argument ^ FAR) << FAR_SHIFT | ((1 << FAR_SHIFT) - 1)),
            _ => match argument {
                0 => Waits::Nothing,
                1 => Waits::Turn,
                _ => Waits::WokenByThread,
            },
        };
        (waits, word & SEVERAL != 0)
    }

    fn is_of_socket(word: u32) -> bool {
        matches!((word & KIND_MASK) >> ARGUMENT_BITS, 1..=5)
    }
}

/// Returns the words of operations that wait for an edge of the socket `tag`, one word per
/// direction.
pub(crate) fn edge_notes(tag: u32) -> [u32; 2] {
    [Waits::Readable(tag).pack(), Waits::Writable(tag).pack()]
}

/// Returns the word of a task that had the word `seen` and now also waits for the packed wait
/// `word`.
pub(super) fn join(seen: u32, word: u32) -> u32 {
    if matches!(seen, 0 | RUNNING) {
        return word;
    }
    if seen & !SEVERAL == word {
        return seen;
    }
    let keeps = Waits::is_of_socket(seen) && !Waits::is_of_socket(word);
    SEVERAL | if keeps { seen } else { word }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wakers_and_waits_survive_packing() {
        let id = (1 << 27) - 1;
        for waits in [
            Waits::Nothing,
            Waits::Turn,
            Waits::WokenByThread,
            Waits::WokenByTask(0),
            Waits::WokenByTask(id),
            Waits::Task(id),
            Waits::Readable(5),
        ] {
            assert_eq!(Waits::unpack(waits.pack(), 0), (waits, false));
        }
        assert_eq!(Waits::unpack(Waits::WokenByTask(id + 8).pack(), 0).0, Waits::WokenByTask(7));
    }

    #[test]
    fn time_left_is_known_however_far_ahead_it_is() {
        const HOUR: u64 = 3_600_000_000_000;
        let noted = clock::now();
        for ahead in [1, 19, 20, 38, 40, 77, 79, 1000, 100 * 366 * 24].map(|hours| hours * HOUR) {
            let word = Waits::Time(noted + ahead).pack();
            for passed in [0, 1, 18, 37, 41, 999].map(|hours| hours * HOUR).into_iter().filter(|&passed| passed < ahead)
            {
                let (waits, waits_for_more) = Waits::unpack(word, noted + passed);
                let Waits::Time(time) = waits else { panic!("{waits:?}") };
                let error = time.abs_diff(noted + ahead);
                assert!(error < if ahead <= 19 * HOUR { 1 << 20 } else { HOUR / 12 }, "{ahead} {passed}: {error}");
                assert!(!waits_for_more && time > noted + passed);
            }
        }
        let never = Waits::Time(clock::NEVER - 1).pack();
        assert_eq!(Waits::unpack(never, noted), (Waits::Time(clock::NEVER), false));
    }

    #[test]
    fn wait_for_a_socket_takes_precedence() {
        let [time, read, write] = [Waits::Time(1 << 30), Waits::Readable(1), Waits::Writable(1)].map(Waits::pack);
        assert_eq!([join(0, time), join(RUNNING, time), join(read, read)], [time, time, read]);
        assert_eq!(
            [join(time, read), join(read, time), join(read, write)],
            [SEVERAL | read, SEVERAL | read, SEVERAL | write]
        );
        assert_eq!(join(SEVERAL | read, read), SEVERAL | read);
    }
}

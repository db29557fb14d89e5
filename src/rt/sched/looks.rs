//! [`Looks`]: for how long a worker without work looks for events before it rests.
//!
//! The worker has no role, because another thread sleeps in its shard. An event ends that sleep,
//! but the system may let another thread run on the CPU of the sleeping thread first, often the
//! peer that sends the events. These events, and those that follow them, wait for up to a time
//! slice, although the CPU of this worker has nothing to do.
//!
//! So the worker [looks](super::worker::Core) once. If its turns are long enough that a second
//! worker always pays off, it looks again every [`PAUSE_NANOS`] for up to [`LOOK_NANOS`], because
//! the peer may not have sent its first event yet. In between it spins, because a sleep takes
//! longer than the pause.
//!
//! If repeated looks find nothing [`MISSES_MAX`] times in a row, the worker repeats its looks only
//! before one of [`RETRY_EVERY`] rests, and looks once before each of the others. So a worker
//! whose bursts of work are far apart hardly spins.

use crate::rt::time::clock;

/// The maximum duration of repeated looks, in nanoseconds.
const LOOK_NANOS: u64 = 30_000;
/// The time between two looks, in nanoseconds.
const PAUSE_NANOS: u64 = 8_000;
/// The number of consecutive failures after which looks are repeated less often.
const MISSES_MAX: u32 = 4;
/// After [`MISSES_MAX`] failures, looks are repeated before one in this many rests.
const RETRY_EVERY: u32 = 16;

/// The history of the looks of one thread.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// The number of consecutive times that repeated looks have found nothing.
    misses: u32,
    /// The number of times that the thread has looked once since it last repeated its looks.
    skipped: u32,
}

impl Looks {
    /// Calls `look`, which returns whether it has found events, until it finds some, or until the
    /// time of the looks is over. `look` returns `None` if there is no reason to look any more.
    /// `repeats` says whether more than one look may pay off. Returns whether events were found.
    pub(super) fn run(&mut self, repeats: bool, mut look: impl FnMut() -> Option<bool>) -> bool {
        match look() {
            Some(false) if repeats && self.is_due() => {}
            found => return found == Some(true),
        }
        let until = clock::now() + LOOK_NANOS;
        loop {
            let next = clock::now() + PAUSE_NANOS;
            if next > until {
                self.misses = self.misses.saturating_add(1);
                return false;
            }
            while clock::now() < next {
                std::hint::spin_loop();
            }
            match look() {
                Some(false) => {}
                Some(true) => {
                    self.misses = 0;
                    return true;
                }
                None => return false,
            }
        }
    }

    /// Returns whether the looks may be repeated this time.
    fn is_due(&mut self) -> bool {
        if self.misses < MISSES_MAX || self.skipped + 1 >= RETRY_EVERY {
            self.skipped = 0;
            return true;
        }
        self.skipped += 1;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_repeated_until_one_finds_events() {
        let mut looks = Looks::default();
        for found_at in [1, 2, 3] {
            let mut count = 0;
            let has_found = looks.run(true, || {
                count += 1;
                Some(count == found_at)
            });
            // On a busy machine, the time may be over before the last look.
            assert_eq!(has_found, count == found_at);
        }
        let mut count = 0;
        assert!(!looks.run(false, || {
            count += 1;
            Some(false)
        }));
        assert_eq!(count, 1, "further looks do not pay off");
        assert!(!looks.run(true, || {
            count += 1;
            None
        }));
        assert_eq!(count, 2, "there is no reason to look");
    }

    #[test]
    fn looks_that_find_nothing_are_repeated_less_often() {
        let mut looks = Looks { misses: MISSES_MAX - 1, skipped: 0 };
        let mut count_of = |found_at: u32| {
            let mut count = 0;
            looks.run(true, || {
                count += 1;
                Some(count == found_at)
            });
            (count, looks.misses)
        };
        assert_eq!(count_of(0).1, MISSES_MAX);
        for _ in 1..RETRY_EVERY {
            assert_eq!(count_of(0), (1, MISSES_MAX));
        }
        assert_eq!(count_of(0).1, MISSES_MAX + 1);
        assert_eq!(count_of(1), (1, MISSES_MAX + 1), "the first look is not a repeated one");
    }
}

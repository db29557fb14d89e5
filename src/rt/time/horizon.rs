//! [`has_come`]: whether a time has passed, in most cases without reading a clock.
//!
//! A deadline is often moved before each operation, to a time seconds ahead. Reading even the
//! coarse clock to learn that this time is in the future would cost as much as the rest of the
//! call. So each thread keeps a *horizon*: a time that the clock does not reach before a number of
//! ticks has passed. A time beyond the horizon has not come.
//!
//! # Accuracy
//! A horizon is used for the ticks of [`VALID_NANOS`], and is [`AHEAD_NANOS`] ahead of the clock,
//! which is eight times as long. The number of these ticks is measured again and again. The
//! smallest result of at least the last [`KEPT`] measurements is used, or of all measurements while
//! there are fewer. If the counter runs on while the clock stands still, as in a suspended machine,
//! a measurement yields more ticks, which has no effect. A measurement that yields too few ticks,
//! because the thread was interrupted or the counter was reset, shortens the use of horizons for
//! some time. So the result is right unless the counter slows down to an eighth of its rate. A time
//! that has passed may then count as ahead until the horizon is renewed. For a deadline this means
//! that an operation is not refused before the timer fires. A sleep whose timer has fired reads the
//! clock ([`has_come_by_clock`]).

use std::cell::Cell;

use super::{clock, ticks};

/// The time for which a horizon is used, in nanoseconds.
const VALID_NANOS: u64 = 5_000_000;
/// The distance of a new horizon from the clock, in nanoseconds.
const AHEAD_NANOS: u64 = 8 * VALID_NANOS;
/// The number of measurements before the first horizon.
const MEASURED_MIN: u32 = 2;
/// The number of measurements in a series. A result is forgotten when the series after its own is
/// complete.
const KEPT: u32 = 64;

struct Horizon {
    time: Cell<u64>,
    /// The ticks at which the horizon was set.
    set_at: Cell<u64>,
    /// The number of ticks for which the horizon is used, or 0 while there is no horizon.
    valid_for: Cell<u64>,
    /// The beginning of the current measurement, in ticks and by the clock.
    began: Cell<(u64, u64)>,
    /// The number of measurements.
    measured: Cell<u32>,
    /// The smallest result of the current series of up to [`KEPT`] measurements, and that of the
    /// previous series, in ticks per [`VALID_NANOS`].
    least: Cell<[u64; 2]>,
}

thread_local! {
    static HORIZON: Horizon = const { Horizon::new() };
}

/// Returns whether `time` has passed.
#[inline]
pub(crate) fn has_come(time: u64) -> bool {
    // The clock of a simulation advances in steps of any length.
    #[cfg(feature = "sim")]
    if crate::sim::is_here() {
        return has_come_by_clock(time);
    }
    let is_ahead = HORIZON.with(|horizon| {
        time > horizon.time.get() && ticks::ticks().wrapping_sub(horizon.set_at.get()) < horizon.valid_for.get()
    });
    !is_ahead && has_come_or_renew(time)
}

/// Returns whether `time` has passed by the clock.
pub(crate) fn has_come_by_clock(time: u64) -> bool {
    time <= clock::now()
}

/// Returns whether `time` has passed by the clock, and sets a new horizon.
#[cold]
#[inline(never)]
fn has_come_or_renew(time: u64) -> bool {
    let (ticks, now) = (ticks::ticks(), clock::now());
    HORIZON.with(|horizon| horizon.renew(ticks, now));
    time <= now
}

impl Horizon {
    const fn new() -> Horizon {
        Horizon {
            time: Cell::new(clock::NEVER),
            set_at: Cell::new(0),
            valid_for: Cell::new(0),
            began: Cell::new((0, 0)),
            measured: Cell::new(0),
            least: Cell::new([u64::MAX; 2]),
        }
    }

    fn renew(&self, ticks: u64, now: u64) {
        let (began_ticks, began) = self.began.get();
        let passed = now.saturating_sub(began);
        if began == 0 {
            self.began.set((ticks, now));
        } else if passed >= VALID_NANOS {
            let (count, [least, before]) = (self.measured.get(), self.least.get());
            let valid = u128::from(ticks.saturating_sub(began_ticks)) * u128::from(VALID_NANOS) / u128::from(passed);
            let valid = u64::try_from(valid).unwrap_or(u64::MAX);
            self.least.set(if count.is_multiple_of(KEPT) { [valid, least] } else { [least.min(valid), before] });
            self.measured.set(count.wrapping_add(1).max(1));
            self.began.set((ticks, now));
        }
        let [least, before] = self.least.get();
        self.valid_for.set(if self.measured.get() < MEASURED_MIN { 0 } else { least.min(before) });
        self.set_at.set(ticks);
        self.time.set(now.saturating_add(AHEAD_NANOS));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn time_has_come_when_it_is_reached_and_not_earlier() {
        for _ in 0..4 {
            for ahead in [1, 10_000_000, AHEAD_NANOS, 60_000_000_000] {
                let time = clock::now() + ahead;
                let has_come = has_come(time);
                assert!(!has_come || clock::now() >= time, "{ahead} ns too early");
            }
            assert!(has_come(clock::now()) && has_come(clock::EXPIRED) && !has_come(clock::NEVER));
            std::thread::sleep(Duration::from_millis(6));
        }
    }

    #[test]
    fn time_beyond_the_horizon_comes() {
        let time = clock::now() + 3 * AHEAD_NANOS;
        let mut polls_without_clock = 0;
        while !has_come(time) {
            let is_set = HORIZON.with(|horizon| horizon.valid_for.get() > 0 && time > horizon.time.get());
            polls_without_clock += u32::from(is_set);
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(clock::now() >= time && polls_without_clock > 0);
    }

    /// The counter makes three ticks per nanosecond, and runs on while the clock stands still for
    /// ten minutes.
    #[test]
    fn suspension_does_not_extend_the_use_of_a_horizon() {
        const MS: u64 = 1_000_000;
        let horizon = Horizon::new();
        let (mut ticks, mut now) = (7, 1 << 30);
        for pause in [0, 6, 6, 6, 600_000, 6, 6] {
            now += 6 * MS;
            ticks += 3 * MS * if pause == 0 { 6 } else { pause };
            horizon.renew(ticks, now);
        }
        assert_eq!(horizon.valid_for.get(), 3 * VALID_NANOS);
        assert_eq!((horizon.set_at.get(), horizon.time.get()), (ticks, now + AHEAD_NANOS));
    }

    #[test]
    fn no_horizon_is_used_before_the_rate_is_measured_or_if_the_counter_stands_still() {
        let horizon = Horizon::new();
        for (number, valid) in [(1, 0), (2, 0), (3, VALID_NANOS), (4, VALID_NANOS)] {
            horizon.renew(number * VALID_NANOS, (1 << 30) + number * VALID_NANOS);
            assert_eq!(horizon.valid_for.get(), valid, "{number}");
        }
        let mut renew = |number| horizon.renew(number * VALID_NANOS / 10, (1 << 30) + number * VALID_NANOS);
        renew(5);
        assert_eq!(horizon.valid_for.get(), 0);
        // The result is forgotten later.
        (6..6 + 2 * u64::from(KEPT)).for_each(&mut renew);
        assert_eq!(horizon.valid_for.get(), VALID_NANOS / 10);
    }
}

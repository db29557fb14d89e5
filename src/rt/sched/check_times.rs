//! [`CheckTimes`]: the times of sysmon's checks, and what they permit sysmon to conclude.
//!
//! Sysmon compares the state of each processor with that of an earlier check. The *period* begins
//! with the last check that was not early. An *early* check, soon after the beginning of the
//! period, does not store the states. Neither does a *late* check, because the process may have
//! been stopped, but it begins a new period. So the counts of turns reach further back than the
//! period if the period began with a late check. They also do so at the first check and at the
//! first check after a sleep of sysmon, when the length of the period is not known.

use std::time::{Duration, Instant};

/// The time between two checks.
pub(super) const TICK: Duration = Duration::from_millis(10);
/// The length of the period above which a check is late. Other threads may have been delayed as
/// well.
const LATE: Duration = Duration::from_millis(20);

/// A check, by the time since the beginning of the period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// A wake-up has ended the pause early, so too little time has passed to consider a task stuck.
    Early,
    /// The process or its machine may have been stopped for this time.
    Late(Duration),
    Regular {
        /// The length of the period, or [`TICK`] if it is not known.
        gap: Duration,
        /// Whether no thread has polled in the period, and the turns since the last stored state
        /// are those of the period.
        is_without_polls: bool,
    },
}

/// The times of sysmon's checks; see the [module documentation](self).
#[derive(Debug)]
pub(super) struct CheckTimes {
    /// The beginning of the period. `None` before the first check and after a sleep.
    began: Option<Instant>,
    /// Whether the period began with a late check.
    was_late: bool,
    /// Whether a check has found since the beginning of the period that a thread had polled.
    has_polled: bool,
}

impl CheckTimes {
    pub(super) const fn new() -> CheckTimes {
        CheckTimes { began: None, was_late: false, has_polled: false }
    }

    /// Forgets the previous check, because sysmon has slept.
    pub(super) fn forget(&mut self) {
        self.began = None;
    }

    /// Records a check at `now`. `no_thread_polled` says whether no thread has polled since the
    /// previous check. Of two consecutive checks that are not early, at most one is late.
    pub(super) fn check(&mut self, now: Instant, no_thread_polled: bool) -> Check {
        self.has_polled |= !no_thread_polled;
        let gap = self.began.map_or(TICK, |began| now - began);
        if gap < TICK / 2 {
            return Check::Early;
        }
        let has_polled = std::mem::replace(&mut self.has_polled, false);
        let is_known = self.began.replace(now).is_some();
        let after_late = self.was_late;
        self.was_late = gap > LATE && !after_late;
        if self.was_late {
            return Check::Late(gap.saturating_sub(TICK));
        }
        Check::Regular { gap, is_without_polls: is_known && !after_late && !has_polled }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGULAR: fn(u64, bool) -> Check =
        |millis, is_without_polls| Check::Regular { gap: Duration::from_millis(millis), is_without_polls };

    fn checks(of: &[(u64, bool)]) -> Vec<Check> {
        let (begin, mut times) = (Instant::now(), CheckTimes::new());
        of.iter().map(|&(at, no_polls)| times.check(begin + Duration::from_millis(at), no_polls)).collect()
    }

    /// Regression: the polls that an early check had found did not count, although they were in the
    /// same period.
    #[test]
    fn polls_before_an_early_check_count_for_the_period() {
        let found = checks(&[(0, true), (10, true), (14, false), (20, true), (30, true), (40, false)]);
        let polled = REGULAR(10, false);
        assert_eq!(found, [polled, REGULAR(10, true), Check::Early, polled, REGULAR(10, true), polled]);
    }

    /// Regression: the length of one period was divided by the number of turns in two.
    #[test]
    fn turns_are_not_measured_in_the_period_after_a_late_check() {
        let found = checks(&[(0, true), (30, true), (40, true), (50, true)]);
        let late = Check::Late(Duration::from_millis(20));
        assert_eq!(found, [REGULAR(10, false), late, REGULAR(10, false), REGULAR(10, true)]);
        // Of two consecutive checks after long periods, only the first is late.
        let found = checks(&[(0, true), (30, true), (60, true), (90, true)]);
        assert_eq!(found, [REGULAR(10, false), late, REGULAR(30, false), late]);
    }

    #[test]
    fn length_of_the_first_period_is_not_known() {
        let mut times = CheckTimes::new();
        let begin = Instant::now();
        assert_eq!(times.check(begin, true), REGULAR(10, false));
        times.forget();
        assert_eq!(times.check(begin + Duration::from_millis(1), true), REGULAR(10, false));
    }
}

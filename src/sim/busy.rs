//! Detects simulations in which a task can always run, so that the clock never advances.
//!
//! The run loop itself checks this after its turns, because a test in which only the clock is
//! virtual and a `block_on` with `NETPOLL_SIM=everywhere` have no other thread that could check
//! this. In other simulations, the watchdog of [`runner`](super::runner) also reports a single turn
//! that does not end.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::machine::in_real_time;
use super::shared::lock;
use super::world::World;

/// The number of turns between two readings of the clock.
const CHECK_EVERY: u32 = 16;

/// The turns since the last pause. A pause is a moment at which no task can run.
#[derive(Debug, Default)]
pub(super) struct Busy {
    turns: Cell<u32>,
    /// The real time of the first reading of the clock after the last pause.
    since: Cell<Option<Instant>>,
}

impl Busy {
    /// Records that no task can run.
    pub(super) fn pause(&self) {
        self.turns.set(0);
        self.since.set(None);
    }

    /// Counts a turn. If this turn reads the clock, returns the real time since the first reading
    /// after the last pause.
    fn turn(&self) -> Option<Duration> {
        let turns = self.turns.get().wrapping_add(1);
        self.turns.set(turns);
        if !turns.is_multiple_of(CHECK_EVERY) {
            return None;
        }
        let now = in_real_time(Instant::now);
        let since = self.since.get().unwrap_or(now);
        self.since.set(Some(since));
        Some(now.saturating_duration_since(since))
    }
}

impl World {
    /// Counts a turn. Fails the simulation if a task could always run for `World::patience_ms`.
    pub(super) fn check_busy(&self) {
        let bound = Duration::from_millis(self.patience_ms.get());
        if self.busy.turn().is_none_or(|busy| busy < bound) {
            return;
        }
        let running = lock(&self.shared.running).clone();
        let (what, also, help) = match self.machine.real {
            None => (
                format!("the simulation with seed {}", self.seed),
                "",
                ", or raise the time with `Builder::stuck_after` if the test has a `Builder`",
            ),
            Some(_) => ("the test with a virtual clock".to_owned(), ", and no event of a socket was taken", ""),
        };
        panic!(
            "{what} is stuck: for {bound:?}, a task could always run, so the clock has not advanced{also} (`{running}` runs \
             now): let tasks wait for an event or a timer instead of yielding{help}"
        );
    }
}

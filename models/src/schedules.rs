//! Plays models under shuttle: half of the schedules at random, half by PCT, which finds bugs that need few
//! preemptions at exact places with a known probability.
//!
//! `NETPOLL_SCHEDULES` sets the number of schedules and `NETPOLL_SEED` the seed. `NETPOLL_REPLAY` plays one schedule
//! that a failure has printed.

use std::env;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner};

pub(crate) const SCHEDULES_VARIABLE: &str = "NETPOLL_SCHEDULES";

/// Injected bugs that only a weak memory shows: a thread sees two words of another thread in a different order than
/// they were written in, or a cell without the writes before it. loom finds them.
pub(crate) const WEAK: [&str; 10] = [
    "event_word_without_its_end",
    "turn_without_its_end",
    "turn_without_its_task",
    "expiry_looks_at_the_bit",
    "fd_mutex_last_does_not_acquire",
    "fd_mutex_lock_is_relaxed",
    "fd_mutex_unlock_is_relaxed",
    "parker_overwrites_token",
    "ring_relaxed_tail",
    "slot_tag_is_relaxed",
];

const SCHEDULES_DEFAULT: usize = 2000;

/// The number of preemptions that PCT puts at random places of a schedule, less one.
const PCT_DEPTH: usize = 3;

fn number<N: FromStr>(variable: &str) -> Option<N> {
    env::var(variable).ok().and_then(|text| text.parse().ok())
}

pub(crate) fn play(model: fn()) {
    if let Ok(schedule) = env::var("NETPOLL_REPLAY") {
        return shuttle::replay(model, &schedule);
    }
    let schedules = number(SCHEDULES_VARIABLE).unwrap_or(SCHEDULES_DEFAULT);
    let seed = number("NETPOLL_SEED")
        .unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_nanos() as u64);
    let mut played = run(RandomScheduler::new_from_seed(seed, schedules.div_ceil(2)), model);
    played += run(PctScheduler::new_from_seed(seed, PCT_DEPTH, schedules / 2), model);
    println!("played {played} schedules, seed {seed}");
}

fn run(scheduler: impl Scheduler + 'static, model: fn()) -> usize {
    let mut config = Config::new();
    // No warnings about orderings, which shuttle treats as SeqCst.
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(model)
}

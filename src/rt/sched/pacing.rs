//! [`Pacing`]: when a busy thread reads the clock, when it polls, and when it wakes a second
//! worker.
//!
//! # The length of a turn
//! A *turn* is one poll of a task. A *tick* is one pass through the worker's loop. A *stretch*
//! begins with the end of a sleep in epoll, or with a look that found events, and ends when there
//! is nothing to run.
//!
//! All three decisions depend on the mean length of a turn, which is measured between two readings
//! of the clock. The clock is read after 16 turns at the latest, earlier if fewer turns together
//! take about 1 ms, and after a turn that used much of its budget. There may be fewer turns between
//! two sleeps. So after a sleep that delivers at least four wake-ups, after every eighth sleep and,
//! while turns are long or there are control tasks, after every sleep, the clock is read
//! immediately and again after the first turn. From then on, the number of turns between two
//! readings grows by a factor of four each time, up to these limits.
//!
//! Two readings that are one turn apart are also a sample of [`poll_times`](Processor::poll_times).
//! After every [`PROBE_EVERY`]th sleep, and after each poll while busy, the thread records the end
//! of the queue and the time. When a later reading finds that the queue has passed that position,
//! the time until the estimated beginning of the last task's turn is a sample of
//! [`wake_delays`](Processor::wake_delays).
//!
//! # Polling while busy
//! A thread that often runs out of work polls only when it sleeps in epoll. A thread that does not
//! run out of work polls without waiting if one of these conditions is met when it reads the clock.
//! Turns count from its last poll. Times count from its last poll or, if the time of this poll is
//! not known, from the first reading of the clock after it:
//! * more than 100 µs have passed, and there were at least 33 more turns than wake-ups that the
//!   last poll delivered;
//! * more than 100 µs have passed, and turns are long ([`LONG_NANOS`]);
//! * more than 15 µs have passed, and a task is in the aside slot of the [`queue`](super::queue);
//! * more than 50 µs have passed, and there are control tasks;
//! * more than 1 ms has passed.
//!
//! So, unlike in Go, a busy thread does not delay events by up to 10 ms. Nor does polling add a
//! system call to each request. A connection that always has data uses up its turns, which end
//! after 20 µs (`processor::TURN_NANOS`) or, if they gather writes, after up to 0.5 ms
//! (`context::may_gather`). An event that arrives during such a turn waits for the rest of this
//! turn only: a poll follows, and the tasks that it wakes run before the task of that connection,
//! which is in the aside slot. While there are control tasks, the clock is read every 4 turns, or
//! after fewer turns that together take about 100 µs.
//!
//! # Waking a second worker
//! For short tasks, a second thread costs more than it gains. So a worker that rests or sleeps is
//! woken only when the backlog, computed with the mean length of a turn, is worth more than
//! [`WAKE_NANOS`] ([`maybe_wake_helper`]). A thread without work steals only from a queue worth at
//! least [`STEAL_NANOS`] ([`is_worth_stealing`]), or from a queue whose owner sysmon considers
//! stuck. While other threads use all CPUs ([`cpus`](super::cpus)), short turns count for a
//! quarter, because the second worker would take CPU time from the peers that it serves.
//!
//! A backlog of long turns is checked not only when the clock is read, but also at the end of a
//! sleep. A thread that has stolen tasks checks its backlog too. If the mean does not reflect the
//! backlog yet (a few long tasks after many short tasks), sysmon detects it ([`correct_and_wake`]).
//! Work from outside (`Runtime::ensure_worker`), control tasks ([`lanes`](super::lanes)), a shard
//! that no thread polls (`Runtime::ensure_poller`) and stuck threads (sysmon) wake workers without
//! these limits.

use std::time::Duration;

use super::processor::{LONG_NANOS, Processor};
use crate::rt::runtime::Runtime;
use crate::rt::time::clock;
use crate::sync::Ordering;

/// The maximum number of turns between two readings of the clock.
const CLOCK_EVERY: u32 = 16;
/// The maximum time between two readings of the clock, in nanoseconds.
const CLOCK_NANOS: u64 = 1_000_000;
/// After one in this many sleeps, turns are measured from the first turn on.
const SAMPLE_EVERY: u32 = 8;
/// After a sleep that delivers at least this many wake-ups, turns are measured from the first turn
/// on.
const SAMPLE_FROM: u32 = 4;
/// After one in this many sleeps, the delay of the woken tasks is measured. A multiple of
/// [`SAMPLE_EVERY`], because only measured turns give a delay.
const PROBE_EVERY: u32 = 32;
/// The minimum time between two polls of a busy thread, in nanoseconds, apart from the two
/// exceptions below.
const POLL_MIN_NANOS: u64 = 100_000;
/// The minimum time between two polls while a task is in the aside slot, in nanoseconds. It is less
/// than [`TURN_NANOS`](super::processor::TURN_NANOS), so that a poll follows each turn that used up
/// its time.
const ASIDE_NANOS: u64 = 15_000;
/// The minimum time between two polls while there are control tasks, in nanoseconds.
const CONTROL_NANOS: u64 = 50_000;
/// The maximum time between two polls of a busy thread, in nanoseconds.
const POLL_MAX_NANOS: u64 = 1_000_000;
/// The maximum number of turns between two readings of the clock while there are control tasks.
const CONTROL_CLOCK_EVERY: u32 = 4;
/// The maximum time between two readings of the clock while there are control tasks, in
/// nanoseconds.
const CONTROL_CLOCK_NANOS: u64 = 100_000;
/// A busy thread polls after more than this many turns in addition to one per delivered wake-up.
const POLL_MARGIN: u32 = 32;
/// The worth of a backlog above which a second worker is woken, in nanoseconds. A smaller backlog
/// is finished before a woken thread has warmed up.
const WAKE_NANOS: u64 = 100_000;
/// The minimum worth of a queue from which a thread steals, in nanoseconds.
const STEAL_NANOS: u64 = 50_000;
/// While other threads use all CPUs, turns shorter than this, in nanoseconds, count for a quarter
/// in both of the limits above, and a thread with such turns does not look for events before it
/// gives its processor back. Only a worker whose turns are not shorter repeats its looks.
const SHORT_NANOS: u64 = 10_000;
/// If a processor was never without work between two checks of sysmon, and had fewer turns than
/// this, its turns are long.
const FEW_TURNS: u64 = 100;

/// The measurements of one thread since its last sleep, and when the next measurements are due.
#[derive(Debug)]
pub(crate) struct Pacing {
    /// The number of turns since the last poll.
    since_poll: u32,
    /// The number of wake-ups that the last poll delivered.
    delivered: u32,
    /// The time of the last reading of the clock since the last sleep, or 0 if there was none or it
    /// was forgotten.
    clock: u64,
    /// The value of `since_poll` at that reading.
    clock_turns: u32,
    /// The tick of the next reading.
    clock_at: u32,
    /// The number of ticks between two readings.
    spacing: u32,
    /// The number of sleeps, and of looks that found events.
    sleeps: u32,
    /// The time of the last poll. If it is not known, the time of the first reading of the clock
    /// after the poll, or 0 before this reading.
    polled_at: u64,
    /// The position in the queue behind the tasks whose delay is being measured.
    probe: u32,
    /// The time at which the last of these tasks were woken, or 0 if no delay is being measured.
    probed_at: u64,
}

impl Pacing {
    pub(crate) const fn new() -> Pacing {
        Pacing {
            since_poll: 0,
            delivered: 0,
            clock: 0,
            clock_turns: 0,
            clock_at: 2,
            spacing: 1,
            sleeps: 0,
            polled_at: 0,
            probe: 0,
            probed_at: 0,
        }
    }

    /// Returns whether the clock must be read in this tick.
    #[inline]
    pub(crate) fn is_due(&self, tick: u32) -> bool {
        tick == self.clock_at
    }

    /// Counts a turn.
    #[inline]
    pub(crate) fn begin_turn(&mut self) {
        self.since_poll = self.since_poll.wrapping_add(1);
    }

    /// Returns the number of turns since the last poll.
    #[cfg(test)]
    pub(super) fn since_poll(&self) -> u32 {
        self.since_poll
    }

    /// Schedules a reading of the clock for the next tick, because the turn of this tick may have
    /// been long.
    #[inline]
    pub(crate) fn read_next(&mut self, tick: u32) {
        self.clock_at = tick.wrapping_add(1);
    }

    /// Forgets the last reading and the delay that is being measured, because the time since then
    /// was not spent on turns.
    pub(crate) fn forget_reading(&mut self) {
        (self.clock, self.probed_at) = (0, 0);
    }

    /// Begins to measure the delay of the queued tasks, if there are any. The last of them were
    /// woken at `now`.
    pub(crate) fn probe(&mut self, processor: &Processor, now: u64) {
        let end = processor.queue.end();
        if !processor.queue.has_passed(end) {
            (self.probe, self.probed_at) = (end, now);
        }
    }

    /// Calls [`probe`](Pacing::probe) after one in [`PROBE_EVERY`] sleeps.
    #[inline]
    pub(crate) fn probe_some(&mut self, processor: &Processor) {
        if self.sleeps % PROBE_EVERY == 1 {
            self.probe(processor, self.clock);
        }
    }

    /// Reads the clock and schedules the next reading. Returns the time and the mean length of a
    /// turn.
    pub(crate) fn read(&mut self, processor: &Processor, tick: u32) -> (u64, u64) {
        let now = clock::now();
        let turn = self.measure(processor, now);
        let most = (CLOCK_NANOS / turn.max(1)).clamp(1, u64::from(CLOCK_EVERY));
        self.spacing = (self.spacing * 4).min(most as u32);
        self.clock_at = tick.wrapping_add(self.spacing);
        if self.polled_at == 0 {
            self.polled_at = now;
        }
        (now, turn)
    }

    /// Schedules an earlier reading, because there are control tasks. `turn` is the mean length of
    /// a turn.
    #[cold]
    pub(crate) fn read_soon(&mut self, tick: u32, turn: u64) {
        let most = (CONTROL_CLOCK_NANOS / turn.max(1)).clamp(1, u64::from(CONTROL_CLOCK_EVERY));
        self.spacing = self.spacing.min(most as u32);
        self.clock_at = tick.wrapping_add(self.spacing);
    }

    /// Measures the turns since the last reading. Returns their mean length.
    fn measure(&mut self, processor: &Processor, now: u64) -> u64 {
        let mut mean = processor.turn_nanos.load(Ordering::Relaxed);
        let turns = self.since_poll.wrapping_sub(self.clock_turns);
        if self.clock != 0 && turns > 0 {
            let passed = now.saturating_sub(self.clock);
            mean = (mean * 3 + passed / u64::from(turns)) / 4;
            processor.turn_nanos.store(mean, Ordering::Relaxed);
            if turns == 1 {
                processor.poll_times.record_owned(passed);
            }
            if self.probed_at != 0 && processor.queue.has_passed(self.probe) {
                // The turn of the last of the tasks was one of these, on average the middle one.
                let began = self.clock + passed * u64::from(turns - 1) / (2 * u64::from(turns));
                processor.wake_delays.record_owned(began.saturating_sub(self.probed_at));
                self.probed_at = 0;
            }
        }
        (self.clock, self.clock_turns) = (now, self.since_poll);
        mean
    }

    /// Measures the turns since the last reading if they are the first turns after a poll, or if a
    /// delay is being measured. Then forgets the reading. Called when there is nothing to run.
    #[inline]
    pub(crate) fn end_stretch(&mut self, processor: &Processor) {
        if self.clock != 0 && (self.clock_turns == 0 || self.probed_at != 0) {
            self.measure(processor, clock::now());
        }
        self.forget_reading();
    }

    /// Schedules the first reading after a sleep or a look that delivered `delivered` wake-ups.
    /// Returns whether the following turns are measured from the first turn on.
    #[inline]
    pub(crate) fn begin_stretch(
        &mut self,
        processor: &Processor,
        tick: u32,
        delivered: u32,
        has_control: bool,
    ) -> bool {
        let is_long = processor.turn_nanos.load(Ordering::Relaxed) > LONG_NANOS;
        let sampled = is_long || has_control || delivered >= SAMPLE_FROM || self.sleeps.is_multiple_of(SAMPLE_EVERY);
        self.sleeps = self.sleeps.wrapping_add(1);
        (self.clock, self.spacing) = if sampled { (clock::now(), 1) } else { (0, CLOCK_EVERY) };
        self.polled(self.clock, delivered);
        // Adds one, because the next tick precedes the first turn.
        self.clock_at = tick.wrapping_add(self.spacing + 1);
        sampled
    }

    /// Returns whether a busy thread that has just read the clock must poll. `now` is the time and
    /// `turn` the mean length of a turn. `has_aside` says whether a task is in the aside slot, and
    /// `has_control` whether there are control tasks.
    pub(crate) fn is_poll_due(&self, now: u64, turn: u64, has_aside: bool, has_control: bool) -> bool {
        let since = now.saturating_sub(self.polled_at);
        let pays = turn > LONG_NANOS || self.since_poll > self.delivered + POLL_MARGIN;
        since > POLL_MAX_NANOS
            || (since > POLL_MIN_NANOS && pays)
            || (since > CONTROL_NANOS && has_control)
            || (since > ASIDE_NANOS && has_aside)
    }

    /// Records a poll at `now` that delivered `delivered` wake-ups.
    #[inline]
    pub(crate) fn polled(&mut self, now: u64, delivered: u32) {
        self.polled_at = now;
        (self.since_poll, self.clock_turns) = (0, 0);
        self.delivered = delivered;
    }
}

/// Returns whether turns as long as those of `processor` count in full at present; see [`worth`].
pub(crate) fn pays_off(runtime: &Runtime, processor: &Processor) -> bool {
    count_in_full(runtime, processor.turn_nanos.load(Ordering::Relaxed))
}

/// Returns whether turns as long as those of `processor` count in full even while other threads use
/// all CPUs.
pub(crate) fn always_pays_off(processor: &Processor) -> bool {
    processor.turn_nanos.load(Ordering::Relaxed) >= SHORT_NANOS
}

fn count_in_full(runtime: &Runtime, turn: u64) -> bool {
    turn >= SHORT_NANOS || !runtime.sysmon.are_cpus_busy()
}

/// Returns the worth of `turns` turns with the mean length `turn` to a second worker, in
/// nanoseconds. This is their total length or, for short turns while other threads use all CPUs, a
/// quarter of it.
fn worth(runtime: &Runtime, turns: usize, turn: u64) -> u64 {
    let share = if count_in_full(runtime, turn) { 1 } else { 4 };
    (turns as u64).saturating_mul(turn) / share
}

/// Wakes a second worker if a `backlog` of this many turns is worth more than [`WAKE_NANOS`].
pub(crate) fn maybe_wake_helper(runtime: &'static Runtime, processor: &Processor, backlog: usize) {
    let turn = processor.turn_nanos.load(Ordering::Relaxed);
    if worth(runtime, backlog, turn) > WAKE_NANOS {
        runtime.wake_helper(turn > LONG_NANOS);
    }
}

/// Returns whether the queue of `victim`, whose turns have the mean length `turn`, is worth at
/// least [`STEAL_NANOS`].
pub(crate) fn is_worth_stealing(runtime: &Runtime, victim: &Processor, turn: u64) -> bool {
    worth(runtime, victim.queue.len(), turn) >= STEAL_NANOS
}

/// If the processor had at least one but only a few turns in `period` and other tasks are queued,
/// stores the mean length of these turns, which the owner may not have measured yet, and wakes a
/// second worker. Called by sysmon for a processor that was never without work in `period`.
pub(crate) fn correct_and_wake(runtime: &'static Runtime, processor: &Processor, turns: u64, period: Duration) {
    if (1..FEW_TURNS).contains(&turns) && processor.queue.len() > 0 {
        processor.turn_nanos.store(period.as_nanos() as u64 / turns, Ordering::Relaxed);
        runtime.wake_helper(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::histogram::{Histogram, Recorder, Unit};
    use crate::rt::sched::queue::Item;

    fn processor(turn_nanos: u64) -> Processor {
        let processor = Processor::new(0);
        processor.turn_nanos.store(turn_nanos, Ordering::Relaxed);
        processor
    }

    #[test]
    fn turns_are_measured_between_two_clock_readings() {
        let (mut pacing, processor) = (Pacing::new(), processor(1000));
        pacing.since_poll = 3;
        assert_eq!(pacing.measure(&processor, 5000), 1000, "the first reading of the clock");
        assert_eq!((pacing.clock, pacing.clock_turns), (5000, 3));
        assert_eq!(pacing.measure(&processor, 9000), 1000, "no turn between the readings");
        pacing.since_poll = 7;
        assert_eq!(pacing.measure(&processor, 9000 + 4 * 9000), (3 * 1000 + 9000) / 4);
        assert_eq!(processor.turn_nanos.load(Ordering::Relaxed), 3000);
        assert_eq!((pacing.clock, pacing.clock_turns), (45_000, 7));
        pacing.since_poll = 8;
        assert_eq!(pacing.measure(&processor, 40_000), 2250, "a clock that goes backwards");
    }

    #[test]
    fn duration_of_single_polls_and_delay_of_woken_tasks_are_sampled() {
        let (mut pacing, processor) = (Pacing::new(), processor(1000));
        let samples = |recorder: &Recorder| {
            let mut histogram = Histogram::new(Unit::Seconds);
            recorder.add_to(&mut histogram);
            (histogram.count(), (histogram.sum() * 1e9).round() as u64)
        };
        pacing.probe(&processor, 1000);
        assert_eq!(pacing.probed_at, 0, "nothing is queued");
        for number in 1..=3 {
            processor.queue.push(Item::new(std::ptr::without_provenance_mut(number)).unwrap());
        }
        pacing.clock = 5000;
        pacing.probe(&processor, 4000);
        // Readings one turn apart are a sample of the turn's duration.
        (pacing.since_poll, pacing.clock_turns) = (1, 0);
        assert!(processor.queue.pop().is_some());
        pacing.measure(&processor, 7000);
        assert_eq!(samples(&processor.poll_times), (1, 2000));
        assert_eq!((samples(&processor.wake_delays), pacing.probed_at), ((0, 0), 4000));
        // After two more turns the queue has passed the position. The estimated start of the last
        // task's turn is the mean of the starts of both turns.
        pacing.since_poll = 3;
        assert!(processor.queue.pop().is_some() && processor.queue.pop().is_some());
        pacing.measure(&processor, 9000);
        assert_eq!(samples(&processor.poll_times), (1, 2000), "the duration of each turn is not known");
        assert_eq!((samples(&processor.wake_delays), pacing.probed_at), ((1, 3500), 0));
        pacing.since_poll = 4;
        pacing.measure(&processor, 10_000);
        assert_eq!((samples(&processor.poll_times), samples(&processor.wake_delays)), ((2, 3000), (1, 3500)));
    }

    #[test]
    fn turns_after_some_sleeps_are_measured() {
        let mut pacing = Pacing::new();
        let mut begin = |sleeps, delivered, turn_nanos| {
            (pacing.sleeps, pacing.since_poll, pacing.clock_turns) = (sleeps, 5, 5);
            let is_sampled = pacing.begin_stretch(&processor(turn_nanos), 100, delivered, false);
            assert_eq!((pacing.since_poll, pacing.clock_turns, pacing.delivered), (0, 0, delivered));
            assert_eq!((pacing.sleeps, pacing.polled_at), (sleeps + 1, pacing.clock));
            assert_eq!((pacing.clock != 0, pacing.clock_at), (is_sampled, 101 + pacing.spacing));
            assert_eq!(pacing.spacing, if is_sampled { 1 } else { CLOCK_EVERY });
            is_sampled
        };
        assert!(!begin(1, 0, 1000) && !begin(7, SAMPLE_FROM - 1, LONG_NANOS));
        assert!(begin(8, 0, 1000) && begin(16, 0, 1000), "every eighth sleep");
        assert!(begin(1, SAMPLE_FROM, 1000), "sleeps that wake several tasks");
        assert!(begin(1, 0, LONG_NANOS + 1), "all sleeps while turns are long");
    }

    /// The clock is read more often while turns are long. While they are short, the distance
    /// between the readings grows step by step.
    #[test]
    fn clock_is_read_less_often_with_short_turns() {
        for (turn_nanos, spacings) in
            [(1000, [4, 16, 16]), (0, [4, 16, 16]), (CLOCK_NANOS / 8, [4, 8, 8]), (3 * CLOCK_NANOS, [1, 1, 1])]
        {
            let (mut pacing, processor) = (Pacing::new(), processor(turn_nanos));
            for spacing in spacings {
                pacing.read(&processor, 50);
                assert_eq!((pacing.spacing, pacing.clock_at), (spacing, 50 + spacing));
                assert_ne!(pacing.polled_at, 0);
            }
        }
    }

    #[test]
    fn busy_thread_polls_after_many_turns_or_a_long_time() {
        let mut pacing = Pacing::new();
        pacing.polled(1000, 4);
        let mut is_due = |turns, since, turn| {
            pacing.since_poll = turns;
            pacing.is_poll_due(1000 + since, turn, false, false)
        };
        assert!(!is_due(1000, POLL_MIN_NANOS, 1000), "too early");
        assert!(!is_due(4 + POLL_MARGIN, POLL_MAX_NANOS, 1000), "too few turns");
        assert!(is_due(5 + POLL_MARGIN, POLL_MIN_NANOS + 1, 1000), "more turns than wake-ups");
        assert!(is_due(1, POLL_MIN_NANOS + 1, LONG_NANOS + 1), "long turns");
        assert!(is_due(1, POLL_MAX_NANOS + 1, 1000), "a long time");
        pacing.since_poll = 1;
        for (nanos, has_aside) in [(ASIDE_NANOS, true), (CONTROL_NANOS, false)] {
            assert!(!pacing.is_poll_due(1000 + nanos, 1000, has_aside, !has_aside), "too early");
            assert!(pacing.is_poll_due(1001 + nanos, 1000, has_aside, !has_aside));
        }
    }
}

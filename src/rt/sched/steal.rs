//! Taking tasks from other processors.
//!
//! A thread without work [steals](steal) from a queue that is worth it ([`pacing`](super::pacing)), or
//! whose owner is stuck. A thread whose own tasks yield endlessly never runs out of work, so it
//! [takes](take_from_stuck) a part of the queues of stuck owners whenever the shared queue comes first.
//!
//! Sysmon finds a stuck owner after 10 to 20 ms. Before that, the owner may be in a turn of milliseconds, or the kernel
//! may run another thread on its CPU. So a busy thread [watches](Watch) the other processors, one at a time, and takes
//! tasks from a processor that has completed no turn for [`STALLED_NANOS`].

use super::event_ring::Mark;
use super::pacing::{is_worth_stealing, maybe_wake_helper};
use super::processor::Processor;
use super::queue::Item;
use crate::rt::runtime::Runtime;
use crate::sync::Ordering;

/// Takes half of the tasks in another processor's ring, but at most 128. If that ring is empty and the owner is
/// stuck, takes the task in one of the two slots instead. Returns one task and queues the others. Called by a thread
/// without work.
pub(super) fn steal(runtime: &'static Runtime, processor: &'static Processor) -> Option<Item> {
    runtime.processors().filter(|victim| victim.id != processor.id && victim.owned.load(Ordering::Relaxed)).find_map(
        |victim| {
            let stuck = victim.stuck.load(Ordering::Relaxed);
            let turn = victim.turn_nanos.load(Ordering::Relaxed);
            if !stuck && !is_worth_stealing(runtime, victim, turn) {
                return None;
            }
            let stolen = victim.queue.steal(&processor.queue).or_else(|| stuck.then(|| victim.queue.pop_slots())?)?;
            processor.steals.add_owned(1);
            processor.record(Mark::Steal, victim.id as u64);
            processor.turn_nanos.store(turn, Ordering::Relaxed);
            maybe_wake_helper(runtime, processor, processor.queue.len());
            Some(stolen)
        },
    )
}

/// Takes half of the tasks that are queued at each other processor whose owner is stuck, but at most 128 per
/// processor, and queues them at `processor`.
#[cold]
pub(super) fn take_from_stuck(runtime: &'static Runtime, processor: &'static Processor) {
    let others = runtime.processors().filter(|other| other.id != processor.id);
    for victim in others.filter(|victim| victim.stuck.load(Ordering::Relaxed)) {
        take_half(victim, processor);
    }
}

fn take_half(victim: &Processor, processor: &Processor) {
    let items = victim.queue.take(1);
    if !items.is_empty() {
        processor.steals.add_owned(1);
        processor.record(Mark::Steal, victim.id as u64);
    }
    items.into_iter().for_each(|item| processor.queue.push(item));
}

/// The time within which a processor with queued tasks must complete a turn. It exceeds most turns, and is short
/// compared with a time slice of the kernel, about 3 ms.
const STALLED_NANOS: u64 = 250_000;

/// The watch of a busy thread over another processor.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// The position of the watched processor in the list of processors.
    at: usize,
    /// The number of turns that it had completed when the watch began.
    ended: u64,
    /// The time at which the watch began.
    since: u64,
}

impl Watch {
    /// If the watch has lasted for [`STALLED_NANOS`], takes tasks if the watched processor has completed no turn, and
    /// watches the next processor.
    #[inline]
    pub(super) fn check(&mut self, runtime: &'static Runtime, processor: &Processor, now: u64) {
        if now.saturating_sub(self.since) >= STALLED_NANOS {
            self.check_now(runtime.processors(), processor, now);
        }
    }

    #[cold]
    fn check_now<'a>(&mut self, all: impl Iterator<Item = &'a Processor>, processor: &Processor, now: u64) {
        let (mut first, mut next) = (None, None);
        for (at, other) in all.enumerate().filter(|(_, other)| other.id != processor.id) {
            if at == self.at && self.since > 0 && other.turns.ended() == self.ended && other.queue.len() > 0 {
                take_half(other, processor);
            }
            first = first.or(Some((at, other)));
            if at > self.at && next.is_none() {
                next = Some((at, other));
            }
        }
        self.since = now;
        if let Some((at, other)) = next.or(first) {
            (self.at, self.ended) = (at, other.turns.ended());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_taken_from_processors_without_progress() {
        let [own, busy, stalled] = [0, 1, 2].map(Processor::new);
        let all = || [&own, &busy, &stalled].into_iter();
        let item = |number: usize| Item::new(std::ptr::without_provenance_mut(number)).unwrap();
        for other in [&busy, &stalled] {
            (1..=8).for_each(|number| other.queue.push(item(number)));
        }
        let mut watch = Watch::default();
        for now in 1..=6 {
            watch.check_now(all(), &own, now * STALLED_NANOS);
            busy.turns.begin(7, now);
            busy.turns.end();
        }
        assert_eq!((busy.queue.len(), own.steals.get() > 1), (8, true));
        assert_eq!(own.queue.len() + stalled.queue.len(), 8);
        assert!(own.queue.len() >= 4);
        [&own, &busy, &stalled].into_iter().for_each(|processor| processor.queue.drain().for_each(drop));
    }
}

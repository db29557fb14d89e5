//! Taking tasks from other processors.
//!
//! A thread without work [steals](steal) from a queue that is worth it ([`pacing`](super::pacing)),
//! or whose owner is stuck. A thread whose own tasks yield endlessly never runs out of work, so it
//! [takes](take_from_stuck) a part of the queues of stuck owners whenever the shared queue comes
//! first.

use super::event_ring::Mark;
use super::pacing::{is_worth_stealing, maybe_wake_helper};
use super::processor::Processor;
use super::queue::Item;
use crate::rt::runtime::Runtime;
use crate::sync::Ordering;

/// Takes half of the tasks in another processor's ring, rounded up, but at most 128. If that ring
/// is empty and the owner is stuck, takes the task in one of the two slots instead. Returns one
/// task, queues the others, and wakes a second worker if they are worth it. Called by a thread
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

/// Takes tasks of each other processor whose owner is stuck, and queues them at `processor`. Takes
/// half of the tasks in the ring, rounded up, but at most 128, or, if the ring is empty, the task
/// in one of the two slots.
#[cold]
pub(super) fn take_from_stuck(runtime: &'static Runtime, processor: &'static Processor) {
    let others = runtime.processors().filter(|other| other.id != processor.id);
    for victim in others.filter(|victim| victim.stuck.load(Ordering::Relaxed)) {
        let items = victim.queue.take(1);
        if !items.is_empty() {
            processor.steals.add_owned(1);
            processor.record(Mark::Steal, victim.id as u64);
        }
        items.into_iter().for_each(|item| processor.queue.push(item));
    }
}

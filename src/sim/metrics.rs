//! The metrics of a simulation, which [`rt::metrics`](crate::rt::metrics()) returns on its thread.

use std::cell::Cell;

use super::world::{self, World};
use crate::rt::Metrics;
use crate::rt::runtime::runtime;
use crate::rt::sched::lanes::Lane;

/// The totals of one simulation.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) spawned: Cell<u64>,
    /// The number of turns of tasks. Those of the test's own future are not included.
    pub(super) polls: Cell<u64>,
    pub(super) control_turns: Cell<u64>,
    /// The number of times that no task could run.
    pub(super) pauses: Cell<u64>,
    /// The number of times that edges were taken.
    pub(super) takes: Cell<u64>,
    pub(super) events: Cell<u64>,
    pub(super) stale_events: Cell<u64>,
    pub(super) timers_fired: Cell<u64>,
    /// The number of timers that earlier simulations have armed with the same processor.
    timers_before: u64,
}

/// Adds to a total.
pub(super) fn add(total: &Cell<u64>, count: u64) {
    total.set(total.get() + count);
}

impl Totals {
    pub(super) fn new(timers_before: u64) -> Totals {
        Totals { timers_before, ..Totals::default() }
    }
}

impl World {
    /// Returns the metrics of the simulation, with the fields of `process` that are counted for the
    /// whole process.
    fn metrics(&self, process: Metrics) -> Metrics {
        let cache = &runtime().cache;
        let slots = self.machine.slots.borrow();
        let open = || slots.taken.iter().filter_map(|&index| cache.get(index));
        let schedule = self.schedule.borrow();
        let (totals, timers, none) = (&self.totals, &self.processor.timers, Metrics::default());
        Metrics {
            workers: 1,
            worker_threads: 0,
            blocking_threads: 0,
            blocking_queued: 0,
            tasks_alive: schedule.members.len() as u64,
            tasks_spawned: totals.spawned.get(),
            tasks_injected: 0,
            control_tasks: schedule.members.values().filter(|member| member.lane == Lane::Control).count(),
            control_turns: totals.control_turns.get(),
            control_queued: 0,
            polls: totals.polls.get(),
            steals: 0,
            parks: totals.pauses.get(),
            poller_shards: 1,
            poller_waits: totals.takes.get(),
            events: totals.events.get(),
            stale_events: totals.stale_events.get(),
            waiters: open().flat_map(|desc| desc.sides()).map(|side| side.waiting()).sum(),
            timers_armed: timers.armed() - totals.timers_before,
            timers_fired: totals.timers_fired.get(),
            timer_entries: timers.len(),
            blocked_tasks: 0,
            nested_block_on: 0,
            descriptors: open().filter(|desc| desc.described().is_some()).count(),
            poll_seconds: none.poll_seconds,
            wake_delay_seconds: none.wake_delay_seconds,
            ..process
        }
    }
}

/// Returns the metrics of this thread's simulation, or `process` outside simulations.
pub(crate) fn metrics(process: Metrics) -> Metrics {
    world::with(|world| match world {
        Some(world) => world.metrics(process),
        None => process,
    })
}

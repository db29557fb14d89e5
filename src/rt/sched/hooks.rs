//! [`Hooks`]: the functions that the scheduler calls for the tasks of a simulation (feature `sim`).
//!
//! The simulator is in a layer above the scheduler, so it registers its functions here before the
//! first task of a simulation is spawned.

use std::sync::OnceLock;

use async_task::Runnable;

use super::task_data::TaskData;
use super::waits::Waits;
use crate::rt::context;

/// The functions of the simulation.
#[derive(Debug)]
pub(crate) struct Hooks {
    /// Queues a task of a simulation.
    pub(crate) schedule: fn(Runnable<TaskData>),
    /// Called after the future of the task with this number was dropped.
    pub(crate) task_ended: fn(u64),
}

static HOOKS: OnceLock<Hooks> = OnceLock::new();

/// Registers the functions. Later calls, which pass the same functions, have no effect.
pub(crate) fn install(hooks: Hooks) {
    let _ = HOOKS.set(hooks);
}

/// Queues the task if it belongs to a simulation, and records the cause of its wake-up. Otherwise
/// returns it. `while_running` says whether the task was woken in its own turn.
pub(crate) fn schedule(runnable: Runnable<TaskData>, while_running: bool) -> Option<Runnable<TaskData>> {
    if runnable.metadata().tag().world == 0 {
        return Some(runnable);
    }
    let record = runnable.metadata().record();
    if while_running {
        record.note_waker(Waits::Turn);
    } else {
        context::note_waker(record);
    }
    // Without hooks there is no simulation, so no task belongs to one.
    (HOOKS.get()?.schedule)(runnable);
    None
}

/// Reports to the simulation of this thread, if there is one, that the future of the task `number`
/// was dropped.
#[inline]
pub(crate) fn task_ended(number: u64) {
    if crate::sim::is_here()
        && let Some(hooks) = HOOKS.get()
    {
        (hooks.task_ended)(number);
    }
}

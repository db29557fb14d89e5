//! [`Snapshot`]: the data that [`inspect`](super::inspect()) returns.

use std::collections::HashSet;
use std::time::SystemTime;

use super::row_data::{PollerShard, SocketId, WaitsFor, WorkerInfo};
use super::socket_info::SocketInfo;
use super::task_info::TaskInfo;
use crate::rt::metrics::Metrics;
use crate::task::TaskId;

/// A snapshot of the tasks, sockets and workers of the process; returned by
/// [`inspect`](super::inspect()).
///
/// A snapshot is plain data and keeps no task or socket alive: its tasks may have ended and its
/// sockets may have been closed in the meantime. `Display` prints the snapshot as tables, tasks
/// first. `{:#}` omits the sockets for which no task is known to wait.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// The time at which the snapshot was taken.
    pub taken: SystemTime,
    /// The live tasks, ordered by id. If more than 2²⁴ tasks are alive, some of them are missing.
    pub tasks: Vec<TaskInfo>,
    /// The number of tasks with greater ids that
    /// [`Inspect::max_tasks`](super::Inspect::max_tasks) has excluded from `tasks`.
    pub more_tasks: usize,
    /// The open sockets and other descriptors, ordered by descriptor number.
    pub sockets: Vec<SocketInfo>,
    /// The processors that have been used so far. A processor is the right to run tasks, which a
    /// thread owns while it runs them.
    pub workers: Vec<WorkerInfo>,
    /// The shards of the poller.
    pub shards: Vec<PollerShard>,
    /// The runtime's metrics.
    pub metrics: Metrics,
    /// The position of each socket in `sockets`, plus one, by slot. 0 for a slot without a socket.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(super) places: Vec<u32>,
}

impl Snapshot {
    /// Returns the task `id`, if it is in the snapshot.
    pub fn task(&self, id: TaskId) -> Option<&TaskInfo> {
        self.tasks.binary_search_by_key(&id, |task| task.id()).ok().map(|index| &self.tasks[index])
    }

    /// Returns the socket `id`, if it is in the snapshot.
    pub fn socket(&self, id: SocketId) -> Option<&SocketInfo> {
        let place = self.places.get(id.index as usize).and_then(|place| place.checked_sub(1));
        let socket = place.and_then(|place| self.sockets.get(place as usize));
        // The vector is public, so the caller may have changed it.
        socket.filter(|socket| socket.id() == id).or_else(|| self.sockets.iter().find(|socket| socket.id() == id))
    }

    /// Returns the chain of tasks that begins with `id`, in which each task awaits the handle of
    /// the next one. If the tasks wait for each other in a cycle, the last element is a task that
    /// already occurs in the chain.
    pub fn chain(&self, id: TaskId) -> Vec<TaskId> {
        self.chain_up_to(id, usize::MAX)
    }

    /// Returns the first `most` tasks of a [`chain`](Snapshot::chain).
    pub(super) fn chain_up_to(&self, id: TaskId, most: usize) -> Vec<TaskId> {
        let (mut chain, mut seen) = (vec![id], HashSet::from([id]));
        while chain.len() < most
            && let Some(WaitsFor::Task(next)) = self.task(chain[chain.len() - 1]).and_then(TaskInfo::waits_for)
        {
            chain.push(next);
            if !seen.insert(next) {
                break;
            }
        }
        chain
    }
}

//! [`TaskInfo`]: one task of a snapshot.
//!
//! A row has 88 bytes, because a snapshot has one per task, and the first one of a process takes new
//! memory for all of them: durations are stored in nanoseconds, and the name is the task's own.

use std::panic::Location;
use std::time::Duration;

use super::row_data::{SocketId, SocketWait, TaskKind, TaskState, WaitsFor, WokenBy};
use crate::rt::sched::cpu_time::CpuTime;
use crate::rt::sched::identity::Name;
use crate::rt::sched::lanes::Lane;
use crate::task::TaskId;

/// One task.
///
/// # Examples
/// ```
/// for task in &netpoll::rt::inspect().tasks {
///     println!("{}: {:?}, polled {} times, {:?} ago", task.id(), task.state(), task.polls(), task.last_poll());
/// }
/// ```
#[derive(Clone, Debug)]
pub struct TaskInfo {
    pub(super) id: TaskId,
    pub(super) name: Option<Name>,
    pub(super) spawned_at: Option<&'static Location<'static>>,
    pub(super) waits_for: Option<Wait>,
    pub(super) woken_by: Option<WokenBy>,
    pub(super) age_nanos: u64,
    pub(super) last_poll_nanos: u64,
    pub(super) polls: u32,
    pub(super) cpu: CpuTime,
    pub(super) kind: TaskKind,
    pub(super) lane: Lane,
    pub(super) state: TaskState,
    pub(super) waits_for_more: bool,
}

// The memory of a snapshot; see the module documentation.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<TaskInfo>() <= 88);

/// A [`WaitsFor`] in 16 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wait {
    Socket {
        socket: SocketId,
        operation: SocketWait,
    },
    /// The time left in nanoseconds.
    Time(u64),
    Task(TaskId),
}

impl TaskInfo {
    /// Returns the task's id.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// Returns the name given by [`task::Builder::name`](crate::task::Builder::name).
    pub fn name(&self) -> Option<&str> {
        self.name.as_ref().map(|name| &***name)
    }

    /// Returns the kind of the task.
    pub fn kind(&self) -> TaskKind {
        self.kind
    }

    /// Returns the lane of the task.
    pub fn lane(&self) -> Lane {
        self.lane
    }

    /// Returns the file and line of the call that spawned the task. `None` if the call is in a
    /// library that was loaded far from this crate.
    pub fn spawned_at(&self) -> Option<&'static Location<'static>> {
        self.spawned_at
    }

    /// Returns how long ago the task was spawned. Precise to a few milliseconds.
    pub fn age(&self) -> Duration {
        Duration::from_nanos(self.age_nanos)
    }

    /// Returns the state of the task.
    pub fn state(&self) -> TaskState {
        self.state
    }

    /// Returns the socket, timer or task of this crate that the task waits for.
    pub fn waits_for(&self) -> Option<WaitsFor> {
        self.waits_for.map(|wait| match wait {
            Wait::Socket { socket, operation } => WaitsFor::Socket { socket, operation },
            Wait::Time(nanos) => WaitsFor::Time(Duration::from_nanos(nanos)),
            Wait::Task(id) => WaitsFor::Task(id),
        })
    }

    /// Returns whether the task also waits for something else, such as a timeout around a read or
    /// another branch of a `select`.
    pub fn waits_for_more(&self) -> bool {
        self.waits_for_more
    }

    /// Returns what woke the task before its last poll, or spawned it before the first. `None` if it
    /// is not known, such as a timer or a socket of another crate, or a socket that was closed since.
    pub fn woken_by(&self) -> Option<WokenBy> {
        self.woken_by
    }

    /// Returns how many times the task was polled, modulo 2³².
    pub fn polls(&self) -> u32 {
        self.polls
    }

    /// Returns how long ago the last poll of the task began. Precise to a few milliseconds.
    pub fn last_poll(&self) -> Duration {
        Duration::from_nanos(self.last_poll_nanos)
    }

    /// Returns the time that polls of the task on workers have taken, estimated from samples taken
    /// every 10 ms.
    pub fn cpu(&self) -> Duration {
        self.cpu.total()
    }

    /// Returns the longest poll of the task on a worker, from the same samples: it lasted for at least
    /// this time. Zero if no poll was seen by two samples in a row, which one of 10 to 20 ms may not
    /// be.
    pub fn longest_poll(&self) -> Duration {
        self.cpu.longest_poll()
    }
}

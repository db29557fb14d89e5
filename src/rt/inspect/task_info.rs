//! [`TaskInfo`]: one task of a snapshot.
//!
//! A snapshot has one row per task, and the first snapshot of a process allocates memory for all
//! rows. So that a row takes only 88 bytes, durations are stored in nanoseconds, and the name is
//! shared with the task.

use std::panic::Location;
use std::time::Duration;

use super::row_data::{SocketId, SocketWait, TaskKind, TaskState, WaitsFor, WokenBy};
use crate::rt::sched::cpu_time::CpuTime;
use crate::rt::sched::identity::Name;
use crate::rt::sched::lanes::Lane;
use crate::task::TaskId;

/// A task of a [`Snapshot`](super::Snapshot).
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

// Keeps snapshots small; see the module documentation.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<TaskInfo>() <= 88);

/// A [`WaitsFor`] that takes 16 bytes.
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
    /// library that is loaded far from this crate in memory.
    pub fn spawned_at(&self) -> Option<&'static Location<'static>> {
        self.spawned_at
    }

    /// Returns the time since the task was spawned, with a precision of about 20 ms.
    pub fn age(&self) -> Duration {
        Duration::from_nanos(self.age_nanos)
    }

    /// Returns the state of the task.
    pub fn state(&self) -> TaskState {
        self.state
    }

    /// Returns the socket, timer or task of this crate that the task waits for. `None` if the task
    /// runs, if the event that it waited for has happened (except for a timer), or if it waits for
    /// something else or something unknown.
    pub fn waits_for(&self) -> Option<WaitsFor> {
        self.waits_for.map(|wait| match wait {
            Wait::Socket { socket, operation } => WaitsFor::Socket { socket, operation },
            Wait::Time(nanos) => WaitsFor::Time(Duration::from_nanos(nanos)),
            Wait::Task(id) => WaitsFor::Task(id),
        })
    }

    /// Returns whether the task is known to wait for something else too, such as a timeout around a
    /// read or another branch of a `select`. A wait for a readable or writable socket hides the
    /// waits that the same poll of the task began earlier.
    pub fn waits_for_more(&self) -> bool {
        self.waits_for_more
    }

    /// Returns the cause of the wake-up before the task's last poll. If the task was polled only
    /// once, this is the task or thread that spawned it. Returns `None` if the task was not polled
    /// yet, or if the cause is unknown, for example because it was a timer or socket of another
    /// crate, or a socket that has been closed since.
    pub fn woken_by(&self) -> Option<WokenBy> {
        self.woken_by
    }

    /// Returns the number of times that the task was polled, modulo 2³².
    pub fn polls(&self) -> u32 {
        self.polls
    }

    /// Returns the time since the last poll of the task began, with a precision of a few
    /// milliseconds. If the task was not polled yet, returns the time since it was spawned, with a
    /// precision of about 10 ms.
    pub fn last_poll(&self) -> Duration {
        Duration::from_nanos(self.last_poll_nanos)
    }

    /// Returns the total duration of the task's polls on workers, up to 19 hours, estimated from
    /// samples taken every 10 ms. A [single-threaded](crate::rt::Builder::single_threaded) runtime
    /// takes no samples until it has to start the threads of an ordinary one.
    pub fn cpu(&self) -> Duration {
        self.cpu.total()
    }

    /// Returns a lower bound of the duration of the task's longest poll on a worker, from the
    /// samples of [`cpu`](TaskInfo::cpu). The result is zero if no two consecutive samples found
    /// the same poll, which is possible for polls of less than 20 ms and, if samples are late, for
    /// longer ones.
    pub fn longest_poll(&self) -> Duration {
        self.cpu.longest_poll()
    }
}

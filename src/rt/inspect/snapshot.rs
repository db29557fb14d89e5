//! The data that [`inspect`](super::inspect()) returns.

use std::fmt;
use std::net::SocketAddr;
use std::panic::Location;
use std::time::{Duration, SystemTime};

use crate::rt::metrics::Metrics;
use crate::task::TaskId;

/// The tasks, sockets and workers of the process at one moment; returned by [`inspect`](super::inspect()).
///
/// Plain data: it refers to nothing, and what it describes may be gone already. `Display` prints it as tables, tasks first.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// When it was taken.
    pub taken: SystemTime,
    /// The tasks that are alive, by id.
    pub tasks: Vec<TaskInfo>,
    /// The open sockets and other descriptors, by number.
    pub sockets: Vec<SocketInfo>,
    /// The processors: the right to run tasks, which a worker thread owns.
    pub workers: Vec<WorkerInfo>,
    /// The runtime's counters.
    pub metrics: Metrics,
}

/// One task.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TaskInfo {
    /// The task's id.
    pub id: TaskId,
    /// The name given by [`task::Builder::name`](crate::task::Builder::name).
    pub name: Option<String>,
    /// What kind of task it is.
    pub kind: TaskKind,
    /// The file and line of the call that spawned it. `None` in a library that was loaded far from this one.
    pub spawned_at: Option<&'static Location<'static>>,
    /// How long ago it was spawned. Precise to a few milliseconds.
    pub age: Duration,
    /// What it is doing.
    pub state: TaskState,
    /// What it waits for, if it waits for something of this crate.
    pub waits_for: Option<WaitsFor>,
    /// It waits for something else as well: a timeout beside a read, or another branch of a `select`.
    pub waits_for_more: bool,
    /// How often it was polled, modulo 2³².
    pub polls: u32,
    /// How long ago its last poll began. Precise to a few milliseconds.
    pub last_poll: Duration,
    /// The time that its polls on workers have taken, estimated from samples that are 10 ms apart.
    pub cpu: Duration,
}

/// The kind of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TaskKind {
    /// Spawned by [`task::spawn`](crate::task::spawn()).
    Task,
    /// Spawned by [`task::spawn_local`](crate::task::spawn_local()).
    Local,
    /// The future given to [`task::block_on`](crate::task::block_on()).
    BlockOn,
    /// A call made by [`task::spawn_blocking`](crate::task::spawn_blocking()), or a look-up of a name.
    Blocking,
}

/// What a task is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TaskState {
    /// A worker polls it now.
    Running,
    /// Its socket is ready, its time has come or its task has ended: it is about to run.
    Ready,
    /// It waits; see [`TaskInfo::waits_for`]. Without one it waits for something that this crate does not know, or is about to run.
    Waiting,
}

/// What a task waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WaitsFor {
    /// A socket.
    Socket {
        /// The socket, as in [`SocketInfo::id`].
        socket: SocketId,
        /// What it waits for there.
        operation: SocketWait,
    },
    /// A moment, which comes after so long; zero if it has come.
    Time(Duration),
    /// The end of a task: it awaits its [`JoinHandle`](crate::task::JoinHandle).
    Task(TaskId),
}

/// What an operation waits for on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SocketWait {
    /// Data or a connection to accept.
    Readable,
    /// Room in the send buffer, or the end of connect(2).
    Writable,
    /// The end of another task's read.
    ReadLock,
    /// The end of another task's write.
    WriteLock,
    /// The peer's hang-up.
    HangUp,
}

/// Identifies a socket in the process. Not used again for another before many millions of sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

/// One socket, or another descriptor in an [`AsyncFd`](crate::io::AsyncFd).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SocketInfo {
    /// The socket's identity.
    pub id: SocketId,
    /// The number of the descriptor.
    pub fd: i32,
    /// `tcp`, `udp`, `unix`, `unixgram`, `unixpacket`, or `fd` for what is no socket.
    pub kind: &'static str,
    /// The local address, as the kernel has it.
    pub local: Option<SocketAddress>,
    /// The peer's address, if it is connected.
    pub peer: Option<SocketAddress>,
    /// What state it is in.
    pub state: SocketState,
    /// How long ago it was opened or accepted. Precise to a few milliseconds.
    pub age: Duration,
    /// Operations that wait in the reading direction: reads, accepts, tests of readiness.
    pub readers: usize,
    /// Operations that wait in the writing direction.
    pub writers: usize,
    /// The tasks that are known to wait on it, with what each waits for.
    pub waiting: Vec<(TaskId, SocketWait)>,
    /// The time until the read deadline; zero if it has passed. `None` without one.
    pub read_deadline: Option<Duration>,
    /// The time until the write deadline.
    pub write_deadline: Option<Duration>,
    /// What the kernel says of a TCP socket, if it was asked for by [`Inspect::tcp`](super::Inspect::tcp).
    pub tcp: Option<TcpDetails>,
}

/// An address of a socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SocketAddress {
    /// Of an IP socket.
    Ip(SocketAddr),
    /// Of a Unix socket: its path, or its abstract name after `@`.
    Unix(String),
}

impl fmt::Display for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SocketAddress::Ip(address) => address.fmt(f),
            SocketAddress::Unix(name) => f.write_str(name),
        }
    }
}

/// The state of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SocketState {
    /// It accepts connections.
    Listening,
    /// It is not connected, or not yet.
    Unconnected,
    /// It is connected.
    Open,
    /// An edge has said that the peer has hung up, or that there is an error.
    HungUp,
    /// It was closed here, and its last operation has not ended.
    Closing,
}

/// What TCP_INFO says of a socket (tcp(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpDetails {
    /// The state of the connection, such as `ESTABLISHED`.
    pub state: &'static str,
    /// The smoothed round-trip time.
    pub rtt: Duration,
    /// The congestion window, in segments.
    pub congestion_window: u32,
    /// Segments sent again, total.
    pub retransmits: u32,
    /// Bytes in the send buffer that were not sent.
    pub unsent: u32,
    /// Bytes that the peer has acknowledged, total.
    pub bytes_sent: u64,
    /// Bytes received, total.
    pub bytes_received: u64,
    /// How long ago data was sent last.
    pub last_sent: Duration,
    /// How long ago data was received last.
    pub last_received: Duration,
    /// Of a listener: connections that wait to be accepted.
    pub accept_queue: u32,
    /// Of a listener: how many may wait.
    pub accept_queue_max: u32,
}

/// One processor: the right to run tasks, with a queue of its own.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkerInfo {
    /// The processor's number.
    pub id: usize,
    /// Whether a thread owns it. A processor without one has no work.
    pub owned: bool,
    /// The task that it runs now.
    pub running: Option<TaskId>,
    /// How long that poll has taken so far. Precise to a few milliseconds.
    pub running_for: Option<Duration>,
    /// The task has kept its thread for so long that others take over its queue.
    pub stuck: bool,
    /// Tasks in its queue.
    pub queued: usize,
    /// Timers in its heap, cancelled ones included.
    pub timers: usize,
    /// Polls of tasks, total.
    pub polls: u64,
    /// Tasks that it took from others' queues, total.
    pub steals: u64,
}

impl Snapshot {
    /// The task `id`, if it was alive.
    pub fn task(&self, id: TaskId) -> Option<&TaskInfo> {
        self.tasks.binary_search_by_key(&id, |task| task.id).ok().map(|index| &self.tasks[index])
    }

    /// The socket `id`, if it was open.
    pub fn socket(&self, id: SocketId) -> Option<&SocketInfo> {
        self.sockets.iter().find(|socket| socket.id == id)
    }

    /// The tasks that `id` waits for by their handles, one after the other, `id` first. The last one is `id` again, or another of the
    /// list, if they wait for each other in a cycle.
    pub fn chain(&self, id: TaskId) -> Vec<TaskId> {
        let mut chain = vec![id];
        while let Some(WaitsFor::Task(next)) = self.task(chain[chain.len() - 1]).and_then(|task| task.waits_for) {
            let is_cycle = chain.contains(&next);
            chain.push(next);
            if is_cycle {
                break;
            }
        }
        chain
    }
}

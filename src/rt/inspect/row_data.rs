//! The data in the rows of a [`Snapshot`](super::Snapshot): kinds, states, ids, and details that
//! only some sockets have.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::task::TaskId;

/// The kind of a task.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TaskKind {
    /// A task that runs on the workers, such as one spawned by
    /// [`task::spawn`](crate::task::spawn()).
    Task,
    /// A task that runs on the thread that spawned it, such as one spawned by
    /// [`task::spawn_local`](crate::task::spawn_local()).
    Local,
    /// The future passed to [`task::block_on`](crate::task::block_on()), or the root future of a
    /// simulation.
    BlockOn,
    /// A call made by [`task::spawn_blocking`](crate::task::spawn_blocking()), a name look-up, or a
    /// close that may wait.
    Blocking,
}

/// The state of a task.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TaskState {
    /// A thread is polling the task now.
    Running,
    /// The task is about to run, because its socket is ready, its timer is due, the task that it
    /// awaits has ended, it has yielded, or another task or a thread has woken it.
    Ready,
    /// The task waits; see [`TaskInfo::waits_for`](super::TaskInfo::waits_for). If that is `None`,
    /// the task waits for something outside this crate, or for something of this crate that is not
    /// recorded, such as an in-memory pipe, a name look-up, the end of a close or the next task of
    /// a [`TaskSet`](crate::task::TaskSet). It may also be about to run.
    Waiting,
}

/// The socket, time or task for which a task waits.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WaitsFor {
    /// A socket.
    Socket {
        /// The socket, as in [`SocketInfo::id`](super::SocketInfo::id).
        socket: SocketId,
        /// The event or the lock of the socket for which the task waits.
        operation: SocketWait,
    },
    /// A point in time, given as the time left until then, with a precision of a millisecond, or of
    /// five minutes if it was more than 19 hours ahead when the wait began. Zero if it has passed.
    Time(#[cfg_attr(feature = "serde", serde(serialize_with = "super::serde::seconds"))] Duration),
    /// The end of another task, whose [`JoinHandle`](crate::task::JoinHandle) the task awaits.
    Task(TaskId),
}

/// The cause of a task's last wake-up.
///
/// Wake-ups by sockets, timers and ending tasks are not recorded individually. They are inferred
/// from the wait that [`TaskInfo::waits_for`](super::TaskInfo::waits_for) showed. If the task
/// waited for several of these, another one may have woken it. A task or thread that wakes the
/// future of a [`block_on`](crate::task::block_on()) is not recorded.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WokenBy {
    /// A socket that became ready, was closed or unlocked, or whose deadline has passed.
    Socket(SocketId),
    /// A timer.
    Timer,
    /// A task that called the waker, such as the sender of a message, or that ended while this task
    /// awaited it. The task may have ended in the meantime. Only the lowest bits of its id are
    /// recorded: 28 if this task awaited it, and otherwise 27. The other bits are those of the
    /// latest live task whose id ends with these bits or, if there is none, of the latest such id.
    Task(TaskId),
    /// A thread that ran no task.
    Thread,
    /// The task itself, which yielded or was woken while it ran.
    Itself,
}

/// The event or the lock of a socket for which an operation waits.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SocketWait {
    /// Data to read, the end of the stream, or a connection to accept.
    Readable,
    /// Room in the send buffer, or the end of connect(2).
    Writable,
    /// The end of another operation that reads or accepts.
    ReadLock,
    /// The end of another operation that writes. Also room in the queue of the socket to which a
    /// Unix datagram is sent by name, and the end of the look-up of a name to which a UDP datagram
    /// is sent.
    WriteLock,
    /// A hang-up: the peer has closed the connection or its sending side. Also the completion of a
    /// [`send_zerocopy`](crate::net::TcpStream::send_zerocopy) and, for a listener, a permit
    /// ([`max_connections`](crate::net::ListenConfig::max_connections)) or a free descriptor.
    HangUp,
}

/// A shard of the poller, which is an instance of epoll(7) or of another back end, with the
/// descriptors registered in it; see [`Builder::poller_shards`](crate::rt::Builder::poller_shards).
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PollerShard {
    /// The number of sockets of the snapshot that are registered in the shard. Always 0 if there is
    /// only one shard.
    pub sockets: usize,
    /// The total number of waiting and non-blocking polls of the shard.
    pub waits: u64,
    /// The total number of events that the polls of the shard returned.
    pub events: u64,
}

/// The identity of a socket within the process. An id is reused only after billions of sockets.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

/// The limits of a listener, which a [`ListenConfig`](crate::net::ListenConfig) has set. Listeners
/// that were opened together share their limits.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerLimits {
    /// The number of open connections that hold a permit.
    pub connections: usize,
    /// The number of permits, if the number of connections is limited
    /// ([`max_connections`](crate::net::ListenConfig::max_connections)).
    pub max_connections: Option<usize>,
    /// The total number of connections refused for lack of descriptors
    /// ([`reserve_descriptors`](crate::net::ListenConfig::reserve_descriptors)).
    pub refused: u64,
}

/// The address of a socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SocketAddress {
    /// The address of an IP socket.
    Ip(SocketAddr),
    /// The address of a Unix socket: its path, or `@` and its abstract name.
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
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SocketState {
    /// The socket accepts connections.
    Listening,
    /// The socket is not connected, or the descriptor is not a socket.
    Unconnected,
    /// A TCP socket is connecting: an operation waits for the end of connect(2).
    Connecting,
    /// The socket is connected.
    Open,
    /// One direction of a TCP connection is closed. This state is shown only with
    /// [`Inspect::tcp`](super::Inspect::tcp). Otherwise the state is `HungUp` if the kernel has
    /// reported that the peer has closed its sending side, and `Open` if this process has closed
    /// its sending side.
    HalfClosed,
    /// The kernel has reported that the peer has closed the connection or its sending side, that
    /// this process has shut down receiving, or that the connection has failed.
    HungUp,
    /// This process has closed the socket, but an operation on it has not ended yet.
    Closing,
    /// The kernel was not queried; see [`Inspect::addresses`](super::Inspect::addresses).
    Unknown,
}

/// The state of a TCP socket, from TCP_INFO (tcp(7)) of Linux.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpDetails {
    /// The state of the socket, such as `ESTABLISHED`.
    pub state: &'static str,
    /// The smoothed round-trip time.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::serde::seconds"))]
    pub rtt: Duration,
    /// The congestion window, in segments.
    pub congestion_window: u32,
    /// The total number of retransmitted segments.
    pub retransmits: u32,
    /// The number of bytes in the send buffer that the kernel has not sent.
    pub unsent: u32,
    /// The total number of bytes that the peer has acknowledged. The kernel counts a FIN, and the
    /// SYN of a dialled connection, as one byte each.
    pub bytes_sent: u64,
    /// The total number of bytes received. The kernel counts a FIN as one byte.
    pub bytes_received: u64,
    /// The total number of received segments with data, modulo 2³².
    pub segments_received: u32,
    /// The total number of sent segments with data, modulo 2³², including retransmissions.
    pub segments_sent: u32,
    /// The time since data was last sent.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::serde::seconds"))]
    pub last_sent: Duration,
    /// The time since data was last received.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::serde::seconds"))]
    pub last_received: Duration,
    /// For a listener: the number of connections that wait to be accepted.
    pub accept_queue: u32,
    /// For a listener: its backlog, which `net.core.somaxconn` limits. Linux lets one more
    /// connection wait to be accepted.
    pub accept_queue_max: u32,
}

/// A processor, which is the right to run tasks, with its own run queue.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkerInfo {
    /// The number of the processor.
    pub id: usize,
    /// Whether a thread owns the processor. The queue of a processor without a thread is empty.
    pub owned: bool,
    /// The task that is being polled.
    pub running: Option<TaskId>,
    /// The time that the current poll has taken so far, with a precision of a few milliseconds.
    /// `None` if no task is being polled, or if the task is not in the snapshot.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::serde::some_seconds"))]
    pub running_for: Option<Duration>,
    /// Whether the current poll, or a waker that the worker calls, takes so long that other workers
    /// may take all tasks from the queue.
    pub stuck: bool,
    /// The number of tasks in the queue.
    pub queued: usize,
    /// The number of entries in the timer heap, including dead entries.
    pub timers: usize,
    /// The total number of polls of tasks.
    pub polls: u64,
    /// The total number of times that the worker took tasks from another processor's queue.
    pub steals: u64,
}

//! The data that [`inspect`](super::inspect()) returns.

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::rt::metrics::Metrics;
use crate::rt::sched::lanes::Lane;
use crate::task::TaskId;

/// A snapshot of the tasks, sockets and workers of the process; returned by
/// [`inspect`](super::inspect()).
///
/// It is plain data: it holds no references, and the tasks and sockets in it may have ended since.
/// `Display` prints it as tables, tasks first.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// When the snapshot was taken.
    pub taken: SystemTime,
    /// The live tasks, ordered by id.
    pub tasks: Vec<TaskInfo>,
    /// The number of tasks with greater ids that are not in `tasks`, because of
    /// [`Inspect::max_tasks`](super::Inspect::max_tasks).
    pub more_tasks: usize,
    /// The open sockets and other descriptors, ordered by descriptor number.
    pub sockets: Vec<SocketInfo>,
    /// The processors. A processor is the right to run tasks, which a worker thread owns while it
    /// runs them.
    pub workers: Vec<WorkerInfo>,
    /// The shards of the poller.
    pub shards: Vec<PollerShard>,
    /// The runtime's counters.
    pub metrics: Metrics,
    /// The position of each socket in `sockets`, plus one, by its slot; 0 for a slot without a socket.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(super) places: Vec<u32>,
}

/// One task.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TaskInfo {
    /// The task's id.
    pub id: TaskId,
    /// The name given by [`task::Builder::name`](crate::task::Builder::name).
    pub name: Option<String>,
    /// The kind of the task.
    pub kind: TaskKind,
    /// The lane of the task.
    pub lane: Lane,
    /// The file and line of the call that spawned the task. `None` if the call is in a library that
    /// was loaded far from this crate.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::serde::place"))]
    pub spawned_at: Option<&'static Location<'static>>,
    /// How long ago the task was spawned. Precise to a few milliseconds.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::serde::seconds"))]
    pub age: Duration,
    /// The state of the task.
    pub state: TaskState,
    /// The socket, timer or task of this crate that the task waits for.
    pub waits_for: Option<WaitsFor>,
    /// Whether the task also waits for something else, such as a timeout around a read or another
    /// branch of a `select`.
    pub waits_for_more: bool,
    /// What woke the task before its last poll, or spawned it before the first. `None` if it is not
    /// known, such as a timer or a socket of another crate, or a socket that was closed since.
    pub woken_by: Option<WokenBy>,
    /// How many times the task was polled, modulo 2³².
    pub polls: u32,
    /// How long ago the last poll of the task began. Precise to a few milliseconds.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::serde::seconds"))]
    pub last_poll: Duration,
    /// The time that polls of the task on workers have taken, estimated from samples taken every 10
    /// ms.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::serde::seconds"))]
    pub cpu: Duration,
    /// The longest poll of the task on a worker, from the same samples: it lasted for at least this
    /// time. Zero if no poll was seen by two samples in a row, which one of 10 to 20 ms may not be.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::serde::seconds"))]
    pub longest_poll: Duration,
}

/// The kind of a task.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TaskKind {
    /// Spawned by [`task::spawn`](crate::task::spawn()).
    Task,
    /// Spawned by [`task::spawn_local`](crate::task::spawn_local()).
    Local,
    /// The future given to [`task::block_on`](crate::task::block_on()).
    BlockOn,
    /// A call made by [`task::spawn_blocking`](crate::task::spawn_blocking()), or a name lookup.
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
    /// The task is about to run: its socket is ready, its time has come, or the task it awaits has
    /// ended.
    Ready,
    /// The task waits; see [`TaskInfo::waits_for`]. If that is `None`, the task waits for something
    /// outside this crate, or is about to run.
    Waiting,
}

/// The thing that a task waits for.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WaitsFor {
    /// A socket.
    Socket {
        /// The socket, as in [`SocketInfo::id`].
        socket: SocketId,
        /// The event or lock of the socket that the task waits for.
        operation: SocketWait,
    },
    /// A point in time, given as the time until then; zero if it has passed.
    Time(#[cfg_attr(feature = "serde", serde(serialize_with = "super::serde::seconds"))] Duration),
    /// The end of another task, whose [`JoinHandle`](crate::task::JoinHandle) the task awaits.
    Task(TaskId),
}

/// What woke a task.
///
/// Of a task that waited for several things, only that one is known which
/// [`TaskInfo::waits_for`] showed. A socket, timer or task of this crate wakes the task for what it
/// waited for.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WokenBy {
    /// A socket that became ready, was closed, or was unlocked, or whose deadline passed.
    Socket(SocketId),
    /// A timer.
    Timer,
    /// A task: one that called the waker, such as the sender of a message, or one whose end the task
    /// awaited. It may have ended. The lowest 27 bits of its id are known; the others are those of a
    /// task that is alive, or else of the last one with these bits.
    Task(TaskId),
    /// A thread that runs no task.
    Thread,
    /// The task itself: it yielded, or was woken while it ran.
    Itself,
}

/// The event that an operation waits for on a socket.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SocketWait {
    /// Data to read, or a connection to accept.
    Readable,
    /// Room in the send buffer, or the end of connect(2).
    Writable,
    /// The end of a read by another task.
    ReadLock,
    /// The end of a write by another task.
    WriteLock,
    /// The peer closing the connection.
    HangUp,
}

/// Identifies a socket in the process. An id is not reused for many millions of sockets.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

/// A socket, or another descriptor in an [`AsyncFd`](crate::io::AsyncFd).
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SocketInfo {
    /// The identity of the socket.
    pub id: SocketId,
    /// The descriptor number.
    pub fd: i32,
    /// `tcp`, `udp`, `unix`, `unixgram` or `unixpacket`; `fd` for a descriptor that is not a socket;
    /// `socket` if the kernel was not asked.
    pub kind: &'static str,
    /// The local address, as the kernel reports it.
    pub local: Option<SocketAddress>,
    /// The peer's address, if the socket is connected.
    pub peer: Option<SocketAddress>,
    /// The host name that the connection was dialled by, with
    /// [`TcpStream::connect`](crate::net::TcpStream::connect) or a
    /// [`Dialer`](crate::net::Dialer). `None` if it was dialled by address.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::serde::text"))]
    pub host: Option<Arc<str>>,
    /// The state of the socket.
    pub state: SocketState,
    /// The shard of the poller in which the socket is registered: a position in
    /// [`Snapshot::shards`]. `None` if it has not been registered yet, or there is only one shard.
    pub poller_shard: Option<u8>,
    /// How long ago the socket was opened or accepted. Precise to a few milliseconds.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::serde::seconds"))]
    pub age: Duration,
    /// The number of operations that wait in the reading direction: reads, accepts, waits for
    /// readability.
    pub readers: usize,
    /// The number of operations that wait in the writing direction.
    pub writers: usize,
    /// The tasks that are known to wait for the socket, each with what it waits for.
    pub waiting: SocketWaits,
    /// The time until the read deadline; zero if it has passed, `None` if there is none.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::serde::some_seconds"))]
    pub read_deadline: Option<Duration>,
    /// The time until the write deadline; zero if it has passed, `None` if there is none.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::serde::some_seconds"))]
    pub write_deadline: Option<Duration>,
    /// The number of operations that received something, modulo 2³²: reads, datagrams or batches of
    /// datagrams, accepted connections. Calls made by a closure of the program, such as those of an
    /// `AsyncFd`, are not counted.
    ///
    /// Of a TCP connection, whose operations are not counted, it is the kernel's number of segments
    /// with data, and `None` if [`Inspect::tcp`](super::Inspect::tcp) did not ask for it.
    pub reads: Option<u32>,
    /// The number of operations that sent something, modulo 2³², or of TCP segments as for `reads`.
    pub writes: Option<u32>,
    /// The total number of bytes received. For TCP it is the kernel's count, and `None` if
    /// [`Inspect::tcp`](super::Inspect::tcp) did not ask for it.
    pub bytes_received: Option<u64>,
    /// The total number of bytes sent; for TCP, those that the peer has acknowledged. `None` as for
    /// `bytes_received`.
    pub bytes_sent: Option<u64>,
    /// How long ago bytes were last received or sent, or since the socket was opened if none were.
    /// Precise to a few milliseconds. `None` as for `bytes_received`.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::serde::some_seconds"))]
    pub last_use: Option<Duration>,
    /// The number of bytes that writes have gathered and that are not sent yet; see
    /// [`TcpStream::set_auto_cork`](crate::net::TcpStream::set_auto_cork).
    pub gathered: usize,
    /// The number of operations that failed with an error of the operating system, up to 255.
    pub errors: u8,
    /// The errno of the last of these errors, if it had one.
    pub last_errno: Option<i32>,
    /// The limits of a listener, if it has any.
    pub limits: Option<Box<ListenerLimits>>,
    /// The kernel's state of a TCP connection, if [`Inspect::tcp`](super::Inspect::tcp) asked for
    /// it.
    pub tcp: Option<Box<TcpDetails>>,
}

/// The tasks that wait for a socket, each with what it waits for: a slice. Most sockets have at most
/// one, which takes no memory of its own.
#[derive(Clone, Default)]
pub struct SocketWaits(Waits);

#[derive(Clone, Default)]
enum Waits {
    #[default]
    None,
    One((TaskId, SocketWait)),
    Many(Vec<(TaskId, SocketWait)>),
}

impl SocketWaits {
    pub(super) fn push(&mut self, wait: (TaskId, SocketWait)) {
        match &mut self.0 {
            Waits::None => self.0 = Waits::One(wait),
            Waits::One(first) => self.0 = Waits::Many(vec![*first, wait]),
            Waits::Many(all) => all.push(wait),
        }
    }
}

impl Deref for SocketWaits {
    type Target = [(TaskId, SocketWait)];

    fn deref(&self) -> &[(TaskId, SocketWait)] {
        match &self.0 {
            Waits::None => &[],
            Waits::One(wait) => std::slice::from_ref(wait),
            Waits::Many(all) => all,
        }
    }
}

impl fmt::Debug for SocketWaits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for SocketWaits {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

/// The limits of a listener, as set by a [`ListenConfig`](crate::net::ListenConfig). Listeners that
/// were opened together share them.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerLimits {
    /// The number of open connections that hold a permit.
    pub connections: usize,
    /// The number of permits
    /// ([`max_connections`](crate::net::ListenConfig::max_connections)), if it is limited.
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
    /// The socket is not connected.
    Unconnected,
    /// A TCP socket is connecting: an operation waits for the end of connect(2).
    Connecting,
    /// The socket is connected.
    Open,
    /// One side of a TCP connection has ended its sending side. The kernel is asked for it only with
    /// [`Inspect::tcp`](super::Inspect::tcp); otherwise the state is `HungUp` if the peer has, and
    /// `Open` if this process has.
    HalfClosed,
    /// The kernel has reported that the peer has closed the connection, or its sending side, or that
    /// there is an error.
    HungUp,
    /// The socket was closed by this process, and an operation on it has not ended yet.
    Closing,
    /// The kernel was not asked; see [`Inspect::addresses`](super::Inspect::addresses).
    Unknown,
}

/// The state of a TCP connection, from TCP_INFO (tcp(7)).
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpDetails {
    /// The state of the connection, such as `ESTABLISHED`.
    pub state: &'static str,
    /// The smoothed round-trip time.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::serde::seconds"))]
    pub rtt: Duration,
    /// The congestion window, in segments.
    pub congestion_window: u32,
    /// The total number of retransmitted segments.
    pub retransmits: u32,
    /// The number of bytes in the send buffer that have not been sent.
    pub unsent: u32,
    /// The total number of bytes that the peer has acknowledged.
    pub bytes_sent: u64,
    /// The total number of bytes received.
    pub bytes_received: u64,
    /// The total number of segments with data received, modulo 2³².
    pub segments_received: u32,
    /// The total number of segments with data sent, modulo 2³², with retransmitted ones.
    pub segments_sent: u32,
    /// How long ago data was last sent.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::serde::seconds"))]
    pub last_sent: Duration,
    /// How long ago data was last received.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::serde::seconds"))]
    pub last_received: Duration,
    /// Listeners: the number of connections waiting to be accepted.
    pub accept_queue: u32,
    /// Listeners: the maximum number of connections that may wait.
    pub accept_queue_max: u32,
}

/// A processor: the right to run tasks, with its own queue of tasks.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkerInfo {
    /// The number of the processor.
    pub id: usize,
    /// Whether a worker thread owns the processor. A processor without one has no work.
    pub owned: bool,
    /// The task that is being polled.
    pub running: Option<TaskId>,
    /// How long the current poll has taken so far. Precise to a few milliseconds. `None` if the task
    /// is not in the snapshot.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::serde::some_seconds"))]
    pub running_for: Option<Duration>,
    /// Whether the current poll has taken so long that other workers take over the queue.
    pub stuck: bool,
    /// The number of tasks in the queue.
    pub queued: usize,
    /// The number of timers in the heap, including cancelled ones.
    pub timers: usize,
    /// The total number of polls of tasks.
    pub polls: u64,
    /// The total number of tasks taken from the queues of other processors.
    pub steals: u64,
}

/// A shard of the poller: an instance of epoll, with its own descriptors; see
/// [`Builder::poller_shards`](crate::rt::Builder::poller_shards).
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PollerShard {
    /// The number of sockets of the snapshot that are registered in the shard.
    pub sockets: usize,
    /// The total number of calls that waited for events of the shard or checked for them.
    pub waits: u64,
    /// The total number of events that these calls returned.
    pub events: u64,
}

impl Snapshot {
    /// Returns the task `id`, if it was alive.
    pub fn task(&self, id: TaskId) -> Option<&TaskInfo> {
        self.tasks.binary_search_by_key(&id, |task| task.id).ok().map(|index| &self.tasks[index])
    }

    /// Returns the socket `id`, if it was open.
    pub fn socket(&self, id: SocketId) -> Option<&SocketInfo> {
        let place = self.places.get(id.index as usize).and_then(|place| place.checked_sub(1));
        let socket = place.and_then(|place| self.sockets.get(place as usize));
        // The vector is public: its owner may have changed it.
        socket.filter(|socket| socket.id == id).or_else(|| self.sockets.iter().find(|socket| socket.id == id))
    }

    /// Returns the chain of tasks that begins with `id`, in which each task awaits the handle of
    /// the next. If the tasks wait for each other in a cycle, the last element is a task that is
    /// already in the chain.
    pub fn chain(&self, id: TaskId) -> Vec<TaskId> {
        self.chain_up_to(id, usize::MAX)
    }

    /// Returns at most `most` tasks of a chain.
    pub(super) fn chain_up_to(&self, id: TaskId, most: usize) -> Vec<TaskId> {
        let (mut chain, mut seen) = (vec![id], HashSet::from([id]));
        while chain.len() < most
            && let Some(WaitsFor::Task(next)) = self.task(chain[chain.len() - 1]).and_then(|task| task.waits_for)
        {
            chain.push(next);
            if !seen.insert(next) {
                break;
            }
        }
        chain
    }
}

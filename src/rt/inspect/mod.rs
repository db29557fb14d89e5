//! `inspect`: a snapshot of what every task and socket is doing, taken while they run.
//!
//! # Implementation
//! Each task has a record in a slab (`sched::record`), and each socket has a slot in the poll
//! cache. Both are read in place. No task is polled and no thread is stopped. No lock is held that
//! a poll or a system call takes, with one exception: when several operations wait on one socket,
//! their list is locked while they are counted. The kernel is asked for addresses by descriptor
//! number. The result is discarded unless the generation of the slot is still current afterwards: a
//! generation changes before its descriptor is closed, so a current generation means that the
//! number was this socket's.
//!
//! # Pairing tasks with sockets
//! An operation that waits stores the tag of the socket in the record of its task. A tag consists
//! of the index of the socket's slot and 8 bits of its generation. A task is paired with a socket
//! if the socket with that tag is open and has a waiting operation in that direction. A wrong pair
//! is possible only if a close wakes the task, and the slot is reused exactly 256 times before the
//! task is polled.
//!
//! # Invariants
//! * A task and a socket are paired only if an operation of that task returned Pending on that
//!   socket in the task's last poll (`tests/inspect.rs`:
//!   `pairs_are_right_beside_spawns_and_closes`).
//! * All rows of a snapshot are read during the call, but not at one instant: a task may be shown
//!   as waiting for a task that has ended.

mod json;
mod server;
mod snapshot;
mod table;

use std::os::fd::BorrowedFd;
use std::time::{Duration, SystemTime};

use socket2::SockAddr;

pub use self::server::InspectServer;
pub(crate) use self::server::serve_from_environment;
pub use self::snapshot::{
    Snapshot, SocketAddress, SocketId, SocketInfo, SocketState, SocketWait, TaskInfo, TaskKind, TaskState, TcpDetails,
    WaitsFor, WorkerInfo,
};
use super::metrics::metrics;
use super::runtime::runtime;
use super::sched::processor::Processor;
use super::sched::record::{self, Kind, Reading, Waits};
use super::sched::task::TaskId;
use super::time::clock;
use super::time::ticks::Scale;
use crate::rt::poll::poll_desc::{Direction, NO_TAG, PollDesc, tag_index, tag_is_of};
use crate::sync::Ordering;
use crate::sys::{option, socket};

/// Returns a snapshot of what every task, socket and worker is doing.
///
/// Nothing is stopped, and no task is polled. The call takes a few hundred nanoseconds per task and
/// about a microsecond per socket, on the calling thread. It does not start the runtime.
///
/// [`Inspect`] can also ask the kernel for the state of TCP connections.
///
/// # Examples
/// ```
/// use netpoll::{net::UdpSocket, rt, task};
/// # use netpoll::rt::{SocketWait, WaitsFor};
///
/// # fn main() -> std::io::Result<()> {
/// task::block_on(async {
///     let socket = UdpSocket::bind("127.0.0.1:0").await?;
///     let task = task::Builder::new().name("reader".into()).spawn(async move {
///         socket.recv(&mut [0; 64]).await
///     })?;
/// #   while !rt::inspect().tasks.iter().any(|task| task.waits_for.is_some()) { task::yield_now().await }
///     let snapshot = rt::inspect();
///     println!("{snapshot}");
///     let reader = snapshot.task(task.task().id()).expect("it waits");
/// #   assert!(matches!(reader.waits_for, Some(WaitsFor::Socket { operation: SocketWait::Readable, .. })), "{reader:?}");
///     assert_eq!(reader.name.as_deref(), Some("reader"));
///     Ok(())
/// })
/// # }
/// ```
#[must_use]
pub fn inspect() -> Snapshot {
    Inspect::new().take()
}

/// Settings for taking a snapshot.
///
/// # Examples
/// ```
/// let snapshot = netpoll::rt::Inspect::new().tcp(true).take();
/// for socket in &snapshot.sockets {
///     if let Some(tcp) = socket.tcp {
///         println!("{}: {:?} round trip, {} bytes unsent", socket.fd, tcp.rtt, tcp.unsent);
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use = "settings do nothing until `take`"]
pub struct Inspect {
    tcp: bool,
}

impl Inspect {
    /// Creates settings that include tasks, sockets and workers, but no details of TCP connections.
    pub fn new() -> Inspect {
        Inspect::default()
    }

    /// Sets whether to ask the kernel for the TCP_INFO of each TCP socket (default: no). This takes
    /// one more system call per socket.
    pub fn tcp(mut self, tcp: bool) -> Inspect {
        self.tcp = tcp;
        self
    }

    /// Takes the snapshot, as [`inspect`] does.
    #[must_use]
    pub fn take(self) -> Snapshot {
        let (now, scale) = (clock::now(), Scale::new());
        let mut readings: Vec<Reading> = record::all().filter_map(|record| record.read(now)).collect();
        readings.sort_unstable_by_key(|reading| reading.id);
        let mut sockets = Vec::new();
        let mut by_index: Vec<usize> = Vec::new();
        // Tasks were read before sockets: a socket that a task waits for may have been closed
        // since, but a socket that is found already existed.
        for desc in runtime().cache.iter() {
            if let Some(info) = self.socket(desc, now, &scale) {
                // The position in `sockets` plus one; 0 if the slot has no socket.
                by_index.resize(desc.index as usize + 1, 0);
                by_index[desc.index as usize] = sockets.len() + 1;
                sockets.push(info);
            }
        }
        let running: Vec<u64> = runtime().processors().map(Processor::running_id).collect();
        let names = runtime().names.lock().clone().unwrap_or_default();
        let mut tasks = Vec::with_capacity(readings.len());
        for reading in &readings {
            let is_running = reading.is_running || running.contains(&reading.id);
            let found = if is_running { Found::Unknown } else { resolve(reading, &readings, &by_index, &mut sockets) };
            let is_due =
                matches!(found, Found::Due) || matches!(found, Found::WaitsFor(WaitsFor::Time(Duration::ZERO)));
            tasks.push(TaskInfo {
                id: TaskId::from_number(reading.id),
                name: names.get(&reading.id).map(|name| name.to_string()),
                kind: kind(reading.kind),
                spawned_at: reading.place,
                age: scale.since(reading.born),
                state: match () {
                    () if is_running => TaskState::Running,
                    () if is_due => TaskState::Ready,
                    () => TaskState::Waiting,
                },
                waits_for: match found {
                    Found::WaitsFor(waits_for) => Some(waits_for),
                    _ => None,
                },
                waits_for_more: reading.waits.1 && !is_running,
                polls: reading.polls,
                last_poll: scale.since(reading.polled),
                cpu: Duration::from_nanos(reading.cpu_nanos),
            });
        }
        sockets.sort_by_key(|socket| socket.fd);
        let workers = workers(&tasks);
        Snapshot { taken: SystemTime::now(), tasks, sockets, workers, metrics: metrics() }
    }

    fn socket(self, desc: &'static PollDesc, now: u64, scale: &Scale) -> Option<SocketInfo> {
        let description = desc.described()?;
        let number = description.number as i32;
        // SAFETY: the number is open while the generation is current. If the socket is closed
        // meanwhile and the number is reused, these calls only read state, and the result is
        // discarded below.
        #[allow(unsafe_code)]
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        let local = socket::local_addr_any(fd).ok();
        let peer = local.as_ref().and_then(|_| socket::peer_addr_any(fd).ok());
        let kind = match &local {
            None => "fd",
            Some(_) if description.is_tcp => "tcp",
            Some(local) => socket_kind(fd, local),
        };
        let is_listening = local.is_some()
            && peer.is_none()
            && option::is_on(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN).unwrap_or(false);
        let tcp =
            if self.tcp && kind == "tcp" { option::tcp_state(fd).ok().map(|state| details(&state)) } else { None };
        let [read, write] = desc.sides();
        let deadline = |direction| match desc.deadline(direction) {
            clock::NONE => None,
            clock::EXPIRED => Some(Duration::ZERO),
            at => Some(Duration::from_nanos(at.saturating_sub(now))),
        };
        let state = match () {
            () if read.is_closing() => SocketState::Closing,
            () if is_listening => SocketState::Listening,
            () if read.is_hung_up() => SocketState::HungUp,
            () if peer.is_some() => SocketState::Open,
            () => SocketState::Unconnected,
        };
        let info = SocketInfo {
            id: SocketId { index: desc.index, generation: description.generation },
            fd: number,
            kind,
            local: local.as_ref().and_then(address),
            peer: peer.as_ref().and_then(address),
            state,
            age: scale.since(description.opened),
            readers: read.waiting(),
            writers: write.waiting(),
            waiting: Vec::new(),
            read_deadline: deadline(Direction::Read),
            write_deadline: deadline(Direction::Write),
            tcp,
        };
        // Checked last: if it is current, the number belonged to this socket throughout.
        desc.is_current(description.generation).then_some(info)
    }
}

/// The meaning of a task's wait word.
enum Found {
    WaitsFor(WaitsFor),
    /// The event that the task waited for has happened.
    Due,
    Unknown,
}

fn resolve(reading: &Reading, readings: &[Reading], by_index: &[usize], sockets: &mut [SocketInfo]) -> Found {
    let (tag, operation) = match reading.waits.0 {
        Waits::Nothing => return Found::Unknown,
        Waits::Time(time) => {
            let left = time.saturating_sub(clock::now());
            return Found::WaitsFor(WaitsFor::Time(Duration::from_nanos(left)));
        }
        Waits::Task(bits) => {
            let mut found = readings.iter().filter(|other| Waits::is_task(other.id, bits));
            return match (found.next(), found.next()) {
                (Some(other), None) => Found::WaitsFor(WaitsFor::Task(TaskId::from_number(other.id))),
                (None, _) => Found::Due,
                _ => Found::Unknown,
            };
        }
        Waits::Readable(tag) => (tag, SocketWait::Readable),
        Waits::Writable(tag) => (tag, SocketWait::Writable),
        Waits::ReadLock(tag) => (tag, SocketWait::ReadLock),
        Waits::WriteLock(tag) => (tag, SocketWait::WriteLock),
        Waits::HangUp(tag) => (tag, SocketWait::HangUp),
    };
    if tag == NO_TAG {
        return Found::Unknown;
    }
    let place = by_index.get(tag_index(tag)).copied().unwrap_or(0);
    let Some(socket) = place.checked_sub(1).map(|place| &mut sockets[place]) else { return Found::Due };
    if !tag_is_of(tag, socket.id.generation) {
        return Found::Due;
    }
    let waiters = match operation {
        SocketWait::Writable | SocketWait::WriteLock => socket.writers,
        SocketWait::HangUp => socket.readers + socket.writers,
        _ => socket.readers,
    };
    if waiters == 0 {
        return Found::Due;
    }
    socket.waiting.push((TaskId::from_number(reading.id), operation));
    Found::WaitsFor(WaitsFor::Socket { socket: socket.id, operation })
}

fn kind(kind: Kind) -> TaskKind {
    match kind {
        Kind::Task => TaskKind::Task,
        Kind::Local => TaskKind::Local,
        Kind::Root => TaskKind::BlockOn,
        Kind::Call => TaskKind::Blocking,
    }
}

fn workers(tasks: &[TaskInfo]) -> Vec<WorkerInfo> {
    let last_poll = |id: TaskId| {
        let index = tasks.binary_search_by_key(&id, |task| task.id).ok()?;
        Some(tasks[index].last_poll)
    };
    let info = |processor: &'static Processor| {
        let running = processor.running_id();
        let running = (running != 0).then(|| TaskId::from_number(running));
        WorkerInfo {
            id: processor.id,
            owned: processor.owned.load(Ordering::Relaxed),
            running,
            running_for: running.and_then(last_poll),
            stuck: processor.stuck.load(Ordering::Relaxed),
            queued: processor.queue.len(),
            timers: processor.timers.len(),
            polls: processor.polls.get(),
            steals: processor.steals.get(),
        }
    };
    runtime().processors().map(info).collect()
}

fn socket_kind(fd: BorrowedFd<'_>, local: &SockAddr) -> &'static str {
    let ty = option::get::<libc::c_int>(fd, libc::SOL_SOCKET, libc::SO_TYPE).unwrap_or(0);
    let is_unix = i32::from(local.family()) == libc::AF_UNIX;
    match ty {
        libc::SOCK_STREAM if is_unix => "unix",
        libc::SOCK_DGRAM if is_unix => "unixgram",
        libc::SOCK_SEQPACKET => "unixpacket",
        libc::SOCK_STREAM => "tcp",
        libc::SOCK_DGRAM => "udp",
        _ => "socket",
    }
}

/// Returns an address, or `None` for a Unix socket without a name.
fn address(address: &SockAddr) -> Option<SocketAddress> {
    if let Some(address) = address.as_socket() {
        return Some(SocketAddress::Ip(address));
    }
    if let Some(path) = address.as_pathname() {
        return Some(SocketAddress::Unix(path.display().to_string()));
    }
    let name = address.as_abstract_namespace()?;
    Some(SocketAddress::Unix(format!("@{}", String::from_utf8_lossy(name))))
}

/// The names of the TCP states, indexed by their number in the kernel.
const STATES: [&str; 12] = [
    "UNKNOWN",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
];
const LISTEN: u8 = 10;

fn details(now: &option::TcpState) -> TcpDetails {
    let millis = |millis: u32| Duration::from_millis(u64::from(millis));
    let is_listener = now.state == LISTEN;
    TcpDetails {
        state: STATES.get(usize::from(now.state)).copied().unwrap_or(STATES[0]),
        rtt: Duration::from_micros(u64::from(now.rtt_micros)),
        congestion_window: now.congestion_window,
        retransmits: now.retransmits,
        unsent: now.unsent,
        bytes_sent: now.bytes_sent,
        bytes_received: now.bytes_received,
        last_sent: millis(now.last_sent_millis),
        last_received: millis(now.last_received_millis),
        accept_queue: if is_listener { now.unacknowledged } else { 0 },
        accept_queue_max: if is_listener { now.selectively_acknowledged } else { 0 },
    }
}

//! [`inspect()`]: a snapshot of the state of every task and socket, taken while they run.
//!
//! # Implementation
//! Each task has a record in a slab (`sched::record`), and each socket has a slot in the poll
//! cache. Both are read in place. No task is polled and no thread is stopped. A snapshot takes some
//! locks that tasks also take, and holds each only for a short time: for example those of the timer
//! sets, of the thread pools, and of the tables of names, labels and gathered bytes. If several
//! operations wait for one socket, their list is locked while they are counted. Addresses that are
//! not known are queried from the kernel by descriptor number. The result is discarded if the
//! generation of the slot is no longer current afterwards. The generation changes before the
//! descriptor is closed, so a current generation proves that the number belonged to this socket.
//!
//! # Pairing tasks with sockets
//! An operation that waits stores the tag of the socket in the record of its task. A tag consists
//! of the index of the socket's slot and 8 bits of its generation. A slot whose index is greater
//! than 2²⁰ − 2 has no tag, so the waits for its socket are not known. A task is paired with a
//! socket if the socket with that tag is open and has a waiting operation in the same direction
//! (for a hang-up, in either direction). A wrong pair is possible only if a close wakes the task,
//! and the slot is reused a multiple of 256 times before the task is polled.
//!
//! # Invariants
//! * Except for such a wrong pair, a task and a socket are paired only if an operation of that task
//!   on that socket returned `Pending` in the task's last poll (`tests/inspect.rs`:
//!   `pairs_are_right_during_spawns_and_closes`).
//! * All rows of a snapshot are read during the call, but not at the same instant. A task may be
//!   shown as waiting for a task that has ended.

mod at_path;
mod black_box;
mod dump;
#[cfg(test)]
mod format_tests;
mod json;
mod listeners;
mod memory;
mod row_data;
#[cfg(feature = "serde")]
mod serde;
mod server;
mod shards;
mod snapshot;
mod socket_info;
mod sockets;
mod table;
mod task_info;
mod trace_json;

use std::time::SystemTime;

pub use self::black_box::{BlackBox, WorkerEvent, WorkerEventKind, black_box};
pub(crate) use self::black_box::{set_file as set_black_box_file, write_file_of_stall};
pub use self::dump::{dump_on_panic, dump_on_sigusr1};
pub use self::listeners::openmetrics;
use self::memory::{AHEAD, fetch, with_room};
pub use self::row_data::{
    ListenerLimits, PollerShard, SocketAddress, SocketId, SocketState, SocketWait, TaskKind, TaskState, TcpDetails,
    WaitsFor, WokenBy, WorkerInfo,
};
pub use self::server::InspectServer;
pub(crate) use self::server::{serve_at, serve_from_environment, stop_serving_at};
pub use self::snapshot::Snapshot;
pub use self::socket_info::SocketInfo;
use self::sockets::{Asking, Reader};
pub use self::task_info::TaskInfo;
use self::task_info::Wait;
use super::metrics::metrics_with;
use super::runtime::runtime;
use super::sched::identity::{self, TaskId};
use super::sched::processor::Processor;
use super::sched::record::{self, Kind, Reading, Record};
use super::sched::waits::Waits;
use super::time::clock;
use super::time::ticks::Scale;
use crate::rt::poll::poll_desc::{NO_TAG, tag_index, tag_is_of};
use crate::sync::Ordering;

/// The default maximum number of system calls for addresses per snapshot.
const CALLS_MAX: usize = 2000;

/// Returns a snapshot of the state of every task, socket and worker.
///
/// No thread is stopped, and no task is polled. The call takes a fraction of a microsecond per task
/// and per socket, and makes at most 2,000 system calls for addresses on the calling thread. It
/// does not start the runtime.
///
/// Most addresses of TCP listeners and of accepted and dialled TCP connections are known without a
/// system call. An exception is the local address of a connection that a wildcard listener has
/// accepted. The addresses of other sockets are queried from the kernel. If this needs more than
/// 2,000 calls, some sockets have the state [`Unknown`](SocketState::Unknown) or no local address,
/// and the next snapshot queries these first. [`Inspect::addresses`] with `true` removes this
/// limit. [`Inspect::tcp`] adds the details of TCP sockets.
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
/// #   while !rt::inspect().tasks.iter().any(|task| task.waits_for().is_some()) { task::yield_now().await }
///     let snapshot = rt::inspect();
///     println!("{snapshot}");
///     let reader = snapshot.task(task.task().id()).expect("it waits");
/// #   assert!(matches!(reader.waits_for(), Some(WaitsFor::Socket { operation: SocketWait::Readable, .. })), "{reader:?}");
///     assert_eq!(reader.name(), Some("reader"));
///     Ok(())
/// })
/// # }
/// ```
#[doc(alias = "tokio-console")]
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
///     if let Some(tcp) = socket.tcp() {
///         println!("{}: {:?} round trip, {} bytes unsent", socket.fd(), tcp.rtt, tcp.unsent);
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "settings do nothing until `take`"]
pub struct Inspect {
    tcp: bool,
    asking: Asking,
    max_tasks: usize,
    /// The id up to which tasks are omitted.
    after: u64,
}

impl Default for Inspect {
    fn default() -> Inspect {
        Inspect::new()
    }
}

impl Inspect {
    /// Creates settings for a snapshot of all tasks, workers, and sockets with their addresses,
    /// without the details of TCP sockets. At most 2,000 system calls are made for addresses.
    pub fn new() -> Inspect {
        Inspect { tcp: false, asking: Asking::UpTo(CALLS_MAX), max_tasks: usize::MAX, after: 0 }
    }

    /// Sets whether to query all unknown addresses from the kernel. By default, at most 2,000
    /// system calls are made for them.
    ///
    /// Most addresses of TCP listeners and of accepted and dialled TCP connections are known. An
    /// unknown local address, such as that of a connection that a wildcard listener has accepted,
    /// takes one system call in the first snapshot that queries it. An adopted TCP socket takes up
    /// to three, whose results are kept for up to 4,096 such sockets. A multipath TCP socket, or a
    /// socket in an [`AsyncFd`](crate::io::AsyncFd), takes up to five in each snapshot, and a UDP
    /// or Unix socket up to three.
    ///
    /// With `false`, no addresses are queried. A socket whose addresses are unknown has the state
    /// [`Unknown`](SocketState::Unknown), unless it has hung up, is half closed or is being closed.
    ///
    /// # Examples
    /// ```
    /// // The fastest snapshot: no system call per socket.
    /// let snapshot = netpoll::rt::Inspect::new().addresses(false).take();
    /// println!("{} sockets", snapshot.sockets.len());
    /// ```
    pub fn addresses(mut self, addresses: bool) -> Inspect {
        self.asking = if addresses { Asking::Always } else { Asking::Never };
        self
    }

    /// Sets whether to include the TCP_INFO of each TCP socket, which takes one additional system
    /// call per socket. The default is `false`. Has no effect on systems other than Linux.
    pub fn tcp(mut self, tcp: bool) -> Inspect {
        self.tcp = tcp;
        self
    }

    /// Sets the maximum number of tasks in the snapshot, which then has the tasks with the lowest
    /// ids. [`Snapshot::more_tasks`] is the number of the tasks with greater ids. By default there
    /// is no limit.
    ///
    /// A task takes about 90 bytes in a snapshot. Sockets are not limited, but their lists of
    /// waiting tasks contain only tasks of the snapshot.
    ///
    /// # Examples
    /// ```
    /// # let tasks: Vec<_> = (0..25).map(|_| netpoll::task::spawn(std::future::pending::<()>())).collect();
    /// // All tasks, ten at a time.
    /// let inspect = netpoll::rt::Inspect::new().addresses(false).max_tasks(10);
    /// let (mut page, mut count) = (inspect.take(), 0);
    /// while !page.tasks.is_empty() {
    ///     count += page.tasks.len();
    ///     page = inspect.after(&page).take();
    /// }
    /// println!("{count} tasks");
    /// # assert!(count >= tasks.len());
    /// ```
    pub fn max_tasks(mut self, max_tasks: usize) -> Inspect {
        self.max_tasks = max_tasks;
        self
    }

    /// Omits the tasks up to the last task of an earlier snapshot, so that this snapshot continues
    /// where the earlier one ends.
    pub fn after(self, snapshot: &Snapshot) -> Inspect {
        self.after_task(snapshot.tasks.last().map_or(self.after, |task| task.id.number()))
    }

    /// Omits tasks up to the id `after`.
    fn after_task(mut self, after: u64) -> Inspect {
        self.after = after;
        self
    }

    /// Reads the tasks of the snapshot, ordered by id. Also returns the ids of all tasks if
    /// `max_tasks` or `after` is set, and the number of further tasks that `max_tasks` excludes.
    fn readings(self) -> (Vec<Reading>, Option<Vec<u64>>, usize) {
        let is_limited = self.max_tasks < usize::MAX || self.after > 0;
        if !is_limited {
            // The list has room for tasks that are spawned in the meantime, so that it is not
            // reallocated.
            let mut readings = with_room(runtime().tasks_alive() as usize + 64);
            readings.extend(record::all().filter_map(Record::read));
            readings.sort_unstable_by_key(|reading: &Reading| reading.id);
            return (readings, None, 0);
        }
        let mut ids: Vec<_> = record::all().map(Record::live_id).filter(|&id| id != 0).collect();
        ids.sort_unstable();
        let first = ids.partition_point(|&id| id <= self.after);
        let end = ids.len().min(first.saturating_add(self.max_tasks));
        let shown = &ids[first..end];
        let more = ids.len() - end;
        let (Some(&least), Some(&greatest)) = (shown.first(), shown.last()) else {
            return (Vec::new(), Some(ids), more);
        };
        let records = record::all().filter(|record| (least..=greatest).contains(&record.id()));
        let mut readings: Vec<_> = records.filter_map(Record::read).collect();
        // A record that was reused in the meantime belongs to a later task.
        readings.retain(|reading| reading.id <= greatest);
        readings.sort_unstable_by_key(|reading| reading.id);
        (readings, Some(ids), more)
    }

    /// Takes the snapshot, as [`inspect`] does.
    #[must_use]
    pub fn take(self) -> Snapshot {
        let (now, scale) = (clock::now(), Scale::new());
        let (readings, ids, more_tasks) = self.readings();
        let alive = match &ids {
            Some(ids) => Alive::Ids(ids),
            None => Alive::Shown(&readings),
        };
        // Tasks are read before sockets. So the socket for which a task waits may have been closed
        // in the meantime, but is never mistaken for a socket that was opened later.
        let (mut sockets, places) = Reader::new(self.asking, self.tcp, now, &scale).read();
        let running: Vec<u64> = runtime().processors().map(Processor::running_id).collect();
        let names = identity::names(readings.iter().map(|reading| reading.id));
        let mut tasks = with_room(readings.len());
        let mut causes = Causes { alive, last: None };
        for (at, reading) in readings.iter().enumerate() {
            if let Some(position) = readings.get(at + AHEAD).and_then(|next| position(next.waits(now).0, &places)) {
                fetch(&sockets[position]);
            }
            let (waits, waits_for_more) = reading.waits(now);
            let is_running = reading.is_running() || running.contains(&reading.id);
            let found =
                if is_running { Found::Unknown } else { resolve(reading.id, waits, now, alive, &places, &mut sockets) };
            let is_due = matches!(found, Found::Due | Found::WaitsFor(Wait::Time(0)));
            let woken_by = causes.of(reading.id, reading.woken(now), &places, &sockets);
            tasks.push(TaskInfo {
                id: TaskId::from_number(reading.id),
                name: names.get(&reading.id).cloned(),
                kind: kind(reading.kind()),
                lane: reading.lane,
                spawned_at: reading.place(),
                age_nanos: scale.nanos_since(reading.born()),
                state: match () {
                    () if is_running => TaskState::Running,
                    () if is_due => TaskState::Ready,
                    () => TaskState::Waiting,
                },
                waits_for: match found {
                    Found::WaitsFor(waits_for) => Some(waits_for),
                    _ => None,
                },
                waits_for_more: waits_for_more && !is_running,
                woken_by,
                polls: reading.polls,
                last_poll_nanos: scale.nanos_since(reading.polled),
                cpu: reading.cpu,
            });
        }
        let workers = workers(&tasks);
        Snapshot {
            taken: SystemTime::now(),
            tasks,
            more_tasks,
            places,
            shards: shards::shards(&sockets),
            metrics: metrics_with(|| sockets.iter().map(|socket| socket.readers() + socket.writers()).sum()),
            sockets,
            workers,
        }
    }
}

/// The meaning of a task's wait word.
enum Found {
    WaitsFor(Wait),
    /// The event that the task waited for has happened, or the task has yielded or was woken.
    Due,
    Unknown,
}

/// Returns the position of the socket in the snapshot, if `waits` is a wait until a socket is
/// readable or writable. `places` is the second result of [`Reader::read`].
fn position(waits: Waits, places: &[u32]) -> Option<usize> {
    match waits {
        Waits::Readable(tag) | Waits::Writable(tag) => Some(places.get(tag_index(tag))?.checked_sub(1)? as usize),
        _ => None,
    }
}

/// Decodes the wait of the task `id`, and adds the task to the list of the socket for which it
/// waits. `places` is the second result of [`Reader::read`].
fn resolve(id: u64, waits: Waits, now: u64, alive: Alive<'_>, places: &[u32], sockets: &mut [SocketInfo]) -> Found {
    let (tag, operation) = match waits {
        Waits::Nothing => return Found::Unknown,
        Waits::Turn | Waits::WokenByThread | Waits::WokenByTask(_) => return Found::Due,
        Waits::Time(time) => {
            return Found::WaitsFor(Wait::Time(time.saturating_sub(now)));
        }
        Waits::Task(bits) => {
            let mut found = ids(waits.id_bits(), bits, alive.last()).filter(|&id| alive.has(id));
            return match (found.next(), found.next()) {
                (Some(id), None) => Found::WaitsFor(Wait::Task(TaskId::from_number(id))),
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
    let place = places.get(tag_index(tag)).copied().unwrap_or(0);
    let Some(socket) = place.checked_sub(1).map(|position| &mut sockets[position as usize]) else { return Found::Due };
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
    socket.waiting.push((TaskId::from_number(id), operation));
    Found::WaitsFor(Wait::Socket { socket: socket.id, operation })
}

/// Returns the ids up to `last` whose lowest `count` bits are `bits`.
fn ids(count: u32, bits: u64, last: u64) -> impl DoubleEndedIterator<Item = u64> {
    let highest = (last >> count) + u64::from(last & ((1 << count) - 1) >= bits);
    (0..highest).map(move |high| high << count | bits)
}

/// The ids of all tasks, in order.
#[derive(Clone, Copy)]
enum Alive<'a> {
    /// The tasks of the snapshot are all tasks.
    Shown(&'a [Reading]),
    Ids(&'a [u64]),
}

impl Alive<'_> {
    fn has(self, id: u64) -> bool {
        match self {
            Alive::Shown(readings) => readings.binary_search_by_key(&id, |reading| reading.id).is_ok(),
            Alive::Ids(ids) => ids.binary_search(&id).is_ok(),
        }
    }

    fn last(self) -> u64 {
        match self {
            Alive::Shown(readings) => readings.last().map_or(0, |reading| reading.id),
            Alive::Ids(ids) => ids.last().copied().unwrap_or(0),
        }
    }
}

/// Finds the causes of the tasks' last wake-ups.
struct Causes<'a> {
    alive: Alive<'a>,
    /// The last search for a task, and its result, which is reused because one task often spawns
    /// many others.
    last: Option<(Waits, Option<u64>)>,
}

impl Causes<'_> {
    /// Decodes `woken`, the cause of the wake-up before the last poll of the task `id`.
    fn of(&mut self, id: u64, woken: Waits, places: &[u32], sockets: &[SocketInfo]) -> Option<WokenBy> {
        match woken {
            Waits::Nothing => None,
            Waits::Turn => Some(WokenBy::Itself),
            Waits::WokenByThread => Some(WokenBy::Thread),
            Waits::Time(_) => Some(WokenBy::Timer),
            Waits::Task(bits) | Waits::WokenByTask(bits) => {
                let by = self.task(woken, bits)?;
                Some(if by == id { WokenBy::Itself } else { WokenBy::Task(TaskId::from_number(by)) })
            }
            Waits::Readable(tag)
            | Waits::Writable(tag)
            | Waits::ReadLock(tag)
            | Waits::WriteLock(tag)
            | Waits::HangUp(tag) => {
                let place = places.get(tag_index(tag)).copied().filter(|_| tag != NO_TAG)?;
                let socket = sockets.get(place.checked_sub(1)? as usize)?;
                tag_is_of(tag, socket.id.generation).then_some(WokenBy::Socket(socket.id))
            }
        }
    }

    /// Returns the latest id of a live task whose lowest bits are `bits`. If there is none, returns
    /// the latest possible id with these bits.
    fn task(&mut self, woken: Waits, bits: u64) -> Option<u64> {
        if let Some((of, found)) = self.last
            && of == woken
        {
            return found;
        }
        let possible = || ids(woken.id_bits(), bits, TaskId::latest()).rev();
        let found = possible().find(|&id| self.alive.has(id)).or_else(|| possible().next());
        self.last = Some((woken, found));
        found
    }
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
        Some(tasks[index].last_poll())
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
            polls: processor.turns.ended(),
            steals: processor.steals.get(),
        }
    };
    runtime().processors().map(info).collect()
}

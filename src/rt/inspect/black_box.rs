//! [`BlackBox`]: the last events of all workers, read from their rings.
//!
//! Each worker records its turns, with their socket calls, in one ring
//! ([`TurnRing`](crate::rt::sched::turn_ring::TurnRing)), and its other events, such as sleeps and
//! steals, in another ([`EventRing`](crate::rt::sched::event_ring::EventRing)). Sysmon records the
//! tasks that block their workers in a ring of its own. The rings are read without stopping a
//! thread. Times are recorded in [`ticks`] and converted when the rings are read.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant, SystemTime};

use super::at_path::at_path;
use crate::rt::runtime::runtime;
use crate::rt::sched::event_ring::{Event, Mark, ticks_since};
use crate::rt::sched::identity::{self, Printable};
use crate::rt::sched::record::{self, Record};
use crate::rt::sched::turn_ring::{Turn, unpack_word};
use crate::rt::time::ticks::{Scale, ticks};
use crate::rt::warn::warn;
use crate::sync::{AtomicUsize, Ordering};
use crate::task::TaskId;

/// The minimum time between two files that are written because tasks block.
const AGAIN: Duration = Duration::from_secs(10);
/// The environment variable with the path of the file.
const VARIABLE: &str = "NETPOLL_BLACK_BOX";

/// The last events of the workers, such as turns of tasks, socket calls and sleeps; returned by
/// [`black_box`].
///
/// `BlackBox` is plain data. `Display` prints one line per event;
/// [`to_trace_json`](BlackBox::to_trace_json) converts it for a trace viewer.
///
/// # Examples
/// ```
/// use netpoll::rt::{self, WorkerEventKind};
/// use std::time::Duration;
///
/// let black_box = rt::black_box();
/// // The turns that kept a worker for more than a millisecond.
/// for event in black_box.events.iter().filter(|event| event.lasted > Duration::from_millis(1)) {
///     if let WorkerEventKind::Turn { task, .. } = event.kind {
///         println!("{:?} ago: task {task} {:?}, {:?}", event.ago, black_box.label(task), event.lasted);
///     }
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BlackBox {
    /// The time at which the events were read.
    pub taken: SystemTime,
    /// The events, oldest first.
    pub events: Vec<WorkerEvent>,
    /// The [labels](BlackBox::label) of the tasks in `events`, by id.
    labels: HashMap<u64, String>,
}

/// An event of a [`BlackBox`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerEvent {
    /// The number of the worker, as in [`WorkerInfo::id`](super::WorkerInfo::id). `None` for the
    /// thread that watches the workers.
    pub worker: Option<usize>,
    /// The time from the beginning of the event to [`taken`](BlackBox::taken).
    pub ago: Duration,
    /// The time from the event to the worker's next event or, for its last event, to
    /// [`taken`](BlackBox::taken). Zero for [`Blocks`](WorkerEventKind::Blocks).
    pub lasted: Duration,
    /// The event.
    pub kind: WorkerEventKind,
}

impl WorkerEvent {
    /// Returns whether the event is shown with its duration.
    pub(super) fn is_span(&self) -> bool {
        matches!(self.kind, WorkerEventKind::Turn { .. } | WorkerEventKind::Sleeps | WorkerEventKind::Rests)
    }
}

/// The kinds of [`WorkerEvent`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerEventKind {
    /// A task is polled.
    Turn {
        /// The task.
        task: TaskId,
        /// The socket calls in order: the descriptor of each, and whether it was a write. Calls
        /// that would have had to wait (EAGAIN) are omitted; other failed calls are included. An
        /// accept counts as a read.
        calls: Vec<(RawFd, bool)>,
    },
    /// The worker sleeps until a socket is ready, a timer is due, or another thread wakes it.
    Sleeps,
    /// The sleep has ended.
    Rises {
        /// The number of wake-ups that the events of the sleep caused.
        wakeups: usize,
    },
    /// The worker has polled for socket events without sleeping.
    Polls {
        /// The number of wake-ups that the events caused.
        wakeups: usize,
    },
    /// The worker has run the timers that were due.
    RunsTimers {
        /// The number of wake-ups that the timers caused.
        wakeups: usize,
    },
    /// The worker rests, because it has no work and other threads poll the sockets.
    Rests,
    /// The thread gives up the worker's queue, because a task, a waker, a destructor or the future
    /// of a [`block_on`](crate::task::block_on) on this thread waits in a nested `block_on`;
    /// because the thread is not a worker and stops running tasks; or because the runtime was shut
    /// down.
    Leaves,
    /// A thread takes over the worker's queue.
    Begins,
    /// The worker has taken tasks from another worker's queue.
    Steals {
        /// The number of the other worker.
        from: usize,
    },
    /// The task has blocked its worker for about 10 ms or more. Not recorded with
    /// [`BlockedPolicy::Off`](crate::rt::BlockedPolicy::Off), nor in a
    /// [single-threaded](crate::rt::Builder::single_threaded) runtime before it has to start the
    /// threads of an ordinary one.
    Blocks {
        /// The task.
        task: TaskId,
    },
}

/// Reads the last events of all workers, which are at most about 2,000 turns and 2,000 other events
/// per worker.
///
/// Events are always recorded, at a cost of about 28 instructions per request. They are read
/// without stopping a thread. Threads in [`spawn_blocking`](crate::task::spawn_blocking), threads
/// in [`block_on`](crate::task::block_on) that run no tasks, and simulations record no events.
///
/// # Examples
/// ```
/// netpoll::task::block_on(netpoll::task::spawn(async {}));
/// let json = netpoll::rt::black_box().to_trace_json();
/// assert!(json.contains("\"worker 0\"")); // open it with ui.perfetto.dev
/// ```
#[must_use]
#[doc(alias = "flight recorder")]
#[doc(alias = "trace")]
pub fn black_box() -> BlackBox {
    let (scale, taken) = (Scale::new(), SystemTime::now());
    let now = ticks();
    let mut events = Vec::new();
    for processor in runtime().processors() {
        let ((turns, has_all_turns), (between, has_all_events)) = (processor.turns.read(), processor.events.read());
        // If one ring has overwritten events, older events of the other ring are dropped. Otherwise
        // turns would appear to last too long, because the events between them are missing.
        let oldest = [
            turns.first().filter(|_| !has_all_turns).map(|turn| turn.ticks),
            between.first().filter(|_| !has_all_events).map(|event| event.ticks),
        ];
        let oldest = oldest.into_iter().flatten().map(|ticks| ticks_since(ticks, now)).min().unwrap_or(u64::MAX);
        let turns = turns.into_iter().map(Recorded::Turn).chain(between.into_iter().map(Recorded::Event));
        let mut recorded: Vec<_> = turns.map(|recorded| (ticks_since(recorded.ticks(), now), recorded)).collect();
        recorded.retain(|&(since, _)| since <= oldest);
        recorded.sort_by_key(|&(since, _)| std::cmp::Reverse(since));
        collect(&mut events, Some(processor.id), &recorded, &scale);
    }
    let of_sysmon = runtime().sysmon.events().into_iter();
    let of_sysmon: Vec<_> = of_sysmon.map(|event| (ticks_since(event.ticks, now), Recorded::Event(event))).collect();
    collect(&mut events, None, &of_sysmon, &scale);
    events.sort_by_key(|event: &WorkerEvent| std::cmp::Reverse(event.ago));
    let labels = labels(&events);
    BlackBox { taken, events, labels }
}

/// A turn, or an event between turns.
#[derive(Clone, Copy, Debug)]
enum Recorded {
    Turn(Turn),
    Event(Event),
}

impl Recorded {
    fn ticks(&self) -> u64 {
        match self {
            Recorded::Turn(turn) => turn.ticks,
            Recorded::Event(event) => event.ticks,
        }
    }
}

/// Appends the events of one worker, or of sysmon. `recorded` has the age of each event in ticks,
/// and begins with the oldest.
fn collect(into: &mut Vec<WorkerEvent>, worker: Option<usize>, recorded: &[(u64, Recorded)], scale: &Scale) {
    let first = into.len();
    // The number of calls in the entry of the last turn. Calls of the same turn that were moved to
    // a `Mark::Calls` precede them.
    let mut in_entry = 0;
    for &(since, recorded) in recorded {
        let kind = match recorded {
            Recorded::Turn(turn) => {
                let calls: Vec<_> = turn.calls().collect();
                in_entry = calls.len();
                WorkerEventKind::Turn { task: TaskId::from_number(turn.task), calls }
            }
            Recorded::Event(Event { mark, value, .. }) => match mark {
                Mark::Sleep => WorkerEventKind::Sleeps,
                Mark::Rise => WorkerEventKind::Rises { wakeups: value as usize },
                Mark::Poll => WorkerEventKind::Polls { wakeups: value as usize },
                Mark::Timers => WorkerEventKind::RunsTimers { wakeups: value as usize },
                Mark::Rest => WorkerEventKind::Rests,
                Mark::Leave => WorkerEventKind::Leaves,
                Mark::Begin => WorkerEventKind::Begins,
                Mark::Steal => WorkerEventKind::Steals { from: value as usize },
                Mark::Stuck => WorkerEventKind::Blocks { task: TaskId::from_number(value) },
                Mark::Calls => {
                    // Calls whose turn was overwritten are omitted.
                    if let Some(WorkerEvent { kind: WorkerEventKind::Turn { calls, .. }, .. }) =
                        into[first..].last_mut()
                    {
                        let at = calls.len() - in_entry.min(calls.len());
                        calls.splice(at..at, unpack_word(value));
                    }
                    continue;
                }
            },
        };
        let ago = scale.duration(since);
        if let Some(last) = into[first..].last_mut().filter(|_| worker.is_some()) {
            last.lasted = last.ago.saturating_sub(ago);
        }
        let lasted = if worker.is_some() { ago } else { Duration::ZERO };
        into.push(WorkerEvent { worker, ago, lasted, kind });
    }
}

/// Returns the labels of the tasks in `events`, by id; see [`BlackBox::label`].
fn labels(events: &[WorkerEvent]) -> HashMap<u64, String> {
    let shown: HashSet<_> = events
        .iter()
        .filter_map(|event| match event.kind {
            WorkerEventKind::Turn { task, .. } | WorkerEventKind::Blocks { task } => Some(task.number()),
            _ => None,
        })
        .collect();
    let mut labels: HashMap<_, _> = record::all()
        .filter_map(Record::read)
        .filter(|reading| shown.contains(&reading.id))
        .filter_map(|reading| Some((reading.id, reading.place()?.to_string())))
        .collect();
    let names = identity::names(shown.iter().copied());
    labels.extend(names.into_iter().map(|(id, name)| (id, name.to_string())));
    labels
}

impl BlackBox {
    /// Returns the name of a task or, if it has none, the place where it was spawned. Returns
    /// `None` if the task is not in the events, if it has neither a name nor a known place, or if
    /// it had ended when the events were read. A task with a name counts as ended here only when
    /// its handle and its wakers have been dropped too.
    pub fn label(&self, task: TaskId) -> Option<&str> {
        self.labels.get(&task.number()).map(String::as_str)
    }

    /// Writes the result of [`to_trace_json`](BlackBox::to_trace_json) to a file. An existing file
    /// is replaced atomically.
    ///
    /// # Errors
    /// Returns an error if a temporary file in the same directory cannot be created, written or
    /// renamed. Its text names `path`, its kind is that of the OS error, and
    /// [`raw_os_error`](crate::net::raw_os_error) returns the errno.
    ///
    /// # Examples
    /// ```
    /// let path = std::env::temp_dir().join(format!("black-box-{}.json", std::process::id()));
    /// netpoll::rt::black_box().write_to(&path)?;
    /// assert!(std::fs::read_to_string(&path)?.starts_with('{'));
    /// # std::fs::remove_file(&path)?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn write_to(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        self.write(path).map_err(|error| at_path("cannot write the black box to", path, error))
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        // Several threads may write at the same time.
        static PARTS: AtomicUsize = AtomicUsize::new(0);
        let (part, mut file) = loop {
            let number = PARTS.fetch_add(1, Ordering::Relaxed);
            let mut part = path.as_os_str().to_owned();
            part.push(format!(".{}-{number}.part", std::process::id()));
            match File::create_new(&part) {
                // An earlier process with the same process ID was killed and left the file.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                created => break (part, created?),
            }
        };
        let written = file.write_all(self.to_trace_json().as_bytes()).and_then(|()| std::fs::rename(&part, path));
        if written.is_err() {
            let _ = std::fs::remove_file(&part);
        }
        written
    }
}

/// Formats one line per event, oldest first.
impl fmt::Display for BlackBox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for event in &self.events {
            write!(f, "{:>12} ms ago  ", format!("{:.4}", event.ago.as_secs_f64() * 1e3))?;
            match event.worker {
                Some(worker) => write!(f, "worker {worker:<3}")?,
                None => f.write_str("sysmon    ")?,
            }
            self.describe(f, &event.kind)?;
            if event.is_span() {
                write!(f, " ({:.1?})", event.lasted)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl BlackBox {
    fn describe(&self, f: &mut fmt::Formatter<'_>, kind: &WorkerEventKind) -> fmt::Result {
        let named = |f: &mut fmt::Formatter<'_>, task: TaskId| {
            write!(f, "task {task}")?;
            self.label(task).map_or(Ok(()), |label| write!(f, " {}", Printable(label)))
        };
        match kind {
            WorkerEventKind::Turn { task, calls } => {
                named(f, *task)?;
                calls.iter().try_for_each(|(fd, writes)| write!(f, ", {} {fd}", if *writes { "wrote" } else { "read" }))
            }
            WorkerEventKind::Sleeps => f.write_str("sleeps"),
            WorkerEventKind::Rises { wakeups } => write!(f, "rises with {wakeups} wake-ups"),
            WorkerEventKind::Polls { wakeups } => write!(f, "polls, {wakeups} wake-ups"),
            WorkerEventKind::RunsTimers { wakeups } => write!(f, "runs timers, {wakeups} wake-ups"),
            WorkerEventKind::Rests => f.write_str("rests"),
            WorkerEventKind::Leaves => f.write_str("leaves its work to others"),
            WorkerEventKind::Begins => f.write_str("begins"),
            WorkerEventKind::Steals { from } => write!(f, "steals from worker {from}"),
            WorkerEventKind::Blocks { task } => {
                named(f, *task)?;
                f.write_str(" blocks its worker")
            }
        }
    }
}

/// The path set by [`Builder::black_box_file`](crate::rt::Builder::black_box_file), and the time of
/// the last write that a blocked task caused.
static FILE: Mutex<(Option<PathBuf>, Option<Instant>)> = Mutex::new((None, None));

/// Sets the path of [`write_file`]. `None` selects the path in the environment. Permits
/// [`write_file_of_stall`] to write again immediately.
pub(crate) fn set_file(path: Option<PathBuf>) {
    *FILE.lock().unwrap_or_else(PoisonError::into_inner) = (path, None);
}

fn file_or_environment(path: &Option<PathBuf>) -> Option<PathBuf> {
    path.clone().or_else(|| std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from))
}

/// Writes the file, if a path is set. Prints an error to standard error, because no caller could
/// handle it.
pub(super) fn write_file() {
    let path = file_or_environment(&FILE.lock().unwrap_or_else(PoisonError::into_inner).0);
    if let Some(path) = path
        && let Err(error) = black_box().write_to(&path)
    {
        warn(format_args!("{error}"));
    }
}

/// Writes the file on a separate thread. Called when a task blocks its worker. Does nothing if no
/// path is set, or if a file was already written for this reason within the last [`AGAIN`].
pub(crate) fn write_file_of_stall() {
    {
        let mut file = FILE.lock().unwrap_or_else(PoisonError::into_inner);
        let (path, written) = &mut *file;
        if file_or_environment(path).is_none() || written.is_some_and(|written| written.elapsed() < AGAIN) {
            return;
        }
        *written = Some(Instant::now());
    }
    if std::thread::Builder::new().name("netpoll-black-box".to_owned()).spawn(write_file).is_err() {
        // The next blocked task tries again.
        FILE.lock().unwrap_or_else(PoisonError::into_inner).1 = None;
    }
}

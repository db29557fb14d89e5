//! The identity of tasks: [`TaskId`], [`Task`], and the table of task names.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU64;
use std::panic::Location;
use std::sync::Arc;

use super::lanes::Lane;
use crate::sync::{AtomicU64, Mutex, Ordering};

/// The id of a task, which is unique in the process and never reused.
///
/// # Examples
/// ```
/// netpoll::task::block_on(async {
///     println!("running in task {}", netpoll::task::current().id());
/// });
/// ```
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(u64);

/// The last number that was reserved for a task.
static LAST: AtomicU64 = AtomicU64::new(0);

/// The number of task ids that a processor reserves at a time. If another thread has reserved ids
/// since the last reservation, the processor reserves one.
const RESERVED: u64 = 16;

/// The numbers that a processor has reserved for new tasks. Only its owner accesses them. They are
/// used only while no other thread has reserved later numbers, so ids are in the order in which
/// tasks are spawned.
#[derive(Debug)]
pub(crate) struct Reserved {
    next: AtomicU64,
    /// The number after the last reserved one.
    end: AtomicU64,
}

impl Reserved {
    pub(crate) fn new() -> Reserved {
        Reserved { next: AtomicU64::new(0), end: AtomicU64::new(0) }
    }

    /// Takes the next number.
    #[inline]
    pub(crate) fn take(&self) -> u64 {
        let (mut next, end) = (self.next.load(Ordering::Relaxed), self.end.load(Ordering::Relaxed));
        let is_latest = LAST.load(Ordering::Relaxed) + 1 == end;
        if next == end || !is_latest {
            // If several threads spawn tasks, reserved numbers would be wasted.
            let count = if is_latest { RESERVED } else { 1 };
            next = reserve(count);
            self.end.store(next + count, Ordering::Relaxed);
        }
        self.next.store(next + 1, Ordering::Relaxed);
        next
    }
}

/// Reserves `count` consecutive numbers, and returns the first.
pub(crate) fn reserve(count: u64) -> u64 {
    LAST.fetch_add(count, Ordering::Relaxed) + 1
}

impl TaskId {
    /// Returns the last number that was reserved for a task, or 0 if there was none.
    pub(crate) fn latest() -> u64 {
        LAST.load(Ordering::Relaxed)
    }

    pub(crate) fn number(self) -> u64 {
        self.0
    }

    pub(crate) fn from_number(number: u64) -> TaskId {
        TaskId(number)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A handle to a task: its id, its name, its lane and the place where it was spawned.
///
/// # Examples
/// ```
/// use netpoll::task;
///
/// let named = task::Builder::new().name("greeter".into()).spawn(async { task::current().name().map(str::to_owned) })?;
/// assert_eq!(task::block_on(named).as_deref(), Some("greeter"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Task(Repr);

/// The content of a [`Task`]. A program may have a handle to each task, and few tasks have names.
#[derive(Clone)]
enum Repr {
    Unnamed { word: Word, place: Option<&'static Location<'static>> },
    Named(Arc<Named>),
}

// The niche of `word` distinguishes the variants.
const _: () = assert!(size_of::<Task>() <= 2 * size_of::<u64>());

struct Named {
    word: Word,
    place: Option<&'static Location<'static>>,
    name: Name,
}

/// The id of a task, shifted to the left by two bits, with the bit [`CONTROL`] for a control task
/// and a bit that is always set. Even at a billion tasks per second, ids need the two highest bits
/// only after more than a hundred years.
type Word = NonZeroU64;

const CONTROL: u64 = 2;

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("id", &self.id())
            .field("name", &self.name())
            .field("place", &self.spawned_at())
            .field("lane", &self.lane())
            .finish()
    }
}

/// The name of a task. The type takes only one word, because most tasks have no name.
pub(crate) type Name = Arc<Box<str>>;

/// Formats a name for a message with `?` in place of each control character, because names of tasks
/// may come from peers, and the message may be printed on a terminal.
pub(crate) struct Printable<'a>(pub(crate) &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.replace(char::is_control, "?"))
    }
}

impl Task {
    #[inline]
    pub(crate) fn new(id: TaskId, name: Option<Name>, place: Option<&'static Location<'static>>, lane: Lane) -> Task {
        #[cold]
        fn named(word: Word, place: Option<&'static Location<'static>>, name: Name) -> Task {
            Task(Repr::Named(Arc::new(Named { word, place, name })))
        }

        let word = NonZeroU64::MIN | id.0 << 2 | if lane == Lane::Control { CONTROL } else { 0 };
        match name {
            None => Task(Repr::Unnamed { word, place }),
            Some(name) => named(word, place, name),
        }
    }

    #[inline]
    fn word(&self) -> u64 {
        match &self.0 {
            Repr::Unnamed { word, .. } => word.get(),
            Repr::Named(named) => named.word.get(),
        }
    }

    /// Returns the task's id.
    #[inline]
    pub fn id(&self) -> TaskId {
        TaskId(self.word() >> 2)
    }

    /// Returns the name given by [`Builder::name`](crate::task::Builder::name), if there is one.
    pub fn name(&self) -> Option<&str> {
        match &self.0 {
            Repr::Unnamed { .. } => None,
            Repr::Named(named) => Some(&named.name),
        }
    }

    /// Returns the file and line of the call that spawned the task, for messages such as those of a
    /// panic hook. May return `None` if the call is in a library that is loaded far from this crate
    /// in memory.
    ///
    /// # Examples
    /// ```
    /// use netpoll::task;
    ///
    /// std::panic::set_hook(Box::new(|info| {
    ///     eprintln!("{info}");
    ///     if let Some(place) = task::try_current().and_then(|task| task.spawned_at()) {
    ///         eprintln!("in the task spawned at {place}");
    ///     }
    /// }));
    /// ```
    pub fn spawned_at(&self) -> Option<&'static Location<'static>> {
        match &self.0 {
            Repr::Unnamed { place, .. } => *place,
            Repr::Named(named) => named.place,
        }
    }

    /// Returns the task's lane; see [`Lane`].
    ///
    /// # Examples
    /// ```
    /// use netpoll::{rt::Lane, task};
    ///
    /// assert_eq!(task::block_on(async { task::current().lane() }), Lane::Normal);
    /// ```
    pub fn lane(&self) -> Lane {
        if self.word() & CONTROL == 0 { Lane::Normal } else { Lane::Control }
    }
}

/// The names of tasks by id, for reports and snapshots.
static NAMES: Mutex<Option<HashMap<u64, Name>>> = Mutex::new(None);

/// Creates the table before a simulation starts. The table's hasher takes random numbers when the
/// table is created. These must not be random numbers of a simulation.
#[cfg(feature = "sim")]
pub(crate) fn prepare() {
    NAMES.lock().get_or_insert_default();
}

/// Adds the name of a new task.
pub(crate) fn remember(number: u64, name: Name) {
    NAMES.lock().get_or_insert_default().insert(number, name);
}

/// Removes the name of a task that was freed.
#[cold]
pub(crate) fn forget(number: u64) {
    let name = NAMES.lock().as_mut().and_then(|names| names.remove(&number));
    drop(name);
}

/// Returns the name of a task, if it has one.
pub(crate) fn name_of(task: TaskId) -> Option<String> {
    NAMES.lock().as_ref()?.get(&task.number()).map(|name| name.to_string())
}

/// The maximum number of names that are looked up in one critical section. It is small, so that the
/// section is short.
const NAMES_BATCH: usize = 64;

/// Returns the names of `tasks` by id. Tasks without a name are omitted.
pub(crate) fn names(tasks: impl IntoIterator<Item = u64>) -> HashMap<u64, Name> {
    let (mut names, mut tasks) = (HashMap::new(), tasks.into_iter());
    loop {
        let batch: Vec<u64> = tasks.by_ref().take(NAMES_BATCH).collect();
        let mut found = Vec::with_capacity(NAMES_BATCH);
        {
            let all = NAMES.lock();
            let Some(all) = all.as_ref().filter(|all| !all.is_empty()) else { return names };
            found.extend(batch.iter().filter_map(|id| Some((*id, all.get(id)?.clone()))));
        }
        names.extend(found);
        if batch.len() < NAMES_BATCH {
            return names;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_ids_are_in_the_order_of_spawns() {
        let (one, other) = (Reserved::new(), Reserved::new());
        let mut last = 0;
        for round in 0..100 {
            // Other tests of this process also take ids.
            let taken = match round % 7 {
                0 => reserve(1),
                1 | 4 | 5 => other.take(),
                _ => one.take(),
            };
            assert!(taken > last, "{taken} after {last}");
            last = taken;
        }
    }

    #[test]
    fn several_ids_are_reserved_if_no_other_thread_takes_any() {
        let one = Reserved::new();
        let reserves = |_| {
            one.take();
            one.end.load(Ordering::Relaxed) - one.next.load(Ordering::Relaxed) == RESERVED - 1
        };
        // This is tried again, because other tests of this process also take ids.
        assert!((0..10_000).any(reserves));
    }
}

//! Per-thread lists of the sockets that have unsent bytes, because writes are gathered until the
//! turn ends (`net::fd::cork`).
//!
//! # States
//! *none* → (`push`, by a write of a turn) → *some* → (`flush`) → *none*.
//!
//! # When a list is flushed
//! * At the end of each turn of a task, of a local task, of the future of a `block_on`, or of the
//!   main future of a simulation.
//! * Before an operation returns `Pending` because it waits for a descriptor, a timer, a task, a
//!   close or a look-up, or yields. A task may contain another executor, such as the `block_on` of
//!   another crate, which would otherwise wait in the middle of the turn for the answer to bytes
//!   that have not been sent. A wait in which a short count replaces the call
//!   (`net::fd::short_wait`) need not flush, because it uses the task's own waker and not that of
//!   another executor.
//! * Before a nested `block_on` of this crate.
//! * Before the write deadline of a socket that gathers writes is set, because the bytes were
//!   written under the old deadline.
//! * By sysmon, unless it is missing, if two consecutive checks, 10 ms apart, find the list in the
//!   same period of *some*, because the turn is long or waits for something outside this crate. The
//!   sockets stay in the list.
//!
//! # Invariants
//! * An entry is not a handle of the socket: the list keeps no socket open, and neither a flush nor
//!   the drop of an entry closes one. A socket that is dropped sends its bytes itself. So a flush
//!   calls no user code, and sysmon may flush a list.
//! * The list is unlocked while its sockets are flushed, because a flush takes the lock of the
//!   socket's bytes, and that lock is held while the socket enters a list.
//! * Only the thread itself adds sockets to its list and removes them. A socket may be in a list
//!   more than once.
//!
//! # Cancellation
//! If a turn panics, its caller flushes the list, as at the end of any turn. If a flush panics, the
//! panic is caught, and the other sockets of the list are flushed.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};

use crate::rt::fork;
use crate::rt::waiters::drop_payload;
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering};
use crate::sys::membarrier;

/// The unsent bytes of a socket. This is not a handle of the socket.
pub(crate) trait Unsent: Send + Sync + RefUnwindSafe + UnwindSafe {
    /// Sends as many bytes as the socket accepts, and makes sure that the remaining bytes are sent
    /// later. Called by the thread that has taken the socket out of its list, and by sysmon. Must
    /// not wait or call user code.
    fn flush(self: Arc<Self>);

    /// Returns the number of unsent bytes, for [`inspect`](crate::rt::inspect()).
    fn amount(&self) -> Amount;
}

/// The number of unsent bytes of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Amount {
    /// The slot of the socket.
    pub(crate) index: u32,
    pub(crate) generation: u32,
    pub(crate) bytes: usize,
}

/// The list of one thread.
#[derive(Default)]
struct List {
    sockets: Mutex<Vec<Arc<dyn Unsent>>>,
    /// The number of periods of *some* that have begun.
    begun: AtomicU64,
    /// The value of `begun` at the last check by sysmon.
    seen: AtomicU64,
    /// Whether the thread runs a simulation, whose sockets other threads must not use.
    simulates: AtomicBool,
}

impl List {
    /// Returns the sockets, except those of a simulation.
    fn real(&self) -> Vec<Arc<dyn Unsent>> {
        let sockets = self.sockets.lock();
        // Checked under the lock, under which the flag changes: later the list may have sockets of
        // a simulation.
        if self.simulates.load(Ordering::Relaxed) { Vec::new() } else { sockets.clone() }
    }

    /// Returns the sockets if the list is in the same period of *some* as at the last call, and
    /// otherwise none. Sockets of a simulation are omitted.
    fn old(&self) -> Vec<Arc<dyn Unsent>> {
        let sockets = self.sockets.lock();
        let begun = self.begun.load(Ordering::Relaxed);
        let is_seen = self.seen.swap(begun, Ordering::Relaxed) == begun;
        // As in `real`.
        if is_seen && !self.simulates.load(Ordering::Relaxed) { sockets.clone() } else { Vec::new() }
    }
}

/// A thread's handle of its list.
#[derive(Default)]
struct OwnList {
    list: Arc<List>,
    /// An empty vector, whose memory the list uses next.
    spare: Cell<Vec<Arc<dyn Unsent>>>,
}

thread_local! {
    /// The number of entries of the list.
    static COUNT: Cell<usize> = const { Cell::new(0) };
    /// Whether this thread runs a simulation.
    static SIMULATES: Cell<bool> = const { Cell::new(false) };
    static LIST: OwnList = OwnList::default();
    /// Whether the list is in [`LISTS`].
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

/// The lists that sysmon checks.
static LISTS: Mutex<Vec<Weak<List>>> = Mutex::new(Vec::new());

/// The *blocked* sockets, which did not accept all bytes of a flush. Some of them may have sent the
/// remaining bytes in the meantime. The keys are unique among live sockets.
static BLOCKED: Mutex<BTreeMap<usize, Weak<dyn Unsent>>> = Mutex::new(BTreeMap::new());

/// Adds a blocked socket, for [`amounts`], unless it was already added. The socket must be
/// [removed](leave_blocked) before it is dropped.
pub(crate) fn enter_blocked(id: usize, socket: impl FnOnce() -> Weak<dyn Unsent>) {
    BLOCKED.lock().entry(id).or_insert_with(socket);
}

/// Removes a blocked socket, which has sent all bytes or is about to be dropped. Does nothing if it
/// was not added.
pub(crate) fn leave_blocked(id: usize) {
    let removed = BLOCKED.lock().remove(&id);
    drop(removed);
}

/// Returns the amounts of all sockets with unsent bytes, in any order. The result may contain a
/// socket several times. Sockets in the lists of threads that run simulations are omitted. Returns
/// nothing in a forked child, whose sockets may have been locked by other threads at the fork.
pub(crate) fn amounts() -> Vec<Amount> {
    if fork::is_child() {
        return Vec::new();
    }
    let lists: Vec<_> = LISTS.lock().iter().filter_map(Weak::upgrade).collect();
    let blocked: Vec<_> = BLOCKED.lock().values().cloned().collect();
    let mut sockets: Vec<_> = blocked.iter().filter_map(Weak::upgrade).collect();
    sockets.extend(lists.iter().flat_map(|list| list.real()));
    sockets.iter().map(|socket| socket.amount()).filter(|amount| amount.bytes > 0).collect()
}

/// Returns a number that identifies the list of this thread among the lists of live threads.
#[inline]
pub(crate) fn list() -> usize {
    COUNT.with(|count| std::ptr::from_ref(count).addr())
}

/// The maximum number of sockets that a thread flushes at once. Each needs a system call.
const SOCKETS_MAX: usize = 2048;

/// Returns whether a socket can be added to the list of this thread. The list cannot be used while
/// the thread exits.
pub(crate) fn has_room() -> bool {
    COUNT.get() < SOCKETS_MAX && LIST.try_with(|_| ()).is_ok()
}

/// Adds a socket to the list of this thread. Returns whether it is the first entry.
pub(crate) fn push(socket: Arc<dyn Unsent>) -> bool {
    let is_first = LIST.try_with(|OwnList { list, .. }| {
        let mut sockets = list.sockets.lock();
        let is_first = sockets.is_empty();
        sockets.push(socket);
        if is_first {
            // ORDERING: Relaxed: this is written and read under the lock.
            list.begun.fetch_add(1, Ordering::Relaxed);
        }
        drop(sockets);
        if !WATCHED.get() && !SIMULATES.get() {
            watch(list);
        }
        is_first
    });
    COUNT.set(COUNT.get() + 1);
    is_first.unwrap_or(false)
}

#[cold]
fn watch(list: &Arc<List>) {
    let mut lists = LISTS.lock();
    // Removes the lists of threads that have ended.
    lists.retain(|list| list.strong_count() > 0);
    lists.push(Arc::downgrade(list));
    WATCHED.set(true);
}

/// Returns whether this thread may have unsent bytes.
#[inline]
pub(crate) fn is_some() -> bool {
    COUNT.get() > 0
}

/// Flushes the sockets of this thread if it has unsent bytes.
#[inline]
pub(crate) fn flush() {
    if is_some() {
        flush_some();
    }
}

/// Flushes the sockets of this thread. Does nothing in a forked child: another thread may have held
/// the lock of the list or of a socket at the fork.
#[cold]
#[inline(never)]
pub(crate) fn flush_some() {
    COUNT.set(0);
    if fork::is_child() {
        return;
    }
    let _ = LIST.try_with(|OwnList { list, spare }| spare.set(flush_list(list, spare.take())));
}

/// Flushes the sockets of `list`. `empty` becomes the vector of the list. Returns the list's
/// previous vector, which is then empty.
fn flush_list(list: &List, empty: Vec<Arc<dyn Unsent>>) -> Vec<Arc<dyn Unsent>> {
    let mut sockets = std::mem::replace(&mut *list.sockets.lock(), empty);
    flush_all(sockets.drain(..));
    sockets
}

fn flush_all(sockets: impl Iterator<Item = Arc<dyn Unsent>>) {
    for socket in sockets {
        // No user code runs here, but a panic in the flush of one socket must not affect another.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| socket.flush())) {
            drop_payload(payload);
        }
    }
}

/// Flushes the lists that are in the same period of *some* as at the last call. If any thread has a
/// list, also makes the registration that [`membarrier`] requires, which may take tens of
/// milliseconds. Called by sysmon.
pub(crate) fn flush_old() {
    let lists: Vec<_> = {
        let lists = LISTS.lock();
        lists.iter().filter_map(Weak::upgrade).collect()
    };
    for list in &lists {
        // The sockets stay in the list, so that the thread flushes them again at the end of its
        // turn. The flush here ends the thread's ownership of their bytes.
        flush_all(list.old().into_iter());
    }
    if !lists.is_empty() {
        membarrier::register();
    }
}

/// Calls `f`, which runs a simulation on this thread.
#[cfg(feature = "sim")]
pub(crate) fn simulating<T>(f: impl FnOnce() -> T) -> T {
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            set(false);
        }
    }
    fn set(simulates: bool) {
        SIMULATES.set(simulates);
        let _ = LIST.try_with(|OwnList { list, .. }| {
            // The flag changes under the lock, so that sysmon is not checking the list at the same
            // time.
            let _sockets = list.sockets.lock();
            list.simulates.store(simulates, Ordering::Relaxed);
        });
    }
    set(true);
    let _restore = Restore;
    f()
}

/// Returns whether this thread runs a simulation.
pub(crate) fn is_simulating() -> bool {
    SIMULATES.get()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::AtomicUsize;

    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Unsent for Counted {
        fn flush(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn amount(&self) -> Amount {
            Amount { index: u32::MAX, generation: 0, bytes: 0 }
        }
    }

    struct Panicking;

    impl Unsent for Panicking {
        fn flush(self: Arc<Self>) {
            panic!("a flush that panics");
        }

        fn amount(&self) -> Amount {
            Amount { index: u32::MAX, generation: 0, bytes: 0 }
        }
    }

    #[test]
    fn sockets_are_flushed_once_per_period() {
        let socket = Arc::new(Counted::default());
        assert!(!is_some());
        assert!(push(socket.clone()));
        assert!(!push(Arc::new(Counted::default())));
        assert!(is_some());
        flush();
        assert!(!is_some());
        flush();
        assert_eq!(socket.0.load(Ordering::Relaxed), 1);
        assert!(push(socket.clone()), "a new period");
        flush();
        assert_eq!(socket.0.load(Ordering::Relaxed), 2);
        assert_eq!(Arc::strong_count(&socket), 1);
    }

    #[test]
    fn panic_in_a_flush_does_not_affect_other_sockets() {
        let socket = Arc::new(Counted::default());
        push(Arc::new(Panicking));
        push(socket.clone());
        flush();
        assert_eq!(socket.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn blocked_socket_has_one_entry() {
        let socket = Arc::new(Counted::default());
        let weak = || -> Weak<dyn Unsent> { Arc::<Counted>::downgrade(&socket) };
        let id = Arc::as_ptr(&socket).addr();
        for _ in 0..1000 {
            enter_blocked(id, weak);
        }
        assert_eq!(Arc::weak_count(&socket), 1);
        leave_blocked(id);
        leave_blocked(id);
        assert_eq!(Arc::weak_count(&socket), 0);
    }

    /// Sysmon may make further checks while this test runs.
    #[test]
    fn second_check_flushes_the_list_of_a_thread_and_keeps_it() {
        let socket = Arc::new(Counted::default());
        let flushes = || socket.0.load(Ordering::Relaxed);
        push(socket.clone());
        flush_old();
        flush_old();
        let by_checks = flushes();
        assert!(by_checks >= 1);
        flush();
        let all = flushes();
        assert!(all > by_checks, "the end of the turn flushes too");
        flush_old();
        flush_old();
        assert_eq!(flushes(), all);
    }

    /// A socket of a simulation, which only the thread of the simulation may flush.
    #[cfg(feature = "sim")]
    struct Simulated(std::thread::ThreadId, AtomicUsize);

    #[cfg(feature = "sim")]
    impl Unsent for Simulated {
        fn flush(self: Arc<Self>) {
            if std::thread::current().id() != self.0 {
                self.1.fetch_add(1, Ordering::Relaxed);
            }
        }

        fn amount(&self) -> Amount {
            Amount { index: u32::MAX, generation: 0, bytes: 0 }
        }
    }

    #[cfg(feature = "sim")]
    #[test]
    fn check_flushes_no_socket_of_a_simulation_that_begins_meanwhile() {
        let is_over = AtomicBool::new(false);
        let flushed_elsewhere = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    flush_old();
                }
            });
            let real = Arc::new(Counted::default());
            let simulated = Arc::new(Simulated(std::thread::current().id(), AtomicUsize::new(0)));
            for _ in 0..100_000 {
                push(real.clone());
                // The other thread may make two checks of the list.
                (0..100).for_each(|_| std::hint::spin_loop());
                flush();
                simulating(|| {
                    push(simulated.clone());
                    flush();
                });
            }
            is_over.store(true, Ordering::Relaxed);
            simulated.1.load(Ordering::Relaxed)
        });
        assert_eq!(flushed_elsewhere, 0);
    }
}

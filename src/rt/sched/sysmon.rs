//! [`Sysmon`]: the state of sysmon, the thread that watches the other threads.

use std::sync::Weak;

use super::batch::Batch;
use super::event_ring::{Event, EventRing};
use super::reports::Reports;
use super::wake_queue::WakeQueue;
use crate::rt::lazy_box::LazyBox;
use crate::rt::parker::Parker;
use crate::rt::time::ticks;
use crate::rt::waiters::Wakers;
use crate::sync::{Arc, AtomicBool, AtomicU64, AtomicUsize, Mutex, Ordering};

/// The state of sysmon; see [`monitor`](super::monitor).
#[derive(Debug)]
pub(crate) struct Sysmon {
    /// Whether the thread makes checks, or its start is deferred. If false, the thread sleeps or
    /// does not exist.
    pub(super) ticking: AtomicBool,
    /// The thread of the current epoch. The thread of an earlier epoch may still be in user code.
    pub(super) thread: Mutex<Option<Arc<Parker>>>,
    /// The time of the last check, in ticks.
    checked: AtomicU64,
    /// Whether the runtime runs without the thread, because the system refused to create it or its
    /// start is deferred.
    pub(super) is_missing: AtomicBool,
    /// Whether the start of the thread is deferred; see [`Sysmon::defer`].
    is_deferred: AtomicBool,
    /// The total number of times that a task was found to block its thread. Not counted with
    /// [`BlockedPolicy::Off`](crate::rt::BlockedPolicy::Off).
    pub(crate) blocked: AtomicU64,
    /// The number of threads that were stuck at the last check that looked for them, or 1 while
    /// sysmon runs tasks itself.
    pub(super) stuck: AtomicUsize,
    /// Whether other threads use all CPUs; see [`cpus`](super::cpus).
    pub(super) are_cpus_busy: AtomicBool,
    /// The last tasks that were found stuck, for the black box.
    pub(super) events: LazyBox<EventRing>,
    pub(super) reports: Reports,
    pub(super) wakes: WakeQueue,
    /// The batches of the threads that poll, and of those that call several wakers.
    batches: Mutex<Vec<Weak<Batch>>>,
    /// The number of threads that call several wakers outside a poll.
    pub(super) watched: AtomicUsize,
}

impl Sysmon {
    pub(crate) const fn new() -> Sysmon {
        Sysmon {
            ticking: AtomicBool::new(false),
            thread: Mutex::new(None),
            checked: AtomicU64::new(0),
            is_missing: AtomicBool::new(false),
            is_deferred: AtomicBool::new(false),
            blocked: AtomicU64::new(0),
            stuck: AtomicUsize::new(0),
            are_cpus_busy: AtomicBool::new(false),
            events: LazyBox::new(),
            reports: Reports::new(),
            wakes: WakeQueue::new(),
            batches: Mutex::new(Vec::new()),
            watched: AtomicUsize::new(0),
        }
    }

    /// Records the time of a check.
    pub(super) fn check_begins(&self) {
        self.checked.store(ticks::ticks(), Ordering::Relaxed);
    }

    /// Returns the time of the last check, in ticks, or `None` if sysmon makes no checks.
    #[inline]
    pub(crate) fn checked(&self) -> Option<u64> {
        let makes_checks = self.ticking.load(Ordering::Relaxed) && !self.is_deferred();
        makes_checks.then(|| self.checked.load(Ordering::Relaxed))
    }

    /// Returns the events that sysmon has recorded.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.get().map(|events| events.read().0).unwrap_or_default()
    }

    /// Returns a new batch that sysmon watches.
    pub(super) fn register_batch(&self) -> Arc<Batch> {
        let batch = Arc::new(Batch::new());
        let mut batches = self.batches.lock();
        batches.retain(|batch| batch.strong_count() > 0);
        batches.push(Arc::downgrade(&batch));
        batch
    }

    /// Takes the wakers of the batches that made no progress since the last check. Returns whether
    /// other batches have wakers.
    pub(super) fn take_stuck_wakers(&self, wakers: &mut Wakers) -> bool {
        let mut are_left = false;
        for batch in self.batches.lock().iter().filter_map(Weak::upgrade) {
            match batch.check() {
                (_, true) => batch.take(wakers),
                (is_filled, false) => are_left |= is_filled,
            }
        }
        are_left
    }

    /// Takes the wakers that were collected but not called. Called by a shutdown.
    pub(crate) fn take_wakers(&self, wakers: &mut Wakers) {
        self.wakes.take(wakers);
        self.batches.lock().iter().filter_map(Weak::upgrade).for_each(|batch| batch.take(wakers));
    }

    /// Returns the number of threads that are stuck, according to the last check that looked for
    /// them.
    pub(crate) fn stuck(&self) -> usize {
        // ORDERING: Relaxed: a hint that may be outdated.
        self.stuck.load(Ordering::Relaxed)
    }

    /// Returns whether other threads use all CPUs, according to the last checks.
    #[inline]
    pub(super) fn are_cpus_busy(&self) -> bool {
        // ORDERING: Relaxed: a hint that may be outdated.
        self.are_cpus_busy.load(Ordering::Relaxed)
    }

    /// Returns whether the runtime runs without sysmon.
    #[inline]
    pub(crate) fn is_missing(&self) -> bool {
        // ORDERING: Relaxed: a hint; the lock around `thread` decides.
        self.is_missing.load(Ordering::Relaxed)
    }

    /// Records that the runtime runs without sysmon.
    pub(crate) fn set_missing(&self) {
        self.is_missing.store(true, Ordering::Relaxed);
        self.are_cpus_busy.store(false, Ordering::Relaxed);
    }

    /// Defers the start of the thread, and of workers, until something needs another thread
    /// ([`Builder::single_threaded`](crate::rt::Builder::single_threaded)). `ticking` is set, so
    /// that activity does not start the thread.
    pub(crate) fn defer(&self) {
        let _thread = self.thread.lock();
        self.set_missing();
        self.is_deferred.store(true, Ordering::Relaxed);
        self.ticking.store(true, Ordering::SeqCst);
    }

    /// Returns whether the start of the thread is deferred.
    #[inline]
    pub(crate) fn is_deferred(&self) -> bool {
        // ORDERING: Relaxed: a hint; the lock around `thread` decides.
        self.is_deferred.load(Ordering::Relaxed)
    }

    /// Ends the deferral, if there is one. The caller must hold the lock of `thread`.
    pub(super) fn end_deferral(&self) {
        if self.is_deferred.swap(false, Ordering::Relaxed) {
            self.ticking.store(false, Ordering::SeqCst);
        }
    }

    /// Returns whether the thread makes checks or is about to make one, or its start is deferred.
    #[inline]
    pub(super) fn is_ticking(&self) -> bool {
        // ORDERING: SeqCst: the caller changes `awake`, `watched`, the number of root turns or the
        // flag of a shortage before it reads `ticking`. Sysmon stores `ticking` before it reads
        // these.
        self.ticking.load(Ordering::SeqCst)
    }

    /// Makes the thread resume its checks. Returns false if there is no thread.
    pub(super) fn rouse(&self) -> bool {
        let thread = self.thread.lock();
        let Some(parker) = &*thread else { return false };
        if !self.ticking.swap(true, Ordering::SeqCst) {
            parker.unpark();
        }
        true
    }

    /// Sets `ticking` for the thread of `parker`. Returns false, without a change, if that thread
    /// is no longer sysmon.
    pub(super) fn set_ticking(&self, parker: &Arc<Parker>, ticking: bool) -> bool {
        let thread = self.thread.lock();
        let is_current = thread.as_ref().is_some_and(|current| Arc::ptr_eq(current, parker));
        if is_current {
            self.ticking.store(ticking, Ordering::SeqCst);
        }
        is_current
    }

    /// Removes the thread and wakes it, so that it checks the epoch. Called by a shutdown that has
    /// advanced the epoch.
    pub(crate) fn stop(&self) {
        let thread = self.thread.lock().take();
        self.stuck.store(0, Ordering::Relaxed);
        self.is_missing.store(false, Ordering::Relaxed);
        self.is_deferred.store(false, Ordering::Relaxed);
        self.ticking.store(false, Ordering::SeqCst);
        if let Some(parker) = thread {
            parker.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If the next runtime defers sysmon, no check corrects the number.
    #[test]
    fn stopped_sysmon_counts_no_stuck_threads() {
        let sysmon = Sysmon::new();
        sysmon.stuck.store(2, Ordering::Relaxed);
        sysmon.stop();
        assert_eq!(sysmon.stuck(), 0);
    }
}

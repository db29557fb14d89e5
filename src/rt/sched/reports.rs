//! [`Reports`]: the queue of reports about tasks that block their threads, and about spare workers.
//!
//! A report calls a user's function, a `tracing` subscriber or both, which may block. So a separate
//! thread makes the reports, one at a time and in order, while sysmon and the workers continue. The
//! thread is started for the first report and ends when the queue is empty. If the system refuses
//! to create the thread for a report about a blocked task, sysmon makes the queued reports itself.
//! If the system refuses to create the thread for a report about a spare worker, sysmon tries again
//! at its checks, and makes the queued reports itself if the refusal lasts (`shortage.rs`).
//!
//! A thread that is still in a report when the runtime has been shut down ends after this report.
//! The next epoch has its own thread.

use std::collections::VecDeque;

use crate::rt::config::BlockedTask;
use crate::sync::Mutex;

/// The maximum number of queued reports. Further reports are dropped.
const QUEUED_MAX: usize = 256;

/// The subject of a report.
#[derive(Debug)]
pub(super) enum Report {
    Blocked(BlockedTask),
    /// A worker has got the spare processor with this number.
    SpareStarted(usize),
    /// A worker has given back the spare processor with this number.
    SpareEnded(usize),
}

/// The queued reports; see the [module documentation](self).
#[derive(Debug)]
pub(super) struct Reports(Mutex<State>);

#[derive(Debug)]
struct State {
    epoch: u32,
    queue: VecDeque<Report>,
    has_thread: bool,
}

impl Reports {
    pub(super) const fn new() -> Reports {
        Reports(Mutex::new(State { epoch: 0, queue: VecDeque::new(), has_thread: false }))
    }

    /// Queues `reports`, up to the limit, unless `epoch` is an earlier one. Drops the queued
    /// reports of an earlier epoch. Returns whether a thread must be started.
    pub(super) fn push(&self, epoch: u32, reports: impl IntoIterator<Item = Report>) -> bool {
        let mut state = self.0.lock();
        let age = epoch.wrapping_sub(state.epoch).cast_signed();
        if age < 0 {
            // The caller is a thread of an earlier epoch.
            return false;
        }
        if age > 0 {
            *state = State { epoch, queue: VecDeque::new(), has_thread: false };
        }
        let room = QUEUED_MAX - state.queue.len();
        state.queue.extend(reports.into_iter().take(room));
        !std::mem::replace(&mut state.has_thread, true)
    }

    /// Records that the thread of `epoch` could not be started. The queued reports stay.
    pub(super) fn forget_thread(&self, epoch: u32) {
        let mut state = self.0.lock();
        state.has_thread &= state.epoch != epoch;
    }

    /// Returns whether reports of `epoch` are queued and their thread could not be started.
    pub(super) fn lacks_thread(&self, epoch: u32) -> bool {
        let state = self.0.lock();
        state.epoch == epoch && !state.has_thread && !state.queue.is_empty()
    }

    /// Takes the next report of `epoch`. If there is none, the calling thread must end.
    pub(super) fn pop(&self, epoch: u32) -> Option<Report> {
        let mut state = self.0.lock();
        if state.epoch != epoch {
            return None;
        }
        let report = state.queue.pop_front();
        state.has_thread = report.is_some();
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_report_of_an_earlier_epoch_is_dropped() {
        let reports = Reports::new();
        assert!(reports.push(1, [Report::SpareStarted(1)]));
        assert!(reports.push(2, [Report::SpareStarted(2)]), "the next epoch has its own thread");
        assert!(!reports.push(1, [Report::SpareStarted(3)]));
        assert!(!reports.push(2, [Report::SpareEnded(4)]));
        assert!(reports.pop(1).is_none());
        let rest: Vec<_> = std::iter::from_fn(|| reports.pop(2)).collect();
        assert!(matches!(rest[..], [Report::SpareStarted(2), Report::SpareEnded(4)]), "{rest:?}");
        assert!(reports.push(2, [Report::SpareStarted(5)]), "the thread has ended");
    }

    #[test]
    fn queued_report_without_a_thread_is_found() {
        let reports = Reports::new();
        assert!(!reports.lacks_thread(0), "the queue is empty");
        assert!(reports.push(1, [Report::SpareStarted(1)]));
        assert!(!reports.lacks_thread(1), "the thread is about to start");
        reports.forget_thread(2);
        assert!(!reports.lacks_thread(1));
        reports.forget_thread(1);
        assert!(reports.lacks_thread(1) && !reports.lacks_thread(2));
        assert!(reports.push(1, []), "a thread must be started");
        assert!(reports.pop(1).is_some() && reports.pop(1).is_none());
        assert!(!reports.lacks_thread(1));
    }
}

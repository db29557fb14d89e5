//! The threads on which sysmon's wakers and reports run.
//!
//! User code may block, so sysmon calls none of it as long as the system creates these threads.
//! They are started when they are needed. One thread calls the wakers that sysmon passes on
//! ([`wake_queue`](super::wake_queue)). If a waker blocks this thread, another one is started. Each
//! of them ends when the queue of wakers is empty. A separate thread makes the reports
//! ([`reports`](super::reports)). It ends when their queue is empty or its epoch is over.

use std::io;

use super::reports::Report;
use crate::rt::config::{BlockedTask, Config};
use crate::rt::fork;
use crate::rt::runtime::{Runtime, runtime};
use crate::rt::waiters::{Wakers, drop_payload, wake};
use crate::sync::{Arc, Ordering};
use crate::trace;

/// Wakes several wakers. If one of them blocks this thread, sysmon, unless it is missing, makes
/// another thread take over the others. In a simulation, in a child of fork(2), and while the
/// runtime does not run, no other thread takes over.
pub(crate) fn wake_watched(wakers: &mut Wakers) {
    let runtime = runtime();
    #[cfg(feature = "sim")]
    if crate::sim::is_here() {
        return wakers.wake_in_place();
    }
    if !runtime.is_running() || fork::is_child() {
        return wakers.wake_in_place();
    }
    // ORDERING: SeqCst: incremented before this thread checks whether sysmon sleeps; see
    // `Sysmon::is_ticking`.
    runtime.sysmon.watched.fetch_add(1, Ordering::SeqCst);
    runtime.notice_activity();
    wakers.demote_own();
    runtime.sysmon.register_batch().call(wakers);
    runtime.sysmon.watched.fetch_sub(1, Ordering::SeqCst);
}

impl Runtime {
    /// Starts the thread of `epoch` whose name ends with `suffix`. It calls `work`.
    fn start_for_user_code(&'static self, epoch: u32, suffix: &str, work: fn(&'static Runtime, u32)) -> io::Result<()> {
        self.threads.start(format!("{}-{suffix}", self.config().thread_name), move || {
            work(self, epoch);
            if self.epoch() == epoch {
                self.threads.leave();
            }
        })
    }

    /// Starts a thread that calls the queued wakers.
    pub(super) fn start_waking(&'static self, epoch: u32) -> io::Result<()> {
        self.start_for_user_code(epoch, "wakers", Runtime::run_wake_queue)
    }

    /// Calls the queued wakers until the queue is empty.
    pub(super) fn run_wake_queue(&'static self, epoch: u32) {
        while let Some(waker) = self.sysmon.wakes.pop(epoch) {
            wake(waker);
        }
    }

    /// Queues reports about tasks that sysmon has found stuck in `epoch`. Returns false if the
    /// system refuses to create the thread that makes them. The caller must then make the reports.
    pub(super) fn report_blocked(&'static self, epoch: u32, tasks: Vec<BlockedTask>) -> bool {
        let has_receiver = self.config().on_blocked_task.is_some() || cfg!(feature = "tracing");
        tasks.is_empty() || !has_receiver || self.queue_reports(epoch, tasks.into_iter().map(Report::Blocked))
    }

    /// Queues reports, and starts the thread that makes them, unless it runs. Returns false if the
    /// system refuses to create the thread.
    pub(super) fn queue_reports(&'static self, epoch: u32, reports: impl IntoIterator<Item = Report>) -> bool {
        if !self.sysmon.reports.push(epoch, reports) {
            return true;
        }
        self.start_for_user_code(epoch, "reports", Runtime::make_reports).is_ok()
    }

    /// Makes the queued reports until the queue is empty or the epoch is over.
    pub(super) fn make_reports(&'static self, epoch: u32) {
        let config = self.config();
        while self.epoch() == epoch
            && let Some(subject) = self.sysmon.reports.pop(epoch)
        {
            report(&config, &subject);
        }
    }
}

/// Makes one report. Catches a panic in the user's function or the `tracing` subscriber.
fn report(config: &Arc<Config>, subject: &Report) {
    let report = || match subject {
        Report::Blocked(task) => {
            trace::task_blocks(task.id.number(), task.name.as_deref(), task.blocked_for);
            if let Some(report) = &config.on_blocked_task {
                report(task);
            }
        }
        Report::SpareStarted(id) => trace::spare_started(*id),
        Report::SpareEnded(id) => trace::spare_ended(*id),
    };
    if let Err(payload) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(report)) {
        drop_payload(payload);
    }
}

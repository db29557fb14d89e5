//! [`Reports`]: the queue of reports about tasks that block their threads.
//!
//! A report is a call of a user's function, which may block. So a separate thread makes the reports, one at a
//! time and in order, while sysmon continues its checks. The thread is started for the first report and ends
//! when the queue is empty. If the system refuses to create the thread, sysmon makes the reports itself.
//!
//! A thread that is still in a report when the runtime has been shut down ends after this report. The next
//! epoch has its own thread.

use std::collections::VecDeque;

use crate::rt::config::BlockedTask;
use crate::sync::Mutex;

/// The maximum number of queued reports. Further reports are dropped.
const QUEUED_MAX: usize = 256;

/// The queued reports; see the [module documentation](self).
#[derive(Debug)]
pub(super) struct Reports(Mutex<State>);

#[derive(Debug)]
struct State {
    epoch: u32,
    queue: VecDeque<BlockedTask>,
    has_thread: bool,
}

impl Reports {
    pub(super) const fn new() -> Reports {
        Reports(Mutex::new(State { epoch: 0, queue: VecDeque::new(), has_thread: false }))
    }

    /// Queues `tasks`. Returns whether a thread must be started.
    pub(super) fn push(&self, epoch: u32, tasks: Vec<BlockedTask>) -> bool {
        let mut state = self.0.lock();
        let age = epoch.wrapping_sub(state.epoch).cast_signed();
        if age < 0 {
            // The caller is the sysmon of an earlier epoch.
            return false;
        }
        if age > 0 {
            *state = State { epoch, queue: VecDeque::new(), has_thread: false };
        }
        let room = QUEUED_MAX - state.queue.len();
        state.queue.extend(tasks.into_iter().take(room));
        !std::mem::replace(&mut state.has_thread, true)
    }

    /// Takes the next report of `epoch`. If there is none, the calling thread must end.
    pub(super) fn pop(&self, epoch: u32) -> Option<BlockedTask> {
        let mut state = self.0.lock();
        if state.epoch != epoch {
            return None;
        }
        let task = state.queue.pop_front();
        state.has_thread = task.is_some();
        task
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::sched::identity::TaskId;
    use std::time::Duration;

    #[test]
    fn late_report_of_an_earlier_epoch_is_dropped() {
        let reports = Reports::new();
        let task = |number| BlockedTask {
            id: TaskId::from_number(number),
            name: None,
            spawned_at: None,
            blocked_for: Duration::ZERO,
        };
        assert!(reports.push(1, vec![task(1)]));
        assert!(reports.push(2, vec![task(2)]), "the next epoch has its own thread");
        assert!(!reports.push(1, vec![task(3)]));
        assert!(!reports.push(2, vec![task(4)]));
        assert!(reports.pop(1).is_none());
        let ids: Vec<_> = std::iter::from_fn(|| reports.pop(2)).map(|task| task.id).collect();
        assert_eq!(ids, [TaskId::from_number(2), TaskId::from_number(4)]);
        assert!(reports.push(2, vec![task(5)]), "the thread has ended");
    }
}

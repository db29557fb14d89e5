//! Methods that queue tasks in the shared queues and take them out, drop deferred tasks, and take
//! all queued tasks at the end of an epoch.

use async_task::Runnable;

use super::lanes::Lane;
use super::processor::Processor;
use super::queue::Item;
use super::shared_queue::SendItem;
use super::task::{discard, discard_later, take_item};
use super::task_data::TaskData;
use super::waits::Waits;
use crate::rt::context;
use crate::rt::runtime::Runtime;
use crate::sync::Ordering;

impl Runtime {
    /// Queues a task in the injector or the control lane, and calls
    /// [`ensure_worker`](Runtime::ensure_worker). Drops the task if its epoch is over.
    pub(crate) fn inject(&'static self, runnable: Runnable<TaskData>) {
        self.inject_quietly(std::iter::once(runnable.into_raw()));
        self.ensure_worker();
    }

    /// Queues tasks in the injector or the control lane, without waking a worker. Drops tasks whose
    /// epoch is over. The epoch of each task is checked, because a thread of an earlier epoch may
    /// have taken tasks of the next one.
    pub(crate) fn inject_quietly(&'static self, items: impl Iterator<Item = Item>) {
        let mut items = items.map(take_item).peekable();
        while let Some(first) = items.peek() {
            let lane = first.metadata().lane();
            let queue = if lane == Lane::Control { &self.control.queue } else { &self.injector };
            let mut over = Vec::new();
            queue.change(|queue| {
                // The epoch is read under the lock. A shutdown advances the epoch before it empties
                // the queue, so tasks of the old epoch are not queued afterwards.
                let epoch = self.epoch();
                while let Some(runnable) = items.next_if(|next| next.metadata().lane() == lane) {
                    if runnable.metadata().epoch() == epoch {
                        queue.push_back(SendItem(runnable.into_raw()));
                    } else {
                        over.push(runnable);
                    }
                }
            });
            over.into_iter().for_each(discard_later);
        }
    }

    /// Queues a control task of the current epoch that was spawned or woken. `while_running` says
    /// whether it was woken in its own turn.
    pub(super) fn schedule_control(&'static self, runnable: Runnable<TaskData>, while_running: bool) {
        let (processor, is_in_task) = context::processor_and_task(self.epoch());
        let record = runnable.metadata().record();
        if !while_running {
            // This has no effect if an event of the poller or a timer woke the task.
            context::note_waker(record);
        } else if processor.is_none() || is_in_task {
            record.note_waker(Waits::Turn);
        }
        self.inject_quietly(std::iter::once(runnable.into_raw()));
        match processor {
            // This thread checks the lane before its next turn, but the current turn may be long.
            Some(processor) if is_in_task && processor.is_in_long_turn() => self.wake_helper(true),
            Some(_) => {}
            None => {
                self.ensure_worker();
                if self.needs_poller() {
                    self.wake_helper(true);
                }
            }
        }
    }

    /// Returns the number of tasks in the shared queues.
    #[inline]
    pub(crate) fn injected(&self) -> usize {
        self.injector.len() + self.control.queue.len()
    }

    /// Takes one task from the injector, and moves up to `more` further tasks to `processor`'s
    /// queue.
    pub(crate) fn take_injected(&'static self, processor: &Processor, more: usize) -> Option<Item> {
        self.injector.pop(more, |item| processor.queue.push(item))
    }

    /// Drops the tasks whose drop was deferred, unless a shutdown is in progress, which drops them
    /// itself.
    pub(crate) fn discard_deferred(&'static self) {
        while !self.is_stopping()
            && let Some(task) = self.pop_deferred()
        {
            discard(task);
        }
    }

    /// Takes all queued tasks and blocking calls, and the tasks whose drop was deferred. Called by
    /// a shutdown. No start may happen in the meantime, because it would use the processors.
    pub(crate) fn take_queued(&'static self) -> Vec<Runnable<TaskData>> {
        let mut items = self.injector.take();
        items.extend(self.control.queue.take());
        for processor in self.processors() {
            if !processor.owned.swap(true, Ordering::SeqCst) {
                items.extend(processor.queue.drain());
                processor.owned.store(false, Ordering::SeqCst);
                continue;
            }
            // The owner may be in a turn that waits for one of these tasks.
            items.extend(processor.queue.take(usize::MAX));
        }
        let mut tasks: Vec<_> = items.into_iter().map(take_item).collect();
        tasks.extend(self.pool.stop());
        tasks.extend(self.lookups.stop());
        tasks.extend(self.closes.stop());
        tasks.extend(self.take_deferred());
        tasks
    }
}

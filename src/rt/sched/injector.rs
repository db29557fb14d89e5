//! The queue that all threads share, and taking every queued task at the end of an epoch.

use async_task::Runnable;

use super::processor::Processor;
use super::queue::{Item, SendItem, release_room};
use super::task::{discard, take_item};
use super::task_data::TaskData;
use crate::rt::runtime::Runtime;
use crate::sync::Ordering;

impl Runtime {
    /// Queues a task from a thread that has no processor, and makes sure that a worker runs it. A
    /// task whose epoch is over is dropped.
    pub(crate) fn inject(&'static self, runnable: Runnable<TaskData>) {
        self.inject_quietly(std::iter::once(runnable.into_raw()));
        self.ensure_worker();
    }

    /// Queues many tasks without waking a worker. Tasks whose epoch is over are dropped. Each task
    /// is queued by its own epoch: a thread that is late for the end of an epoch may have taken
    /// tasks of the next one.
    pub(crate) fn inject_quietly(&'static self, items: impl Iterator<Item = Item>) {
        let mut over = Vec::new();
        {
            let mut injector = self.injector.lock();
            // Read under the lock: a shutdown advances the epoch before it empties the queue, and
            // would miss tasks queued later.
            let epoch = self.epoch();
            for runnable in items.map(take_item) {
                if runnable.metadata().epoch() == epoch {
                    injector.push_back(SendItem(runnable.into_raw()));
                } else {
                    over.push(runnable);
                }
            }
            self.injector_len.store(injector.len(), Ordering::SeqCst);
        }
        over.into_iter().for_each(discard);
    }

    #[inline]
    pub(crate) fn injected(&self) -> usize {
        self.injector_len.load(Ordering::SeqCst)
    }

    /// Takes one task from the shared queue, and up to `more` into `processor`'s own queue.
    pub(crate) fn take_injected(&'static self, processor: &Processor, more: usize) -> Option<Item> {
        if self.injected() == 0 {
            return None;
        }
        let mut injector = self.injector.lock();
        let first = injector.pop_front();
        let more = more.min(injector.len());
        for SendItem(item) in injector.drain(..more) {
            processor.queue.push(item);
        }
        self.injector_len.store(injector.len(), Ordering::SeqCst);
        release_room(&mut injector);
        drop(injector);
        first.map(|injected| injected.0)
    }

    /// Takes every queued task. For the thread that shuts down, because a start would take the
    /// processors in the meantime.
    pub(crate) fn take_queued(&'static self) -> Vec<Runnable<TaskData>> {
        let mut items: Vec<Item> = {
            let mut injector = self.injector.lock();
            self.injector_len.store(0, Ordering::SeqCst);
            injector.drain(..).map(|injected| injected.0).collect()
        };
        for processor in self.processors() {
            if !processor.owned.swap(true, Ordering::SeqCst) {
                items.extend(processor.queue.drain());
                processor.owned.store(false, Ordering::SeqCst);
                continue;
            }
            // The turn of the owner may wait for a task that is queued behind it.
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

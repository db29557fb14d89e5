//! Resting workers: how they go to rest, are woken, and get a processor.
//!
//! A worker *rests* when it has no work and does not poll: it has no processor, is on the idle
//! list, and is parked. A thread that wakes it for work assigns a processor to it. The idle list
//! and the lists of free processors are in [`Idle`], under one lock. For workers, the lock is taken
//! when a worker goes to rest or is to be woken, but not per request.
//!
//! # States of a worker
//! *running* (owns a processor) → *asleep* in epoll (keeps the processor) → *running*; or *running*
//! → *resting* (has given the processor back) → *assigned* a processor → *running*. A worker whose
//! processor a nested `block_on` has given away rests when the user code returns. A worker ends
//! with its epoch. If there are more workers than configured when it goes to rest and still
//! [`SURPLUS_REST`] later, and no processor was assigned to it in between, it ends.
//!
//! # The wish for the role of polling
//! ```text
//! Wish::None ── ask_for_role ──→ Asked ── grant_role ──→ Granted
//!   ↑                              │                       │
//!   └─────── withdraw_wish ────────┴───────────────────────┘
//! ```
//! A thread in `block_on` may ask before it parks, if the workers poll only for such threads, and
//! withdraws its wish whenever it wakes up. A worker that is about to sleep in epoll grants the
//! wish.
//!
//! The worker that grants the wish releases its roles and rests. From then on, the thread that
//! asked is responsible for these roles: it takes them, or makes sure that another thread does
//! (model `the_role_is_not_lost_when_a_wish_is_granted`).
//!
//! # Invariants
//! * R1 (`runtime.rs`) — a thread that assigns a processor to a worker increments `awake` on the
//!   worker's behalf, so that two threads do not each wake a worker for the same work.

use std::time::{Duration, Instant};

use super::event_ring::Mark;
use super::idle::{Idle, Sleeper, Wish};
use super::processor::Processor;
use super::reports::Report;
use super::root::Root;
use super::worker;
use crate::rt::context;
use crate::rt::fork;
use crate::rt::poll::roles::Shards;
use crate::rt::runtime::Runtime;
use crate::sync::{Arc, Ordering};

/// The time after which a resting worker ends if there are more workers than configured.
pub(crate) const SURPLUS_REST: Duration = Duration::from_secs(2);

impl Runtime {
    /// Wakes or starts a worker and gives it a processor. If no ordinary processor is free, calls
    /// `may_be_spare`, and uses a spare processor if the result is true. `may_be_spare` is called
    /// under the lock under which processors are handed out, so it sees all threads that have got a
    /// processor before.
    ///
    /// Returns false if no processor is free, if the system refuses to create a thread, or in a
    /// child of fork(2), which may have inherited a locked idle list. While the start of threads is
    /// deferred, returns false; if a processor is free, first makes the threads in `block_on` check
    /// whether they should run tasks.
    pub(crate) fn wake_one(&'static self, may_be_spare: impl FnOnce() -> bool) -> bool {
        if fork::is_child() {
            return false;
        }
        let mut idle = self.idle.lock();
        if self.sysmon.is_deferred() {
            let is_free = !idle.free.is_empty();
            drop(idle);
            if is_free {
                self.wake_roots();
            }
            return false;
        }
        let id = match idle.free.pop() {
            Some(id) => id,
            None if may_be_spare() => match idle.spare.pop() {
                Some(id) => id,
                None => return false,
            },
            None => return false,
        };
        let (epoch, is_spare) = (idle.epoch, id >= idle.first_spare);
        let processor = self.hand_out(id, epoch);
        let is_woken = if let Some(sleeper) = idle.sleepers.last().cloned() {
            idle.forget(&sleeper);
            *sleeper.assigned.lock() = Some(processor);
            drop(idle);
            sleeper.parker.unpark();
            true
        } else {
            idle.threads += 1;
            drop(idle);
            self.start_thread(processor, epoch)
        };
        if is_woken {
            if is_spare {
                self.report_spare(epoch, Report::SpareStarted(id));
            }
            return true;
        }
        let mut idle = self.idle.lock();
        idle.threads -= 1;
        self.put_back(&mut idle, processor);
        self.awake.down(epoch);
        drop(idle);
        self.refused();
        false
    }

    /// Wakes a second worker for a thread that has too much work. The second worker is a resting or
    /// a new worker or, if there is no processor or no thread for it and the work consists of long
    /// turns (`is_long`), a worker that sleeps in epoll. With short turns, the next event wakes the
    /// sleeping worker soon enough.
    pub(crate) fn wake_helper(&'static self, is_long: bool) {
        if !self.wake_one(|| false) && is_long {
            self.wake_worker();
        }
    }

    /// Marks a processor that was taken from a list as owned in `epoch`, and counts its future
    /// owner as awake.
    fn hand_out(&'static self, id: usize, epoch: u32) -> &'static Processor {
        let processor = self.processor_at(id);
        processor.epoch.store(epoch, Ordering::Relaxed);
        processor.owned.store(true, Ordering::SeqCst);
        // ORDERING: SeqCst; see R1.
        self.awake.up(epoch);
        processor
    }

    fn start_thread(&'static self, processor: &'static Processor, epoch: u32) -> bool {
        if self.ensure_sysmon().is_err() {
            return false;
        }
        let name = self.config().thread_name.clone();
        self.threads.start(name, move || worker::main(self, epoch, processor)).is_ok()
    }

    /// Ends the ownership of a processor and adds it to its list. Returns false, without adding it,
    /// if its epoch is over.
    fn put_back(&self, idle: &mut Idle, processor: &'static Processor) -> bool {
        debug_assert_eq!(processor.queue.len(), 0, "a processor was given back with tasks");
        let is_current = processor.epoch.load(Ordering::Relaxed) == idle.epoch && self.epoch() == idle.epoch;
        processor.owned.store(false, Ordering::SeqCst);
        if !is_current {
            return false;
        }
        if processor.id < idle.first_spare {
            idle.free.push(processor.id);
        } else {
            idle.spare.push(processor.id);
        }
        true
    }

    /// Returns whether [`acquire`](Runtime::acquire) would find a processor.
    pub(crate) fn has_free_processor(&self) -> bool {
        !self.idle.lock().free.is_empty()
    }

    /// Takes a free processor, if there is one, for the calling thread, which is not a worker.
    pub(crate) fn acquire(&'static self) -> Option<&'static Processor> {
        let processor = {
            let mut idle = self.idle.lock();
            let id = idle.free.pop()?;
            self.hand_out(id, idle.epoch)
        };
        context::set_processor(Some(processor));
        processor.record(Mark::Begin, 0);
        self.notice_activity();
        Some(processor)
    }

    /// Gives the processor back, unless the runtime is running and there is something to do: a
    /// shared queue has a task, or this thread may poll. Returns whether the processor was given
    /// back. Its queue must be empty. `sleeper` is that of the calling worker, or `None` for any
    /// other thread.
    pub(crate) fn give_back(&'static self, processor: &'static Processor, sleeper: Option<&Arc<Sleeper>>) -> bool {
        let mut idle = self.idle.lock();
        let roles = &self.driver.roles;
        let may_poll =
            || !roles.role(roles.home(processor.id)).is_taken() || (self.awake.count() <= 1 && !roles.are_taken());
        if self.is_running() && (self.injected() > 0 || may_poll()) {
            return false;
        }
        self.list(&mut idle, processor, sleeper);
        let is_spare = processor.id >= idle.first_spare;
        drop(idle);
        // ORDERING: SeqCst. The thread that had the role at the check above may have released it in
        // the meantime, and may then block or give its processor up. It releases the role,
        // decrements `awake` and reads it; this thread decrements `awake` and then checks the roles
        // (models `some_thread_polls_when_all_rest` and `last_awake_thread_polls_both_shards`).
        self.ensure_worker_after_listing();
        if is_spare {
            self.report_spare(processor.epoch.load(Ordering::Relaxed), Report::SpareEnded(processor.id));
        }
        true
    }

    /// Adds the processor, which the calling thread gives back, to its list, and the thread to the
    /// idle list if it is a worker. Adds neither if the processor's epoch is over.
    fn list(&'static self, idle: &mut Idle, processor: &'static Processor, sleeper: Option<&Arc<Sleeper>>) {
        let epoch = processor.epoch.load(Ordering::Relaxed);
        processor.record(Mark::Rest, 0);
        if self.put_back(idle, processor)
            && let Some(sleeper) = sleeper
        {
            idle.sleepers.push(sleeper.clone());
        }
        // ORDERING: SeqCst, before the check of the shared queues that follows (R1).
        self.awake.down(epoch);
        processor.parks.add(1);
        context::set_processor(None);
    }

    /// Queues a report that a worker has got a spare processor or has given it back. Does nothing
    /// without the feature `tracing`.
    pub(super) fn report_spare(&'static self, epoch: u32, report: Report) {
        if cfg!(feature = "tracing") && !self.queue_reports(epoch, [report]) {
            self.defer_reports(epoch);
        }
    }

    /// Reports that the owner of `processor` has given it up. Does nothing if the processor is not
    /// spare, or without the feature `tracing`.
    pub(crate) fn report_end(&'static self, processor: &Processor) {
        if cfg!(feature = "tracing") && processor.id >= self.idle.lock().first_spare {
            self.report_spare(self.epoch(), Report::SpareEnded(processor.id));
        }
    }

    fn ensure_worker_after_listing(&'static self) {
        if self.injected() > 0 {
            self.ensure_worker();
        } else if self.is_running() && !self.driver.roles.are_taken() {
            self.ensure_poller();
        }
    }

    /// Gives up the processor of the calling thread. The queued tasks go to the shared queues, and
    /// the processor goes to its list. If the processor's epoch is over, the tasks of this epoch
    /// are dropped, and the processor is not listed.
    pub(crate) fn leave(&'static self, processor: &'static Processor) {
        let epoch = processor.epoch.load(Ordering::Relaxed);
        context::set_processor(None);
        // A turn that is still recorded as running either continues without a processor or was
        // ended by a panic.
        if !processor.running.swap(std::ptr::null_mut(), Ordering::Relaxed).is_null() {
            processor.turns.end();
        }
        processor.stuck.store(false, Ordering::Relaxed);
        self.inject_quietly(processor.queue.drain());
        processor.record(Mark::Leave, 0);
        self.put_back(&mut self.idle.lock(), processor);
        self.awake.down(epoch);
        self.ensure_worker_after_leaving();
        self.report_end(processor);
    }

    /// Makes sure that another thread does the remaining work. Called by a thread that will not do
    /// it itself.
    pub(crate) fn ensure_worker_after_leaving(&'static self) {
        if !self.is_running() || fork::is_child() {
            return;
        }
        if self.injected() > 0 {
            self.ensure_worker();
        } else if !self.polls_here()
            && (self.descriptors.load(Ordering::Relaxed) > 0
                || self.next_timer(Shards::ALL) != crate::rt::time::clock::NEVER
                || self.tasks_alive() > 0)
        {
            self.ensure_poller();
        }
    }

    /// Rests until a processor is assigned to the calling worker, and returns the processor.
    /// Returns `None` if the worker must end.
    pub(crate) fn rest(&'static self, sleeper: &Arc<Sleeper>, epoch: u32) -> Option<&'static Processor> {
        let mut until = None;
        loop {
            {
                let mut idle = self.idle.lock();
                if let Some(processor) = sleeper.assigned.lock().take() {
                    return Some(processor);
                }
                let surplus = idle.threads > idle.workers;
                let over = until.is_some_and(|until| Instant::now() >= until);
                if self.epoch() != epoch || (surplus && over) {
                    idle.forget(sleeper);
                    idle.threads -= 1;
                    drop(idle);
                    if self.epoch() == epoch {
                        self.threads.leave();
                    }
                    return None;
                }
                until = surplus.then(|| until.unwrap_or_else(|| Instant::now() + SURPLUS_REST));
                if !idle.sleepers.iter().any(|listed| Arc::ptr_eq(listed, sleeper)) {
                    idle.sleepers.push(sleeper.clone());
                }
            }
            // After a nested `block_on`, the worker is listed only now, so a task that was queued
            // earlier may have found no thread to wake.
            if self.injected() > 0 {
                self.ensure_worker();
            }
            sleeper.parker.park_until(until);
        }
    }

    /// If a thread in `block_on` has asked for the role, releases the roles of `shards`, gives the
    /// processor back and puts the calling worker on the idle list. The other thread then polls
    /// itself, which saves a switch between threads per request. Returns false if there is no wish
    /// to grant. Called by a worker that has these roles and is about to sleep in epoll.
    pub(crate) fn grant_role(
        &'static self,
        shards: Shards,
        processor: &'static Processor,
        sleeper: &Arc<Sleeper>,
    ) -> bool {
        if !self.is_role_wished() {
            return false;
        }
        self.role_wished.store(false, Ordering::SeqCst);
        let mut idle = self.idle.lock();
        // Meanwhile the wish may have been withdrawn, or granted by another worker, which has the
        // roles of other shards.
        let Wish::Asked(root) = &idle.wish else { return false };
        let root = root.clone();
        idle.wish = Wish::Granted(root.clone());
        self.driver.roles.release(shards);
        self.list(&mut idle, processor, Some(sleeper));
        drop(idle);
        root.nudge();
        if self.injected() > 0 {
            self.ensure_worker();
        }
        self.report_end(processor);
        true
    }

    /// Asks for the role on behalf of a thread in `block_on`, which must then park. Interrupts a
    /// sleeping worker, so that it sees the wish. Returns false if the wish of another thread was
    /// not withdrawn yet.
    pub(crate) fn ask_for_role(&'static self, root: &Arc<Root>) -> bool {
        let mut idle = self.idle.lock();
        if !matches!(idle.wish, Wish::None) {
            return false;
        }
        idle.wish = Wish::Asked(root.clone());
        // ORDERING: SeqCst: the wish is stored before this thread checks whether a worker sleeps. A
        // worker announces its sleep and then checks for a wish.
        self.role_wished.store(true, Ordering::SeqCst);
        drop(idle);
        self.wake_worker();
        true
    }

    /// Withdraws the wish of a thread. Returns whether it was granted.
    pub(crate) fn withdraw_wish(&self, root: &Arc<Root>) -> bool {
        let mut idle = self.idle.lock();
        let was_granted = match &idle.wish {
            Wish::Asked(asker) if Arc::ptr_eq(asker, root) => false,
            Wish::Granted(asker) if Arc::ptr_eq(asker, root) => true,
            _ => return false,
        };
        idle.wish = Wish::None;
        self.role_wished.store(false, Ordering::SeqCst);
        was_granted
    }

    /// Parks a thread in `block_on`, unless it must poll itself, because the role of some open
    /// shard is free and no worker will poll soon.
    pub(crate) fn park_root(&'static self, root: &Arc<Root>) {
        self.idle.lock().roots.push(root.clone());
        self.root_ends();
        // ORDERING: SeqCst: the thread is listed before it checks the roles again; `ensure_poller`
        // checks the list after a role was released.
        if !self.is_running() || self.driver.roles.are_taken() || !self.needs_poller() {
            root.park();
        }
        self.root_begins();
        self.idle.lock().roots.retain(|listed| !Arc::ptr_eq(listed, root));
    }

    /// Makes all parked threads in `block_on` check whether they should run tasks.
    pub(crate) fn nudge_roots(&self) {
        let roots = self.idle.lock().roots.clone();
        roots.iter().for_each(|root| root.nudge());
    }

    /// Makes one parked thread in `block_on` check whether it should poll. Returns false if no
    /// thread is parked.
    pub(crate) fn nudge_root(&self) -> bool {
        let root = self.idle.lock().roots.last().cloned();
        if let Some(root) = &root {
            root.nudge();
        }
        root.is_some()
    }

    /// Removes a worker thread that ends with its epoch from the count.
    pub(crate) fn worker_ends(&self) {
        self.idle.lock().threads -= 1;
    }

    /// Returns the number of worker threads.
    pub(crate) fn worker_threads(&self) -> usize {
        self.idle.lock().threads
    }
}

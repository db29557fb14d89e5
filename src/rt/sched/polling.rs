//! [`Polling`]: the buffers with which a thread polls, and the poll itself.
//!
//! Each thread that polls, such as a worker, a thread in `block_on` and sysmon, owns one. The
//! thread first takes the roles of some shards ([`Roles`](crate::rt::poll::roles::Roles)). A poll
//! takes the available events, or sleeps until there are events or a timer is due, records the
//! events, and releases the roles. The thread then calls the collected wakers, or passes them to
//! another thread (D2 and 12 of `driver.rs`).
//!
//! # Memory ordering
//! The polling thread announces a sleep in the roles of its shards and, if it counts as awake,
//! decrements the count of awake threads. Then it checks its timers, the caller's condition, the
//! epoch, and whether a shard would be left without a polling thread. Another thread first changes
//! one of these and then checks the roles. If it has released a role or opened a shard, it first
//! checks whether a thread is awake. All these accesses are SeqCst (models `sleep_against_inject`
//! and those of `rt/poll/roles.rs`).

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use super::batch::Batch;
use super::own_waker;
use super::root::Root;
use crate::rt::context;
use crate::rt::poll::back_ends::{Events, Instance};
use crate::rt::poll::backend::EVENTS_MAX;
use crate::rt::poll::driver::ONE_STEP_NANOS;
use crate::rt::poll::role::By;
use crate::rt::poll::roles::Shards;
use crate::rt::runtime::Runtime;
use crate::rt::time::clock;
use crate::rt::time::timer::Target;
use crate::rt::waiters::Wakers;
use crate::sync::Arc;

/// The outcome of a sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slept {
    /// The back end was polled, with or without a sleep. The wakers of the events are collected.
    Polled,
    /// Timers were due, and their wakers are collected. The back end was not polled.
    TimersRan,
    /// The instance of shard 0 could not be opened, for example because no descriptor was
    /// available. It is opened first, so no descriptor is registered in any shard.
    NoPoller,
}

/// The maximum number of wakers, and of due timers, for which a thread keeps the memory.
const KEPT_MAX: usize = 4096;

/// The pause of a thread without work if no descriptor is available for an epoll instance.
const NO_POLLER: Duration = Duration::from_millis(10);

/// Waits after [`Slept::NoPoller`], for [`NO_POLLER`] at most. A thread in `block_on` continues
/// when its root future is woken.
#[cold]
pub(super) fn pause(root: Option<&Root>) {
    match root {
        Some(root) => root.park_until(Some(Instant::now() + NO_POLLER)),
        None => std::thread::sleep(NO_POLLER),
    }
}

/// The events and wakers of a thread that polls; see the [module documentation](self).
pub(crate) struct Polling {
    events: Events,
    /// The wakers of events and due timers that were collected and have not been called yet.
    pub(crate) wakers: Wakers,
    /// Holds several wakers while they are called. Created, and registered with sysmon, when there
    /// is first more than one.
    batch: Option<Arc<Batch>>,
    /// A buffer for due timers.
    due: Vec<(u64, Target)>,
    /// The instances of the back end by shard, each with the epoch to which it belongs.
    instances: Vec<Option<(u32, Arc<Instance>)>>,
    /// The descriptors of the instances, for a sleep in several shards.
    descriptors: Vec<libc::pollfd>,
}

impl Polling {
    pub(crate) fn new() -> Polling {
        Polling {
            events: Events::new(),
            wakers: Wakers::new(),
            batch: None,
            due: Vec::new(),
            instances: Vec::new(),
            descriptors: Vec::new(),
        }
    }

    /// Drops the kept instances.
    pub(crate) fn forget_instances(&mut self) {
        self.instances.clear();
    }

    /// Returns the instance of a shard, and keeps it in `kept`. The runtime was running in `epoch`
    /// when the caller last checked. Returns `None` if the instance cannot be opened.
    #[inline]
    fn instance<'a>(
        kept: &'a mut Vec<Option<(u32, Arc<Instance>)>>,
        runtime: &'static Runtime,
        shard: usize,
        epoch: u32,
    ) -> Option<&'a Instance> {
        if !matches!(kept.get(shard), Some(Some((of, _))) if *of == epoch) {
            let instance = runtime.driver.instance(shard).ok()?;
            // A shutdown changes the epoch before it closes the instances. If the epoch has
            // changed, other threads may no longer be able to interrupt a wait in this instance. So
            // it is used once, and stored under an epoch that the next call does not match.
            let of = if runtime.epoch() == epoch { epoch } else { epoch.wrapping_sub(1) };
            if kept.len() <= shard {
                kept.resize_with(shard + 1, || None);
            }
            kept[shard] = Some((of, instance));
        }
        Polling::kept(kept, shard)
    }

    /// Returns the kept instance of a shard, if there is one.
    #[inline]
    fn kept(kept: &[Option<(u32, Arc<Instance>)>], shard: usize) -> Option<&Instance> {
        kept.get(shard)?.as_ref().map(|(_, instance)| &**instance)
    }

    /// Keeps the instances of `shards`, and stores their descriptors for poll(2). Returns false if
    /// an instance cannot be opened.
    fn keep_all(&mut self, runtime: &'static Runtime, shards: Shards, epoch: u32) -> bool {
        self.descriptors.clear();
        shards.into_iter().all(|shard| {
            let instance = Polling::instance(&mut self.instances, runtime, shard, epoch);
            let fd = instance.and_then(Instance::descriptor).map(|fd| fd.as_raw_fd());
            self.descriptors.extend(fd.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }));
            fd.is_some()
        })
    }

    /// Calls the collected wakers. If one of them blocks, sysmon, unless it is missing, makes
    /// another thread take over the remaining wakers. Returns the number of collected wakers.
    #[inline]
    pub(crate) fn wake_all(&mut self, runtime: &'static Runtime) -> usize {
        let (own, has_deferred) = self.wake_own(runtime);
        let others = if self.wakers.len() <= 1 {
            self.wakers.wake_all()
        } else {
            self.batch.get_or_insert_with(|| runtime.sysmon.register_batch()).call(&mut self.wakers)
        };
        if has_deferred {
            // Destructors are user code. They run last, so that a destructor that blocks delays no
            // waker.
            runtime.discard_deferred();
        }
        if own + others > KEPT_MAX {
            // Frees the memory of a burst. All wakers have been called, or taken by another thread.
            self.wakers = Wakers::new();
        }
        own + others
    }

    /// Wakes the tasks whose own wakers were collected. Returns their number, and whether drops of
    /// tasks were deferred: the wake-up of a task of an earlier epoch drops it. On a thread without
    /// a processor of the current epoch, moves these wakers to the others instead.
    #[inline]
    fn wake_own(&mut self, runtime: &'static Runtime) -> (usize, bool) {
        let own = self.wakers.own();
        if own.is_empty() {
            return (0, false);
        }
        if context::processor_in(runtime.epoch()).is_none() {
            // The tasks may have to be dropped, which runs user code.
            self.wakers.demote_own();
            return (0, false);
        }
        let count = own.len();
        (count, context::defer_discards(|| own.drain(..).for_each(own_waker::wake)))
    }

    /// Collects the wakers of the due timers of `shards`.
    pub(crate) fn run_timers(&mut self, runtime: &'static Runtime, shards: Shards, now: u64) {
        if runtime.next_timer(shards) <= now {
            runtime.run_timers(shards, now, &mut self.due, &mut self.wakers);
            self.due.shrink_to(KEPT_MAX);
        }
    }

    /// Takes the available events of `shards` without waiting, and releases their roles, which the
    /// caller must hold. `epoch` is the epoch of the caller. Returns whether a batch was full, so
    /// that there may be more events.
    pub(crate) fn poll_now(&mut self, runtime: &'static Runtime, shards: Shards, epoch: u32, now: u64) -> bool {
        let driver = &runtime.driver;
        let most = EVENTS_MAX / shards.len().max(1);
        let mut is_full = false;
        for shard in shards {
            if let Some(instance) = Polling::instance(&mut self.instances, runtime, shard, epoch) {
                driver.poll(shard, instance, &mut self.events, most, now, now);
                is_full |= driver.record(shard, &runtime.cache, &self.events, &mut self.wakers) >= most;
            }
        }
        driver.roles.release(shards);
        is_full
    }

    /// Takes some of the available events of a shard whose role another thread has, without
    /// waiting. `epoch` is the epoch of the caller. Returns whether there were events, or `None` if
    /// the back end cannot look or its instance cannot be opened.
    #[cold]
    pub(crate) fn look(&mut self, runtime: &'static Runtime, shard: usize, epoch: u32) -> Option<bool> {
        let instance = Polling::instance(&mut self.instances, runtime, shard, epoch)?;
        let has_looked = runtime.driver.look(shard, instance, &mut self.events);
        has_looked.then(|| runtime.driver.record(shard, &runtime.cache, &self.events, &mut self.wakers) > 0)
    }

    /// Takes the available events of all shards that no thread polls, without waiting.
    pub(crate) fn poll_free(&mut self, runtime: &'static Runtime, epoch: u32, now: u64) {
        let shards = runtime.driver.roles.take_free();
        runtime.driver.roles.note_polled(shards, now);
        self.poll_now(runtime, shards, epoch, now);
    }

    /// Sleeps until `shards` have events, their earliest timer is due, or the sleep is interrupted.
    /// If the timer is due in [`ONE_STEP_NANOS`] or more, the sleep ends earlier. Releases the
    /// roles of the shards, which the caller must hold. `epoch` is the epoch of the caller. If this
    /// epoch is over, the thread does not sleep, because other threads may not be able to interrupt
    /// the sleep. `falls_asleep` is called after the sleep is announced; if it returns true, the
    /// thread polls without waiting. `rises` is called when the sleep ends. Neither is called if a
    /// timer is already due or an instance cannot be opened.
    pub(crate) fn sleep(
        &mut self,
        runtime: &'static Runtime,
        shards: Shards,
        by: By,
        epoch: u32,
        falls_asleep: impl FnOnce() -> bool,
        rises: impl FnOnce(),
    ) -> Slept {
        let driver = &runtime.driver;
        let until = runtime.next_timer(shards);
        let mut now = 0;
        if until != clock::NEVER {
            now = clock::coarse();
            // A short sleep needs the exact time. For a long one, the coarse clock is sufficient.
            if until.saturating_sub(now) < ONE_STEP_NANOS {
                now = clock::now();
            }
            if until <= now {
                driver.roles.release(shards);
                self.run_timers(runtime, shards, now);
                return Slept::TimersRan;
            }
        }
        let has_instances = match shards.only() {
            Some(shard) => Polling::instance(&mut self.instances, runtime, shard, epoch).is_some(),
            None => self.keep_all(runtime, shards, epoch),
        };
        if !has_instances {
            driver.roles.release(shards);
            return Slept::NoPoller;
        }
        driver.roles.sleep(shards, until, by);
        // ORDERING: SeqCst: all of these are checked after the announcement. A shutdown, for
        // example, changes the epoch and then checks the roles.
        let called_off = falls_asleep()
            | (runtime.next_timer(shards) < until)
            | (runtime.epoch_in_order() != epoch)
            | runtime.leaves_a_shard();
        let until = if called_off { now } else { until };
        if let Some(shard) = shards.only() {
            self.sleep_in(runtime, shard, now, until, rises);
        } else {
            self.sleep_in_several(runtime, shards, now, until, rises);
        }
        driver.roles.release(shards);
        runtime.notice_activity();
        Slept::Polled
    }

    /// Sleeps in one shard and records the batch.
    #[inline]
    fn sleep_in(&mut self, runtime: &'static Runtime, shard: usize, now: u64, until: u64, rises: impl FnOnce()) {
        let driver = &runtime.driver;
        if let Some(instance) = Polling::kept(&self.instances, shard) {
            driver.poll(shard, instance, &mut self.events, EVENTS_MAX, now, until);
        }
        rises();
        driver.roles.role(shard).rise();
        driver.record(shard, &runtime.cache, &self.events, &mut self.wakers);
        if !driver.roles.is_single() {
            driver.roles.note_polled(Shards::one(shard), clock::now());
        }
    }

    /// Sleeps in several shards and records their batches.
    #[cold]
    fn sleep_in_several(
        &mut self,
        runtime: &'static Runtime,
        shards: Shards,
        now: u64,
        until: u64,
        rises: impl FnOnce(),
    ) {
        let driver = &runtime.driver;
        let ready = driver.wait_for_any(shards, &mut self.descriptors, now, until);
        rises();
        driver.roles.rise(shards);
        // Each ready shard gets an equal part of the buffer. The next poll takes the remaining
        // events.
        let most = EVENTS_MAX / ready.len().max(1);
        for shard in ready {
            if let Some(instance) = Polling::kept(&self.instances, shard) {
                instance.wait(&mut self.events, most, Some(0));
                driver.record(shard, &runtime.cache, &self.events, &mut self.wakers);
            }
        }
        driver.roles.note_polled(shards, clock::now());
    }
}

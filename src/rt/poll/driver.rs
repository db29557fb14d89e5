//! [`Driver`]: owns the instances of the back end, one per shard, and records their events.
//!
//! A descriptor is registered in one shard and stays there. [`Driver::choose`] selects the own
//! shard of the registering thread's processor (shard 0 for a thread without one), or the emptiest
//! shard if the own shard has many more descriptors. So the sockets of one task are usually in one
//! shard, while the connections that one task accepts are spread over all shards. The first
//! registration in a shard opens its instance. The instance of shard 0 is also opened by the first
//! poll or sleep, before a socket is opened while the runtime is running, and before the instance
//! of another shard. If the latter cannot be opened, the descriptor is registered in shard 0.
//!
//! One thread at a time has the [`Role`](super::role::Role) of polling a shard, for example a
//! worker, a thread in `block_on`, or sysmon. [`Roles`] decides which thread polls which shards.
//!
//! A thread that sleeps in one shard waits in its instance. A thread that sleeps in several shards
//! waits in poll(2) for their instances, and then takes the events of the ready instances. This
//! costs at least one more system call. An outer epoll instance that contains all others would cost
//! more: the kernel takes the lock of the outer instance at each event of an inner one, even while
//! no thread waits, so all CPUs would contend for this lock. poll(2) attaches to the instances only
//! during the sleep.
//!
//! # Invariants
//! * D1 — while a thread sleeps in a shard, the announced end of its sleep is not later than any
//!   timer of the shard. Arming an earlier timer and shutting down interrupt the sleep. Injecting a
//!   task interrupts a sleeping worker, unless another worker is awake and not stuck.
//! * D2 — a thread holds roles from just before a poll until its batch is recorded, and never while
//!   user code runs. Only a [look](Driver::look) needs no role: each edge is in one batch,
//!   whichever thread takes it, and a look passes an interrupt on.
//! * 12 — wakers are called after the whole batch is recorded and the roles are released.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use crate::rt::counter::Counter;
use crate::rt::poll::back_ends::{Events, Instance};
#[cfg(feature = "sim")]
use crate::rt::poll::backend::not_pollable;
use crate::rt::poll::backend::{Event, Sink, Token};
use crate::rt::poll::poll_desc::PollCache;
use crate::rt::poll::role::By;
use crate::rt::poll::roles::{Roles, SHARDS_MAX, Shards};
use crate::rt::time::clock;
use crate::rt::waiters::Wakers;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering, array_of};
use crate::sys;

/// A shard: an instance of the back end, with its counters.
#[derive(Debug)]
#[repr(align(128))]
struct Shard {
    /// The instance, if the shard is open.
    instance: RwLock<Option<Arc<Instance>>>,
    /// The number of registered descriptors, modulo 2⁶⁴. A shutdown may reset it while other
    /// threads retire descriptors, so it may fall below 0. The count is not maintained while there
    /// is only one shard.
    registered: AtomicU64,
    counts: Counts,
}

/// The counters of a shard, on separate cache lines.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Counts {
    /// The number of sleeps, non-blocking polls and looks. A sleep in several shards counts in each
    /// of them.
    pub(crate) waits: Counter,
    pub(crate) events: Counter,
    /// The number of events whose descriptor was already closed.
    pub(crate) stale: Counter,
}

impl Shard {
    const fn new() -> Shard {
        Shard {
            instance: RwLock::new(None),
            registered: AtomicU64::new(0),
            counts: Counts { waits: Counter::new(), events: Counter::new(), stale: Counter::new() },
        }
    }

    fn slot(&self) -> RwLockReadGuard<'_, Option<Arc<Instance>>> {
        self.instance.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot_mut(&self) -> RwLockWriteGuard<'_, Option<Arc<Instance>>> {
        self.instance.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The driver; see the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) roles: Roles,
    shards: [Shard; SHARDS_MAX],
    /// Locks for calls of [`add`](Driver::add) with `is_first`, if there are several shards. The
    /// number of the descriptor selects the lock. If two handles registered the same descriptor in
    /// different shards at the same time, each could find the other one's registration, and both
    /// would be refused.
    firsts: [Mutex<()>; FIRSTS],
}

/// The number of locks in [`Driver::firsts`].
const FIRSTS: usize = 16;

/// The result of [`Driver::add`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Added {
    pub(crate) shard: usize,
    /// Whether the back end must be armed before each wait.
    pub(crate) arms: bool,
    /// False if the caller's epoch has ended; see [`add`](Driver::add).
    pub(crate) stays: bool,
}

/// The minimum length of a sleep that is made in steps, in nanoseconds. By default, the kernel may
/// exceed a timeout by 50 µs or by a fraction of the timeout, whichever is longer. The fraction is
/// 0.1 %, or 0.5 % for a thread with a positive nice value (`select_estimate_accuracy` in Linux's
/// fs/select.c). So the first step ends early. The coarse clock is accurate enough for it.
pub(crate) const ONE_STEP_NANOS: u64 = 100_000_000;

/// Returns the time, in nanoseconds, by which the first step of a sleep of `nanos` ends early. It
/// covers the slack of the kernel, which is at most 0.5 % of the step, and the lag of the coarse
/// clock.
fn early(nanos: u64) -> u64 {
    nanos / 128 + clock::COARSE_BEHIND_NANOS
}

/// The pause after a failure of poll(2) other than EINTR.
const REFUSED_PAUSE: Duration = Duration::from_millis(1);

/// Returns the timeout of a wait from `now` until `until`, in nanoseconds, or `None` for a wait
/// without a limit. If the wait is [`ONE_STEP_NANOS`] or longer, the timeout is that of its first
/// step, and `now` may come from the coarse clock.
fn timeout(now: u64, until: u64) -> Option<u64> {
    match until.saturating_sub(now) {
        _ if until == clock::NEVER => None,
        nanos if nanos >= ONE_STEP_NANOS => Some(nanos - early(nanos)),
        nanos => Some(nanos),
    }
}

impl Driver {
    pub(crate) const fn new() -> Driver {
        Driver {
            roles: Roles::new(),
            shards: array_of![Shard::new(); SHARDS_MAX],
            firsts: array_of![Mutex::new(()); FIRSTS],
        }
    }

    /// Closes all instances, and sets the number of shards for `workers` workers. Called by a start
    /// of the runtime.
    pub(crate) fn configure(&self, shards: usize, workers: usize) {
        // Before the instances are closed; see `instance`.
        self.roles.configure(shards, workers);
        // A thread that outlived the last shutdown may have opened an instance since.
        self.close();
    }

    /// Returns the instance of a shard. Opens the instance if it is not open.
    ///
    /// # Errors
    /// Returns the errors of [`Instance::from_environment`], and `NotFound` if there is no such
    /// shard, which only a thread of an earlier epoch can meet.
    pub(crate) fn instance(&self, shard: usize) -> io::Result<Arc<Instance>> {
        if let Some(instance) = &*self.shards[shard].slot() {
            return Ok(instance.clone());
        }
        if shard != 0 {
            // A thread that takes the roles of several shards polls none of them if one cannot be
            // opened. Shard 0 may be one of them although it is not open.
            self.ensure()?;
        }
        let mut slot = self.shards[shard].slot_mut();
        if let Some(instance) = &*slot {
            return Ok(instance.clone());
        }
        // `configure` changes the number of shards before it locks the slot. So either this thread
        // sees the new number, or `configure` closes the instance.
        if shard >= self.roles.count() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let instance = slot.insert(Arc::new(Instance::from_environment()?)).clone();
        self.roles.set_open(shard);
        Ok(instance)
    }

    /// Opens the instance of shard 0 if it is not open.
    ///
    /// # Errors
    /// Returns the errors of [`Instance::from_environment`].
    pub(crate) fn ensure(&self) -> io::Result<()> {
        if self.shards[0].slot().is_some() {
            return Ok(());
        }
        self.instance(0).map(drop)
    }

    /// Returns the shard for a registration by a thread whose own shard is `own`. This is the
    /// emptiest shard if the number of descriptors in `own` exceeds 1.5 times the number in the
    /// emptiest shard by more than the number of workers per shard. Otherwise it is `own`.
    fn choose(&self, own: usize) -> usize {
        if self.roles.is_single() {
            return 0;
        }
        // ORDERING: Relaxed: no other memory depends on the counts.
        let count = |shard: usize| (self.shards[shard].registered.load(Ordering::Relaxed) as i64).max(0);
        let shards = (0..self.roles.count()).map(|shard| (count(shard), shard));
        let (least, emptiest) = shards.min().unwrap_or((0, own));
        let most = least + least / 2 + self.roles.processors_each() as i64;
        if count(own) > most { emptiest } else { own }
    }

    /// Registers a descriptor for a thread whose own shard is `own`. The call may open a shard, so
    /// a caller that owns no processor must make sure afterwards that a thread polls.
    ///
    /// The descriptor is registered only while the caller's epoch lasts. `still` returns whether it
    /// lasts, and is called before an instance is changed, because the instance may be of a later
    /// epoch, whose registration of the same descriptor may be in another shard.
    ///
    /// # Errors
    /// Returns the errors of [`instance`](Driver::instance) for shard 0, and those of
    /// [`Instance::add`]. If `is_first` is true, returns EEXIST for a descriptor that is already
    /// registered.
    pub(crate) fn add(
        &self,
        own: usize,
        fd: BorrowedFd<'_>,
        token: Token,
        is_first: bool,
        still: impl Fn() -> bool,
    ) -> io::Result<Added> {
        #[cfg(feature = "sim")]
        if crate::sim::registers(fd.as_raw_fd()) {
            let added = Added { shard: 0, arms: false, stays: true };
            let result = crate::sim::add(fd.as_raw_fd(), token.index, token.generation, is_first);
            return result.map(|()| added).map_err(|error| match error.raw_os_error() {
                // From the epoll instance of a test in which only the clock is virtual.
                Some(libc::EPERM) => not_pollable("epoll"),
                _ => error,
            });
        }
        let is_single = self.roles.is_single();
        let _first = (is_first && !is_single).then(|| self.firsts[fd.as_raw_fd() as usize % FIRSTS].lock());
        let mut shard = self.choose(own);
        let arms = loop {
            if let Some(instance) = &*self.shards[shard].slot() {
                // ORDERING: an instance of a later epoch is opened, under the lock of the slot,
                // after the epoch has advanced. So if `still` returns true while the guard is held,
                // the instance is not of a later epoch.
                if !still() {
                    return Ok(Added { shard, arms: instance.arms(), stays: false });
                }
                instance.add(fd, token, is_first)?;
                break instance.arms();
            }
            if let Err(error) = self.instance(shard) {
                if shard == 0 {
                    return Err(error);
                }
                shard = 0;
            }
        };
        if is_first && !is_single && self.is_elsewhere(shard, fd, &still) {
            if let Some(instance) = self.shards[shard].slot().as_ref().filter(|_| still()) {
                instance.delete(fd);
            }
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        // A registration that came too late is in an instance of its own epoch, which is being
        // closed.
        let stays = still();
        if stays && !is_single {
            self.shards[shard].registered.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Added { shard, arms, stays })
    }

    /// Returns whether a descriptor is registered in an open shard other than `shard`. Ignores the
    /// shards if `still` returns false, because their instances may be those of a later epoch.
    fn is_elsewhere(&self, shard: usize, fd: BorrowedFd<'_>, still: impl Fn() -> bool) -> bool {
        // The guard of the slot is held, as in `add`.
        let knows = |instance: &Arc<Instance>| still() && instance.knows(fd);
        let mut others = self.roles.open().without(Shards::one(shard)).into_iter();
        others.any(|other| self.shards[other].slot().as_ref().is_some_and(knows))
    }

    /// Subtracts a descriptor that is no longer registered from the count of its shard.
    pub(crate) fn retired(&self, shard: usize) {
        if !self.roles.is_single() {
            self.shards[shard].registered.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Arms each direction whose flag is true, if the shard is open.
    pub(crate) fn arm(&self, shard: usize, token: Token, read: bool, write: bool) {
        if let Some(instance) = &*self.shards[shard].slot() {
            instance.arm(token, read, write);
        }
    }

    /// Removes a descriptor from its shard, if the shard is open and `still` returns true. `still`
    /// returns whether the epoch of the registration lasts, as for [`add`](Driver::add).
    pub(crate) fn delete(&self, shard: usize, fd: BorrowedFd<'_>, still: impl Fn() -> bool) {
        #[cfg(feature = "sim")]
        if crate::sim::registers(fd.as_raw_fd()) {
            return crate::sim::delete(fd.as_raw_fd());
        }
        // The guard of the slot is held, as in `add`.
        if let Some(instance) = self.shards[shard].slot().as_ref().filter(|_| still()) {
            instance.delete(fd);
        }
    }

    /// Drops all instances. Called by a shutdown and by a start. An instance that another thread
    /// still uses is closed when that thread drops it.
    pub(crate) fn close(&self) {
        for (number, shard) in self.shards.iter().enumerate() {
            let mut slot = shard.slot_mut();
            let instance = slot.take();
            // Under the lock, as in `instance`, so that the shard of an instance is never marked as
            // closed.
            self.roles.set_closed(number);
            drop(slot);
            drop(instance);
            shard.registered.store(0, Ordering::Relaxed);
        }
    }

    /// Takes up to `most` events of a shard. Waits for the first event until `until` at most; the
    /// wait may end earlier. The caller must hold the role. `now` is the current time; if the wait
    /// is [`ONE_STEP_NANOS`] or longer, it may come from the coarse clock.
    #[inline]
    pub(crate) fn poll(
        &self,
        shard: usize,
        instance: &Instance,
        events: &mut Events,
        most: usize,
        now: u64,
        until: u64,
    ) {
        self.shards[shard].counts.waits.add(1);
        instance.wait(events, most, timeout(now, until));
    }

    /// Takes some of the available events of a shard without its role, while the holder of the role
    /// may wait in the same instance. Returns false if the back end cannot do this.
    pub(crate) fn look(&self, shard: usize, instance: &Instance, events: &mut Events) -> bool {
        let has_looked = instance.look(events);
        if has_looked {
            self.shards[shard].counts.waits.add(1);
        }
        has_looked
    }

    /// Waits for events in any of `shards`, until `until` at most. `descriptors` has the
    /// descriptors of their instances, in the same order. Returns the shards that have events or
    /// were interrupted. Returns none of them if the time is over or a signal ends the wait. If
    /// poll(2) fails for another reason, pauses for [`REFUSED_PAUSE`] and returns all of them. The
    /// caller must hold the roles.
    pub(crate) fn wait_for_any(
        &self,
        shards: Shards,
        descriptors: &mut [libc::pollfd],
        now: u64,
        until: u64,
    ) -> Shards {
        shards.into_iter().for_each(|shard| self.shards[shard].counts.waits.add(1));
        match sys::os::poll(descriptors, timeout(now, until)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Shards::NONE,
            // The kernel has too little memory, or RLIMIT_NOFILE is less than the number of shards.
            Err(_) => {
                std::thread::sleep(REFUSED_PAUSE);
                return shards;
            }
        }
        shards.into_iter().zip(descriptors).filter(|(_, polled)| polled.revents != 0).map(|(shard, _)| shard).collect()
    }

    /// Interrupts all threads that sleep in the poller.
    pub(crate) fn wake(&self) {
        self.roles.open().into_iter().for_each(|shard| _ = self.wake_if_later(shard, 0));
    }

    /// Interrupts a sleeping thread of the kind `by`, or of any kind if `by` is `None`. Prefers the
    /// thread that sleeps in the shard `first`. Returns whether such a thread was sleeping.
    fn wake_one(&self, first: usize, by: Option<By>) -> bool {
        let shard = self.roles.asleep(first, by);
        if let Some(shard) = shard {
            self.interrupt_sleep(shard);
        }
        shard.is_some()
    }

    /// Interrupts a sleeping worker, preferably a worker in the shard `first`. Returns whether a
    /// worker was sleeping.
    pub(crate) fn wake_worker(&self, first: usize) -> bool {
        self.wake_one(first, Some(By::Worker))
    }

    /// Interrupts a sleeping thread, so that it decides again which roles to take. Returns whether
    /// a thread was sleeping.
    pub(crate) fn wake_sleeper(&self) -> bool {
        self.wake_one(0, None)
    }

    fn interrupt_sleep(&self, shard: usize) {
        if let Some(instance) = &*self.shards[shard].slot() {
            instance.wake();
        }
    }

    /// Interrupts a sleep in a shard that would end after `at`. Returns whether a thread was
    /// sleeping in the shard.
    pub(crate) fn wake_if_later(&self, shard: usize, at: u64) -> bool {
        let (is_asleep, is_later) = self.roles.role(shard).asleep_beyond(at);
        if is_later {
            self.interrupt_sleep(shard);
        }
        is_asleep
    }

    /// Records a batch of events of a shard and collects the wakers that the caller must call
    /// later. The caller must hold the role, except after a [look](Driver::look). Returns the
    /// number of events.
    pub(crate) fn record(&self, shard: usize, cache: &PollCache, events: &Events, wakers: &mut Wakers) -> usize {
        let (count, stale) = record(cache, events, wakers);
        let counts = &self.shards[shard].counts;
        counts.events.add(count);
        if stale > 0 {
            counts.stale.add(stale);
        }
        count as usize
    }

    /// Returns the counters of a shard.
    pub(crate) fn counts(&self, shard: usize) -> &Counts {
        &self.shards[shard].counts
    }

    /// Returns the sum of a counter over all shards.
    pub(crate) fn sum(&self, counter: impl Fn(&Counts) -> &Counter) -> u64 {
        self.shards.iter().map(|shard| counter(&shard.counts).get()).sum()
    }
}

/// Records a batch of events. Returns the number of events and the number of stale events.
#[inline(never)]
fn record(cache: &PollCache, events: &Events, wakers: &mut Wakers) -> (u64, u64) {
    let mut recording = Recording { cache, wakers, count: 0, stale: 0 };
    events.show(&mut recording);
    (recording.count, recording.stale)
}

/// The state of a call of [`record`].
struct Recording<'a> {
    cache: &'a PollCache,
    wakers: &'a mut Wakers,
    count: u64,
    stale: u64,
}

impl Sink for Recording<'_> {
    #[inline(always)]
    fn take(&mut self, event: Event) {
        self.count += 1;
        if !deliver(self.cache, &event, self.wakers) {
            self.note_stale();
        }
    }
}

/// Sets the directions of an event ready. Returns false if the event is stale. An event of a slot
/// that does not exist, which only [`knows`](crate::rt::poll::backend::BackEnd::knows) can cause,
/// does not count as stale.
#[inline(always)]
pub(crate) fn deliver(cache: &PollCache, event: &Event, wakers: &mut Wakers) -> bool {
    let Some(desc) = cache.get(event.index) else { return true };
    let [read, write] = desc.sides_of(event.generation);
    // Both directions have the same generation, except while the descriptor is being retired. Then
    // the event may be stale for the read direction alone, and does not matter.
    (!event.readable || read.set_ready(event.read_reasons, wakers))
        && (!event.writable || write.set_ready(event.write_reasons, wakers))
}

impl Recording<'_> {
    #[cold]
    fn note_stale(&mut self) {
        self.stale += 1;
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;

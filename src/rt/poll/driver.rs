//! The driver: owns the instance of the back end, decides which thread polls it and for how long,
//! and records the events.
//!
//! One thread at a time has the [`Role`] of polling: a worker without work, a thread in `block_on`
//! whose future is pending, or sysmon. Sharding the poller would change only this type.
//!
//! # Invariants
//! * D1 — while a thread sleeps in the back end, its announced end is not later than any timer.
//!   Arming an earlier timer, injecting a task and shutting down break the sleep.
//! * D2 — a thread holds the role from just before a poll until its batch is recorded, and never
//!   while user code runs.
//! * 12 — wakers are called after the whole batch is recorded and the role is released.

use std::io;
#[cfg(feature = "sim")]
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::sync::RwLock;

use crate::rt::counter::Counter;
use crate::rt::poll::back_ends::{Events, Instance};
use crate::rt::poll::backend::{EVENTS_MAX, Event, Sink, Token};
use crate::rt::poll::poll_desc::PollCache;
use crate::rt::poll::role::{By, Role};
use crate::rt::time::clock;
use crate::rt::waiters::Wakers;
use crate::sync::Arc;

/// The driver; see the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) role: Role,
    instance: RwLock<Option<Arc<Instance>>>,
    pub(crate) waits: Counter,
    pub(crate) events: Counter,
    pub(crate) stale: Counter,
}

/// Longer sleeps are split into two steps. The kernel may exceed a timeout by 50 µs plus a
/// thousandth of the timeout, and the coarse clock is accurate enough to tell when the second step
/// begins.
pub(crate) const ONE_STEP_NANOS: u64 = 100_000_000;

impl Driver {
    pub(crate) const fn new() -> Driver {
        Driver {
            role: Role::new(),
            instance: RwLock::new(None),
            waits: Counter::new(),
            events: Counter::new(),
            stale: Counter::new(),
        }
    }

    fn slot(&self) -> std::sync::RwLockReadGuard<'_, Option<Arc<Instance>>> {
        self.instance.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn slot_mut(&self) -> std::sync::RwLockWriteGuard<'_, Option<Arc<Instance>>> {
        self.instance.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Returns the instance. The first call opens it.
    pub(crate) fn instance(&self) -> io::Result<Arc<Instance>> {
        if let Some(instance) = &*self.slot() {
            return Ok(instance.clone());
        }
        let mut slot = self.slot_mut();
        match &*slot {
            Some(instance) => Ok(instance.clone()),
            None => Ok(slot.insert(Arc::new(Instance::from_environment()?)).clone()),
        }
    }

    /// Opens the instance if there is none.
    pub(crate) fn ensure(&self) -> io::Result<()> {
        if self.slot().is_some() {
            return Ok(());
        }
        self.instance().map(drop)
    }

    /// Registers a descriptor. Reports whether the back end must be armed before each wait.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, token: Token, is_first: bool) -> io::Result<bool> {
        #[cfg(feature = "sim")]
        if crate::sim::registers(fd.as_raw_fd()) {
            return crate::sim::add(fd.as_raw_fd(), token.index, token.generation, is_first).map(|()| false);
        }
        loop {
            if let Some(instance) = &*self.slot() {
                return instance.add(fd, token, is_first).map(|()| instance.arms());
            }
            self.instance()?;
        }
    }

    /// Arms the directions that are true, if there is an instance.
    pub(crate) fn arm(&self, token: Token, read: bool, write: bool) {
        if let Some(instance) = &*self.slot() {
            instance.arm(token, read, write);
        }
    }

    /// Removes a descriptor, if there is an instance.
    pub(crate) fn delete(&self, fd: BorrowedFd<'_>) {
        #[cfg(feature = "sim")]
        if crate::sim::registers(fd.as_raw_fd()) {
            return crate::sim::delete(fd.as_raw_fd());
        }
        if let Some(instance) = &*self.slot() {
            instance.delete(fd);
        }
    }

    /// Drops the instance. The shutdown calls this while it holds the role.
    pub(crate) fn close(&self) {
        let instance = self.slot_mut().take();
        drop(instance);
    }

    /// Takes events, waiting until `until` at most. The caller holds the role. `now` is the current
    /// time; if the wait is [`ONE_STEP_NANOS`] or longer, it may come from the coarse clock.
    pub(crate) fn poll(&self, instance: &Instance, events: &mut Events, most: usize, now: u64, until: u64) {
        let timeout = match until.saturating_sub(now) {
            _ if until == clock::NEVER => None,
            nanos if nanos >= ONE_STEP_NANOS => Some(nanos - (nanos / 256).max(clock::COARSE_BEHIND_NANOS)),
            nanos => Some(nanos),
        };
        self.waits.add_owned(1);
        instance.wait(events, most.min(EVENTS_MAX), timeout);
    }

    /// Breaks the sleep of the thread that sleeps in the back end, if there is one.
    pub(crate) fn wake(&self) {
        self.wake_if_later(0);
    }

    /// Breaks the sleep of a worker. Reports whether one was sleeping in the back end.
    pub(crate) fn wake_worker(&self) -> bool {
        let is_worker = self.role.asleep() == Some(By::Worker);
        if is_worker {
            self.wake();
        }
        is_worker
    }

    /// Breaks a sleep that would end after `at`. Reports whether a thread was sleeping.
    pub(crate) fn wake_if_later(&self, at: u64) -> bool {
        let (is_asleep, is_later) = self.role.asleep_beyond(at);
        if is_later && let Some(instance) = &*self.slot() {
            instance.wake();
        }
        is_asleep
    }

    /// Records a batch and collects the wakers to call. The caller holds the role.
    pub(crate) fn record(&self, cache: &PollCache, events: &Events, wakers: &mut Wakers) {
        let mut recording = Recording { cache, wakers, count: 0, stale: 0 };
        events.show(&mut recording);
        let Recording { count, stale, .. } = recording;
        self.events.add_owned(count);
        if stale > 0 {
            self.stale.add_owned(stale);
        }
    }
}

/// A call of [`Driver::record`].
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
        let Some(desc) = self.cache.get(event.index) else { return };
        let [read, write] = desc.sides_of(event.generation);
        if event.readable && !read.set_ready(event.read_reasons, self.wakers)
            || event.writable && !write.set_ready(event.write_reasons, self.wakers)
        {
            // Both directions have one generation, so an event that is stale for one is stale.
            self.note_stale();
        }
    }
}

impl Recording<'_> {
    #[cold]
    fn note_stale(&mut self) {
        self.stale += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::poll::poll_desc::Direction;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn wake_if_later_breaks_only_longer_sleeps() {
        let driver = Driver::new();
        let instance = driver.instance().unwrap();
        assert!(Arc::ptr_eq(&instance, &driver.instance().unwrap()), "all callers share one instance");
        let mut events = Events::new();
        let now = clock::now();
        let mut is_broken = |until| {
            driver.poll(&instance, &mut events, 8, now, until);
            !events.is_empty()
        };
        assert!(!driver.wake_worker() && !driver.wake_if_later(0) && !is_broken(now));
        driver.role.sleep(100, By::Worker);
        assert!(driver.wake_if_later(104) && !is_broken(now), "the sleep ends at that time anyway");
        assert!(driver.wake_if_later(99) && is_broken(clock::NEVER));
        assert!(driver.wake_worker() && is_broken(clock::NEVER));
        driver.role.sleep(100, By::Root);
        assert!(!driver.wake_worker() && !is_broken(now) && driver.wake_if_later(99) && is_broken(clock::NEVER));
        driver.role.rise();
        assert!(!driver.wake_worker() && !driver.wake_if_later(0) && !is_broken(now));
        assert_eq!(driver.waits.get(), 7);
        driver.close();
        assert!(!Arc::ptr_eq(&instance, &driver.instance().unwrap()), "a new instance is opened after close");
    }

    #[test]
    fn record_stores_events_and_counts_stale_ones() {
        let (driver, cache) = (Driver::new(), PollCache::new());
        let desc = cache.alloc().unwrap();
        let generation = desc.open();
        let record = |index, generation| {
            let (socket, peer) = UnixStream::pair().unwrap();
            let token = Token { index, generation };
            if driver.add(socket.as_fd(), token, true).unwrap() {
                driver.arm(token, true, true);
            }
            let instance = driver.instance().unwrap();
            let mut events = Events::new();
            let mut poll = || {
                let now = clock::now();
                driver.poll(&instance, &mut events, 8, now, now);
                driver.record(&cache, &events, &mut Wakers::new());
            };
            poll();
            drop(peer);
            poll();
            driver.delete(socket.as_fd());
            (driver.events.get(), driver.stale.get())
        };
        assert_eq!(record(desc.index, generation), (2, 0));
        let edges = |direction| desc.side(direction, generation).edges();
        let (read, write) = (edges(Direction::Read), edges(Direction::Write));
        assert!(read != 0 && write != 0 && desc.side(Direction::Read, generation).is_hung_up());
        assert_eq!(record(desc.index, generation + 1), (4, 2));
        assert_eq!(record(u32::MAX, generation), (6, 2), "no slot has this index");
        assert_eq!((edges(Direction::Read), edges(Direction::Write)), (read, write));
    }
}

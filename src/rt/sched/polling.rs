//! `Polling`: what a thread needs to poll, and the poll itself.
//!
//! Workers, threads in `block_on` and sysmon each own one. A poll takes the role, takes events or
//! sleeps until there are some, records the batch, and releases the role. The caller then calls the
//! wakers that were collected (D2 and 12 of `driver.rs`).
//!
//! # Memory ordering
//! The poller announces a sleep in the role, then checks the timers and its caller's condition once
//! more. A thread that changes those checks the role afterwards. All these accesses are SeqCst
//! (model `sleep_against_inject`).

use super::batch::Batch;
use crate::rt::poll::back_ends::{Events, Instance};
use crate::rt::poll::backend::EVENTS_MAX;
use crate::rt::poll::driver::ONE_STEP_NANOS;
use crate::rt::poll::role::By;
use crate::rt::runtime::Runtime;
use crate::rt::time::clock;
use crate::rt::time::timer::Target;
use crate::rt::waiters::Wakers;
use crate::sync::Arc;

/// How a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slept {
    /// The thread slept, or took events without sleeping. The wakers of the events are collected.
    Polled,
    /// Timers were due and their wakers are collected. The back end was not polled.
    TimersRan,
    /// No descriptor was available for an instance, so no descriptor is registered either.
    NoPoller,
}

/// The events and wakers of a thread that polls; see the [module documentation](self).
pub(crate) struct Polling {
    events: Events,
    /// The wakers of the last batch that have not been called yet.
    pub(crate) wakers: Wakers,
    /// The wakers while they are called. Registered with the runtime once there are several.
    batch: Option<Arc<Batch>>,
    due: Vec<(u64, Target)>,
    /// The instance of the back end, and the epoch it belongs to.
    instance: Option<(u32, Arc<Instance>)>,
}

impl Polling {
    pub(crate) fn new() -> Polling {
        Polling { events: Events::new(), wakers: Wakers::new(), batch: None, due: Vec::new(), instance: None }
    }

    /// Drops the instance.
    pub(crate) fn forget_instance(&mut self) {
        self.instance = None;
    }

    /// Returns the instance of `epoch`, in which the caller saw the runtime running, and keeps it
    /// in `kept`. Returns `None` if no descriptor is available for an instance.
    #[inline]
    fn instance<'a>(
        kept: &'a mut Option<(u32, Arc<Instance>)>,
        runtime: &'static Runtime,
        epoch: u32,
    ) -> Option<&'a Instance> {
        if !matches!(kept, Some((of, _)) if *of == epoch) {
            let instance = runtime.driver.instance().ok()?;
            // A shutdown changes the epoch before it closes the instance. If the epoch has changed,
            // this may be an instance that no thread can break any more. It is used once, and
            // stored under an epoch that the next call does not ask for.
            let of = if runtime.epoch() == epoch { epoch } else { epoch.wrapping_sub(1) };
            *kept = Some((of, instance));
        }
        kept.as_ref().map(|(_, instance)| &**instance)
    }

    /// Calls the wakers that were collected, except those that another thread takes over because one
    /// blocks. Returns their number.
    #[inline]
    pub(crate) fn wake_all(&mut self, runtime: &'static Runtime) -> usize {
        if self.wakers.len() <= 1 {
            return self.wakers.wake_all();
        }
        self.batch.get_or_insert_with(|| runtime.sysmon.register_batch()).call(&mut self.wakers)
    }

    /// Collects the wakers of the timers that are due.
    pub(crate) fn run_timers(&mut self, runtime: &'static Runtime, now: u64) {
        if runtime.next_timer() <= now {
            runtime.run_timers(now, &mut self.due, &mut self.wakers);
        }
    }

    /// Takes the events that are available, without waiting. `epoch` is the caller's. Returns false
    /// if another thread has the role.
    pub(crate) fn poll_now(&mut self, runtime: &'static Runtime, epoch: u32, now: u64) -> bool {
        if !runtime.driver.role.try_take() {
            return false;
        }
        if let Some(instance) = Polling::instance(&mut self.instance, runtime, epoch) {
            runtime.driver.poll(instance, &mut self.events, EVENTS_MAX, now, now);
            runtime.driver.record(&runtime.cache, &self.events, &mut self.wakers);
        }
        runtime.driver.role.release();
        true
    }

    /// Sleeps in the back end until the earliest timer, then releases the role, which the caller
    /// holds. `epoch` is the caller's: if the epoch has changed, no thread may be able to break a
    /// sleep in this instance. `falls_asleep` is called once the sleep is announced; if it returns
    /// true, the sleep is cancelled. `rises` is called when the sleep ends.
    pub(crate) fn sleep(
        &mut self,
        runtime: &'static Runtime,
        by: By,
        epoch: u32,
        falls_asleep: impl FnOnce() -> bool,
        rises: impl FnOnce(),
    ) -> Slept {
        let driver = &runtime.driver;
        let until = runtime.next_timer();
        let mut now = 0;
        if until != clock::NEVER {
            now = clock::coarse();
            // A short wait needs the exact time. For a long one the coarse clock tells when to
            // check again.
            if until.saturating_sub(now) < ONE_STEP_NANOS {
                now = clock::now();
            }
            if until <= now {
                driver.role.release();
                runtime.run_timers(now, &mut self.due, &mut self.wakers);
                return Slept::TimersRan;
            }
        }
        let Some(instance) = Polling::instance(&mut self.instance, runtime, epoch) else {
            driver.role.release();
            return Slept::NoPoller;
        };
        driver.role.sleep(until, by);
        // ORDERING: SeqCst: after the announcement, check once more; a shutdown changes the epoch,
        // then checks the role.
        let called_off = falls_asleep() | (runtime.next_timer() < until) | (runtime.epoch() != epoch);
        driver.poll(instance, &mut self.events, EVENTS_MAX, now, if called_off { now } else { until });
        rises();
        driver.role.rise();
        driver.record(&runtime.cache, &self.events, &mut self.wakers);
        driver.role.release();
        runtime.notice_activity();
        Slept::Polled
    }
}

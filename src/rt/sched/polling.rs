//! `Polling`: what a thread needs to poll, and the poll itself.
//!
//! Workers, threads in `block_on` and sysmon each own one. A poll takes the role, takes events or sleeps for them, records the batch
//! and releases the role; the caller then wakes the wakers that were collected (D2 and 12 of `driver.rs`).
//!
//! # Memory ordering
//! A sleep is announced in the role before the last look at the timers and at what the caller waits for; whoever changes those looks
//! at the role afterwards. All SeqCst (model `sleep_against_inject`).

use crate::rt::poll::backend::{EVENTS_MAX, Events, Instance};
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
    /// The thread slept, or took what was there; the wakers of the events are collected.
    Polled,
    /// Timers were due: their wakers are collected, and nothing was polled.
    TimersRan,
    /// The process has no descriptor left for an epoll instance: nothing is registered either.
    NoPoller,
}

/// See the module's header.
pub(crate) struct Polling {
    events: Events,
    /// The wakers of the last batch, until they are called.
    pub(crate) wakers: Wakers,
    due: Vec<(u64, Target)>,
    /// The instance of the back end, and the epoch that it is of.
    instance: Option<(u32, Arc<Instance>)>,
}

impl Polling {
    pub(crate) fn new() -> Polling {
        Polling { events: Events::new(), wakers: Wakers::new(), due: Vec::new(), instance: None }
    }

    /// Drops the instance.
    pub(crate) fn forget_instance(&mut self) {
        self.instance = None;
    }

    /// The instance of `epoch`, in which the runtime was seen running, as `kept`; none when the process has no descriptor left for one.
    #[inline]
    fn instance<'a>(
        kept: &'a mut Option<(u32, Arc<Instance>)>,
        runtime: &'static Runtime,
        epoch: u32,
    ) -> Option<&'a Instance> {
        if !matches!(kept, Some((of, _)) if *of == epoch) {
            let instance = runtime.driver.instance().ok()?;
            // A shutdown moves the epoch before it closes the instance: after that this may be one that no thread can break. It is
            // used once, under a number that the next call does not ask for.
            let of = if runtime.epoch() == epoch { epoch } else { epoch.wrapping_sub(1) };
            *kept = Some((of, instance));
        }
        kept.as_ref().map(|(_, instance)| &**instance)
    }

    /// Collects the wakers of the timers that are due.
    pub(crate) fn run_timers(&mut self, runtime: &'static Runtime, now: u64) {
        if runtime.next_timer() <= now {
            runtime.run_timers(now, &mut self.due, &mut self.wakers);
        }
    }

    /// Takes the events that are there, without waiting. `epoch` is the caller's. False if another thread has the role.
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

    /// Sleeps in epoll until the earliest timer, and releases the role, which the caller holds. `epoch` is the caller's: if another one
    /// has begun, the instance that this thread would sleep in may be one that nobody can break any more. `falls_asleep` is called once
    /// the sleep is announced and returns whether there is a reason to call it off; `rises` is called at its end.
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
            // With less to wait the clock must be exact; beyond, the coarse one tells when to look again.
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
        // ORDERING: SeqCst: announced, then one more look; a shutdown moves the epoch and then looks at the role.
        let called_off = falls_asleep() | (runtime.next_timer() < until) | (runtime.epoch() != epoch);
        driver.poll(instance, &mut self.events, EVENTS_MAX, now, if called_off { now } else { until });
        rises();
        driver.role.rise();
        driver.record(&runtime.cache, &self.events, &mut self.wakers);
        driver.role.release();
        runtime.sysmon.notice();
        Slept::Polled
    }
}

//! The steps of a simulation when no task can run: edges, packets, timers, and the clock.

use std::sync::atomic::Ordering;

use super::machine::kernel::log::seconds;
use super::machine::real::{self, Real};
use super::metrics;
use super::shared::lock;
use super::world::World;
use crate::rt::poll::back_ends::epoll_event;
use crate::rt::poll::driver;
use crate::rt::runtime::runtime;
use crate::rt::time::clock;
use crate::rt::time::timer::Target;
use crate::rt::waiters::Wakers;

/// The virtual time, in nanoseconds, after which a simulation counts as standing still if no timer
/// of a task is pending and no event has woken a task. It is longer than TCP's timeouts with the
/// default settings; the longest is the 2.2 hours after which keep-alive fails. The limit matters
/// only for packets that travel for longer than this, and for keep-alive and probes of a closed
/// window that go on for longer, because of their settings or because the link loses many packets.
/// Any other standstill is detected immediately.
const QUIET_NANOS: u64 = 24 * 3600 * 1_000_000_000;

impl World {
    /// Reports edges to their descriptors.
    fn deliver(&self, edges: &[(u64, u32)], wakers: &mut Wakers) {
        metrics::add(&self.totals.takes, 1);
        metrics::add(&self.totals.events, edges.len() as u64);
        for &(data, bits) in edges {
            let is_stale = !driver::deliver(&runtime().cache, &epoll_event(data, bits), wakers);
            metrics::add(&self.totals.stale_events, u64::from(is_stale));
        }
    }

    /// Fails the simulation if the time `next`, to which the clock advances from `now`, is after
    /// the limit.
    pub(super) fn check_limit(&self, now: u64, next: u64) {
        assert!(
            next <= self.limit.get(),
            "the simulation has not ended after {} virtual seconds: raise the limit with `Builder::limit`, or make the \
             test end",
            seconds(now)
        );
    }

    /// Advances the clock and processes events and timers until one of them, or another thread,
    /// wakes a task. Called when no task can run.
    pub(super) fn advance(&self) {
        self.busy.pause();
        metrics::add(&self.totals.pauses, 1);
        if let Some(real) = &self.machine.real {
            return self.advance_with_real_sockets(real);
        }
        let mut wakers = Wakers::new();
        let mut quiet_since = None;
        loop {
            if self.take_edges(&mut wakers) {
                break;
            }
            let timer = self.processor.timers.next();
            let timer = if timer == clock::NEVER { None } else { Some(self.kernel_time(timer)) };
            let event = self.machine.kernel.borrow().next_event();
            let now = self.machine.kernel.borrow().now;
            let next = match (timer, event) {
                (Some(timer), Some(event)) => timer.min(event),
                (Some(at), None) | (None, Some(at)) => at,
                (None, None) => {
                    self.wait_for_threads();
                    break;
                }
            };
            let since = *quiet_since.get_or_insert(now);
            let is_over = || next > since + QUIET_NANOS || self.machine.kernel.borrow_mut().has_only_upkeep();
            if timer.is_none() && is_over() {
                self.wait_for_threads();
                break;
            }
            let next = next.max(now);
            self.check_limit(now, next);
            self.machine.set_clock(next);
            {
                let mut kernel = self.machine.kernel.borrow_mut();
                while kernel.step() {}
            }
            if timer.is_some_and(|timer| timer <= next) {
                self.run_timers(&mut wakers);
                if wakers.len() > 0 {
                    break;
                }
            }
            if !lock(&self.shared.inbox).is_empty() {
                break;
            }
        }
        wakers.wake_all();
    }

    /// Waits until another thread wakes a task or closes a descriptor. Called when only another
    /// thread can make a task runnable. Fails the simulation if tasks may not start threads, or if
    /// the threads do nothing for `World::patience_ms`.
    fn wait_for_threads(&self) {
        for _ in 0..if self.machine.allows_threads.get() { self.patience_ms.get() } else { 0 } {
            if self.shared.take_poke() {
                return;
            }
            real::sleep_1_ms();
            // Prevents the watchdog from reporting the wait as a task that does not yield.
            self.shared.turns.fetch_add(1, Ordering::Relaxed);
        }
        self.stop_as_quiet()
    }

    /// Reports edges to the descriptors. Returns whether an edge wakes a task.
    fn take_edges(&self, wakers: &mut Wakers) -> bool {
        let mut edges = Vec::new();
        {
            let mut kernel = self.machine.kernel.borrow_mut();
            if !kernel.has_edges() {
                return false;
            }
            kernel.take_edges(&mut edges);
        }
        self.deliver(&edges, wakers);
        wakers.len() > 0
    }

    fn run_timers(&self, wakers: &mut Wakers) {
        let now = clock::now();
        let mut due = Vec::new();
        let timers = &self.processor.timers;
        let count = timers.run(now, &mut due, wakers);
        metrics::add(&self.totals.timers_fired, count as u64);
        for (when, target) in due {
            let Target::Poll { index } = target else { continue };
            let Some(desc) = runtime().cache.get(index) else { continue };
            if let Some(at) = desc.fire(when, now, wakers) {
                runtime().arm_poll(desc, at);
            }
        }
    }

    /// Converts a time of the crate's clock to a time of the simulated kernel's clock. A time that
    /// has passed becomes now.
    fn kernel_time(&self, time: u64) -> u64 {
        let now = clock::now();
        let elapsed = self.machine.kernel.borrow().now;
        if time >= now { elapsed.saturating_add(time - now) } else { elapsed }
    }

    /// Advances a simulation with real sockets: takes the events of the sockets, and advances the
    /// clock only if these events wake no task and no bytes are in flight.
    fn advance_with_real_sockets(&self, real: &Real) {
        let (mut wakers, mut edges, mut silent_ms) = (Wakers::new(), Vec::new(), 0);
        loop {
            // This is checked before the events are taken, because bytes that arrive in between
            // cause an event.
            let is_in_flight = self.is_in_flight();
            let timer = self.processor.timers.next();
            let millis = i32::from(is_in_flight || timer == clock::NEVER);
            let has_more = real.wait(&mut edges, millis);
            self.deliver(&edges, &mut wakers);
            edges.clear();
            if wakers.len() > 0 || self.shared.take_poke() {
                break;
            }
            if has_more {
                continue;
            }
            if millis > 0 {
                silent_ms += 1;
                assert!(
                    silent_ms < self.patience_ms.get(),
                    "no task can run, and no event has woken one for a minute of real time: set a timeout for the \
                     wait, or check that a peer sends"
                );
                continue;
            }
            let (now, next) = (self.machine.kernel.borrow().now, self.kernel_time(timer));
            self.check_limit(now, next);
            self.machine.set_clock(next);
            self.run_timers(&mut wakers);
            if wakers.len() > 0 {
                break;
            }
        }
        wakers.wake_all();
    }

    /// Returns whether a TCP socket of the test has sent bytes that its peer's kernel has not
    /// acknowledged.
    fn is_in_flight(&self) -> bool {
        let slots = self.machine.slots.borrow();
        let described = slots.taken.iter().filter_map(|&index| runtime().cache.get(index)?.described());
        described.filter(|of| of.is_tcp).any(|of| Real::is_in_flight(of.number as i32))
    }
}

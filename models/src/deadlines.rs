//! Models of deadlines, timeouts and the timer sets.

use std::sync::Arc;
use std::task::{Wake, Waker};

use crate::engine::thread;
use crate::rt::poll::poll_desc::{Direction, PollDesc};
use crate::rt::poll::side::{Side, Stop, Wait};
use crate::rt::time::clock::{EXPIRED, NONE};
use crate::rt::time::timer::TimerSet;
use crate::rt::waiters::{Interest, Waiter, Wakers};
use crate::sync::{AtomicBool, AtomicU64, Condvar, Mutex, Ordering, injected_bug};

/// A descriptor with the timer entries of its slot.
struct Timed {
    desc: PollDesc,
    generation: u32,
    entries: Mutex<Vec<Entry>>,
}

/// A timer entry: its time, and the generation of the descriptor for which it was added. Only an
/// injected bug uses the generation.
type Entry = (u64, u32);

impl Timed {
    /// Creates a descriptor with a read deadline at `at`.
    fn new(at: u64) -> Arc<Timed> {
        let desc = PollDesc::new(0);
        let generation = desc.open();
        let timed = Arc::new(Timed { desc, generation, entries: Mutex::new(Vec::new()) });
        timed.set(Direction::Read, at);
        timed
    }

    fn side(&self, direction: Direction) -> Side<'_> {
        self.desc.side(direction, self.generation)
    }

    fn set(&self, direction: Direction, at: u64) {
        let mut wakers = Wakers::new();
        self.arm(self.side(direction).set_deadline(at, &mut wakers), self.generation);
        wakers.wake_all();
    }

    /// Mirrors `Runtime::arm_poll`, called for the descriptor of `generation`.
    fn arm(&self, at: Option<u64>, generation: u32) {
        if let Some(at) = at {
            self.entries.lock().push((at, generation));
        }
    }

    /// Mirrors `Runtime::run_timers`.
    fn run(&self, now: u64) {
        let due: Vec<_> = {
            let mut entries = self.entries.lock();
            let due = entries.iter().copied().filter(|&(at, _)| at <= now).collect();
            entries.retain(|&(at, _)| at > now);
            due
        };
        let mut wakers = Wakers::new();
        for (when, generation) in due {
            if self.uses_entry_of(generation) {
                self.arm(self.desc.fire(when, now, &mut wakers), generation);
            }
        }
        wakers.wake_all();
    }

    /// Returns whether there is an entry that is due at or before `at` and will fire.
    fn fires_by(&self, at: u64) -> bool {
        let counts = |&(when, generation): &Entry| {
            when <= at && self.uses_entry_of(generation) && self.desc.has_valid_entry(when)
        };
        self.entries.lock().iter().any(counts)
    }

    /// Returns whether an entry of `generation` is used for the current descriptor of the slot.
    /// Without an injected bug, every entry is used.
    fn uses_entry_of(&self, generation: u32) -> bool {
        !injected_bug!("entry_dies_with_its_descriptor") || self.desc.is_current(generation)
    }
}

fn spawn(timed: &Arc<Timed>, run: impl FnOnce(&Timed) + Send + 'static) -> thread::JoinHandle<()> {
    let timed = timed.clone();
    thread::spawn(move || run(&timed))
}

/// A deadline is moved to a later time while its timer fires. The new deadline must not expire
/// early, and a timer must fire by the new deadline.
pub fn deadline_moves_against_fire() {
    let timed = Timed::new(100);
    let firing = spawn(&timed, |timed| timed.run(100));
    timed.set(Direction::Read, 200);
    firing.join().unwrap();
    assert_eq!(timed.side(Direction::Read).deadline(), 200, "a moved deadline has fired");
    assert!(timed.fires_by(200), "no timer for the deadline");
}

/// The write deadline is set while the timer fires for the read deadline and uses up the only
/// entry. A timer must fire by the write deadline.
pub fn deadline_set_against_fire() {
    let timed = Timed::new(100);
    let firing = spawn(&timed, |timed| timed.run(100));
    timed.set(Direction::Write, 150);
    firing.join().unwrap();
    assert_eq!(timed.side(Direction::Write).deadline(), 150);
    assert!(timed.fires_by(150), "no timer for the deadline");
}

/// The read deadline is moved, and the write deadline is set and moved, while the timer fires. A
/// timer must fire by the earlier deadline, and both must expire.
pub fn two_deadlines_move_against_fire() {
    let timed = Timed::new(100);
    let firing = spawn(&timed, |timed| timed.run(100));
    let moving = spawn(&timed, |timed| {
        timed.set(Direction::Write, 300);
        timed.set(Direction::Write, 200);
    });
    timed.set(Direction::Read, 250);
    firing.join().unwrap();
    moving.join().unwrap();
    assert!(timed.fires_by(200), "no timer for the deadline");
    timed.run(250);
    assert_eq!(timed.desc.sides().map(Side::deadline), [EXPIRED; 2]);
}

/// A waker that records whether it was called.
struct Woken(std::sync::atomic::AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Woken>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// An operation arms its own timeout while the timer fires for the timeout of another operation.
/// The operation that arms its timeout must be woken in time.
///
/// Mirrors `Side::poll_wait`, which lists the waiter and then arms the timeout.
pub fn timeout_against_fire() {
    let timed = Timed::new(1000);
    timed.arm(timed.desc.wait_until(100), timed.generation);
    let side = timed.side(Direction::Read);
    assert!(side.clear_ready(side.begin().unwrap()));
    let woken = Arc::new(Woken(false.into()));
    let wait = |timed: &Timed, waker: &Waker| {
        if injected_bug!("timeout_armed_before_the_wait") {
            timed.arm(timed.desc.wait_until(150), timed.generation);
        }
        let side = timed.side(Direction::Read);
        let listed = side.wait(Waiter::Future(&mut None), Interest::Event, waker, || true);
        assert_eq!(listed, Wait::Listed);
        if !injected_bug!("timeout_armed_before_the_wait") {
            timed.arm(timed.desc.wait_until(150), timed.generation);
        }
    };
    let waiting = spawn(&timed, {
        let waker = Waker::from(woken.clone());
        move |timed| wait(timed, &waker)
    });
    timed.run(100);
    waiting.join().unwrap();
    if woken.0.swap(false, Ordering::Relaxed) {
        // The operation was woken for the timeout of the other one. It checks its own time and
        // waits again.
        wait(&timed, &Waker::from(woken.clone()));
    }
    timed.run(150);
    assert!(woken.0.load(Ordering::Relaxed), "the operation was not woken at the end of its timeout");
}

/// A polling thread is about to sleep until the first timer while another thread arms an earlier
/// one. The polling thread must wake up in time.
///
/// Mirrors `Polling::sleep` (`Roles::sleep`, `Runtime::next_timer`), `Runtime::timer_moved` and
/// `Driver::wake_if_later`.
pub fn earlier_timer_breaks_the_wait() {
    struct Poller {
        timers: TimerSet,
        sleep_until: AtomicU64,
        broken: Mutex<bool>,
        changed: Condvar,
    }
    let poller = Arc::new(Poller {
        timers: TimerSet::new(),
        sleep_until: AtomicU64::new(0),
        broken: Mutex::new(false),
        changed: Condvar::new(),
    });
    let sleeping = thread::spawn({
        let poller = poller.clone();
        move || {
            // Time does not pass in a model, so the thread does not sleep if its first timer is the
            // one at 50.
            loop {
                let until = poller.timers.next();
                if until <= 50 {
                    break;
                }
                poller.sleep_until.store(until, Ordering::SeqCst);
                let called_off = !injected_bug!("sleep_without_another_look") && poller.timers.next() < until;
                if !called_off {
                    let mut broken = poller.broken.lock();
                    while !*broken {
                        broken = poller.changed.wait(broken);
                    }
                    *broken = false;
                }
                poller.sleep_until.store(0, Ordering::SeqCst);
            }
        }
    });
    for at in [100, 50] {
        let (_, first) = poller.timers.arm_sleep(at, Waker::noop().clone(), |_, _| true);
        assert!(first);
        if poller.sleep_until.load(Ordering::SeqCst) > at {
            *poller.broken.lock() = true;
            poller.changed.notify_one();
        }
    }
    sleeping.join().unwrap();
    assert_eq!(poller.timers.next(), 50);
}

/// A sleep is polled with another waker while its timer fires. The new waker must be called, or the
/// poll must return that the sleep has ended.
pub fn a_sleep_fires_while_it_is_polled() {
    let timers = Arc::new(TimerSet::new());
    let (key, _) = timers.arm_sleep(10, Waker::noop().clone(), |_, _| true);
    let firing = thread::spawn({
        let timers = timers.clone();
        move || {
            let (mut due, mut wakers) = (Vec::new(), Wakers::new());
            assert_eq!(timers.run(10, &mut due, &mut wakers), 1);
            wakers.wake_all();
        }
    });
    let woken = Arc::new(Woken(false.into()));
    let waker = Waker::from(woken.clone());
    let fired = timers.poll_sleep(key, &waker);
    firing.join().unwrap();
    assert!(fired || woken.0.load(Ordering::Relaxed), "a sleep has fired, and no task was woken");
    assert!(timers.poll_sleep(key, &waker));
    timers.release(key);
}

/// An operation arms its timeout while its descriptor is being closed. A later deadline is set for
/// the next descriptor of the slot, and a timer must fire for this deadline.
///
/// Mirrors `Side::poll_wait`, `PollHandle::evict`, `PollHandle::retire`, and the `PollHandle::open`
/// of the next descriptor, which follows the last use of the previous handle.
pub fn a_timer_armed_during_close_serves_the_next_descriptor() {
    let timed = Timed::new(NONE);
    let closing = spawn(&timed, |timed| {
        let mut wakers = Wakers::new();
        timed.desc.evict(timed.generation, &mut wakers);
        wakers.wake_all();
        timed.desc.retire(timed.generation);
    });
    let side = timed.side(Direction::Read);
    if let Ok(ticket) = side.begin() {
        side.clear_ready(ticket);
        let mut key = None;
        if side.wait(Waiter::Future(&mut key), Interest::Event, Waker::noop(), || true) == Wait::Listed {
            timed.arm(timed.desc.wait_until(100), timed.generation);
        }
        let mut wakers = Wakers::new();
        side.end_wait(&mut key, true, &mut wakers);
        wakers.wake_all();
    }
    closing.join().unwrap();
    let generation = timed.desc.open();
    let side = timed.desc.side(Direction::Read, generation);
    timed.arm(side.set_deadline(200, &mut Wakers::new()), generation);
    assert!(timed.fires_by(200), "no timer for the deadline");
    timed.run(200);
    timed.run(200);
    assert_eq!(side.begin().err(), Some(Stop::Expired));
}

/// A timer fires while its descriptor is closed, the slot is reused, and a deadline is set for the
/// next descriptor. This deadline must not expire early, and a timer must fire for it.
pub fn a_timer_that_fires_during_reuse_serves_the_next_descriptor() {
    let timed = Timed::new(100);
    let firing = spawn(&timed, |timed| timed.run(100));
    timed.desc.retire(timed.generation);
    let generation = timed.desc.open();
    let side = timed.desc.side(Direction::Read, generation);
    timed.arm(side.set_deadline(200, &mut Wakers::new()), generation);
    firing.join().unwrap();
    assert!(side.begin().is_ok(), "the deadline of the previous descriptor ends calls of the next one");
    assert!(timed.fires_by(200), "no timer for the deadline");
}

/// A timer fires while its descriptor is closed and the slot is reused. An operation of the next
/// descriptor waits with its own timeout, and must be woken in time.
pub fn a_timer_that_fires_during_reuse_serves_the_next_timeout() {
    let timed = Timed::new(100);
    let firing = spawn(&timed, |timed| timed.run(100));
    timed.desc.retire(timed.generation);
    let generation = timed.desc.open();
    let side = timed.desc.side(Direction::Read, generation);
    assert!(side.clear_ready(side.begin().unwrap()));
    let woken = Arc::new(Woken(false.into()));
    let (waker, mut key) = (Waker::from(woken.clone()), None);
    let mut wait = || {
        while side.wait(Waiter::Future(&mut key), Interest::Event, &waker, || true) != Wait::Listed {}
        timed.arm(timed.desc.wait_until(150), generation);
    };
    wait();
    firing.join().unwrap();
    if woken.0.swap(false, Ordering::Relaxed) {
        wait();
    }
    timed.run(150);
    assert!(woken.0.load(Ordering::Relaxed), "the operation was not woken at the end of its timeout");
}

//! Fuzz targets for types with state: timers and poll descriptors. Oracles predict the results.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use super::Input;
use crate::rt::poll::poll_desc::PollCache;
use crate::rt::poll::poll_desc::{Direction, PollDesc};
use crate::rt::poll::side::{HANG_UP, Stop, Wait};
use crate::rt::time::clock::{EXPIRED, NONE};
use crate::rt::time::timer::{SleepKey, Target, TimerSet};
use crate::rt::waiters::{Interest, Key, Waiter, Wakers};

/// A waker that counts its calls.
#[derive(Debug, Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Bell>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Bell {
    /// Returns the number of calls since the previous check.
    fn rung(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// An armed sleep, and its expected state.
#[derive(Debug)]
struct Sleep {
    key: SleepKey,
    when: u64,
    fired: bool,
    bell: Arc<Bell>,
}

/// Arms and releases sleeps, sets, moves and clears deadlines, and runs the timers. Each timer that
/// is still armed must fire once, at the first run after it is due. Only `clear_sleeps` fires
/// sleeps earlier.
pub fn timers(data: &[u8]) {
    let (mut input, set) = (Input(data), TimerSet::new());
    let mut sleeps: Vec<Sleep> = Vec::new();
    // The time of the armed entry of each poll descriptor, by index.
    let mut polls: [Option<u64>; 8] = [None; 8];
    let (mut now, mut most) = (100, 0);
    let index_of = |target: Target| match target {
        Target::Poll { index } => index as usize,
        Target::Sleep { .. } => panic!("a sleep's entry was returned"),
    };
    while !input.is_empty() {
        let command = input.byte();
        let before = polls;
        let counts = |target, when| before[index_of(target)] == Some(when);
        match command % 7 {
            0 | 1 => {
                let when = now + u64::from(input.number() % 1000);
                let bell = Arc::new(Bell::default());
                let (key, _) = set.arm_sleep(when, Waker::from(bell.clone()), counts);
                assert!(sleeps.iter().all(|sleep| sleep.key != key), "a key in use was allocated again");
                sleeps.push(Sleep { key, when, fired: false, bell });
            }
            2 => {
                let (index, when) = (input.below(8), now + u64::from(input.number() % 1000));
                polls[index] = Some(when);
                let counts = |target, when| polls[index_of(target)] == Some(when);
                set.add(when, Target::Poll { index: index as u32 }, counts);
            }
            3 if !sleeps.is_empty() => {
                let sleep = sleeps.swap_remove(input.below(sleeps.len()));
                assert_eq!(set.poll_sleep(sleep.key, Waker::noop()), sleep.fired);
                set.release(sleep.key);
                assert_eq!(Arc::strong_count(&sleep.bell), 1, "a waker outlives its sleep");
            }
            4 => polls[usize::from(command) / 7 % 8] = None,
            5 => {
                now += u64::from(input.number() % 500);
                let (mut due, mut wakers) = (Vec::new(), Wakers::new());
                set.run(now, &mut due, &mut wakers);
                let woken = wakers.wake_all();
                for (when, target) in due {
                    assert!(when <= now, "a deadline fired early");
                    let slot = &mut polls[index_of(target)];
                    if *slot == Some(when) {
                        *slot = None;
                    }
                }
                assert!(polls.iter().flatten().all(|&when| when > now), "a deadline was not returned");
                let mut expected = 0;
                for sleep in sleeps.iter_mut().filter(|sleep| !sleep.fired) {
                    sleep.fired = sleep.when <= now;
                    expected += usize::from(sleep.fired);
                    assert_eq!(sleep.bell.rung(), usize::from(sleep.fired));
                }
                assert_eq!(woken, expected);
                assert!(sleeps.iter().all(|sleep| sleep.bell.rung() == 0), "a sleep was woken twice");
            }
            6 if command > 240 => {
                let mut wakers = Wakers::new();
                set.clear_sleeps(&mut wakers, counts);
                let expected = sleeps.iter().filter(|sleep| !sleep.fired).count();
                assert_eq!(wakers.wake_all(), expected);
                for sleep in &mut sleeps {
                    sleep.bell.rung();
                    sleep.fired = true;
                }
            }
            _ if !sleeps.is_empty() => {
                // Replaces the waker by another one for the same bell.
                let sleep = &sleeps[input.below(sleeps.len())];
                let waker = Waker::from(sleep.bell.clone());
                assert_eq!(set.poll_sleep(sleep.key, &waker), sleep.fired);
            }
            _ => {}
        }
        let alive = sleeps.iter().filter(|sleep| !sleep.fired).count() + polls.iter().flatten().count();
        most = most.max(alive);
        assert!(set.len() <= (2 * most).max(64) + 1, "{} entries, but at most {most} were live at once", set.len());
        let live = sleeps.iter().filter(|sleep| !sleep.fired).map(|sleep| sleep.when);
        if let Some(first) = live.chain(polls.iter().flatten().copied()).min() {
            assert!(set.next() <= first, "`next` is {}, later than the first live timer at {first}", set.next());
        }
    }
}

/// A listed waiter.
#[derive(Debug)]
struct Listed {
    key: Option<Key>,
    bell: Arc<Bell>,
}

/// The expected state of one direction.
#[derive(Debug, Default)]
struct SideModel {
    ready: bool,
    deadline: u64,
    listed: Vec<Listed>,
}

/// An open poll descriptor, and its expected state.
#[derive(Debug)]
struct Slot {
    desc: &'static PollDesc,
    generation: u32,
    closing: bool,
    sides: [SideModel; 2],
}

/// The cache for all inputs. There is one cache, because its blocks are never freed.
static CACHE: PollCache = PollCache::new();

const DIRECTIONS: [Direction; 2] = [Direction::Read, Direction::Write];

/// Checks that exactly the first `count` listed waiters were woken. Removes and returns them.
fn take_woken(listed: &mut Vec<Listed>, count: usize) -> Vec<Listed> {
    let taken: Vec<_> = listed.drain(..count).collect();
    assert!(taken.iter().all(|waiter| waiter.bell.rung() == 1), "a waiter was not woken");
    assert!(listed.iter().all(|waiter| waiter.bell.rung() == 0), "a waiter was woken out of order");
    taken
}

/// Opens, waits on, makes ready, expires, closes and reuses poll descriptors. No waiter may be
/// woken by an event of another descriptor, and every waiter must be woken by its own event.
pub fn poll_cache(data: &[u8]) {
    let mut input = Input(data);
    let mut slots: Vec<Slot> = Vec::new();
    let mut stale: Vec<(&'static PollDesc, u32)> = Vec::new();
    let mut wakers = Wakers::new();
    while !input.is_empty() {
        let command = input.byte();
        let side_number = usize::from(command >> 7);
        let direction = DIRECTIONS[side_number];
        if command % 9 == 0 && slots.len() < 32 {
            let desc = CACHE.alloc().expect("far below the limit");
            assert!(slots.iter().all(|slot| !std::ptr::eq(slot.desc, desc)), "a slot was handed out twice");
            assert!(std::ptr::eq(CACHE.get(desc.index).expect("it exists"), desc));
            let generation = desc.open();
            let side = || SideModel { ready: true, deadline: NONE, listed: Vec::new() };
            slots.push(Slot { desc, generation, closing: false, sides: [side(), side()] });
            continue;
        }
        if command % 9 == 1 && !stale.is_empty() {
            // The event is stale, because its descriptor no longer exists.
            let (desc, generation) = stale[input.below(stale.len())];
            assert!(!desc.side(direction, generation).set_ready(HANG_UP, &mut wakers), "a stale event was accepted");
            // If the byte is the time of the slot's entry, the entry fires at 99. The remaining
            // deadlines are later, so `fire` arms the timer again for them.
            let at = desc.fire(u64::from(input.byte()), 99, &mut wakers);
            assert!(at.is_none_or(|at| desc.has_valid_entry(at)));
            assert_eq!(desc.side(direction, generation).begin().err(), Some(Stop::Closed));
            assert_eq!(wakers.wake_all(), 0);
            continue;
        }
        if slots.is_empty() {
            continue;
        }
        let at = input.below(slots.len());
        let Slot { desc, generation, closing, sides } = &mut slots[at];
        let (desc, generation) = (*desc, *generation);
        let side = desc.side(direction, generation);
        let model = &mut sides[side_number];
        let begun = side.begin();
        let expected = match (*closing, model.deadline) {
            (true, _) => Some(Stop::Closed),
            (false, EXPIRED) => Some(Stop::Expired),
            _ => None,
        };
        assert_eq!(begun.as_ref().err().copied(), expected);
        match command % 9 {
            2 => {
                let reasons = if input.byte() % 8 == 0 { HANG_UP } else { 0 };
                assert!(side.set_ready(reasons, &mut wakers), "an event of the descriptor itself was refused");
                model.ready = true;
                let count = if reasons == 0 { model.listed.len().min(1) } else { model.listed.len() };
                assert_eq!(wakers.wake_all(), count);
                for mut waiter in take_woken(&mut model.listed, count) {
                    side.end_wait(&mut waiter.key, true, &mut wakers);
                }
            }
            3 | 4 => {
                let (mut key, bell) = (None, Arc::new(Bell::default()));
                let waker = Waker::from(bell.clone());
                let wait = side.wait(Waiter::Future(&mut key), Interest::Event, &waker, || true);
                let listed = !model.ready && !*closing && model.deadline != EXPIRED;
                assert_eq!(wait, if listed { Wait::Listed } else { Wait::Retry });
                if listed {
                    model.listed.push(Listed { key, bell });
                } else {
                    side.end_wait(&mut key, true, &mut wakers);
                }
            }
            5 => {
                if let Ok(ticket) = begun {
                    // An edge in between makes the evidence stale.
                    let edge = input.byte() % 4 == 0;
                    if edge {
                        side.set_ready(0, &mut wakers);
                        let count = model.listed.len().min(1);
                        assert_eq!(wakers.wake_all(), count);
                        for mut waiter in take_woken(&mut model.listed, count) {
                            side.end_wait(&mut waiter.key, true, &mut wakers);
                        }
                    }
                    let cleared = side.clear_ready(ticket);
                    assert_eq!(cleared, !(edge && ticket.is_ready()));
                    model.ready = edge || !cleared;
                }
            }
            6 if !model.listed.is_empty() => {
                // A waiter that is cancelled affects no other waiter.
                let mut waiter = model.listed.remove(input.below(model.listed.len()));
                side.end_wait(&mut waiter.key, false, &mut wakers);
                assert_eq!((wakers.wake_all(), Arc::strong_count(&waiter.bell)), (0, 1));
            }
            7 => {
                let to = [NONE, EXPIRED, 100 + u64::from(input.byte())][input.below(3)];
                let armed = desc.side(direction, generation).set_deadline(to, &mut wakers);
                model.deadline = to;
                let count = if to == EXPIRED { model.listed.len() } else { 0 };
                assert_eq!(wakers.wake_all(), count);
                for mut waiter in take_woken(&mut model.listed, count) {
                    side.end_wait(&mut waiter.key, true, &mut wakers);
                }
                // Fires the requested entry if the time drawn from the input has reached it.
                if let Some(at) = armed {
                    assert!(at <= to && desc.has_valid_entry(at));
                    let now = 100 + u64::from(input.byte());
                    if now >= at {
                        // This target does not add the entry that `fire` requests, so the remaining
                        // deadlines may never expire.
                        let _ = desc.fire(at, now, &mut wakers);
                        let mut count = 0;
                        for (model, side) in sides.iter_mut().zip(desc.sides()) {
                            if model.deadline > EXPIRED && model.deadline <= now {
                                model.deadline = EXPIRED;
                                count += model.listed.len();
                                for waiter in &mut model.listed {
                                    side.end_wait(&mut waiter.key, true, &mut Wakers::new());
                                }
                            }
                        }
                        assert_eq!(wakers.wake_all(), count);
                        for model in sides.iter_mut().filter(|model| model.deadline == EXPIRED) {
                            let all = model.listed.len();
                            take_woken(&mut model.listed, all);
                        }
                    }
                }
            }
            8 => {
                desc.evict(generation, &mut wakers);
                let count = sides.iter().map(|model| model.listed.len()).sum::<usize>();
                assert_eq!(wakers.wake_all(), count);
                for (model, side) in sides.iter_mut().zip(desc.sides()) {
                    let all = model.listed.len();
                    for mut waiter in take_woken(&mut model.listed, all) {
                        side.end_wait(&mut waiter.key, true, &mut wakers);
                    }
                }
                *closing = true;
                if input.byte() % 2 == 0 {
                    retire(slots.swap_remove(at), &mut stale);
                }
            }
            _ => {}
        }
    }
    for mut slot in slots {
        for (model, side) in slot.sides.iter_mut().zip(slot.desc.sides()) {
            for mut waiter in model.listed.drain(..) {
                side.end_wait(&mut waiter.key, true, &mut wakers);
            }
        }
        retire(slot, &mut stale);
    }
    assert_eq!(wakers.wake_all(), 0);
}

/// Retires the descriptor of a slot and frees the slot. The generation is then stale.
fn retire(slot: Slot, stale: &mut Vec<(&'static PollDesc, u32)>) {
    slot.desc.retire(slot.generation);
    assert!(!slot.desc.is_current(slot.generation));
    CACHE.free(slot.desc);
    stale.push((slot.desc, slot.generation));
}

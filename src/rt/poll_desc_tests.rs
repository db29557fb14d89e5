//! What one thread sees of a `PollDesc`: the bits of its words, who is woken by what, when a timer entry must be put in. What several see is
//! the models' business.

use std::sync::Arc;
use std::task::Wake;

use super::*;

struct Quiet;

impl Wake for Quiet {
    fn wake(self: Arc<Self>) {}
}

/// A waker that is like no other.
fn waker() -> Waker {
    Waker::from(Arc::new(Quiet))
}

fn desc() -> (PollDesc, u32) {
    let desc = PollDesc::new(0);
    desc.read.word.store(41 << GENERATION_SHIFT, Ordering::Relaxed);
    desc.write.word.store(41 << GENERATION_SHIFT, Ordering::Relaxed);
    let generation = desc.open();
    (desc, generation)
}

/// One whose reading direction is idle.
fn idle() -> (PollDesc, u32) {
    let (desc, generation) = desc();
    assert!(desc.read.clear_ready(desc.read.begin(generation).unwrap()));
    (desc, generation)
}

fn woken(collect: impl FnOnce(&mut Wakers)) -> usize {
    let mut wakers = Wakers::new();
    collect(&mut wakers);
    wakers.wake_all()
}

fn wait(side: &Side, generation: u32, interest: Interest) -> (Option<Key>, Wait) {
    let mut key = None;
    let outcome = side.wait(generation, &mut key, interest, &waker(), || true);
    (key, outcome)
}

#[test]
fn a_ticket_tells_its_bits_apart() {
    for (bits, is_ready, has_waiters, is_hung_up, distrusts) in [
        (0, false, false, false, false),
        (READY, true, false, false, false),
        (WAITERS, false, true, false, false),
        (CLOSING, false, false, false, false),
        (HANG_UP, false, false, true, true),
        (ERROR, false, false, false, true),
        (PRIORITY, false, false, false, true),
        (!0 << GENERATION_SHIFT, false, false, false, false),
        (!CLOSING, true, true, true, true),
    ] {
        let ticket = Ticket(bits);
        assert_eq!(
            (ticket.is_ready(), ticket.has_waiters(), ticket.is_hung_up(), ticket.distrusts_short_counts()),
            (is_ready, has_waiters, is_hung_up, distrusts),
            "{bits:b}"
        );
    }
}

#[test]
fn a_call_begins_unless_closed_or_expired() {
    let (desc, generation) = desc();
    assert_eq!(generation, 41);
    assert!(desc.is_current(41) && !desc.is_current(40) && !desc.is_current(42));
    for side in desc.sides() {
        assert!(side.begin(41).unwrap().is_ready());
        assert_eq!(side.begin(42).unwrap_err(), Stop::Closed);
    }
    assert_eq!(desc.set_deadline(Direction::Write, EXPIRED, &mut Wakers::new()), None);
    assert_eq!(desc.write.begin(41).unwrap_err(), Stop::Expired);
    assert!(desc.read.begin(41).is_ok(), "the other direction's");
    desc.evict(42, &mut Wakers::new());
    assert!(desc.read.begin(41).is_ok(), "another descriptor's");
    desc.evict(41, &mut Wakers::new());
    assert_eq!(desc.sides().map(|side| side.begin(41).unwrap_err()), [Stop::Closed; 2], "closing beats expiry");
}

#[test]
fn evidence_is_good_against_its_ticket_only() {
    let (desc, generation) = desc();
    let (side, other) = (desc.side(Direction::Read), desc.side(Direction::Write));
    let ticket = side.begin(generation).unwrap();
    // A waiter that enters meanwhile is no edge.
    assert_eq!(wait(side, generation, Interest::Interrupt).1, Wait::Listed);
    assert!(side.clear_ready(ticket));
    let now = side.begin(generation).unwrap();
    assert!(!now.is_ready() && now.has_waiters() && other.begin(generation).unwrap().is_ready());
    assert!(side.clear_ready(ticket), "it is clear already");
    assert!(side.set_ready(generation, 0, &mut Wakers::new()));
    assert!(!side.clear_ready(ticket), "an edge came since");
    assert!(side.begin(generation).unwrap().is_ready());
    assert!(side.clear_ready(side.begin(generation).unwrap()));
    assert!(!side.begin(generation).unwrap().is_ready());
}

#[test]
fn an_edge_counts_and_what_it_said_sticks() {
    let (desc, generation) = idle();
    let side = &desc.read;
    assert!(!side.set_ready(generation + 1, HANG_UP, &mut Wakers::new()), "a stale one");
    assert!(side.edges() == 0 && !side.is_hung_up() && !side.begin(generation).unwrap().is_ready());
    for (edges, reasons) in [(1, PRIORITY), (2, HANG_UP), (3, 0)] {
        assert!(side.set_ready(generation, reasons, &mut Wakers::new()));
        let ticket = side.begin(generation).unwrap();
        assert_eq!(side.edges(), edges << TICK_SHIFT);
        assert!(ticket.is_ready() && ticket.distrusts_short_counts() && !ticket.has_waiters());
        assert_eq!((ticket.is_hung_up(), side.is_hung_up()), (edges >= 2, edges >= 2));
    }
    // The tick wraps into nothing.
    side.word.fetch_or(TICK_MASK, Ordering::Relaxed);
    assert!(side.set_ready(generation, 0, &mut Wakers::new()));
    assert!(side.edges() == 0 && side.begin(generation).unwrap().is_hung_up());
}

#[test]
fn data_wakes_one_and_an_end_wakes_all() {
    for reasons in [0, PRIORITY, HANG_UP, ERROR] {
        let (desc, generation) = idle();
        let side = &desc.read;
        assert_eq!(woken(|wakers| assert!(side.set_ready(generation, reasons, wakers))), 0);
        assert!(side.clear_ready(side.begin(generation).unwrap()));
        assert_eq!(wait(side, generation, Interest::Interrupt).1, Wait::Listed);
        for _ in 0..2 {
            assert_eq!(wait(side, generation, Interest::Event).1, Wait::Listed);
        }
        assert_eq!((side.waiting(), side.has_waiters()), (3, true));
        let is_end = reasons & (HANG_UP | ERROR) != 0;
        assert_eq!(woken(|wakers| assert!(side.set_ready(generation, reasons, wakers))), if is_end { 3 } else { 1 });
        assert_eq!((side.waiting(), side.has_waiters()), if is_end { (0, false) } else { (2, true) });
        // A success that leaves something wakes the next, and nobody who waits for the end only.
        assert_eq!(woken(|wakers| side.pass_on(wakers)), usize::from(!is_end));
        assert_eq!(woken(|wakers| side.pass_on(wakers)), 0);
        assert_eq!(woken(|wakers| side.interrupt(wakers)), usize::from(!is_end));
        assert!(!side.has_waiters());
    }
}

#[test]
fn nothing_is_passed_on_where_nothing_is_ready() {
    let (desc, generation) = idle();
    assert_eq!(wait(&desc.read, generation, Interest::Event).1, Wait::Listed);
    assert_eq!(woken(|wakers| desc.read.pass_on(wakers)), 0);
    assert_eq!(woken(|wakers| desc.read.take_leftovers(wakers)), 1);
    assert!(!desc.read.has_waiters());
}

#[test]
fn a_wait_is_refused_for_each_reason() {
    let (desc, generation) = idle();
    let side = &desc.read;
    let refused = |interest, still: bool, generation| {
        let mut key = None;
        let outcome = side.wait(generation, &mut key, interest, &waker(), || still);
        assert!(key.is_some(), "like that of a future that was woken");
        assert_eq!((side.waiting(), side.has_waiters()), (0, false));
        assert_eq!(side.wait_poll(generation, &waker(), || still), Wait::Retry);
        assert_eq!(woken(|wakers| side.interrupt(wakers)), 1, "a poll's waker stays");
        outcome == Wait::Retry
    };
    assert!(refused(Interest::Event, false, generation));
    assert!(refused(Interest::Interrupt, true, generation + 1));
    assert!(side.set_ready(generation, 0, &mut Wakers::new()));
    assert!(refused(Interest::Event, true, generation));
    assert_eq!(wait(side, generation, Interest::Interrupt).1, Wait::Listed, "ready is no reason for this one");
    assert!(side.clear_ready(side.begin(generation).unwrap()));
    assert_eq!(woken(|wakers| assert_eq!(desc.set_deadline(Direction::Read, EXPIRED, wakers), None)), 1);
    assert!(refused(Interest::Event, true, generation) && refused(Interest::Interrupt, true, generation));
    assert_eq!(desc.set_deadline(Direction::Read, NONE, &mut Wakers::new()), None);
    assert_eq!(side.wait_poll(generation, &waker(), || true), Wait::Listed);
    assert_eq!(woken(|wakers| desc.evict(generation, wakers)), 1);
    assert!(refused(Interest::Event, true, generation) && refused(Interest::Interrupt, true, generation));
}

#[test]
fn a_future_waits_in_one_place() {
    let (desc, generation) = idle();
    let (side, task) = (&desc.read, waker());
    let mut key = None;
    let mut wait = |waker: &Waker| side.wait(generation, &mut key, Interest::Event, waker, || true);
    assert_eq!([wait(&task), wait(&task), wait(&waker())], [Wait::Listed; 3]);
    assert_eq!(side.waiting(), 1);
    assert_eq!([1, 1].map(|_| side.wait_poll(generation, &task, || true)), [Wait::Listed; 2]);
    assert_eq!(side.waiting(), 2);
    assert_eq!(woken(|wakers| assert!(side.set_ready(generation, 0, wakers))), 2);
}

#[test]
fn who_was_woken_and_did_not_act_passes_on() {
    for acted in [true, false] {
        let (desc, generation) = idle();
        let side = &desc.read;
        let (mut first, _) = wait(side, generation, Interest::Event);
        let (mut second, _) = wait(side, generation, Interest::Event);
        assert_eq!(woken(|wakers| assert!(side.set_ready(generation, 0, wakers))), 1);
        assert_eq!(woken(|wakers| side.finish(&mut first, acted, wakers)), usize::from(!acted));
        assert!(first.is_none());
        assert_eq!(woken(|wakers| side.finish(&mut first, false, wakers)), 0, "without a key there is nothing to undo");
        assert_eq!(woken(|wakers| side.finish(&mut second, false, wakers)), 0);
        assert_eq!((side.waiting(), side.has_waiters()), (0, false));
    }
    let (desc, generation) = idle();
    let (mut first, _) = wait(&desc.read, generation, Interest::Event);
    let (mut second, _) = wait(&desc.read, generation, Interest::Event);
    assert_eq!(woken(|wakers| desc.read.finish(&mut first, false, wakers)), 0, "it had not been woken");
    assert_eq!((desc.read.waiting(), desc.read.has_waiters()), (1, true));
    assert_eq!(woken(|wakers| desc.read.finish(&mut second, false, wakers)), 0);
}

/// 13: the bound of a direction's list.
#[test]
fn a_full_list_takes_nobody() {
    let (desc, generation) = idle();
    let (side, task) = (&desc.read, waker());
    {
        let mut waiters = side.waiters.lock();
        for _ in 0..WAITERS_MAX {
            let _ = waiters.push(Interest::Event, Waker::noop().clone());
        }
    }
    side.word.fetch_or(WAITERS, Ordering::Relaxed);
    let mut key = None;
    assert_eq!(side.wait(generation, &mut key, Interest::Event, &task, || true), Wait::Full);
    assert_eq!((key, side.waiting()), (None, WAITERS_MAX));
    assert_eq!(side.wait_poll(generation, &task, || true), Wait::Full);
    side.finish(&mut Key::new(1), true, &mut Wakers::new());
    assert_eq!(side.wait_poll(generation, &task, || true), Wait::Listed);
    assert_eq!((side.wait_poll(generation, &waker(), || true), side.waiting()), (Wait::Full, WAITERS_MAX));
}

#[test]
fn one_timer_entry_serves_the_earliest() {
    let (desc, generation) = idle();
    let set = |direction, at| desc.set_deadline(direction, at, &mut Wakers::new());
    let arm = |at, superseded| Some(Arm { at, superseded });
    let fire = |when, now| {
        let mut next = None;
        let count = woken(|wakers| next = desc.fire(generation, when, now, wakers));
        (next, count)
    };
    assert_eq!(set(Direction::Read, 100), arm(100, false));
    assert_eq!(set(Direction::Write, 100), None, "the same entry will do");
    assert_eq!(set(Direction::Write, 200), None);
    assert_eq!(set(Direction::Write, 90), arm(90, true));
    assert_eq!(desc.move_deadline(Direction::Read, 110), None);
    assert_eq!(desc.wait_until(80), arm(80, true));
    assert_eq!(desc.wait_until(85), None);
    assert_eq!(desc.wait_until.load(Ordering::Relaxed), 80);
    assert_eq!((desc.deadline(Direction::Read), desc.deadline(Direction::Write)), (110, 90));
    assert!(desc.counts(generation, 80) && !desc.counts(generation, 90) && !desc.counts(generation + 1, 80));
    // Entries that were superseded, or are another descriptor's.
    assert_eq!(fire(90, 95), (None, 0));
    assert_eq!(desc.fire(generation + 1, 80, 95, &mut Wakers::new()), None);
    assert_eq!(desc.deadline(Direction::Write), 90);
    // A relative timeout wakes both directions; what is to come goes back in.
    for side in desc.sides() {
        assert_eq!(wait(side, generation, Interest::Interrupt).1, Wait::Listed);
    }
    assert_eq!(fire(80, 80), (Some(90), 2));
    assert_eq!(desc.wait_until.load(Ordering::Relaxed), NONE);
    assert_eq!(wait(&desc.read, generation, Interest::Event).1, Wait::Listed);
    assert_eq!(wait(&desc.write, generation, Interest::Interrupt).1, Wait::Listed);
    assert_eq!(fire(90, 90), (Some(110), 1), "the writer's deadline");
    assert_eq!(desc.write.begin(generation).unwrap_err(), Stop::Expired);
    assert!(desc.read.begin(generation).is_ok());
    // Moved later, the entry comes too early and goes back in; cleared, it does nothing.
    assert_eq!(desc.move_deadline(Direction::Read, 150), None);
    assert_eq!(fire(110, 149), (Some(150), 0));
    assert_eq!(set(Direction::Read, NONE), None);
    assert_eq!(fire(150, 150), (None, 0));
    assert_eq!(desc.write.begin(generation).unwrap_err(), Stop::Expired, "until it is moved");
    assert_eq!(set(Direction::Write, 160), arm(160, false));
    assert!(desc.write.begin(generation).is_ok());
}

#[test]
fn a_retired_slot_begins_anew() {
    let (desc, generation) = idle();
    assert_eq!(wait(&desc.read, generation, Interest::Event).1, Wait::Listed);
    assert!(desc.write.set_ready(generation, HANG_UP, &mut Wakers::new()));
    assert!(desc.set_deadline(Direction::Read, 100, &mut Wakers::new()).is_some() && desc.wait_until(100).is_none());
    desc.write.poll_until.store(100, Ordering::Relaxed);
    desc.poll_epoch(Direction::Write).store(1, Ordering::Relaxed);
    assert_eq!(desc.poll_epoch(Direction::Read).load(Ordering::Relaxed), 0);
    desc.registration.store(registration::ADDED, Ordering::Relaxed);
    assert!(desc.retire(generation), "a timer entry dies with it");
    assert!(!desc.retire(generation), "once");
    assert_eq!(desc.registration.load(Ordering::Relaxed), registration::NONE);
    assert!(desc.is_current(generation + 1) && desc.read.has_waiters() && !desc.counts(generation, 100));
    for side in desc.sides() {
        assert_eq!(side.begin(generation).unwrap_err(), Stop::Closed);
        assert!(!side.set_ready(generation, 0, &mut Wakers::new()) && side.edges() == 0);
    }
    assert_eq!(woken(|wakers| desc.sides().iter().for_each(|side| side.take_leftovers(wakers))), 1);
    assert_eq!(desc.open(), generation + 1);
    for side in desc.sides() {
        let ticket = side.begin(generation + 1).unwrap();
        assert!(ticket.is_ready() && !ticket.has_waiters() && !ticket.distrusts_short_counts());
        assert_eq!((side.deadline.load(Ordering::Relaxed), side.poll_until.load(Ordering::Relaxed)), (NONE, NONE));
    }
    assert_eq!(desc.wait_until.load(Ordering::Relaxed), NONE);
    assert_eq!(desc.poll_epoch(Direction::Write).load(Ordering::Relaxed), 0);
    // The generation wraps.
    desc.sides().iter().for_each(|side| side.word.store(u64::from(u32::MAX) << GENERATION_SHIFT, Ordering::Relaxed));
    assert_eq!(desc.open(), u32::MAX);
    assert!(!desc.retire(u32::MAX) && desc.is_current(0) && desc.read.edges() == 0);
}

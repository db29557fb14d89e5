//! What one thread sees of a `PollDesc`: when a timer entry must be put in, and what is left of a descriptor that is gone.

use super::*;
use crate::rt::side::tests::{idle, wait, woken};
use crate::rt::waiters::Interest;

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
    assert_eq!(wait(desc.side(Direction::Read), generation, Interest::Event).1, Wait::Listed);
    assert_eq!(wait(desc.side(Direction::Write), generation, Interest::Interrupt).1, Wait::Listed);
    assert_eq!(fire(90, 90), (Some(110), 1), "the writer's deadline");
    assert_eq!(desc.side(Direction::Write).begin(generation).unwrap_err(), Stop::Expired);
    assert!(desc.side(Direction::Read).begin(generation).is_ok());
    // Moved later, the entry comes too early and goes back in; cleared, it does nothing.
    assert_eq!(desc.move_deadline(Direction::Read, 150), None);
    assert_eq!(fire(110, 149), (Some(150), 0));
    assert_eq!(set(Direction::Read, NONE), None);
    assert_eq!(fire(150, 150), (None, 0));
    assert_eq!(desc.side(Direction::Write).begin(generation).unwrap_err(), Stop::Expired, "until it is moved");
    assert_eq!(set(Direction::Write, 160), arm(160, false));
    assert!(desc.side(Direction::Write).begin(generation).is_ok());
}

#[test]
fn a_retired_slot_begins_anew() {
    let (desc, generation) = idle();
    assert_eq!(wait(desc.side(Direction::Read), generation, Interest::Event).1, Wait::Listed);
    assert!(desc.side(Direction::Write).set_ready(generation, HANG_UP, &mut Wakers::new()));
    assert!(desc.set_deadline(Direction::Read, 100, &mut Wakers::new()).is_some() && desc.wait_until(100).is_none());
    desc.side(Direction::Write).poll_until().store(100, Ordering::Relaxed);
    desc.side(Direction::Write).poll_epoch().store(1, Ordering::Relaxed);
    assert_eq!(desc.side(Direction::Read).poll_epoch().load(Ordering::Relaxed), 0);
    desc.registration.store(registration::ADDED, Ordering::Relaxed);
    assert!(desc.retire(generation), "a timer entry dies with it");
    assert!(!desc.retire(generation), "once");
    assert_eq!(desc.registration.load(Ordering::Relaxed), registration::NONE);
    assert!(
        desc.is_current(generation + 1) && desc.side(Direction::Read).has_waiters() && !desc.counts(generation, 100)
    );
    for side in desc.sides() {
        assert_eq!(side.begin(generation).unwrap_err(), Stop::Closed);
        assert!(!side.set_ready(generation, 0, &mut Wakers::new()) && side.edges() == 0);
    }
    assert_eq!(woken(|wakers| desc.sides().iter().for_each(|side| side.take_leftovers(wakers))), 1);
    assert_eq!(desc.open(), generation + 1);
    for side in desc.sides() {
        let ticket = side.begin(generation + 1).unwrap();
        assert!(ticket.is_ready() && !ticket.has_waiters() && !ticket.distrusts_short_counts());
        assert_eq!((side.deadline(), side.poll_until().load(Ordering::Relaxed)), (NONE, NONE));
    }
    assert_eq!(desc.wait_until.load(Ordering::Relaxed), NONE);
    assert_eq!(desc.side(Direction::Write).poll_epoch().load(Ordering::Relaxed), 0);
    // The generation wraps.
    desc.words.iter().for_each(|word| word.store(u64::from(u32::MAX) << 8, Ordering::Relaxed));
    assert_eq!(desc.open(), u32::MAX);
    assert!(!desc.retire(u32::MAX) && desc.is_current(0) && desc.side(Direction::Read).edges() == 0);
}

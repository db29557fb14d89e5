//! Single-threaded tests of `PollDesc`: when a timer entry must be added, and the state of a slot
//! after its descriptor was closed.

use super::*;
use crate::rt::poll::poll_desc::Direction;
use crate::rt::poll::poll_desc::registration;
use crate::rt::poll::side::tests::{idle, wait, woken};
use crate::rt::poll::side::{HANG_UP, Stop, Wait};
use crate::rt::waiters::Interest;

#[test]
fn one_timer_entry_serves_all_deadlines_and_timeouts() {
    let (desc, generation) = idle();
    let [read, write] = desc.sides();
    let set = |direction, at| desc.side(direction, generation).set_deadline(at, &mut Wakers::new());
    let fire = |when, now| {
        let mut next = None;
        let count = woken(|wakers| next = desc.fire(when, now, wakers));
        (next, count)
    };
    assert_eq!(set(Direction::Read, 100), Some(100));
    assert_eq!(set(Direction::Write, 100), None, "the same entry suffices");
    assert_eq!(set(Direction::Write, 200), None);
    assert_eq!(set(Direction::Write, 90), Some(90));
    assert_eq!(read.move_deadline(110), None);
    assert_eq!(desc.wait_until(80), Some(80));
    assert_eq!(desc.wait_until(85), None);
    assert_eq!(desc.wait_until.load(Ordering::Relaxed), 80);
    assert_eq!((read.deadline(), write.deadline()), (110, 90));
    assert!(desc.has_valid_entry(80) && !desc.has_valid_entry(90));
    // A superseded entry has no effect.
    assert_eq!(fire(90, 95), (None, 0));
    assert_eq!(write.deadline(), 90);
    // A relative timeout wakes both directions, and the timer is armed again for deadlines in the
    // future.
    for side in desc.sides() {
        assert_eq!(wait(side, Interest::Interrupt).1, Wait::Listed);
    }
    assert_eq!(fire(80, 80), (Some(90), 2));
    assert_eq!(desc.wait_until.load(Ordering::Relaxed), NONE);
    assert_eq!(wait(read, Interest::Event).1, Wait::Listed);
    assert_eq!(wait(write, Interest::Interrupt).1, Wait::Listed);
    assert_eq!(fire(90, 90), (Some(110), 1), "the writer's deadline");
    assert_eq!(write.begin().unwrap_err(), Stop::Expired);
    assert!(read.begin().is_ok());
    // If a deadline is moved to a later time, its entry fires early and the timer is armed again.
    // If the deadline is cleared, the entry has no effect.
    assert_eq!(read.move_deadline(150), None);
    assert_eq!(fire(110, 149), (Some(150), 0));
    assert_eq!(set(Direction::Read, NONE), None);
    assert_eq!(fire(150, 150), (None, 0));
    assert_eq!(write.begin().unwrap_err(), Stop::Expired, "until the deadline is moved");
    assert_eq!(set(Direction::Write, 160), Some(160));
    assert!(write.begin().is_ok());
}

#[test]
fn retired_slot_is_reset() {
    let (desc, generation) = idle();
    let [read, write] = desc.sides();
    assert_eq!(wait(read, Interest::Event).1, Wait::Listed);
    assert!(write.set_ready(HANG_UP, &mut Wakers::new()));
    assert_eq!(read.set_deadline(100, &mut Wakers::new()), Some(100));
    assert_eq!(desc.wait_until(100), None);
    write.until_of_poll().store(100, Ordering::Relaxed);
    write.epoch_of_poll().store(1, Ordering::Relaxed);
    assert_eq!(read.epoch_of_poll().load(Ordering::Relaxed), 0);
    desc.registration.store(registration::ADDED, Ordering::Relaxed);
    desc.retire(generation);
    desc.retire(generation);
    assert_eq!(desc.registration.load(Ordering::Relaxed), registration::NONE);
    assert!(desc.is_current(generation + 1) && read.has_waiters());
    for side in desc.sides_of(generation) {
        assert_eq!(side.begin().unwrap_err(), Stop::Closed);
        assert!(!side.set_ready(0, &mut Wakers::new()) && side.edges() == 0);
    }
    assert_eq!(woken(|wakers| desc.sides().iter().for_each(|side| side.take_leftovers(wakers))), 1);
    assert_eq!(desc.open(), generation + 1);
    for side in desc.sides() {
        let ticket = side.begin().unwrap();
        assert!(ticket.is_ready() && !ticket.has_waiters() && !ticket.distrusts_short_counts());
        assert_eq!((side.deadline(), side.until_of_poll().load(Ordering::Relaxed)), (NONE, NONE));
    }
    assert_eq!(desc.wait_until.load(Ordering::Relaxed), NONE);
    assert_eq!(write.epoch_of_poll().load(Ordering::Relaxed), 0);
    // The generation wraps around.
    desc.words.iter().for_each(|word| word.store(u64::from(u32::MAX) << 8, Ordering::Relaxed));
    assert_eq!(desc.open(), u32::MAX);
    desc.retire(u32::MAX);
    assert!(desc.is_current(0) && read.edges() == 0);
}

#[test]
fn timer_entry_of_closed_descriptor_serves_next_one() {
    let (desc, generation) = idle();
    let set = |at| desc.sides()[0].set_deadline(at, &mut Wakers::new());
    assert_eq!(set(100), Some(100));
    desc.retire(generation);
    // An operation that saw the descriptor open arms its timeout after the close.
    assert_eq!(desc.wait_until(50), Some(50));
    desc.open();
    let [read, _] = desc.sides();
    assert!(desc.has_valid_entry(50));
    assert_eq!(set(200), None, "the entry at 50 checks again");
    assert_eq!(desc.fire(50, 60, &mut Wakers::new()), Some(200), "nothing is due, and 200 is armed");
    assert_eq!(desc.fire(100, 110, &mut Wakers::new()), None, "superseded");
    assert_eq!(desc.fire(200, 200, &mut Wakers::new()), None);
    assert_eq!(read.begin().unwrap_err(), Stop::Expired);
    assert_eq!(set(300), Some(300), "no entry is left");
}

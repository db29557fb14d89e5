//! Single-threaded tests of a direction: the bits of its word, and which event wakes which waiters.
//! The models test concurrent orders.

use std::sync::Arc;
use std::task::{Wake, Waker};

use super::*;
use crate::rt::poll::ticket::TICK_SHIFT;
use crate::rt::poll::waiting::WAITERS_MAX;
use crate::rt::waiters::{Interest, Key, Waiter};

struct Quiet;

impl Wake for Quiet {
    fn wake(self: Arc<Self>) {}
}

/// Returns a waker that is not equivalent to any other.
pub(crate) fn waker() -> Waker {
    Waker::from(Arc::new(Quiet))
}

/// Returns a descriptor in use, and its generation, which is 41.
pub(crate) fn desc() -> (PollDesc, u32) {
    let desc = PollDesc::new(0);
    desc.sides().iter().for_each(|side| side.word().store(41 << GENERATION_SHIFT, Ordering::Relaxed));
    let generation = desc.open();
    (desc, generation)
}

/// Returns a descriptor whose read direction is idle.
pub(crate) fn idle() -> (PollDesc, u32) {
    let (desc, generation) = desc();
    let [read, _] = desc.sides();
    assert!(read.clear_ready(read.begin().unwrap()));
    (desc, generation)
}

/// Wakes the wakers that `collect` has taken on this thread, and returns their number.
pub(crate) fn woken(collect: impl FnOnce(&mut Wakers)) -> usize {
    let mut wakers = Wakers::new();
    collect(&mut wakers);
    let woken = wakers.len();
    wakers.wake_in_place();
    woken
}

pub(crate) fn wait(side: Side<'_>, interest: Interest) -> (Option<Key>, Wait) {
    let mut key = None;
    let outcome = side.wait(Waiter::Future(&mut key), interest, &waker(), || true);
    (key, outcome)
}

/// Waits after a short read that began at `ticket`.
fn wait_after(side: Side<'_>, ticket: Ticket, still: bool) -> (Option<Key>, Wait) {
    let mut key = None;
    let outcome = side.wait_after(ticket, &mut key, &waker(), || still);
    (key, outcome)
}

#[test]
fn wait_after_a_short_read_clears_ready_unless_the_state_has_changed() {
    let (desc, generation) = desc();
    let [side, _] = desc.sides();
    let ticket = side.begin().unwrap();
    let (mut key, outcome) = wait_after(side, ticket, true);
    assert!(outcome == Wait::Listed && key.is_some() && side.is_idle() && side.waiting() == 1);
    assert_eq!(wait_after(side, ticket, true), (None, Wait::Retry), "the slot is taken");
    assert_eq!(woken(|wakers| side.end_wait(&mut key, true, wakers)), 0);
    assert_eq!(wait_after(side, ticket, true), (None, Wait::Retry), "READY is clear");
    assert_eq!(woken(|wakers| assert!(side.set_ready(0, wakers))), 0);
    assert_eq!(wait_after(side, ticket, true), (None, Wait::Retry), "an edge has arrived");
    assert!(side.slot().is_free() && !side.is_idle(), "a failed wait leaves nothing behind");
    let (key, outcome) = wait_after(side, side.begin().unwrap(), false);
    assert!(outcome == Wait::Retry && key.is_some(), "the reason for the wait no longer holds");
    assert!(side.slot().is_free() && side.waiting() == 0);
    assert!(side.set_ready(0, &mut Wakers::new()));
    let ticket = side.begin().unwrap();
    assert_eq!(wait_after(side, ticket, true).1, Wait::Listed);
    assert_eq!(woken(|wakers| desc.evict(generation, wakers)), 1);
    assert_eq!(wait_after(side, ticket, true), (None, Wait::Retry), "the socket is being closed");
}

#[test]
fn ticket_says_whether_an_edge_was_recorded_since_another() {
    let (desc, generation) = desc();
    let side = desc.side(Direction::Read, generation);
    let ticket = side.begin().unwrap();
    let has_none = || side.begin().unwrap().has_no_edge_since(ticket);
    assert!(ticket.is_only_ready() && has_none());
    assert!(side.clear_ready(ticket) && has_none(), "READY does not count");
    let (mut key, _) = wait(side, Interest::Event);
    assert!(has_none() && !side.begin().unwrap().is_only_ready(), "waiters do not count");
    assert_eq!(woken(|wakers| side.end_wait(&mut key, true, wakers)), 0);
    assert!(side.set_ready(0, &mut Wakers::new()) && side.begin().unwrap().is_only_ready() && !has_none());
    desc.retire(generation);
    let next = desc.open();
    assert!(!desc.side(Direction::Read, next).begin().unwrap().has_no_edge_since(ticket), "another descriptor");
}

#[test]
fn ticket_bits_are_distinct() {
    for (bits, is_ready, has_waiters, distrusts) in [
        (0, false, false, false),
        (READY, true, false, false),
        (LISTED, false, true, false),
        (PLACED, false, true, false),
        (CLOSING, false, false, false),
        (HANG_UP, false, false, true),
        (ERROR, false, false, true),
        (PRIORITY, false, false, true),
        (!0 << GENERATION_SHIFT, false, false, false),
        (!CLOSING, true, true, true),
    ] {
        let ticket = Ticket(bits);
        assert_eq!(
            (ticket.is_ready(), ticket.has_waiters(), ticket.distrusts_short_counts()),
            (is_ready, has_waiters, distrusts),
            "{bits:b}"
        );
    }
}

#[test]
fn call_begins_unless_closed_or_expired() {
    let (desc, generation) = desc();
    let [read, write] = desc.sides();
    assert_eq!(generation, 41);
    assert!(desc.is_current(41) && !desc.is_current(40) && !desc.is_current(42));
    for side in desc.sides() {
        assert!(side.begin().unwrap().is_ready());
        assert_eq!(desc.side(side.direction, 42).begin().unwrap_err(), Stop::Closed);
    }
    assert_eq!(write.set_deadline(EXPIRED, &mut Wakers::new()), None);
    assert_eq!(write.begin().unwrap_err(), Stop::Expired);
    assert!(read.begin().is_ok(), "only the other direction has expired");
    desc.evict(42, &mut Wakers::new());
    assert!(read.begin().is_ok(), "another descriptor was evicted");
    desc.evict(41, &mut Wakers::new());
    assert_eq!(desc.sides().map(|side| side.begin().unwrap_err()), [Stop::Closed; 2], "closing precedes expiry");
}

#[test]
fn evidence_counts_only_for_its_ticket() {
    let (desc, generation) = desc();
    let (side, other) = (desc.side(Direction::Read, generation), desc.side(Direction::Write, generation));
    let ticket = side.begin().unwrap();
    // A waiter that enters in the meantime is not an edge.
    assert_eq!(wait(side, Interest::Interrupt).1, Wait::Listed);
    assert!(side.clear_ready(ticket));
    let now = side.begin().unwrap();
    assert!(!now.is_ready() && now.has_waiters() && other.begin().unwrap().is_ready());
    assert!(side.clear_ready(ticket), "READY is already clear");
    assert!(side.set_ready(0, &mut Wakers::new()));
    assert!(!side.clear_ready(ticket), "an edge has arrived since");
    assert!(side.begin().unwrap().is_ready());
    assert!(side.clear_ready(side.begin().unwrap()));
    assert!(!side.begin().unwrap().is_ready());
}

/// Edges for writing are skipped while the direction is ready, until a call first gives evidence
/// against this. That call does not clear readiness.
#[test]
fn redundant_write_edges_are_skipped_until_a_call_gives_evidence() {
    let (desc, generation) = desc();
    let side = desc.side(Direction::Write, generation);
    side.skip_edges();
    let edge = |reasons| {
        let before = side.edges();
        assert!(side.set_ready(reasons, &mut Wakers::new()));
        side.edges() != before
    };
    assert!(!edge(0) && edge(ERROR) && !edge(0), "a reason is not skipped");
    assert!(!desc.side(Direction::Write, generation + 1).set_ready(0, &mut Wakers::new()), "a stale edge");
    // An operation that waits only for interruption may wait even if the direction is ready.
    assert_eq!(wait(side, Interest::Interrupt).1, Wait::Listed);
    assert!(edge(0), "an edge that finds a waiter is not skipped");
    assert_eq!(woken(|wakers| side.interrupt(wakers)), 1);
    assert!(!edge(0));
    let ticket = side.begin().unwrap();
    assert!(!side.clear_ready(ticket), "edges may have been skipped since");
    assert!(!side.clear_ready(ticket), "the old ticket never counts");
    assert!(side.begin().unwrap().is_ready() && edge(0));
    assert!(side.clear_ready(side.begin().unwrap()));
    assert!(!side.begin().unwrap().is_ready() && edge(0));
}

#[test]
fn edge_advances_the_tick_and_its_reasons_persist() {
    let (desc, generation) = idle();
    let side = desc.side(Direction::Read, generation);
    assert!(!desc.side(Direction::Read, generation + 1).set_ready(HANG_UP, &mut Wakers::new()), "a stale edge");
    assert!(side.edges() == 0 && !side.is_hung_up() && !side.begin().unwrap().is_ready());
    for (edges, reasons) in [(1, PRIORITY), (2, HANG_UP), (3, 0)] {
        assert!(side.set_ready(reasons, &mut Wakers::new()));
        let ticket = side.begin().unwrap();
        assert_eq!(side.edges(), edges << TICK_SHIFT);
        assert!(ticket.is_ready() && ticket.distrusts_short_counts() && !ticket.has_waiters());
        assert_eq!(side.is_hung_up(), edges >= 2);
    }
    // The overflow of the tick is shifted out.
    side.word().fetch_or(TICK_MASK, Ordering::Relaxed);
    assert!(side.set_ready(0, &mut Wakers::new()));
    assert!(side.edges() == 0 && side.is_hung_up());
}

#[test]
fn data_wakes_one_waiter_and_hang_up_wakes_all() {
    for reasons in [0, PRIORITY, HANG_UP, ERROR] {
        let (desc, generation) = idle();
        let side = desc.side(Direction::Read, generation);
        assert_eq!(woken(|wakers| assert!(side.set_ready(reasons, wakers))), 0);
        assert!(side.clear_ready(side.begin().unwrap()));
        assert_eq!(wait(side, Interest::Interrupt).1, Wait::Listed);
        for _ in 0..2 {
            assert_eq!(wait(side, Interest::Event).1, Wait::Listed);
        }
        assert_eq!((side.waiting(), side.has_waiters()), (3, true));
        let is_end = reasons & (HANG_UP | ERROR) != 0;
        assert_eq!(woken(|wakers| assert!(side.set_ready(reasons, wakers))), if is_end { 3 } else { 1 });
        assert_eq!((side.waiting(), side.has_waiters()), if is_end { (0, false) } else { (2, true) });
        // A successful call that leaves data wakes the next waiter, unless that waiter waits only
        // for interruption.
        assert_eq!(woken(|wakers| side.pass_on(wakers)), usize::from(!is_end));
        assert_eq!(woken(|wakers| side.pass_on(wakers)), 0);
        assert_eq!(woken(|wakers| side.interrupt(wakers)), usize::from(!is_end));
        assert!(!side.has_waiters());
    }
}

#[test]
fn no_wake_up_is_passed_on_while_idle() {
    let (desc, generation) = idle();
    assert_eq!(wait(desc.side(Direction::Read, generation), Interest::Event).1, Wait::Listed);
    assert_eq!(woken(|wakers| desc.side(Direction::Read, generation).pass_on(wakers)), 0);
    assert_eq!(woken(|wakers| desc.side(Direction::Read, generation).take_leftovers(wakers)), 1);
    assert!(!desc.side(Direction::Read, generation).has_waiters());
}

#[test]
fn wait_is_refused_for_each_reason() {
    let (desc, generation) = idle();
    let side = desc.side(Direction::Read, generation);
    let refused = |interest, still: bool, generation| {
        let side = desc.side(Direction::Read, generation);
        let mut key = None;
        let outcome = side.wait(Waiter::Future(&mut key), interest, &waker(), || still);
        assert!(key.is_some(), "as if the future had been woken");
        assert_eq!((side.waiting(), side.has_waiters()), (0, false));
        assert_eq!(side.wait(Waiter::Poll, interest, &waker(), || still), Wait::Retry);
        assert_eq!(woken(|wakers| side.interrupt(wakers)), 1, "the waker of a poll remains");
        outcome == Wait::Retry
    };
    assert!(refused(Interest::Event, false, generation));
    assert!(refused(Interest::Interrupt, true, generation + 1));
    assert!(side.set_ready(0, &mut Wakers::new()));
    assert!(refused(Interest::Event, true, generation));
    assert_eq!(wait(side, Interest::Interrupt).1, Wait::Listed, "READY does not forbid this wait");
    assert_eq!(side.wait(Waiter::Poll, Interest::Interrupt, &waker(), || true), Wait::Listed, "nor that of a poll");
    assert!(side.clear_ready(side.begin().unwrap()));
    assert_eq!(woken(|wakers| assert_eq!(side.set_deadline(EXPIRED, wakers), None)), 2);
    assert!(refused(Interest::Event, true, generation) && refused(Interest::Interrupt, true, generation));
    assert_eq!(side.set_deadline(NONE, &mut Wakers::new()), None);
    assert_eq!(side.wait(Waiter::Poll, Interest::Event, &waker(), || true), Wait::Listed);
    assert_eq!(woken(|wakers| desc.evict(generation, wakers)), 1);
    assert!(refused(Interest::Event, true, generation) && refused(Interest::Interrupt, true, generation));
}

#[test]
fn future_waits_in_one_place() {
    let (desc, generation) = idle();
    let (side, task) = (desc.side(Direction::Read, generation), waker());
    let mut key = None;
    let mut wait = |waker: &Waker| side.wait(Waiter::Future(&mut key), Interest::Event, waker, || true);
    assert_eq!([wait(&task), wait(&task), wait(&waker())], [Wait::Listed; 3]);
    assert_eq!(side.waiting(), 1);
    assert_eq!([1, 1].map(|_| side.wait(Waiter::Poll, Interest::Event, &task, || true)), [Wait::Listed; 2]);
    assert_eq!(side.waiting(), 2);
    assert_eq!(woken(|wakers| assert!(side.set_ready(0, wakers))), 2);
}

#[test]
fn woken_waiter_that_does_not_act_passes_on() {
    for acted in [true, false] {
        let (desc, generation) = idle();
        let side = desc.side(Direction::Read, generation);
        let (mut first, _) = wait(side, Interest::Event);
        let (mut second, _) = wait(side, Interest::Event);
        assert_eq!(woken(|wakers| assert!(side.set_ready(0, wakers))), 1);
        assert_eq!(woken(|wakers| side.end_wait(&mut first, acted, wakers)), usize::from(!acted));
        assert!(first.is_none());
        assert_eq!(
            woken(|wakers| side.end_wait(&mut first, false, wakers)),
            0,
            "without a key there is nothing to undo"
        );
        assert_eq!(woken(|wakers| side.end_wait(&mut second, false, wakers)), 0);
        assert_eq!((side.waiting(), side.has_waiters()), (0, false));
    }
    let (desc, generation) = idle();
    let (mut first, _) = wait(desc.side(Direction::Read, generation), Interest::Event);
    let (mut second, _) = wait(desc.side(Direction::Read, generation), Interest::Event);
    assert_eq!(
        woken(|wakers| desc.side(Direction::Read, generation).end_wait(&mut first, false, wakers)),
        0,
        "the future was not woken"
    );
    assert_eq!(
        (desc.side(Direction::Read, generation).waiting(), desc.side(Direction::Read, generation).has_waiters()),
        (1, true)
    );
    assert_eq!(woken(|wakers| desc.side(Direction::Read, generation).end_wait(&mut second, false, wakers)), 0);
}

/// The list of a direction has a maximum length (invariant 13).
#[test]
fn full_list_refuses_futures() {
    let (desc, generation) = idle();
    let (side, task) = (desc.side(Direction::Read, generation), waker());
    {
        let mut list = side.list().lock();
        let waiters = list.get_or_insert_default();
        for _ in 0..WAITERS_MAX {
            let _ = waiters.push(Interest::Event, Waker::noop().clone());
        }
    }
    side.word().fetch_or(LISTED, Ordering::Relaxed);
    let mut key = None;
    assert_eq!(side.wait(Waiter::Future(&mut key), Interest::Event, &task, || true), Wait::Full);
    assert_eq!((key, side.waiting()), (None, WAITERS_MAX));
    side.end_wait(&mut Key::new(1), true, &mut Wakers::new());
    assert_eq!(side.wait(Waiter::Future(&mut key), Interest::Event, &task, || true), Wait::Listed);
    // Polls have a separate limit.
    assert_eq!(
        (side.wait(Waiter::Poll, Interest::Event, &waker(), || true), side.waiting()),
        (Wait::Listed, WAITERS_MAX + 1)
    );
    // A future that is in the list may wait on, with the same waker and with another.
    let listed = key;
    for task in [task, waker()] {
        assert_eq!(side.wait(Waiter::Future(&mut key), Interest::Event, &task, || true), Wait::Listed);
        assert_eq!((key, side.waiting()), (listed, WAITERS_MAX + 1));
    }
}

#[test]
fn only_a_described_descriptor_with_a_small_index_has_a_tag() {
    use crate::rt::poll::poll_desc::{NO_TAG, tag_index, tag_is_of};
    for (index, has_tag) in [(0, true), ((1 << 20) - 2, true), ((1 << 20) - 1, false), (1 << 20, false)] {
        let desc = PollDesc::new(index);
        desc.sides().iter().for_each(|side| side.word().store(0xff << GENERATION_SHIFT, Ordering::Relaxed));
        let generation = desc.open();
        assert_eq!(desc.tag(), NO_TAG, "{index}");
        desc.describe(3, false, 0, |tag| [tag, tag]);
        let tag = desc.tag();
        assert_eq!(tag != NO_TAG, has_tag, "{index}");
        assert!(!has_tag || tag_index(tag) == index as usize && tag_is_of(tag, generation));
        desc.retire(generation);
        desc.open();
        assert_eq!(desc.tag(), NO_TAG, "the tag of an earlier descriptor of the slot");
    }
}

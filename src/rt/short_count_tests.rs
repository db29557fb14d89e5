//! Unit tests of the record of a short count; see [`short_count`](super).

use super::*;
use crate::rt::context::{run_task, run_turn};
use crate::rt::poll::poll_desc::{Direction, PollDesc};
use crate::rt::poll::side::Side;
use crate::rt::waiters::Wakers;
use std::ptr;
use std::sync::Arc;
use std::task::Wake;

struct Quiet;

impl Wake for Quiet {
    fn wake(self: Arc<Quiet>) {}
}

#[test]
fn short_count_is_used_only_in_its_turn_by_its_task() {
    let desc: &'static PollDesc = Box::leak(Box::new(PollDesc::new(0)));
    let [one, other] = [Direction::Read, Direction::Write].map(|direction| desc.side(direction, 0).place());
    let (own, foreign) = (Waker::from(Arc::new(Quiet)), Waker::from(Arc::new(Quiet)));
    let ticket = Ticket::NONE;
    let takes = |place, waker: &Waker| take(place, ticket, waker);
    let set_short_and_write = |place| {
        set(false, place, ticket);
        note_write();
    };
    run_turn(ptr::null(), Some(own.data()), || {
        note_write();
        assert!(!takes(one, &own));
        set(false, one, ticket);
        assert!(!takes(one, &own), "the turn has not written since");
        assert!(is_of(one) && !is_of(other));
        note_write();
        assert!(!takes(one, &foreign) && !takes(one, Waker::noop()) && !takes(other, &own));
        assert!(takes(one, &own.clone()) && !takes(one, &own), "once");
        set_short_and_write(one);
        set_short_and_write(other);
        assert!(!takes(one, &own) && takes(other, &own));
        set_short_and_write(other);
        forget(other);
        assert!(!takes(other, &own), "forgotten");
        set_short_and_write(other);
    });
    assert!(!takes(other, &own), "the turn is over");
    run_turn(ptr::null(), Some(own.data()), || assert!(!takes(other, &own), "another turn"));
    run_task(ptr::null(), || {
        set_short_and_write(one);
        assert!(!takes(one, Waker::noop()), "outside turns");
    });
}

#[test]
fn unused_short_count_clears_ready_at_the_end_of_its_turn() {
    let own = Waker::from(Arc::new(Quiet));
    let [one, other] = [(); 2].map(|()| {
        let desc: &'static PollDesc = Box::leak(Box::new(PollDesc::new(0)));
        desc.side(Direction::Read, desc.open())
    });
    let short = |side: Side<'static>| set(false, side.place(), side.begin().unwrap());
    run_turn(ptr::null(), Some(own.data()), || {
        short(one);
        assert!(!one.is_idle() && uses_up(one.place(), one.begin().unwrap()));
        short(other);
        assert!(one.is_idle() && !other.is_idle(), "another direction had a short count");
    });
    assert!(other.is_idle());
    assert!(one.set_ready(0, &mut Wakers::new()) && other.set_ready(0, &mut Wakers::new()));
    run_turn(ptr::null(), Some(own.data()), || {
        short(one);
        run_turn(ptr::null(), Some(own.data()), || assert!(one.is_idle(), "a nested turn begins"));
        short(other);
        assert!(other.set_ready(0, &mut Wakers::new()));
    });
    assert!(!other.is_idle(), "an edge was recorded after the call");
}

//! Models of `EventRing` and `TurnRing`: a thread reads while the owner writes.

use std::sync::Arc;

use crate::engine::thread;
use crate::rt::sched::event_ring::{Event, EventRing, Mark};
use crate::rt::sched::turn_ring::TurnRing;

/// The ring has room for two events, and is full. The owner records three more while another thread
/// reads. The reader must get whole events, without gaps.
pub fn event_ring_reader_against_owner() {
    let ring = Arc::new(EventRing::new());
    ring.record(Mark::Rise, 1, 11);
    ring.record(Mark::Rise, 2, 12);
    let reader = thread::spawn({
        let ring = ring.clone();
        move || {
            let mut before = None;
            for Event { mark, ticks, value } in ring.read().0 {
                assert_eq!((mark, value), (Mark::Rise, ticks + 10), "the words of two events");
                assert!(before.is_none_or(|before| before + 1 == ticks), "an event is missing");
                before = Some(ticks);
            }
        }
    });
    for at in 3..=5 {
        ring.record(Mark::Rise, at, at + 10);
    }
    reader.join().unwrap();
}

/// The ring has room for two turns with one call each, and is full. The owner records two more
/// turns and begins a fifth one while another thread reads. The reader must get whole turns,
/// without gaps.
pub fn turn_ring_reader_against_owner() {
    let ring = Arc::new(TurnRing::new());
    let turn = |ring: &TurnRing, at: u64| {
        ring.begin(at + 10, at);
        ring.replace_calls(false, at as i32);
    };
    for at in 1..=2 {
        turn(&ring, at);
        ring.end();
    }
    let reader = thread::spawn({
        let ring = ring.clone();
        move || {
            let mut before = None;
            for turn in ring.read().0 {
                assert_eq!(turn.task, turn.ticks + 10, "a word of another turn");
                // The turn in progress may have made no call yet.
                assert!(turn.calls().all(|(fd, _)| fd as u64 == turn.ticks), "a call of another turn");
                assert!(before.is_none_or(|before| before + 1 == turn.ticks), "a turn is missing");
                before = Some(turn.ticks);
            }
        }
    });
    for at in 3..=4 {
        turn(&ring, at);
        ring.end();
    }
    turn(&ring, 5);
    reader.join().unwrap();
}

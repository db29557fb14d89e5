//! A model of `EventRing`: a reader beside the owner.

use std::sync::Arc;

use crate::engine::thread;
use crate::rt::sched::event_ring::{Event, EventRing, Mark};

/// The ring has room for two events. The owner records five while another thread reads.
pub fn event_ring_reader_against_owner() {
    let ring = Arc::new(EventRing::new());
    ring.record(Mark::Turn, 1, 11);
    ring.record(Mark::Turn, 2, 12);
    let reader = thread::spawn({
        let ring = ring.clone();
        move || {
            let events = ring.read();
            let mut before = None;
            for event in events {
                let Event::Timed { mark: Mark::Turn, ticks, value } = event else { panic!("an event that never was") };
                assert_eq!(value, ticks + 10, "the halves of two events");
                assert!(before.is_none_or(|before| before + 1 == ticks), "an event is missing in between");
                before = Some(ticks);
            }
        }
    });
    for at in 3..=5 {
        ring.record(Mark::Turn, at, at + 10);
    }
    reader.join().unwrap();
}

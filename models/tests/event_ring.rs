//! `EventRing`: its model, and the injected bugs that it must find.

use netpoll_models::{injected_bugs, models};

models! { event_ring:
    event_ring_reader_against_owner
}

injected_bugs! {
    finds_a_word_that_hides_its_end: "event_word_without_its_end" by event_ring_reader_against_owner, "the halves of two events";
    finds_an_event_in_progress_that_counts: "event_in_progress_counts" by event_ring_reader_against_owner, "the halves of two events";
}

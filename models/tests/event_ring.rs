//! `EventRing` and `TurnRing`: their models, and the injected bugs that these must find.

use netpoll_models::{injected_bugs, models};

models! { event_ring:
    event_ring_reader_against_owner
    turn_ring_reader_against_owner
}

injected_bugs! {
    finds_a_word_that_hides_its_end: "event_word_without_its_end" by event_ring_reader_against_owner, "the halves of two events";
    finds_an_event_in_progress_that_counts: "event_in_progress_counts" by event_ring_reader_against_owner, "the halves of two events";
    finds_a_turn_that_hides_its_end: "turn_without_its_end" by turn_ring_reader_against_owner, "the parts of two turns";
    finds_a_turn_without_its_task: "turn_without_its_task" by turn_ring_reader_against_owner, "the parts of two turns";
    finds_a_turn_in_progress_that_counts: "turn_in_progress_counts" by turn_ring_reader_against_owner, "a call of another turn";
}

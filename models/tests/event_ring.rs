//! Runs the models of `EventRing` and `TurnRing`, and checks that they find the injected bugs.

use netpoll_models::{injected_bugs, models};

models! { event_ring:
    event_ring_reader_against_owner
    turn_ring_reader_against_owner
}

injected_bugs! {
    finds_an_event_stored_without_release: "event_word_without_its_end" by event_ring_reader_against_owner, "the words of two events";
    finds_an_event_in_progress_that_counts: "event_in_progress_counts" by event_ring_reader_against_owner, "the words of two events";
    finds_a_task_stored_without_release: "turn_without_its_end" by turn_ring_reader_against_owner, "a word of another turn";
    finds_a_time_stamp_stored_without_release: "turn_without_its_task" by turn_ring_reader_against_owner, "a word of another turn";
    finds_a_turn_in_progress_that_counts: "turn_in_progress_counts" by turn_ring_reader_against_owner, "of another turn";
}

//! Runs the models of `RunQueue`, and checks that they find the injected bugs.

use netpoll_models::harness::RACE;
use netpoll_models::{injected_bugs, models};

models! { run_queue:
    ring_owner_against_thief
    ring_two_thieves
    ring_slots_are_used_again
    ring_grows_against_thief
    ring_grows_twice_against_thief
    ring_shrinks_against_thief
    ring_is_used_again_after_it_has_shrunk
    ring_shrinks_against_two_thieves
    next_slot_against_thief
    aside_slot_against_thief
}

injected_bugs! {
    finds_a_tail_stored_without_release: "ring_relaxed_tail" by ring_owner_against_thief, "lost or taken twice";
    finds_a_steal_without_a_claim: "steal_without_claim" by ring_two_thieves, RACE;
    finds_a_buffer_loaded_before_the_tail: "ring_buffer_before_tail" by ring_is_used_again_after_it_has_shrunk, "lost or taken twice";
    finds_a_buffer_published_without_release: "ring_buffer_is_relaxed" by ring_grows_against_thief, RACE;
    finds_a_buffer_freed_under_a_thief: "ring_freed_under_thief" by ring_shrinks_against_thief, RACE;
    finds_an_owner_without_a_fence: "ring_owner_has_no_fence" by ring_shrinks_against_thief, RACE;
    finds_a_thief_without_a_fence: "ring_thief_has_no_fence" by ring_shrinks_against_thief, RACE;
    finds_a_thief_that_leaves_without_release: "ring_thief_leaves_relaxed" by ring_shrinks_against_thief, RACE;
    finds_a_next_slot_taken_twice: "next_taken_twice" by next_slot_against_thief, RACE;
    finds_an_aside_slot_taken_twice: "aside_taken_twice" by aside_slot_against_thief, RACE;
}

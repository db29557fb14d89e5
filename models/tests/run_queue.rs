//! Runs the models of `RunQueue`, and checks that they find the injected bugs.

use netpoll_models::harness::RACE;
use netpoll_models::{injected_bugs, models};

models! { run_queue:
    ring_owner_against_thief
    ring_two_thieves
    ring_slots_are_used_again
    ring_overflow_list
    next_slot_against_thief
    aside_slot_against_thief
}

injected_bugs! {
    finds_a_tail_stored_without_release: "ring_relaxed_tail" by ring_owner_against_thief, "lost or taken twice";
    finds_a_steal_without_a_claim: "steal_without_claim" by ring_two_thieves, RACE;
    finds_a_next_slot_taken_twice: "next_taken_twice" by next_slot_against_thief, RACE;
    finds_an_aside_slot_taken_twice: "aside_taken_twice" by aside_slot_against_thief, RACE;
}

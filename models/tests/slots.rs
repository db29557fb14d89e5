//! Runs the models of the poll cache and of closings, and checks that they find the injected bugs.

use netpoll_models::harness::{DEADLOCK, RACE};
use netpoll_models::{injected_bugs, models};

models! { slots:
    free_list_hands_out_once
    slots_freed_together_are_handed_out_once
    a_closing_is_not_missed
}

injected_bugs! {
    finds_a_free_list_without_a_count: "free_list_without_count" by free_list_hands_out_once, RACE;
    finds_a_free_list_that_is_not_published: "free_list_not_published" by slots_freed_together_are_handed_out_once, RACE;
    finds_a_check_of_the_closings_before_the_wait: "closings_look_first" by a_closing_is_not_missed, DEADLOCK;
}

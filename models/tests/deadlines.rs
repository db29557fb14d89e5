//! Runs the models of deadlines, timeouts and timers, and checks that they find the injected bugs.

use netpoll_models::harness::DEADLOCK;
use netpoll_models::{injected_bugs, models};

models! { deadlines:
    deadline_moves_against_fire
    deadline_set_against_fire
    two_deadlines_move_against_fire
    timeout_against_fire
    earlier_timer_breaks_the_wait
    a_sleep_fires_while_it_is_polled
    a_timer_armed_during_close_serves_the_next_descriptor
    a_timer_that_fires_during_reuse_serves_the_next_descriptor
    a_timer_that_fires_during_reuse_serves_the_next_timeout
}

injected_bugs! {
    finds_a_fire_that_stores_unconditionally: "fire_stores_blindly" by deadline_moves_against_fire, "a moved deadline has fired";
    finds_a_timer_armed_before_its_deadline: "armed_before_deadline" by deadline_set_against_fire, "no timer";
    finds_a_timeout_armed_before_the_wait: "timeout_armed_before_the_wait" by timeout_against_fire, "the operation was not woken";
    finds_a_sleep_without_a_second_check: "sleep_without_another_look" by earlier_timer_breaks_the_wait, DEADLOCK;
    finds_a_closed_descriptor_that_discards_its_entry: "entry_dies_with_its_descriptor" by a_timer_armed_during_close_serves_the_next_descriptor, "no timer";
    finds_a_stale_entry_that_arms_nothing: "entry_dies_with_its_descriptor" by a_timer_that_fires_during_reuse_serves_the_next_descriptor, "no timer";
    finds_a_stale_entry_that_wakes_no_timeout: "entry_dies_with_its_descriptor" by a_timer_that_fires_during_reuse_serves_the_next_timeout, "the operation was not woken";
    finds_a_stale_entry_that_expires_the_next_deadline: "fire_stores_blindly" by a_timer_that_fires_during_reuse_serves_the_next_descriptor, "the deadline of the previous descriptor";
    finds_a_sleep_that_keeps_the_old_waker: "sleep_keeps_the_old_waker" by a_sleep_fires_while_it_is_polled, "no task was woken";
}

//! Deadlines, timeouts and timers: their models, and the planted bugs that they must find.

use netpoll_models::harness::DEADLOCK;
use netpoll_models::{models, planted_bugs};

models! { deadlines:
    deadline_moves_against_fire
    deadline_set_against_fire
    two_deadlines_move_against_fire
    timeout_against_fire
    earlier_timer_breaks_the_wait
    a_sleep_fires_while_it_is_polled
}

planted_bugs! {
    finds_a_fire_that_stores_blindly: "fire_stores_blindly" by deadline_moves_against_fire, "moved has fired";
    finds_a_timer_armed_before_its_deadline: "armed_before_deadline" by deadline_set_against_fire, "no timer";
    finds_a_timeout_armed_before_the_wait: "timeout_armed_before_the_wait" by timeout_against_fire, "nobody wakes";
    finds_a_sleep_without_another_look: "sleep_without_another_look" by earlier_timer_breaks_the_wait, DEADLOCK;
    finds_a_sleep_that_keeps_the_old_waker: "sleep_keeps_the_old_waker" by a_sleep_fires_while_it_is_polled, "woke nobody";
}

//! Runs the models of the end and the start of an epoch, and checks that they find the injected
//! bugs.

use netpoll_models::harness::DEADLOCK;
use netpoll_models::{injected_bugs, models};

models! { epochs:
    epoch_ends_against_scheduling
    turn_that_waits_for_its_queue_ends_at_shutdown
    timer_armed_against_start
    an_epoch_begins_against_scheduling
}

injected_bugs! {
    finds_an_epoch_that_is_read_before_the_lock: "epoch_read_before_the_lock" by epoch_ends_against_scheduling, "a task stays";
    finds_a_queue_behind_a_turn_that_is_not_emptied: "queue_behind_a_turn_is_left" by turn_that_waits_for_its_queue_ends_at_shutdown, DEADLOCK;
    finds_a_start_that_checks_the_timers_too_early: "start_looks_before_it_runs" by timer_armed_against_start, "no thread polls";
    finds_a_queue_of_the_last_epoch: "queue_of_the_last_epoch" by an_epoch_begins_against_scheduling, "a task is lost";
}

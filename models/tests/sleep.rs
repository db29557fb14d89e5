//! Runs the models of sleeping and waking, and checks that they find the injected bugs.

use netpoll_models::harness::DEADLOCK;
use netpoll_models::{injected_bugs, models};

models! { sleep:
    sleep_against_inject
    breaks_are_not_lost
    interrupt_against_look
    rest_against_inject
    inject_against_the_sleep_of_a_root
    some_thread_polls_when_all_rest
    sysmon_gives_the_role_back
    a_root_polls_after_sysmon
    the_role_is_not_lost_when_a_wish_is_granted
    a_granted_role_against_inject
    root_waker_against_sleep
    root_waker_against_park
    an_epoch_ends_against_sleep
    the_role_is_free_while_a_task_runs
}

injected_bugs! {
    finds_a_check_for_work_before_the_count: "look_before_the_count" by sleep_against_inject, DEADLOCK;
    finds_an_interrupt_flag_that_is_not_cleared: "break_seen_and_kept" by breaks_are_not_lost, DEADLOCK;
    finds_a_look_that_keeps_an_interrupt: "look_keeps_the_interrupt" by interrupt_against_look, DEADLOCK;
    finds_a_rest_without_a_second_check: "rest_without_another_look" by sysmon_gives_the_role_back, DEADLOCK;
    finds_a_leave_that_ensures_no_worker: "leave_ensures_no_worker" by some_thread_polls_when_all_rest, DEADLOCK;
    finds_a_granted_wish_that_is_forgotten: "granted_wish_is_forgotten" by the_role_is_not_lost_when_a_wish_is_granted, DEADLOCK;
    finds_a_grant_without_a_check_for_work: "grant_looks_at_nothing" by a_granted_role_against_inject, DEADLOCK;
    finds_a_root_that_is_taken_for_a_worker: "root_taken_for_a_worker" by inject_against_the_sleep_of_a_root, DEADLOCK;
    finds_a_root_that_parks_too_early: "root_parks_without_another_look" by a_root_polls_after_sysmon, DEADLOCK;
    finds_a_sysmon_that_leaves_no_poller: "sysmon_leaves_no_poller" by sysmon_gives_the_role_back, DEADLOCK;
    finds_a_root_that_checks_too_early: "root_looks_too_early" by root_waker_against_sleep, DEADLOCK;
    finds_a_sleep_in_another_epoch: "sleep_in_any_epoch" by an_epoch_ends_against_sleep, DEADLOCK;
    finds_a_role_that_is_held_in_a_turn: "role_held_in_a_turn" by the_role_is_free_while_a_task_runs, "held in a turn";
}

//! Sleeping and waking: the models, and the planted bugs that they must find.

use netpoll_models::harness::DEADLOCK;
use netpoll_models::{models, planted_bugs};

models! { sleep:
    sleep_against_inject
    breaks_are_not_lost
    rest_against_inject
    somebody_polls_when_all_rest
    somebody_polls_when_one_blocks
    sysmon_gives_the_role_back
    the_role_is_not_lost_in_a_hand_over
    root_waker_against_sleep
}

planted_bugs! {
    finds_a_look_before_the_count: "look_before_the_count" by sleep_against_inject, DEADLOCK;
    finds_a_break_that_is_seen_and_kept: "break_seen_and_kept" by breaks_are_not_lost, DEADLOCK;
    finds_a_rest_without_another_look: "rest_without_another_look" by somebody_polls_when_one_blocks, DEADLOCK;
    finds_a_leave_that_attends_to_nothing: "leave_attends_to_nothing" by somebody_polls_when_all_rest, DEADLOCK;
    finds_a_role_wanted_by_who_left: "role_wanted_by_who_left" by the_role_is_not_lost_in_a_hand_over, DEADLOCK;
    finds_a_sysmon_that_leaves_nobody: "sysmon_leaves_nobody" by sysmon_gives_the_role_back, DEADLOCK;
    finds_a_root_that_looks_too_early: "root_looks_too_early" by root_waker_against_sleep, DEADLOCK;
}

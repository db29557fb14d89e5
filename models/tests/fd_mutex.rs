//! Runs the models of `FdMutex`, and checks that they find the injected bugs.

use netpoll_models::fd_mutex;
use netpoll_models::harness::{DEADLOCK, RACE, check, finds};

#[test]
fn one_owner_per_direction() {
    check(fd_mutex::one_owner_per_direction);
}

#[test]
fn every_queued_future_gets_its_turn() {
    check(fd_mutex::every_queued_future_gets_its_turn);
}

#[test]
fn a_dropped_waiter_passes_on() {
    check(fd_mutex::a_dropped_waiter_passes_on);
}

#[test]
fn a_waiter_is_polled_again_with_another_waker() {
    check(fd_mutex::a_waiter_is_polled_again_with_another_waker);
}

#[test]
fn last_reference_destroys_once() {
    check(fd_mutex::last_reference_destroys_once);
}

#[test]
fn close_frees_the_queue() {
    check(fd_mutex::close_frees_the_queue);
}

#[test]
fn two_sides_in_parallel() {
    check(fd_mutex::two_sides_in_parallel);
}

#[test]
fn a_lock_without_a_reference_does_not_hold_the_descriptor() {
    check(fd_mutex::a_lock_without_a_reference_does_not_hold_the_descriptor);
}

#[test]
fn appends_come_between_operations() {
    check(fd_mutex::appends_come_between_operations);
}

#[test]
fn finds_an_append_that_checks_the_lock_too_early() {
    finds("fd_mutex_looks_before_state_is_locked", "appends_come_between_operations", "not adjacent");
}

#[test]
fn finds_a_cancel_that_keeps_the_wake_up() {
    finds("fd_mutex_cancel_keeps_wakeup", "a_dropped_waiter_passes_on", DEADLOCK);
}

#[test]
fn finds_a_waiters_bit_set_without_a_second_check() {
    finds("fd_mutex_announce_without_look", "every_queued_future_gets_its_turn", DEADLOCK);
}

#[test]
fn finds_a_waiters_bit_cleared_too_early() {
    finds("fd_mutex_bit_cleared_early", "every_queued_future_gets_its_turn", DEADLOCK);
}

#[test]
fn finds_a_close_that_forgets_the_queue() {
    finds("fd_mutex_close_leaves_waiters", "close_frees_the_queue", DEADLOCK);
}

#[test]
fn finds_two_threads_that_see_the_last_reference() {
    finds("fd_mutex_last_seen_twice", "two_sides_in_parallel", RACE);
}

#[test]
fn finds_an_unlock_without_release() {
    finds("fd_mutex_unlock_is_relaxed", "one_owner_per_direction", RACE);
}

#[test]
fn finds_a_lock_without_acquire() {
    finds("fd_mutex_lock_is_relaxed", "one_owner_per_direction", RACE);
}

#[test]
fn finds_a_last_reference_without_acquire() {
    finds("fd_mutex_last_does_not_acquire", "last_reference_destroys_once", RACE);
}

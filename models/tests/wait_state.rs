//! Runs the models of `PollDesc`, and checks that they find the injected bugs.

use netpoll_models::harness::{DEADLOCK, RACE, check_within};
use netpoll_models::{injected_bugs, models, wait_state};

models! { wait_state:
    edge_against_wait
    short_read_against_edge
    wait_after_a_short_read_against_edge
    wait_after_a_short_read_against_close_and_expiry
    two_readers_share_an_edge
    a_dropped_reader_passes_on
    a_reader_dropped_while_polled_passes_on
    a_reader_is_polled_again_with_another_waker
    expiry_against_wait
    close_against_wait
    a_poll_that_queues_takes_no_edge_and_is_closed
    polls_beside_futures
    the_slot_changes_hands
    a_poll_looks_into_the_slot
    a_key_is_not_given_out_again
    another_waiter_leaves_while_its_slot_is_inspected
    a_timeout_against_a_look_into_the_slot
    a_timeout_against_a_look_for_another
    a_hang_up_wakes_all
    interrupts_take_no_events
    stale_event_has_no_effect
    an_edge_reaches_the_owner
    polls_beyond_the_bound_are_woken
    skipped_edges_lose_no_room
    a_snapshot_pairs_no_number_with_another_generation
}

#[test]
fn a_second_reader_beside_a_wait_after_a_short_read() {
    check_within(2, wait_state::a_second_reader_beside_a_wait_after_a_short_read);
}

#[test]
fn edge_close_and_expiry() {
    check_within(2, wait_state::edge_close_and_expiry);
}

#[test]
fn spurious_poll_keeps_no_edge() {
    check_within(2, wait_state::spurious_poll_keeps_no_edge);
}

injected_bugs! {
    finds_a_clear_that_ignores_the_tick: "clear_ignores_tick" by edge_against_wait, DEADLOCK;
    finds_a_short_read_that_ignores_the_tick: "clear_ignores_tick" by short_read_against_edge, DEADLOCK;
    finds_a_wait_after_a_short_read_that_ignores_changes:
        "wait_after_ignores_changes" by wait_after_a_short_read_against_edge, DEADLOCK;
    finds_a_wait_after_a_short_read_without_a_second_check:
        "wait_after_without_recheck" by wait_after_a_short_read_against_close_and_expiry, DEADLOCK;
    finds_a_wait_without_a_second_check: "wait_without_recheck" by edge_against_wait, DEADLOCK;
    finds_a_success_that_keeps_the_rest: "success_keeps_the_rest" by two_readers_share_an_edge, DEADLOCK;
    finds_a_drop_that_keeps_the_wake_up: "drop_keeps_wakeup" by a_dropped_reader_passes_on, DEADLOCK;
    finds_a_retry_that_forgets_the_edge: "retry_forgets_the_edge" by a_reader_dropped_while_polled_passes_on, DEADLOCK;
    finds_a_poll_without_a_second_check: "wait_without_recheck" by a_poll_that_queues_takes_no_edge_and_is_closed, DEADLOCK;
    finds_an_expiry_that_trusts_the_bit: "expiry_looks_at_the_bit" by expiry_against_wait, DEADLOCK;
    finds_a_close_that_wakes_one: "close_wakes_one" by close_against_wait, DEADLOCK;
    finds_a_hang_up_that_wakes_one: "hang_up_wakes_one" by a_hang_up_wakes_all, DEADLOCK;
    finds_an_interrupt_that_takes_events: "interrupt_takes_events" by interrupts_take_no_events, DEADLOCK;
    finds_a_tag_that_is_relaxed: "slot_tag_is_relaxed" by a_dropped_reader_passes_on, DEADLOCK;
    finds_a_slot_that_is_freed_too_early: "slot_freed_before_it_is_empty" by two_readers_share_an_edge, RACE;
    finds_a_slot_left_by_another_waiter: "slot_left_by_another_waiter" by the_slot_changes_hands, DEADLOCK;
    finds_a_slot_that_is_put_back: "slot_is_put_back" by a_timeout_against_a_look_into_the_slot, DEADLOCK;
    finds_keys_that_are_reused: "keys_start_over" by a_key_is_not_given_out_again, DEADLOCK;
    finds_evidence_that_keeps_the_edge: "evidence_keeps_the_edge" by spurious_poll_keeps_no_edge, DEADLOCK;
    finds_a_stale_event_that_counts: "stale_event_accepted" by stale_event_has_no_effect, "a stale event";
    finds_polls_that_accumulate: "polls_pile_up" by polls_beyond_the_bound_are_woken, "polls are kept";
    finds_evidence_despite_skipped_edges:
        "evidence_despite_skipped_edges" by skipped_edges_lose_no_room, DEADLOCK;
    finds_a_number_that_outlives_its_generation:
        "number_outlives_generation" by a_snapshot_pairs_no_number_with_another_generation, "another socket's number";
    finds_an_edge_kept_without_the_lock: "edge_kept_without_the_lock" by an_edge_reaches_the_owner, DEADLOCK;
}

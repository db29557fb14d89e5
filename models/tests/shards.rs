//! Runs the models of the poller with two shards, and checks that they find the injected bugs.

use netpoll_models::harness::DEADLOCK;
use netpoll_models::{injected_bugs, models};

models! { shards:
    sleep_in_two_shards_against_inject
    only_thread_polls_both_shards
    some_thread_polls_both_shards
    last_awake_thread_polls_both_shards
    workers_of_both_shards_sleep
    shard_opened_against_sleep
    timer_against_sleep_in_two_shards
    timer_without_processor_against_sleep
    an_epoch_ends_against_two_sleeps
    sysmon_gives_the_second_shard_back
    root_waker_against_sleep_in_second_shard
    root_polls_both_shards
    granted_role_is_that_of_both_shards
}

injected_bugs! {
    finds_a_wait_in_one_shard_of_two: "waits_in_one_shard" by only_thread_polls_both_shards, DEADLOCK;
    finds_a_root_that_waits_in_one_shard: "waits_in_one_shard" by root_polls_both_shards, DEADLOCK;
    finds_a_check_for_work_before_the_count: "look_before_the_count" by sleep_in_two_shards_against_inject, DEADLOCK;
    finds_a_check_of_the_shards_before_the_count: "sleep_looks_for_a_shard_too_early" by some_thread_polls_both_shards, DEADLOCK;
    finds_a_sleeping_thread_that_is_not_interrupted: "sleeper_is_left_in_its_shard" by some_thread_polls_both_shards, DEADLOCK;
    finds_a_resting_thread_that_checks_one_shard: "looks_at_one_shard" by last_awake_thread_polls_both_shards, DEADLOCK;
    finds_a_shard_that_is_opened_without_a_poller: "shard_is_opened_quietly" by shard_opened_against_sleep, DEADLOCK;
    finds_a_sleep_that_is_announced_in_one_shard: "sleep_announced_in_one_shard" by timer_against_sleep_in_two_shards, DEADLOCK;
    finds_a_second_check_of_the_timers_of_one_shard: "next_timer_of_one_shard" by timer_against_sleep_in_two_shards, DEADLOCK;
    finds_a_shutdown_that_wakes_one_sleeper: "wakes_one_sleeper" by an_epoch_ends_against_two_sleeps, DEADLOCK;
    finds_a_sysmon_that_leaves_no_poller: "sysmon_leaves_no_poller" by sysmon_gives_the_second_shard_back, DEADLOCK;
    finds_a_root_that_is_woken_in_another_shard: "root_is_woken_in_shard_0" by root_waker_against_sleep_in_second_shard, DEADLOCK;
    finds_a_grant_that_keeps_a_shard: "grant_keeps_a_shard" by granted_role_is_that_of_both_shards, DEADLOCK;
}

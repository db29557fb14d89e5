//! Runs the models of `SharedQueue`, and checks that they find the injected bugs.

use netpoll_models::{injected_bugs, models};

models! { shared_queue:
    shared_queue_against_sleep
    shared_queue_two_pushers
}

injected_bugs! {
    finds_a_queue_checked_before_the_sleep_is_announced: "queue_checked_before_awake" by shared_queue_against_sleep, "every thread sleeps";
    finds_a_length_published_without_the_lock: "shared_len_after_the_lock" by shared_queue_two_pushers, "lost or taken twice";
}

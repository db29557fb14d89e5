//! Runs the models of `Parker`, and checks that they find the injected bugs.

use netpoll_models::harness::DEADLOCK;
use netpoll_models::{injected_bugs, models};

models! { parking:
    parker_wakes_whenever_it_is_unparked
    parker_sees_every_unpark
    parker_keeps_the_token_of_a_timeout
}

injected_bugs! {
    finds_an_unpark_without_the_lock: "unpark_without_lock" by parker_wakes_whenever_it_is_unparked, DEADLOCK;
    finds_a_token_that_is_overwritten: "parker_overwrites_token" by parker_sees_every_unpark, DEADLOCK;
    finds_a_token_lost_at_a_timeout: "parker_timeout_eats_token" by parker_keeps_the_token_of_a_timeout, DEADLOCK;
}

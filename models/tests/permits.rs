//! Runs the models of permits, and checks that they find the injected bugs.

use netpoll_models::harness::DEADLOCK;
use netpoll_models::{injected_bugs, models};

models! { permits:
    parked_accepts_get_their_turn
    dropped_waiter_passes_the_permit_on
}

injected_bugs! {
    finds_a_permit_that_is_released_without_a_wake_up: "permit_comes_back_unheard" by parked_accepts_get_their_turn, DEADLOCK;
    finds_a_dropped_waiter_that_keeps_the_permit: "dropped_waiter_keeps_the_permit" by dropped_waiter_passes_the_permit_on, DEADLOCK;
}

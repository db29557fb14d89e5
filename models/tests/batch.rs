//! Runs the model of `Batch`, and checks that it finds the injected bugs.

use netpoll_models::harness::RACE;
use netpoll_models::{injected_bugs, models};

models! { batch:
    wakers_of_a_batch_are_called_once
}

injected_bugs! {
    finds_a_batch_that_is_filled_while_it_is_read: "batch_is_filled_while_it_is_read" by wakers_of_a_batch_are_called_once, RACE;
    finds_a_batch_that_is_not_published: "batch_is_not_published" by wakers_of_a_batch_are_called_once, RACE;
}

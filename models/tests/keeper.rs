//! Runs the models of `Keeper`, and checks that they find the injected bugs.

use netpoll_models::harness::RACE;
use netpoll_models::{injected_bugs, models};

models! { keeper:
    keeper_is_used_while_its_task_exists
    first_wait_against_shutdown
}

injected_bugs! {
    finds_a_keeper_that_is_not_published: "keeper_is_not_published" by keeper_is_used_while_its_task_exists, RACE;
    finds_a_keeper_that_is_released_while_it_is_used:
        "keeper_is_released_while_it_is_used" by keeper_is_used_while_its_task_exists, RACE;
    finds_a_first_wait_that_is_not_checked:
        "first_wait_is_not_checked" by first_wait_against_shutdown, "no thread wakes the task";
}

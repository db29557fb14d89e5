//! Runs the model of `Keeper`, and checks that it finds the injected bugs.

use netpoll_models::harness::RACE;
use netpoll_models::{injected_bugs, models};

models! { keeper:
    keeper_is_cloned_while_its_task_exists
}

injected_bugs! {
    finds_a_keeper_that_is_not_published: "keeper_is_not_published" by keeper_is_cloned_while_its_task_exists, RACE;
    finds_a_keeper_that_is_released_while_it_is_cloned:
        "keeper_is_released_while_it_is_cloned" by keeper_is_cloned_while_its_task_exists, RACE;
}

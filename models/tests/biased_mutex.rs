//! Runs the models of `BiasedMutex`, and checks that they find the injected bugs.

use netpoll_models::harness::RACE;
use netpoll_models::{injected_bugs, models};

models! { biased_mutex:
    owner_and_lock_exclude_each_other
    former_owner_does_not_hide_the_next
    no_use_is_lost_while_ownership_passes
    owned_appends_come_between_operations
}

injected_bugs! {
    finds_an_owner_without_a_fence: "biased_mutex_owner_without_a_fence" by owner_and_lock_exclude_each_other, RACE;
    finds_a_revocation_without_a_barrier: "biased_mutex_revokes_without_a_barrier" by owner_and_lock_exclude_each_other, RACE;
    finds_a_lock_that_does_not_wait_for_the_owner: "biased_mutex_does_not_wait" by owner_and_lock_exclude_each_other, RACE;
    finds_an_owner_that_does_not_look_again: "biased_mutex_owner_looks_once" by owner_and_lock_exclude_each_other, RACE;
    finds_an_owner_beside_the_former: "biased_mutex_has_an_owner_beside_the_former" by former_owner_does_not_hide_the_next, RACE;
    finds_an_append_by_a_former_owner: "biased_mutex_owner_looks_once" by owned_appends_come_between_operations, RACE;
}

//! The parts of the crate's `rt::poll` that the targets need.

#[path = "../../../src/rt/poll/expiry.rs"]
mod expiry;
#[path = "../../../src/rt/poll/poll_desc.rs"]
pub(crate) mod poll_desc;
#[path = "../../../src/rt/poll/side.rs"]
pub(crate) mod side;
#[path = "../../../src/rt/poll/ticket.rs"]
mod ticket;
#[path = "../../../src/rt/poll/wait_slot.rs"]
pub(crate) mod wait_slot;
#[path = "../../../src/rt/poll/waiting.rs"]
mod waiting;

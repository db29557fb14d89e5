//! The lower half of a simulation: a simulated kernel, and the paths by which system calls reach it.
//! It imports nothing from the rest of the crate.
//!
//! * `kernel`: hosts, links, sockets, events. `current`: the machine of a thread, its clock.
//! * `interpose`: the C library functions that are defined in the program. `abi`, `messages`, `names`:
//!   their results, in the terms of C. `route`: calls that check for a simulated descriptor after they have failed.
//! * `backend`: registration with the poller. `real`: the real sockets of a test with a virtual clock. `tag`: the simulation and host that a task belongs to.

mod abi;
mod backend;
pub(super) mod current;
mod interpose;
pub(super) mod kernel;
mod messages;
mod names;
pub(super) mod real;
mod route;
mod tag;

pub(crate) use backend::{add, delete, registers};
pub(crate) use current::{clock_base, is_here, keep_slot, note_slot, reuse_slot, simulates, tag};
pub(crate) use route::{recv, recv_uninit, send};
pub(crate) use tag::Tag;

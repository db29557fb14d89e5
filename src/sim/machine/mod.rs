//! The lower half of a simulation: a simulated kernel, and the paths by which system calls reach
//! it. It imports nothing from the rest of the crate.
//!
//! * `kernel`: hosts, links, sockets and events. `current`: the machine of a thread, and its clock.
//! * `interpose`: the C library functions that are defined in the program. `abi`, `messages`,
//!   `names` and `host`: their C interfaces. `route`: the calls of the hot path.
//! * `backend`: registration with the poller. `lane`: the numbers of descriptors. `slots`: their
//!   slots in the poll cache. `real`: the real sockets of a test in which only the clock is
//!   virtual. `tag`: the simulation and the host to which a task belongs.

mod abi;
mod backend;
pub(super) mod current;
mod host;
mod interpose;
pub(super) mod kernel;
mod lane;
mod messages;
mod names;
pub(super) mod real;
mod route;
pub(super) mod slots;
mod tag;

pub(crate) use abi::close_and_keep_number;
pub(crate) use backend::{add, delete, is_simulated, registers};
#[cfg(netpoll_no_interpose)]
pub(crate) use current::instant;
pub(crate) use current::{clock_base, in_real_time, is_here, simulates, tag};
#[cfg(not(netpoll_no_interpose))]
pub(crate) use interpose::{find_system_call, system_call};
pub(crate) use route::{recv, send};
pub(crate) use slots::{keep_slot, note_slot, reuse_slot};
pub(crate) use tag::Tag;

//! The lower half of a simulation: a simulated kernel, and how system calls get to it. It imports nothing from the rest of the crate.
//!
//! * `kernel`: hosts, links, sockets, events. `current`: the machine of a thread, its clock.
//! * `interpose`: the functions of the C library that are defined in the program. `abi`: what they answer, in the terms of C. `route`: calls
//!   that look at the descriptor after they have failed. `backend`: registration with the poller. `tag`: what a task belongs to.

mod abi;
mod backend;
pub(super) mod current;
mod interpose;
pub(super) mod kernel;
mod route;
mod tag;

pub(crate) use backend::{add, delete, is_simulated};
pub(crate) use current::{clock_base, is_here, tag};
#[cfg(any(feature = "hyper", feature = "tokio-io"))]
pub(crate) use route::recv_uninit;
pub(crate) use route::{recv, send};
pub(crate) use tag::Tag;

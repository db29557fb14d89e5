//! The simulated kernel: hosts, links, sockets and the events between them.
//!
//! The kernel is a value without threads, and its time and randomness do not come from the system:
//! its owner advances the time, and all random choices follow from the seed. It calls no user code.
//! All times are virtual times since the start of the simulation, in nanoseconds. The files:
//!
//! * [`packet`], [`link`]: packets, and the links on which they travel.
//! * [`tcp`]: one end of a connection. [`socket`]: sockets of all kinds and their readiness.
//!   [`options`]: socket options.
//! * [`network`]: hosts, tables, events. [`delivery`]: the path of a packet. [`descriptors`]: the
//!   calls that open, duplicate and close sockets. [`calls`]: addresses, listeners, shutdown(2).
//!   [`connect`]: connect(2). [`data`]: calls that send and receive. [`state`]: calls
//!   for options and readiness. [`unix`]: calls on Unix sockets.
//! * [`upkeep`]: events without an effect on programs. [`faults`]: injected faults.
//! * [`settings`]: the options of a connection. [`random`]: the generator of random numbers.
//! * [`log`]: digest, log, counters and capture.
//!
//! # Invariants
//! * Events take place in the order of their times. Events at the same time take place in the order
//!   of their creation.
//! * Only [`take_edges`](Kernel::take_edges) reports readiness to the poller; calls never do.
//! * Maps and sets are ordered, so that nothing depends on addresses or hashes.

mod calls;
mod connect;
mod data;
mod delivery;
mod descriptors;
mod faults;
pub(crate) mod link;
pub(crate) mod log;
mod network;
mod options;
pub(crate) mod packet;
pub(crate) mod random;
#[cfg(test)]
mod rare_tests;
mod settings;
#[cfg(test)]
mod shutdown_tests;
pub(crate) mod socket;
mod state;
#[cfg(test)]
mod swarm_tests;
pub(crate) mod tcp;
#[cfg(test)]
mod tests;
mod unix;
#[cfg(test)]
mod unix_tests;
mod upkeep;
#[cfg(test)]
mod upkeep_tests;

pub(crate) use calls::{Address, is_group};
pub(crate) use data::{IpOverrides, Received};
pub(crate) use faults::Faults;
pub(crate) use network::{DESCRIPTORS_MAX, FD_BASE, Kernel};

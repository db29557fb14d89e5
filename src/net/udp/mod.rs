//! UDP: [`socket`] is the socket, [`options`] its settings, [`ancillary`] what travels beside a datagram's bytes, [`batch`] many
//! datagrams a call, [`calls`] the system calls, [`futures`] what the methods return, [`convert`] the ways in and out.
//!
//! # Invariant 8
//! Calls hold a reference and not the lock: the kernel keeps datagrams apart, so receivers and senders run in parallel.
//! Datagrams that come together make one edge, which wakes one receiver; each that succeeds wakes the next.

// rustdoc shows methods in the order of these modules: the main verbs come first.
mod socket;

mod ancillary;
mod batch;
mod calls;
mod convert;
pub(crate) mod futures;
mod options;

pub use ancillary::{Ancillary, Ecn};
pub use batch::{Datagram, RecvBatch, RecvBatchIter, RecvInfo, SendBatch};
pub use socket::UdpSocket;

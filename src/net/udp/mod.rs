//! UDP sockets.
//!
//! * [`socket`]: the socket. [`open`]: opening it. [`options`]: its options. `linux`: options and
//!   ancillary data that only Linux has.
//! * [`ancillary`]: the ancillary data of datagrams. [`batch`]: many datagrams per system call.
//! * [`calls`]: the system calls. [`targets`]: addresses to send to. [`futures`]: the futures that
//!   the methods return. [`convert`]: conversions from and to other types.
//!
//! # Invariant 8
//! A call holds a reference to the descriptor and no lock, because the kernel handles each datagram
//! as a whole. Receivers and senders therefore run in parallel. Datagrams that arrive together may
//! produce only one edge ([`backend`](crate::rt::poll::backend)), which wakes one receiver. Each
//! receiver that succeeds wakes the next.

// rustdoc lists inherent impls in module order, so the modules with the main methods come first.
mod socket;

mod ancillary;
mod batch;
mod calls;
mod convert;
pub(crate) mod futures;
#[cfg(target_os = "linux")]
mod linux;
mod open;
mod options;
mod targets;

pub use ancillary::{Ancillary, Ecn};
pub use batch::{Datagram, RecvBatch, RecvBatchIter, RecvInfo, SendBatch};
pub use socket::UdpSocket;

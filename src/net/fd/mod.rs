//! Descriptors and the calls on them.
//!
//! * [`fd`](self::fd): the descriptor and its close.
//! * [`operation`]: makes system calls and waits for edges. [`watching`]: waits for something else.
//! * [`fd_mutex`]: the locks of the two directions, and the count of references.
//! * [`gather`]: writes of a turn that leave as one send. [`cork`]: their bytes. [`flusher`]: the
//!   tasks that send those for which there was no room.
//! * [`connect`]: connects, also with [`fast_open`], and ends connections that have not begun.
//!
//! This layer knows only descriptors and imports nothing else of `net`. What the layers above need
//! done at a close, they pass in as a [`Guard`](fd::Guard) or as [`Loans`](fd::Loans).

pub(crate) mod connect;
pub(crate) mod cork;
mod fast_open;
#[allow(clippy::module_inception)]
pub(crate) mod fd;
pub(crate) mod fd_mutex;
pub(crate) mod flusher;
pub(crate) mod gather;
pub(crate) mod operation;
mod watching;

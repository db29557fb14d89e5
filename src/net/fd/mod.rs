//! File descriptors: system calls on them, waiting for readiness, and closing.
//!
//! # Terms
//! * A *direction* is reading or writing. An *edge* is an event of the poller in one direction. A
//!   direction is *ready* while a call may succeed, as far as is known, and otherwise *idle*. A
//!   *ticket* is the state of a direction at one moment ([`side`](crate::rt::poll::side)).
//! * A *turn* is one poll, by the runtime, of a task or of the future of a `block_on`.
//! * A call has a *short count* if it transfers at least one byte, but fewer bytes than requested.
//! * A descriptor is *exposed* if other code may have it or a duplicate of it ([`fd`](self::fd)).
//!
//! # Modules
//! * [`fd`](self::fd): the descriptor and its close. [`closing`]: the last steps of the close.
//! * [`operation`]: makes system calls and waits for edges. [`short_wait`]: waits that begin
//!   without a system call. [`watching`]: waits for other conditions, such as a hang-up.
//! * [`fd_mutex`]: the lock of each direction and the reference count.
//! * [`gather`]: gathers the writes of a turn into one send. [`cork`]: the state of the gathered
//!   writes. [`cork_buffer`]: their bytes. [`cork_weight`]: their weight, which determines when the
//!   duration of the turn is checked. [`biased_mutex`]: the lock of the state. [`flusher`]: the
//!   tasks that send bytes that a socket did not accept immediately. [`backoff`]: the pauses of
//!   retries that no event ends.
//! * [`connect`]: connects a socket. Also registers, shuts down and closes a socket whose
//!   connection may be deferred or in progress. [`fast_open`]: TCP Fast Open.
//!
//! This layer imports nothing from the rest of `net`. A higher layer that must act when a
//! descriptor is closed passes in a [`Guard`](closing::Guard) or [`Loans`](closing::Loans).

pub(crate) mod backoff;
mod biased_mutex;
pub(crate) mod closing;
pub(crate) mod connect;
pub(crate) mod cork;
mod cork_buffer;
mod cork_weight;
mod fast_open;
#[allow(clippy::module_inception)]
pub(crate) mod fd;
pub(crate) mod fd_mutex;
pub(crate) mod flusher;
pub(crate) mod gather;
pub(crate) mod operation;
mod short_wait;
mod watching;

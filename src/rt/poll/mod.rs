//! The poller: reports which sockets are ready and wakes the operations that wait for them.
//!
//! * `poller` — the interface for descriptors: registration with the back end, and waits.
//! * `poll_desc` — the state of one descriptor, in a slot of the `PollCache`. It has one `side` per
//!   direction, whose word a `ticket` copies. `waiting` and `wait_slot` have the waiters of a side.
//!   `timeouts` and `expiry` end operations whose timeout or deadline has passed.
//! * `driver` — the shards. `roles` decides which thread polls which shards, with one `role` per
//!   shard.
//! * `backend` — the contract of the back ends `epoll`, `kqueue` and `poll`, which `back_ends`
//!   lists and declares.
//! * `closings` — counts closed sockets, and wakes the operations that wait for a free descriptor.
//! * `describing` — stores data about descriptors for snapshots. `labels` has host names and
//!   limits. `addresses` has the addresses of TCP sockets without multipath. `usage` has the kind,
//!   the byte counts and the time of the last use of other descriptors. `addresses` and `usage`
//!   share the memory of `slot_words`.

pub(crate) mod addresses;
pub(crate) mod back_ends;
pub(crate) mod backend;
pub(crate) mod closings;
mod describing;
pub(crate) mod driver;
mod expiry;
pub(crate) mod labels;
pub(crate) mod poll_desc;
pub(crate) mod poller;
pub(crate) mod role;
pub(crate) mod roles;
pub(crate) mod side;
mod slot_words;
mod ticket;
pub(crate) mod timeouts;
pub(crate) mod usage;
pub(crate) mod wait_slot;
mod waiting;

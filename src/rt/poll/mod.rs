//! The poller: reports which sockets are ready and wakes the operations that wait for them.
//!
//! `poller` is the interface used by descriptors, and adds them to the back end; `describing` stores
//! what snapshots show of them. `poll_desc` is the state of one registered descriptor, in a slot of the `PollCache`. It has one
//! `side` per direction, on which operations wait (`waiting`, `wait_slot`). `timeouts` and `expiry`
//! end operations at their time. `driver` has the shards, and `roles`
//! decides which thread polls which of them, using a `role` per shard. `backend`
//! defines the contract of the back ends `epoll`, `kqueue` and `poll`, which `back_ends` lists and
//! declares. `closings` counts closed descriptors and wakes the operations that wait for a free number.
//! For snapshots, `labels` has the host names and limits of the sockets that have any, `addresses` the
//! addresses of TCP sockets, and `usage` the bytes of sockets that the kernel does not count; the last
//! two share the memory of `slot_words`.

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
mod timeouts;
pub(crate) mod usage;
pub(crate) mod wait_slot;
mod waiting;

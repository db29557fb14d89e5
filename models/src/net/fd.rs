//! The crate's `net::fd`, as far as it is modelled.

#[path = "../../../src/net/fd/fd_mutex.rs"]
pub(crate) mod fd_mutex;

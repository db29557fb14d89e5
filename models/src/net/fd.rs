//! The modelled files of the crate's `net::fd`.

#[path = "../../../src/net/fd/biased_mutex.rs"]
pub(crate) mod biased_mutex;
#[path = "../../../src/net/fd/fd_mutex.rs"]
pub(crate) mod fd_mutex;

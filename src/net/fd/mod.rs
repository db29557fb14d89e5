//! What lies between a socket type and its descriptor.
pub(crate) mod fd_mutex;

//! The crate's `net`, as far as it is modelled.

pub(crate) mod fd;
#[path = "../../../src/net/permits.rs"]
pub(crate) mod permits;

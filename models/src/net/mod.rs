//! The modelled files of the crate's `net`.

pub(crate) mod fd;
#[path = "../../../src/net/permits.rs"]
pub(crate) mod permits;

//! The crate's `rt`, as far as the targets use it.

pub(crate) mod poll;
#[path = "../../../src/rt/slab.rs"]
pub(crate) mod slab;
pub(crate) mod time;
#[path = "../../../src/rt/waiters.rs"]
pub(crate) mod waiters;

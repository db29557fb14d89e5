//! The crate's `sys`, as far as the targets use it.

#[path = "../../src/sys/control.rs"]
pub(crate) mod control;
#[path = "../../src/sys/os/mod.rs"]
pub(crate) mod os;

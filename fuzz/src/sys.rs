//! The parts of the crate's `sys` that the targets need.

#[path = "../../src/sys/control.rs"]
pub(crate) mod control;
#[path = "../../src/sys/os/mod.rs"]
pub(crate) mod os;

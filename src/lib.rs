//! Go's network stack for Rust futures.
#![deny(unsafe_code)]

mod sync;

pub mod rt;
pub mod task;
pub mod time;

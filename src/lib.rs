//! Go's network stack for Rust futures.
#![deny(unsafe_code)]

mod sync;
mod sys;

pub mod net;
pub mod rt;
pub mod task;
pub mod time;

//! Go's network stack for Rust futures.
pub mod net;
pub mod rt;
mod sync;
mod sys;

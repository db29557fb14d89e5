//! Go's network stack for Rust futures.
mod sync;
pub mod rt;

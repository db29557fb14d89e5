//! What only some systems have, by async-std's paths.

pub mod unix;

//! OS-specific extensions, under async-std's paths.

pub mod unix;

//! OS-specific extensions, under the same paths as in async-std.

pub mod unix;

//! The code that the benchmark programs in `src/bin` share.
//!
//! - [`servers`]: the same echo server for each runtime. The program `server` runs one of them.
//! - [`generator`]: the load generator, which uses only libc and std. The program `load` runs it.
//! - [`compare`]: starts servers and generators, alternates between the servers, and formats
//!   figures and ratios. The program `compare` runs it.
//! - [`arguments`]: command-line arguments.
//! - [`histogram`]: a histogram of latencies.
//! - [`procfs`]: memory and context switches of a process.
//! - [`sys`]: system calls.

pub mod arguments;
pub mod compare;
pub mod generator;
pub mod histogram;
pub mod procfs;
pub mod servers;
pub mod sys;

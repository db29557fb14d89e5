//! The code that the benchmark programs share:
//!
//! - `server`: the same echo server for each runtime ([`servers`]).
//! - `load`: the generator. It uses only libc and std, so it is the same for every server ([`generator`]).
//! - `compare`: starts servers and generators, alternates between the servers, and prints ratios ([`compare`]).

pub mod arguments;
pub mod compare;
pub mod generator;
pub mod histogram;
pub mod procfs;
pub mod servers;
pub mod sys;

//! What the three programs of the benchmark share.
//!
//! - `server`: the same echo server, once a runtime ([`servers`]).
//! - `load`: the generator. It uses libc and std alone, so it is the same for every server ([`generator`]).
//! - `compare`: starts both, alternates between the servers, prints ratios ([`compare`]).

pub mod arguments;
pub mod compare;
pub mod generator;
pub mod histogram;
pub mod procfs;
pub mod servers;
pub mod sys;

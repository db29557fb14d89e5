//! Tests of rows 8 to 13 of the tables in docs/RELIABILITY.md: time, hostile networks and peers,
//! overload, shutdown and endurance.
//!
//! `cargo test --test hostile` runs each test with a size that takes seconds and asserts the
//! properties that hold on any machine: bytes, counts, kinds of errors, no early event, no leak and
//! no hang. `ci/hostile.sh ROW` runs one row at full size in a release build and also asserts time
//! limits. Every test of a row runs in its own process, on loopback or in network namespaces that
//! end with the process.
#![cfg(target_os = "linux")] // The tests use network namespaces and /proc.

#[path = "../common/mod.rs"]
mod common;

mod deadlines;
mod ending;
mod overload;
mod peers;
mod scale;
mod soak;
mod weather;

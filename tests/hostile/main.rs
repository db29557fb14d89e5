//! The rows of docs/RELIABILITY.md about time, hostile networks and peers, overload, shutdown and endurance.
//!
//! `cargo test --test hostile` runs each with a size that takes seconds and asserts what must hold on any machine, however busy: bytes,
//! counts, kinds of errors, and that nothing is early, leaks or hangs. `ci/hostile.sh ROW` runs one at full size in a release build
//! and also asserts time limits. Every test is a process of its own, on loopback or in network namespaces that end with it.
#![cfg(target_os = "linux")] // network namespaces, and /proc

#[path = "../common/mod.rs"]
mod common;

mod deadlines;
mod ending;
mod overload;
mod peers;
mod scale;
mod soak;
mod weather;

//! Models of netpoll's protocols: the crate's own source files, compiled with the types of a model
//! checker, loom or shuttle.
//!
//! The module tree mirrors the crate's (`#[path]` points at its files), with a `crate::sync` made
//! of the checker's types. A file that uses only `crate::sync` and other files of this tree is
//! checked unchanged.
//!
//! A model is a function of this library that runs one round. loom repeats it in every order of
//! events within the bound on preemptions; shuttle (feature `shuttle`, `ci/shuttle.sh`) repeats it
//! in a given number of random orders. `tests/*.rs` run each model once unchanged
//! ([`harness::check`]) and once for each bug planted in the source that the model must find
//! ([`harness::finds`]). To add a model: mirror the file, write the model here, plant
//! `planted!("name")` in the source, and add two lines to `tests/`.
//!
//! Protocols that are spread over files with system calls are modelled in miniature ([`sleep`], and
//! parts of [`wait_state`] and [`deadlines`]), under the names of the functions that they mirror.

// There are no unit tests here: those of the mirrored files run in the crate, with the standard
// library's types.
#![cfg(not(test))]
// The mirrored files are linted in the crate. Here they are used in part, and with other sizes.
#![allow(dead_code, unused_imports, clippy::all)]

mod engine;
mod net;
mod rt;
#[cfg(feature = "shuttle")]
mod schedules;
mod sync;

pub mod deadlines;
pub mod epochs;
pub mod fd_mutex;
pub mod harness;
pub mod parking;
pub mod permits;
pub mod run_queue;
pub mod sleep;
pub mod slots;
pub mod wait_state;

//! Models of netpoll's protocols, for the model checkers loom and shuttle.
//!
//! The models use the crate's own source files, compiled with the types of a checker. The module
//! tree mirrors the crate's tree (`#[path]` points to its files), with a `crate::sync` that
//! consists of the checker's types. A file that uses only `crate::sync` and other files of this
//! tree is checked unchanged.
//!
//! A model is a function of this library that runs a protocol once. loom repeats the function in
//! every order of events within a bound on preemptions. shuttle (feature `shuttle`,
//! `ci/shuttle.sh`) repeats it in a given number of random orders. The tests in `tests/` run each
//! model once without an injected bug ([`harness::check`]), and once for each injected bug that the
//! model must find ([`harness::finds`]).
//!
//! To add a model, mirror the source file, and write the model beside the others. Put
//! `injected_bug!("name")` into the source, or into the miniature if the code is modelled in
//! miniature. Add two lines to `tests/`, one for the model and one for the injected bug.
//!
//! A protocol that is spread over files that make system calls is modelled in *miniature*: the
//! model has a short copy of the code. This is the case in all models of [`sleep`], [`shards`] and
//! [`epochs`], and in parts of others, such as [`wait_state`] and [`deadlines`]. Comments name the
//! functions that a miniature mirrors.

// The unit tests of the mirrored files run in the crate, with the standard library's types.
#![cfg(not(test))]
// The mirrored files are linted in the crate. This package uses only parts of them, with other
// sizes.
#![allow(dead_code, unused_imports, clippy::all)]

#[path = "../../src/counting_waker.rs"]
mod counting_waker;
mod engine;
mod miniature;
mod net;
mod rt;
#[cfg(feature = "shuttle")]
mod schedules;
mod sync;
mod sys;

pub mod batch;
pub mod biased_mutex;
pub mod deadlines;
pub mod epochs;
pub mod event_ring;
pub mod fd_mutex;
pub mod harness;
pub mod keeper;
pub mod parking;
pub mod permits;
pub mod run_queue;
pub mod shards;
pub mod shared_queue;
pub mod sleep;
pub mod slots;
pub mod wait_state;

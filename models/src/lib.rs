//! Models of netpoll's protocols: the crate's own source files, compiled with the types of a model checker, loom or
//! shuttle.
//!
//! The module tree mirrors the crate's (`#[path]` points to its files), with a `crate::sync` that consists of the
//! checker's types. A file that uses only `crate::sync` and other files of this tree is model-checked unchanged.
//!
//! A model is a function of this library that performs one execution. loom repeats it in every order of events within
//! a bound on preemptions, and shuttle (feature `shuttle`, `ci/shuttle.sh`) in a given number of random orders.
//! `tests/*.rs` run each model once without an injected bug ([`harness::check`]), and once for each injected bug that
//! the model must find ([`harness::finds`]). To add a model, mirror the file, write the model beside the others, put
//! `injected_bug!("name")` into the source or, for code that is modelled in miniature, into the miniature, and add two
//! lines to `tests/`.
//!
//! A protocol that is spread over files that make system calls is modelled in miniature: in all models of [`sleep`],
//! [`shards`] and [`epochs`], and in parts of others, such as [`wait_state`] and [`deadlines`]. Comments name the
//! functions that the miniature mirrors.

// The unit tests of the mirrored files run in the crate, with the standard library's types.
#![cfg(not(test))]
// The mirrored files are linted in the crate. Here, only parts of them are used, with other sizes.
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

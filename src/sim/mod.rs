//! A simulated world for tests (feature `sim`): hosts, links and a clock. A seed reproduces each
//! run.
//!
//! Code under test needs no changes: it uses the ordinary [`TcpListener`](crate::net::TcpListener),
//! [`TcpStream`](crate::net::TcpStream), [`UdpSocket`](crate::net::UdpSocket),
//! [`task::spawn`](crate::task::spawn), [`task::sleep`](crate::task::sleep) and std's `Instant`. In
//! a simulation, a simulated kernel answers their system calls. Time is virtual: when no task can
//! run, it advances to the next timer or packet. A test of a 30 s timeout takes microseconds.
//!
//! ```
//! use netpoll::net::{TcpListener, TcpStream};
//! use netpoll::sim::{Sim, ms};
//! use std::time::{Duration, Instant};
//!
//! Sim::run(1, async |sim| {
//!     sim.host("server").spawn(|| async {
//!         let listener = TcpListener::bind("0.0.0.0:80").await?;
//!         loop {
//!             let (stream, _) = listener.accept().await?;
//!             netpoll::task::spawn(async move {
//!                 stream.set_read_timeout(Some(Duration::from_secs(30)))?;
//!                 stream.read(&mut [0; 512]).await // … and drops the client when that fails.
//!             });
//!         }
//!         #[allow(unreachable_code)]
//!         Ok::<(), std::io::Error>(())
//!     });
//!     sim.link("*", "server").latency(ms(5)..ms(40)).loss(0.01);
//!     sim.host("client").run(async {
//!         let stream = TcpStream::connect("server:80").await?;
//!         let begin = Instant::now();
//!         assert_eq!(stream.read(&mut [0; 1]).await?, 0);
//!         assert_eq!(begin.elapsed().as_secs(), 30);
//!         Ok::<(), std::io::Error>(())
//!     }).await.unwrap();
//! });
//! ```
//!
//! With the feature `attributes`, `#[netpoll::test(sim, seeds = 100)]` turns an `async fn`, which
//! may take a [`Sim`], into such a test. If a run fails, the test prints its seed; with this seed
//! in `NETPOLL_SEED`, it repeats the run. docs/SIMULATION.md is a guide to simulations. It lists
//! the restrictions, the differences from Linux, and the things that a seed does not reproduce.
//!
//! # Requirements
//! Simulations need Linux on a 64-bit processor, and a program that is linked dynamically with
//! glibc. The feature defines functions of the C library in the program (`close`, `connect`,
//! `clock_gettime` and others). These pass calls that do not concern a simulation to the C library.
//! Enable the feature only in `[dev-dependencies]`.

mod advance;
mod api;
mod busy;
mod ending;
mod host;
mod in_place;
mod link;
mod machine;
mod metrics;
mod opt_out;
mod outcome;
mod picture;
mod report;
mod rules;
mod runner;
mod shared;
mod stall;
mod world;

pub use api::{Counters, Faults, Sim};
pub use host::{Host, HostRun};
#[cfg(feature = "signal")]
pub(crate) use host::{Listening, listen};
pub use in_place::paused;
pub(crate) use in_place::{block_on, replaces_block_on};
pub use link::Link;
pub use opt_out::{clock_gettime, getrandom};
pub use outcome::Outcome;
pub use rules::{Latency, gbit, kbit, mbit, ms};
#[doc(hidden)]
pub use runner::test;
pub use runner::{Builder, Run};
pub use world::Order;

pub(crate) use metrics::metrics;

#[cfg(netpoll_no_interpose)]
pub(crate) use machine::instant;
pub(crate) use machine::{
    Tag, add, clock_base, close_and_keep_number, delete, in_real_time, is_here, is_simulated, keep_slot, note_slot,
    recv, registers, reuse_slot, send, simulates, tag,
};
#[cfg(not(netpoll_no_interpose))]
pub(crate) use machine::{find_system_call, system_call};

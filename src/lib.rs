//! An async runtime and network library for Linux: async-std's API with the semantics of Go's sockets. Sockets have deadlines, a close
//! wakes every waiter, any number of tasks read and write one handle, and I/O stays responsive while tasks block or hog their threads.
//!
//! ```
//! use netpoll::{net::TcpListener, prelude::*, task};
//! use std::time::{Duration, Instant};
//!
//! # fn main() -> std::io::Result<()> {
//! # task::block_on(async {
//! let listener = TcpListener::bind("127.0.0.1:0").await?;
//! # let addr = listener.local_addr()?;
//! # let client = task::spawn(async move {
//! #     let stream = netpoll::net::TcpStream::connect(addr).await?;
//! #     stream.write_all(b"hi").await?;
//! #     let mut buf = [0; 2];
//! #     (&stream).read_exact(&mut buf).await.map(|()| buf)
//! # });
//! let mut incoming = listener.incoming();
//! while let Some(stream) = incoming.next().await {
//!     let stream = stream?;
//!     task::spawn(async move {
//!         let mut buf = [0; 4096];
//!         loop {
//!             stream.set_read_deadline(Instant::now() + Duration::from_secs(30))?;
//!             match stream.read(&mut buf).await? {
//!                 0 => return Ok::<_, std::io::Error>(()),
//!                 count => stream.write_all(&buf[..count]).await?,
//!             }
//!         }
//!     });
//! #   break;
//! }
//! # assert_eq!(&client.await?, b"hi");
//! # Ok(()) })
//! # }
//! ```
//!
//! # Map
//! * [`net`]: `TcpListener`, `TcpStream`, `UdpSocket`; what they are opened with, `ListenConfig` and `Dialer`; names, errors, sockets from a
//!   service manager, `pipe` (a connection in memory). [`os::unix::net`], also as [`unix`]: Unix sockets.
//! * [`io`]: the traits, their extensions, buffers, `copy`, `timeout`, `AsyncFd` (any descriptor);
//!   [`stream`] and [`future`] likewise; [`prelude`] brings the traits in.
//! * [`task`]: `spawn`, `block_on`, `sleep`, `spawn_blocking`, names and locals; [`time`]: a resettable sleep.
//! * [`rt`]: settings, counters, shutdown. The runtime starts at its first use.
//!
//! # Features
//! * `attributes` (on by default): `#[netpoll::main]`, `#[netpoll::test]`.
//! * `hickory`: `net::Resolver`, DNS over our own sockets: a look-up parks no thread and can be cancelled.
//! * `hyper`: hyper 1.x on our streams, and an HTTP/1 and HTTP/2 server, in `netpoll::hyper`.
//! * `quinn`: QUIC by quinn on [`net::UdpSocket`], in `netpoll::quinn`.
//! * `signal`: the signals of the process as streams, in `netpoll::signal`.
//! * `tower`: tower services, such as an axum `Router`, on the HTTP server: `netpoll::hyper::serve_tower`.
//! * `tokio-io`: tokio's `AsyncRead` and `AsyncWrite` for our streams and references to them, without tokio's runtime: h2, tokio-postgres and
//!   the like take our streams as they are.
//!
//! # Guarantees
//! * No operation touches a descriptor that was closed and reused; a close ends when the descriptor is gone.
//! * A future of this crate can be dropped at any await: the socket stays usable, no wake-up is lost. (A [`write_all`] under
//!   way has written a part.)
//! * `write_all` of several tasks on one stream do not interleave.
//! * An expired deadline fails every operation, those that wait included, until it is moved; data that is there is kept.
//! * Sockets and sleeps work under any executor.
//! * A panic stays in its task. Nothing a peer does panics or grows a queue without bound.
//! * With no traffic and no timer due, no thread runs.
//!
//! What is not in this list (the order in which tasks run, numbers of threads, which counter moves when) is behaviour at the time of
//! writing.
//!
//! # Limits
//! Linux 4.5 or later. 2²⁴ sockets, 512 workers, spare ones included. Not usable in a child of fork(2) that does not call exec(2): operations
//! say so.
//!
//! [`write_all`]: net::TcpStream::write_all
#![deny(unsafe_code)]
// docs.rs sets `docsrs`: items show the feature that they need.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod sync;
mod sys;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;

pub mod future;
#[cfg(feature = "hyper")]
pub mod hyper;
pub mod io;
pub mod net;
pub mod os;
pub mod prelude;
#[cfg(feature = "quinn")]
pub mod quinn;
pub mod rt;
#[cfg(feature = "signal")]
pub mod signal;
pub mod stream;
pub mod task;
pub mod time;
#[cfg(feature = "tokio-io")]
mod tokio_io;

#[doc(no_inline)]
pub use os::unix::net as unix;
#[doc(no_inline)]
pub use std::{write, writeln};

/// What macros of this crate expand to.
#[doc(hidden)]
pub mod __private {
    pub use std::format;
    pub use std::string::String;
}

#[cfg(feature = "attributes")]
pub use netpoll_macros::{main, test};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../docs/MIGRATION.md")]
struct Migration;

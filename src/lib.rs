//! An async runtime and networking library for Linux. It has async-std's API on top of a design
//! taken from Go's network stack.
//!
//! * Every socket has deadlines. They apply to operations that already wait and to code that does
//!   not know about them, such as a TLS or HTTP library that holds the stream.
//! * Closing a socket wakes every operation that waits on it.
//! * Every method takes `&self`: any number of tasks read and write one handle concurrently.
//! * I/O stays responsive while tasks block or hog their threads.
//!
//! An echo server that drops clients after 30 seconds of silence:
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
//!
//! | module | contents |
//! |---|---|
//! | [`net`] | `TcpListener`, `TcpStream`, `UdpSocket`; `ListenConfig` and `Dialer` to open them with options; name resolution; errors; socket activation; `pipe`, a connection in memory |
//! | [`os::unix::net`], also [`unix`] | Unix-domain sockets |
//! | [`io`] | the I/O traits and their extension methods, buffers, `copy`, `timeout`; `AsyncFd` for any other descriptor |
//! | [`stream`], [`future`] | the `Stream` and `Future` traits and their extension methods |
//! | [`prelude`] | all these traits, for `use netpoll::prelude::*` |
//! | [`task`] | `spawn`, `block_on`, `sleep`, `spawn_blocking`, task names and task locals |
//! | [`time`] | a resettable sleep |
//! | [`rt`] | settings, metrics and shutdown of the runtime, which starts when it is first used |
//!
//! # Features
//! * `attributes` (on by default): `#[netpoll::main]` and `#[netpoll::test]`.
//! * `hickory`: `net::Resolver`, a DNS client over this crate's sockets. A look-up occupies no
//!   thread and can be cancelled.
//! * `hyper`: hyper 1.x on this crate's streams, and an HTTP/1 and HTTP/2 server, in
//!   `netpoll::hyper`.
//! * `quinn`: QUIC by quinn on [`net::UdpSocket`], in `netpoll::quinn`.
//! * `signal`: process signals as streams, in `netpoll::signal`.
//! * `tower`: tower services, such as an axum `Router`, on the HTTP server, with
//!   `netpoll::hyper::serve_tower`.
//! * `tokio-io`: tokio's `AsyncRead` and `AsyncWrite` for this crate's streams and for references
//!   to them, without tokio's runtime. Crates such as h2 and tokio-postgres take these streams as
//!   they are.
//!
//! # Guarantees
//! * No operation touches a descriptor that was closed and reused. A close completes when the
//!   descriptor is closed.
//! * Every future of this crate can be dropped at any await point: the socket stays usable and no
//!   wake-up is lost. (A [`write_all`] in progress may have written part of its buffer.)
//! * Concurrent `write_all` calls on one stream do not interleave.
//! * An expired deadline fails every operation, including those that wait, until the deadline is
//!   moved. Received data is kept.
//! * Sockets and sleeps work under any executor.
//! * A panic stays in its task. No peer can cause a panic or grow a queue without bound.
//! * With no traffic and no timer due, no thread runs.
//!
//! Anything else (the order in which tasks run, the number of threads, when a counter moves) may
//! change.
//!
//! # Limits
//! Linux 4.5 or later. At most 2²⁴ sockets and 512 worker threads per process, spare ones included.
//! The runtime does not work in a child of fork(2) that does not call exec(2); operations there
//! return an error.
//!
//! [`write_all`]: net::TcpStream::write_all
#![deny(unsafe_code)]
// docs.rs sets `docsrs`; each item then shows the feature that it requires.
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

/// Items that the macros of this crate expand to.
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

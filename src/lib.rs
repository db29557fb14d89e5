//! An async runtime and networking library for Linux, with async-std's API and the semantics of
//! Go's sockets.
//!
//! * Deadlines belong to the socket: they also apply to operations that are already waiting, and to
//!   operations inside a TLS or HTTP library.
//! * Closing a socket wakes every operation that waits on it.
//! * Any number of tasks can read and write one handle concurrently, and concurrent `write_all`
//!   calls do not interleave.
//! * I/O stays responsive while tasks block or hog threads.
//! * Sockets and sleeps work under any executor. The runtime starts on first use.
//!
//! An echo server that drops clients that are silent for 30 seconds:
//!
//! ```
//! use netpoll::{io, net::TcpListener, prelude::*, task};
//! use std::time::{Duration, Instant};
//!
//! fn main() -> io::Result<()> {
//!     task::block_on(async {
//!         let listener = TcpListener::bind("127.0.0.1:0").await?;
//!         println!("listening on {}", listener.local_addr()?);
//! #       let addr = listener.local_addr()?;
//! #       let client = task::spawn(async move {
//! #           let stream = netpoll::net::TcpStream::connect(addr).await?;
//! #           stream.write_all(b"hi").await?;
//! #           let mut buf = [0; 2];
//! #           (&stream).read_exact(&mut buf).await.map(|()| buf)
//! #       });
//!         let mut incoming = listener.incoming();
//!         while let Some(stream) = incoming.next().await {
//!             let stream = stream?;
//!             task::spawn(async move {
//!                 let mut buf = [0; 4096];
//!                 loop {
//!                     stream.set_read_deadline(Instant::now() + Duration::from_secs(30))?;
//!                     match stream.read(&mut buf).await? {
//!                         0 => return io::Result::Ok(()),
//!                         count => stream.write_all(&buf[..count]).await?,
//!                     }
//!                 }
//!             });
//! #           break;
//!         }
//! #       assert_eq!(&client.await?, b"hi");
//!         Ok(())
//!     })
//! }
//! ```
//!
//! The [tutorial](guide::tutorial) continues from here.
//!
//! # Map
//!
//! | module | contents |
//! |---|---|
//! | [`net`] | TCP and UDP sockets, [`ListenConfig`](net::ListenConfig) and [`Dialer`](net::Dialer), [`serve`](net::serve()), name resolution, errors, [`pipe`](net::pipe()) (a connection in memory), [`activation`](net::activation) |
//! | [`os::unix::net`], also [`unix`] | Unix stream, datagram and seqpacket sockets, file descriptors in messages |
//! | [`io`] | the I/O traits and their extensions, buffers, [`copy`](io::copy()) in the kernel, [`AsyncFd`](io::AsyncFd) for any descriptor that the poller accepts, standard streams |
//! | [`task`] | [`spawn`](task::spawn), [`block_on`](task::block_on), [`sleep`](task::sleep), [`spawn_blocking`](task::spawn_blocking), [`TaskSet`](task::TaskSet), task-locals |
//! | [`time`], [`future`], [`stream`] | sleeps that can be reset; timeouts, joins and races; adapters, intervals |
//! | [`rt`] | settings, metrics, [inspection](rt::inspect()) and shutdown of the runtime |
//! | [`prelude`] | the traits, for `use netpoll::prelude::*` |
//! | [`guide`] | [tutorial](guide::tutorial), [deadlines](guide::deadlines), [testing](guide::testing), [shutdown](guide::shutdown), [production](guide::production), [migration](guide::migration) from async-std, smol and tokio |
//!
//! # Features
//! * `attributes` (on by default): `#[netpoll::main]` and `#[netpoll::test]`.
//! * `signal`: process signals as streams, in `netpoll::signal`.
//! * `sim`: simulated hosts, links and clock for tests, in `netpoll::sim`.
//! * `serde`: [`rt::Snapshot`] and [`rt::Metrics`] implement `Serialize`.
//! * `tracing`: events and spans of accepts, dials, closes, deadlines, connections, tasks, workers
//!   and shutdown, for the crate `tracing`.
//! * `tokio-io`: `TcpStream` and `UnixStream` implement tokio's `AsyncRead` and `AsyncWrite`,
//!   without tokio's runtime, for libraries such as h2 and tokio-postgres.
//!
//! Separate crates:
//! * `netpoll-hyper`: hyper 1.x on this crate's streams, and an HTTP/1 and HTTP/2 server that also
//!   accepts tower services, such as an axum `Router`.
//! * `netpoll-quinn`: quinn's QUIC on [`net::UdpSocket`].
//! * `netpoll-resolver`: DNS over this crate's sockets. Its look-ups occupy no thread and can be
//!   cancelled.
//!
//! # Guarantees
//! * No operation touches a descriptor that was closed and reused. A close completes when the
//!   descriptor is closed.
//! * A future of this crate can be dropped at any await: the socket stays usable and no wake-up is
//!   lost. A dropped [`write_all`] may have written part of its data.
//! * Concurrent `write_all` calls on one stream do not interleave.
//! * Once a deadline has expired, every operation that it covers fails until the deadline is moved
//!   to a later time or removed, including operations that were already waiting. No data is lost.
//! * A panic in a task ends only that task, and is resumed where the task's handle is awaited. No
//!   action of a peer causes a panic or lets a queue grow without bound.
//! * If no task is runnable, no traffic arrives and no timer is due, the threads of the crate soon
//!   sleep.
//!
//! Everything else (the order in which tasks run, the number of threads, the time at which a
//! counter changes) may change between versions.
//!
//! # Limits
//! * Linux 4.5 or later. On macOS and FreeBSD the crate compiles but has not been run.
//! * One runtime per process, with at most 2²⁴ descriptors (sockets, [`AsyncFd`](io::AsyncFd)s and
//!   ends of [pipes](net::pipe())) and 512 workers, including spare workers.
//! * At most 2²⁰ operations can wait in each direction of a socket.
//! * If the parent used the runtime before a fork(2), every operation that needs the runtime
//!   returns an error or panics in the child, until it calls exec(2). (Other pages do not repeat
//!   the first condition.)
//!
//! The environment variable `NETPOLL_BACKEND` selects the system call that waits for sockets:
//! `epoll`, `kqueue` or `poll`. The default is the best one that the system supports.
//!
//! [`write_all`]: net::TcpStream::write_all
#![deny(unsafe_code)]
// docs.rs sets `docsrs`; each item then shows the feature that it requires.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(test)]
mod counting_waker;
#[cfg(test)]
mod own_process;
mod sync; // private: use the crate async-lock, async-channel or tokio (feature sync); Arc and Weak are in std::sync
mod sys;
mod trace;

pub mod future;
// Documentation only; not part of the compiled library.
#[cfg(any(doc, doctest))]
pub mod guide;
pub mod io;
pub mod net;
pub mod os;
pub mod prelude;
pub mod rt;
#[cfg(feature = "signal")]
pub mod signal;
#[cfg(feature = "sim")]
pub mod sim;
pub mod stream;
pub mod task;
pub mod time;
#[cfg(feature = "tokio-io")]
mod tokio_io;

// Items of async-std, tokio and smol that this crate does not have, or has in another module. If a
// program uses one of these names, the compiler's error shows the line below that declares the
// name. `future`, `io`, `net`, `os::unix`, `signal`, `stream`, `task` and `time` have similar
// lists.
#[cfg(false)]
pub mod channel {} // absent: use the crate async-channel
#[cfg(false)]
pub mod collections {} // absent: use std::collections and `collect` of StreamExt
#[cfg(false)]
pub mod fs {} // absent: use the crate async-fs, or task::spawn_blocking
#[cfg(false)]
pub mod path {} // absent: use std::path, and async-fs for methods that access the file system
#[cfg(false)]
pub mod pin {} // absent: use std::pin
#[cfg(false)]
pub mod process {} // absent: use the crate async-process
#[cfg(false)]
pub mod runtime {} // absent: use rt::Builder, rt::shutdown and task::block_on
#[cfg(false)]
pub fn spawn() {} // absent: use task::spawn
#[cfg(false)]
pub mod join {} // absent: use join and try_join of FutureExt, or the macros of the crates futures and tokio
#[cfg(false)]
pub mod select {} // absent: use race of FutureExt, or the macro of the crate futures or tokio

#[cfg(false)]
pub struct Async {} // absent: use a socket of net, or io::AsyncFd
#[cfg(false)]
pub struct Executor {} // absent: use task::spawn; there is one runtime per process
#[cfg(false)]
pub struct LocalExecutor {} // absent: use task::spawn_local
#[cfg(false)]
pub struct Task {} // absent: use task::JoinHandle; dropping it does not cancel the task
#[cfg(false)]
pub struct Timer {} // absent: use task::sleep, time::Sleep or stream::interval
#[cfg(false)]
pub fn block_on() {} // absent: use task::block_on
#[cfg(false)]
pub mod lock {} // absent: use the crate async-lock
#[cfg(false)]
pub fn unblock() {} // absent: use task::spawn_blocking

#[doc(no_inline)]
pub use os::unix::net as unix;
#[doc(no_inline)]
pub use std::{write, writeln};

/// Items that the macros of this crate expand to, and items for the other crates of this workspace.
#[doc(hidden)]
pub mod __private {
    // Used by `netpoll-hyper`.
    pub use crate::net::adapter::{ListenerView, SocketView};
    // Used by `netpoll-resolver`, which must classify names, print errors and yield exactly as this
    // crate does.
    pub use crate::net::for_resolver::*;
    pub use std::format;
    pub use std::string::String;
}

#[cfg(feature = "attributes")]
pub use netpoll_macros::{main, test};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

//! HTTP with hyper 1.x on the streams of netpoll.
//!
//! * [`Server`]: an HTTP/1 and HTTP/2 server with limits and a graceful shutdown. With the feature
//!   `tower` it accepts tower services, such as an axum `Router`: `serve_tower(listener, router)`.
//! * [`Socket`]: hyper's traits `Read` and `Write` for [`TcpStream`] and [`UnixStream`], for direct
//!   use of hyper's connections.
//! * `Connector` (feature `client`): HTTP/1 and HTTP/2 requests with hyper-util's pooled client,
//!   over TLS with rustls (feature `rustls`).
//! * [`Io`]: an adapter for streams that have only futures-io's traits, such as TLS.
//! * [`Listener`]: the source of a server's connections.
//! * [`Watch`]: a view of the socket of a connection.
//! * [`Executor`] and [`Timer`]: implementations of hyper's runtime traits.
//!
//! With [`Socket`], reads fill hyper's buffer directly, without zeroing it first. With HTTP/1, the
//! head of a response and a body that is available are sent with one sendmsg(2). Deadlines of the
//! socket apply to hyper's reads and writes, so a deadline set through a clone of the stream can
//! end an operation for which hyper waits.
//!
//! [`TcpStream`]: netpoll::net::TcpStream
//! [`UnixStream`]: netpoll::os::unix::net::UnixStream
//!
//! # Examples
//! ```
//! use hyper::{Request, Response, body::Incoming, service::service_fn};
//! use netpoll::{net::{TcpListener, TcpStream}, prelude::*, task};
//! use std::{convert::Infallible, sync::Arc};
//!
//! async fn hello(_: Request<Incoming>) -> Result<Response<String>, Infallible> {
//!     Ok(Response::new("hello".to_owned()))
//! }
//!
//! # fn main() -> std::io::Result<()> {
//! task::block_on(async {
//!     let listener = Arc::new(TcpListener::bind("127.0.0.1:0").await?);
//!     let addr = listener.local_addr()?;
//!     let server = task::spawn(netpoll_hyper::serve(Arc::clone(&listener), service_fn(hello)));
//!
//!     let mut client = TcpStream::connect(addr).await?;
//!     client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await?;
//!     let mut answer = String::new();
//!     client.read_to_string(&mut answer).await?;
//!     assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("hello"));
//!
//!     listener.close().await?;
//!     server.await
//! })
//! # }
//! ```

#![deny(unsafe_code)]
// docs.rs sets `docsrs`. The page of each item then names the feature that the item requires.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod activity;
#[cfg(feature = "client")]
mod client;
mod connection;
mod drain;
mod io;
mod listener;
mod rt;
mod server;
mod socket;
#[cfg(feature = "tower")]
mod tower;
mod wire;

#[cfg(feature = "client")]
#[cfg_attr(docsrs, doc(cfg(feature = "client")))]
pub use client::{ClientStream, Connector};
pub use io::Io;
pub use listener::{Listener, Watch};
pub use rt::{Executor, Timer};
pub use server::{Server, serve};
pub use socket::Socket;
#[cfg(feature = "tower")]
pub use tower::{Tower, TowerFuture, serve_tower};

use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The error of a service or of a response body.
type BoxError = Box<dyn Error + Send + Sync>;

/// Locks `mutex` and ignores poisoning, because a panic under the lock leaves the data consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

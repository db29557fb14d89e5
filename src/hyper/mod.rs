//! hyper 1.x on the streams of this crate (feature `hyper`): hyper's I/O traits, [`Executor`] and [`Timer`], a [`Server`] with limits and a
//! graceful end, and [`Io`], a bridge for streams that have futures-io's traits only. With feature `tower` the server takes tower services,
//! such as an axum `Router`: `serve_tower(listener, router)`.
//!
//! [`TcpStream`](crate::net::TcpStream) and [`UnixStream`](crate::os::unix::net::UnixStream) implement `hyper::rt::Read` and
//! `hyper::rt::Write`: hyper's connections take them as they are. A read goes straight into hyper's buffer, which is not zeroed first; the
//! head and the body of an answer leave in one sendmsg(2). Deadlines of the socket apply to hyper's reads and writes: a clone of the stream
//! can end what hyper waits for.
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
//!     let server = task::spawn(netpoll::hyper::serve(Arc::clone(&listener), service_fn(hello)));
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

mod activity;
mod connection;
mod drain;
mod io;
mod listener;
mod rt;
mod server;
mod streams;
#[cfg(feature = "tower")]
mod tower;
mod wire;

pub use io::Io;
pub use listener::{Listener, Watch};
pub use rt::{Executor, Timer};
pub use server::{Server, serve};
#[cfg(feature = "tower")]
pub use tower::{Tower, TowerFuture, serve_tower};

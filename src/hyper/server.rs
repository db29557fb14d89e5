//! `Server`: accepts connections and serves each with hyper in a task of its own, within limits, to a graceful end.
//!
//! # States
//! *accepting* → (listener closed, `stop` done, accept failed) → *draining* → (last connection gone, or grace over: the rest is cut
//! off) → done. Dropping the future cuts all connections off. When `stop` is done, connections that the kernel has accepted already are
//! served too: their clients may have sent requests.
//!
//! # Compared with Go (net/http.Server)
//! `Shutdown` with its context's time is here the closing of the listener and [`Server::grace`]. There are no read and write timeouts of
//! the server: the socket's own reach through hyper. A client that half-closes gets its answer in both. Go cancels the request's context
//! then; here the handler learns of it by [`TcpStream::peer_closed`](crate::net::TcpStream::peer_closed).

use std::error::Error;
use std::fmt;
use std::future::{Future, pending, poll_fn, ready};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use ::http_body::Body;
use ::hyper::body::Incoming;
use ::hyper::rt::{Read, Write};
use ::hyper::server::conn::{http1, http2};
use ::hyper::service::Service;
use ::hyper::{Request, Response};
use futures_core::Stream;

use super::activity::Activity;
use super::connection::{self, Settings};
use super::drain::{CUT, DRAINING, Group};
use super::listener::Listener;
use super::rt::{Executor, Timer};
use crate::future::timeout;
use crate::net::is_closed;
use crate::task;

/// Connections accepted from the queue after the end: the kernel's default bound of a queue. A limit against clients that connect faster
/// than this accepts.
const QUEUED: usize = 4096;

/// Serves the connections of `listener` with `service` until the listener is closed, then lets requests under way end. Short for
/// [`Server::serve`] with the settings of [`Server::new`]; the module has an example.
///
/// # Errors
/// As [`Server::serve_with`].
///
/// # Cancel safety
/// As [`Server::serve_with`].
pub async fn serve<L, S, B>(listener: L, service: S) -> io::Result<()>
where
    L: Listener,
    L::Io: Read + Write + Unpin,
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    Server::new().serve(listener, service).await
}

/// An HTTP/1 and HTTP/2 server: the settings, and the accept loop.
///
/// A connection that begins with HTTP/2's preface is served as HTTP/2, any other as HTTP/1, upgrades included. An upgraded connection belongs
/// to the service: the server counts it no longer and does not end it.
///
/// # Examples
/// A server behind TLS, or one whose service depends on the peer, makes a stream and a service per connection:
/// ```
/// use hyper::{Request, Response, body::Incoming, service::service_fn};
/// use netpoll::{hyper::Server, net::{TcpListener, TcpStream}, prelude::*, task};
/// use std::{convert::Infallible, time::Duration};
///
/// # fn main() -> std::io::Result<()> {
/// task::block_on(async {
///     let listener = TcpListener::bind("127.0.0.1:0").await?;
///     let addr = listener.local_addr()?;
///     let connect = |stream: TcpStream| async move {
///         let peer = stream.peer_addr()?;
///         let service = service_fn(move |_: Request<Incoming>| async move {
///             Ok::<_, Infallible>(Response::new(peer.to_string()))
///         });
///         Ok((stream, service)) // or, with the TLS handshake done: (Io::new(stream), service)
///     };
///     let client = async {
///         let mut client = TcpStream::connect(addr).await?;
///         client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await?;
///         let mut answer = String::new();
///         client.read_to_string(&mut answer).await?;
///         assert!(answer.ends_with(&client.local_addr()?.to_string()));
///         std::io::Result::Ok(())
///     };
///     let stop = async { client.await.expect("an answer") };
///     Server::new().max_connections(100).grace(Duration::from_secs(5)).serve_with(listener, connect, stop).await
/// })
/// # }
/// ```
#[derive(Clone)]
pub struct Server {
    settings: Settings,
    max_connections: usize,
    grace: Duration,
}

impl Server {
    /// Makes a server with the defaults: any number of connections, 30 s for a request's head, 10 s of grace. hyper's settings are its
    /// defaults, but for `http1().half_close(true)`.
    pub fn new() -> Server {
        let (mut http1, mut http2) = (http1::Builder::new(), http2::Builder::new(Executor));
        http1.timer(Timer).half_close(true);
        http2.timer(Timer);
        let mut server = Server {
            settings: Settings { http1, http2, head: None },
            max_connections: usize::MAX,
            grace: Duration::from_secs(10),
        };
        server.header_read_timeout(Duration::from_secs(30));
        server
    }

    /// Sets the number of connections that are served at once, at least one. Further ones wait in the listener's queue.
    pub fn max_connections(&mut self, most: usize) -> &mut Server {
        self.max_connections = most.max(1);
        self
    }

    /// Sets the time that a client has from the beginning of the connection, or from the end of the last answer, to the end of a
    /// request's head. It also limits how long a connection is kept alive without a request, and how long
    /// [`serve_with`](Server::serve_with)'s closure takes. `None` sets no limit.
    ///
    /// An HTTP/2 connection that has no request under way for this time is shut down (GOAWAY), and closed when its client stays silent
    /// for as long again. A request under way is not limited; `http2().keep_alive_interval(…)` finds clients that are gone. A CONNECT
    /// request that is granted over HTTP/2 lifts the limit for its connection.
    pub fn header_read_timeout(&mut self, timeout: impl Into<Option<Duration>>) -> &mut Server {
        let timeout = timeout.into();
        self.settings.head = timeout;
        self.settings.http1.header_read_timeout(timeout);
        self
    }

    /// Sets the time that requests under way have when the server has stopped accepting. Then they are cut off.
    pub fn grace(&mut self, grace: Duration) -> &mut Server {
        self.grace = grace;
        self
    }

    /// Returns hyper's settings for HTTP/1. The timer is the server's own.
    ///
    /// `half_close` is on: a client that sends a request and shuts its sending side down gets the answer, as RFC 9112 (section 9.6) and
    /// Go have it. A client that closes its socket looks the same until it is sent something, so its request is handled to the end too.
    pub fn http1(&mut self) -> &mut http1::Builder {
        &mut self.settings.http1
    }

    /// Returns hyper's settings for HTTP/2. Executor and timer are set.
    pub fn http2(&mut self) -> &mut http2::Builder<Executor> {
        &mut self.settings.http2
    }

    /// Serves the connections of `listener` with clones of `service` until the listener is closed; then as
    /// [`serve_with`](Server::serve_with).
    ///
    /// # Errors
    /// As [`serve_with`](Server::serve_with).
    ///
    /// # Cancel safety
    /// As [`serve_with`](Server::serve_with).
    pub async fn serve<L, S, B>(&self, listener: L, service: S) -> io::Result<()>
    where
        L: Listener,
        L::Io: Read + Write + Unpin,
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        self.serve_with(listener, |io| ready(Ok((io, service.clone()))), pending::<()>()).await
    }

    /// Serves until the listener is closed or `stop` is done. `connect` makes of each connection a stream for hyper and a service, in
    /// the connection's own task, so a TLS handshake there delays no other connection. Its error ends the connection.
    ///
    /// At the end, requests that have arrived are answered, with `connection: close` over HTTP/1. When `stop` is done this includes requests
    /// on connections in the listener's queue; closing the listener resets those. Idle connections and those with a part of a head are
    /// closed; those with requests under way are closed when these are answered (HTTP/2 with GOAWAY); what is left after
    /// [`grace`](Server::grace) is cut off.
    ///
    /// A panic of the service ends its connection, or its stream with HTTP/2.
    ///
    /// # Errors
    /// `TimedOut` when connections were cut off; the listener's error when accepting failed.
    ///
    /// # Cancel safety
    /// Dropping the future cuts all connections off.
    pub async fn serve_with<L, C, F, T, S, B>(&self, listener: L, connect: C, stop: impl Future) -> io::Result<()>
    where
        L: Listener,
        C: Fn(L::Io) -> F,
        F: Future<Output = io::Result<(T, S)>> + Send + 'static,
        T: Read + Write + Unpin + Send + 'static,
        S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let group = CutOff(Arc::new(Group::default()));
        let settings = Arc::new(self.settings.clone());
        let accepted = self.accept(&listener, &group.0, stop, |io| {
            let activity = Activity::new(L::watch(&io));
            connection::serve(connect(io), activity, Arc::clone(&settings), group.0.join())
        });
        let result = accepted.await;
        // An owned listener is closed before the wait.
        drop(listener);
        group.0.advance(DRAINING);
        if timeout(self.grace, poll_fn(|cx| group.0.poll_fewer(1, cx))).await.is_ok() {
            return result;
        }
        group.0.advance(CUT);
        poll_fn(|cx| group.0.poll_fewer(1, cx)).await;
        result.and(Err(io::Error::new(io::ErrorKind::TimedOut, "connections were cut off at the end of the grace")))
    }

    /// Accepts until there is a reason to stop, and spawns what `begin` makes of each connection. When the reason is `stop`, also what is
    /// in the listener's queue.
    async fn accept<L: Listener, F>(
        &self,
        listener: &L,
        group: &Group,
        stop: impl Future,
        mut begin: impl FnMut(L::Io) -> F,
    ) -> io::Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut connections = pin!(listener.accepted());
        let mut stop = pin!(stop);
        let mut closed: Option<Pin<Box<dyn Future<Output = ()> + Send + '_>>> = None;
        let mut is_stopped = poll_fn(|cx| Poll::Ready(stop.as_mut().poll(cx).is_ready())).await;
        while !is_stopped {
            let next = poll_fn(|cx| {
                let next = if group.poll_fewer(self.max_connections, cx).is_ready() {
                    closed = None;
                    connections.as_mut().poll_next(cx).map(Some)
                } else {
                    let closed = closed.get_or_insert_with(|| Box::pin(listener.closed()));
                    closed.as_mut().poll(cx).map(|()| Some(None))
                };
                if next.is_pending() { stop.as_mut().poll(cx).map(|_| None) } else { next }
            });
            match next.await {
                Some(Some(Ok(io))) => {
                    let connection = begin(io);
                    // Before the connection's first turn, which is then the one of a server that stops.
                    is_stopped = poll_fn(|cx| Poll::Ready(stop.as_mut().poll(cx).is_ready())).await;
                    if is_stopped {
                        group.advance(DRAINING);
                    }
                    drop(task::spawn(connection));
                }
                Some(Some(Err(error))) if !is_closed(&error) => return Err(error),
                Some(_) => return Ok(()),
                None => is_stopped = true,
            }
        }
        group.advance(DRAINING);
        for _ in 0..QUEUED {
            let next = poll_fn(|cx| {
                if group.poll_fewer(self.max_connections, cx).is_pending() {
                    return Poll::Ready(None);
                }
                match connections.as_mut().poll_next(cx) {
                    Poll::Pending if !listener.is_queued() => Poll::Ready(None),
                    next => next,
                }
            });
            match next.await {
                Some(Ok(io)) => drop(task::spawn(begin(io))),
                Some(Err(_)) | None => break,
            }
        }
        Ok(())
    }
}

impl Default for Server {
    fn default() -> Server {
        Server::new()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Server");
        debug.field("max_connections", &self.max_connections).field("grace", &self.grace);
        debug.field("header_read_timeout", &self.settings.head).finish_non_exhaustive()
    }
}

/// The server is gone: so are its connections.
#[derive(Debug)]
struct CutOff(Arc<Group>);

impl Drop for CutOff {
    fn drop(&mut self) {
        self.0.advance(CUT);
    }
}

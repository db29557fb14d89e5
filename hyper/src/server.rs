//! [`Server`]: accepts connections and serves each with hyper in its own task, with limits and a
//! graceful shutdown.
//!
//! # States
//! A server is *accepting* until the listener is closed, `stop` completes or an accept fails. Then
//! it is *draining*, until the last connection has ended or the grace period is over. It then cuts
//! off the connections that remain, and waits at most [`CUT_OFF`] for their end. Dropping the
//! future cuts off all connections.
//!
//! When `stop` completes, connections in the listener's queue are served as well, because their
//! clients may have sent requests. The server accepts at most 4,096 of them ([`QUEUED`]), up to its
//! own connection limit. The grace period begins before they are accepted, because a listener with
//! its own limit accepts them only when other connections have ended. If the server has no
//! connection and cannot accept one from the queue for [`CUT_OFF`], it stops accepting. The reasons
//! may be a lack of descriptors, or upgraded connections that are at the listener's limit.
//!
//! # Compared with Go (net/http.Server)
//! Closing the listener and [`Server::grace`] correspond to `Shutdown` with the timeout of a
//! context. The server has no settings for read and write timeouts, because the timeouts of a
//! socket also apply to hyper's reads and writes. With both servers, a client that half-closes gets
//! its response. Go's server cancels the context of the request at the half-close. Here, the
//! handler can use [`TcpStream::peer_closed`](netpoll::net::TcpStream::peer_closed).

use std::error::Error;
use std::fmt;
use std::future::{Future, pending, poll_fn, ready};
use std::io;
use std::mem::forget;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_core::Stream;
use http_body::Body;
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper::{Request, Response};
use netpoll::future::timeout;
use netpoll::net::is_closed;
use netpoll::task;
use netpoll::time::Sleep;

use super::BoxError;
use super::activity::Activity;
use super::connection::{self, Connecting, OnError, Settings};
use super::drain::{CUT, DRAINING, Group};
use super::listener::Listener;
use super::rt::{Executor, Timer};

/// The maximum number of connections accepted from the queue after `stop` has completed. The limit
/// equals the default of `net.core.somaxconn` (since Linux 5.4). Without it, clients that connect
/// faster than the server accepts would prevent the server from stopping.
const QUEUED: usize = 4096;

/// The longest time limit that is passed to hyper, 100 years. hyper adds the limit to the current
/// time and panics on overflow.
const HEAD_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The maximum time that the server waits for the end of connections that it has cut off. Also the
/// maximum time that a stopping server without connections waits to accept one from the queue.
const CUT_OFF: Duration = Duration::from_millis(200);

/// Serves the connections of `listener` with `service` until the listener is closed, then lets
/// requests in progress finish. This is [`Server::serve`] with the settings of [`Server::new`]. The
/// [crate](crate) documentation has an example.
///
/// # Errors
/// Returns the errors of [`Server::serve_with`].
///
/// # Cancel safety
/// Same as [`Server::serve_with`].
pub async fn serve<L, S, B>(listener: L, service: S) -> io::Result<()>
where
    L: Listener<Io: Read + Write + Unpin>,
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    Server::new().serve(listener, service).await
}

/// An HTTP/1 and HTTP/2 server: its settings and its accept loop.
///
/// A connection that begins with the HTTP/2 preface is served as HTTP/2, and any other as HTTP/1,
/// including upgrades. An upgraded connection belongs to the service, so the server no longer
/// counts it and does not end it.
///
/// # Examples
/// A server with TLS, or one whose service depends on the peer, creates a stream and a service per
/// connection. With TLS, the closure makes the handshake, for example by
/// `acceptor.accept(stream.into_inner()).await?` with futures-rustls, and returns `Io::new(tls)` as
/// the stream. The example `https_hello` in the repository is a complete HTTPS server.
/// ```
/// use hyper::{Request, Response, body::Incoming, service::service_fn};
/// use netpoll::{net::{TcpListener, TcpStream}, prelude::*, task};
/// use netpoll_hyper::{Server, Socket};
/// use std::{convert::Infallible, time::Duration};
///
/// # fn main() -> std::io::Result<()> {
/// task::block_on(async {
///     let listener = TcpListener::bind("127.0.0.1:0").await?;
///     let addr = listener.local_addr()?;
///     let connect = |stream: Socket<TcpStream>| async move {
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
#[doc(alias = "http.Server")]
pub struct Server {
    settings: Settings,
    max_connections: usize,
    grace: Duration,
}

impl Server {
    /// Creates a server with the default settings: no connection limit, 30 s for a request's head,
    /// and a grace period of 10 s. hyper's settings have their defaults, except that `half_close`
    /// of HTTP/1 is enabled and that the executor and the timers are netpoll's.
    pub fn new() -> Server {
        let (mut http1, mut http2) = (http1::Builder::new(), http2::Builder::new(Executor));
        http1.timer(Timer).half_close(true);
        http2.timer(Timer);
        let mut server = Server {
            settings: Settings { http1, http2, head: None, on_error: None },
            max_connections: usize::MAX,
            grace: Duration::from_secs(10),
        };
        server.header_read_timeout(Duration::from_secs(30));
        server
    }

    /// Sets the maximum number of connections that are served at the same time; 0 counts as 1.
    /// Further connections wait in the listener's queue. The default is no limit.
    pub fn max_connections(&mut self, most: usize) -> &mut Server {
        self.max_connections = most.max(1);
        self
    }

    /// Sets the time limit for a request's head, counted from the end of the previous response. On
    /// a new connection, it applies to the future of the closure of
    /// [`serve_with`](Server::serve_with) and the first bytes together, and then again to the rest
    /// of the head. The limit also applies to a connection that is kept alive without a request.
    /// `None` means no limit. The default is 30 s.
    ///
    /// An HTTP/2 connection that has no request in progress for this time is shut down (GOAWAY). It
    /// is closed when the client has acknowledged the shutdown, after an interval of the same
    /// length in which no bytes are transferred, or after three such intervals in which bytes are
    /// transferred but no request is in progress and no bytes wait to be sent. The time of a
    /// request in progress is not limited.
    /// `http2().keep_alive_interval(…)` detects clients that are gone. The limit does not apply to
    /// an HTTP/2 connection on which a CONNECT request was accepted.
    pub fn header_read_timeout(&mut self, timeout: impl Into<Option<Duration>>) -> &mut Server {
        let timeout = timeout.into().map(|timeout| timeout.min(HEAD_MAX));
        self.settings.head = timeout;
        self.settings.http1.header_read_timeout(timeout);
        self
    }

    /// Sets the grace period, counted from the completion of `stop`, the close of the listener or
    /// the failure of an accept. In this time requests in progress finish and, if `stop` has
    /// completed, at most 4,096 connections in the listener's queue are accepted, up to the
    /// connection limit. After the grace period, the connections that remain are cut off. If the
    /// server owns the listener, connections that remain in the queue are reset. The default is
    /// 10 s.
    ///
    /// A handler that blocks its thread can be dropped only when its poll returns. The server waits
    /// at most 200 ms for such handlers.
    pub fn grace(&mut self, grace: Duration) -> &mut Server {
        self.grace = grace;
        self
    }

    /// Calls `hook` with each error that ends a connection. By default these errors are ignored.
    /// They are:
    /// * an error of the future of the closure of [`serve_with`](Server::serve_with), such as a
    ///   failed TLS handshake;
    /// * an error of reading the first bytes, such as `TimedOut`;
    /// * an error of hyper (`hyper::Error`), such as a malformed request, a head that took too long
    ///   (including on an idle connection), a reset, or an error of the service.
    ///
    /// It is not an error if a client closes a connection between requests, if an HTTP/1 connection
    /// is reset or closed by force while the service handles a request, if an HTTP/2 connection is
    /// closed because it has no request, or if a connection is closed or cut off because the server
    /// stops. The hook runs in the connection's task.
    ///
    /// The text of a `hyper::Error`, such as `connection error`, does not contain the cause. Print
    /// the error with `{:?}`, or print its `source` too.
    pub fn on_error(
        &mut self,
        hook: impl Fn(&(dyn Error + Send + Sync + 'static)) + Send + Sync + 'static,
    ) -> &mut Server {
        self.settings.on_error = Some(OnError(Arc::new(hook)));
        self
    }

    /// Returns hyper's settings for HTTP/1. The server replaces the timer.
    ///
    /// `half_close` is enabled, so a client that sends a request and then shuts down its sending
    /// side gets the response, as in Go. According to RFC 9112 (section 9.6), a half-close does not
    /// mean that the client is no longer interested in a response. Until the server sends data, it
    /// cannot distinguish a client that has half-closed the connection from one that has closed its
    /// socket. So the request of the latter is handled as well, at least until the server sends
    /// data.
    pub fn http1(&mut self) -> &mut http1::Builder {
        &mut self.settings.http1
    }

    /// Returns hyper's settings for HTTP/2. The executor and the timer are already set.
    pub fn http2(&mut self) -> &mut http2::Builder<Executor> {
        &mut self.settings.http2
    }

    /// Serves the connections of `listener` with clones of `service` until the listener is closed,
    /// then stops like [`serve_with`](Server::serve_with).
    ///
    /// # Errors
    /// Returns the errors of [`serve_with`](Server::serve_with).
    ///
    /// # Cancel safety
    /// Same as [`serve_with`](Server::serve_with).
    pub async fn serve<L, S, B>(&self, listener: L, service: S) -> io::Result<()>
    where
        L: Listener<Io: Read + Write + Unpin>,
        S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        self.serve_until(listener, service, pending::<()>()).await
    }

    /// Serves the connections of `listener` with clones of `service` until `stop` completes or the
    /// listener is closed, then stops like [`serve_with`](Server::serve_with). `stop` may be
    /// `netpoll::signal::termination()?`, for example.
    ///
    /// # Errors
    /// Returns the errors of [`serve_with`](Server::serve_with).
    ///
    /// # Cancel safety
    /// Same as [`serve_with`](Server::serve_with).
    #[doc(alias = "with_graceful_shutdown")]
    pub async fn serve_until<L, S, B>(&self, listener: L, service: S, stop: impl Future) -> io::Result<()>
    where
        L: Listener<Io: Read + Write + Unpin>,
        S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        self.serve_with(listener, |io| ready(Ok((io, service.clone()))), stop).await
    }

    /// Serves connections until the listener is closed, `stop` completes or an accept fails.
    /// `connect` converts each connection into a stream for hyper and a service. Its future runs in
    /// the connection's own task, so that a TLS handshake does not delay other connections. If the
    /// future fails, the connection ends.
    ///
    /// When the server stops, it answers requests that have arrived, with `connection: close` over
    /// HTTP/1. If `stop` has completed, this includes requests on at most 4,096 connections in the
    /// listener's queue, up to the connection limit. If the listener was closed, the kernel resets
    /// the connections in the queue. Idle connections and connections with an incomplete head are
    /// closed. Connections with requests in progress are closed after the responses (HTTP/2 with
    /// GOAWAY). Connections that remain after the [grace period](Server::grace) are cut off.
    ///
    /// If queued connections cannot be accepted for lack of descriptors, the server stops accepting
    /// 200 ms after the last other connection has ended. If the server owns the listener, the
    /// queued connections are then reset.
    ///
    /// A panic of `connect` or of the service ends its connection. With HTTP/2, a panic of the
    /// service's future ends only its stream. A panic of `stop` stops the server, as if `stop` had
    /// completed.
    ///
    /// # Errors
    /// Returns the listener's error if accepting failed before the server stopped. Otherwise,
    /// returns `TimedOut` if connections were cut off.
    ///
    /// # Cancel safety
    /// Dropping the future cuts off all connections.
    #[doc(alias = "TLS")]
    #[doc(alias = "https")]
    pub async fn serve_with<L, C, F, T, S, B>(&self, listener: L, connect: C, stop: impl Future) -> io::Result<()>
    where
        L: Listener,
        C: Fn(L::Io) -> F,
        F: Future<Output = io::Result<(T, S)>> + Send + 'static,
        T: Read + Write + Unpin + Send + 'static,
        S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>> + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let group = CutOff(Arc::new(Group::default()));
        let settings = Arc::new(self.settings.clone());
        let mut grace = Sleep::never();
        let accepted = self.accept(&listener, &group.0, stop, &mut grace, |io| {
            let member = group.0.join();
            let activity = Activity::new(L::watch(&io), member.counted());
            let connecting = Connecting::new(|| connect(io));
            connection::serve(connecting, activity, Arc::clone(&settings), member)
        });
        let result = accepted.await;
        // If the server owns the listener, this closes it before the wait.
        drop(listener);
        let all_ended = poll_fn(|cx| match group.0.poll_fewer(1, cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending => Pin::new(&mut grace).poll(cx).map(|()| false),
        });
        if all_ended.await {
            return result;
        }
        group.0.advance(CUT);
        // A connection whose handler blocks its thread ends only when the handler returns.
        let _ = timeout(CUT_OFF, poll_fn(|cx| group.0.poll_fewer(1, cx))).await;
        result.and(Err(io::Error::new(io::ErrorKind::TimedOut, "connections were cut off after the grace period")))
    }

    /// Accepts connections until there is a reason to stop, and spawns the future that `begin`
    /// returns for each. Then sets the stage to *draining* and starts `grace`. If the reason is
    /// `stop`, also accepts the connections in the listener's queue, at most [`QUEUED`] and up to
    /// the connection limit, until `grace` is over. If the reason is the error of an accept,
    /// returns this error.
    async fn accept<L: Listener, F>(
        &self,
        listener: &L,
        group: &Group,
        stop: impl Future,
        grace: &mut Sleep,
        mut begin: impl FnMut(L::Io) -> F,
    ) -> io::Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut connections = pin!(listener.accepted());
        let mut stop = pin!(contained(stop));
        let mut closed: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send + '_>>> = None;
        let mut is_stopped = poll_fn(|cx| Poll::Ready(stop.as_mut().poll(cx).is_ready())).await;
        let result = loop {
            if is_stopped {
                break Ok(true);
            }
            let next = poll_fn(|cx| {
                let next = if group.poll_fewer(self.max_connections, cx).is_ready() {
                    closed = None;
                    connections.as_mut().poll_next(cx).map(Some)
                } else {
                    let closed = closed.get_or_insert_with(|| Box::pin(listener.closed()));
                    closed.as_mut().poll(cx).map(|reason| Some(reason.err().map(Err)))
                };
                if next.is_pending() { stop.as_mut().poll(cx).map(|_| None) } else { next }
            });
            match next.await {
                Some(Some(Ok(io))) => {
                    let connection = begin(io);
                    // `stop` is checked before the connection's first poll, so that the first poll
                    // finds the stage *draining* if the server is stopping.
                    is_stopped = poll_fn(|cx| Poll::Ready(stop.as_mut().poll(cx).is_ready())).await;
                    if is_stopped {
                        group.advance(DRAINING);
                    }
                    drop(task::spawn(connection));
                }
                Some(Some(Err(error))) if !is_closed(&error) => break Err(error),
                Some(_) => break Ok(false),
                None => is_stopped = true,
            }
        };
        group.advance(DRAINING);
        *grace = Sleep::new(self.grace);
        if !result? {
            return Ok(());
        }
        for _ in 0..QUEUED {
            let mut alone: Option<Sleep> = None;
            let next = poll_fn(|cx| {
                if group.poll_fewer(self.max_connections, cx).is_pending() {
                    return Poll::Ready(None);
                }
                match connections.as_mut().poll_next(cx) {
                    Poll::Pending if !listener.is_queued() => Poll::Ready(None),
                    // The listener may wait for a permit or a descriptor until a connection ends.
                    Poll::Pending => {
                        let is_alone = group.poll_fewer(1, cx).is_ready();
                        if is_alone && Pin::new(alone.get_or_insert_with(|| Sleep::new(CUT_OFF))).poll(cx).is_ready() {
                            return Poll::Ready(None);
                        }
                        Pin::new(&mut *grace).poll(cx).map(|()| None)
                    }
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

/// Waits until `stop` completes or panics. The panic is caught, because it would cut off all
/// connections.
async fn contained(stop: impl Future) {
    let mut stop = pin!(stop);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| stop.as_mut().poll(cx).map(drop))) {
        Ok(polled) => polled,
        Err(payload) => {
            // The destructor of the payload is user code too.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(payload))).map_err(forget);
            Poll::Ready(())
        }
    })
    .await;
}

/// A guard that cuts off all connections when the server's future is dropped.
#[derive(Debug)]
struct CutOff(Arc<Group>);

impl Drop for CutOff {
    fn drop(&mut self) {
        self.0.advance(CUT);
    }
}

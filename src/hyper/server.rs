//! `Server`: accepts connections and serves each with hyper in a task of its own, within limits, to a graceful end.
//!
//! # States
//! *accepting* → (listener closed, `stop` done, accept failed) → *draining* → (last connection gone, or grace over: the rest is cut
//! off) → done. Dropping the future cuts off whatever there is.
//!
//! # Compared with Go (net/http.Server)
//! `Shutdown` with its context's time is here the closing of the listener and [`Server::grace`]. There are no read and write timeouts of
//! the server: the socket's own reach through hyper.

use std::error::Error;
use std::fmt;
use std::future::{Future, pending, poll_fn, ready};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::http_body::Body;
use ::hyper::body::Incoming;
use ::hyper::rt::{Read, Write};
use ::hyper::server::conn::{http1, http2};
use ::hyper::service::Service;
use ::hyper::{Request, Response};
use futures_core::Stream;

use super::connection::{self, Settings};
use super::drain::{CUT, DRAINING, Group};
use super::rt::{Executor, Timer};
use crate::future::timeout;
use crate::net::futures::PeerClosed;
use crate::net::unix::{UnixListener, UnixStream};
use crate::net::{TcpListener, TcpStream, is_closed};
use crate::task;

/// Where a server takes its connections from: a listener, a reference or an `Arc` of one.
pub trait Listener {
    /// A connection.
    type Io: Send + 'static;

    /// The connections. An error ends the server.
    fn accepted(&self) -> impl Stream<Item = io::Result<Self::Io>> + Send;

    /// Ends when the listener is closed; asked while the server has as many connections as it may have and accepts none.
    fn closed(&self) -> impl Future<Output = ()> + Send;
}

/// Implements it for a listener with `incoming()` and `as_net_fd()`.
macro_rules! listener {
    ($listener:ty => $stream:ty) => {
        impl Listener for $listener {
            type Io = $stream;

            fn accepted(&self) -> impl Stream<Item = io::Result<$stream>> + Send {
                self.incoming()
            }

            async fn closed(&self) {
                // A listener has no peer, so this can end in one way only.
                let _ = PeerClosed::new(self.as_net_fd()).await;
            }
        }
    };
}

listener!(TcpListener => TcpStream);
listener!(UnixListener => UnixStream);

impl<L: Listener> Listener for &L {
    type Io = L::Io;

    fn accepted(&self) -> impl Stream<Item = io::Result<L::Io>> + Send {
        L::accepted(self)
    }

    fn closed(&self) -> impl Future<Output = ()> + Send {
        L::closed(self)
    }
}

impl<L: Listener> Listener for Arc<L> {
    type Io = L::Io;

    fn accepted(&self) -> impl Stream<Item = io::Result<L::Io>> + Send {
        L::accepted(self)
    }

    fn closed(&self) -> impl Future<Output = ()> + Send {
        L::closed(self)
    }
}

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
/// A connection that begins with HTTP/2's preface is served as such, any other as HTTP/1, upgrades included. An upgraded connection is
/// its owner's and no longer counted here.
///
/// # Examples
/// A server behind TLS, or one that tells its service who asks, makes stream and service for each connection:
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
    /// The defaults: any number of connections, 30 s for a request's head, 10 s of grace, hyper's other settings.
    pub fn new() -> Server {
        let (mut http1, mut http2) = (http1::Builder::new(), http2::Builder::new(Executor));
        http1.timer(Timer);
        http2.timer(Timer);
        let mut server = Server {
            settings: Settings { http1, http2, head: None },
            max_connections: usize::MAX,
            grace: Duration::from_secs(10),
        };
        server.header_read_timeout(Duration::from_secs(30));
        server
    }

    /// Sets how many connections are served at once. Further ones wait in the listener's queue. At least one.
    pub fn max_connections(&mut self, most: usize) -> &mut Server {
        self.max_connections = most.max(1);
        self
    }

    /// Sets for how long a client may take from the beginning of the connection, or the end of the last answer, to the end of a
    /// request's head; also for how long a connection is kept alive without a request, and for how long
    /// [`serve_with`](Server::serve_with)'s closure may take. `None`: for ever.
    ///
    /// With HTTP/2 it counts to the client's preface only; `http2().keep_alive_interval(…)` finds clients that are gone.
    pub fn header_read_timeout(&mut self, timeout: impl Into<Option<Duration>>) -> &mut Server {
        let timeout = timeout.into();
        self.settings.head = timeout;
        self.settings.http1.header_read_timeout(timeout);
        self
    }

    /// Sets for how long requests under way may go on after the server has stopped accepting. Then they are cut off.
    pub fn grace(&mut self, grace: Duration) -> &mut Server {
        self.grace = grace;
        self
    }

    /// hyper's settings for HTTP/1. The timer is the server's own.
    pub fn http1(&mut self) -> &mut http1::Builder {
        &mut self.settings.http1
    }

    /// hyper's settings for HTTP/2. Executor and timer are set.
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
    /// the connection's own task: a TLS handshake there holds nobody up. Its error ends the connection.
    ///
    /// At the end idle connections are closed, those with requests under way when they are answered (HTTP/2 with GOAWAY), and what is
    /// left after [`grace`](Server::grace) is cut off. A panic of the service ends its connection, or its stream with HTTP/2.
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
            drop(task::spawn(connection::serve(connect(io), Arc::clone(&settings), group.0.join())));
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

    /// Accepts until there is a reason to stop.
    async fn accept<L: Listener>(
        &self,
        listener: &L,
        group: &Group,
        stop: impl Future,
        mut begin: impl FnMut(L::Io),
    ) -> io::Result<()> {
        let mut connections = pin!(listener.accepted());
        let mut stop = pin!(stop);
        let mut closed: Option<Pin<Box<dyn Future<Output = ()> + Send + '_>>> = None;
        let mut next = move |cx: &mut Context<'_>| {
            if stop.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            if group.poll_fewer(self.max_connections, cx).is_pending() {
                return closed.get_or_insert_with(|| Box::pin(listener.closed())).as_mut().poll(cx).map(|()| None);
            }
            closed = None;
            connections.as_mut().poll_next(cx)
        };
        loop {
            match poll_fn(&mut next).await {
                Some(Ok(io)) => begin(io),
                Some(Err(error)) if !is_closed(&error) => return Err(error),
                _ => return Ok(()),
            }
        }
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

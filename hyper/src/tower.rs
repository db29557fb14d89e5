//! [`Tower`]: tower services as hyper services (feature `tower`).

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::Body;
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::service::Service as HyperService;
use hyper::{Request, Response};
use netpoll::net::TcpStream;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::BoxError;
use super::listener::Listener;
use super::server::Server;
use super::socket::Socket;

/// A tower service as a hyper service.
///
/// Each request is passed to a clone of the service once that clone is ready. [`serve_tower`] and
/// the methods of [`Server`] with `tower` in their names wrap the service themselves. The closure
/// of [`Server::serve_with`] returns one service per connection, which it must wrap explicitly.
///
/// # Examples
/// This server creates a service with the peer's address for each connection, and stops when `stop`
/// completes. With axum, `router.clone().layer(Extension(peer))` creates the service of a
/// connection.
/// ```
/// use hyper::{Request, Response, body::Incoming};
/// use netpoll_hyper::{Server, Socket, Tower};
/// use netpoll::{io, net::TcpListener, net::TcpStream};
/// use std::convert::Infallible;
/// use std::future::{Future, Ready, ready};
/// use std::net::SocketAddr;
/// use std::task::{Context, Poll};
///
/// #[derive(Clone)]
/// struct WhoAmI(SocketAddr);
///
/// impl tower_service::Service<Request<Incoming>> for WhoAmI {
///     type Response = Response<String>;
///     type Error = Infallible;
///     type Future = Ready<Result<Response<String>, Infallible>>;
///
///     fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
///         Poll::Ready(Ok(()))
///     }
///
///     fn call(&mut self, _: Request<Incoming>) -> Self::Future {
///         ready(Ok(Response::new(self.0.to_string())))
///     }
/// }
///
/// async fn serve(listener: TcpListener, stop: impl Future) -> io::Result<()> {
///     let connect = |stream: Socket<TcpStream>| async move {
///         let service = WhoAmI(stream.peer_addr()?);
///         Ok((stream, Tower::new(service)))
///     };
///     Server::new().serve_with(listener, connect, stop).await
/// }
/// # netpoll::task::block_on(async {
/// # let listener = TcpListener::bind("127.0.0.1:0").await?;
/// # let addr = listener.local_addr()?;
/// # let client = async {
/// #     use netpoll::prelude::*;
/// #     let mut client = TcpStream::connect(addr).await.unwrap();
/// #     client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await.unwrap();
/// #     let mut answer = String::new();
/// #     client.read_to_string(&mut answer).await.unwrap();
/// #     assert!(answer.ends_with(&client.local_addr().unwrap().to_string()));
/// # };
/// # serve(listener, client).await
/// # }).unwrap();
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Tower<S>(S);

impl<S> Tower<S> {
    /// Wraps `service`.
    pub fn new(service: S) -> Tower<S> {
        Tower(service)
    }

    /// Returns the wrapped service.
    pub fn into_inner(self) -> S {
        self.0
    }
}

impl<S, R> HyperService<R> for Tower<S>
where
    S: Service<R> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = TowerFuture<S, R>;

    fn call(&self, request: R) -> TowerFuture<S, R> {
        TowerFuture { state: State::NotReady { service: self.0.clone(), request: Some(request) } }
    }
}

pin_project! {
    /// The future of [`Tower`]. It waits until the service is ready, calls it and returns the
    /// response.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless they are awaited"]
    pub struct TowerFuture<S: Service<R>, R> {
        #[pin]
        state: State<S, R, S::Future>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = StateProjection]
    enum State<S, R, F> {
        NotReady { service: S, request: Option<R> },
        Called { #[pin] future: F },
    }
}

impl<S: Service<R>, R> Future for TowerFuture<S, R> {
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                StateProjection::NotReady { service, request } => {
                    ready!(service.poll_ready(cx))?;
                    let Some(request) = request.take() else {
                        unreachable!("the state changes when the request is taken")
                    };
                    let future = service.call(request);
                    state.set(State::Called { future });
                }
                StateProjection::Called { future } => return future.poll(cx),
            }
        }
    }
}

/// Serves the connections of `listener` with a tower service, such as an axum `Router`, until the
/// listener is closed, then lets requests in progress finish. This is [`Server::serve_tower`] with
/// the settings of [`Server::new`].
///
/// # Errors
/// Returns the errors of [`Server::serve_with`].
///
/// # Cancel safety
/// Same as [`Server::serve_with`].
///
/// # Examples
/// axum's feature `tokio` is not needed:
/// ```ignore
/// let app = axum::Router::new().route("/", axum::routing::get(|| async { "hello" }));
/// let listener = netpoll::net::TcpListener::bind("127.0.0.1:8080").await?;
/// netpoll_hyper::serve_tower(listener, app).await
/// ```
#[doc(alias = "axum::serve")]
pub async fn serve_tower<L, S, B>(listener: L, service: S) -> io::Result<()>
where
    L: Listener<Io: Read + Write + Unpin>,
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    Server::new().serve_tower(listener, service).await
}

/// Methods that serve tower services.
impl Server {
    /// Serves the connections of `listener` with clones of a tower service, such as an axum
    /// `Router`, until the listener is closed, then stops like [`serve_with`](Server::serve_with).
    ///
    /// # Errors
    /// Returns the errors of [`serve_with`](Server::serve_with).
    ///
    /// # Cancel safety
    /// Same as [`serve_with`](Server::serve_with).
    pub async fn serve_tower<L, S, B>(&self, listener: L, service: S) -> io::Result<()>
    where
        L: Listener<Io: Read + Write + Unpin>,
        S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        self.serve(listener, Tower::new(service)).await
    }

    /// Serves the connections of `listener` with clones of a tower service until `stop` completes
    /// or the listener is closed, then stops like [`serve_with`](Server::serve_with). `stop` may be
    /// `netpoll::signal::termination()?`, for example.
    ///
    /// # Errors
    /// Returns the errors of [`serve_with`](Server::serve_with).
    ///
    /// # Cancel safety
    /// Same as [`serve_with`](Server::serve_with).
    #[doc(alias = "with_graceful_shutdown")]
    pub async fn serve_tower_until<L, S, B>(&self, listener: L, service: S, stop: impl Future) -> io::Result<()>
    where
        L: Listener<Io: Read + Write + Unpin>,
        S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        self.serve_until(listener, Tower::new(service), stop).await
    }

    /// Serves each connection with a separate service until `stop` completes or the listener is
    /// closed, then stops like [`serve_with`](Server::serve_with). `make` is a tower service that
    /// returns the service for a peer's address.
    ///
    /// Each connection uses a clone of `make` once that clone is ready. An error of `make` ends the
    /// connection, and is passed to the hook of [`on_error`](Server::on_error).
    ///
    /// # Errors
    /// Returns the errors of [`serve_with`](Server::serve_with).
    ///
    /// # Cancel safety
    /// Same as [`serve_with`](Server::serve_with).
    #[doc(alias = "into_make_service_with_connect_info")]
    pub async fn serve_make_tower<L, M, S, B>(&self, listener: L, make: M, stop: impl Future) -> io::Result<()>
    where
        L: Listener<Io = Socket<TcpStream>>,
        M: Service<SocketAddr, Response = S, Error: Into<BoxError>> + Clone + Send + 'static,
        M::Future: Send + 'static,
        S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let connect = |stream: Socket<TcpStream>| {
            let mut make = make.clone();
            async move {
                let peer = stream.peer_addr()?;
                poll_fn(|cx| make.poll_ready(cx)).await.map_err(io::Error::other)?;
                let service = make.call(peer).await.map_err(io::Error::other)?;
                Ok((stream, Tower::new(service)))
            }
        };
        self.serve_with(listener, connect, stop).await
    }
}

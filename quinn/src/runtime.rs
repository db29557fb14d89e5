//! [`Runtime`]: quinn's runtime trait, with netpoll's tasks, timers and sockets. [`endpoint()`]
//! creates an endpoint that uses this runtime.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use quinn::{AsyncTimer, AsyncUdpSocket, Endpoint, EndpointConfig, ServerConfig};

use netpoll::net::UdpSocket;
use netpoll::task;
use netpoll::time::{Movable, Sleep};

use super::Socket;

/// Creates an endpoint on `socket`. Tasks of netpoll's runtime serve the endpoint, which can be
/// used under any executor. With a server configuration, the endpoint accepts connections.
///
/// # Errors
/// Returns the errors of [`Socket::new`].
///
/// # Examples
/// ```
/// use netpoll::net::UdpSocket;
/// use quinn::{Endpoint, EndpointConfig};
/// use std::sync::Arc;
///
/// async fn client(config: EndpointConfig) -> std::io::Result<Endpoint> {
///     let socket = Arc::new(UdpSocket::bind("0.0.0.0:0").await?);
///     netpoll_quinn::endpoint(config, None, socket)
/// }
/// ```
pub fn endpoint(config: EndpointConfig, server: Option<ServerConfig>, socket: Arc<UdpSocket>) -> io::Result<Endpoint> {
    Endpoint::new_with_abstract_socket(config, server, Arc::new(Socket::new(socket)?), Arc::new(Runtime))
}

/// An implementation of quinn's runtime trait with netpoll's runtime. Pass it to
/// `quinn::Endpoint::new`, which takes sockets of std. For netpoll's sockets, use [`endpoint`].
///
/// # Examples
/// ```
/// use quinn::Runtime as _;
/// use std::time::Instant;
///
/// let timer = netpoll_quinn::Runtime.new_timer(Instant::now());
/// # drop(timer);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Runtime;

impl quinn::Runtime for Runtime {
    fn new_timer(&self, deadline: Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(Timer(Movable::new(Sleep::until(deadline))))
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        drop(task::spawn(future));
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(Arc::new(Socket::new(Arc::new(socket.into()))?))
    }
}

/// The timer of one connection, which quinn resets whenever its deadline changes.
#[derive(Debug)]
struct Timer(Movable);

impl AsyncTimer for Timer {
    fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        self.0.reset(deadline);
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx)
    }
}

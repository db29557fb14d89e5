//! [`Provider`]: hickory's runtime interface, implemented with netpoll's sockets, timers and tasks.
//!
//! hickory's pool replaces each I/O error with `NoConnections`, so the sockets store the last
//! failure in [`LastFailure`].

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hickory_resolver::net::runtime::{DnsTcpStream, DnsUdpSocket, RuntimeProvider, Spawn, Time};

use super::reply::Failure;
use futures_io::{AsyncRead, AsyncWrite};
use netpoll::net::{Dialer, TcpStream, UdpSocket};
use netpoll::{future, task};

/// The default time limit for connecting to a server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The provider of sockets for one server. It stores the server's address, because the address that
/// hickory passes does not contain the zone.
#[derive(Clone, Debug)]
pub(super) struct Provider {
    pub(super) server: SocketAddr,
    pub(super) last: LastFailure,
}

/// The last I/O error on the sockets of one server.
#[derive(Clone, Debug, Default)]
pub(super) struct LastFailure(Arc<Mutex<Option<(Instant, Failure)>>>);

impl LastFailure {
    /// Returns the last failure, unless it occurred before `start`.
    pub(super) fn since(&self, start: Instant) -> Option<Failure> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().filter(|(at, _)| *at >= start).map(|(_, failure)| failure.clone())
    }

    /// Stores the error of `result`, if there is one, and returns `result`.
    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            let last = Some((Instant::now(), Failure::of(error)));
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = last;
        }
        result
    }
}

/// A datagram socket that is connected to its server, so that the kernel drops datagrams from other
/// peers and reports an error if the server's port is closed.
pub(super) struct ServerSocket {
    socket: UdpSocket,
    last: LastFailure,
}

/// A connection to a server.
pub(super) struct ServerStream {
    stream: TcpStream,
    last: LastFailure,
}

/// hickory's handle for tasks and timers.
#[allow(unreachable_pub)]
#[derive(Clone, Copy, Debug)]
pub struct Runtime;

impl RuntimeProvider for Provider {
    type Handle = Runtime;
    type Timer = Runtime;
    type Udp = ServerSocket;
    type Tcp = ServerStream;

    fn create_handle(&self) -> Runtime {
        Runtime
    }

    fn connect_tcp(
        &self,
        _server: SocketAddr,
        local: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> Boxed<io::Result<ServerStream>> {
        let dialer = Dialer::new().local_addr(local).timeout(timeout.unwrap_or(CONNECT_TIMEOUT));
        let Provider { server, last } = self.clone();
        Box::pin(async move {
            let stream = last.note(dialer.dial(server).await)?;
            Ok(ServerStream { stream, last })
        })
    }

    fn bind_udp(&self, local: SocketAddr, _server: SocketAddr) -> Boxed<io::Result<ServerSocket>> {
        let Provider { server, last } = self.clone();
        Box::pin(async move {
            let socket = last.note(UdpSocket::bind(local).await)?;
            last.note(socket.connect(server).await)?;
            Ok(ServerSocket { socket, last })
        })
    }
}

impl Spawn for Runtime {
    fn spawn_bg(&mut self, future: impl Future<Output = ()> + Send + 'static) {
        drop(task::spawn(future));
    }
}

// The signatures of these functions are those that async-trait generates.
impl Time for Runtime {
    fn delay_for<'f>(duration: Duration) -> Boxed<()>
    where
        Self: 'f,
    {
        Box::pin(task::sleep(duration))
    }

    fn timeout<'f, F>(duration: Duration, future: F) -> Pin<Box<dyn Future<Output = io::Result<F::Output>> + Send + 'f>>
    where
        F: 'static + Future + Send + 'f,
        Self: 'f,
    {
        Box::pin(async move { future::timeout(duration, future).await.map_err(|_| io::ErrorKind::TimedOut.into()) })
    }
}

impl DnsUdpSocket for ServerSocket {
    type Time = Runtime;

    fn poll_recv_from(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        self.socket.poll_recv_from(cx, buf).map(|result| self.last.note(result))
    }

    fn poll_send_to(&self, cx: &mut Context<'_>, buf: &[u8], _server: SocketAddr) -> Poll<io::Result<usize>> {
        self.socket.poll_send(cx, buf).map(|result| self.last.note(result))
    }
}

impl DnsTcpStream for ServerStream {
    type Time = Runtime;
}

impl AsyncRead for ServerStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, buf).map(|result| self.last.note(result))
    }
}

impl AsyncWrite for ServerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf).map(|result| self.last.note(result))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx).map(|result| self.last.note(result))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx).map(|result| self.last.note(result))
    }
}

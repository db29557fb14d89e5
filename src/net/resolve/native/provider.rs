//! What hickory runs on: this crate's sockets, timers and tasks.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hickory_resolver::net::runtime::{DnsTcpStream, DnsUdpSocket, RuntimeProvider, Spawn, Time};

use crate::net::{Dialer, TcpStream, UdpSocket};
use crate::{io as our_io, task};

/// For a connection to a server when hickory names no time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The runtime, of which there is one. Public, because traits of public types name it, and not to be reached.
#[allow(unreachable_pub)]
#[derive(Clone, Copy, Debug)]
pub struct Provider;

impl RuntimeProvider for Provider {
    type Handle = Provider;
    type Timer = Provider;
    type Udp = UdpSocket;
    type Tcp = TcpStream;

    fn create_handle(&self) -> Provider {
        Provider
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        local: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> Boxed<io::Result<TcpStream>> {
        let dialer = Dialer::new().local_addr(local).timeout(timeout.unwrap_or(CONNECT_TIMEOUT));
        Box::pin(async move { dialer.dial(server).await })
    }

    fn bind_udp(&self, local: SocketAddr, _server: SocketAddr) -> Boxed<io::Result<UdpSocket>> {
        Box::pin(UdpSocket::bind(local))
    }
}

impl Spawn for Provider {
    fn spawn_bg(&mut self, future: impl Future<Output = ()> + Send + 'static) {
        drop(task::spawn(future));
    }
}

// The signatures are async-trait's, written out.
impl Time for Provider {
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
        Box::pin(our_io::timeout(duration, async { Ok(future.await) }))
    }
}

impl DnsUdpSocket for UdpSocket {
    type Time = Provider;

    fn poll_recv_from(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        UdpSocket::poll_recv_from(self, cx, buf)
    }

    fn poll_send_to(&self, cx: &mut Context<'_>, buf: &[u8], target: SocketAddr) -> Poll<io::Result<usize>> {
        UdpSocket::poll_send_to(self, cx, buf, target)
    }
}

impl DnsTcpStream for TcpStream {
    type Time = Provider;
}

//! The methods of [`Async`] for sockets. The stand-ins for both versions of async-io compile this
//! file.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{SocketAddr as UnixSocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::Path;

use futures_core::Stream;
use futures_lite::stream;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use crate::Async;

/// The number of the error EINPROGRESS, which connect(2) on a non-blocking socket returns while the
/// handshake is in progress. It is 115 on most architectures of Linux, 150 on MIPS, and 36 on SPARC
/// and on macOS and the BSDs.
const EINPROGRESS: i32 = {
    let is_linux = cfg!(any(target_os = "linux", target_os = "android"));
    let is_mips =
        cfg!(any(target_arch = "mips", target_arch = "mips32r6", target_arch = "mips64", target_arch = "mips64r6"));
    let is_sparc = cfg!(any(target_arch = "sparc", target_arch = "sparc64"));
    if !is_linux || is_sparc {
        36
    } else if is_mips {
        150
    } else {
        115
    }
};

/// Opens a stream socket and calls connect(2). If the connection is not complete immediately, waits
/// until the socket is writable. Returns the socket's pending error, if there is one.
async fn connect<T>(domain: Domain, protocol: Option<Protocol>, addr: &SockAddr) -> io::Result<Async<T>>
where
    T: AsFd + AsRawFd + From<Socket>,
{
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), protocol)?;
    let in_progress = match socket.connect(addr) {
        Ok(()) => false,
        Err(error) if error.raw_os_error() == Some(EINPROGRESS) || error.kind() == io::ErrorKind::WouldBlock => true,
        Err(error) => return Err(error),
    };
    let stream = Async::new_nonblocking(T::from(socket))?;
    if in_progress {
        stream.writable().await?;
        if let Some(error) = SockRef::from(stream.get_ref()).take_error()? {
            return Err(error);
        }
    }
    Ok(stream)
}

impl Async<TcpListener> {
    /// Creates a TCP listener bound to `addr`.
    pub fn bind<A: Into<SocketAddr>>(addr: A) -> io::Result<Async<TcpListener>> {
        Async::new(TcpListener::bind(addr.into())?)
    }

    /// Accepts a connection and returns the stream and the peer's address.
    pub async fn accept(&self) -> io::Result<(Async<TcpStream>, SocketAddr)> {
        let (stream, addr) = self.read_with(TcpListener::accept).await?;
        Ok((Async::new(stream)?, addr))
    }

    /// Returns a stream of the accepted connections. The stream never ends.
    pub fn incoming(&self) -> impl Stream<Item = io::Result<Async<TcpStream>>> + Send + '_ {
        stream::unfold(
            self,
            |listener| async move { Some((listener.accept().await.map(|(stream, _)| stream), listener)) },
        )
    }
}

impl Async<TcpStream> {
    /// Opens a TCP connection to `addr`.
    pub async fn connect<A: Into<SocketAddr>>(addr: A) -> io::Result<Async<TcpStream>> {
        let addr = addr.into();
        let stream: Self = connect(Domain::for_address(addr), Some(Protocol::TCP), &addr.into()).await?;
        // Returns `NotConnected` if the socket has no pending error but is not connected.
        stream.get_ref().peer_addr()?;
        Ok(stream)
    }

    /// Reads data without removing it from the receive queue, and returns the number of bytes read.
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_with(|io| io.peek(buf)).await
    }
}

impl Async<UdpSocket> {
    /// Creates a UDP socket bound to `addr`.
    pub fn bind<A: Into<SocketAddr>>(addr: A) -> io::Result<Async<UdpSocket>> {
        Async::new(UdpSocket::bind(addr.into())?)
    }

    /// Receives a datagram and returns the number of bytes received and the sender's address.
    pub async fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.read_with(|io| io.recv_from(buf)).await
    }

    /// Receives a datagram without removing it from the receive queue. Returns the number of bytes
    /// received and the sender's address.
    pub async fn peek_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.read_with(|io| io.peek_from(buf)).await
    }

    /// Sends a datagram to `addr` and returns the number of bytes sent.
    pub async fn send_to<A: Into<SocketAddr>>(&self, buf: &[u8], addr: A) -> io::Result<usize> {
        let addr = addr.into();
        self.write_with(|io| io.send_to(buf, addr)).await
    }

    /// Receives a datagram from the connected peer and returns the number of bytes received.
    pub async fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_with(|io| io.recv(buf)).await
    }

    /// Receives a datagram from the connected peer without removing it from the receive queue.
    /// Returns the number of bytes received.
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_with(|io| io.peek(buf)).await
    }

    /// Sends a datagram to the connected peer and returns the number of bytes sent.
    pub async fn send(&self, buf: &[u8]) -> io::Result<usize> {
        self.write_with(|io| io.send(buf)).await
    }
}

impl Async<UnixListener> {
    /// Creates a Unix listener bound to `path`.
    pub fn bind<P: AsRef<Path>>(path: P) -> io::Result<Async<UnixListener>> {
        Async::new(UnixListener::bind(path)?)
    }

    /// Accepts a connection and returns the stream and the peer's address.
    pub async fn accept(&self) -> io::Result<(Async<UnixStream>, UnixSocketAddr)> {
        let (stream, addr) = self.read_with(UnixListener::accept).await?;
        Ok((Async::new(stream)?, addr))
    }

    /// Returns a stream of the accepted connections. The stream never ends.
    pub fn incoming(&self) -> impl Stream<Item = io::Result<Async<UnixStream>>> + Send + '_ {
        stream::unfold(
            self,
            |listener| async move { Some((listener.accept().await.map(|(stream, _)| stream), listener)) },
        )
    }
}

impl Async<UnixStream> {
    /// Connects to the Unix listener at `path`.
    pub async fn connect<P: AsRef<Path>>(path: P) -> io::Result<Async<UnixStream>> {
        let addr = SockAddr::unix(path)?;
        let stream: Self = connect(Domain::UNIX, None, &addr).await?;
        // Returns `NotConnected` if connect(2) has returned EAGAIN because the listener's queue is
        // full.
        stream.get_ref().peer_addr()?;
        Ok(stream)
    }

    /// Creates a pair of connected streams.
    pub fn pair() -> io::Result<(Async<UnixStream>, Async<UnixStream>)> {
        let (left, right) = UnixStream::pair()?;
        Ok((Async::new(left)?, Async::new(right)?))
    }
}

impl Async<UnixDatagram> {
    /// Creates a Unix datagram socket bound to `path`.
    pub fn bind<P: AsRef<Path>>(path: P) -> io::Result<Async<UnixDatagram>> {
        Async::new(UnixDatagram::bind(path)?)
    }

    /// Creates an unbound Unix datagram socket.
    pub fn unbound() -> io::Result<Async<UnixDatagram>> {
        Async::new(UnixDatagram::unbound()?)
    }

    /// Creates a pair of connected sockets.
    pub fn pair() -> io::Result<(Async<UnixDatagram>, Async<UnixDatagram>)> {
        let (left, right) = UnixDatagram::pair()?;
        Ok((Async::new(left)?, Async::new(right)?))
    }

    /// Receives a datagram and returns the number of bytes received and the sender's address.
    pub async fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, UnixSocketAddr)> {
        self.read_with(|io| io.recv_from(buf)).await
    }

    /// Sends a datagram to the socket at `path` and returns the number of bytes sent.
    pub async fn send_to<P: AsRef<Path>>(&self, buf: &[u8], path: P) -> io::Result<usize> {
        self.write_with(|io| io.send_to(buf, &path)).await
    }

    /// Receives a datagram from the connected peer and returns the number of bytes received.
    pub async fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_with(|io| io.recv(buf)).await
    }

    /// Sends a datagram to the connected peer and returns the number of bytes sent.
    pub async fn send(&self, buf: &[u8]) -> io::Result<usize> {
        self.write_with(|io| io.send(buf)).await
    }
}

macro_rules! from_std {
    ($($socket:ty)*) => {$(
        impl TryFrom<$socket> for Async<$socket> {
            type Error = io::Error;

            fn try_from(socket: $socket) -> io::Result<Async<$socket>> {
                Async::new(socket)
            }
        }
    )*};
}

from_std!(TcpListener TcpStream UdpSocket UnixListener UnixStream UnixDatagram);

//! The ways in and out: std's type, owned and raw descriptors. As for TCP ([`tcp::convert`](crate::net::tcp::convert)), but that nobody
//! shares the socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use super::UdpSocket;
use crate::net::fd::net_fd::NetFd;
use crate::net::tcp::convert::{adopt, given, raw, release};

impl From<std::net::UdpSocket> for UdpSocket {
    fn from(socket: std::net::UdpSocket) -> UdpSocket {
        UdpSocket::from(OwnedFd::from(socket))
    }
}

impl From<OwnedFd> for UdpSocket {
    /// The caller says that it is a UDP socket; of another kind, operations fail.
    ///
    /// # Panics
    /// At 2²⁴ sockets in one process.
    fn from(fd: OwnedFd) -> UdpSocket {
        UdpSocket::from_net_fd(adopt(fd, NetFd::udp))
    }
}

impl TryFrom<UdpSocket> for std::net::UdpSocket {
    type Error = io::Error;

    /// Fails when the socket was closed. The result is non-blocking.
    fn try_from(socket: UdpSocket) -> io::Result<std::net::UdpSocket> {
        release(socket.into_net_fd()).map(From::from)
    }
}

impl From<UdpSocket> for OwnedFd {
    /// # Panics
    /// When the socket was closed explicitly.
    fn from(socket: UdpSocket) -> OwnedFd {
        given(release(socket.into_net_fd()))
    }
}

impl AsFd for UdpSocket {
    /// The descriptor, for as long as the socket is borrowed; it must not be used after an explicit close.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.net_fd().expose()
    }
}

raw!(UdpSocket);

//! `Debug`, and conversions from and to std's type, owned descriptors and raw descriptors. The
//! conversions work like those of TCP ([`tcp::convert`](crate::net::tcp::convert)), except that a
//! UDP socket has neither clones nor gathered writes.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use super::UdpSocket;
use crate::net::net_fd::NetFd;
use crate::net::tcp::convert::{adopt, expect_descriptor, raw, release};

impl From<std::net::UdpSocket> for UdpSocket {
    /// Takes ownership of the socket and makes it non-blocking.
    ///
    /// # Panics
    /// Panics in the same cases as the conversion from `OwnedFd`.
    fn from(socket: std::net::UdpSocket) -> UdpSocket {
        OwnedFd::from(socket).into()
    }
}

impl From<OwnedFd> for UdpSocket {
    /// Takes ownership of `fd`, which must be a UDP socket. This is not checked; on any other
    /// descriptor, operations may fail.
    ///
    /// # Panics
    /// Panics if the process already has 2²⁴ sockets, `AsyncFd`s and pipe ends, and in a child of
    /// fork(2).
    fn from(fd: OwnedFd) -> UdpSocket {
        UdpSocket::from_net_fd(adopt(fd, NetFd::udp))
    }
}

impl TryFrom<UdpSocket> for std::net::UdpSocket {
    type Error = io::Error;

    /// Releases the descriptor, which is non-blocking.
    ///
    /// # Errors
    /// Returns a [closed](crate::net::is_closed) error if the socket was closed.
    fn try_from(socket: UdpSocket) -> io::Result<std::net::UdpSocket> {
        release(socket.into_net_fd()).map(From::from)
    }
}

impl From<UdpSocket> for OwnedFd {
    /// Releases the descriptor.
    ///
    /// # Panics
    /// Panics if the socket was closed explicitly.
    fn from(socket: UdpSocket) -> OwnedFd {
        expect_descriptor(release(socket.into_net_fd()))
    }
}

impl AsFd for UdpSocket {
    /// Borrows the descriptor for as long as the socket is borrowed. After an explicit close,
    /// reads, writes and socket calls on it fail with EBADF (on macOS and FreeBSD with another
    /// error), and its number stays in use until the socket and the futures of the close are
    /// dropped.
    ///
    /// The first call in a process opens another descriptor, which stays open. If a socket whose
    /// descriptor was borrowed is closed explicitly, a duplicate of that other descriptor takes its
    /// number.
    ///
    /// After the first call the socket assumes that the descriptor has other users. A close then
    /// reads SO_LINGER and removes the descriptor from the poller explicitly.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.net_fd().fd.hand_out()
    }
}

raw!(UdpSocket);

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("UdpSocket");
        if let Ok(addr) = self.local_addr() {
            debug.field("addr", &addr);
        }
        if let Ok(peer) = self.peer_addr() {
            debug.field("peer", &peer);
        }
        debug.field("fd", &self.net_fd().fd.number()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_has_the_number_and_does_not_expose_the_socket() {
        let socket = crate::task::block_on(UdpSocket::bind("127.0.0.1:0")).unwrap();
        let text = format!("{socket:?}");
        assert!(!socket.net_fd().fd.is_exposed());
        assert!(text.contains(&format!("fd: {}", socket.as_raw_fd())), "{text}");
        assert!(socket.net_fd().fd.is_exposed());
    }
}

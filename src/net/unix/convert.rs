//! Conversions from and to std's types, owned descriptors and raw descriptors. They work as for
//! TCP.
//!
//! A descriptor that comes in is made non-blocking, and the file of a listener is not removed. A
//! descriptor that goes out is non-blocking, and its file remains. std has no type for packet
//! sockets.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net as std_net;

use super::file::SocketFile;
use super::{UnixDatagram, UnixListener, UnixStream};
use crate::net::tcp::convert::{adopt, descriptor, duplicate_shared, given, release, release_shared};

impl UnixListener {
    fn release(self) -> io::Result<OwnedFd> {
        self.file.keep();
        release(self.fd)
    }
}

impl From<OwnedFd> for UnixListener {
    /// Takes over a listening Unix stream socket. Operations fail if it is something else.
    fn from(fd: OwnedFd) -> UnixListener {
        UnixListener { file: SocketFile::default(), fd: adopt(fd, UnixStream::net_fd) }
    }
}

impl From<OwnedFd> for UnixStream {
    /// Takes over a Unix stream socket. Operations fail if it is something else.
    fn from(fd: OwnedFd) -> UnixStream {
        UnixStream::from_net_fd(adopt(fd, UnixStream::net_fd))
    }
}

impl From<OwnedFd> for UnixDatagram {
    /// Takes over a Unix datagram socket. Operations fail if it is something else.
    fn from(fd: OwnedFd) -> UnixDatagram {
        UnixDatagram { fd: adopt(fd, UnixDatagram::net_fd) }
    }
}

impl From<std_net::UnixListener> for UnixListener {
    fn from(listener: std_net::UnixListener) -> UnixListener {
        OwnedFd::from(listener).into()
    }
}

impl From<std_net::UnixStream> for UnixStream {
    fn from(stream: std_net::UnixStream) -> UnixStream {
        OwnedFd::from(stream).into()
    }
}

impl From<std_net::UnixDatagram> for UnixDatagram {
    fn from(socket: std_net::UnixDatagram) -> UnixDatagram {
        OwnedFd::from(socket).into()
    }
}

impl TryFrom<UnixListener> for std_net::UnixListener {
    type Error = io::Error;

    /// Returns an error if the listener was closed. The result is non-blocking, and its file
    /// remains.
    fn try_from(listener: UnixListener) -> io::Result<std_net::UnixListener> {
        listener.release().map(From::from)
    }
}

impl TryFrom<UnixStream> for std_net::UnixStream {
    type Error = io::Error;

    /// Returns an error while other clones live, or if the stream was closed. The result is
    /// non-blocking.
    fn try_from(stream: UnixStream) -> io::Result<std_net::UnixStream> {
        release_shared(stream.fd).map(From::from)
    }
}

impl TryFrom<UnixDatagram> for std_net::UnixDatagram {
    type Error = io::Error;

    /// Returns an error if the socket was closed. The result is non-blocking.
    fn try_from(socket: UnixDatagram) -> io::Result<std_net::UnixDatagram> {
        release(socket.fd).map(From::from)
    }
}

impl From<UnixListener> for OwnedFd {
    /// The listener's file remains.
    ///
    /// # Panics
    /// Panics if the listener was closed explicitly.
    fn from(listener: UnixListener) -> OwnedFd {
        given(listener.release())
    }
}

impl From<UnixStream> for OwnedFd {
    /// Returns a duplicate while other clones live.
    ///
    /// # Panics
    /// Panics if the stream was closed explicitly, or if a duplicate is needed and the descriptor
    /// limit is reached.
    fn from(stream: UnixStream) -> OwnedFd {
        duplicate_shared(stream.fd)
    }
}

impl From<UnixDatagram> for OwnedFd {
    /// # Panics
    /// Panics if the socket was closed explicitly.
    fn from(socket: UnixDatagram) -> OwnedFd {
        given(release(socket.fd))
    }
}

descriptor!(UnixListener);
descriptor!(UnixStream);
descriptor!(UnixDatagram);

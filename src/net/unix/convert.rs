//! Conversions from and to std's types, owned descriptors and raw descriptors. They work like those
//! of TCP ([`tcp::convert`](crate::net::tcp::convert)). A datagram socket has neither clones nor
//! gathered writes.
//!
//! A listener that was converted from another type removes its file only if `set_unlink_on_close`
//! requests it. A conversion into another type keeps the file.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net as std_net;

use super::file::SocketFile;
use super::{UnixDatagram, UnixListener, UnixStream};
use crate::net::tcp::convert::{adopt, descriptor, duplicate_shared, expect_descriptor, release, release_shared};

impl UnixListener {
    fn release(self) -> io::Result<OwnedFd> {
        self.file.keep();
        release(self.fd)
    }
}

impl From<OwnedFd> for UnixListener {
    /// Takes ownership of `fd`, which must be a listening Unix stream socket. This is not checked;
    /// on any other descriptor, operations may fail.
    ///
    /// # Panics
    /// Panics if the process already has 2²⁴ sockets, `AsyncFd`s and pipe ends, and in a child of
    /// fork(2).
    fn from(fd: OwnedFd) -> UnixListener {
        UnixListener { file: SocketFile::default(), fd: adopt(fd, UnixStream::net_fd) }
    }
}

impl From<OwnedFd> for UnixStream {
    /// Takes ownership of `fd`, which must be a Unix stream socket. This is not checked; on any
    /// other descriptor, operations may fail.
    ///
    /// # Panics
    /// Panics if the process already has 2²⁴ sockets, `AsyncFd`s and pipe ends, and in a child of
    /// fork(2).
    fn from(fd: OwnedFd) -> UnixStream {
        UnixStream::from_net_fd(adopt(fd, UnixStream::net_fd))
    }
}

impl From<OwnedFd> for UnixDatagram {
    /// Takes ownership of `fd`, which must be a Unix datagram socket. This is not checked; on any
    /// other descriptor, operations may fail.
    ///
    /// # Panics
    /// Panics if the process already has 2²⁴ sockets, `AsyncFd`s and pipe ends, and in a child of
    /// fork(2).
    fn from(fd: OwnedFd) -> UnixDatagram {
        UnixDatagram { fd: adopt(fd, UnixDatagram::net_fd) }
    }
}

impl From<std_net::UnixListener> for UnixListener {
    /// Takes ownership of the socket and makes it non-blocking.
    ///
    /// # Panics
    /// Panics in the same cases as the conversion from `OwnedFd`.
    fn from(listener: std_net::UnixListener) -> UnixListener {
        OwnedFd::from(listener).into()
    }
}

impl From<std_net::UnixStream> for UnixStream {
    /// Takes ownership of the socket and makes it non-blocking.
    ///
    /// # Panics
    /// Panics in the same cases as the conversion from `OwnedFd`.
    fn from(stream: std_net::UnixStream) -> UnixStream {
        OwnedFd::from(stream).into()
    }
}

impl From<std_net::UnixDatagram> for UnixDatagram {
    /// Takes ownership of the socket and makes it non-blocking.
    ///
    /// # Panics
    /// Panics in the same cases as the conversion from `OwnedFd`.
    fn from(socket: std_net::UnixDatagram) -> UnixDatagram {
        OwnedFd::from(socket).into()
    }
}

impl TryFrom<UnixListener> for std_net::UnixListener {
    type Error = io::Error;

    /// Releases the descriptor, which is non-blocking. The listener's file remains.
    ///
    /// # Errors
    /// Returns a [closed](crate::net::is_closed) error if the listener was closed.
    fn try_from(listener: UnixListener) -> io::Result<std_net::UnixListener> {
        listener.release().map(From::from)
    }
}

impl TryFrom<UnixStream> for std_net::UnixStream {
    type Error = io::Error;

    /// Releases the descriptor, which is non-blocking.
    ///
    /// Writes that [`set_auto_cork`](UnixStream::set_auto_cork) has gathered are sent first. If the
    /// peer does not read, the conversion blocks the thread for up to five seconds. Await
    /// [`flush`](UnixStream::flush) first to avoid the wait.
    ///
    /// # Errors
    /// Returns `ResourceBusy` while other clones exist, a [closed](crate::net::is_closed) error if
    /// the stream was closed, and `WouldBlock` if the gathered writes could not be sent in time. On
    /// error the stream is dropped, and the gathered writes are sent as after any drop; see
    /// [`set_auto_cork`](UnixStream::set_auto_cork).
    fn try_from(stream: UnixStream) -> io::Result<std_net::UnixStream> {
        release_shared(stream.fd).map(From::from)
    }
}

impl TryFrom<UnixDatagram> for std_net::UnixDatagram {
    type Error = io::Error;

    /// Releases the descriptor, which is non-blocking.
    ///
    /// # Errors
    /// Returns a [closed](crate::net::is_closed) error if the socket was closed.
    fn try_from(socket: UnixDatagram) -> io::Result<std_net::UnixDatagram> {
        release(socket.fd).map(From::from)
    }
}

impl From<UnixListener> for OwnedFd {
    /// Releases the descriptor. The listener's file remains.
    ///
    /// # Panics
    /// Panics if the listener was closed explicitly.
    fn from(listener: UnixListener) -> OwnedFd {
        expect_descriptor(listener.release())
    }
}

impl From<UnixStream> for OwnedFd {
    /// Releases the descriptor, or returns a duplicate while other clones exist.
    ///
    /// Writes that [`set_auto_cork`](UnixStream::set_auto_cork) has gathered are sent first. If the
    /// peer does not read, the conversion blocks the thread for up to five seconds and then shuts
    /// down the connection in both directions. If a duplicate is returned, the connection stays
    /// open for the other clones, and the gathered writes are sent when the peer reads. Await
    /// [`flush`](UnixStream::flush) first to avoid both the wait and the shutdown.
    ///
    /// # Panics
    /// Panics if the stream was closed explicitly, or if a duplicate is needed and the descriptor
    /// limit is reached.
    fn from(stream: UnixStream) -> OwnedFd {
        duplicate_shared(stream.fd)
    }
}

impl From<UnixDatagram> for OwnedFd {
    /// Releases the descriptor.
    ///
    /// # Panics
    /// Panics if the socket was closed explicitly.
    fn from(socket: UnixDatagram) -> OwnedFd {
        expect_descriptor(release(socket.fd))
    }
}

descriptor!(UnixListener);
descriptor!(UnixStream);
descriptor!(UnixDatagram);

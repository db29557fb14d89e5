//! The ways in and out: std's types, owned and raw descriptors; as those of TCP.
//!
//! What comes in is made non-blocking, and a listener's file is not removed. What goes out is non-blocking and keeps its file. std has no type
//! for packets.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net as std_net;

use super::file::SocketFile;
use super::{UnixDatagram, UnixListener, UnixSeqpacket, UnixSeqpacketListener, UnixStream};
use crate::net::tcp::convert::{adopt, descriptor, duplicate_shared, given, release, release_shared};

impl UnixListener {
    fn release(self) -> io::Result<OwnedFd> {
        self.file.keep();
        release(self.fd)
    }
}

impl UnixSeqpacketListener {
    fn release(self) -> io::Result<OwnedFd> {
        self.file.keep();
        release(self.fd)
    }
}

impl From<OwnedFd> for UnixListener {
    /// The caller says that it is a Unix stream socket that listens; of another kind, operations fail.
    fn from(fd: OwnedFd) -> UnixListener {
        UnixListener { file: SocketFile::default(), fd: adopt(fd, UnixStream::net_fd) }
    }
}

impl From<OwnedFd> for UnixSeqpacketListener {
    /// The caller says that it is a Unix packet socket that listens; of another kind, operations fail.
    fn from(fd: OwnedFd) -> UnixSeqpacketListener {
        UnixSeqpacketListener { file: SocketFile::default(), fd: adopt(fd, UnixSeqpacket::net_fd) }
    }
}

impl From<OwnedFd> for UnixStream {
    /// The caller says that it is a Unix stream socket; of another kind, operations fail.
    fn from(fd: OwnedFd) -> UnixStream {
        UnixStream::from_net_fd(adopt(fd, UnixStream::net_fd))
    }
}

impl From<OwnedFd> for UnixSeqpacket {
    /// The caller says that it is a Unix packet socket; of another kind, operations fail.
    fn from(fd: OwnedFd) -> UnixSeqpacket {
        UnixSeqpacket::from_net_fd(adopt(fd, UnixSeqpacket::net_fd))
    }
}

impl From<OwnedFd> for UnixDatagram {
    /// The caller says that it is a Unix datagram socket; of another kind, operations fail.
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

    /// Fails when the listener was closed. The result is non-blocking, and its file stays.
    fn try_from(listener: UnixListener) -> io::Result<std_net::UnixListener> {
        listener.release().map(From::from)
    }
}

impl TryFrom<UnixStream> for std_net::UnixStream {
    type Error = io::Error;

    /// Fails while other clones live, and when the stream was closed. The result is non-blocking.
    fn try_from(stream: UnixStream) -> io::Result<std_net::UnixStream> {
        release_shared(stream.fd).map(From::from)
    }
}

impl TryFrom<UnixDatagram> for std_net::UnixDatagram {
    type Error = io::Error;

    /// Fails when the socket was closed. The result is non-blocking.
    fn try_from(socket: UnixDatagram) -> io::Result<std_net::UnixDatagram> {
        release(socket.fd).map(From::from)
    }
}

impl From<UnixListener> for OwnedFd {
    /// Its file stays.
    ///
    /// # Panics
    /// When the listener was closed explicitly.
    fn from(listener: UnixListener) -> OwnedFd {
        given(listener.release())
    }
}

impl From<UnixSeqpacketListener> for OwnedFd {
    /// Its file stays.
    ///
    /// # Panics
    /// When the listener was closed explicitly.
    fn from(listener: UnixSeqpacketListener) -> OwnedFd {
        given(listener.release())
    }
}

impl From<UnixStream> for OwnedFd {
    /// A duplicate while other clones live.
    ///
    /// # Panics
    /// When the stream was closed explicitly, or a duplicate is needed and the process has no descriptor left.
    fn from(stream: UnixStream) -> OwnedFd {
        duplicate_shared(stream.fd)
    }
}

impl From<UnixSeqpacket> for OwnedFd {
    /// A duplicate while other clones live.
    ///
    /// # Panics
    /// When the socket was closed explicitly, or a duplicate is needed and the process has no descriptor left.
    fn from(socket: UnixSeqpacket) -> OwnedFd {
        duplicate_shared(socket.fd)
    }
}

impl From<UnixDatagram> for OwnedFd {
    /// # Panics
    /// When the socket was closed explicitly.
    fn from(socket: UnixDatagram) -> OwnedFd {
        given(release(socket.fd))
    }
}

descriptor!(UnixListener);
descriptor!(UnixSeqpacketListener);
descriptor!(UnixStream);
descriptor!(UnixSeqpacket);
descriptor!(UnixDatagram);

//! Conversions from and to owned and raw descriptors. std has no type for seqpacket sockets.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use super::{UnixSeqpacket, UnixSeqpacketListener};
use crate::net::tcp::convert::{adopt, descriptor, duplicate_shared, expect_descriptor, release};
use crate::net::unix::file::SocketFile;

impl UnixSeqpacketListener {
    fn release(self) -> io::Result<OwnedFd> {
        self.file.keep();
        release(self.fd)
    }
}

impl From<OwnedFd> for UnixSeqpacketListener {
    /// Takes ownership of `fd`, which must be a listening Unix seqpacket socket. This is not
    /// checked; on any other descriptor, operations may fail.
    ///
    /// # Panics
    /// Panics if the process already has 2²⁴ sockets, `AsyncFd`s and pipe ends, and in a child of
    /// fork(2).
    fn from(fd: OwnedFd) -> UnixSeqpacketListener {
        UnixSeqpacketListener { file: SocketFile::default(), fd: adopt(fd, UnixSeqpacket::net_fd) }
    }
}

impl From<OwnedFd> for UnixSeqpacket {
    /// Takes ownership of `fd`, which must be a Unix seqpacket socket. This is not checked; on any
    /// other descriptor, operations may fail.
    ///
    /// # Panics
    /// Panics if the process already has 2²⁴ sockets, `AsyncFd`s and pipe ends, and in a child of
    /// fork(2).
    fn from(fd: OwnedFd) -> UnixSeqpacket {
        UnixSeqpacket::from_net_fd(adopt(fd, UnixSeqpacket::net_fd))
    }
}

impl From<UnixSeqpacketListener> for OwnedFd {
    /// Releases the descriptor. The listener's file remains.
    ///
    /// # Panics
    /// Panics if the listener was closed explicitly.
    fn from(listener: UnixSeqpacketListener) -> OwnedFd {
        expect_descriptor(listener.release())
    }
}

impl From<UnixSeqpacket> for OwnedFd {
    /// Releases the descriptor, or returns a duplicate while other clones exist.
    ///
    /// # Panics
    /// Panics if the socket was closed explicitly, or if a duplicate is needed and the descriptor
    /// limit is reached.
    fn from(socket: UnixSeqpacket) -> OwnedFd {
        duplicate_shared(socket.fd)
    }
}

descriptor!(UnixSeqpacketListener);
descriptor!(UnixSeqpacket);

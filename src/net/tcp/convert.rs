//! The ways in and out: std's types, owned and raw descriptors.
//!
//! A descriptor that comes in is made non-blocking and keeps its options. It counts as exposed, since its former owner may have kept a
//! duplicate ([`fd`](crate::net::fd::fd)). A descriptor that goes out is non-blocking, and out of the poller. A stream with clones cannot
//! give its descriptor away: `TryFrom` refuses, the conversions that cannot fail hand out a duplicate.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use super::{TcpListener, TcpStream};
use crate::net::fd::net_fd::NetFd;
use crate::net::fd::operation::Failure;
use crate::rt::poll::poller;
use crate::sys::socket;

/// Makes a socket of `fd` for an infallible conversion.
///
/// # Panics
/// At 2²⁴ sockets in one process.
pub(in crate::net) fn adopt(fd: OwnedFd, make: impl FnOnce(OwnedFd) -> io::Result<NetFd>) -> NetFd {
    // It fails for a number that is no open descriptor, which no owner has; the first operation would say so.
    let _ = socket::set_nonblocking(fd.as_fd(), true);
    // Without it the first wait fails, or makes it.
    let _ = poller::prepare();
    let fd = make(fd).expect("2^24 sockets are open already");
    fd.expose();
    fd
}

/// Gives away the only handle's descriptor, unclosed. Buffers of [`send_zerocopy`](TcpStream::send_zerocopy) that the kernel still reads are
/// never freed: their completions come to the new owner.
pub(crate) fn release(fd: NetFd) -> io::Result<OwnedFd> {
    // What an explicit close left behind has no descriptor to give.
    if fd.fd.mutex.is_closed() {
        return Err(fd.error("file", Failure::Closed));
    }
    if let Some(sends) = fd.sends_if_any() {
        let _ = fd.fd.with(|fd| sends.reap(fd));
    }
    // The only handle is here, and was not closed.
    fd.fd.take().map_err(|_| io::ErrorKind::NotConnected.into())
}

/// What an infallible conversion gives.
///
/// # Panics
/// When there is nothing: the socket was closed explicitly, or a duplicate was needed and the process has no number for it.
pub(in crate::net) fn given(result: io::Result<OwnedFd>) -> OwnedFd {
    result.unwrap_or_else(|error| panic!("the socket has no descriptor to give: {error}"))
}

/// The descriptor of the last of a stream's clones.
pub(in crate::net) fn release_shared(fd: Arc<NetFd>) -> io::Result<OwnedFd> {
    let fd = Arc::try_unwrap(fd)
        .map_err(|_| io::Error::new(io::ErrorKind::ResourceBusy, "other clones of the stream are alive"))?;
    release(fd)
}

/// The same, a duplicate while other clones live.
pub(in crate::net) fn duplicate_shared(fd: Arc<NetFd>) -> OwnedFd {
    given(match Arc::try_unwrap(fd) {
        Ok(fd) => release(fd),
        Err(shared) => {
            // The duplicate would keep the registration of a number that is closed.
            shared.expose();
            shared.with("file", socket::dup_cloexec)
        }
    })
}

impl From<std::net::TcpListener> for TcpListener {
    fn from(listener: std::net::TcpListener) -> TcpListener {
        TcpListener::from_net_fd(adopt(listener.into(), NetFd::tcp_or_multipath), None)
    }
}

impl From<OwnedFd> for TcpListener {
    /// The caller says that it is a TCP socket that listens; of another kind, operations fail.
    fn from(fd: OwnedFd) -> TcpListener {
        TcpListener::from_net_fd(adopt(fd, NetFd::tcp_or_multipath), None)
    }
}

impl TryFrom<TcpListener> for std::net::TcpListener {
    type Error = io::Error;

    /// Fails when the listener was closed. The result is non-blocking.
    fn try_from(listener: TcpListener) -> io::Result<std::net::TcpListener> {
        release(listener.fd).map(From::from)
    }
}

impl From<TcpListener> for OwnedFd {
    /// # Panics
    /// When the listener was closed explicitly.
    fn from(listener: TcpListener) -> OwnedFd {
        given(release(listener.fd))
    }
}

impl From<std::net::TcpStream> for TcpStream {
    fn from(stream: std::net::TcpStream) -> TcpStream {
        OwnedFd::from(stream).into()
    }
}

impl From<OwnedFd> for TcpStream {
    /// The caller says that it is a TCP socket; of another kind, operations fail.
    fn from(fd: OwnedFd) -> TcpStream {
        let fd = adopt(fd, NetFd::tcp_or_multipath);
        fd.fd.find_fast_open();
        TcpStream::from_net_fd(fd)
    }
}

impl TryFrom<TcpStream> for std::net::TcpStream {
    type Error = io::Error;

    /// Fails while other clones live, and when the stream was closed. The result is non-blocking.
    fn try_from(stream: TcpStream) -> io::Result<std::net::TcpStream> {
        release_shared(stream.fd).map(From::from)
    }
}

impl From<TcpStream> for OwnedFd {
    /// A duplicate while other clones live.
    ///
    /// # Panics
    /// When the stream was closed explicitly, or a duplicate is needed and the process has no descriptor left.
    fn from(stream: TcpStream) -> OwnedFd {
        duplicate_shared(stream.fd)
    }
}

/// The borrowed descriptor's trait, for a type with a field `fd`, and the raw one's.
macro_rules! descriptor {
    ($type:ident) => {
        impl AsFd for $type {
            /// Lends the descriptor for as long as the socket is borrowed. It must not be used after an explicit close.
            ///
            /// From then on the descriptor may have other users, so the socket costs a few more system calls: a read that empties it is
            /// followed by another before the next wait, and a close asks for SO_LINGER and leaves epoll explicitly.
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.fd.expose()
            }
        }

        $crate::net::tcp::convert::raw!($type);
    };
}

/// The raw descriptor's traits, by way of the owned one's.
macro_rules! raw {
    ($type:ident) => {
        impl AsRawFd for $type {
            fn as_raw_fd(&self) -> RawFd {
                self.as_fd().as_raw_fd()
            }
        }

        impl IntoRawFd for $type {
            fn into_raw_fd(self) -> RawFd {
                OwnedFd::from(self).into_raw_fd()
            }
        }

        #[allow(unsafe_code)]
        impl FromRawFd for $type {
            unsafe fn from_raw_fd(fd: RawFd) -> $type {
                // SAFETY: the caller owns the open descriptor, by this function's contract.
                unsafe { OwnedFd::from_raw_fd(fd) }.into()
            }
        }
    };
}

pub(in crate::net) use {descriptor, raw};

descriptor!(TcpListener);
descriptor!(TcpStream);

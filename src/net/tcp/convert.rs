//! Conversions from and to std's types, owned descriptors and raw descriptors.
//!
//! A descriptor that is converted into a socket of this crate is made non-blocking and keeps its
//! options. It is treated as exposed, because its former owner may have kept a duplicate (see
//! [`fd`](crate::net::fd::fd)). A descriptor that a socket releases is non-blocking and is removed
//! from the poller. A stream with clones cannot release its descriptor: `TryFrom` returns an error,
//! and the infallible conversions return a duplicate.
//!
//! # Gathered writes
//! Converting a stream first sends the writes that `set_auto_cork` has gathered. If the send buffer
//! is full, the conversion blocks its thread until there is room, for at most five seconds. After
//! that, `TryFrom` fails and drops the stream, whose close sends the bytes like any other close
//! ([`gather`](crate::net::fd::gather)). An infallible conversion resets the connection, because
//! otherwise the bytes that the new owner writes would follow a gap in the stream. (A Unix stream,
//! and any stream on a system other than Linux, is shut down instead.) A conversion that returns a
//! duplicate neither resets nor shuts down the connection: the other clones keep it open, and the
//! bytes are still sent.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Instant;

use super::{TcpListener, TcpStream};
use crate::net::fd::gather::{RELEASE_MAX, unwrap_owner};
use crate::net::net_fd::NetFd;
use crate::rt::fork;
use crate::rt::poll::poller;
use crate::rt::poll::poller::Failure;
use crate::sys::socket;

/// Creates a socket from `fd` for an infallible conversion.
///
/// # Panics
/// Panics if the process already has 2²⁴ sockets, `AsyncFd`s and pipe ends, and in a child of
/// fork(2).
pub(in crate::net) fn adopt(fd: OwnedFd, make: impl FnOnce(OwnedFd) -> io::Result<NetFd>) -> NetFd {
    fork::assert_not_child();
    // This fails only if the descriptor is not open, which an `OwnedFd` rules out. The first
    // operation would report such an error.
    let _ = socket::set_nonblocking(fd.as_fd(), true);
    // If the poller cannot be prepared now, the first wait tries again or fails.
    let _ = poller::prepare();
    let fd = make(fd).expect("cannot create the socket");
    fd.expose();
    fd
}

/// Releases the descriptor of the only handle without closing it. Buffers of
/// [`send_zerocopy`](TcpStream::send_zerocopy) that the kernel is still reading are leaked, because
/// their completions go to the new owner.
///
/// # Errors
/// Returns a [closed](crate::net::is_closed) error after an explicit close.
pub(crate) fn release(fd: NetFd) -> io::Result<OwnedFd> {
    // After an explicit close there is no descriptor to release.
    if fd.fd.mutex.is_closed() {
        return Err(fd.error("file", Failure::Closed));
    }
    fd.fd.retire_gathered();
    if let Some(loans) = fd.fd.loans_if_any() {
        let _ = fd.fd.with(|fd| Ok(loans.recall(fd, true)));
    }
    // Cannot fail, because this is the only handle, and it was not closed.
    fd.fd.take().map_err(|_| io::ErrorKind::NotConnected.into())
}

/// Returns the descriptor of an infallible conversion.
///
/// # Panics
/// Panics if there is none: the socket was closed explicitly, or a duplicate was needed and the
/// descriptor limit is reached.
pub(in crate::net) fn expect_descriptor(result: io::Result<OwnedFd>) -> OwnedFd {
    result.unwrap_or_else(|error| panic!("the socket cannot release its descriptor: {error}"))
}

/// Sends the gathered bytes of the last clone of a stream and releases its descriptor.
///
/// # Errors
/// Returns `ResourceBusy` while other clones exist, `WouldBlock` if the socket does not accept the
/// gathered bytes within five seconds, the error of poll(2), and the error of [`release`]. On error
/// the stream is dropped.
pub(in crate::net) fn release_shared(fd: Arc<NetFd>) -> io::Result<OwnedFd> {
    let end = Instant::now() + RELEASE_MAX;
    let fd = unwrap_owner(fd, end).map_err(|_| {
        io::Error::new(io::ErrorKind::ResourceBusy, "other clones of the stream exist; drop them first")
    })?;
    if !fd.fd.mutex.is_closed() {
        fd.fd.drain_blocking(end).map_err(|failure| fd.error("file", failure))?;
    }
    release(fd)
}

/// Releases the descriptor of the last clone of a stream, or duplicates it while other clones
/// exist. First waits for the gathered bytes to be sent, up to five seconds.
///
/// # Panics
/// Panics as [`expect_descriptor`] does.
pub(in crate::net) fn duplicate_shared(fd: Arc<NetFd>) -> OwnedFd {
    let end = Instant::now() + RELEASE_MAX;
    expect_descriptor(match unwrap_owner(fd, end) {
        Ok(fd) => {
            // If this fails, `release` resets or shuts down the connection.
            let _ = fd.fd.drain_blocking(end);
            release(fd)
        }
        Err(shared) => {
            // If the socket were not exposed, its close would not remove it from the poller, and
            // the duplicate would keep the registration alive.
            shared.expose();
            // If this fails, a task sends the remaining bytes while the other clones keep the
            // socket open.
            let _ = shared.fd.drain_blocking(end);
            shared.with("file", socket::dup_cloexec)
        }
    })
}

impl From<std::net::TcpListener> for TcpListener {
    /// Takes ownership of the socket and makes it non-blocking.
    ///
    /// # Panics
    /// Panics in the same cases as the conversion from `OwnedFd`.
    fn from(listener: std::net::TcpListener) -> TcpListener {
        OwnedFd::from(listener).into()
    }
}

impl From<OwnedFd> for TcpListener {
    /// Takes ownership of `fd`, which must be a listening TCP socket. This is not checked; on any
    /// other descriptor, operations may fail.
    ///
    /// # Panics
    /// Panics if the process already has 2²⁴ sockets, `AsyncFd`s and pipe ends, and in a child of
    /// fork(2).
    fn from(fd: OwnedFd) -> TcpListener {
        TcpListener::from_net_fd(adopt(fd, NetFd::tcp_or_multipath), None)
    }
}

impl TryFrom<TcpListener> for std::net::TcpListener {
    type Error = io::Error;

    /// Releases the descriptor, which is non-blocking.
    ///
    /// # Errors
    /// Returns a [closed](crate::net::is_closed) error if the listener was closed.
    fn try_from(listener: TcpListener) -> io::Result<std::net::TcpListener> {
        release(listener.fd).map(From::from)
    }
}

impl From<TcpListener> for OwnedFd {
    /// Releases the descriptor.
    ///
    /// # Panics
    /// Panics if the listener was closed explicitly.
    fn from(listener: TcpListener) -> OwnedFd {
        expect_descriptor(release(listener.fd))
    }
}

impl From<std::net::TcpStream> for TcpStream {
    /// Takes ownership of the socket and makes it non-blocking.
    ///
    /// # Panics
    /// Panics in the same cases as the conversion from `OwnedFd`.
    fn from(stream: std::net::TcpStream) -> TcpStream {
        OwnedFd::from(stream).into()
    }
}

impl From<OwnedFd> for TcpStream {
    /// Takes ownership of `fd`, which must be a TCP socket. This is not checked; on any other
    /// descriptor, operations may fail.
    ///
    /// # Panics
    /// Panics if the process already has 2²⁴ sockets, `AsyncFd`s and pipe ends, and in a child of
    /// fork(2).
    fn from(fd: OwnedFd) -> TcpStream {
        let fd = adopt(fd, NetFd::tcp_or_multipath);
        fd.fd.find_fast_open();
        TcpStream::from_net_fd(fd)
    }
}

impl TryFrom<TcpStream> for std::net::TcpStream {
    type Error = io::Error;

    /// Releases the descriptor, which is non-blocking.
    ///
    /// Writes that [`set_auto_cork`](TcpStream::set_auto_cork) has gathered are sent first. If the
    /// peer does not read, the conversion blocks the thread for up to five seconds. Await
    /// [`flush`](TcpStream::flush) first to avoid the wait.
    ///
    /// # Errors
    /// Returns `ResourceBusy` while other clones exist, a [closed](crate::net::is_closed) error if
    /// the stream was closed, and `WouldBlock` if the gathered writes could not be sent in time. On
    /// error the stream is dropped, and the gathered writes are sent as after any drop; see
    /// [`set_auto_cork`](TcpStream::set_auto_cork).
    fn try_from(stream: TcpStream) -> io::Result<std::net::TcpStream> {
        release_shared(stream.fd).map(From::from)
    }
}

impl From<TcpStream> for OwnedFd {
    /// Releases the descriptor, or returns a duplicate while other clones exist.
    ///
    /// Writes that [`set_auto_cork`](TcpStream::set_auto_cork) has gathered are sent first. If the
    /// peer does not read, the conversion blocks the thread for up to five seconds and then resets
    /// the connection (on systems other than Linux, shuts it down). If a duplicate is returned,
    /// there is no reset, because the connection stays open for the other clones, and the gathered
    /// writes are sent when the peer reads. Await [`flush`](TcpStream::flush) first to avoid both
    /// the wait and the reset.
    ///
    /// # Panics
    /// Panics if the stream was closed explicitly, or if a duplicate is needed and the descriptor
    /// limit is reached.
    fn from(stream: TcpStream) -> OwnedFd {
        duplicate_shared(stream.fd)
    }
}

/// Implements `AsFd` and the traits of raw descriptors for a type with a field `fd`.
macro_rules! descriptor {
    ($type:ident) => {
        impl AsFd for $type {
            /// Borrows the descriptor for as long as the socket is borrowed. After an explicit
            /// close, reads, writes and socket calls on it fail with EBADF (on macOS and FreeBSD
            /// with another error), and its number stays in use until the socket, with all its
            /// clones, and the futures of the close are dropped.
            ///
            /// The first call in a process opens another descriptor, which stays open. If a socket
            /// whose descriptor was borrowed is closed explicitly, a duplicate of that other
            /// descriptor takes its number.
            ///
            /// After the first call the socket assumes that the descriptor has other users, which
            /// costs a few system calls. A read that empties a TCP socket is followed by another
            /// read before the next wait. Calls that cannot take MSG_DONTWAIT, such as accepts, are
            /// preceded by fcntl(2). A close reads SO_LINGER and removes the descriptor from the
            /// poller explicitly.
            ///
            /// On a stream, the writes that `set_auto_cork` has gathered are sent first, as far as
            /// the socket accepts them without waiting. Await `flush` before you write to the
            /// descriptor.
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.fd.fd.hand_out()
            }
        }

        $crate::net::tcp::convert::raw!($type);
    };
}

/// Implements `AsRawFd`, `IntoRawFd` and `FromRawFd` for a type that has `AsFd` and the conversions
/// from and to `OwnedFd`.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::unix::UnixStream;
    use crate::task;
    use std::future::poll_fn;
    use std::task::Poll;

    /// The flusher never drops its handle, and the socket stays full. The conversion waits for
    /// both, but not for the maximum time each.
    #[test]
    fn conversion_waits_for_the_flusher_and_for_room_for_five_seconds_in_all() {
        task::block_on(async {
            let (ours, _peer) = UnixStream::pair().unwrap();
            let buf = [0; 7000];
            loop {
                let mut write = std::pin::pin!(ours.write(&buf));
                if poll_fn(|cx| Poll::Ready(write.as_mut().poll(cx))).await.is_pending() {
                    break;
                }
            }
            ours.set_auto_cork(true).unwrap();
            ours.write_all(&[0; 100]).await.unwrap();
            assert_eq!(ours.fd.fd.lend_forever(), 100);
            let start = Instant::now();
            drop(OwnedFd::from(ours));
            let waited = start.elapsed();
            assert!((5..9).contains(&waited.as_secs()), "{waited:?}");
        });
    }
}

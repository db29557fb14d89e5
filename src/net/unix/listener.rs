//! [`UnixListener`], the methods of all Unix listeners, the future [`Accept`], and streams of
//! connections.
//!
//! A listener has a descriptor and a [`SocketFile`]. The file is the first field, so a drop removes
//! it before the socket stops listening. If no descriptor or memory is available, streams of
//! connections back off as those of TCP do ([`Accepts`]).

use std::fmt;
use std::future::Future;
use std::io;
use std::os::unix::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_core::Stream;
use socket2::Type;

use super::UnixStream;
use super::address::Name;
use super::dial::bind;
use super::file::SocketFile;
use crate::net::accept::Adopt;
use crate::net::fd::operation::Operation;
use crate::net::futures::Closed;
use crate::net::net_fd::NetFd;
use crate::net::tcp::incoming::Accepts;
use crate::rt::poll::poller::Direction;
use crate::rt::waiters::Waiter;
use crate::sys::socket;
use crate::sys::unix::from_kernel;

/// A Unix-domain socket that listens for stream connections.
///
/// [`accept`](UnixListener::accept) takes `&self`, so any number of tasks may accept from one
/// listener. Each connection wakes one of them. The backlog is the host's maximum
/// (`net.core.somaxconn` on Linux). Socket names are described in
/// [`os::unix::net`](crate::os::unix::net).
///
/// A listener that bound a path removes the file when it is closed or dropped; see
/// [`set_unlink_on_close`](UnixListener::set_unlink_on_close). If a process is killed, its file
/// remains and makes the next `bind` fail, because `bind` does not remove an existing file.
///
/// Source: `net.UnixListener` of Go, `async_std::os::unix::net::UnixListener`.
///
/// # Examples
/// ```
/// use netpoll::{os::unix::net::{UnixListener, UnixStream}, prelude::*, task};
///
/// # fn main() -> std::io::Result<()> {
/// # let path = std::env::temp_dir().join(format!("netpoll-doc-listener-{}", std::process::id()));
/// task::block_on(async {
///     let listener = UnixListener::bind(&path).await?;
///     let client = task::spawn({
///         let path = path.clone();
///         async move { UnixStream::connect(path).await?.write_all(b"hi").await }
///     });
///     let stream = listener.incoming().next().await.unwrap()?;
///     let mut buf = [0; 2];
///     assert_eq!(stream.read(&mut buf).await?, 2);
///     client.await?;
///     drop(listener);
///     assert!(!path.exists());
///     Ok(())
/// })
/// # }
/// ```
#[doc(alias = "net.UnixListener")]
pub struct UnixListener {
    pub(super) file: SocketFile,
    pub(in crate::net) fd: NetFd,
}

/// Implements the methods of a listener type, and `Debug`.
macro_rules! listener {
    ($type:ident, $ty:expr, $accepted:ident) => {
        /// Binding, accepting, closing and addresses.
        impl $type {
            async fn bind_name(name: Name<'_>) -> io::Result<$type> {
                bind($ty, name).await.map(|(fd, file)| $type { file, fd })
            }

            /// Listens at `path`. On Linux, with an empty path, the kernel chooses an abstract
            /// name, which [`local_addr`](Self::local_addr) returns.
            ///
            /// # Errors
            /// Returns an [`OpError`](crate::net::OpError) with the text
            /// `listen NETWORK PATH: CALL: …` or, if no system call has failed,
            /// `listen NETWORK PATH: REASON`; the network is `unix` or, for seqpacket sockets,
            /// `unixpacket`. Its kind is, for example, `AddrInUse` if a file of that name exists,
            /// even if no socket listens on it, or if the abstract name is in use; `NotFound` if
            /// the directory does not exist; or `PermissionDenied`. Its kind is `InvalidInput` if
            /// the path is too long, or contains a NUL byte but does not begin with one, and
            /// `Unsupported` for an abstract name on a system other than Linux.
            ///
            /// # Cancel safety
            /// If the future is dropped before it completes, the name is not bound.
            pub async fn bind<P: AsRef<Path>>(path: P) -> io::Result<$type> {
                $type::bind_name(Name::Path(path.as_ref())).await
            }

            /// Listens at the address `addr`, which may be an abstract name.
            ///
            /// # Errors
            /// Returns the same errors as [`bind`](Self::bind).
            ///
            /// # Cancel safety
            /// If the future is dropped before it completes, the name is not bound.
            ///
            /// # Examples
            /// ```
            /// # netpoll::task::block_on(async {
            #[doc = concat!("use netpoll::os::unix::net::{SocketAddr, ", stringify!($type), "};")]
            /// use std::os::linux::net::SocketAddrExt;
            ///
            /// let name = format!("example-{}", std::process::id());
            #[doc = concat!("let listener = ", stringify!($type), "::bind_addr(&SocketAddr::from_abstract_name(&name)?).await?;")]
            /// assert_eq!(listener.local_addr()?.as_abstract_name(), Some(name.as_bytes()));
            /// # std::io::Result::Ok(()) }).unwrap();
            /// ```
            pub async fn bind_addr(addr: &SocketAddr) -> io::Result<$type> {
                $type::bind_name(Name::Addr(addr)).await
            }

            /// Waits for a connection and returns it with the peer's address, which is usually
            /// unnamed.
            ///
            /// # Errors
            /// Returns `TimedOut` after the deadline, a [closed](crate::net::is_closed) error after
            /// [`close`](Self::close), and EINVAL if another user of the socket has shut it down.
            /// Returns the OS error if no descriptor (EMFILE, ENFILE), memory (ENOBUFS, ENOMEM) or
            /// epoll registration (ENOSPC) is available; connections stay in the queue, so a loop
            /// that retries immediately spins. [`incoming`](Self::incoming) waits instead.
            ///
            /// # Cancel safety
            /// A connection is either returned or left in the queue.
            pub fn accept(&self) -> Accept<'_, $accepted> {
                Accept::new(&self.fd, $accepted::adopt)
            }

            /// Returns a stream of accepted connections. The stream waits while no descriptor or
            /// memory is available. After [`close`](Self::close) it yields one error and then
            /// `None`. Dropping the future of `next()`, or the stream, loses no connection. A
            /// stream that has returned `Pending` counts as a waiting accept until it is polled
            /// again or dropped, so do not keep it without polling it while other tasks accept from
            /// the same listener; see
            /// [`TcpListener::incoming`](crate::net::TcpListener::incoming).
            pub fn incoming(&self) -> Incoming<'_, $accepted> {
                Incoming::new(&self.fd, $accepted::adopt)
            }

            /// Returns a stream of accepted connections that owns the listener. The stream behaves
            /// like that of [`incoming`](Self::incoming).
            pub fn into_incoming(self) -> IntoIncoming<$type, $accepted> {
                IntoIncoming::new(self, |listener| &listener.fd, $accepted::adopt)
            }

            /// Returns the name that the listener is bound to. A path that std's
            /// `SocketAddr::from_pathname` refuses (108 bytes on Linux) is returned as unnamed.
            ///
            /// # Errors
            /// Returns EAFNOSUPPORT if the descriptor is not a Unix socket, and a
            /// [closed](crate::net::is_closed) error after [`close`](Self::close).
            pub fn local_addr(&self) -> io::Result<SocketAddr> {
                self.fd.with("local-addr", |fd| from_kernel(&socket::local_addr_any(fd)?))
            }

            /// Sets the deadline of accepts; `None` removes it. The deadline also applies to calls
            /// that are already waiting. Once it has passed, every accept fails with `TimedOut`,
            /// even with connections in the queue, until the deadline is changed.
            ///
            /// # Errors
            /// Returns a [closed](crate::net::is_closed) error after [`close`](Self::close).
            #[doc(alias = "SetDeadline")]
            pub fn set_deadline(&self, deadline: impl Into<Option<Instant>>) -> io::Result<()> {
                self.fd.set_deadline(Direction::Read, deadline.into())
            }

            /// Sets whether the file at the listener's path is removed when the listener is closed
            /// or dropped. The default is true for a listener that this crate bound to a path, and
            /// false for a listener that was converted from another type. Converting the listener
            /// into another type keeps the file. If a different file has taken the name in the
            /// meantime, that file is kept. The kernel removes abstract names itself.
            ///
            /// A relative path is resolved against the working directory at the time of the bind,
            /// or, for a converted listener, at the time of this call. For a converted listener,
            /// the file to remove is the socket that has the listener's path at the time of this
            /// call.
            ///
            /// # Errors
            /// For a converted listener, returns the error of looking up the file, or
            /// `InvalidInput` if the file is not a socket. Also returns the same errors as
            /// [`local_addr`](Self::local_addr).
            #[doc(alias = "SetUnlinkOnClose")]
            pub fn set_unlink_on_close(&self, unlink: bool) -> io::Result<()> {
                let addr = self.local_addr()?;
                match addr.as_pathname() {
                    Some(path) if unlink => self.file.unlink_on_close(path),
                    _ => {
                        self.file.keep();
                        Ok(())
                    }
                }
            }

            /// Closes the listener, after removing its file as
            /// [`set_unlink_on_close`](Self::set_unlink_on_close) describes. Pending accepts return
            /// a [closed](crate::net::is_closed) error, and connections in the queue are reset. The
            /// close begins immediately; the future completes when the descriptor is closed.
            /// Closing twice is not an error, and the second close does not remove a file that was
            /// created after the first.
            ///
            /// Dropping the listener also closes it.
            pub fn close(&self) -> Closed {
                self.file.remove();
                self.fd.close()
            }

            /// Takes the pending error of the socket (SO_ERROR), if there is one.
            ///
            /// # Errors
            /// Returns the OS error, or a [closed](crate::net::is_closed) error after `close`.
            pub fn take_error(&self) -> io::Result<Option<io::Error>> {
                self.fd.with("get", socket::take_error)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut debug = f.debug_struct(stringify!($type));
                if let Ok(addr) = self.local_addr() {
                    debug.field("addr", &addr);
                }
                debug.field("fd", &self.fd.fd.number()).finish()
            }
        }
    };
}

#[allow(unused_imports, reason = "macOS has no other listener")]
pub(super) use listener;

listener!(UnixListener, Type::STREAM, UnixStream);

/// A stream of connections, returned by a listener's `incoming` method.
pub struct Incoming<'a, T = UnixStream> {
    fd: &'a NetFd,
    accepts: Accepts,
    adopt: Adopt<(T, SocketAddr)>,
}

impl<T> Incoming<'_, T> {
    pub(super) fn new(fd: &NetFd, adopt: Adopt<(T, SocketAddr)>) -> Incoming<'_, T> {
        Incoming { fd, accepts: Accepts::default(), adopt }
    }
}

impl<T> Stream for Incoming<'_, T> {
    type Item = io::Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let (fd, adopt) = (this.fd, this.adopt);
        let polled = this.accepts.poll_next(fd, cx, |accepting, cx| accepting.poll(fd, None, cx, adopt));
        polled.map_ok(|(stream, _)| stream)
    }
}

impl<T> Drop for Incoming<'_, T> {
    fn drop(&mut self) {
        self.accepts.accepting.cancel(self.fd, None);
    }
}

impl<T> fmt::Debug for Incoming<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("listener", self.fd).finish_non_exhaustive()
    }
}

/// A stream of connections that owns its listener, returned by a listener's `into_incoming` method.
pub struct IntoIncoming<L = UnixListener, T = UnixStream> {
    listener: L,
    fd: fn(&L) -> &NetFd,
    accepts: Accepts,
    adopt: Adopt<(T, SocketAddr)>,
}

impl<L, T> IntoIncoming<L, T> {
    pub(super) fn new(listener: L, fd: fn(&L) -> &NetFd, adopt: Adopt<(T, SocketAddr)>) -> IntoIncoming<L, T> {
        IntoIncoming { listener, fd, accepts: Accepts::default(), adopt }
    }

    /// Returns the listener.
    pub fn listener(&self) -> &L {
        &self.listener
    }
}

impl<L: Unpin, T> Stream for IntoIncoming<L, T> {
    type Item = io::Result<T>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let (fd, adopt) = ((this.fd)(&this.listener), this.adopt);
        let polled = this.accepts.poll_next(fd, cx, |accepting, cx| accepting.poll(fd, None, cx, adopt));
        polled.map_ok(|(stream, _)| stream)
    }
}

impl<L, T> Drop for IntoIncoming<L, T> {
    fn drop(&mut self) {
        self.accepts.accepting.cancel((self.fd)(&self.listener), None);
    }
}

impl<L: fmt::Debug, T> fmt::Debug for IntoIncoming<L, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntoIncoming").field("listener", &self.listener).finish_non_exhaustive()
    }
}

crate::net::raw::raw_access!(UnixListener);

/// Accepts a connection; returned by [`UnixListener::accept`](super::UnixListener::accept) and
/// [`UnixSeqpacketListener::accept`](super::UnixSeqpacketListener::accept).
#[must_use = "futures do nothing unless they are awaited"]
pub struct Accept<'a, T = UnixStream> {
    fd: &'a NetFd,
    operation: Operation,
    adopt: Adopt<(T, SocketAddr)>,
}

impl<'a, T> Accept<'a, T> {
    pub(in crate::net) fn new(fd: &'a NetFd, adopt: Adopt<(T, SocketAddr)>) -> Accept<'a, T> {
        Accept { fd, operation: Operation::new(), adopt }
    }
}

impl<T> Future for Accept<'_, T> {
    type Output = io::Result<(T, SocketAddr)>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.fd.poll_accept(Waiter::Future(&mut this.operation), cx, this.adopt)
    }
}

impl<T> Drop for Accept<'_, T> {
    fn drop(&mut self) {
        self.fd.fd.cancel(Direction::Read, &mut self.operation);
    }
}

impl<T> fmt::Debug for Accept<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accept").field("listener", self.fd).finish_non_exhaustive()
    }
}

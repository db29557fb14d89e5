//! `UnixListener` and `UnixSeqpacketListener`; connections as a stream.
//!
//! Both are a descriptor and a [`SocketFile`], which is first: it is dropped before the descriptor, so that nobody finds a name behind which
//! nobody listens. When there is no descriptor left, the streams wait as those of TCP do ([`Accepts`]).

use std::fmt;
use std::io;
use std::os::unix::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_core::Stream;
use socket2::Type;

use super::address::{Name, from_kernel};
use super::dial::bind;
use super::file::SocketFile;
use super::futures::{Accept, Adopt};
use super::{UnixSeqpacket, UnixStream};
use crate::net::fd::net_fd::NetFd;
use crate::net::futures::Closed;
use crate::net::tcp::incoming::Accepts;
use crate::rt::poll::poller::Direction;
use crate::sys::socket;

/// A socket that accepts streams.
///
/// Every method takes `&self`: any number of tasks may accept from one listener; each connection wakes one of them. The backlog is the host's
/// bound (`net.core.somaxconn`). Names are described in [`os::unix::net`](crate::os::unix::net).
///
/// A listener that bound a path removes the file when it is closed or dropped; see
/// [`set_unlink_on_close`](UnixListener::set_unlink_on_close). A file that a process left behind when it was killed is in the way of
/// the next `bind`: nothing here removes what it did not make.
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
pub struct UnixListener {
    pub(super) file: SocketFile,
    pub(super) fd: NetFd,
}

/// A socket that accepts connections that keep the bounds of messages.
///
/// Everything that [`UnixListener`] says holds here too.
///
/// Source: `net.UnixListener` of Go with network `unixpacket`.
pub struct UnixSeqpacketListener {
    pub(super) file: SocketFile,
    pub(super) fd: NetFd,
}

/// What both have.
macro_rules! listener {
    ($type:ident, $ty:expr, $accepted:ident) => {
        /// Binding, accepting, closing and addresses.
        impl $type {
            fn bind_name(name: Name<'_>) -> io::Result<$type> {
                bind($ty, name).map(|(fd, file)| $type { file, fd })
            }

            /// Listens at `path`; an empty one lets the kernel choose an abstract name, which
            /// [`local_addr`](Self::local_addr) tells.
            ///
            /// # Errors
            /// An [`OpError`](crate::net::OpError) `listen NETWORK PATH: bind: …`: `AddrInUse` (a file of that name exists, whether somebody
            /// listens or not), `NotFound`, `PermissionDenied`. `InvalidInput` for a path that is too long or has a NUL in it.
            ///
            /// # Cancel safety
            /// It waits for nothing: the first poll does it.
            pub async fn bind<P: AsRef<Path>>(path: P) -> io::Result<$type> {
                $type::bind_name(Name::Path(path.as_ref()))
            }

            /// Listens at the address `addr`, which may be an abstract name.
            ///
            /// # Errors
            /// As [`bind`](Self::bind).
            ///
            /// # Cancel safety
            /// It waits for nothing: the first poll does it.
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
                $type::bind_name(Name::Addr(addr))
            }

            /// Accepts a connection, and its peer's name: unnamed where it has none, as most have.
            ///
            /// # Errors
            /// `TimedOut` past the deadline; [closed](crate::net::is_closed) after [`close`](Self::close). With no descriptor left
            /// (EMFILE, ENFILE) or no memory (ENOBUFS, ENOMEM), that error: the connection stays in the queue, and a loop that tries
            /// again at once burns a CPU. [`incoming`](Self::incoming) waits instead.
            ///
            /// # Cancel safety
            /// A connection is accepted or stays in the queue.
            pub fn accept(&self) -> Accept<'_, $accepted> {
                Accept::new(&self.fd, $accepted::adopt)
            }

            /// A stream of connections, which waits where there is no descriptor or memory left. After [`close`](Self::close) it
            /// yields one error, then `None`; otherwise it never ends.
            pub fn incoming(&self) -> Incoming<'_, $accepted> {
                Incoming { fd: &self.fd, accepts: Accepts::default(), adopt: $accepted::adopt }
            }

            /// The same, owning the listener.
            pub fn into_incoming(self) -> IntoIncoming<$type, $accepted> {
                let accepts = Accepts::default();
                IntoIncoming { listener: self, fd: |listener| &listener.fd, accepts, adopt: $accepted::adopt }
            }

            /// The name that it listens at.
            ///
            /// # Errors
            /// EAFNOSUPPORT where it is no Unix socket; closed after [`close`](Self::close).
            pub fn local_addr(&self) -> io::Result<SocketAddr> {
                self.fd.with("local-addr", |fd| from_kernel(&socket::local_addr_any(fd)?))
            }

            /// Sets when accepting times out, or (`None`) that it does not. It applies to what waits already, and stays until it is
            /// moved: after it has passed every accept fails, also with connections in the queue.
            ///
            /// # Errors
            /// Closed after [`close`](Self::close).
            pub fn set_deadline(&self, deadline: impl Into<Option<Instant>>) -> io::Result<()> {
                self.fd.set_deadline(Direction::Read, deadline.into())
            }

            /// Sets whether the file at its path is removed when it is closed or dropped: true for a listener that bound a path
            /// here, false for one that was converted from elsewhere. A conversion into another type keeps the file. A file that has
            /// taken the name since is left alone. Abstract names vanish by themselves.
            ///
            /// A relative path is that of the working directory at the time of the bind, or, for a listener that was converted, of
            /// this call. For a converted one the file is the socket that has its name at this call.
            ///
            /// # Errors
            /// For a converted listener those of looking for the file, and `InvalidInput` where it is no socket; closed after
            /// [`close`](Self::close).
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

            /// Closes the listener: its file goes first, who accepts gets the closed error, connections in the queue are reset. Begins
            /// at once; the future ends when the descriptor is gone. Closing twice is no error, and removes nothing that has come
            /// since.
            ///
            /// Dropping the listener closes it too.
            pub fn close(&self) -> Closed {
                self.file.remove();
                self.fd.close()
            }

            /// Takes the error that is pending on the socket (SO_ERROR), if there is one.
            ///
            /// # Errors
            /// The system call's; closed.
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

listener!(UnixListener, Type::STREAM, UnixStream);
listener!(UnixSeqpacketListener, Type::SEQPACKET, UnixSeqpacket);

impl UnixListener {
    /// The socket, for traits that are implemented elsewhere.
    #[cfg(feature = "hyper")]
    pub(crate) fn as_net_fd(&self) -> &NetFd {
        &self.fd
    }
}

/// A stream of connections; returned by [`UnixListener::incoming`] and [`UnixSeqpacketListener::incoming`].
pub struct Incoming<'a, T = UnixStream> {
    fd: &'a NetFd,
    accepts: Accepts,
    adopt: Adopt<T>,
}

impl<T> Stream for Incoming<'_, T> {
    type Item = io::Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let (fd, adopt) = (this.fd, this.adopt);
        let polled = this.accepts.poll_next(fd, cx, |accepting, cx| accepting.poll_any(fd, cx, adopt));
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

/// A stream of connections that owns its listener; returned by [`UnixListener::into_incoming`] and
/// [`UnixSeqpacketListener::into_incoming`].
pub struct IntoIncoming<L = UnixListener, T = UnixStream> {
    listener: L,
    fd: fn(&L) -> &NetFd,
    accepts: Accepts,
    adopt: Adopt<T>,
}

impl<L, T> IntoIncoming<L, T> {
    /// The listener.
    pub fn listener(&self) -> &L {
        &self.listener
    }
}

impl<L: Unpin, T> Stream for IntoIncoming<L, T> {
    type Item = io::Result<T>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let (fd, adopt) = ((this.fd)(&this.listener), this.adopt);
        let polled = this.accepts.poll_next(fd, cx, |accepting, cx| accepting.poll_any(fd, cx, adopt));
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
crate::net::raw::raw_access!(UnixSeqpacketListener);

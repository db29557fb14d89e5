//! [`Conn`] and [`Listener`]: traits of byte-stream connections and their listeners, for generic
//! handlers and servers.
//!
//! They correspond to Go's `net.Conn` and `net.Listener`. The methods call the inherent methods of
//! the type.

use std::fmt;
use std::future::{Future, pending};
use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Instant;

use futures_core::Stream;
use futures_io::{AsyncRead, AsyncWrite};

use super::adapter::ListenerView;
use super::error::Addr;
use super::pipe::Pipe;
use super::tcp::{Incoming, TcpListener, TcpStream};
use crate::net::unix::{self, UnixListener, UnixStream};

/// A connection: a bidirectional byte stream with deadlines and a close that wakes waiters.
///
/// [`TcpStream`], [`UnixStream`] and [`Pipe`] implement it. A handler that takes any `Conn` works
/// with both kinds of sockets and can be tested in memory. To implement `Conn` for a wrapper type,
/// forward each call. The crate `netpoll-nettest` has tests for implementations.
///
/// Any number of tasks may call these methods concurrently.
///
/// Source: `net.Conn` of Go.
///
/// # Examples
/// ```
/// use netpoll::{io, net::{self, Conn}, task};
///
/// /// Answers each message with its length.
/// async fn lengths(conn: impl Conn) -> io::Result<()> {
///     let mut buf = [0; 256];
///     loop {
///         match conn.read(&mut buf).await? {
///             0 => return Ok(()),
///             count => conn.write_all(&[count as u8]).await?,
///         }
///     }
/// }
///
/// # fn main() -> io::Result<()> {
/// task::block_on(async {
///     let (client, server) = net::pipe()?;
///     let serving = task::spawn(lengths(server));
///     client.write_all(b"hello").await?;
///     let mut answer = [0];
///     client.read(&mut answer).await?;
///     assert_eq!(answer, [5]);
///     drop(client);
///     serving.await
/// })
/// # }
/// ```
#[doc(alias = "net.Conn")]
pub trait Conn: AsyncRead + AsyncWrite + fmt::Debug + Send + Sync + Unpin + 'static {
    /// Reads up to `buf.len()` bytes, waiting until at least one is available. Returns the number
    /// of bytes read; 0 means end of stream (or that `buf` is empty).
    ///
    /// # Errors
    /// Returns the OS error, `TimedOut` after the read deadline, or a
    /// [closed](crate::net::is_closed) error after [`force_close`](Conn::force_close).
    ///
    /// # Cancel safety
    /// Dropping the future loses no data.
    fn read(&self, buf: &mut [u8]) -> impl Future<Output = io::Result<usize>> + Send;

    /// Writes up to `buf.len()` bytes, waiting until there is room for at least one. Returns the
    /// number of bytes written. On a [`Pipe`], waits until reads have taken all bytes.
    ///
    /// # Errors
    /// Returns the OS error, such as `BrokenPipe` or `ConnectionReset` if the peer is gone;
    /// `TimedOut` after the write deadline; a [closed](crate::net::is_closed) error after
    /// [`force_close`](Conn::force_close).
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has written nothing, except on a [`Pipe`],
    /// where reads may have taken part of `buf`.
    fn write(&self, buf: &[u8]) -> impl Future<Output = io::Result<usize>> + Send;

    /// Writes all of `buf`. Concurrent calls do not interleave.
    ///
    /// # Errors
    /// Returns the same errors as [`write`](Conn::write). Part of `buf` may have been written.
    ///
    /// # Cancel safety
    /// Not cancel safe: part of `buf` may have been written.
    fn write_all(&self, buf: &[u8]) -> impl Future<Output = io::Result<()>> + Send;

    /// Sets the deadline, after which reads and writes fail with `TimedOut`, including those that
    /// are already waiting. `None` removes the deadline.
    ///
    /// # Errors
    /// Returns a [closed](crate::net::is_closed) error after [`force_close`](Conn::force_close).
    #[doc(alias = "SetDeadline")]
    fn set_deadline(&self, deadline: Option<Instant>) -> io::Result<()> {
        self.set_read_deadline(deadline)?;
        self.set_write_deadline(deadline)
    }

    /// Sets the read deadline; see [`set_deadline`](Conn::set_deadline).
    #[doc(alias = "SetReadDeadline")]
    fn set_read_deadline(&self, deadline: Option<Instant>) -> io::Result<()>;

    /// Sets the write deadline; see [`set_deadline`](Conn::set_deadline).
    #[doc(alias = "SetWriteDeadline")]
    fn set_write_deadline(&self, deadline: Option<Instant>) -> io::Result<()>;

    /// Returns the local address, if there is one.
    fn local(&self) -> Option<Addr>;

    /// Returns the peer's address, if there is one.
    fn peer(&self) -> Option<Addr>;

    /// Shuts down the writing side. The peer reads the data written so far, then end of stream.
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after
    /// [`force_close`](Conn::force_close).
    #[doc(alias = "CloseWrite")]
    fn close_write(&self) -> io::Result<()>;

    /// Closes the connection for all its handles. Pending operations return a
    /// [closed](crate::net::is_closed) error. The close begins immediately; the future completes
    /// when the descriptor, if there is one, is closed.
    fn force_close(&self) -> impl Future<Output = io::Result<()>> + Send + use<Self>;

    /// Returns a function that creates another handle of the connection, or returns `None` if all
    /// handles were dropped. A server uses the function to reach a connection without keeping it
    /// open. The function of the default implementation holds a handle, so it does keep the
    /// connection open.
    #[doc(hidden)]
    fn handles(&self) -> Handles<Self>
    where
        Self: Clone,
    {
        let conn = self.clone();
        Box::new(move || Some(conn.clone()))
    }
}

/// The function returned by [`Conn::handles`].
type Handles<C> = Box<dyn Fn() -> Option<C> + Send + Sync>;

macro_rules! conn {
    ($type:ty, $local:expr, $peer:expr, $close_write:expr $(, $fd:ident)?) => {
        impl Conn for $type {
            async fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
                <$type>::read(self, buf).await
            }

            async fn write(&self, buf: &[u8]) -> io::Result<usize> {
                <$type>::write(self, buf).await
            }

            async fn write_all(&self, buf: &[u8]) -> io::Result<()> {
                <$type>::write_all(self, buf).await
            }

            fn set_deadline(&self, deadline: Option<Instant>) -> io::Result<()> {
                <$type>::set_deadline(self, deadline)
            }

            fn set_read_deadline(&self, deadline: Option<Instant>) -> io::Result<()> {
                <$type>::set_read_deadline(self, deadline)
            }

            fn set_write_deadline(&self, deadline: Option<Instant>) -> io::Result<()> {
                <$type>::set_write_deadline(self, deadline)
            }

            fn local(&self) -> Option<Addr> {
                $local(self)
            }

            fn peer(&self) -> Option<Addr> {
                $peer(self)
            }

            fn close_write(&self) -> io::Result<()> {
                $close_write(self)
            }

            fn force_close(&self) -> impl Future<Output = io::Result<()>> + Send + use<> {
                <$type>::force_close(self)
            }

            $(fn handles(&self) -> Handles<Self> {
                let $fd = Arc::downgrade(&self.$fd);
                Box::new(move || Some(Self { $fd: $fd.upgrade()? }))
            })?
        }
    };
}

conn!(
    TcpStream,
    |conn: &TcpStream| conn.local_addr().ok().map(Addr::from),
    |conn: &TcpStream| conn.peer_addr().ok().map(Addr::from),
    |conn: &TcpStream| conn.shutdown(Shutdown::Write),
    fd
);
conn!(
    UnixStream,
    |conn: &UnixStream| conn.local_addr().ok().map(|addr| Addr::from(&addr)),
    |conn: &UnixStream| conn.peer_addr().ok().map(|addr| Addr::from(&addr)),
    |conn: &UnixStream| conn.shutdown(Shutdown::Write),
    fd
);
conn!(Pipe, |_: &Pipe| None, |_: &Pipe| None, Pipe::close_write);

/// A listener from which [`serve`](crate::net::serve()) accepts connections.
///
/// It is implemented for [`TcpListener`] and [`UnixListener`], and for an [`Arc`] of a listener: a
/// clone of the `Arc` can close the listener of a server, or change its settings.
///
/// Source: `net.Listener` of Go.
///
/// # Examples
/// ```
/// # netpoll::task::block_on(async {
/// use netpoll::net::{Conn, Listener, TcpListener, TcpStream};
/// use netpoll::prelude::*;
///
/// // Works with TCP and Unix listeners.
/// async fn greet_one<L: Listener>(listener: &L) -> std::io::Result<()> {
///     let Some(conn) = listener.incoming().next().await else { return Ok(()) };
///     conn?.write_all(b"hello").await
/// }
///
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let client = TcpStream::connect(listener.local_addr()?).await?;
/// greet_one(&listener).await?;
/// assert_eq!(client.read(&mut [0; 8]).await?, 5);
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
#[doc(alias = "net.Listener")]
#[diagnostic::on_unimplemented(
    note = "a `TcpListener`, a `UnixListener` and an `Arc` of one are listeners; implement the trait for other types"
)]
pub trait Listener: Send + Sync + 'static {
    /// The connection type.
    type Conn: Conn + Clone;

    /// The stream type of [`incoming`](Listener::incoming).
    type Incoming<'a>: Stream<Item = io::Result<Self::Conn>> + Send + Unpin
    where
        Self: 'a;

    /// Returns a stream of accepted connections. The stream waits while no descriptor or memory is
    /// available. After [`close`](Listener::close) it yields one [closed](crate::net::is_closed)
    /// error and ends.
    fn incoming(&self) -> Self::Incoming<'_>;

    /// Closes the listener. The close begins immediately; the future completes when the descriptor
    /// is closed.
    fn close(&self) -> impl Future<Output = io::Result<()>> + Send + use<Self>;

    /// Waits until the listener can accept no more connections, and returns the reason as an error.
    /// A server polls the future while it does not accept. The future of the default implementation
    /// never completes.
    #[doc(hidden)]
    fn ended(&self) -> impl Future<Output = io::Result<()>> + Send {
        pending()
    }

    /// Returns a stream like that of [`incoming`](Listener::incoming) that accepts connections even
    /// beyond the listener's limit. When a server stops, it accepts the queued connections from
    /// this stream. The default implementation returns `None`, and the server continues with the
    /// stream of `incoming`.
    #[doc(hidden)]
    fn incoming_beyond_limit(&self) -> Option<Self::Incoming<'_>> {
        None
    }
}

impl Listener for TcpListener {
    type Conn = TcpStream;
    type Incoming<'a> = Incoming<'a>;

    fn incoming(&self) -> Incoming<'_> {
        TcpListener::incoming(self)
    }

    fn close(&self) -> impl Future<Output = io::Result<()>> + Send + use<> {
        TcpListener::close(self)
    }

    fn ended(&self) -> impl Future<Output = io::Result<()>> + Send {
        self.until_closed()
    }

    fn incoming_beyond_limit(&self) -> Option<Incoming<'_>> {
        Some(TcpListener::incoming_beyond_limit(self))
    }
}

impl Listener for UnixListener {
    type Conn = UnixStream;
    type Incoming<'a> = unix::Incoming<'a, UnixStream>;

    fn incoming(&self) -> unix::Incoming<'_, UnixStream> {
        UnixListener::incoming(self)
    }

    fn close(&self) -> impl Future<Output = io::Result<()>> + Send + use<> {
        UnixListener::close(self)
    }

    fn ended(&self) -> impl Future<Output = io::Result<()>> + Send {
        self.until_closed()
    }
}

impl<L: Listener> Listener for Arc<L> {
    type Conn = L::Conn;
    type Incoming<'a> = L::Incoming<'a>;

    fn incoming(&self) -> L::Incoming<'_> {
        L::incoming(self)
    }

    fn close(&self) -> impl Future<Output = io::Result<()>> + Send + use<L> {
        L::close(self)
    }

    fn ended(&self) -> impl Future<Output = io::Result<()>> + Send {
        L::ended(self)
    }

    fn incoming_beyond_limit(&self) -> Option<L::Incoming<'_>> {
        L::incoming_beyond_limit(self)
    }
}

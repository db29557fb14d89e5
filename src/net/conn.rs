//! `Conn` and `Listener`: what handlers and servers need of a connection, whatever it is made of.
//!
//! Go's `net.Conn` and `net.Listener`. The traits add nothing to the types that implement them: each method is the type's own.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::Shutdown;
use std::time::Instant;

use futures_core::Stream;
use futures_io::{AsyncRead, AsyncWrite};

use super::error::Addr;
use super::pipe::Pipe;
use super::tcp::{Incoming, TcpListener, TcpStream};
use crate::unix::{self, UnixListener, UnixStream};

/// A connection: a stream of bytes in both directions with deadlines and a close that wakes waiters.
///
/// [`TcpStream`], [`UnixStream`] and [`Pipe`] implement it, so a handler that takes any `Conn` is tested in memory and serves both kinds
/// of sockets. Implement it for a type of your own by passing each call on.
///
/// Any number of tasks may call these methods at the same time.
///
/// Source: Go's net.Conn.
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
    /// Reads up to `buf.len()` bytes, waiting until at least one is available. Returns the number of bytes read; 0 means end of stream.
    ///
    /// # Errors
    /// The OS error; `TimedOut` past the read deadline; a [closed](crate::net::is_closed) error after [`force_close`](Conn::force_close).
    ///
    /// # Cancel safety
    /// Dropping the future loses no data.
    fn read(&self, buf: &mut [u8]) -> impl Future<Output = io::Result<usize>> + Send;

    /// Writes some of `buf`, waiting until there is room for at least one byte. Returns the number of bytes written.
    ///
    /// # Errors
    /// As [`read`](Conn::read), with the write deadline; `BrokenPipe` and `ConnectionReset` when the peer is gone.
    ///
    /// # Cancel safety
    /// Dropping the future before it is ready writes nothing.
    fn write(&self, buf: &[u8]) -> impl Future<Output = io::Result<usize>> + Send;

    /// Writes all of `buf`. Concurrent calls do not interleave.
    ///
    /// # Errors
    /// As [`write`](Conn::write); a part may have been written then.
    ///
    /// # Cancel safety
    /// Dropping the future may have written a part.
    fn write_all(&self, buf: &[u8]) -> impl Future<Output = io::Result<()>> + Send;

    /// Sets the moment after which reads and writes fail with `TimedOut`, those that wait included; `None` clears it.
    ///
    /// # Errors
    /// A [closed](crate::net::is_closed) error after [`force_close`](Conn::force_close).
    #[doc(alias = "SetDeadline")]
    fn set_deadline(&self, deadline: Option<Instant>) -> io::Result<()> {
        self.set_read_deadline(deadline)?;
        self.set_write_deadline(deadline)
    }

    /// Sets the deadline of reads; see [`set_deadline`](Conn::set_deadline).
    #[doc(alias = "SetReadDeadline")]
    fn set_read_deadline(&self, deadline: Option<Instant>) -> io::Result<()>;

    /// Sets the deadline of writes; see [`set_deadline`](Conn::set_deadline).
    #[doc(alias = "SetWriteDeadline")]
    fn set_write_deadline(&self, deadline: Option<Instant>) -> io::Result<()>;

    /// Returns the address of this end, if it has one.
    fn local(&self) -> Option<Addr>;

    /// Returns the address of the other end, if it has one.
    fn peer(&self) -> Option<Addr>;

    /// Ends the writing direction: the peer reads end of stream after what was written.
    ///
    /// # Errors
    /// The OS error, or a [closed](crate::net::is_closed) error after [`force_close`](Conn::force_close).
    #[doc(alias = "CloseWrite")]
    fn close_write(&self) -> io::Result<()>;

    /// Closes the connection for all its handles. Operations that wait fail with a [closed](crate::net::is_closed) error. Returns at once;
    /// the future ends when the descriptor is gone.
    fn force_close(&self) -> impl Future<Output = io::Result<()>> + Send + use<Self>;
}

macro_rules! conn {
    ($type:ty, $local:expr, $peer:expr, $close_write:expr) => {
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
        }
    };
}

conn!(
    TcpStream,
    |conn: &TcpStream| conn.local_addr().ok().map(Addr::from),
    |conn: &TcpStream| conn.peer_addr().ok().map(Addr::from),
    |conn: &TcpStream| conn.shutdown(Shutdown::Write)
);
conn!(
    UnixStream,
    |conn: &UnixStream| conn.local_addr().ok().map(|addr| Addr::from(&addr)),
    |conn: &UnixStream| conn.peer_addr().ok().map(|addr| Addr::from(&addr)),
    |conn: &UnixStream| conn.shutdown(Shutdown::Write)
);
conn!(Pipe, |_: &Pipe| None, |_: &Pipe| None, Pipe::close_write);

/// A listener that [`serve`](crate::net::serve()) accepts connections from.
///
/// [`TcpListener`] and [`UnixListener`] implement it.
///
/// Source: Go's net.Listener.
#[doc(alias = "net.Listener")]
pub trait Listener: Send + Sync + 'static {
    /// The connections.
    type Conn: Conn + Clone;

    /// The stream of connections that [`incoming`](Listener::incoming) returns.
    type Incoming<'a>: Stream<Item = io::Result<Self::Conn>> + Send + Unpin
    where
        Self: 'a;

    /// Returns a stream of connections. It waits where no descriptor is left, and ends after [`close`](Listener::close).
    fn incoming(&self) -> Self::Incoming<'_>;

    /// Stops listening. The future ends when the address is free.
    fn close(&self) -> impl Future<Output = io::Result<()>> + Send + use<Self>;
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
}

//! [`pipe()`], its two ends and their futures.

use std::fmt;
use std::future::{Future, Ready, ready as ready_now};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_io::{AsyncRead, AsyncWrite};

use super::end::{End, Waiting};
use crate::rt::poll::poller::{Direction, Failure};
use crate::rt::waiters::Waiter;

/// Creates an in-memory connection and returns its two ends, for tests without sockets.
///
/// The pipe is synchronous: a [`write`](Pipe::write) completes when reads have taken all of its
/// bytes.
///
/// # Errors
/// Returns ENFILE if the process would have more than 2²⁴ sockets, [`AsyncFd`](crate::io::AsyncFd)s
/// and pipe ends. Returns an error in a child of fork(2).
///
/// Source: `net.Pipe` of Go.
///
/// # Examples
/// ```
/// use netpoll::{net, task};
///
/// # fn main() -> std::io::Result<()> {
/// task::block_on(async {
///     let (client, server) = net::pipe()?;
///     let echo = task::spawn(async move {
///         let mut buf = [0; 3];
///         while let count @ 1.. = server.read(&mut buf).await? {
///             server.write_all(&buf[..count]).await?;
///         }
///         std::io::Result::Ok(())
///     });
///     client.write_all(b"abc").await?;
///     let mut buf = [0; 8];
///     assert_eq!(client.read(&mut buf).await?, 3);
///     drop(client);
///     echo.await
/// })
/// # }
/// ```
#[doc(alias = "net.Pipe")]
#[doc(alias = "duplex")]
pub fn pipe() -> io::Result<(Pipe, Pipe)> {
    End::pair().map(|ends| ends.map(|end| Pipe { end: Arc::new(end) }).into())
}

/// One end of a [`pipe()`].
///
/// Like [`TcpStream`](crate::net::TcpStream), `Pipe` is a handle: clones share the end, every
/// method takes `&self`, and any number of tasks can read and write concurrently. The end is closed
/// when the last clone is dropped, or by [`force_close`](Pipe::force_close).
///
/// # With the traits
/// `poll_write` waits for a read on the other end and hands over no more bytes than a read there
/// has asked for. `poll_flush` waits until reads have taken them. `poll_close` ends writing: the
/// peer reads the bytes handed over, then end of stream.
///
/// # Examples
/// ```
/// # netpoll::task::block_on(async {
/// use netpoll::net::{Conn, pipe};
/// use netpoll::task;
///
/// // A handler that takes any connection can be tested without a socket.
/// async fn answer(conn: impl Conn) -> std::io::Result<()> {
///     let mut buf = [0; 16];
///     let count = conn.read(&mut buf).await?;
///     conn.write_all(&buf[..count]).await
/// }
///
/// let (client, server) = pipe()?;
/// let handler = task::spawn(answer(server));
/// client.write_all(b"hello").await?;
/// assert_eq!(client.read(&mut [0; 16]).await?, 5);
/// handler.await?;
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct Pipe {
    end: Arc<End>,
}

impl Pipe {
    /// Reads up to `buf.len()` bytes of one write, waiting until at least one is available. Returns
    /// the number of bytes read; 0 means end of stream (or that `buf` is empty). Bytes that do not
    /// fit into `buf` stay for the next read.
    ///
    /// # Errors
    /// Returns a [closed](crate::net::is_closed) error after this end was closed. Returns
    /// `TimedOut` after the read deadline or timeout, unless the end of the stream was reached.
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has read nothing.
    pub fn read<'a>(&'a self, buf: &'a mut [u8]) -> PipeRead<'a> {
        PipeRead { end: &self.end, waiting: Waiting::default(), buf }
    }

    /// Writes `buf`, waiting until reads have taken all of it. Returns the number of bytes taken.
    /// The number is smaller than `buf.len()` only if an end was closed, or the write deadline or
    /// timeout passed, after a part was taken. Concurrent writes do not interleave.
    ///
    /// # Errors
    /// Returns a [closed](crate::net::is_closed) error after this end was closed, `BrokenPipe`
    /// after the peer was closed or [`close_write`](Pipe::close_write) was called, and `TimedOut`
    /// after the write deadline or timeout.
    ///
    /// # Cancel safety
    /// Not cancel safe: part of `buf` may have been taken, and the amount is unknown. Bytes that
    /// were not taken are withdrawn.
    pub fn write<'a>(&'a self, buf: &'a [u8]) -> PipeWrite<'a> {
        PipeWrite { end: &self.end, waiting: Waiting::default(), number: 0, buf }
    }

    /// Writes all of `buf`, waiting until reads have taken it. Concurrent writes do not interleave.
    /// When the write timeout passes, it starts anew if bytes were taken since it last started.
    ///
    /// # Errors
    /// Returns the same errors as [`write`](Pipe::write). Part of `buf` may have been taken.
    ///
    /// # Cancel safety
    /// Not cancel safe: part of `buf` may have been taken, and the amount is unknown.
    pub fn write_all<'a>(&'a self, buf: &'a [u8]) -> PipeWriteAll<'a> {
        PipeWriteAll { write: self.write(buf), seen: 0 }
    }

    /// Sets the deadline, after which reads and writes fail with `TimedOut`; `None` removes it. The
    /// deadline also applies to operations that are already waiting, and stays set until it is
    /// changed.
    ///
    /// # Errors
    /// Returns a [closed](crate::net::is_closed) error after `force_close`.
    #[doc(alias = "SetDeadline")]
    pub fn set_deadline(&self, deadline: impl Into<Option<Instant>>) -> io::Result<()> {
        let deadline = deadline.into();
        self.set_read_deadline(deadline)?;
        self.set_write_deadline(deadline)
    }

    /// Sets the deadline only of reads; see [`set_deadline`](Pipe::set_deadline).
    ///
    /// # Errors
    /// Returns a [closed](crate::net::is_closed) error after `force_close`.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// use netpoll::net;
    /// use std::time::{Duration, Instant};
    ///
    /// let (one, other) = net::pipe()?;
    /// one.set_read_deadline(Instant::now() + Duration::from_millis(5))?;
    /// let error = one.read(&mut [0; 1]).await.unwrap_err();
    /// assert!(net::is_timeout(&error));
    /// assert_eq!(error.to_string(), "read pipe: i/o timeout");
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    #[doc(alias = "SetReadDeadline")]
    pub fn set_read_deadline(&self, deadline: impl Into<Option<Instant>>) -> io::Result<()> {
        let set = self.end.poll.set_deadline(Direction::Read, deadline.into());
        set.map_err(|failure| self.end.error("set", failure))
    }

    /// Sets the deadline only of writes; see [`set_deadline`](Pipe::set_deadline).
    ///
    /// # Errors
    /// Returns a [closed](crate::net::is_closed) error after `force_close`.
    #[doc(alias = "SetWriteDeadline")]
    pub fn set_write_deadline(&self, deadline: impl Into<Option<Instant>>) -> io::Result<()> {
        let set = self.end.poll.set_deadline(Direction::Write, deadline.into());
        set.map_err(|failure| self.end.error("set", failure))
    }

    /// Sets how long each read may wait; `None` removes the limit. The time starts when the read
    /// begins to wait.
    ///
    /// # Errors
    /// Returns `InvalidInput` if `timeout` is zero, as in std.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.end.timeouts.set(Direction::Read, timeout)
    }

    /// Sets how long each write may wait; `None` removes the limit. The time starts when the write
    /// begins to wait.
    ///
    /// # Errors
    /// Returns `InvalidInput` if `timeout` is zero, as in std.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.end.timeouts.set(Direction::Write, timeout)
    }

    /// Returns the timeout set by [`set_read_timeout`](Pipe::set_read_timeout).
    ///
    /// # Errors
    /// Never returns an error. The signature is std's.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.end.timeouts.get(Direction::Read))
    }

    /// Returns the timeout set by [`set_write_timeout`](Pipe::set_write_timeout).
    ///
    /// # Errors
    /// Never returns an error. The signature is std's.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.end.timeouts.get(Direction::Write))
    }

    /// Shuts down the writing side. The peer reads the bytes already in the pipe, then end of
    /// stream. This end can still read.
    ///
    /// # Errors
    /// Returns a [closed](crate::net::is_closed) error after `force_close`.
    #[doc(alias = "CloseWrite")]
    pub fn close_write(&self) -> io::Result<()> {
        if self.end.is_closed() {
            return Err(self.end.error("close", Failure::Closed));
        }
        self.end.end_writing();
        Ok(())
    }

    /// Closes this end for all clones. Pending operations of this end return a
    /// [closed](crate::net::is_closed) error, except that a write of which reads have taken a part
    /// returns the number of these bytes. The peer reads the bytes that `poll_write` has handed
    /// over, then end of stream, and its writes fail with `BrokenPipe`. The end is closed when this
    /// method returns. The returned future is already ready; it makes the signature match that of
    /// [`TcpStream::force_close`](crate::net::TcpStream::force_close). Closing twice is not an
    /// error.
    #[doc(alias = "Close")]
    pub fn force_close(&self) -> Ready<io::Result<()>> {
        self.end.close();
        ready_now(Ok(()))
    }
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipe").field("side", &self.end.side).finish_non_exhaustive()
    }
}

/// Reads from a pipe; returned by [`Pipe::read`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct PipeRead<'a> {
    end: &'a End,
    waiting: Waiting,
    buf: &'a mut [u8],
}

impl Future for PipeRead<'_> {
    type Output = io::Result<usize>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Self { end, waiting, buf } = &mut *self;
        end.poll_read(Waiter::Future(waiting), cx, buf)
    }
}

impl Drop for PipeRead<'_> {
    fn drop(&mut self) {
        self.end.leave_readers(&mut self.waiting);
        self.end.poll.side(Direction::Read).end_operation(&mut self.waiting.wait, true);
    }
}

/// Writes to a pipe; returned by [`Pipe::write`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct PipeWrite<'a> {
    end: &'a End,
    waiting: Waiting,
    /// The number of this write if its bytes were put into the lane; otherwise 0.
    number: u64,
    buf: &'a [u8],
}

impl Future for PipeWrite<'_> {
    type Output = io::Result<usize>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Self { end, waiting, number, buf } = &mut *self;
        end.poll_write(waiting, number, cx, buf, None)
    }
}

impl Drop for PipeWrite<'_> {
    fn drop(&mut self) {
        if self.number != 0 || self.waiting.key.is_some() {
            let (waiting, number) = (&mut self.waiting, &mut self.number);
            let _ = self.end.leave_writers(waiting, number, self.buf.len(), false, Failure::Closed);
        }
        self.end.poll.side(Direction::Write).end_operation(&mut self.waiting.wait, true);
    }
}

/// Writes all of a buffer to a pipe; returned by [`Pipe::write_all`].
#[must_use = "futures do nothing unless they are awaited"]
#[derive(Debug)]
pub struct PipeWriteAll<'a> {
    write: PipeWrite<'a>,
    /// The number of bytes that were taken when the timeout last started.
    seen: usize,
}

impl Future for PipeWriteAll<'_> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { write: PipeWrite { end, waiting, number, buf }, seen } = &mut *self;
        end.poll_write(waiting, number, cx, buf, Some(seen)).map_ok(drop)
    }
}

impl fmt::Debug for PipeRead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeRead").field("len", &self.buf.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for PipeWrite<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeWrite").field("len", &self.buf.len()).finish_non_exhaustive()
    }
}

impl AsyncRead for &Pipe {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.end.poll_read(Waiter::Poll, cx, buf)
    }
}

impl AsyncWrite for &Pipe {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.end.poll_hand_over(cx, Some(buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end.poll_hand_over(cx, None).map_ok(drop)
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end.end_writing();
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_read(cx, buf)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_close(cx)
    }
}

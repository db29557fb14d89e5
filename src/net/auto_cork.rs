//! The stream methods for gathering the writes of one turn of a task. The mechanism is in
//! [`gather`](super::fd::gather).

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::TcpStream;
use super::fd::fd::Fd;
use super::fd::flusher::Gathers;
use super::fd::operation::Caller;
use super::net_fd::NetFd;
use super::unix::UnixStream;
use crate::rt::poll::poller::Failure;
use crate::rt::waiters::Waiter;

impl Gathers for NetFd {
    fn fd(&self) -> &Fd {
        &self.fd
    }
}

impl NetFd {
    /// Waits until all gathered bytes are sent.
    #[inline]
    pub(crate) fn poll_flush(&self, caller: Caller<'_>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fd.poll_flush(caller, cx).map_err(|failure| self.error("write", failure))
    }

    /// Waits until all gathered bytes are sent. The caller then shuts down the writing side.
    /// Returns `Ready` immediately if the socket is closed, because the close sends the bytes
    /// itself.
    #[inline]
    pub(crate) fn poll_close(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.fd.poll_flush(Waiter::Poll, cx) {
            Poll::Ready(Err(Failure::Closed)) => Poll::Ready(Ok(())),
            polled => polled.map_err(|failure| self.error("close", failure)),
        }
    }

    /// Returns whether the writes of a turn are gathered.
    pub(crate) fn auto_cork(&self) -> bool {
        self.fd.gathers()
    }

    /// Sets whether the writes of a turn are gathered.
    pub(crate) fn set_auto_cork(self: &Arc<Self>, gathers: bool) -> io::Result<()> {
        self.fd.set_gathers(self, gathers).map_err(|failure| self.error("set", failure))
    }

    /// Puts a new connection into an `Arc`. The connection starts to gather writes if its listener
    /// or dialer is configured with `auto_cork`.
    #[inline]
    pub(crate) fn shared(self) -> Arc<NetFd> {
        let shared = Arc::new(self);
        if shared.fd.wants_gathering() {
            // The call cannot fail, because a new descriptor is not closed.
            let _ = shared.set_auto_cork(true);
        }
        shared
    }
}

/// Implements the methods for a stream type with a field `fd`. Attributes after the name, such as
/// an example, are added to the documentation of `set_auto_cork`.
macro_rules! auto_cork_methods {
    ($type:ident $(; $(#[$example:meta])*)?) => {
        /// Gathering of writes.
        impl $type {
            /// Returns whether writes are gathered; see [`set_auto_cork`](Self::set_auto_cork).
            pub fn auto_cork(&self) -> bool {
                self.fd.auto_cork()
            }

            /// Sets whether the writes that a task makes in one turn are gathered and sent
            /// together. The default is false. The setting applies to the connection and thus to
            /// all clones. A turn is one poll of the task by the runtime.
            ///
            /// With this option, a server that answers several requests per read makes one system
            /// call instead of one per response. A write copies its bytes and returns; the bytes
            /// are sent when the task waits for an operation of this crate or its turn ends. Writes
            /// of 16 KiB or more, writes outside of a turn (on a thread of another executor, or
            /// in `spawn_blocking`), and writes after a nested `block_on` in the turn are sent
            /// immediately, together with the bytes gathered earlier. At most 64 KiB are gathered.
            /// While the send buffer is full, writes wait as they do without this option.
            ///
            /// If a task computes for a long time between two writes, the first write is delayed by
            /// up to about 20 ms, but in a [single-threaded](crate::rt::Builder::single_threaded)
            /// runtime usually until the turn ends; [`flush`](Self::flush) sends it immediately.
            /// Closing and shutting down send the gathered bytes first, and so does every other
            /// operation that writes to the socket or hands out its descriptor. A conversion to
            /// another type also waits, for at most five seconds, until the send buffer has room
            /// for the bytes.
            ///
            /// A close does not wait. If the send buffer has no room for the gathered bytes, the
            /// buffer is enlarged, or a task sends them later. If the system does not permit a
            /// larger buffer and the peer reads nothing for a minute, or the runtime is shut down,
            /// a TCP connection is reset, and the peer of a Unix stream reads end of stream without
            /// these bytes. With a linger time of zero, a close discards them.
            ///
            /// # Errors
            /// Returns a [closed](crate::net::is_closed) error after `force_close`.
            ///
            /// A gathered write returns `Ok` before its bytes are sent. If sending them fails
            /// later, the error is returned by the next write, `flush`, shutdown or `close`, or by
            /// a read at the end of the stream. If there is no such operation, the error is lost,
            /// as it is for bytes in the kernel's send buffer. An expired deadline does not
            /// withdraw gathered bytes, nor does a lack of memory in the kernel (ENOBUFS, ENOMEM).
            /// Bytes that have not been sent are lost when the process exits, so flush the stream
            /// before exiting.
            $($(#[$example])*)?
            pub fn set_auto_cork(&self, gather: bool) -> io::Result<()> {
                self.fd.set_auto_cork(gather)
            }

            /// Waits until all gathered bytes are sent; see [`set_auto_cork`](Self::set_auto_cork).
            /// Completes immediately if there are none.
            ///
            /// # Errors
            /// Returns the error of a gathered write; `TimedOut` after the write deadline or
            /// timeout, in which case the bytes are still sent later; a
            /// [closed](crate::net::is_closed) error after `force_close`, unless gathering was
            /// never turned on.
            ///
            /// # Cancel safety
            /// Cancel safe. The gathered bytes are sent even if the future is dropped.
            pub fn flush(&self) -> $crate::net::futures::Flush<'_> {
                $crate::net::futures::Flush::new(&self.fd)
            }
        }
    };
}

auto_cork_methods! {
    TcpStream;
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// # use netpoll::net::{TcpListener, TcpStream};
    /// # let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// # let stream = TcpStream::connect(listener.local_addr()?).await?;
    /// # let (peer, _) = listener.accept().await?;
    /// stream.set_auto_cork(true)?;
    /// for line in [&b"+OK\r\n"[..], b":1\r\n", b":2\r\n"] {
    ///     stream.write_all(line).await?; // copies
    /// }
    /// stream.flush().await?; // one send(2); waiting for a request would do the same
    ///
    /// let mut buf = [0; 64];
    /// let count = peer.read(&mut buf).await?;
    /// assert_eq!(&buf[..count], b"+OK\r\n:1\r\n:2\r\n");
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
}

auto_cork_methods!(UnixStream);

//! The methods of streams that gather the writes of a turn; see [`gather`](super::fd::gather).

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
    /// Waits until everything that was gathered is sent.
    #[inline]
    pub(crate) fn poll_flush(&self, caller: Caller<'_>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fd.poll_flush(caller, cx).map_err(|failure| self.error("write", failure))
    }

    /// Waits, before the sending side is shut down, until everything that was gathered is sent. A
    /// closed socket has nothing left to send.
    #[inline]
    pub(crate) fn poll_close(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.fd.poll_flush(Waiter::Poll, cx) {
            Poll::Ready(Err(Failure::Closed)) => Poll::Ready(Ok(())),
            polled => polled.map_err(|failure| self.error("close", failure)),
        }
    }

    /// Returns whether writes of a turn are gathered.
    pub(crate) fn auto_cork(&self) -> bool {
        self.fd.gathers()
    }

    /// Sets whether writes of a turn are gathered.
    pub(crate) fn set_auto_cork(self: &Arc<Self>, gathers: bool) -> io::Result<()> {
        self.fd.set_gathers(self, gathers).map_err(|failure| self.error("set", failure))
    }

    /// Shares a new connection, which begins to gather writes if its listener or dialer says so.
    #[inline]
    pub(crate) fn shared(self) -> Arc<NetFd> {
        let shared = Arc::new(self);
        if shared.fd.wants_gathering() {
            // A new descriptor is not closed.
            let _ = shared.set_auto_cork(true);
        }
        shared
    }
}

/// Implements the methods for a stream type with a field `fd`.
macro_rules! auto_cork_methods {
    ($type:ident $(; $(#[$example:meta])*)?) => {
        /// Gathering of writes.
        impl $type {
            /// Returns whether writes are gathered; see [`set_auto_cork`](Self::set_auto_cork).
            pub fn auto_cork(&self) -> bool {
                self.fd.auto_cork()
            }

            /// Sets whether the writes that a task makes in one turn leave as one send. The default is
            /// false. The setting is that of the connection, with all its clones.
            ///
            /// A server that answers several requests per read then makes one system call instead of
            /// one per answer, and so does one that sends many small messages to a client. A write
            /// copies its bytes and returns; they are sent when the task waits for anything or its
            /// turn ends. So a peer gets them as early as the task could do anything else. Writes of
            /// 16 KiB and more, and those outside of a turn (on a thread of another executor, in
            /// `spawn_blocking`), are sent at once, together with the gathered bytes. At most 64 KiB
            /// are gathered. If the socket is full, writes wait as without this option.
            ///
            /// A task that computes for long between two writes delays the first one, by 20 ms at
            /// most; [`flush`](Self::flush) sends at once. Closing and shutting down send first, and
            /// so does everything else that writes to the socket or hands out its descriptor. A
            /// conversion to another type also waits until the socket has taken the bytes, for five
            /// seconds at most.
            ///
            /// A close does not wait: the bytes for which the socket has no room go to a larger send
            /// buffer, or are sent by a task. If the system does not permit a larger buffer and the
            /// peer takes nothing for a minute, or the runtime is shut down, a TCP connection is
            /// reset, and the peer of a Unix stream finds the end of the stream without these bytes.
            ///
            /// # Errors
            /// Returns a [closed](crate::net::is_closed) error after `force_close`.
            ///
            /// A write that was gathered has returned `Ok`. If the connection turns out to have
            /// failed, the next write, `flush`, shutdown or `close`, or a read at the end of the
            /// stream, returns the error. If there is no next operation, the error is lost, as it is
            /// for bytes in the send buffer of the kernel. Deadlines do not take gathered bytes back.
            /// Bytes for which the socket has no room are in this process: flush before it ends.
            $($(#[$example])*)?
            pub fn set_auto_cork(&self, gather: bool) -> io::Result<()> {
                self.fd.set_auto_cork(gather)
            }

            /// Waits until all gathered bytes are sent; see [`set_auto_cork`](Self::set_auto_cork).
            /// Without gathered bytes it is ready at once.
            ///
            /// # Errors
            /// Returns the error of a write that was gathered; `TimedOut` after the write deadline,
            /// which loses no byte; a [closed](crate::net::is_closed) error if the connection is
            /// closed meanwhile.
            ///
            /// # Cancel safety
            /// Cancel safe. The bytes are sent whether or not it is awaited to its end.
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

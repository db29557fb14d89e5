//! [`SendZerocopy`]: a MSG_ZEROCOPY send, from the first call to the last completion. The state of
//! the socket's sends is in [`sends`](super::sends).
//!
//! # Waiting
//! A completion produces an edge with ERROR set ([`backend`](crate::rt::poll::backend)). The edge
//! wakes all waiters; waiters for data or room find none and wait again. To wait for its
//! completions, this future notes the count of edges, reads the error queue, and waits for the next
//! edge. This future is also woken if another future finds its last completion in the error queue.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::sends::Sends;
use crate::net::TcpStream;
use crate::net::fd::operation::{LockScope, Operation, Remaining};
use crate::net::net_fd::NetFd;
use crate::rt::poll::poller::Direction;
use crate::rt::waiters::Waiter;

impl TcpStream {
    /// Sets whether [`send_zerocopy`](TcpStream::send_zerocopy) may send without a copy
    /// (SO_ZEROCOPY). The default is false.
    ///
    /// The setting has no effect on a stream whose descriptor may have other users, because two
    /// users cannot tell their completions apart. Such a stream was converted from std or from a
    /// descriptor, or its descriptor was handed out by `as_fd`, `as_raw_fd`, `control`,
    /// `read_with`, `write_with` or [`Dialer::control`](crate::net::Dialer::control), or was
    /// duplicated by a conversion of a clone or by a shutdown while the connection was in progress.
    /// The setting also has no effect in a forked child.
    ///
    /// # Errors
    /// Returns the OS error (ENOPROTOOPT on Linux before 4.14, and for `true` on other systems), or
    /// a [closed](crate::net::is_closed) error after `force_close`.
    pub fn set_zerocopy(&self, on: bool) -> io::Result<()> {
        let sends = self.fd.fd.loans::<Sends>();
        self.fd.with("set", |fd| sends.enable(fd, on))
    }

    /// Sends all of `buf` without copying it (MSG_ZEROCOPY). Returns the buffer when the kernel no
    /// longer needs it, which is when the peer has acknowledged all bytes that were not copied. A
    /// zero-copy send is faster than a copy if `buf` has about 10 KiB or more.
    ///
    /// The bytes are copied if [`set_zerocopy`](TcpStream::set_zerocopy) was not called or has no
    /// effect, if too many completions are pending, and where the kernel needs a copy (always on
    /// loopback). [`ZerocopySent::copied`] reports whether bytes were copied.
    ///
    /// Concurrent writes do not interleave, as with [`write_all`](TcpStream::write_all), but any
    /// number of sends may wait for completion concurrently. Completions do not disturb other
    /// operations of the stream. `buf.as_ref()` must always return the same bytes.
    ///
    /// # Errors
    /// Returns the same errors as [`write`](TcpStream::write). The write deadline also applies to
    /// the wait for completion. The buffer is not returned with an error.
    ///
    /// # Cancel safety
    /// Not cancel safe: part of `buf` may have been sent. The stream keeps the buffer as long as
    /// the kernel reads it, and frees it during a later `send_zerocopy` or when the stream is
    /// closed. Closing the stream while the kernel still reads a buffer resets the connection,
    /// because there is no other way to make the kernel stop. If the kernel does not release the
    /// buffer within a second, the buffer is never freed. If the descriptor was handed out in the
    /// meantime, another user may rely on the connection, so the connection is not reset and the
    /// buffer is never freed. Nor is it freed if the stream is converted to another type, such as
    /// std's.
    ///
    /// Source: Documentation/networking/msg_zerocopy.rst of Linux.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// # use netpoll::net::{TcpListener, TcpStream};
    /// # let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// # let stream = TcpStream::connect(listener.local_addr()?).await?;
    /// # let (peer, _) = listener.accept().await?;
    /// # let reader = netpoll::task::spawn(async move { peer.read(&mut vec![0; 1 << 20]).await });
    /// stream.set_zerocopy(true)?;
    /// let sent = stream.send_zerocopy(vec![7; 64 << 10]).await?;
    /// assert_eq!(sent.buf.len(), 64 << 10);
    /// # reader.await?;
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    #[doc(alias = "MSG_ZEROCOPY")]
    pub fn send_zerocopy<B: AsRef<[u8]> + Send + 'static>(&self, buf: B) -> SendZerocopy<'_, B> {
        let sends = self.fd.fd.loans::<Sends>();
        SendZerocopy { fd: &self.fd, sends, operation: Operation::new(), buf: Some(Box::new(buf)), sent: 0, key: None }
    }
}

/// The result of [`TcpStream::send_zerocopy`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ZerocopySent<B> {
    /// The buffer.
    pub buf: B,
    /// Whether at least part of the data was copied. If this is often true although zero-copy sends
    /// are enabled, MSG_ZEROCOPY has no benefit for this peer.
    pub copied: bool,
}

/// Sends a buffer without copying it; returned by [`TcpStream::send_zerocopy`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct SendZerocopy<'a, B: Send + 'static> {
    fd: &'a NetFd,
    sends: &'a Sends,
    operation: Operation,
    /// Boxed, because the kernel reads it in place.
    buf: Option<Box<B>>,
    sent: usize,
    /// The key of the entry in `sends`; `None` before the first poll and after the completion.
    key: Option<u64>,
}

impl<B: AsRef<[u8]> + Send + 'static> SendZerocopy<'_, B> {
    fn poll_send(&mut self, cx: &mut Context<'_>, key: u64) -> Poll<io::Result<()>> {
        let bytes = self.buf.as_deref().map_or(&[][..], B::as_ref);
        loop {
            let rest = bytes.get(self.sent..).unwrap_or(&[]);
            let sends = self.sends;
            let polled = self.fd.fd.poll_call(
                Direction::Write,
                LockScope::WholeOperation,
                Waiter::Future(&mut self.operation),
                cx,
                |fd| {
                    let count = sends.send(fd, key, rest)?;
                    self.fd.fd.poll.count(Direction::Write, count);
                    Ok((count, if count < rest.len() { Remaining::More } else { Remaining::Maybe }))
                },
            );
            let count = ready!(polled).map_err(|failure| self.fd.error("write", failure))?;
            self.sent += count;
            if count == rest.len() {
                return Poll::Ready(Ok(()));
            }
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
        }
    }
}

impl<B: Send + 'static> SendZerocopy<'_, B> {
    fn poll_done(&mut self, cx: &mut Context<'_>, key: u64) -> Poll<io::Result<bool>> {
        loop {
            let seen = self.fd.fd.poll.side(Direction::Write).edges();
            self.fd.with("write", |fd| self.sends.reap(fd))?;
            if let Some(copied) = self.sends.take_done(key, cx.waker()) {
                return Poll::Ready(Ok(copied));
            }
            let polled = self.fd.fd.poll_until(Direction::Write, &mut self.operation, cx, |side| side.edges() != seen);
            ready!(polled).map_err(|failure| self.fd.error("write", failure))?;
        }
    }
}

impl<B: AsRef<[u8]> + Send + 'static> Future for SendZerocopy<'_, B> {
    type Output = io::Result<ZerocopySent<B>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let key = *this.key.get_or_insert_with(|| this.sends.begin());
        let len = this.buf.as_deref().map_or(0, |buf| buf.as_ref().len());
        if this.sent < len || len == 0 {
            ready!(this.poll_send(cx, key))?;
        }
        let copied = ready!(this.poll_done(cx, key))?;
        this.key = None;
        match this.buf.take() {
            Some(buf) => Poll::Ready(Ok(ZerocopySent { buf: *buf, copied })),
            None => Poll::Pending,
        }
    }
}

impl<B: Send + 'static> Drop for SendZerocopy<'_, B> {
    fn drop(&mut self) {
        self.fd.fd.cancel(Direction::Write, &mut self.operation);
        if let (Some(key), Some(buf)) = (self.key, self.buf.take()) {
            let _ = self.fd.fd.with(|fd| self.sends.reap(fd));
            self.sends.abandon(key, buf);
        }
    }
}

impl<B: Send + 'static> fmt::Debug for SendZerocopy<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendZerocopy").field("fd", self.fd).field("sent", &self.sent).finish_non_exhaustive()
    }
}

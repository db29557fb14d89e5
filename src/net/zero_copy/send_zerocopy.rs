//! [`SendZerocopy`]: MSG_ZEROCOPY, from the first call to the last completion. The socket's side is in [`sends`](super::sends).
//!
//! # Waiting
//! A completion brings an edge that says ERROR and nothing else; it wakes all who wait, and those who wait for data or room find none
//! and wait on. Here the wait is for the edges after the one seen before the error queue was read; and for whoever else finds this
//! one's completion there.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::sends::Sends;
use crate::net::TcpStream;
use crate::net::fd::net_fd::NetFd;
use crate::net::fd::operation::{Hold, Left, Operation};
use crate::rt::poll::poller::Direction;

impl TcpStream {
    /// Sets whether [`send_zerocopy`](TcpStream::send_zerocopy) may send without a copy (SO_ZEROCOPY). The default is false.
    ///
    /// It has no effect on a stream whose descriptor may have other users, because two users cannot tell their completions apart:
    /// one that was converted from std or from a descriptor, and one whose descriptor was handed out by `as_fd`, `as_raw_fd`,
    /// `control`, `read_with` or `write_with`.
    ///
    /// # Errors
    /// Returns the OS error, for example on a kernel before 4.14, or a [closed](crate::net::is_closed) error after `force_close`.
    pub fn set_zerocopy(&self, on: bool) -> io::Result<()> {
        let sends = self.fd.sends();
        self.fd.with("set", |fd| sends.enable(fd, on))
    }

    /// Sends all of `buf` without copying it (MSG_ZEROCOPY), and returns it when the kernel does not need it any more: when the peer has
    /// acknowledged it. This pays from about 10 KiB on.
    ///
    /// The bytes are copied where [`set_zerocopy`](TcpStream::set_zerocopy) was not called first or has no effect, and where the kernel cannot
    /// do without (on loopback always). [`ZerocopySent::copied`] tells.
    ///
    /// No other write comes in between, as with [`write_all`](TcpStream::write_all); any number may wait for completion at once.
    /// Reading and waiting on the stream are not disturbed by completions. `buf.as_ref()` must always be the same bytes.
    ///
    /// # Errors
    /// As [`write`](TcpStream::write), the write deadline holding for the completion too. The buffer is not given back then.
    ///
    /// # Cancel safety
    /// Not cancel safe: a part may have been sent. The stream keeps the buffer as long as the kernel reads it, and frees it during a later
    /// `send_zerocopy` or when the stream is closed. Closing the stream while the kernel still reads a buffer resets the connection,
    /// because there is no other way to make the kernel stop. If the descriptor was handed out in the meantime, another user may rely
    /// on the connection: it is not reset, and the buffer is never freed.
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
    pub fn send_zerocopy<B: AsRef<[u8]> + Send + 'static>(&self, buf: B) -> SendZerocopy<'_, B> {
        let sends = self.fd.sends();
        SendZerocopy { fd: &self.fd, sends, operation: Operation::new(), buf: Some(Box::new(buf)), sent: 0, key: None }
    }
}

/// A buffer that was sent by [`TcpStream::send_zerocopy`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ZerocopySent<B> {
    /// The buffer.
    pub buf: B,
    /// The kernel copied a part at least, after all: for this peer MSG_ZEROCOPY brings nothing.
    pub copied: bool,
}

/// Sends a buffer without copying it; returned by [`TcpStream::send_zerocopy`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct SendZerocopy<'a, B: Send + 'static> {
    fd: &'a NetFd,
    sends: &'a Sends,
    operation: Operation,
    /// Boxed: the kernel reads it where it is.
    buf: Option<Box<B>>,
    sent: usize,
    /// From the first poll on.
    key: Option<u64>,
}

impl<B: AsRef<[u8]> + Send + 'static> SendZerocopy<'_, B> {
    fn poll_send(&mut self, cx: &mut Context<'_>, key: u64) -> Poll<io::Result<()>> {
        let bytes = self.buf.as_deref().map_or(&[][..], B::as_ref);
        loop {
            let rest = bytes.get(self.sent..).unwrap_or(&[]);
            let sends = self.sends;
            let polled = self.fd.fd.poll_call(Direction::Write, Hold::Across, Some(&mut self.operation), cx, |fd| {
                let count = sends.send(fd, key, rest)?;
                Ok((count, if count < rest.len() { Left::More } else { Left::Maybe }))
            });
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
            let seen = self.fd.fd.poll.edges(Direction::Write);
            self.fd.with("write", |fd| self.sends.reap(fd))?;
            if let Some(copied) = self.sends.take_done(key, cx.waker()) {
                return Poll::Ready(Ok(copied));
            }
            let polled = self.fd.fd.poll_error_edge(Direction::Write, &mut self.operation, cx, seen);
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

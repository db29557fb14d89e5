//! [`Wire`]: the stream between hyper and the peer.
//!
//! `Wire` first returns the bytes that were read to identify the HTTP version, counts progress in
//! [`Activity`], and closes the stream in such a way that the last response arrives.
//!
//! # Closing
//! close(2) with unread bytes in the receive buffer sends a reset, which may make the peer discard
//! data that it has not read. Such data may be the response to a request whose body was refused, or
//! to the first of several requests. So after sending FIN, `Wire` reads and discards the bytes that
//! the peer still sends. It stops at the peer's FIN or an error, [`QUIET`] after the last byte, or
//! at the first byte that arrives later than [`LINGER`] after its own FIN. It waits only if the
//! peer may still send data, that is, if the last request had a body or bytes are available.
//!
//! # Compared with Go (net/http/server.go, `closeWriteAndWait`)
//! Go waits for 500 ms without reading.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use netpoll::time::Sleep;

use super::activity::Activity;

/// The time without a byte after which a closing connection no longer waits for the peer's FIN.
const QUIET: Duration = Duration::from_millis(500);

/// The time, counted from the server's FIN, after which further bytes no longer extend the wait for
/// the peer's FIN.
const LINGER: Duration = Duration::from_secs(5);

/// The number of bytes discarded per read.
const DISCARD_BYTES: usize = 8 << 10;

/// A stream that first returns bytes that were already read from the underlying stream.
#[derive(Debug)]
pub(super) struct Wire<T> {
    io: T,
    /// The bytes to return first. Empty once hyper has read them.
    head: Vec<u8>,
    /// The number of bytes of `head` that hyper has read.
    taken: usize,
    activity: Arc<Activity>,
    /// `Some` after FIN was sent, while the bytes that the peer still sends are discarded.
    linger: Option<Linger>,
}

/// The state of the wait for the peer's FIN.
#[derive(Debug)]
struct Linger {
    /// The timer that ends the wait for the next byte, or `None` if the peer is not expected to
    /// send more.
    quiet: Option<Sleep>,
    /// The time after which further bytes no longer extend the wait.
    end: Instant,
}

impl<T> Wire<T> {
    pub(super) fn new(io: T, activity: Arc<Activity>) -> Wire<T> {
        Wire { io, head: Vec::new(), taken: 0, activity, linger: None }
    }
}

impl<T: Read + Unpin> Wire<T> {
    /// Reads from the underlying stream into `buf`, ignoring `head`. Returns `Pending` if no bytes
    /// are available.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf.unfilled())
    }

    /// Sets the bytes that are returned first.
    pub(super) fn set_head(&mut self, head: Vec<u8>) {
        self.head = head;
    }

    /// Reads and discards the bytes that the peer sends. Returns `Ready` after the peer's FIN or an
    /// error, or when the wait is over.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let activity = &self.activity;
        let linger = self.linger.get_or_insert_with(|| Linger {
            quiet: (activity.has_body() || activity.is_readable()).then(|| Sleep::new(QUIET)),
            end: Instant::now() + LINGER,
        });
        let mut bytes = [0; DISCARD_BYTES];
        loop {
            let mut buf = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.io).poll_read(cx, buf.unfilled()) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    let now = Instant::now();
                    if now > linger.end {
                        return Poll::Ready(());
                    }
                    linger.quiet.get_or_insert_with(Sleep::never).reset(now + QUIET);
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => {
                    let Some(quiet) = &mut linger.quiet else { return Poll::Ready(()) };
                    ready!(Pin::new(&mut *quiet).poll(cx));
                    let now = Instant::now();
                    // On a busy machine the poller may not yet have reported available bytes.
                    if now > linger.end || !activity.is_readable() {
                        return Poll::Ready(());
                    }
                    quiet.reset(now + QUIET);
                }
            }
        }
    }
}

impl<T: Read + Unpin> Read for Wire<T> {
    #[inline]
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if self.head.is_empty() {
            ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
            self.activity.note_progress();
            return Poll::Ready(Ok(()));
        }
        let rest = &self.head[self.taken..];
        let count = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..count]);
        self.taken += count;
        if self.taken == self.head.len() {
            self.head = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T> Wire<T> {
    /// Records the result of a write, and returns the result.
    #[inline]
    fn note_write(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.activity.set_blocked(written.is_pending());
        if written.is_ready() {
            self.activity.note_progress();
        }
        written
    }
}

impl<T: Read + Write + Unpin> Write for Wire<T> {
    #[inline]
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.note_write(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        let waited = self.activity.set_unflushed(flushed.is_pending());
        if flushed.is_ready() && waited {
            self.activity.note_progress();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.activity.set_closing(true);
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            if self.activity.released() {
                return Poll::Ready(Ok(()));
            }
        }
        self.poll_discard(cx).map(Ok)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    #[inline]
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.note_write(written)
    }
}

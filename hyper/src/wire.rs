//! [`Wire`]: the stream between hyper and the peer.
//!
//! It returns the bytes that were read to tell the HTTP versions apart, counts progress in
//! [`Activity`], and closes so that the last answer arrives.
//!
//! # Closing
//! close(2) with unread bytes in the receive buffer sends a reset, which discards data that the
//! peer has not read yet: the answer to a request whose body was refused, or to the first of
//! several requests. After the FIN, this therefore reads and discards what the peer still sends,
//! until its FIN, until [`QUIET`] after the last byte, or for at most [`LINGER`]. It does so only
//! if the peer may have something to send: the last request had a body, or bytes are available.
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

/// The maximum time to wait for the peer's FIN.
const LINGER: Duration = Duration::from_secs(5);

/// The number of bytes discarded per read.
const DISCARD_BYTES: usize = 8 << 10;

/// A stream whose first bytes may have been read, and are returned again.
#[derive(Debug)]
pub(super) struct Wire<T> {
    io: T,
    head: Vec<u8>,
    /// The number of bytes of `head` that hyper has read.
    taken: usize,
    activity: Arc<Activity>,
    /// Set while the stream is shut down and bytes of the peer are discarded.
    linger: Option<Linger>,
}

#[derive(Debug)]
struct Linger {
    /// Ends the wait for the next byte; set if the peer may have something to send.
    quiet: Option<Sleep>,
    end: Instant,
}

impl<T> Wire<T> {
    pub(super) fn new(io: T, activity: Arc<Activity>) -> Wire<T> {
        Wire { io, head: Vec::new(), taken: 0, activity, linger: None }
    }
}

impl<T: Read + Unpin> Wire<T> {
    /// Reads from the stream, after `head`.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf.unfilled())
    }

    /// Sets the bytes that are returned first.
    pub(super) fn set_head(&mut self, head: Vec<u8>) {
        self.head = head;
    }

    /// Discards what the peer sends, until its FIN or the end of the wait.
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
                    // On a busy machine the poller may not have reported available bytes yet.
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
    /// Records the result of a write.
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
        Pin::new(&mut self.io).poll_flush(cx)
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

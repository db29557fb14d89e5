//! [`copy()`]: everything from a reader to a writer.
//!
//! # Invariants
//! * The reader is not polled again after it said it was at its end.
//! * While it waits for the reader nothing sits in a buffered writer: that is flushed first (the other end may be
//!   waiting for it before it sends more).
//! * A reader and a writer that are always ready (both in memory) do not hold their thread for ever: after
//!   [`ROUNDS_PER_POLL`] the task yields.
//!
//! # Compared with Go
//! `io.Copy`, with its buffer size.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_io::{AsyncRead as Read, AsyncWrite as Write};

/// Go's size: a quarter of loopback's usual window, and few enough bytes to stay in a first-level cache.
const BUFFER_BYTES: usize = 32 << 10;

/// One poll moves at most 4 MiB: about a millisecond.
const ROUNDS_PER_POLL: u32 = 128;

/// Copies everything from `reader`, to its end, to `writer`, flushes that and says how many bytes went. The writer is not closed.
///
/// # Errors
/// Those of the reader and the writer, unchanged (async-std puts a text in front and hides the code); `Interrupted` is
/// retried; `WriteZero` when the writer takes nothing more.
///
/// # Cancellation
/// The bytes that have been read and not yet written, up to 32 KiB, are lost when it fails or is dropped.
///
/// ```
/// use netpoll::io;
///
/// # netpoll::task::block_on(async {
/// let (mut reader, mut writer) = (&b"hello"[..], Vec::new());
/// assert_eq!(io::copy(&mut reader, &mut writer).await?, 5);
/// assert_eq!(writer, b"hello");
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub async fn copy<R, W>(reader: &mut R, writer: &mut W) -> io::Result<u64>
where
    R: Read + Unpin + ?Sized,
    W: Write + Unpin + ?Sized,
{
    let buf = vec![0; BUFFER_BYTES].into_boxed_slice();
    Copy { reader, writer, buf, start: 0, end: 0, total: 0, finished: false, unflushed: false }.await
}

struct Copy<'a, R: ?Sized, W: ?Sized> {
    reader: &'a mut R,
    writer: &'a mut W,
    buf: Box<[u8]>,
    /// `buf[start..end]` is read and not yet written.
    start: usize,
    end: usize,
    total: u64,
    /// The reader is at its end.
    finished: bool,
    /// Something was written since the last flush.
    unflushed: bool,
}

impl<R: Read + Unpin + ?Sized, W: Write + Unpin + ?Sized> Copy<'_, R, W> {
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut *self.writer).poll_flush(cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    /// Reads into the empty buffer.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match Pin::new(&mut *self.reader).poll_read(cx, &mut self.buf) {
                Poll::Ready(Ok(0)) => self.finished = true,
                Poll::Ready(Ok(count)) => (self.start, self.end) = (0, count.min(self.buf.len())),
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => continue,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    if self.unflushed {
                        ready!(self.poll_flush(cx))?;
                    }
                    return Poll::Pending;
                }
            }
            return Poll::Ready(Ok(()));
        }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.start < self.end {
            let rest = &self.buf[self.start..self.end];
            match ready!(Pin::new(&mut *self.writer).poll_write(cx, rest)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    let count = count.min(rest.len());
                    self.start += count;
                    self.total += count as u64;
                    self.unflushed = true;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<R: Read + Unpin + ?Sized, W: Write + Unpin + ?Sized> Future for Copy<'_, R, W> {
    type Output = io::Result<u64>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        for _ in 0..ROUNDS_PER_POLL {
            ready!(this.poll_drain(cx))?;
            if this.finished {
                ready!(this.poll_flush(cx))?;
                return Poll::Ready(Ok(this.total));
            }
            ready!(this.poll_fill(cx))?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

//! [`BufWriter`]: combines small writes.
//!
//! # Invariants
//! * `buf[sent..]` are the bytes accepted from callers that the underlying writer has not accepted
//!   yet, in order; `sent <= buf.len()`. This holds whenever a `poll_*` method returns, even with
//!   `Pending` or an error. So an expired deadline or a dropped future, except that of
//!   `into_inner`, neither loses nor repeats bytes, and a later flush continues where the last
//!   flush stopped.
//! * `buf` never has more than `capacity` bytes.
//!
//! Dropping a `BufWriter` discards its contents, because `Drop` cannot wait. Call `flush`, `close`
//! or `into_inner` first.
//!
//! # Compared with Go
//! `BufWriter` corresponds to `bufio.Writer`, but errors are not sticky: an error is reported once
//! and the bytes remain.

use std::error;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_io::{AsyncSeek as Seek, AsyncWrite as Write};
use pin_project_lite::pin_project;

use super::{IoSlice, SeekFrom};
use crate::sys::socket::total;

/// The capacity of [`BufWriter::new`], in bytes.
const CAPACITY: usize = 8 << 10;

pin_project! {
    /// A writer that combines small writes into large ones.
    ///
    /// `flush` writes out the buffered bytes and flushes the underlying writer. `close` writes them
    /// out and closes the underlying writer; a TCP socket then sends FIN. Seeking writes out the
    /// buffered bytes first. **Dropping a `BufWriter` discards the buffered bytes.**
    ///
    /// # Cancel safety
    /// If a write, flush, close or seek fails or is dropped, the buffered bytes that are not
    /// written yet remain buffered, and the next flush writes them out.
    ///
    /// ```
    /// use netpoll::io::{BufWriter, WriteExt};
    ///
    /// # netpoll::task::block_on(async {
    /// let mut out = BufWriter::new(Vec::new());
    /// for word in ["many ", "small ", "writes"] {
    ///     out.write_all(word.as_bytes()).await?;
    /// }
    /// assert_eq!(out.into_inner().await?, b"many small writes");
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    pub struct BufWriter<W> {
        #[pin]
        inner: W,
        buf: Vec<u8>,
        capacity: usize,
        sent: usize,
    }
}

impl<W: Write> BufWriter<W> {
    /// Creates a `BufWriter` with a buffer of 8 KiB.
    pub fn new(inner: W) -> BufWriter<W> {
        BufWriter::with_capacity(CAPACITY, inner)
    }

    /// Creates a `BufWriter` with a buffer of `capacity` bytes. Writes of `capacity` bytes or more
    /// bypass the buffer.
    pub fn with_capacity(capacity: usize, inner: W) -> BufWriter<W> {
        BufWriter { inner, buf: Vec::with_capacity(capacity), capacity, sent: 0 }
    }

    /// Flushes, and returns the underlying writer.
    ///
    /// # Errors
    /// If the flush fails, returns its error together with this `BufWriter` and the remaining
    /// bytes.
    ///
    /// # Cancel safety
    /// Not cancel safe: the future owns the `BufWriter`, and dropping it discards the buffered
    /// bytes. To avoid this, call `flush` first.
    pub async fn into_inner(mut self) -> Result<W, IntoInnerError<BufWriter<W>>>
    where
        Self: Unpin,
    {
        match poll_fn(|cx| Pin::new(&mut self).poll_flush(cx)).await {
            Ok(()) => Ok(self.inner),
            Err(error) => Err(IntoInnerError { writer: self, error }),
        }
    }

    /// Polls until all buffered bytes are written to the underlying writer.
    fn poll_send(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut this = self.project();
        while *this.sent < this.buf.len() {
            let rest = &this.buf[*this.sent..];
            match ready!(this.inner.as_mut().poll_write(cx, rest)) {
                Ok(0) => {
                    let error = io::Error::new(io::ErrorKind::WriteZero, "failed to write the buffered data");
                    return Poll::Ready(Err(error));
                }
                Ok(count) => *this.sent += count.min(rest.len()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        this.buf.clear();
        *this.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Empties the buffer if `len` more bytes do not fit into it. Returns whether a write of `len`
    /// bytes uses the buffer.
    fn poll_room(mut self: Pin<&mut Self>, cx: &mut Context<'_>, len: usize) -> Poll<io::Result<bool>> {
        if len > self.capacity - self.buf.len() {
            ready!(self.as_mut().poll_send(cx))?;
        }
        Poll::Ready(Ok(len < self.capacity))
    }
}

impl<W> BufWriter<W> {
    /// Returns a reference to the underlying writer.
    pub fn get_ref(&self) -> &W {
        &self.inner
    }

    /// Returns a mutable reference to the underlying writer. Bytes written to it directly overtake
    /// the buffered bytes.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.inner
    }

    /// Returns the bytes that are buffered and not yet written to the underlying writer.
    pub fn buffer(&self) -> &[u8] {
        &self.buf[self.sent..]
    }
}

impl<W: Write> Write for BufWriter<W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let fits = ready!(self.as_mut().poll_room(cx, buf.len()))?;
        let this = self.project();
        if !fits {
            return this.inner.poll_write(cx, buf);
        }
        this.buf.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len = total(bufs);
        let fits = ready!(self.as_mut().poll_room(cx, len))?;
        let this = self.project();
        if !fits {
            return this.inner.poll_write_vectored(cx, bufs);
        }
        bufs.iter().for_each(|buf| this.buf.extend_from_slice(buf));
        Poll::Ready(Ok(len))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_send(cx))?;
        self.project().inner.poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_send(cx))?;
        self.project().inner.poll_close(cx)
    }
}

impl<W: Write + Seek> Seek for BufWriter<W> {
    fn poll_seek(mut self: Pin<&mut Self>, cx: &mut Context<'_>, pos: SeekFrom) -> Poll<io::Result<u64>> {
        ready!(self.as_mut().poll_send(cx))?;
        self.project().inner.poll_seek(cx, pos)
    }
}

impl<W: fmt::Debug> fmt::Debug for BufWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufWriter")
            .field("writer", &self.inner)
            .field("buffer", &format_args!("{}/{}", self.buffer().len(), self.capacity))
            .finish()
    }
}

/// The error of [`BufWriter::into_inner`]. It contains the `BufWriter`, so that the caller can try
/// again.
///
/// ```
/// use netpoll::io::{self, BufWriter, Cursor, WriteExt};
///
/// # netpoll::task::block_on(async {
/// let mut room = [0; 2];
/// let mut out = BufWriter::new(Cursor::new(&mut room[..]));
/// out.write_all(b"abc").await?;
/// let failed = out.into_inner().await.unwrap_err();
/// assert_eq!(failed.error().kind(), io::ErrorKind::WriteZero);
/// assert_eq!(failed.into_inner().buffer(), b"c");
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct IntoInnerError<W> {
    writer: W,
    error: io::Error,
}

impl<W> IntoInnerError<W> {
    /// Returns the error of the flush.
    pub fn error(&self) -> &io::Error {
        &self.error
    }

    /// Returns the `BufWriter` with its remaining bytes.
    pub fn into_inner(self) -> W {
        self.writer
    }

    /// Returns both the error and the `BufWriter`.
    pub fn into_parts(self) -> (io::Error, W) {
        (self.error, self.writer)
    }
}

impl<W> From<IntoInnerError<W>> for io::Error {
    fn from(failed: IntoInnerError<W>) -> io::Error {
        failed.error
    }
}

impl<W> fmt::Display for IntoInnerError<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<W: fmt::Debug> error::Error for IntoInnerError<W> {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.error.source()
    }
}

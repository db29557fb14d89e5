//! [`BufWriter`]: gathers small writes.
//!
//! # Invariants
//! * `buf[sent..]` are the bytes taken from callers that the writer has not taken from us, in order; `sent <= buf.len()`.
//!   It holds whenever a `poll_*` returns, also with `Pending` or an error: a dropped future or an expired deadline loses and
//!   repeats nothing, and a later flush goes on where the last one stopped.
//! * `buf` never grows past its capacity.
//!
//! Dropping a `BufWriter` drops what is in it: `Drop` cannot wait. Flush, close or `into_inner` before.
//!
//! # Compared with Go
//! `bufio.Writer`, but an error does not stick: it is reported once and the bytes stay.

use std::error;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_io::{AsyncSeek as Seek, AsyncWrite as Write};
use pin_project_lite::pin_project;

use super::{IoSlice, SeekFrom};

/// Bytes held by [`BufWriter::new`].
const CAPACITY: usize = 8 << 10;

pin_project! {
    /// Gathers small writes into large ones.
    ///
    /// `flush` sends what is gathered and flushes the writer; `close` also closes it, which on a socket sends FIN. **Dropping it
    /// discards what is gathered.** Seeking flushes first.
    ///
    /// # Cancellation
    /// What it has taken stays in it when a write, flush or close fails or is dropped, and is sent by the next one.
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
    /// A buffer of 8 KiB in front of `inner`.
    pub fn new(inner: W) -> BufWriter<W> {
        BufWriter::with_capacity(CAPACITY, inner)
    }

    /// A buffer of `capacity` bytes in front of `inner`. Writes of that size and more go past it; with 0 all do.
    pub fn with_capacity(capacity: usize, inner: W) -> BufWriter<W> {
        BufWriter { inner, buf: Vec::with_capacity(capacity), capacity, sent: 0 }
    }

    /// Flushes and gives the writer back.
    ///
    /// # Errors
    /// The flush's, with this `BufWriter` and all it still holds.
    ///
    /// # Cancellation
    /// The future owns the `BufWriter`: dropped, it discards both. Where that matters `flush` first.
    pub async fn into_inner(mut self) -> Result<W, IntoInnerError<BufWriter<W>>>
    where
        Self: Unpin,
    {
        match poll_fn(|cx| Pin::new(&mut self).poll_flush(cx)).await {
            Ok(()) => Ok(self.inner),
            Err(error) => Err(IntoInnerError { writer: self, error }),
        }
    }

    /// Sends all that is gathered.
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

    /// Makes room for `len` bytes, or makes the buffer empty where they are too many for it. Returns whether they fit.
    fn poll_room(mut self: Pin<&mut Self>, cx: &mut Context<'_>, len: usize) -> Poll<io::Result<bool>> {
        if len > self.capacity - self.buf.len() {
            ready!(self.as_mut().poll_send(cx))?;
        }
        Poll::Ready(Ok(len < self.capacity))
    }
}

impl<W> BufWriter<W> {
    /// The writer.
    pub fn get_ref(&self) -> &W {
        &self.inner
    }

    /// The writer. What is written to it now overtakes what is gathered.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.inner
    }

    /// What is gathered and not yet sent.
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
        let len = bufs.iter().fold(0usize, |sum, buf| sum.saturating_add(buf.len()));
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

/// Why [`BufWriter::into_inner`] failed, and the `BufWriter`, with which one may try again.
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
    /// What went wrong.
    pub fn error(&self) -> &io::Error {
        &self.error
    }

    /// The `BufWriter`, with what it could not send.
    pub fn into_inner(self) -> W {
        self.writer
    }

    /// Both.
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

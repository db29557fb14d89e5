//! [`WriteExt`]: writing methods and their futures.
//!
//! # Cancellation
//! A dropped `write_all` or `write_fmt` may have written part of its data; the number of bytes
//! written is unknown. Stream sockets have an inherent `write_all` that also excludes other writers
//! until it completes. The methods of this trait exclude other writers only during each
//! `poll_write`.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_io::AsyncWrite as Write;
use futures_lite::io::{AsyncWriteExt as Lite, CloseFuture, FlushFuture, WriteFuture, WriteVectoredFuture};

use super::IoSlice;

/// Extension methods for every [`Write`](super::Write).
///
/// ```
/// use netpoll::io::WriteExt;
///
/// # netpoll::task::block_on(async {
/// let mut out = Vec::new();
/// out.write_all(b"GET ").await?;
/// write!(out, "/{} HTTP/1.1\r\n", "index.html").await?;
/// assert_eq!(out, b"GET /index.html HTTP/1.1\r\n");
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub trait WriteExt: Write {
    /// Writes up to `buf.len()` bytes, waiting until the writer accepts at least one. Returns the
    /// number of bytes written; 0 means that `buf` is empty, or that the writer accepts no more
    /// bytes.
    ///
    /// # Errors
    /// Returns the writer's error.
    ///
    /// # Cancel safety
    /// Cancel safe for sockets: a future that is dropped before it is ready has written no bytes.
    ///
    /// ```
    /// use netpoll::io::WriteExt;
    ///
    /// # netpoll::task::block_on(async {
    /// let mut out = Vec::new();
    /// assert_eq!(out.write(b"abc").await?, 3);
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    fn write<'a>(&'a mut self, buf: &'a [u8]) -> WriteFuture<'a, Self>
    where
        Self: Unpin,
    {
        Lite::write(self, buf)
    }

    /// Writes like [`write`](WriteExt::write), but from several buffers, in order.
    ///
    /// ```
    /// use netpoll::io::{IoSlice, WriteExt};
    ///
    /// # netpoll::task::block_on(async {
    /// let mut out = Vec::new();
    /// assert_eq!(out.write_vectored(&[IoSlice::new(b"ab"), IoSlice::new(b"c")]).await?, 3);
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    fn write_vectored<'a>(&'a mut self, bufs: &'a [IoSlice<'a>]) -> WriteVectoredFuture<'a, Self>
    where
        Self: Unpin,
    {
        Lite::write_vectored(self, bufs)
    }

    /// Writes all of `buf`.
    ///
    /// # Errors
    /// Returns `WriteZero` if the writer accepts no more bytes, or the writer's error; retries
    /// after `Interrupted`. Part of `buf` may have been written.
    ///
    /// # Cancel safety
    /// Not cancel safe: part of `buf` may have been written, and the number of bytes written is
    /// unknown.
    ///
    /// ```
    /// use netpoll::io::{Cursor, ErrorKind, WriteExt};
    ///
    /// # netpoll::task::block_on(async {
    /// let mut room = [0; 2];
    /// let error = Cursor::new(&mut room[..]).write_all(b"abc").await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::WriteZero);
    /// assert_eq!(&room, b"ab");
    /// # });
    /// ```
    fn write_all<'a>(&'a mut self, buf: &'a [u8]) -> WriteAllFuture<'a, Self>
    where
        Self: Unpin,
    {
        WriteAllFuture { writer: self, buf }
    }

    /// Writes formatted text and flushes. `write!` and `writeln!` call this method; await the
    /// future that they return.
    ///
    /// The text is formatted immediately, before the future is polled, and written as by
    /// [`write_all`](WriteExt::write_all). As in async-std, the writer is flushed at the end, so
    /// that a prompt appears. For many small pieces, format into a `String` and use `write_all`.
    ///
    /// The future is `Send` if the writer is, but the formatting arguments, which the macros
    /// create, are not, and they live until the end of the statement. So a future that contains
    /// `write!(…).await` is not `Send` and cannot be passed to [`task::spawn`](crate::task::spawn),
    /// as with async-std. In a task, create the future of `write!` in a statement of its own:
    ///
    /// ```
    /// use netpoll::{io::{self, WriteExt}, task};
    ///
    /// # fn main() -> io::Result<()> {
    /// let name = "index.html".to_owned();
    /// let task = task::spawn(async move {
    ///     let mut out = Vec::new();
    ///     let written = write!(out, "GET /{name}");
    ///     written.await?;
    ///     assert_eq!(out, b"GET /index.html");
    ///     io::Result::Ok(())
    /// });
    /// # task::block_on(task)
    /// # }
    /// ```
    ///
    /// # Errors
    /// Returns the errors of `write_all` and `flush`. If formatting an argument fails, returns an
    /// error of kind `Other` with the text "formatter error", and writes nothing.
    ///
    /// # Cancel safety
    /// Not cancel safe; see [`write_all`](WriteExt::write_all).
    ///
    /// ```
    /// use netpoll::io::WriteExt;
    ///
    /// # netpoll::task::block_on(async {
    /// let mut out = Vec::new();
    /// writeln!(out, "{} + {} = {}", 1, 2, 3).await?;
    /// assert_eq!(out, b"1 + 2 = 3\n");
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    fn write_fmt<'a>(&'a mut self, args: fmt::Arguments<'_>) -> WriteFmtFuture<'a, Self>
    where
        Self: Unpin,
    {
        let mut text = String::new();
        let text = match fmt::write(&mut text, args) {
            Ok(()) => Ok(text.into_bytes()),
            Err(fmt::Error) => Err(io::Error::other("formatter error")),
        };
        WriteFmtFuture { writer: self, text: Some(text), written: 0 }
    }

    /// Flushes the writer: writes all buffered data to its destination.
    ///
    /// # Errors
    /// Returns the writer's error.
    ///
    /// # Cancel safety
    /// Cancel safe for all writers of this crate: the data that is left stays buffered, and the
    /// next flush continues.
    ///
    /// ```
    /// use netpoll::io::{BufWriter, WriteExt};
    ///
    /// # netpoll::task::block_on(async {
    /// let mut out = BufWriter::new(Vec::new());
    /// out.write_all(b"abc").await?;
    /// assert!(out.get_ref().is_empty());
    /// out.flush().await?;
    /// assert_eq!(out.get_ref(), b"abc");
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    fn flush(&mut self) -> FlushFuture<'_, Self>
    where
        Self: Unpin,
    {
        Lite::flush(self)
    }

    /// Flushes and closes the writer. A stream socket is shut down for writing; TCP then sends FIN.
    /// async-std's trait does not have this method.
    ///
    /// # Errors
    /// Returns the writer's error.
    ///
    /// # Cancel safety
    /// Cancel safe for all writers of this crate: call again to continue.
    ///
    /// ```
    /// use netpoll::io::{BufWriter, WriteExt};
    ///
    /// # netpoll::task::block_on(async {
    /// let mut out = BufWriter::new(Vec::new());
    /// out.write_all(b"abc").await?;
    /// out.close().await?;
    /// assert_eq!(out.get_ref(), b"abc");
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    fn close(&mut self) -> CloseFuture<'_, Self>
    where
        Self: Unpin,
    {
        Lite::close(self)
    }
}

impl<W: Write + ?Sized> WriteExt for W {}

/// Polls one write of a non-empty `buf`. Returns the number of bytes written, which is at least 1.
fn poll_write_some<W: Write + ?Sized>(
    mut writer: Pin<&mut W>,
    cx: &mut Context<'_>,
    buf: &[u8],
) -> Poll<io::Result<usize>> {
    loop {
        return Poll::Ready(match ready!(writer.as_mut().poll_write(cx, buf)) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => Ok(count.min(buf.len())),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        });
    }
}

/// The future returned by [`WriteExt::write_all`].
#[derive(Debug)]
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct WriteAllFuture<'a, W: Unpin + ?Sized> {
    writer: &'a mut W,
    buf: &'a [u8],
}

impl<W: Write + Unpin + ?Sized> Future for WriteAllFuture<'_, W> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        while !this.buf.is_empty() {
            let count = ready!(poll_write_some(Pin::new(&mut *this.writer), cx, this.buf))?;
            this.buf = &this.buf[count..];
        }
        Poll::Ready(Ok(()))
    }
}

/// The future returned by [`WriteExt::write_fmt`].
#[derive(Debug)]
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct WriteFmtFuture<'a, W: Unpin + ?Sized> {
    writer: &'a mut W,
    /// The text, or the formatting error; `None` after the error was returned.
    text: Option<io::Result<Vec<u8>>>,
    written: usize,
}

impl<W: Write + Unpin + ?Sized> Future for WriteFmtFuture<'_, W> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(Err(error)) = this.text.take_if(|text| text.is_err()) {
            return Poll::Ready(Err(error));
        }
        if let Some(Ok(text)) = &this.text {
            while this.written < text.len() {
                this.written += ready!(poll_write_some(Pin::new(&mut *this.writer), cx, &text[this.written..]))?;
            }
        }
        Pin::new(&mut *this.writer).poll_flush(cx)
    }
}

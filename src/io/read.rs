//! [`ReadExt`]: reading methods and their futures.
//!
//! # Cancellation
//! `read_to_end` appends bytes to the caller's vector as they arrive. If the reader fails or the
//! future is dropped, `read_to_string` appends the text read so far, up to the first incomplete or
//! invalid character, and discards this character and the bytes after it. If the stream ends and
//! its bytes are not UTF-8, `read_to_string` leaves the string unchanged, and the error contains
//! the bytes. `read_exact` loses its progress. A single `read` loses no bytes if the reader's
//! `poll_read` loses none.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use futures_io::AsyncRead as Read;
use futures_lite::io::{AsyncReadExt as Lite, ReadFuture, ReadVectoredFuture, Take};
use pin_project_lite::pin_project;

use super::{Chain, IoSliceMut, utf8};

/// The initial step, in bytes, by which [`ReadExt::read_to_end`] and [`ReadExt::read_to_string`]
/// grow the vector that they fill. The step doubles each time a read fills the available space, so
/// short input requires little zeroing and long input requires few reads.
const GROWTH_MIN: usize = 4 << 10;
/// The maximum of the step that begins with [`GROWTH_MIN`], in bytes.
const GROWTH_MAX: usize = 256 << 10;

/// Extension methods for every [`Read`](super::Read).
///
/// ```
/// use netpoll::io::{self, ReadExt};
///
/// # netpoll::task::block_on(async {
/// let mut reader = io::Cursor::new(b"length:5 hello, and more");
/// let mut head = [0; 9];
/// reader.read_exact(&mut head).await?;
/// let mut body = String::new();
/// reader.take(5).read_to_string(&mut body).await?;
/// assert_eq!(body, "hello");
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub trait ReadExt: Read {
    /// Reads up to `buf.len()` bytes, waiting until at least one is available. Returns the number
    /// of bytes read; 0 means end of stream, or that `buf` is empty.
    ///
    /// # Errors
    /// Returns the reader's error.
    ///
    /// # Cancel safety
    /// Cancel safe for all readers of this crate: dropping the future loses no bytes.
    ///
    /// ```
    /// use netpoll::io::ReadExt;
    ///
    /// # netpoll::task::block_on(async {
    /// let mut reader: &[u8] = b"abc";
    /// let mut buf = [0; 2];
    /// assert_eq!(reader.read(&mut buf).await?, 2);
    /// assert_eq!(&buf, b"ab");
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    fn read<'a>(&'a mut self, buf: &'a mut [u8]) -> ReadFuture<'a, Self>
    where
        Self: Unpin,
    {
        Lite::read(self, buf)
    }

    /// Reads like [`read`](ReadExt::read), but into several buffers, filling each before the next.
    ///
    /// ```
    /// use netpoll::io::{IoSliceMut, ReadExt};
    ///
    /// # netpoll::task::block_on(async {
    /// let mut reader: &[u8] = b"abc";
    /// let (mut head, mut tail) = ([0; 1], [0; 8]);
    /// let count = reader.read_vectored(&mut [IoSliceMut::new(&mut head), IoSliceMut::new(&mut tail)]).await?;
    /// assert_eq!((count, &head, &tail[..2]), (3, b"a", &b"bc"[..]));
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    fn read_vectored<'a>(&'a mut self, bufs: &'a mut [IoSliceMut<'a>]) -> ReadVectoredFuture<'a, Self>
    where
        Self: Unpin,
    {
        Lite::read_vectored(self, bufs)
    }

    /// Reads until end of stream, appending the bytes to `buf`. Returns the number of bytes read.
    ///
    /// # Errors
    /// Returns the reader's error; retries after `Interrupted`. Bytes read before the error are in
    /// `buf`.
    ///
    /// # Cancel safety
    /// If the future is dropped, the bytes read so far are in `buf`; call again to continue.
    ///
    /// ```
    /// use netpoll::io::ReadExt;
    ///
    /// # netpoll::task::block_on(async {
    /// let mut all = b"> ".to_vec();
    /// assert_eq!((&b"abc"[..]).read_to_end(&mut all).await?, 3);
    /// assert_eq!(all, b"> abc");
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    #[doc(alias = "ReadAll")]
    fn read_to_end<'a>(&'a mut self, buf: &'a mut Vec<u8>) -> ReadToEndFuture<'a, Self>
    where
        Self: Unpin,
    {
        ReadToEndFuture { reader: self, buf, total: 0, growth: GROWTH_MIN }
    }

    /// Reads until end of stream, appending the text to `buf`. Returns the number of bytes read.
    ///
    /// # Errors
    /// Returns the reader's error; retries after `Interrupted`. The text read before the error is
    /// in `buf`, up to the first incomplete or invalid character. Bytes read after this text are
    /// lost. Returns `InvalidData` if the stream ends and its bytes are not UTF-8; `buf` is then
    /// unchanged and the error contains the bytes (see
    /// [`read_line`](super::BufReadExt::read_line)).
    ///
    /// # Cancel safety
    /// If the future is dropped, the text read so far is in `buf`, up to the first incomplete or
    /// invalid character. Bytes read after this text are lost.
    ///
    /// ```
    /// use netpoll::io::{ErrorKind, ReadExt};
    ///
    /// # netpoll::task::block_on(async {
    /// let mut text = String::new();
    /// let error = (&b"\xff"[..]).read_to_string(&mut text).await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::InvalidData);
    /// # });
    /// ```
    fn read_to_string<'a>(&'a mut self, buf: &'a mut String) -> ReadToStringFuture<'a, Self>
    where
        Self: Unpin,
    {
        ReadToStringFuture { reader: self, buf, bytes: Vec::new(), growth: GROWTH_MIN }
    }

    /// Reads exactly `buf.len()` bytes.
    ///
    /// # Errors
    /// Returns `UnexpectedEof` if the stream ends before `buf` is full, or the reader's error;
    /// retries after `Interrupted`. Part of `buf` may have been filled.
    ///
    /// # Cancel safety
    /// Not cancel safe: part of `buf` may have been filled, and the number of bytes read is
    /// unknown.
    ///
    /// ```
    /// use netpoll::io::{ErrorKind, ReadExt};
    ///
    /// # netpoll::task::block_on(async {
    /// let mut reader: &[u8] = b"abc";
    /// let mut buf = [0; 2];
    /// reader.read_exact(&mut buf).await?;
    /// assert_eq!(reader.read_exact(&mut buf).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    #[doc(alias = "ReadFull")]
    fn read_exact<'a>(&'a mut self, buf: &'a mut [u8]) -> ReadExactFuture<'a, Self>
    where
        Self: Unpin,
    {
        ReadExactFuture { reader: self, buf, filled: 0 }
    }

    /// Returns a reader that ends after `limit` bytes. At the limit it does not poll the underlying
    /// reader.
    ///
    /// ```
    /// use netpoll::io::ReadExt;
    ///
    /// # netpoll::task::block_on(async {
    /// let mut text = String::new();
    /// (&b"abc"[..]).take(2).read_to_string(&mut text).await?;
    /// assert_eq!(text, "ab");
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    #[doc(alias = "LimitReader")]
    fn take(self, limit: u64) -> Take<Self>
    where
        Self: Sized,
    {
        Lite::take(self, limit)
    }

    /// Borrows the reader, so that an adapter can use it without consuming it.
    ///
    /// ```
    /// use netpoll::io::ReadExt;
    ///
    /// # netpoll::task::block_on(async {
    /// let mut reader: &[u8] = b"abc";
    /// let (mut first, mut rest) = (Vec::new(), Vec::new());
    /// reader.by_ref().take(1).read_to_end(&mut first).await?;
    /// reader.read_to_end(&mut rest).await?;
    /// assert_eq!((first, rest), (b"a".to_vec(), b"bc".to_vec()));
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    fn by_ref(&mut self) -> &mut Self
    where
        Self: Sized,
    {
        self
    }

    /// Returns a stream of the reader's bytes. Use a buffered reader, because each byte is a
    /// separate read.
    ///
    /// ```
    /// use netpoll::prelude::*;
    ///
    /// # netpoll::task::block_on(async {
    /// let mut bytes = (&b"ab"[..]).bytes();
    /// assert_eq!(bytes.next().await.transpose()?, Some(b'a'));
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    fn bytes(self) -> Bytes<Self>
    where
        Self: Sized,
    {
        Bytes { reader: self }
    }

    /// Returns a reader that reads this reader until end of stream, and then `next`.
    ///
    /// ```
    /// use netpoll::io::ReadExt;
    ///
    /// # netpoll::task::block_on(async {
    /// let mut text = String::new();
    /// (&b"ab"[..]).chain(&b"cd"[..]).read_to_string(&mut text).await?;
    /// assert_eq!(text, "abcd");
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    #[doc(alias = "MultiReader")]
    fn chain<R: Read>(self, next: R) -> Chain<Self, R>
    where
        Self: Sized,
    {
        Chain::new(self, next)
    }
}

impl<R: Read + ?Sized> ReadExt for R {}

/// Appends bytes to `buf` until end of stream. Whenever the function returns, `buf` contains no
/// bytes beyond those read. `total` accumulates across calls.
fn poll_read_to_end<R: Read + ?Sized>(
    mut reader: Pin<&mut R>,
    cx: &mut Context<'_>,
    buf: &mut Vec<u8>,
    total: &mut usize,
    growth: &mut usize,
) -> Poll<io::Result<usize>> {
    // Removes the unused bytes at the end of the vector, even if the reader panics.
    struct Filled<'a> {
        buf: &'a mut Vec<u8>,
        len: usize,
    }
    impl Drop for Filled<'_> {
        fn drop(&mut self) {
            self.buf.truncate(self.len);
        }
    }

    let mut filled = Filled { len: buf.len(), buf };
    loop {
        // The spare capacity of the vector is used before the vector grows.
        if filled.len == filled.buf.len() {
            let room = filled.buf.capacity() - filled.len;
            let more = if room == 0 { *growth } else { room.min(*growth) };
            filled.buf.resize(filled.len + more, 0);
        }
        let room = filled.buf.len() - filled.len;
        match ready!(reader.as_mut().poll_read(cx, &mut filled.buf[filled.len..])) {
            Ok(0) => return Poll::Ready(Ok(*total)),
            Ok(count) => {
                let count = count.min(room);
                filled.len += count;
                *total += count;
                if count == room {
                    *growth = (*growth * 2).min(GROWTH_MAX);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
}

/// The future returned by [`ReadExt::read_to_end`].
#[derive(Debug)]
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct ReadToEndFuture<'a, R: Unpin + ?Sized> {
    reader: &'a mut R,
    buf: &'a mut Vec<u8>,
    total: usize,
    growth: usize,
}

impl<R: Read + Unpin + ?Sized> Future for ReadToEndFuture<'_, R> {
    type Output = io::Result<usize>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        poll_read_to_end(Pin::new(&mut *this.reader), cx, this.buf, &mut this.total, &mut this.growth)
    }
}

/// The future returned by [`ReadExt::read_to_string`].
#[derive(Debug)]
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct ReadToStringFuture<'a, R: Unpin + ?Sized> {
    reader: &'a mut R,
    buf: &'a mut String,
    /// The bytes read so far; empty after completion.
    bytes: Vec<u8>,
    growth: usize,
}

impl<R: Read + Unpin + ?Sized> Future for ReadToStringFuture<'_, R> {
    type Output = io::Result<usize>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut total = this.bytes.len();
        let result = poll_read_to_end(Pin::new(&mut *this.reader), cx, &mut this.bytes, &mut total, &mut this.growth);
        match ready!(result) {
            Ok(total) => Poll::Ready(utf8::append(this.buf, &mut this.bytes).map(|()| total)),
            Err(error) => {
                utf8::append_prefix(this.buf, &mut this.bytes);
                Poll::Ready(Err(error))
            }
        }
    }
}

impl<R: Unpin + ?Sized> Drop for ReadToStringFuture<'_, R> {
    fn drop(&mut self) {
        utf8::append_prefix(self.buf, &mut self.bytes);
    }
}

/// The future returned by [`ReadExt::read_exact`].
#[derive(Debug)]
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct ReadExactFuture<'a, R: Unpin + ?Sized> {
    reader: &'a mut R,
    buf: &'a mut [u8],
    filled: usize,
}

impl<R: Read + Unpin + ?Sized> Future for ReadExactFuture<'_, R> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        while this.filled < this.buf.len() {
            let rest = &mut this.buf[this.filled..];
            let room = rest.len();
            match ready!(Pin::new(&mut *this.reader).poll_read(cx, rest)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => this.filled += count.min(room),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

pin_project! {
    /// The stream returned by [`ReadExt::bytes`].
    #[derive(Debug)]
    #[must_use = "streams do nothing unless polled"]
    pub struct Bytes<R> {
        #[pin]
        reader: R,
    }
}

impl<R: Read> Stream for Bytes<R> {
    type Item = io::Result<u8>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut reader = self.project().reader;
        let mut byte = [0];
        loop {
            return Poll::Ready(match ready!(reader.as_mut().poll_read(cx, &mut byte)) {
                Ok(0) => None,
                Ok(_) => Some(Ok(byte[0])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Some(Err(error)),
            });
        }
    }
}

//! [`BufReadExt`]: lines and other delimited pieces.
//!
//! # Invariants
//! * Every byte consumed from the reader is in the caller's buffer, in the stream's own, or in an error: a failure of the
//!   reader (a deadline, say) or a dropped future in the middle of a line does not lose the part that had come. The one exception: a
//!   `String` cannot hold the bytes of a cut character, nor what follows bytes that are no text; `read_until` has no such gap.
//!
//! * The end of the reader is reported once for each time it says so: after a last piece without its delimiter the streams end
//!   without asking again (a terminal would have to be ended twice).
//!
//! # Compared with Go
//! `bufio.Reader.ReadBytes` and `bufio.Scanner`. As there, the last piece need not end with the delimiter, and a line's end may
//! be CR LF. There is no limit for the length of a line: put [`take`](super::ReadExt::take) in front where a peer chooses it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use futures_io::AsyncBufRead as BufRead;
use pin_project_lite::pin_project;

use super::utf8;

/// Methods for every [`BufRead`](super::BufRead).
///
/// ```
/// use netpoll::io::{BufReadExt, BufReader};
/// use netpoll::prelude::*;
///
/// # netpoll::task::block_on(async {
/// let mut lines = BufReader::new(&b"one\r\ntwo\nthree"[..]).lines();
/// let mut seen = Vec::new();
/// while let Some(line) = lines.next().await {
///     seen.push(line?);
/// }
/// assert_eq!(seen, ["one", "two", "three"]);
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub trait BufReadExt: BufRead {
    /// Reads until `byte`, which is included, or the end; appends to `buf` and says how many bytes: 0 is the end.
    ///
    /// # Errors and cancellation
    /// Those of the reader, except `Interrupted`, which is retried. What came before an error, or before the future was
    /// dropped, is in `buf`: call again with the same `buf` to go on.
    ///
    /// ```
    /// use netpoll::io::BufReadExt;
    ///
    /// # netpoll::task::block_on(async {
    /// let mut reader: &[u8] = b"a,b";
    /// let mut piece = Vec::new();
    /// assert_eq!(reader.read_until(b',', &mut piece).await?, 2);
    /// assert_eq!(piece, b"a,");
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    fn read_until<'a>(&'a mut self, byte: u8, buf: &'a mut Vec<u8>) -> ReadUntilFuture<'a, Self>
    where
        Self: Unpin,
    {
        ReadUntilFuture { reader: self, byte, buf, total: 0 }
    }

    /// Reads a line with its end (LF), or what remains before the end; appends to `buf` and says how many bytes: 0 is the end.
    ///
    /// # Errors and cancellation
    /// Those of [`read_until`](BufReadExt::read_until): what came is in `buf`, up to the first character that is not whole.
    /// `InvalidData` for a line that is not UTF-8: the line is consumed, so that the next call reads the next one, `buf` is
    /// unchanged and the error's source is a [`FromUtf8Error`](std::string::FromUtf8Error) that has the bytes.
    ///
    /// ```
    /// use netpoll::io::{BufReadExt, ErrorKind};
    /// use std::{error::Error, string::FromUtf8Error};
    ///
    /// # netpoll::task::block_on(async {
    /// let mut reader: &[u8] = b"\xff!\nnext\n";
    /// let mut line = String::new();
    /// let error = reader.read_line(&mut line).await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::InvalidData);
    /// let bytes = error.source().and_then(|source| source.downcast_ref::<FromUtf8Error>()).unwrap().as_bytes();
    /// assert_eq!(bytes, b"\xff!\n");
    /// assert_eq!(reader.read_line(&mut line).await?, 5);
    /// assert_eq!(line, "next\n");
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    fn read_line<'a>(&'a mut self, buf: &'a mut String) -> ReadLineFuture<'a, Self>
    where
        Self: Unpin,
    {
        ReadLineFuture { reader: self, buf, bytes: Vec::new() }
    }

    /// A stream of the lines, without their ends (LF or CR LF).
    ///
    /// An error of the reader is an item, and the line goes on with the next; bytes that are not UTF-8 are an error in place of
    /// their line, as [`read_line`](BufReadExt::read_line) has it.
    ///
    /// ```
    /// use netpoll::io::BufReadExt;
    /// use netpoll::prelude::*;
    ///
    /// # netpoll::task::block_on(async {
    /// let mut lines = (&b"a\n\nb"[..]).lines();
    /// assert_eq!(lines.next().await.transpose()?.as_deref(), Some("a"));
    /// assert_eq!(lines.next().await.transpose()?.as_deref(), Some(""));
    /// assert_eq!(lines.next().await.transpose()?.as_deref(), Some("b"));
    /// assert!(lines.next().await.is_none());
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    fn lines(self) -> Lines<Self>
    where
        Self: Sized,
    {
        Lines { reader: self, bytes: Vec::new(), ended: false }
    }

    /// A stream of what is between the bytes `byte`. As with lines, a delimiter at the very end does not make an empty last
    /// piece.
    ///
    /// ```
    /// use netpoll::io::{BufReadExt, BufReader};
    /// use netpoll::prelude::*;
    ///
    /// # netpoll::task::block_on(async {
    /// let reader = BufReader::new(&b"a,,b,"[..]);
    /// let pieces: std::io::Result<Vec<Vec<u8>>> = reader.split(b',').collect().await;
    /// assert_eq!(pieces?, [&b"a"[..], b"", b"b"]);
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    fn split(self, byte: u8) -> Split<Self>
    where
        Self: Sized,
    {
        Split { reader: self, byte, bytes: Vec::new(), ended: false }
    }
}

impl<R: BufRead + ?Sized> BufReadExt for R {}

/// Appends to `bytes` until `byte` is among them (true) or the reader ends (false).
fn poll_read_until<R: BufRead + ?Sized>(
    mut reader: Pin<&mut R>,
    cx: &mut Context<'_>,
    byte: u8,
    bytes: &mut Vec<u8>,
) -> Poll<io::Result<bool>> {
    loop {
        let available = match ready!(reader.as_mut().poll_fill_buf(cx)) {
            Ok(available) => available,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Poll::Ready(Err(error)),
        };
        if available.is_empty() {
            return Poll::Ready(Ok(false));
        }
        let end = find_end(byte, available);
        let used = end.unwrap_or(available.len());
        bytes.extend_from_slice(&available[..used]);
        reader.as_mut().consume(used);
        if end.is_some() {
            return Poll::Ready(Ok(true));
        }
    }
}

/// The index after the first `byte` in `haystack`. The standard library's search is vectorised (memchr); on a slice it is to be
/// had through its blocking `BufRead`, which does not fail here.
pub(super) fn find_end(byte: u8, haystack: &[u8]) -> Option<usize> {
    let mut rest = haystack;
    let end = io::BufRead::skip_until(&mut rest, byte).unwrap_or(0);
    (end > 0 && haystack[end - 1] == byte).then_some(end)
}

/// Future of [`BufReadExt::read_until`].
#[derive(Debug)]
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct ReadUntilFuture<'a, R: Unpin + ?Sized> {
    reader: &'a mut R,
    byte: u8,
    buf: &'a mut Vec<u8>,
    total: usize,
}

impl<R: BufRead + Unpin + ?Sized> Future for ReadUntilFuture<'_, R> {
    type Output = io::Result<usize>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let before = this.buf.len();
        let result = poll_read_until(Pin::new(&mut *this.reader), cx, this.byte, this.buf);
        this.total += this.buf.len() - before;
        ready!(result)?;
        Poll::Ready(Ok(this.total))
    }
}

/// Future of [`BufReadExt::read_line`].
#[derive(Debug)]
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct ReadLineFuture<'a, R: Unpin + ?Sized> {
    reader: &'a mut R,
    buf: &'a mut String,
    /// What came so far; empty once the future is done.
    bytes: Vec<u8>,
}

impl<R: BufRead + Unpin + ?Sized> Future for ReadLineFuture<'_, R> {
    type Output = io::Result<usize>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        match ready!(poll_read_until(Pin::new(&mut *this.reader), cx, b'\n', &mut this.bytes)) {
            Ok(_) => {
                let total = this.bytes.len();
                Poll::Ready(utf8::append(this.buf, &mut this.bytes).map(|()| total))
            }
            Err(error) => {
                utf8::append_prefix(this.buf, &mut this.bytes);
                Poll::Ready(Err(error))
            }
        }
    }
}

impl<R: Unpin + ?Sized> Drop for ReadLineFuture<'_, R> {
    fn drop(&mut self) {
        utf8::append_prefix(self.buf, &mut self.bytes);
    }
}

pin_project! {
    /// Stream of [`BufReadExt::lines`].
    #[derive(Debug)]
    #[must_use = "streams do nothing unless polled"]
    pub struct Lines<R> {
        #[pin]
        reader: R,
        // The line's beginning, when an error or a wait cut it.
        bytes: Vec<u8>,
        // The last line was ended by the reader's end, which is still to be reported.
        ended: bool,
    }
}

impl<R: BufRead> Stream for Lines<R> {
    type Item = io::Result<String>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.project();
        if std::mem::take(this.ended) {
            return Poll::Ready(None);
        }
        if ready!(poll_read_until(this.reader, cx, b'\n', this.bytes))? {
            this.bytes.pop();
            if this.bytes.last() == Some(&b'\r') {
                this.bytes.pop();
            }
        } else if this.bytes.is_empty() {
            return Poll::Ready(None);
        } else {
            *this.ended = true;
        }
        Poll::Ready(Some(utf8::into_text(std::mem::take(this.bytes))))
    }
}

pin_project! {
    /// Stream of [`BufReadExt::split`].
    #[derive(Debug)]
    #[must_use = "streams do nothing unless polled"]
    pub struct Split<R> {
        #[pin]
        reader: R,
        byte: u8,
        // The piece's beginning, when an error or a wait cut it.
        bytes: Vec<u8>,
        // The last piece was ended by the reader's end, which is still to be reported.
        ended: bool,
    }
}

impl<R: BufRead> Stream for Split<R> {
    type Item = io::Result<Vec<u8>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.project();
        if std::mem::take(this.ended) {
            return Poll::Ready(None);
        }
        if ready!(poll_read_until(this.reader, cx, *this.byte, this.bytes))? {
            this.bytes.pop();
        } else if this.bytes.is_empty() {
            return Poll::Ready(None);
        } else {
            *this.ended = true;
        }
        Poll::Ready(Some(Ok(std::mem::take(this.bytes))))
    }
}

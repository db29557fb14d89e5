//! [`BufReadExt`]: reading lines and other delimited pieces.
//!
//! # Invariants
//! * Every byte consumed from the reader is in the caller's buffer, in the buffer of a [`Lines`] or
//!   [`Split`], or in an error. If the reader fails (for example because a deadline expires) or a
//!   future is dropped in the middle of a line, no bytes are lost. There are three exceptions. A
//!   `String` cannot hold the bytes of an incomplete character, nor invalid UTF-8 and the bytes
//!   after it; `read_until` does not have this limitation. A `Lines` or `Split` with a bound
//!   discards the bytes that it has read of a piece that is too long. Dropping a `Lines` or `Split`
//!   discards the beginning of a piece that it has read.
//! * End of stream is reported once each time the reader reports it. After a last piece without a
//!   delimiter, `Lines` and `Split` end without polling the reader again. If they polled the reader
//!   again, the user of a terminal would have to type end of file twice.
//!
//! # Compared with Go
//! The methods correspond to `bufio.Reader.ReadBytes` and `bufio.Scanner`. As in Go, the last piece
//! need not end with the delimiter, and a line may end with CR LF. Methods without a bound collect
//! a piece of any length in memory. The `*_bounded` methods fail with [`TooLong`], as
//! `bufio.Scanner` fails with `ErrTooLong`.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use futures_io::AsyncBufRead as BufRead;
use pin_project_lite::pin_project;

use super::utf8;

/// Extension methods for every [`BufRead`](super::BufRead).
///
/// A line or other piece is collected in memory until its end. If a peer controls the length, use
/// the `*_bounded` methods: with [`lines`](BufReadExt::lines), a peer that never ends its line can
/// use up all memory.
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
    /// Reads through the delimiter `byte` or until end of stream, appending to `buf`. Returns the
    /// number of bytes read, including the delimiter; 0 means end of stream.
    ///
    /// The number of bytes is unlimited; see
    /// [`read_until_bounded`](BufReadExt::read_until_bounded).
    ///
    /// # Errors
    /// Returns the reader's error; retries after `Interrupted`. Bytes read before the error are in
    /// `buf`.
    ///
    /// # Cancel safety
    /// If the future is dropped, the bytes read so far are in `buf`; call again with the same `buf`
    /// to continue.
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
    #[doc(alias = "ReadBytes")]
    fn read_until<'a>(&'a mut self, byte: u8, buf: &'a mut Vec<u8>) -> ReadUntilFuture<'a, Self>
    where
        Self: Unpin,
    {
        ReadUntilFuture { reader: self, byte, buf, total: 0, max: usize::MAX }
    }

    /// Reads like [`read_until`](BufReadExt::read_until), but at most `max` bytes, including the
    /// delimiter. The limit applies to each call separately.
    ///
    /// # Errors
    /// Returns `InvalidData` with [`TooLong`] inside if the piece is longer than `max` bytes. Its
    /// first `max` bytes are consumed and are in `buf`; the reader continues after them. Other
    /// errors are those of [`read_until`](BufReadExt::read_until).
    ///
    /// # Cancel safety
    /// Same as [`read_until`](BufReadExt::read_until).
    ///
    /// ```
    /// use netpoll::io::{BufReadExt, ErrorKind};
    ///
    /// # netpoll::task::block_on(async {
    /// let mut reader: &[u8] = b"key=a long value\n";
    /// let mut piece = Vec::new();
    /// assert_eq!(reader.read_until_bounded(b'=', &mut piece, 4).await?, 4);
    /// let error = reader.read_until_bounded(b'\n', &mut piece, 4).await.unwrap_err();
    /// assert_eq!((error.kind(), &piece[..]), (ErrorKind::InvalidData, &b"key=a lo"[..]));
    /// assert_eq!(reader, b"ng value\n");
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    fn read_until_bounded<'a>(&'a mut self, byte: u8, buf: &'a mut Vec<u8>, max: usize) -> ReadUntilFuture<'a, Self>
    where
        Self: Unpin,
    {
        ReadUntilFuture { reader: self, byte, buf, total: 0, max }
    }

    /// Reads a line including its LF, or the remaining text before end of stream, appending to
    /// `buf`. Returns the number of bytes read; 0 means end of stream.
    ///
    /// The length of a line is unlimited; see [`read_line_bounded`](BufReadExt::read_line_bounded).
    ///
    /// # Errors
    /// Returns the reader's error; retries after `Interrupted`. The text read before the error is
    /// in `buf`, up to the first incomplete or invalid character. Bytes read after this text are
    /// lost. Returns `InvalidData` if the line is not UTF-8. The line is then consumed, so that the
    /// next call reads the next line; `buf` is unchanged, and the error's source is a
    /// [`FromUtf8Error`](std::string::FromUtf8Error) that contains the bytes.
    ///
    /// # Cancel safety
    /// If the future is dropped, the text read so far is in `buf`, up to the first incomplete or
    /// invalid character. Bytes read after this text are lost.
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
    #[doc(alias = "ReadString")]
    fn read_line<'a>(&'a mut self, buf: &'a mut String) -> ReadLineFuture<'a, Self>
    where
        Self: Unpin,
    {
        ReadLineFuture { reader: self, buf, bytes: Vec::new(), max: usize::MAX }
    }

    /// Reads a line like [`read_line`](BufReadExt::read_line), but at most `max` bytes, including
    /// its LF.
    ///
    /// # Errors
    /// Returns `InvalidData` with [`TooLong`] inside if the line is longer. Its first `max` bytes
    /// are consumed, and the reader continues after them. Their text is in `buf`, up to the first
    /// incomplete or invalid character. The rest of these bytes is lost. Other errors are those of
    /// [`read_line`](BufReadExt::read_line).
    ///
    /// # Cancel safety
    /// Same as [`read_line`](BufReadExt::read_line).
    ///
    /// ```
    /// use netpoll::io::{BufReadExt, TooLong};
    ///
    /// # netpoll::task::block_on(async {
    /// let mut reader: &[u8] = b"QUIT\r\na very long line\r\n";
    /// let mut line = String::new();
    /// assert_eq!(reader.read_line_bounded(&mut line, 6).await?, 6);
    /// let error = reader.read_line_bounded(&mut line, 6).await.unwrap_err();
    /// assert_eq!(error.get_ref().and_then(|inner| inner.downcast_ref::<TooLong>()).unwrap().max(), 6);
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    fn read_line_bounded<'a>(&'a mut self, buf: &'a mut String, max: usize) -> ReadLineFuture<'a, Self>
    where
        Self: Unpin,
    {
        ReadLineFuture { reader: self, buf, bytes: Vec::new(), max }
    }

    /// Returns a stream of lines, without their line terminators (LF or CR LF).
    ///
    /// The length of a line is unlimited; see [`lines_bounded`](BufReadExt::lines_bounded).
    ///
    /// An error of the reader is an item of the stream; the next item continues the interrupted
    /// line. For a line that is not UTF-8 the item is an error, as in
    /// [`read_line`](BufReadExt::read_line).
    ///
    /// # Cancel safety
    /// Dropping the future of `next` loses no bytes: the beginning of a line stays in the stream.
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
    #[doc(alias = "Scanner")]
    fn lines(self) -> Lines<Self>
    where
        Self: Sized,
    {
        self.lines_bounded(usize::MAX)
    }

    /// Returns a stream of lines like [`lines`](BufReadExt::lines), but limits each line to `max`
    /// bytes, including its line terminator.
    ///
    /// For a longer line the item is an `InvalidData` error with [`TooLong`] inside, and the stream
    /// ends. The first `max` bytes of the line are consumed and discarded; the reader continues
    /// after them. At most `max` bytes of a line are buffered.
    ///
    /// ```
    /// use netpoll::io::BufReadExt;
    /// use netpoll::prelude::*;
    ///
    /// # netpoll::task::block_on(async {
    /// let mut reader = &b"short\nmuch too long\n"[..];
    /// let mut lines = (&mut reader).lines_bounded(8);
    /// assert_eq!(lines.next().await.transpose()?.as_deref(), Some("short"));
    /// assert_eq!(lines.next().await.unwrap().unwrap_err().to_string(), "longer than 8 bytes");
    /// assert!(lines.next().await.is_none());
    /// assert_eq!(reader, b" long\n");
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    fn lines_bounded(self, max: usize) -> Lines<Self>
    where
        Self: Sized,
    {
        Lines { pieces: self.split_bounded(b'\n', max) }
    }

    /// Returns a stream of the pieces between occurrences of the delimiter `byte`. As with lines, a
    /// delimiter at end of stream is not followed by an empty piece.
    ///
    /// The length of a piece is unlimited; see [`split_bounded`](BufReadExt::split_bounded).
    ///
    /// # Cancel safety
    /// Same as [`lines`](BufReadExt::lines).
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
        self.split_bounded(byte, usize::MAX)
    }

    /// Returns a stream of pieces like [`split`](BufReadExt::split), but limits each piece to `max`
    /// bytes, including its delimiter.
    ///
    /// For a longer piece the item is an error, and the stream ends, as in
    /// [`lines_bounded`](BufReadExt::lines_bounded).
    ///
    /// ```
    /// use netpoll::io::{BufReadExt, ErrorKind};
    /// use netpoll::prelude::*;
    ///
    /// # netpoll::task::block_on(async {
    /// let mut pieces = (&b"ab,cdef,"[..]).split_bounded(b',', 4);
    /// assert_eq!(pieces.next().await.transpose()?.as_deref(), Some(&b"ab"[..]));
    /// assert_eq!(pieces.next().await.unwrap().unwrap_err().kind(), ErrorKind::InvalidData);
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    fn split_bounded(self, byte: u8, max: usize) -> Split<Self>
    where
        Self: Sized,
    {
        Split { reader: self, byte, max, bytes: Vec::new(), ended: Ended::No }
    }
}

impl<R: BufRead + ?Sized> BufReadExt for R {}

/// The error for a line or other piece that is longer than the limit given to a `*_bounded` method
/// of [`BufReadExt`].
///
/// The methods return it inside an [`io::Error`] of kind
/// [`InvalidData`](io::ErrorKind::InvalidData); use `downcast_ref` on
/// [`get_ref`](io::Error::get_ref) to get it.
///
/// # Examples
/// ```
/// # netpoll::task::block_on(async {
/// use netpoll::io::{TooLong, prelude::*};
///
/// let mut reader: &[u8] = b"a line without end";
/// let error = reader.read_line_bounded(&mut String::new(), 8).await.unwrap_err();
/// let too_long = error.get_ref().and_then(|error| error.downcast_ref::<TooLong>()).unwrap();
/// assert_eq!(too_long.max(), 8);
/// # });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(alias = "ErrTooLong")]
pub struct TooLong {
    max: usize,
}

impl TooLong {
    /// Returns the limit that was exceeded, in bytes.
    pub fn max(&self) -> usize {
        self.max
    }
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "longer than {} bytes", self.max)
    }
}

impl Error for TooLong {}

impl From<TooLong> for io::Error {
    fn from(error: TooLong) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

/// Returns whether `error` contains a [`TooLong`].
fn is_too_long(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<TooLong>())
}

/// Reads into `bytes` until `byte` is found (returns true) or the reader is at end of stream
/// (returns false). The piece may have at most `max` bytes, of which earlier calls have read
/// `before`.
fn poll_read_until<R: BufRead + ?Sized>(
    mut reader: Pin<&mut R>,
    cx: &mut Context<'_>,
    byte: u8,
    bytes: &mut Vec<u8>,
    max: usize,
    before: usize,
) -> Poll<io::Result<bool>> {
    let mut room = max - before;
    loop {
        let available = match ready!(reader.as_mut().poll_fill_buf(cx)) {
            Ok(available) => available,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Poll::Ready(Err(error)),
        };
        if available.is_empty() {
            return Poll::Ready(Ok(false));
        }
        let available = &available[..available.len().min(room)];
        if available.is_empty() {
            return Poll::Ready(Err(TooLong { max }.into()));
        }
        let end = find_end(byte, available);
        let used = end.unwrap_or(available.len());
        bytes.extend_from_slice(&available[..used]);
        reader.as_mut().consume(used);
        room -= used;
        if end.is_some() {
            return Poll::Ready(Ok(true));
        }
    }
}

/// Returns the index after the first `byte` in `haystack`, or `None` if `haystack` has no `byte`.
/// Uses std's blocking `BufRead`, because std offers no other access to its vectorised search
/// (memchr). Reading a slice cannot fail.
pub(super) fn find_end(byte: u8, haystack: &[u8]) -> Option<usize> {
    let mut rest = haystack;
    let end = io::BufRead::skip_until(&mut rest, byte).unwrap_or(0);
    (end > 0 && haystack[end - 1] == byte).then_some(end)
}

/// The future returned by [`BufReadExt::read_until`] and
/// [`read_until_bounded`](BufReadExt::read_until_bounded).
#[derive(Debug)]
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct ReadUntilFuture<'a, R: Unpin + ?Sized> {
    reader: &'a mut R,
    byte: u8,
    buf: &'a mut Vec<u8>,
    total: usize,
    max: usize,
}

impl<R: BufRead + Unpin + ?Sized> Future for ReadUntilFuture<'_, R> {
    type Output = io::Result<usize>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let before = this.buf.len();
        let result = poll_read_until(Pin::new(&mut *this.reader), cx, this.byte, this.buf, this.max, this.total);
        this.total += this.buf.len() - before;
        ready!(result)?;
        Poll::Ready(Ok(this.total))
    }
}

/// The future returned by [`BufReadExt::read_line`] and
/// [`read_line_bounded`](BufReadExt::read_line_bounded).
#[derive(Debug)]
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct ReadLineFuture<'a, R: Unpin + ?Sized> {
    reader: &'a mut R,
    buf: &'a mut String,
    /// The bytes read so far; empty after completion.
    bytes: Vec<u8>,
    max: usize,
}

impl<R: BufRead + Unpin + ?Sized> Future for ReadLineFuture<'_, R> {
    type Output = io::Result<usize>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let before = this.bytes.len();
        match ready!(poll_read_until(Pin::new(&mut *this.reader), cx, b'\n', &mut this.bytes, this.max, before)) {
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
    /// The stream returned by [`BufReadExt::lines`] and
    /// [`lines_bounded`](BufReadExt::lines_bounded).
    #[derive(Debug)]
    #[must_use = "streams do nothing unless polled"]
    pub struct Lines<R> {
        #[pin]
        pieces: Split<R>,
    }
}

impl<R: BufRead> Stream for Lines<R> {
    type Item = io::Result<String>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut pieces = self.project().pieces;
        let Some(piece) = ready!(pieces.as_mut().poll_next(cx)) else { return Poll::Ready(None) };
        let mut line = piece?;
        // A CR before the end of the stream is part of the line.
        if pieces.ended == Ended::No && line.last() == Some(&b'\r') {
            line.pop();
        }
        Poll::Ready(Some(utf8::into_text(line)))
    }
}

/// Whether, and how, a stream of pieces has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    No,
    /// End of stream ended the last piece and has not been reported yet.
    Unreported,
    /// A piece was too long, so the stream does not continue.
    Forever,
}

pin_project! {
    /// The stream returned by [`BufReadExt::split`] and
    /// [`split_bounded`](BufReadExt::split_bounded).
    #[derive(Debug)]
    #[must_use = "streams do nothing unless polled"]
    pub struct Split<R> {
        #[pin]
        reader: R,
        byte: u8,
        max: usize,
        // The beginning of the current piece, if reading it was interrupted by an error or a wait.
        bytes: Vec<u8>,
        ended: Ended,
    }
}

impl<R: BufRead> Stream for Split<R> {
    type Item = io::Result<Vec<u8>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.project();
        match *this.ended {
            Ended::No => {}
            Ended::Unreported => {
                *this.ended = Ended::No;
                return Poll::Ready(None);
            }
            Ended::Forever => return Poll::Ready(None),
        }
        let before = this.bytes.len();
        match ready!(poll_read_until(this.reader, cx, *this.byte, this.bytes, *this.max, before)) {
            Ok(true) => {
                this.bytes.pop();
            }
            Ok(false) if this.bytes.is_empty() => return Poll::Ready(None),
            Ok(false) => *this.ended = Ended::Unreported,
            Err(error) => {
                if is_too_long(&error) {
                    (*this.ended, *this.bytes) = (Ended::Forever, Vec::new());
                }
                return Poll::Ready(Some(Err(error)));
            }
        }
        Poll::Ready(Some(Ok(std::mem::take(this.bytes))))
    }
}

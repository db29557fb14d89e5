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
//! be CR LF. Methods without a bound gather a piece of any length in memory; `*_bounded` ones fail with [`TooLong`], as `bufio.Scanner`
//! does with `ErrTooLong`.

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

/// Methods for every [`BufRead`](super::BufRead).
///
/// A line, or another piece, is gathered in memory until its end comes. Where a peer decides how long that is, use the `*_bounded`
/// methods: [`lines`](BufReadExt::lines) of a peer that never ends its line takes all the memory there is.
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
    /// The number of bytes has no limit; [`read_until_bounded`](BufReadExt::read_until_bounded) has one.
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
        ReadUntilFuture { reader: self, byte, buf, total: 0, max: usize::MAX }
    }

    /// [`read_until`](BufReadExt::read_until) for at most `max` bytes, `byte` included.
    ///
    /// # Errors and cancellation
    /// [`TooLong`] inside, of kind `InvalidData`, where `max` bytes have come without `byte` and more follow. Those `max` bytes are
    /// consumed and in `buf`; the reader goes on behind them. Else as [`read_until`](BufReadExt::read_until). Each call counts
    /// its own bytes.
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

    /// Reads a line with its end (LF), or what remains before the end; appends to `buf` and says how many bytes: 0 is the end.
    ///
    /// The length of a line has no limit; [`read_line_bounded`](BufReadExt::read_line_bounded) has one.
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
        ReadLineFuture { reader: self, buf, bytes: Vec::new(), max: usize::MAX }
    }

    /// [`read_line`](BufReadExt::read_line) for a line of at most `max` bytes, its end included.
    ///
    /// # Errors and cancellation
    /// [`TooLong`] inside, of kind `InvalidData`, for a longer line. Its first `max` bytes are consumed and in `buf`, up to the first
    /// character that is not whole; the reader goes on behind them. Else as [`read_line`](BufReadExt::read_line).
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

    /// A stream of the lines, without their ends (LF or CR LF).
    ///
    /// The length of a line has no limit; [`lines_bounded`](BufReadExt::lines_bounded) has one.
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
        self.lines_bounded(usize::MAX)
    }

    /// [`lines`](BufReadExt::lines) of at most `max` bytes each, their ends included.
    ///
    /// A longer line is an error with [`TooLong`] inside, of kind `InvalidData`, and the stream's last item. Its first `max` bytes are
    /// consumed and gone; the reader goes on behind them. Memory for a line is bounded by `max`.
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

    /// A stream of what is between the bytes `byte`. As with lines, a delimiter at the very end does not make an empty last
    /// piece.
    ///
    /// The length of a piece has no limit; [`split_bounded`](BufReadExt::split_bounded) has one.
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

    /// [`split`](BufReadExt::split) into pieces of at most `max` bytes each, their delimiters included.
    ///
    /// A longer piece is an error, and the stream's last item, as in [`lines_bounded`](BufReadExt::lines_bounded).
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

/// A line, or another piece, is longer than a `*_bounded` method of [`BufReadExt`] was told.
///
/// It travels inside an [`io::Error`] of kind [`InvalidData`](io::ErrorKind::InvalidData) and is found again by `downcast_ref`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    max: usize,
}

impl TooLong {
    /// The bound that was exceeded, in bytes.
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

fn is_too_long(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<TooLong>())
}

/// Appends to `bytes` until `byte` is among them (true) or the reader ends (false). Of the piece's at most `max` bytes `before` came
/// earlier.
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

/// The index after the first `byte` in `haystack`. The standard library's search is vectorised (memchr); on a slice it is to be
/// had through its blocking `BufRead`, which does not fail here.
pub(super) fn find_end(byte: u8, haystack: &[u8]) -> Option<usize> {
    let mut rest = haystack;
    let end = io::BufRead::skip_until(&mut rest, byte).unwrap_or(0);
    (end > 0 && haystack[end - 1] == byte).then_some(end)
}

/// Future of [`BufReadExt::read_until`] and [`read_until_bounded`](BufReadExt::read_until_bounded).
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

/// Future of [`BufReadExt::read_line`] and [`read_line_bounded`](BufReadExt::read_line_bounded).
#[derive(Debug)]
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct ReadLineFuture<'a, R: Unpin + ?Sized> {
    reader: &'a mut R,
    buf: &'a mut String,
    /// What came so far; empty once the future is done.
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
    /// Stream of [`BufReadExt::lines`] and [`lines_bounded`](BufReadExt::lines_bounded).
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
        // A CR at the reader's end is no line's end.
        if pieces.ended == Ended::No && line.last() == Some(&b'\r') {
            line.pop();
        }
        Poll::Ready(Some(utf8::into_text(line)))
    }
}

/// Whether a stream of pieces is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    No,
    /// The last piece was ended by the reader's end, which is still to be reported.
    Unreported,
    /// A piece was too long.
    Forever,
}

pin_project! {
    /// Stream of [`BufReadExt::split`] and [`split_bounded`](BufReadExt::split_bounded).
    #[derive(Debug)]
    #[must_use = "streams do nothing unless polled"]
    pub struct Split<R> {
        #[pin]
        reader: R,
        byte: u8,
        max: usize,
        // The piece's beginning, when an error or a wait cut it.
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

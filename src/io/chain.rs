//! [`Chain`]: one reader after another.
//!
//! # States
//! *first*, until the first reader reports end of stream; then *second*. The first reader is not
//! polled after its end.
//!
//! A read into empty buffers returns 0 and says nothing about the end of a stream. (The readers of
//! this name in `futures-lite` and async-std take a vectored read into empty buffers for the end of
//! the first reader, and lose its bytes.)

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_io::{AsyncBufRead as BufRead, AsyncRead as Read};
use pin_project_lite::pin_project;

use super::IoSliceMut;

pin_project! {
    /// A reader that reads one reader until end of stream, and then another; returned by
    /// [`ReadExt::chain`](super::ReadExt::chain).
    ///
    /// # Examples
    /// ```
    /// use netpoll::io::ReadExt;
    ///
    /// # netpoll::task::block_on(async {
    /// let mut chain = (&b"ab"[..]).chain(&b"cd"[..]);
    /// chain.read_exact(&mut [0; 3]).await?;
    /// assert_eq!(chain.into_inner(), (&b""[..], &b"d"[..]));
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    pub struct Chain<A, B> {
        #[pin]
        first: A,
        #[pin]
        second: B,
        first_ended: bool,
    }
}

impl<A, B> Chain<A, B> {
    pub(super) fn new(first: A, second: B) -> Chain<A, B> {
        Chain { first, second, first_ended: false }
    }

    /// Returns references to the underlying readers.
    pub fn get_ref(&self) -> (&A, &B) {
        (&self.first, &self.second)
    }

    /// Returns mutable references to the underlying readers.
    pub fn get_mut(&mut self) -> (&mut A, &mut B) {
        (&mut self.first, &mut self.second)
    }

    /// Returns the underlying readers.
    pub fn into_inner(self) -> (A, B) {
        (self.first, self.second)
    }
}

impl<A: Read, B: Read> Read for Chain<A, B> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.project();
        if !*this.first_ended {
            match ready!(this.first.poll_read(cx, buf))? {
                0 if !buf.is_empty() => *this.first_ended = true,
                count => return Poll::Ready(Ok(count)),
            }
        }
        this.second.poll_read(cx, buf)
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        if !*this.first_ended {
            match ready!(this.first.poll_read_vectored(cx, bufs))? {
                0 if bufs.iter().any(|buf| !buf.is_empty()) => *this.first_ended = true,
                count => return Poll::Ready(Ok(count)),
            }
        }
        this.second.poll_read_vectored(cx, bufs)
    }
}

impl<A: BufRead, B: BufRead> BufRead for Chain<A, B> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.project();
        if !*this.first_ended {
            match ready!(this.first.poll_fill_buf(cx))? {
                [] => *this.first_ended = true,
                available => return Poll::Ready(Ok(available)),
            }
        }
        this.second.poll_fill_buf(cx)
    }

    fn consume(self: Pin<&mut Self>, count: usize) {
        let this = self.project();
        if *this.first_ended { this.second.consume(count) } else { this.first.consume(count) }
    }
}

impl<A: fmt::Debug, B: fmt::Debug> fmt::Debug for Chain<A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain").field("first", &self.first).field("second", &self.second).finish()
    }
}

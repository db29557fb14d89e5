//! [`Io`]: an adapter between futures-io's traits and hyper's, in both directions.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_io::{AsyncRead, AsyncWrite};
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};

/// The maximum number of bytes per read. futures-io's traits need initialised memory, so each read
/// first initialises this part of hyper's buffer. The number is the maximum payload of a TLS
/// record.
const READ_MAX: usize = 16 << 10;

/// An adapter from futures-io's traits to hyper's, for example for a TLS stream, and from hyper's
/// traits to futures-io's, for example for `hyper::upgrade::Upgraded`.
///
/// For netpoll's own streams use [`Socket`](crate::Socket), which reads without zeroing the buffer
/// and supports vectored writes.
///
/// # Examples
/// ```
/// use netpoll_hyper::Io;
///
/// fn for_hyper<T: netpoll::io::Read + netpoll::io::Write + Unpin>(
///     tls: T,
/// ) -> impl hyper::rt::Read + hyper::rt::Write + Unpin {
///     Io::new(tls)
/// }
///
/// fn for_futures_io(upgraded: hyper::upgrade::Upgraded) -> impl netpoll::io::Read + netpoll::io::Write + Unpin {
///     Io::new(upgraded)
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Io<T>(T);

impl<T> Io<T> {
    /// Wraps `stream`.
    pub fn new(stream: T) -> Io<T> {
        Io(stream)
    }

    /// Returns a reference to the wrapped stream.
    pub fn get_ref(&self) -> &T {
        &self.0
    }

    /// Returns a mutable reference to the wrapped stream.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.0
    }

    /// Returns the wrapped stream.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T: AsyncRead + Unpin> Read for Io<T> {
    #[allow(unsafe_code)]
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let most = cursor.remaining().min(READ_MAX);
        let count = ready!(Pin::new(&mut self.0).poll_read(cx, cursor.initialize_unfilled_to(most)))?;
        // SAFETY: `most` bytes are initialised, and the count is limited to `most`.
        unsafe { cursor.advance(count.min(most)) };
        Poll::Ready(Ok(()))
    }
}

/// `is_write_vectored` returns false, because futures-io's traits do not tell whether a stream
/// supports vectored writes. hyper then copies a response into one buffer. TLS can send the buffer
/// as one record if it is not larger than a record.
impl<T: AsyncWrite + Unpin> Write for Io<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }
}

impl<T: Read + Unpin> AsyncRead for Io<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(buf);
        ready!(Pin::new(&mut self.0).poll_read(cx, buf.unfilled()))?;
        Poll::Ready(Ok(buf.filled().len()))
    }
}

impl<T: Write + Unpin> AsyncWrite for Io<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

//! [`Io`]: an adapter between futures-io's traits and hyper's, in both directions.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_io::{AsyncRead, AsyncWrite};
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};

/// The maximum number of bytes of hyper's buffer that are zeroed per read, because futures-io's
/// traits need initialised memory. The size of a TLS record.
const READ_MAX: usize = 16 << 10;

/// An adapter from a stream with futures-io's traits, such as a TLS stream, to hyper's traits, and
/// from a stream with hyper's traits, such as `hyper::upgrade::Upgraded`, to futures-io's.
///
/// For netpoll's own streams use [`Socket`](crate::Socket), which reads without zeroing the buffer
/// and writes vectored.
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
    /// Wraps a stream.
    pub fn new(stream: T) -> Io<T> {
        Io(stream)
    }

    /// Returns a reference to the stream.
    pub fn get_ref(&self) -> &T {
        &self.0
    }

    /// Returns a mutable reference to the stream.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.0
    }

    /// Returns the stream.
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
        // SAFETY: `most` bytes are initialised, whatever count the stream returns.
        unsafe { cursor.advance(count.min(most)) };
        Poll::Ready(Ok(()))
    }
}

/// Vectored writes are not offered, because futures-io cannot tell whether a stream supports them.
/// hyper then puts an answer into one buffer, from which TLS makes one record.
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

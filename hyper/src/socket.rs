//! [`Socket`]: netpoll's streams with hyper's I/O traits.

use std::io::{self, IoSlice};
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_io::AsyncWrite;
use hyper::rt::{Read, ReadBufCursor, Write};
use netpoll::net::TcpStream;
use netpoll::os::unix::net::UnixStream;

/// A netpoll stream with hyper's traits `Read` and `Write`. The stream is a [`TcpStream`], a
/// [`UnixStream`] or a reference to one.
///
/// A read receives directly into hyper's buffer, which is not zeroed first. A vectored write is one
/// sendmsg(2). `Socket` dereferences to the stream. For other types of streams, such as TLS, use
/// [`Io`](crate::Io).
///
/// # Examples
/// ```
/// use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
/// use netpoll::{net::TcpStream, time::Duration};
/// use netpoll_hyper::Socket;
/// use std::convert::Infallible;
///
/// async fn serve(stream: TcpStream) -> hyper::Result<()> {
///     let service = service_fn(|_: Request<Incoming>| async { Ok::<_, Infallible>(Response::new("hello".to_owned())) });
///     http1::Builder::new().serve_connection(Socket::new(stream), service).await
/// }
/// # netpoll::task::block_on(async {
/// # let listener = netpoll::net::TcpListener::bind("127.0.0.1:0").await?;
/// # let stream = TcpStream::connect(listener.local_addr()?).await?;
/// # let client = netpoll::task::spawn(async move {
/// #     use netpoll::prelude::*;
/// #     stream.write_all(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await.unwrap();
/// #     let mut answer = String::new();
/// #     (&stream).read_to_string(&mut answer).await.unwrap();
/// #     answer
/// # });
/// # serve(listener.accept().await?.0).await.unwrap();
/// # assert!(client.await.ends_with("hello"));
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
#[derive(Clone, Copy, Debug)]
#[doc(alias = "TokioIo")]
pub struct Socket<S>(S);

impl<S> Socket<S> {
    /// Wraps `stream`.
    pub fn new(stream: S) -> Socket<S> {
        Socket(stream)
    }

    /// Returns the wrapped stream.
    pub fn into_inner(self) -> S {
        self.0
    }
}

impl<S> From<S> for Socket<S> {
    fn from(stream: S) -> Socket<S> {
        Socket(stream)
    }
}

impl<S> Deref for Socket<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.0
    }
}

/// Implements hyper's traits `Read` and `Write` for `Socket`s of the given stream types.
macro_rules! hyper_stream {
    ($($stream:ty),*) => {$(
        impl Read for Socket<$stream> {
            #[allow(unsafe_code)]
            #[inline]
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                mut cursor: ReadBufCursor<'_>,
            ) -> Poll<io::Result<()>> {
                // SAFETY: `poll_read_uninit` only writes initialised bytes to the slice.
                let buf = unsafe { cursor.as_mut() };
                let count = ready!(self.0.poll_read_uninit(cx, buf))?;
                // SAFETY: the read initialised the first `count` bytes.
                unsafe { cursor.advance(count) };
                Poll::Ready(Ok(()))
            }
        }

        impl Write for Socket<$stream> {
            #[inline]
            fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.0).poll_write(cx, buf)
            }

            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.0).poll_flush(cx)
            }

            fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.0).poll_close(cx)
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            #[inline]
            fn poll_write_vectored(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
            }
        }
    )*};
}

hyper_stream!(TcpStream, &TcpStream, UnixStream, &UnixStream);

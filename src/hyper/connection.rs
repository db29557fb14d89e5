//! One connection: HTTP/1 or HTTP/2, by what its first bytes are.
//!
//! What is read to tell them apart (up to [`HEAD_SIZE`] bytes: mostly the whole first request) is given to hyper before anything else,
//! so telling costs no system call.

use std::error::Error;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use ::http_body::Body;
use ::hyper::body::Incoming;
use ::hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use ::hyper::server::conn::{http1, http2};
use ::hyper::service::Service;
use ::hyper::{Request, Response};

use super::drain::Member;
use super::rt::{ConnectionTimer, Executor};

/// What an HTTP/2 client begins with (RFC 9113, section 3.4). No HTTP/1 request begins with its first line.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEAD_SIZE: usize = 1024;

/// How a server's connections are served.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) http1: http1::Builder,
    pub(super) http2: http2::Builder<Executor>,
    /// For how long a connection may take to say which version it speaks, with what comes before that.
    pub(super) head: Option<Duration>,
}

/// Serves a connection to its end. Its errors are its own: the peer's garbage, a broken pipe, a time that is over.
pub(super) async fn serve<F, T, S, B>(connect: F, settings: std::sync::Arc<Settings>, mut member: Member)
where
    F: Future<Output = io::Result<(T, S)>>,
    T: Read + Write + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let begin = async {
        let (io, service) = connect.await?;
        let mut io = Begun { io, head: Vec::new(), taken: 0 };
        let is_http2 = io.is_http2().await?;
        io::Result::Ok((io, service, is_http2))
    };
    match member.while_serving(settings.head, begin).await {
        Some(Ok((io, service, true))) => {
            let connection = settings.http2.serve_connection(io, service);
            member.drive(connection, |connection| connection.graceful_shutdown()).await;
        }
        Some(Ok((io, service, false))) => {
            let mut http1 = settings.http1.clone();
            http1.timer(ConnectionTimer::default());
            let connection = http1.serve_connection(io, service).with_upgrades();
            member.drive(connection, |connection| connection.graceful_shutdown()).await;
        }
        Some(Err(_)) | None => {}
    }
}

/// A stream of which the first bytes have been read, and are read again.
#[derive(Debug)]
struct Begun<T> {
    io: T,
    head: Vec<u8>,
    /// How many of them hyper has.
    taken: usize,
}

impl<T: Read + Unpin> Begun<T> {
    /// Reads until the first bytes are, or are not, those of HTTP/2. (An end before that is for HTTP/1 to deal with.)
    async fn is_http2(&mut self) -> io::Result<bool> {
        let mut head = vec![0; HEAD_SIZE];
        let mut count = 0;
        let is_http2 = loop {
            let mut buf = ReadBuf::new(&mut head[count..]);
            poll_fn(|cx| Pin::new(&mut self.io).poll_read(cx, buf.unfilled())).await?;
            let more = buf.filled().len();
            count += more;
            let known = count.min(PREFACE.len());
            if more == 0 || head[..known] != PREFACE[..known] {
                break false;
            }
            if known == PREFACE.len() {
                break true;
            }
        };
        head.truncate(count);
        self.head = head;
        Ok(is_http2)
    }
}

impl<T: Read + Unpin> Read for Begun<T> {
    #[inline]
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if self.head.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let rest = &self.head[self.taken..];
        let count = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..count]);
        self.taken += count;
        if self.taken == self.head.len() {
            self.head = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: Write + Unpin> Write for Begun<T> {
    #[inline]
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    #[inline]
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}

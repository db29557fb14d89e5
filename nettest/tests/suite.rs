//! Tests that netpoll's connections, and a type that wraps one, have the properties of the suite,
//! and that a property fails on a type that violates it.

use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use netpoll::io::{Read, Write};
use netpoll::net::{self, Addr, Conn, Pipe, TcpListener, TcpStream};
use netpoll::task;
use netpoll::unix::UnixStream;
use netpoll_nettest::conn_suite;

async fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (client, server)
}

async fn unix() -> (UnixStream, UnixStream) {
    UnixStream::pair().unwrap()
}

async fn pipe() -> (Pipe, Pipe) {
    net::pipe().unwrap()
}

conn_suite!(over_tcp, super::tcp);
conn_suite!(over_unix, super::unix);
conn_suite!(over_pipe, super::pipe);
conn_suite!(over_wrapper, super::wrapped);

/// A connection that forwards its operations to a [`Pipe`].
#[derive(Clone, Debug)]
struct Wrapper {
    inner: Pipe,
    /// Whether read deadlines are not forwarded.
    ignores_deadlines: bool,
}

async fn wrapped() -> (Wrapper, Wrapper) {
    let (one, other) = net::pipe().unwrap();
    (Wrapper { inner: one, ignores_deadlines: false }, Wrapper { inner: other, ignores_deadlines: false })
}

impl Read for Wrapper {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl Write for Wrapper {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

impl Conn for Wrapper {
    async fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buf).await
    }

    async fn write(&self, buf: &[u8]) -> io::Result<usize> {
        self.inner.write(buf).await
    }

    async fn write_all(&self, buf: &[u8]) -> io::Result<()> {
        self.inner.write_all(buf).await
    }

    fn set_read_deadline(&self, deadline: Option<Instant>) -> io::Result<()> {
        if self.ignores_deadlines { Ok(()) } else { self.inner.set_read_deadline(deadline) }
    }

    fn set_write_deadline(&self, deadline: Option<Instant>) -> io::Result<()> {
        self.inner.set_write_deadline(deadline)
    }

    fn local(&self) -> Option<Addr> {
        None
    }

    fn peer(&self) -> Option<Addr> {
        None
    }

    fn close_write(&self) -> io::Result<()> {
        self.inner.close_write()
    }

    fn force_close(&self) -> impl Future<Output = io::Result<()>> + Send + use<> {
        self.inner.force_close()
    }
}

#[test]
fn connection_that_ignores_read_deadlines_fails_past_timeout() {
    let result = catch_unwind(AssertUnwindSafe(|| {
        netpoll_nettest::run(async {
            let (one, other) = net::pipe().unwrap();
            // The peer sends a byte, so that the read does not wait forever.
            let writer = other.clone();
            task::spawn(async move { writer.write_all(b"x").await });
            let one = Wrapper { inner: one, ignores_deadlines: true };
            netpoll_nettest::past_timeout(one, Wrapper { inner: other, ignores_deadlines: true }).await;
        });
    }));
    let message = *result.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("must time out"), "{message}");
}

//! A type for connections of every kind, and wakers that count their wake-ups.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use futures::io::{AsyncRead, AsyncWrite};
use netpoll::net::{Pipe, TcpListener, TcpStream, pipe};
use netpoll::os::unix::net::UnixStream;
use netpoll::task;

use crate::oracle::Token;
use crate::program::Stream;

/// One end of a connection.
#[derive(Clone, Debug)]
pub enum Conn {
    Tcp(TcpStream),
    Unix(UnixStream),
    Pipe(Pipe),
}

macro_rules! each {
    ($conn:expr, $inner:ident => $body:expr) => {
        match $conn {
            Conn::Tcp($inner) => $body,
            Conn::Unix($inner) => $body,
            Conn::Pipe($inner) => $body,
        }
    };
}

impl Conn {
    /// Opens a connection and returns both ends.
    pub async fn pair(kind: Stream) -> io::Result<(Conn, Conn)> {
        match kind {
            Stream::Tcp => {
                let listener = TcpListener::bind("127.0.0.1:0").await?;
                let client = TcpStream::connect(listener.local_addr()?).await?;
                let (server, _) = listener.accept().await?;
                Ok((Conn::Tcp(client), Conn::Tcp(server)))
            }
            Stream::Unix => UnixStream::pair().map(|(one, other)| (Conn::Unix(one), Conn::Unix(other))),
            Stream::Pipe => pipe().map(|(one, other)| (Conn::Pipe(one), Conn::Pipe(other))),
        }
    }

    pub async fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        each!(self, conn => conn.read(buf).await)
    }

    pub async fn write(&self, buf: &[u8]) -> io::Result<usize> {
        each!(self, conn => conn.write(buf).await)
    }

    pub async fn write_all(&self, buf: &[u8]) -> io::Result<()> {
        each!(self, conn => conn.write_all(buf).await)
    }

    /// Waits until data is available. A pipe has no `readable`, so this method reads from it.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Conn::Tcp(conn) => conn.readable().await,
            Conn::Unix(conn) => conn.readable().await,
            Conn::Pipe(conn) => conn.read(&mut [0; 1]).await.map(drop),
        }
    }

    /// Peeks at the available data. A pipe has no `peek`, so this method reads from it.
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Conn::Tcp(conn) => conn.peek(buf).await,
            Conn::Unix(conn) => conn.peek(buf).await,
            Conn::Pipe(conn) => conn.read(buf).await,
        }
    }

    /// Waits until the peer has closed. A pipe has no `peer_closed`, so this method reads from it.
    pub async fn peer_closed(&self) -> io::Result<()> {
        match self {
            Conn::Tcp(conn) => conn.peer_closed().await,
            Conn::Unix(conn) => conn.peer_closed().await,
            Conn::Pipe(conn) => conn.read(&mut [0; 1]).await.map(drop),
        }
    }

    pub fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        each!(self, conn => { let mut conn = conn; Pin::new(&mut conn).poll_read(cx, buf) })
    }

    pub fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, conn => { let mut conn = conn; Pin::new(&mut conn).poll_write(cx, buf) })
    }

    /// Shuts down the sending direction.
    pub fn finish(&self) -> io::Result<()> {
        each!(self, conn => conn.close_write())
    }

    /// Closes this end with `force_close`, even while other tasks use it.
    pub fn close(&self) {
        each!(self, conn => drop(conn.force_close()))
    }

    pub fn set_read_deadline(&self, deadline: Option<Instant>) -> io::Result<()> {
        each!(self, conn => conn.set_read_deadline(deadline))
    }

    pub fn set_write_deadline(&self, deadline: Option<Instant>) -> io::Result<()> {
        each!(self, conn => conn.set_write_deadline(deadline))
    }

    pub fn set_deadline(&self, deadline: Option<Instant>) -> io::Result<()> {
        each!(self, conn => conn.set_deadline(deadline))
    }

    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        each!(self, conn => conn.set_read_timeout(timeout))
    }

    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        each!(self, conn => conn.set_write_timeout(timeout))
    }
}

/// Writes until three writes in a row return Pending, or until a write fails.
pub async fn fill(conn: &Conn) {
    let chunk = vec![7; 64 << 10];
    let mut idle = 0;
    while idle < 3 {
        let polled = poll_fn(|cx| Poll::Ready(conn.poll_write(cx, &chunk))).await;
        match polled {
            Poll::Ready(Ok(_)) => idle = 0,
            Poll::Ready(Err(_)) => return,
            Poll::Pending => {
                idle += 1;
                task::yield_now().await;
            }
        }
    }
}

/// Returns the byte at offset `at` of the fixed byte sequence that the actions send.
pub fn byte(at: usize) -> u8 {
    (at ^ (at >> 8).wrapping_mul(31)) as u8
}

/// Returns `count` bytes of the sequence of [`byte`], from offset `at` on.
pub fn bytes(at: usize, count: usize) -> Vec<u8> {
    (at..at + count).map(byte).collect()
}

/// A waker that counts its wake-ups. The oracle counts these wakers.
#[derive(Debug)]
pub struct Counting {
    woken: AtomicU64,
    _token: Token,
}

impl Counting {
    pub fn new() -> Arc<Counting> {
        Arc::new(Counting { woken: AtomicU64::new(0), _token: Token::new("waker") })
    }

    pub fn woken(&self) -> u64 {
        self.woken.load(SeqCst)
    }
}

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, SeqCst);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.fetch_add(1, SeqCst);
    }
}

/// Returns a new waker.
pub fn fresh_waker() -> Waker {
    Waker::from(Counting::new())
}

//! [`copy_bidirectional`]: two transfers, the end of one passed on while the other goes on.
//!
//! # States
//! Each direction is *copying* → (its reader is at the end) *closing* the writer → *done*; or done at once when its writer's peer has
//! gone. Both done, or one failed: over.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_io::{AsyncRead as Read, AsyncWrite as Write};

use super::transfer::{End, Transfer};
use crate::time::Sleep;

/// Copies from `a` to `b` and from `b` to `a` at once, until both have ended; how many bytes went from `a`, and from `b`. What a proxy
/// does.
///
/// The end of one side's stream is passed on by closing (`poll_close`) the other for writing, while the other direction goes on. Each
/// direction goes as in [`copy`](crate::io::copy()): between sockets the bytes stay in the kernel, and while a side is silent the other
/// is watched. A peer that has closed both its sides ends the direction to it, also when nobody has anything to say to it. One
/// that vanished without a word is found by keep-alive, or by [`copy_bidirectional_with`].
///
/// # Errors
/// The first of either direction, as [`copy`](crate::io::copy()): `ConnectionReset` most of all. The other direction ends with it.
///
/// # Cancel safety
/// As [`copy`](crate::io::copy()): what has been read and not written is lost.
///
/// Source: `tokio::io::copy_bidirectional`; Go's proxies run `io.Copy` twice.
///
/// # Examples
/// ```
/// use netpoll::io;
/// use netpoll::net::{TcpListener, TcpStream};
///
/// # netpoll::task::block_on(async {
/// # let server = TcpListener::bind("127.0.0.1:0").await?;
/// # let target = server.local_addr()?;
/// let proxy = TcpListener::bind("127.0.0.1:0").await?;
/// let client = TcpStream::connect(proxy.local_addr()?).await?;
///
/// let (mut inbound, _) = proxy.accept().await?;
/// let mut outbound = TcpStream::connect(target).await?;
/// # client.write_all(b"ping").await?;
/// # drop((client, server.accept().await?));
/// let (up, down) = io::copy_bidirectional(&mut inbound, &mut outbound).await?;
/// # assert_eq!((up, down), (4, 0));
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub async fn copy_bidirectional<A, B>(a: &mut A, b: &mut B) -> io::Result<(u64, u64)>
where
    A: Read + Write + Unpin + ?Sized,
    B: Read + Write + Unpin + ?Sized,
{
    run(a, b, None).await
}

/// Like [`copy_bidirectional`], and gives up when nothing has moved in either direction for `idle`.
///
/// # Errors
/// As [`copy_bidirectional`]; kind `TimedOut` when it gives up.
///
/// # Cancel safety
/// As [`copy_bidirectional`].
///
/// # Examples
/// ```
/// use netpoll::{io, net::is_timeout};
/// # use netpoll::net::{TcpListener, TcpStream};
/// use std::time::Duration;
///
/// # netpoll::task::block_on(async {
/// # let listener = TcpListener::bind("127.0.0.1:0").await?;
/// # let mut a = TcpStream::connect(listener.local_addr()?).await?;
/// # let mut b = TcpStream::connect(listener.local_addr()?).await?;
/// let ended = io::copy_bidirectional_with(&mut a, &mut b, Duration::from_millis(10)).await;
/// assert!(is_timeout(&ended.unwrap_err()));
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub async fn copy_bidirectional_with<A, B>(a: &mut A, b: &mut B, idle: Duration) -> io::Result<(u64, u64)>
where
    A: Read + Write + Unpin + ?Sized,
    B: Read + Write + Unpin + ?Sized,
{
    run(a, b, Some(Idle::new(idle))).await
}

async fn run<A, B>(a: &mut A, b: &mut B, mut idle: Option<Idle>) -> io::Result<(u64, u64)>
where
    A: Read + Write + Unpin + ?Sized,
    B: Read + Write + Unpin + ?Sized,
{
    let (mut there, mut back) = (Half::new(a, b), Half::new(b, a));
    poll_fn(|cx| {
        let polled = (there.poll(cx, a, b)?, back.poll(cx, b, a)?);
        if polled == (Poll::Ready(()), Poll::Ready(())) {
            return Poll::Ready(Ok((there.transfer.written(), back.transfer.written())));
        }
        let progress = there.transfer.progress().wrapping_add(back.transfer.progress());
        idle.as_mut().map_or(Poll::Pending, |idle| idle.poll(cx, progress).map(Err))
    })
    .await
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Copying,
    Closing,
    Done,
}

#[derive(Debug)]
struct Half {
    transfer: Transfer,
    state: State,
}

impl Half {
    fn new<R: ?Sized, W: ?Sized>(reader: &mut R, writer: &mut W) -> Half {
        Half { transfer: Transfer::new(reader, writer), state: State::Copying }
    }

    fn poll<R, W>(&mut self, cx: &mut Context<'_>, reader: &mut R, writer: &mut W) -> Poll<io::Result<()>>
    where
        R: Read + Unpin + ?Sized,
        W: Write + Unpin + ?Sized,
    {
        if self.state == State::Copying {
            self.state = match ready!(self.transfer.poll(cx, reader, writer))? {
                End::Source => State::Closing,
                End::Gone => State::Done,
            };
        }
        if self.state == State::Closing {
            ready!(Pin::new(writer).poll_close(cx))?;
            self.state = State::Done;
        }
        Poll::Ready(Ok(()))
    }
}

/// The limit on silence: one timer, moved when it fires.
#[derive(Debug)]
struct Idle {
    limit: Duration,
    sleep: Sleep,
    progress: u64,
    /// When the progress was last seen to change.
    since: Instant,
}

impl Idle {
    fn new(limit: Duration) -> Idle {
        Idle { limit, sleep: Sleep::new(limit), progress: 0, since: Instant::now() }
    }

    /// Ready: nothing has moved for too long.
    fn poll(&mut self, cx: &mut Context<'_>, progress: u64) -> Poll<io::Error> {
        if progress != self.progress {
            (self.progress, self.since) = (progress, Instant::now());
        }
        loop {
            ready!(Pin::new(&mut self.sleep).poll(cx));
            match self.since.checked_add(self.limit) {
                Some(until) if until > Instant::now() => self.sleep.reset(until),
                Some(_) => return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "nothing moved: idle timeout")),
                None => return Poll::Pending,
            }
        }
    }
}

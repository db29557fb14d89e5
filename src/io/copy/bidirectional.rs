//! [`copy_bidirectional`]: two transfers in opposite directions, with half-close.
//!
//! # States
//! Each direction is *copying*, then *closing* the writer (after its reader reached end of stream),
//! then *done*. If its writer fails before the end of the stream, or the writer's peer is gone, the
//! direction is *discarding*: it reads and drops bytes until its reader ends or fails, and is then
//! *done*. If its reader fails, that side counts as lost, and both directions end without waiting.
//! The copy is complete when each direction is discarding or done.
//!
//! # Why a failed read does not close the writer
//! `poll_close` of a writer may tell the peer that the stream is complete, as TLS does with
//! close_notify and a compressor with its trailer. After a failed read the stream is not complete,
//! so the writer is only flushed. A socket is closed for writing nevertheless, because dropping it
//! sends FIN as well.
//!
//! # Why bytes are discarded
//! A server may refuse an upload: it answers and closes while the client is still sending. The
//! answer travels in the other direction, which runs to its end. A client that sends everything
//! before it reads must be able to finish sending. Also, closing a socket with unread data causes a
//! reset, which may overtake the answer.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use futures_io::{AsyncRead as Read, AsyncWrite as Write};

use super::buffer::{Buffer, Fault};
use super::transfer::{End, Transfer};
use crate::rt::refusals;
use crate::rt::time::clock;
use crate::time::Sleep;
use crate::time::limit::Grace;

/// Copies from `a` to `b` and from `b` to `a` concurrently, until both directions have ended.
/// Returns the number of bytes copied from `a` and from `b`. This is the core of a proxy.
///
/// When one side's stream ends, the other side is closed for writing (`poll_close`), and the other
/// direction continues. Each direction works like [`copy`](crate::io::copy()): between sockets the
/// bytes stay in the kernel, and while one side is silent, the other side is watched. When a peer
/// has closed both directions of its connection, the direction towards it ends, even if there is no
/// data to send. A peer that vanished silently is detected by keep-alive or by the idle limit of
/// [`copy_bidirectional_with`].
///
/// If writing to one side fails, the other direction runs to its end, so the last response of a
/// server that has closed is delivered. In the meantime bytes for the failed side are read and
/// dropped. If reading from one side fails, both directions end immediately. The other side is
/// flushed as far as this is possible without waiting; flush it again to send the rest. It is
/// closed for writing only if it is a socket, because closing a TLS stream would tell its peer that
/// the stream is complete.
///
/// # Errors
/// Returns the first error of either direction, as described for [`copy`](crate::io::copy()), most
/// often `BrokenPipe` or `ConnectionReset`. Unlike in `copy`, it is not an error if a peer closes
/// both directions without a reset while there is no data to send to it, even if later data for it
/// is dropped. An error is returned when both directions have ended. It does not contain the
/// numbers of bytes copied.
///
/// # Cancel safety
/// Not cancel safe: bytes that were read but not written are lost, as with
/// [`copy`](crate::io::copy()).
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

/// Copies in both directions like [`copy_bidirectional`], but fails if no bytes are copied in
/// either direction for the duration `idle`. Bytes that are read and dropped do not count.
///
/// # Errors
/// Returns the errors of [`copy_bidirectional`]. After `idle` without progress, returns `TimedOut`,
/// even if one direction has already failed with another error.
///
/// # Cancel safety
/// Same as [`copy_bidirectional`].
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
    let mut failure = None;
    poll_fn(|cx| {
        let refusals = refusals::count();
        if there.poll(cx, a, b, &mut failure) {
            back.give_up();
        } else if back.poll(cx, b, a, &mut failure) {
            there.give_up();
        }
        // `poll` only copies and closes. A half that is discarding reads here.
        there.discard(cx, a);
        back.discard(cx, b);
        if there.is_over() && back.is_over() {
            let counts = (there.transfer.written(), back.transfer.written());
            return Poll::Ready(failure.take().map_or(Ok(counts), Err));
        }
        let progress = there.transfer.progress().wrapping_add(back.transfer.progress());
        let was_refused = refusals::count() != refusals;
        idle.as_mut().map_or(Poll::Pending, |idle| idle.poll(cx, progress, was_refused).map(Err))
    })
    .await
}

#[derive(Debug)]
enum State {
    Copying,
    /// The reader is at end of stream.
    Closing,
    /// The writer accepts no more bytes. Bytes that are read are dropped.
    Discarding(Box<Buffer>),
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

    fn is_over(&self) -> bool {
        matches!(self.state, State::Discarding(_) | State::Done)
    }

    /// Polls the copy, then the close. Stores the first error of both halves in `failure`. Returns
    /// true if the reader has failed. The other half, which writes to the side of this reader, must
    /// then end too.
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        failure: &mut Option<io::Error>,
    ) -> bool
    where
        R: Read + Unpin + ?Sized,
        W: Write + Unpin + ?Sized,
    {
        if matches!(self.state, State::Copying) {
            self.state = match self.transfer.poll(cx, reader, writer) {
                Poll::Pending => return false,
                Poll::Ready(Ok(End::Source)) => State::Closing,
                Poll::Ready(Ok(End::Gone)) => State::Discarding(Box::default()),
                Poll::Ready(Err(Fault::Writer(error))) => {
                    failure.get_or_insert(error);
                    if self.transfer.is_at_end() { State::Done } else { State::Discarding(Box::default()) }
                }
                Poll::Ready(Err(Fault::Reader(error))) => {
                    failure.get_or_insert(error);
                    self.leave(writer);
                    return true;
                }
            };
            self.transfer.stop();
        }
        if matches!(self.state, State::Closing) {
            match Pin::new(writer).poll_close(cx) {
                Poll::Ready(Ok(())) => self.state = State::Done,
                Poll::Ready(Err(error)) => {
                    failure.get_or_insert(error);
                    self.state = State::Done;
                }
                Poll::Pending => {}
            }
        }
        false
    }

    /// Ends this half after its reader has failed. Ends the stream of a socket. Flushes another
    /// writer as far as this is possible without waiting.
    fn leave<W: Write + Unpin + ?Sized>(&mut self, writer: &mut W) {
        self.transfer.stop();
        self.state = State::Done;
        // The reader's error is reported instead of an error of the writer. The flush is polled
        // only once, so it gets a waker that wakes no task. With such a waker, an operation that
        // need not wait is ready even if the task has used up its turn.
        if !self.transfer.end_socket() {
            let _ = Pin::new(writer).poll_flush(&mut Context::from_waker(Waker::noop()));
        }
    }

    /// Ends this half after the other half has failed to read from this half's writer.
    fn give_up(&mut self) {
        if matches!(self.state, State::Copying) && !self.transfer.is_at_end() {
            self.state = State::Discarding(Box::default());
        } else if !self.is_over() {
            self.state = State::Done;
        }
        self.transfer.stop();
    }

    /// Reads and drops bytes if this half is discarding; see the module documentation.
    fn discard<R: Read + Unpin + ?Sized>(&mut self, cx: &mut Context<'_>, reader: &mut R) {
        if let State::Discarding(buffer) = &mut self.state
            && buffer.poll_discard(cx, reader).is_ready()
        {
            self.state = State::Done;
        }
    }
}

/// The idle limit. It uses one timer, which is moved only when the timer fires.
#[derive(Debug)]
struct Idle {
    limit: Duration,
    sleep: Sleep,
    progress: u64,
    /// The time at which progress was last seen.
    since: Instant,
    /// Whether the expiry was postponed after `since`.
    grace: Grace,
}

impl Idle {
    fn new(limit: Duration) -> Idle {
        Idle { limit, sleep: Sleep::new(limit), progress: 0, since: clock::instant(), grace: Grace::default() }
    }

    /// Returns `Ready` with an error when no bytes were copied within the time limit. `progress`
    /// changes whenever bytes are copied. If an operation was refused, bytes may be available, so
    /// the task is polled once more, as in [`Limit`](crate::time::limit::Limit).
    fn poll(&mut self, cx: &mut Context<'_>, progress: u64, was_refused: bool) -> Poll<io::Error> {
        if progress != self.progress {
            (self.progress, self.since, self.grace) = (progress, clock::instant(), Grace::default());
        }
        loop {
            ready!(Pin::new(&mut self.sleep).poll(cx));
            match self.since.checked_add(self.limit) {
                Some(until) if until > clock::instant() => self.sleep.reset(until),
                Some(_) if self.grace.postpones(was_refused, cx) => return Poll::Pending,
                Some(_) => {
                    return Poll::Ready(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "no bytes copied within the idle timeout",
                    ));
                }
                None => return Poll::Pending,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::buffer::BYTES_PER_POLL;
    use super::*;
    use std::pin::pin;

    /// A side that always has bytes to read, unless its reads fail, and accepts no bytes.
    struct Side {
        read: u64,
        fails: bool,
    }

    impl Read for Side {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
            if self.fails {
                return Poll::Ready(Err(io::ErrorKind::Other.into()));
            }
            self.read += buf.len() as u64;
            Poll::Ready(Ok(buf.len()))
        }
    }

    impl Write for Side {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn one_poll_discards_no_more_than_its_share() {
        let (mut a, mut b) = (Side { read: 0, fails: true }, Side { read: 0, fails: false });
        {
            let copy = pin!(copy_bidirectional(&mut a, &mut b));
            assert!(copy.poll(&mut Context::from_waker(Waker::noop())).is_ready());
        }
        assert!((BYTES_PER_POLL..2 * BYTES_PER_POLL).contains(&b.read), "{}", b.read);
    }
}

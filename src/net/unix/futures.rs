//! The futures that send and receive messages and descriptors. Like those of
//! [`net::futures`](crate::net::futures), they are named types and `Unpin`.
//!
//! # Full queues of receivers
//! On Linux, a datagram send returns EAGAIN if the receiver's queue is full. A connected sender
//! gets an event when there is room. A sender that names the receiver gets an event when one of its
//! own datagrams is consumed, and after each attempt that fails, but no event when the receiver
//! consumes datagrams of other senders. Waiting for events would therefore hang or spin. A
//! [`Destination`] determines whether the send buffer or the receiver's queue is full. If the send
//! buffer is full, the send waits for events. If the receiver's queue is full, the send retries on
//! a timer: after 0.1 ms, then after twice as long each time, up to 20 ms. (Go waits for events.)
//!
//! # Cancellation
//! Data is transferred only by the poll that returns `Ready`. A future that is dropped before it
//! completes has sent and received nothing.

use std::future::Future;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use socket2::SockAddr;

use super::address::Name;
use super::fds;
use crate::net::fd::backoff::Backoff;
use crate::net::fd::operation::{LockScope, Operation, Remaining};
use crate::net::futures::operation_future;
use crate::net::net_fd::NetFd;
use crate::rt::poll::poller::{Direction, Failure};
use crate::rt::time::clock;
use crate::rt::time::sleep::Sleep;
use crate::rt::waiters::Waiter;
use crate::sys::unix::from_kernel;
use crate::sys::{message, socket};

/// Attempts to receive one message. Message sockets pass `LockScope::None`, because the kernel
/// gives each message to one reader; streams pass `LockScope::PerCall`. `end` returns the result of
/// a receive after receiving was shut down. In that state a non-blocking datagram socket returns
/// EAGAIN, as for an empty queue; a blocking socket returns 0.
pub(super) fn poll_message<T>(
    fd: &NetFd,
    scope: LockScope,
    operation: &mut Operation,
    cx: &mut Context<'_>,
    end: impl Fn() -> io::Result<T>,
    mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
) -> Poll<io::Result<T>> {
    let polled = fd.fd.poll_call(Direction::Read, scope, Waiter::Future(operation), cx, |socket| {
        let mut result = call(socket);
        if is_would_block(&result) && fd.fd.is_receiving_shut() {
            // A message and the hang-up may have arrived since the call. Nothing arrives after the
            // hang-up, so if the queue is still empty, no message is left.
            result = call(socket);
            if is_would_block(&result) {
                result = end();
            }
        }
        Ok((result?, Remaining::Maybe))
    });
    polled.map_err(|failure| fd.error("read", failure))
}

fn is_would_block<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// Returns the result of a receive after a shutdown: no bytes, from an unnamed sender.
fn end_from() -> io::Result<(usize, SocketAddr)> {
    Ok((0, SocketAddr::from_pathname("")?))
}

/// Attempts to send one message.
fn poll_send<T>(
    fd: &NetFd,
    scope: LockScope,
    operation: &mut Operation,
    cx: &mut Context<'_>,
    mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
) -> Poll<io::Result<T>> {
    let polled =
        fd.fd.poll_call(Direction::Write, scope, Waiter::Future(operation), cx, |fd| Ok((call(fd)?, Remaining::Maybe)));
    polled.map_err(|failure| fd.error("write", failure))
}

fn with_sender((count, from): (usize, SockAddr)) -> io::Result<(usize, SocketAddr)> {
    Ok((count, from_kernel(&from)?))
}

/// Returns whether a send that names its receiver may have failed because the receiver's queue is
/// full. Returns true if poll(2) reports room in the send buffer. Also returns true if the socket
/// has a peer, because then the result of poll(2) also depends on the peer's queue.
fn is_about_receiver(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(socket::is_ready(fd, true)? || socket::peer_addr_any(fd).is_ok())
}

/// The destination of a message, and the state of retries.
#[derive(Debug)]
pub(crate) struct Destination {
    to: io::Result<SockAddr>,
    backoff: Backoff,
    pause: Option<Sleep>,
    /// The end of the write timeout, which starts with the first pause. The outer option is `None`
    /// before the first pause, and the inner option is `None` without a timeout.
    until: Option<Option<Instant>>,
}

impl Destination {
    pub(super) fn new(name: Name<'_>) -> Destination {
        let backoff = Backoff::new(Duration::from_micros(100), Duration::from_millis(20));
        Destination { to: name.raw(), backoff, pause: None, until: None }
    }

    /// Attempts to send one message, and waits as the module documentation describes.
    fn poll_send(
        &mut self,
        fd: &NetFd,
        operation: &mut Operation,
        cx: &mut Context<'_>,
        call: impl Fn(BorrowedFd<'_>, &SockAddr) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let to = match &mut self.to {
            Ok(to) => to,
            Err(error) => return Poll::Ready(Err(std::mem::replace(error, io::ErrorKind::InvalidInput.into()))),
        };
        loop {
            if let Some(pause) = &mut self.pause {
                if let Poll::Ready(Err(failure)) = fd.fd.poll_end(Direction::Write, operation, cx) {
                    return Poll::Ready(Err(fd.error("write", failure)));
                }
                ready!(Pin::new(pause).poll(cx));
                self.pause = None;
                fd.fd.resume(Direction::Write, operation);
            }
            let sent = ready!(poll_send(fd, LockScope::None, operation, cx, |fd| match call(fd, to) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && is_about_receiver(fd)? => Ok(None),
                result => result.map(Some),
            }));
            match sent {
                Ok(None) => {
                    let now = clock::instant();
                    let timeout = fd.fd.timeouts.get(Direction::Write);
                    let until = *self.until.get_or_insert_with(|| timeout.and_then(|timeout| now.checked_add(timeout)));
                    if until.is_some_and(|until| until <= now) {
                        return Poll::Ready(Err(fd.error("write", Failure::TimedOut)));
                    }
                    let next = now + self.backoff.next();
                    self.pause = Some(Sleep::until(until.map_or(next, |until| until.min(next))));
                }
                Ok(Some(count)) => {
                    fd.count_message(Direction::Write, count, 0);
                    return Poll::Ready(Ok(count));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

operation_future! {
    /// Receives a message; returned by [`UnixDatagram::recv`](super::UnixDatagram::recv) and the
    /// other `recv` and `peek` methods of Unix datagram and seqpacket sockets.
    Recv<'a> { buf: &'a mut [u8], flags: libc::c_int }, Read -> io::Result<usize>,
    |this, cx| poll_message(this.fd, LockScope::None, &mut this.operation, cx, || Ok(0),
        |fd| socket::recv(fd, this.buf, this.flags)
            .inspect(|&count| this.fd.count_message(Direction::Read, count, this.flags)))
}

operation_future! {
    /// Receives a datagram and its sender's address; returned by
    /// [`UnixDatagram::recv_from`](super::UnixDatagram::recv_from) and `peek_from`.
    RecvFrom<'a> { buf: &'a mut [u8], flags: libc::c_int }, Read -> io::Result<(usize, SocketAddr)>,
    |this, cx| poll_message(this.fd, LockScope::None, &mut this.operation, cx, end_from,
        |fd| message::recv_from(fd, this.buf, this.flags)
            .inspect(|received| this.fd.count_message(Direction::Read, received.0, this.flags))
            .and_then(with_sender))
}

operation_future! {
    /// Sends a message to the peer; returned by [`UnixDatagram::send`](super::UnixDatagram::send)
    /// and `UnixSeqpacket::send`.
    Send<'a> { buf: &'a [u8] }, Write -> io::Result<usize>,
    |this, cx| poll_send(this.fd, LockScope::None, &mut this.operation, cx, |fd| socket::send(fd, this.buf, 0)
        .inspect(|&count| this.fd.count_message(Direction::Write, count, 0)))
}

operation_future! {
    /// Sends a datagram to a named socket; returned by
    /// [`UnixDatagram::send_to`](super::UnixDatagram::send_to) and `send_to_addr`.
    SendTo<'a> { buf: &'a [u8], to: Destination }, Write -> io::Result<usize>,
    |this, cx| {
        let buf = this.buf;
        this.to.poll_send(this.fd, &mut this.operation, cx, |fd, to| message::send_to(fd, buf, to, 0))
    }
}

operation_future! {
    /// Sends bytes with descriptors; returned by
    /// [`UnixStream::send_with_fds`](super::UnixStream::send_with_fds) and the same methods of
    /// other Unix sockets.
    SendWithFds<'a> { buf: &'a [u8], fds: &'a [BorrowedFd<'a>], scope: LockScope }, Write -> io::Result<usize>,
    |this, cx| {
        if this.scope != LockScope::None && this.buf.is_empty() && !this.fds.is_empty() {
            return Poll::Ready(Err(fds::need_a_byte()));
        }
        poll_send(this.fd, this.scope, &mut this.operation, cx, |fd| fds::send(fd, this.buf, this.fds, None)
            .inspect(|&count| this.fd.count_message(Direction::Write, count, 0)))
    }
}

operation_future! {
    /// Sends a datagram with descriptors to a named socket; returned by
    /// [`UnixDatagram::send_to_with_fds`](super::UnixDatagram::send_to_with_fds).
    SendToWithFds<'a> { buf: &'a [u8], fds: &'a [BorrowedFd<'a>], to: Destination }, Write -> io::Result<usize>,
    |this, cx| {
        let (buf, fds) = (this.buf, this.fds);
        this.to.poll_send(this.fd, &mut this.operation, cx, |fd, to| fds::send(fd, buf, fds, Some(to)))
    }
}

operation_future! {
    /// Receives bytes with descriptors; returned by
    /// [`UnixStream::recv_with_fds`](super::UnixStream::recv_with_fds) and the same methods of
    /// other Unix sockets.
    RecvWithFds<'a> { buf: &'a mut [u8], fds: &'a mut Vec<OwnedFd>, scope: LockScope }, Read -> io::Result<usize>,
    |this, cx| {
        if this.scope != LockScope::None && this.buf.is_empty() {
            return this.fd.poll_empty(Direction::Read, "read", cx);
        }
        poll_message(this.fd, this.scope, &mut this.operation, cx, || Ok(0),
            |fd| fds::recv(fd, this.buf, this.fds)
                .inspect(|received| this.fd.count_message(Direction::Read, received.0, 0))
                .map(|(count, _)| count))
    }
}

operation_future! {
    /// Receives a datagram, its descriptors and its sender's address; returned by
    /// [`UnixDatagram::recv_from_with_fds`](super::UnixDatagram::recv_from_with_fds).
    RecvFromWithFds<'a> { buf: &'a mut [u8], fds: &'a mut Vec<OwnedFd> }, Read -> io::Result<(usize, SocketAddr)>,
    |this, cx| poll_message(this.fd, LockScope::None, &mut this.operation, cx, end_from,
        |fd| fds::recv(fd, this.buf, this.fds)
            .inspect(|received| this.fd.count_message(Direction::Read, received.0, 0))
            .and_then(with_sender))
}

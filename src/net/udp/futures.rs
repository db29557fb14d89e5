//! The futures that the methods of UDP sockets return. They are named types and `Unpin`, so they
//! can be stored and polled in place.
//!
//! # Cancel safety
//! Only the poll that returns `Ready` receives or sends datagrams, so dropping a future loses no
//! datagram. If a dropped future was woken and did not use the wake-up, the next waiter is woken.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockAddr;

use super::ancillary::Ancillary;
use super::batch::{RecvBatch, RecvInfo, SendBatch};
use super::calls::Segmentation;
use super::targets::{Targets, canonical, is_address_error};
use crate::net::ToSocketAddrsFuture;
use crate::net::fd::operation::Operation;
use crate::net::futures::operation_future;
use crate::net::net_fd::NetFd;
use crate::rt::poll::poller::Direction;
use crate::rt::waiters::Waiter;

operation_future! {
    /// Receives a datagram; returned by [`UdpSocket::recv`](super::UdpSocket::recv).
    RecvDatagram<'a> { buf: &'a mut [u8] }, Read -> io::Result<usize>,
    |this, cx| this.fd.poll_recv(Waiter::Future(&mut this.operation), cx, this.buf, 0)
}

operation_future! {
    /// Receives a datagram and leaves it in the socket; returned by
    /// [`UdpSocket::peek`](super::UdpSocket::peek).
    PeekDatagram<'a> { buf: &'a mut [u8] }, Read -> io::Result<usize>,
    |this, cx| this.fd.poll_recv(Waiter::Future(&mut this.operation), cx, this.buf, libc::MSG_PEEK)
}

operation_future! {
    /// Receives a datagram and its sender's address; returned by
    /// [`UdpSocket::recv_from`](super::UdpSocket::recv_from).
    RecvFrom<'a> { buf: &'a mut [u8] }, Read -> io::Result<(usize, SocketAddr)>,
    |this, cx| this.fd.poll_recv_from(Waiter::Future(&mut this.operation), cx, this.buf, 0)
}

operation_future! {
    /// Receives a datagram and its sender's address, and leaves the datagram in the socket;
    /// returned by [`UdpSocket::peek_from`](super::UdpSocket::peek_from).
    PeekFrom<'a> { buf: &'a mut [u8] }, Read -> io::Result<(usize, SocketAddr)>,
    |this, cx| this.fd.poll_recv_from(Waiter::Future(&mut this.operation), cx, this.buf, libc::MSG_PEEK)
}

operation_future! {
    /// Receives a datagram with its ancillary data; returned by
    /// [`UdpSocket::recv_msg`](super::UdpSocket::recv_msg).
    RecvMsg<'a> { bufs: &'a mut [IoSliceMut<'a>] }, Read -> io::Result<RecvInfo>,
    |this, cx| this.fd.poll_recv_msg(Waiter::Future(&mut this.operation), cx, this.bufs)
}

operation_future! {
    /// Receives many datagrams; returned by [`UdpSocket::recv_many`](super::UdpSocket::recv_many).
    RecvMany<'a> { batch: &'a mut RecvBatch }, Read -> io::Result<usize>,
    |this, cx| this.fd.poll_recv_many(Waiter::Future(&mut this.operation), cx, this.batch)
}

operation_future! {
    /// Sends a datagram to the peer; returned by [`UdpSocket::send`](super::UdpSocket::send).
    SendDatagram<'a> { buf: &'a [u8] }, Write -> io::Result<usize>,
    |this, cx| this.fd.poll_send_datagram(Waiter::Future(&mut this.operation), cx, this.buf)
}

operation_future! {
    /// Sends a datagram with ancillary data; returned by
    /// [`UdpSocket::send_msg`](super::UdpSocket::send_msg).
    SendMsg<'a> { bufs: &'a [IoSlice<'a>], to: Option<SockAddr>, ancillary: Ancillary }, Write -> io::Result<usize>,
    |this, cx| {
        let waiter = Waiter::Future(&mut this.operation);
        this.fd.poll_send_msg(waiter, cx, this.bufs, this.to.as_ref(), &this.ancillary)
    }
}

operation_future! {
    /// Sends many datagrams; returned by [`UdpSocket::send_many`](super::UdpSocket::send_many).
    SendMany<'a> { segmentation: &'a Segmentation, batch: &'a mut SendBatch }, Write -> io::Result<usize>,
    |this, cx| this.fd.poll_send_many(Waiter::Future(&mut this.operation), cx, this.batch, this.segmentation)
}

/// Resolves an address and sends a datagram to it; returned by
/// [`UdpSocket::send_to`](super::UdpSocket::send_to).
#[must_use = "futures do nothing unless they are awaited"]
pub struct SendTo<'a, I> {
    fd: &'a NetFd,
    operation: Operation,
    buf: &'a [u8],
    resolving: ToSocketAddrsFuture<I>,
    /// The address that is being tried, once it is known.
    to: Option<SocketAddr>,
    /// The addresses after `to`; `None` until the look-up has ended.
    others: Option<Targets>,
    /// The error of the first address, once that address has failed.
    error: Option<io::Error>,
}

impl<'a, I> SendTo<'a, I> {
    pub(super) fn new(fd: &'a NetFd, buf: &'a [u8], to: ToSocketAddrsFuture<I>) -> SendTo<'a, I> {
        SendTo { fd, operation: Operation::new(), buf, resolving: to, to: None, others: None, error: None }
    }
}

// No field is pinned, here or in `ToSocketAddrsFuture`.
impl<I> Unpin for SendTo<'_, I> {}

impl<I: Iterator<Item = SocketAddr>> Future for SendTo<'_, I> {
    type Output = io::Result<usize>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let fd = this.fd;
        let others = match &mut this.others {
            Some(others) => others,
            none => {
                let Poll::Ready(resolved) = this.resolving.poll_answer(cx) else {
                    // A close, the deadline and the timeout end the send during the look-up too.
                    let waiter = Waiter::Future(&mut this.operation);
                    let Poll::Ready(Err(failure)) = fd.fd.poll_interrupt(Direction::Write, waiter, cx) else {
                        return Poll::Pending;
                    };
                    fd.fd.cancel(Direction::Write, &mut this.operation);
                    return Poll::Ready(Err(fd.error("write", failure)));
                };
                if !this.operation.is_new() {
                    fd.fd.resume(Direction::Write, &mut this.operation);
                }
                let addrs = resolved.map_err(|error| fd.op("write").other(error))?;
                let targets = none.insert(fd.targets(addrs));
                this.to = targets.next();
                targets
            }
        };
        while let Some(to) = this.to {
            match ready!(fd.poll_send_to(Waiter::Future(&mut this.operation), cx, this.buf, &canonical(to))) {
                Err(error) if is_address_error(&error) => {
                    this.error.get_or_insert(error);
                    this.to = others.next();
                }
                sent => return Poll::Ready(sent),
            }
        }
        Poll::Ready(Err(this.error.take().unwrap_or_else(|| fd.missing_error())))
    }
}

impl<I> Drop for SendTo<'_, I> {
    fn drop(&mut self) {
        self.fd.fd.cancel(Direction::Write, &mut self.operation);
    }
}

impl<I> fmt::Debug for SendTo<'_, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendTo").field("socket", self.fd).field("bytes", &self.buf.len()).finish_non_exhaustive()
    }
}

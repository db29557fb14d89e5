//! The named futures of socket methods. They are `Unpin`, so they can be stored and polled in
//! place.
//!
//! # Cancel safety
//! A future that is dropped before it completes has read or written nothing, except for futures
//! that write all of a buffer or a file, such as [`WriteAll`], [`SendFile`] and [`PipeWrite`]:
//! these may have written part or all of it. For [`RawRead`] and [`RawWrite`], this depends on
//! their closures. Dropping a [`Closed`] does not stop the close, and dropping a [`Flush`] discards
//! no gathered bytes. If a dropped future was woken and did not use the wake-up, the next waiter is
//! woken.

use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::fd::operation::{LockScope, Operation};
use super::net_fd::NetFd;
use crate::rt::poll::poller::Direction;
use crate::rt::waiters::Waiter;

pub use super::fd::fd::Closed;
pub use super::pipe::{PipeRead, PipeWrite, PipeWriteAll};
pub use super::raw::{RawRead, RawWrite};
pub use super::tcp::listener::Accept;
pub use super::tcp::write_vectored_all::WriteVectoredAll;
pub use super::udp::futures::{
    PeekDatagram, PeekFrom, RecvDatagram, RecvFrom, RecvMany, RecvMsg, SendDatagram, SendMany, SendMsg, SendTo,
};
pub use super::zero_copy::send_file::SendFile;
pub use super::zero_copy::send_zerocopy::SendZerocopy;

/// Declares the future of an operation on a [`NetFd`] from its extra fields, its direction, its
/// output and the body of its `poll`.
macro_rules! operation_future {
    (
        $(#[$doc:meta])*
        $name:ident<$life:lifetime> { $($field:ident: $type:ty),* }, $direction:ident -> $output:ty,
        |$this:ident, $cx:ident| $poll:expr
    ) => {
        $(#[$doc])*
        #[derive(Debug)]
        #[must_use = "futures do nothing unless they are awaited"]
        pub struct $name<$life> {
            fd: &$life $crate::net::net_fd::NetFd,
            operation: $crate::net::fd::operation::Operation,
            $($field: $type),*
        }

        impl<$life> $name<$life> {
            pub(crate) fn new(fd: &$life NetFd, $($field: $type),*) -> $name<$life> {
                $name { fd, operation: Operation::new(), $($field),* }
            }
        }

        impl Future for $name<'_> {
            type Output = $output;

            fn poll(mut self: Pin<&mut Self>, $cx: &mut Context<'_>) -> Poll<$output> {
                let $this = &mut *self;
                $poll
            }
        }

        impl Drop for $name<'_> {
            fn drop(&mut self) {
                self.fd.fd.cancel(Direction::$direction, &mut self.operation);
            }
        }
    };
}

pub(crate) use operation_future;

operation_future! {
    /// Reads into a buffer; returned by [`TcpStream::read`](crate::net::TcpStream::read) and
    /// [`UnixStream::read`](crate::os::unix::net::UnixStream::read).
    Read<'a> { buf: &'a mut [u8] }, Read -> io::Result<usize>,
    |this, cx| {
        if this.fd.fd.was_short(Direction::Read) {
            return this.poll_after_short(cx);
        }
        this.fd.poll_read(Waiter::Future(&mut this.operation), cx, this.buf, 0)
    }
}

impl Read<'_> {
    /// Polls after a short read of the same turn. Such a poll usually waits without a call. Not
    /// inlined, so that `poll` stays small.
    #[inline(never)]
    fn poll_after_short(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if !self.buf.is_empty() && self.fd.fd.waits_at_once(&mut self.operation, cx) {
            return Poll::Pending;
        }
        self.fd.poll_read(Waiter::Future(&mut self.operation), cx, self.buf, 0)
    }
}

operation_future! {
    /// Reads into a buffer and leaves the bytes in the socket; returned by
    /// [`TcpStream::peek`](crate::net::TcpStream::peek) and
    /// [`UnixStream::peek`](crate::os::unix::net::UnixStream::peek).
    Peek<'a> { buf: &'a mut [u8] }, Read -> io::Result<usize>,
    |this, cx| this.fd.poll_read(Waiter::Future(&mut this.operation), cx, this.buf, libc::MSG_PEEK)
}

operation_future! {
    /// Reads into several buffers; returned by
    /// [`TcpStream::read_vectored`](crate::net::TcpStream::read_vectored) and
    /// [`UnixStream::read_vectored`](crate::os::unix::net::UnixStream::read_vectored).
    ReadVectored<'a> { bufs: &'a mut [IoSliceMut<'a>] }, Read -> io::Result<usize>,
    |this, cx| this.fd.poll_read_vectored(Waiter::Future(&mut this.operation), cx, this.bufs)
}

operation_future! {
    /// Writes from a buffer; returned by [`TcpStream::write`](crate::net::TcpStream::write) and
    /// [`UnixStream::write`](crate::os::unix::net::UnixStream::write).
    Write<'a> { buf: &'a [u8] }, Write -> io::Result<usize>,
    |this, cx| this.fd.poll_write(Waiter::Future(&mut this.operation), cx, this.buf)
}

operation_future! {
    /// Writes from several buffers; returned by
    /// [`TcpStream::write_vectored`](crate::net::TcpStream::write_vectored) and
    /// [`UnixStream::write_vectored`](crate::os::unix::net::UnixStream::write_vectored).
    WriteVectored<'a> { bufs: &'a [IoSlice<'a>] }, Write -> io::Result<usize>,
    |this, cx| this.fd.poll_write_vectored(Waiter::Future(&mut this.operation), cx, this.bufs)
}

operation_future! {
    /// Waits until gathered writes are sent; returned by
    /// [`TcpStream::flush`](crate::net::TcpStream::flush) and
    /// [`UnixStream::flush`](crate::os::unix::net::UnixStream::flush).
    Flush<'a> {}, Write -> io::Result<()>,
    |this, cx| this.fd.poll_flush(Waiter::Future(&mut this.operation), cx)
}

operation_future! {
    /// Waits until a socket is readable; returned by
    /// [`TcpStream::readable`](crate::net::TcpStream::readable) and the `readable` methods of other
    /// sockets.
    Readable<'a> {}, Read -> io::Result<()>,
    |this, cx| this.fd.poll_ready(Direction::Read, Waiter::Future(&mut this.operation), cx)
}

operation_future! {
    /// Waits until a socket is writable; returned by
    /// [`TcpStream::writable`](crate::net::TcpStream::writable) and the `writable` methods of other
    /// sockets.
    Writable<'a> {}, Write -> io::Result<()>,
    |this, cx| this.fd.poll_ready(Direction::Write, Waiter::Future(&mut this.operation), cx)
}

operation_future! {
    /// Waits until the peer has closed its side; returned by
    /// [`TcpStream::peer_closed`](crate::net::TcpStream::peer_closed) and the `peer_closed` methods
    /// of Unix streams and seqpacket sockets.
    PeerClosed<'a> { op: &'static str }, Read -> io::Result<()>,
    |this, cx| {
        let polled = this.fd.poll_peer_closed(&mut this.operation, cx);
        polled.map_err(|failure| this.fd.error(this.op, failure))
    }
}

operation_future! {
    /// Writes all of a buffer with the write lock held; returned by
    /// [`TcpStream::write_all`](crate::net::TcpStream::write_all) and
    /// [`UnixStream::write_all`](crate::os::unix::net::UnixStream::write_all).
    WriteAll<'a> { buf: &'a [u8] }, Write -> io::Result<()>,
    |this, cx| {
        // The usual case of a gathered write.
        if this.operation.is_new() && this.fd.fd.append_more(this.buf) {
            this.buf = &this.buf[..0];
            return Poll::Ready(Ok(()));
        }
        this.poll_calls(cx)
    }
}

impl WriteAll<'_> {
    /// Polls an operation that [`append_more`](super::fd::fd::Fd::append_more) has refused or that
    /// is not new. Not inlined, so that `poll` stays small.
    #[inline(never)]
    fn poll_calls(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            // In the usual case there is no other writer, and one call writes everything.
            let waiter = Waiter::Future(&mut self.operation);
            let written = ready!(self.fd.poll_send(LockScope::WholeOperation, waiter, cx, self.buf))?;
            if written == self.buf.len() {
                self.buf = &self.buf[..0];
                return Poll::Ready(Ok(()));
            }
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.buf = &self.buf[written..];
        }
    }
}

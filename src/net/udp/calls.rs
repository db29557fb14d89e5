//! The system calls of datagram sockets, run by the loop of
//! [`operation`](crate::net::fd::operation).
//!
//! All calls use [`LockScope::None`]: they hold a reference to the descriptor and no lock. All
//! report [`Remaining::Maybe`], so only EAGAIN clears readiness: one edge
//! ([`backend`](crate::rt::poll::backend)) may stand for many datagrams, and a short count does not
//! mean that no datagram is left.
//!
//! # Compared with Go (internal/poll/fd_unix.go, net/udpsock_posix.go)
//! Go takes the read or write lock around each call, and refuses an address on a connected socket,
//! which std and Linux accept.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::task::{Context, Poll};

use socket2::SockAddr;

use super::ancillary::Ancillary;
use super::batch::{RecvBatch, RecvInfo, SendBatch};
use super::targets::{Targets, sends_to};
use crate::net::fd::operation::{Caller, LockScope, Remaining};
use crate::net::net_fd::NetFd;
use crate::net::{AddrError, raw_os_error};
use crate::rt::poll::poller::Direction;
use crate::sync::{AtomicU32, Ordering};
use crate::sys::batch::{self, CONTROL_WORDS};
use crate::sys::control::ControlWriter;
use crate::sys::{message, option, os, socket};

/// Whether `send_many` may let the kernel split one large datagram (UDP_SEGMENT, Linux 4.18).
///
/// The answer is read from the socket on first use, and again after each `set_segment_size`. While
/// a segment size is set, the kernel splits each datagram into segments of that size, so
/// `send_many` must not merge datagrams.
///
/// The low two bits are the answer, and the others count the calls of `set_segment_size`, so that
/// an answer from before such a call is not stored after it.
#[derive(Debug, Default)]
pub(crate) struct Segmentation(AtomicU32);

const UNKNOWN: u32 = 0;
const USABLE: u32 = 1;
/// Takes precedence over [`USABLE`] if both bits are set.
const NOT_USABLE: u32 = 2;
/// The bits of the answer.
const ANSWER: u32 = 3;

// ORDERING: the value caches an answer of the kernel and guards nothing else. A stale value causes
// another query, sends datagrams one by one, or makes a send act as if it preceded a concurrent
// `set_segment_size`.
impl Segmentation {
    fn is_usable(&self, fd: BorrowedFd<'_>) -> bool {
        let known = self.0.load(Ordering::Relaxed);
        match known & ANSWER {
            UNKNOWN => {
                let usable =
                    option::get::<libc::c_int>(fd, libc::IPPROTO_UDP, os::SEGMENT_OPTION).is_ok_and(|size| size == 0);
                let answer = if usable { USABLE } else { NOT_USABLE };
                self.store(known, answer);
                usable
            }
            answer => answer == USABLE,
        }
    }

    /// Stores the answer to a query that began when the value was `known`, unless the value has
    /// changed since.
    fn store(&self, known: u32, answer: u32) {
        let _ = self.0.compare_exchange(known, known | answer, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Makes the next use read the option again. Called after the option was set or cleared, or
    /// could not be set.
    #[cfg(target_os = "linux")]
    pub(super) fn forget(&self) {
        let _ =
            self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |known| Some((known | ANSWER).wrapping_add(1)));
    }

    /// Returns whether segmentation may have caused `error`. The kernel returns EIO if it cannot
    /// segment, for example because the device does not compute checksums. This socket then no
    /// longer uses segmentation, unless the segment size is cleared later. EMSGSIZE and EINVAL may
    /// mean that the segments would need fragmentation, which depends on the peer.
    fn is_refused(&self, error: &io::Error) -> bool {
        if error.raw_os_error() == Some(libc::EIO) {
            self.0.fetch_or(NOT_USABLE, Ordering::Relaxed);
            return true;
        }
        matches!(error.raw_os_error(), Some(libc::EMSGSIZE | libc::EINVAL))
    }
}

#[cold]
fn not_ip() -> io::Error {
    io::Error::from_raw_os_error(libc::EAFNOSUPPORT)
}

impl NetFd {
    #[inline]
    pub(crate) fn poll_datagram<T>(
        &self,
        direction: Direction,
        caller: Caller<'_>,
        cx: &mut Context<'_>,
        mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        let polled = self.fd.poll_call(direction, LockScope::None, caller, cx, |fd| Ok((call(fd)?, Remaining::Maybe)));
        polled.map_err(|failure| self.error(direction.op(), failure))
    }

    /// Attempts to receive a datagram. With an empty buffer, receives nothing, like Go's `Read`.
    #[inline]
    pub(super) fn poll_recv(
        &self,
        caller: Caller<'_>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
        flags: libc::c_int,
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return self.poll_empty(Direction::Read, "read", cx);
        }
        self.poll_datagram(Direction::Read, caller, cx, |fd| {
            socket::recv(fd, buf, flags).inspect(|&count| self.count_message(Direction::Read, count, flags))
        })
    }

    #[inline]
    pub(super) fn poll_recv_from(
        &self,
        caller: Caller<'_>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
        flags: libc::c_int,
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        self.poll_datagram(Direction::Read, caller, cx, |fd| {
            let (count, from) = message::recv_from(fd, buf, flags)?;
            self.count_message(Direction::Read, count, flags);
            Ok((count, from.as_socket().ok_or_else(not_ip)?))
        })
    }

    #[inline]
    pub(super) fn poll_recv_msg(
        &self,
        caller: Caller<'_>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<RecvInfo>> {
        self.poll_datagram(Direction::Read, caller, cx, |fd| {
            let mut control = [0; CONTROL_WORDS];
            let received = message::recvmsg(fd, bufs, &mut control, 0)?;
            self.count_message(Direction::Read, received.bytes, 0);
            Ok(RecvInfo {
                len: received.bytes,
                from: received.address.as_socket().ok_or_else(not_ip)?,
                is_truncated: received.flags & libc::MSG_TRUNC != 0,
                ancillary: Ancillary::decode(received.control.messages(), received.flags),
            })
        })
    }

    #[inline]
    pub(super) fn poll_recv_many(
        &self,
        caller: Caller<'_>,
        cx: &mut Context<'_>,
        batch: &mut RecvBatch,
    ) -> Poll<io::Result<usize>> {
        self.poll_datagram(Direction::Read, caller, cx, |fd| {
            let messages = batch::recvmmsg(fd, &mut batch.inbox, 0)?;
            self.count_message(Direction::Read, batch.inbox.bytes(), 0);
            Ok(messages)
        })
    }

    #[inline]
    pub(super) fn poll_send_datagram(
        &self,
        caller: Caller<'_>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_datagram(Direction::Write, caller, cx, |fd| {
            socket::send(fd, buf, 0).inspect(|&count| self.count_message(Direction::Write, count, 0))
        })
    }

    #[inline]
    pub(super) fn poll_send_to(
        &self,
        caller: Caller<'_>,
        cx: &mut Context<'_>,
        buf: &[u8],
        to: &SockAddr,
    ) -> Poll<io::Result<usize>> {
        self.poll_datagram(Direction::Write, caller, cx, |fd| {
            message::send_to(fd, buf, to, 0).inspect(|&count| self.count_message(Direction::Write, count, 0))
        })
    }

    #[inline]
    pub(super) fn poll_send_msg(
        &self,
        caller: Caller<'_>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
        to: Option<&SockAddr>,
        ancillary: &Ancillary,
    ) -> Poll<io::Result<usize>> {
        let mut words = [0; CONTROL_WORDS];
        let mut control = ControlWriter::new(&mut words);
        ancillary.encode(to, &mut control)?;
        let sent = self.poll_datagram(Direction::Write, caller, cx, |fd| {
            message::sendmsg(fd, bufs, to, Some(&control), 0)
                .inspect(|&count| self.count_message(Direction::Write, count, 0))
        });
        sent.map_err(|error| self.explained(error, to.is_some()))
    }

    #[inline]
    pub(super) fn poll_send_many(
        &self,
        caller: Caller<'_>,
        cx: &mut Context<'_>,
        batch: &mut SendBatch,
        segmentation: &Segmentation,
    ) -> Poll<io::Result<usize>> {
        if batch.is_empty() {
            return self.poll_empty(Direction::Write, "write", cx);
        }
        let sent = self.poll_datagram(Direction::Write, caller, cx, |fd| {
            let merge = segmentation.is_usable(fd);
            let before = batch.outbox.bytes();
            let sent = match batch::sendmmsg(fd, &mut batch.outbox, merge) {
                Err(error) if merge && segmentation.is_refused(&error) => batch::sendmmsg(fd, &mut batch.outbox, false),
                result => result,
            }?;
            self.count_message(Direction::Write, before - batch.outbox.bytes(), 0);
            Ok(sent)
        });
        sent.map_err(|error| self.explained(error, batch.outbox.first_has_address()))
    }

    /// Returns `addrs` in order, except that those of a family that the socket cannot send to come
    /// last. A single address is returned without a query or an allocation; the kernel checks it.
    pub(super) fn targets(&self, mut addrs: impl Iterator<Item = SocketAddr>) -> Targets {
        let (first, second) = (addrs.next(), addrs.next());
        let Some(second) = second else { return first.into_iter().chain(Vec::new()) };
        let mut all: Vec<_> = first.into_iter().chain([second]).chain(addrs).collect();
        let own = self.fd.with(|fd| Ok((socket::local_addr(fd)?.ip(), option::ip::only_v6(fd).unwrap_or(false))));
        // If the query fails, the socket is closed or is not a UDP socket; the send or connect then
        // reports that.
        if let Ok((local, only_v6)) = own {
            all.sort_by_key(|addr| !sends_to(local, only_v6, *addr));
        }
        None.into_iter().chain(all)
    }

    /// Runs the user's `call` if the socket is open and its deadline has not passed.
    pub(super) fn try_call<T>(
        &self,
        direction: Direction,
        call: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        let op = direction.op();
        let ticket = self.fd.poll.side(direction).begin().map_err(|stop| self.error(op, stop.into()))?;
        self.expose();
        let pinned = self.fd.pinned(|fd| {
            self.fd.ensure_nonblocking();
            call(fd)
        });
        let value = pinned.map_err(|failure| self.error(op, failure))?;
        self.fd.poll.side(direction).wake_next(ticket);
        Ok(value)
    }

    /// Returns the error of a failed send. If the send had no address and the socket has no peer,
    /// returns [`missing_error`](NetFd::missing_error) instead.
    #[cold]
    fn explained(&self, error: io::Error, has_address: bool) -> io::Error {
        if raw_os_error(&error) == Some(libc::EDESTADDRREQ) && !has_address { self.missing_error() } else { error }
    }

    /// Returns the error of a send that has neither an address nor a peer.
    #[cold]
    pub(super) fn missing_error(&self) -> io::Error {
        self.op("write").other(AddrError::missing())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::super::open::bound_socket;
    use super::*;
    use std::net::Ipv4Addr;

    /// Regression test: while one thread cleared the segment size and another set it, a send could
    /// store the answer for the cleared size for good.
    #[test]
    fn answer_about_segmentation_is_right_after_concurrent_changes() {
        let socket = bound_socket((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let (fd, segmentation) = (socket.fd.borrow(), Segmentation::default());
        let set = |size: libc::c_int| option::set(fd, libc::IPPROTO_UDP, os::SEGMENT_OPTION, size);
        if set(0).is_err() {
            return eprintln!("skipped: the kernel has no UDP_SEGMENT");
        }
        // A query that begins before the change stores its answer after it.
        let known = segmentation.0.load(Ordering::Relaxed);
        set(1000).unwrap();
        segmentation.forget();
        segmentation.store(known, USABLE);
        assert!(!segmentation.is_usable(fd));
        // A send stores the answer for the cleared size before the size is set again.
        set(0).unwrap();
        segmentation.forget();
        assert!(segmentation.is_usable(fd));
        set(1000).unwrap();
        segmentation.forget();
        assert!(!segmentation.is_usable(fd));
    }
}

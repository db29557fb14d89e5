//! [`NetFd`]: a socket with its network and its addresses, and the calls of streams and listeners.
//!
//! This is the counterpart of Go's `net.netFD`. The layers below return a [`Failure`], which is
//! converted to an `io::Error` here. The error of a system call stays unchanged, unless
//! `Builder::wrap_io_errors` is set. An error of this crate (such as closed, deadline, shutdown)
//! becomes an [`OpError`](crate::net::OpError) with the operation and the addresses.
//!
//! Addresses are queried from the kernel on demand. An explicit close stores them first, for later
//! errors. With `Builder::wrap_io_errors`, the addresses of an accepted connection are stored after
//! the accept, and those of a dialled TCP connection after the dial.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use socket2::SockAddr;

use super::error::{Addr, Op};
use super::fd::fd::{Closed, Fd};
use super::fd::operation::{Caller, Gathered, LockScope, Operation, Remaining};
use crate::rt;
use crate::rt::context;
use crate::rt::lazy_box::LazyBox;
use crate::rt::poll::poller::{Direction, Failure};
use crate::rt::time::ticks;
use crate::rt::waiters::Waiter;
use crate::sys::{option, socket};
use crate::trace;

/// The addresses of a socket.
#[derive(Clone, Debug, Default)]
struct Names {
    local: Option<Addr>,
    peer: Option<Addr>,
}

/// A socket with its network and addresses; see the [module documentation](self).
pub(crate) struct NetFd {
    pub(crate) fd: Fd,
    network: Network,
    /// The addresses, stored by an explicit close and by [`keep_names`](NetFd::keep_names).
    names: LazyBox<OnceLock<Names>>,
}

/// The name of a network. The double reference keeps it at 8 bytes per socket.
pub(crate) type Network = &'static &'static str;

// With the counters of an `Arc` and malloc's header, a socket takes 112 bytes. A mutex has 8 bytes
// where std implements it with a futex.
const _: () = assert!(size_of::<NetFd>() <= 80 + size_of::<std::sync::Mutex<()>>());

impl NetFd {
    /// Takes ownership of a non-blocking TCP socket.
    pub(crate) fn tcp(fd: OwnedFd) -> io::Result<NetFd> {
        Ok(NetFd { fd: Fd::new(fd, true)?, network: &"tcp", names: LazyBox::new() })
    }

    /// Takes ownership of a non-blocking stream socket that may be TCP or multipath TCP. Only on
    /// plain TCP does a short count prove that the socket is empty or full, because the subflows of
    /// a multipath connection deliver independently.
    pub(crate) fn tcp_or_multipath(fd: OwnedFd) -> io::Result<NetFd> {
        let is_tcp = option::is_plain_tcp(fd.as_fd()).is_ok_and(|is| is);
        Ok(NetFd { fd: Fd::new(fd, is_tcp)?, network: &"tcp", names: LazyBox::new() })
    }

    /// Takes ownership of a non-blocking UDP socket.
    pub(crate) fn udp(fd: OwnedFd) -> io::Result<NetFd> {
        NetFd::new(fd, &"udp")
    }

    /// Takes ownership of a non-blocking socket of another kind.
    pub(crate) fn new(fd: OwnedFd, network: Network) -> io::Result<NetFd> {
        let fd = Fd::new(fd, false)?;
        fd.poll.set_kind(network);
        Ok(NetFd { fd, network, names: LazyBox::new() })
    }

    /// Takes ownership of a socket that accept4(2) has returned. `peer` is the peer's address.
    pub(crate) fn accepted(&self, socket: OwnedFd, peer: &SockAddr) -> io::Result<NetFd> {
        let make = match () {
            () if self.fd.is_plain_tcp() => NetFd::tcp,
            () if *self.network == "tcp" => NetFd::tcp_or_multipath,
            () => return NetFd::new(socket, self.network),
        };
        let mut stream = make(socket)?;
        if stream.fd.is_plain_tcp() {
            stream.fd.inherit_waits(&self.fd);
            // Most connections never fill the send buffer.
            stream.fd.poll.side(Direction::Write).skip_edges();
            match peer.as_socket() {
                // The connections of an exposed listener may have other local addresses, for
                // example with IP_TRANSPARENT.
                Some(peer) if self.fd.is_exposed() => stream.fd.poll.set_connection(None, peer),
                Some(peer) => stream.fd.poll.set_accepted(&self.fd.poll, peer),
                None => {}
            }
        }
        stream.keep_names(None);
        if self.fd.wants_gathering() {
            stream.fd.set_wants_gathering();
        }
        // The connection inherits SO_LINGER from the listener.
        if self.fd.may_linger() {
            stream.fd.set_may_linger();
        }
        Ok(stream)
    }

    /// Marks the descriptor as exposed; see [`Fd::expose`].
    pub(crate) fn expose(&self) {
        self.fd.expose();
    }

    fn ask_names(fd: BorrowedFd<'_>) -> Names {
        let name = |name: io::Result<SockAddr>| name.ok().and_then(|name| Addr::of(&name));
        Names { local: name(socket::local_addr_any(fd)), peer: name(socket::peer_addr_any(fd)) }
    }

    fn names(&self) -> Names {
        match self.names.get().and_then(OnceLock::get) {
            Some(names) => names.clone(),
            None => self.fd.with(|fd| Ok(NetFd::ask_names(fd))).unwrap_or_default(),
        }
    }

    /// Stores the addresses of a connection if `Builder::wrap_io_errors` is set, because after a
    /// reset the kernel no longer knows the peer's address. The peer's address is `dialled` if the
    /// kernel does not return it, because connect(2) was deferred (TCP Fast Open).
    #[inline]
    pub(crate) fn keep_names(&self, dialled: Option<SocketAddr>) {
        if rt::wraps_io_errors() {
            let _ = self.fd.with(|fd| {
                self.names.get_or_default().get_or_init(|| {
                    let Names { local, peer } = NetFd::ask_names(fd);
                    Names { local, peer: peer.or(dialled.map(Addr::Ip)) }
                });
                Ok(())
            });
        }
    }

    /// Returns the operation `op` on this socket, for an error.
    #[cold]
    pub(crate) fn op(&self, op: &'static str) -> Op {
        let Names { local, peer } = self.names();
        match peer {
            Some(peer) if !matches!(op, "set" | "raw-control") => Op::between(op, self.network, local, Some(peer)),
            _ => Op::at(op, self.network, local),
        }
    }

    /// Converts the failure of the operation `op` to an error.
    #[cold]
    pub(crate) fn error(&self, op: &'static str, failure: Failure) -> io::Error {
        if let Failure::Io(error) = failure {
            // An error without an errno stays unchanged, such as one that already names the
            // operation, or one that user code has created.
            let wraps = error.raw_os_error().is_some() && rt::wraps_io_errors();
            return if wraps { self.op(op).call(op, error) } else { error };
        }
        let is_timeout = matches!(failure, Failure::TimedOut);
        let op = self.op(op);
        if is_timeout {
            let (local, peer) = (op.source.as_ref().map(|addr| addr as _), op.addr.as_ref().map(|addr| addr as _));
            // The address of a listener is its local address.
            let (local, peer) = if op.source.is_none() { (peer, None) } else { (local, peer) };
            trace::deadline_expired(op.op, op.network, local, peer);
        }
        failure.into_error(op)
    }

    /// Makes a call that cannot wait, under a reference. `op` is the operation for errors.
    pub(crate) fn with<T>(
        &self,
        op: &'static str,
        call: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        self.fd.with(call).map_err(|failure| self.error(op, failure))
    }

    /// Counts a message of `bytes` bytes for snapshots, unless `flags` contains MSG_PEEK.
    #[inline]
    pub(crate) fn count_message(&self, direction: Direction, bytes: usize, flags: libc::c_int) {
        if flags & libc::MSG_PEEK == 0 {
            self.fd.poll.count(direction, bytes);
        }
    }

    /// Completes a read into an empty buffer, or a send of no datagrams, without a system call.
    /// Fails if the socket is closed. Ignores the deadline.
    #[cold]
    pub(crate) fn poll_empty(
        &self,
        direction: Direction,
        op: &'static str,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        ready!(self.fd.poll_turn(direction, cx));
        Poll::Ready(self.with(op, |_| Ok(0)))
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        let local = self.with("local-addr", socket::local_addr)?;
        self.fd.poll.add_local(local);
        Ok(local)
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.with("peer-addr", socket::peer_addr)
    }

    pub(crate) fn set_deadline(&self, direction: Direction, deadline: Option<Instant>) -> io::Result<()> {
        self.fd.set_deadline(direction, deadline).map_err(|failure| self.error("set", failure))
    }

    pub(crate) fn set_timeout(&self, direction: Direction, timeout: Option<Duration>) -> io::Result<()> {
        self.fd.timeouts.set(direction, timeout)
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.fd.shutdown(how).map_err(|failure| self.error("close", failure))
    }

    /// Begins the close; see [`Fd::close`].
    pub(crate) fn close(&self) -> Closed {
        Closed::new(self.fd.close(|| {
            self.names.get_or_default().get_or_init(|| NetFd::ask_names(self.fd.borrow()));
        }))
    }

    // ---- streams and listeners ----

    /// Finishes a poll of a stream that may have transferred bytes. Charges the task's budget for
    /// them, and counts them if the kernel does not.
    #[inline]
    pub(super) fn moved(&self, direction: Direction, polled: Poll<Result<usize, Failure>>) -> Poll<io::Result<usize>> {
        match polled {
            Poll::Ready(Ok(count)) => {
                if count as u32 > self.fd.poll.uncounted {
                    self.fd.poll.charge(direction, count);
                }
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(failure)) => Poll::Ready(Err(self.error(direction.op(), failure))),
            Poll::Pending => Poll::Pending,
        }
    }

    #[inline]
    pub(crate) fn poll_read(
        &self,
        caller: Caller<'_>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
        flags: libc::c_int,
    ) -> Poll<io::Result<usize>> {
        let most = buf.len().min(socket::MAX_RW);
        let buf = &mut buf[..most];
        if buf.is_empty() {
            return self.poll_empty(Direction::Read, "read", cx);
        }
        let polled = self.fd.poll_call(Direction::Read, LockScope::PerCall, caller, cx, move |fd| {
            // Peeking leaves the bytes in the socket, so a short count proves nothing.
            let spent = if flags & libc::MSG_PEEK == 0 { most } else { 0 };
            self.after_read(socket::recv(fd, buf, flags)?, spent)
        });
        if flags & libc::MSG_PEEK != 0 {
            if let Poll::Ready(Ok(count)) = &polled {
                context::charge(*count);
            }
            return polled.map_err(|failure| self.error("read", failure));
        }
        self.moved(Direction::Read, polled)
    }

    /// Returns the result of a read of `count` bytes. A positive count smaller than `most` is a
    /// short count. At the end of the stream, returns an error that no operation has returned yet,
    /// if there is one; see [`Fd::end_of_stream`].
    #[inline]
    fn after_read(&self, count: usize, most: usize) -> io::Result<(usize, Remaining)> {
        if count > 0 && count < most {
            return Ok((count, Remaining::Nothing));
        }
        if count == 0 {
            self.fd.end_of_stream()?;
        }
        Ok((count, Remaining::Maybe))
    }

    /// Reads like [`poll_read`](NetFd::poll_read) into uninitialised memory. The returned number of
    /// bytes at the start of `buf` is then initialised. May wait without a call after a short read.
    #[inline]
    pub(crate) fn poll_read_uninit(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [MaybeUninit<u8>],
    ) -> Poll<io::Result<usize>> {
        let most = buf.len().min(socket::MAX_RW);
        let buf = &mut buf[..most];
        if buf.is_empty() {
            return self.poll_empty(Direction::Read, "read", cx);
        }
        let _permission = self.fd.permit_short_wait();
        let polled = self.fd.poll_call(Direction::Read, LockScope::PerCall, Waiter::Poll, cx, move |fd| {
            self.after_read(socket::recv_uninit(fd, buf)?, most)
        });
        self.moved(Direction::Read, polled)
    }

    #[inline]
    pub(crate) fn poll_read_vectored(
        &self,
        caller: Caller<'_>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = socket::leading_empty(bufs);
        let bufs = &mut bufs[first..];
        let most = socket::total(&bufs[..bufs.len().min(socket::IOVECS_MAX)]);
        if most == 0 {
            return self.poll_empty(Direction::Read, "read", cx);
        }
        let polled = self.fd.poll_call(Direction::Read, LockScope::PerCall, caller, cx, |fd| {
            self.fd.ensure_nonblocking();
            self.after_read(socket::recv_vectored(fd, bufs)?, most)
        });
        self.moved(Direction::Read, polled)
    }

    #[inline]
    pub(crate) fn poll_write(&self, caller: Caller<'_>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if caller.is_new() && self.fd.append_more(buf) {
            self.fd.abandon(Direction::Write, caller);
            return Poll::Ready(Ok(buf.len()));
        }
        self.poll_send(LockScope::PerCall, caller, cx, buf)
    }

    /// Attempts one write, with the write lock held for `scope`. The caller has tried
    /// [`append_more`](Fd::append_more) if the operation is new.
    #[inline]
    pub(crate) fn poll_send(
        &self,
        scope: LockScope,
        caller: Caller<'_>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let all = buf.len();
        // If `buf` is larger than one call can send, it is also larger than the buffer for gathered
        // writes.
        let append = || self.fd.append(&[IoSlice::new(buf)], all);
        let polled = self.fd.poll_call_gathering(Direction::Write, scope, caller, cx, append, move |fd, gathered| {
            let buf = &buf[..buf.len().min(socket::MAX_RW)];
            let count = match gathered {
                Gathered::Nothing => socket::send(fd, buf, 0)?,
                Gathered::First => self.fd.send_after_gathered(fd, &[IoSlice::new(buf)])?,
            };
            let left = match count {
                _ if count < buf.len() => Remaining::Nothing,
                _ if count < all => Remaining::More,
                _ => Remaining::Maybe,
            };
            Ok((count, left))
        });
        self.moved(Direction::Write, polled)
    }

    #[inline]
    pub(crate) fn poll_write_vectored(
        &self,
        caller: Caller<'_>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bufs = &bufs[socket::leading_empty(bufs)..];
        let batch = &bufs[..bufs.len().min(socket::IOVECS_MAX)];
        let most = socket::total(batch);
        let (direction, scope) = (Direction::Write, LockScope::PerCall);
        let append = || self.fd.append(batch, most);
        let polled = self.fd.poll_call_gathering(direction, scope, caller, cx, append, |fd, gathered| {
            let count = match gathered {
                Gathered::Nothing => socket::send_vectored(fd, bufs)?,
                Gathered::First => self.fd.send_after_gathered(fd, batch)?,
            };
            Ok((count, if count < most { Remaining::Nothing } else { Remaining::Maybe }))
        });
        self.moved(Direction::Write, polled)
    }

    /// Shuts down the writing side, so that the peer reads end of stream. Repeated calls, a closed
    /// socket and a peer that is already gone are not errors.
    pub(crate) fn finish_writing(&self) -> io::Result<()> {
        match self.fd.shutdown(Shutdown::Write) {
            Ok(()) | Err(Failure::Closed) => Ok(()),
            Err(Failure::Io(error)) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            Err(failure) => Err(self.error("close", failure)),
        }
    }

    /// Waits until the socket is ready in `direction`.
    pub(crate) fn poll_ready(
        &self,
        direction: Direction,
        caller: Caller<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        // An edge that arrives while this operation waits is sufficient evidence, although another
        // task may have used it up. Readiness from before the wait may be out of date, so the
        // kernel is asked.
        let woken = caller.future().is_some_and(Operation::has_waited) && self.fd.is_marked_ready(direction);
        let check = |fd: BorrowedFd<'_>, gathered| {
            let is_shut = direction == Direction::Write && self.fd.is_sending_shut();
            let has_failed = is_shut || (gathered == Gathered::First && self.fd.send_before_check()?);
            // A completion in the error queue also produces an edge, but does not mean readiness.
            let ready = has_failed || (woken && self.fd.loans_if_any().is_none());
            let ready = ready || self.is_ready(fd, direction == Direction::Write)?;
            if ready { Ok(((), Remaining::Maybe)) } else { Err(io::ErrorKind::WouldBlock.into()) }
        };
        let polled = self.fd.poll_call_gathering(direction, LockScope::None, caller, cx, || None, check);
        polled.map_err(|failure| self.error(direction.op(), failure))
    }

    fn is_ready(&self, fd: BorrowedFd<'_>, write: bool) -> io::Result<bool> {
        if self.fd.loans_if_any().is_some() {
            socket::is_ready_beside_errors(fd, write)
        } else {
            socket::is_ready(fd, write)
        }
    }

    /// Waits until the peer has closed its side, the connection fails, or receiving is shut down.
    pub(crate) fn poll_peer_closed(&self, wait: &mut Operation, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        // If the hang-up is already known, Pending means that the budget is used up.
        let is_known = self.fd.poll.is_hung_up();
        let polled = self.fd.poll_hang_up(Direction::Read, wait, cx);
        if polled.is_pending() && !is_known && self.is_peer_closed() {
            // The kernel still has the event, or a thread has just fetched it.
            ready!(self.fd.poll_turn(Direction::Read, cx));
            self.fd.cancel(Direction::Read, wait);
            return Poll::Ready(Ok(()));
        }
        polled
    }

    /// Returns whether the peer has closed its side, the connection failed, or receiving is shut
    /// down. Asks the kernel unless an edge has already reported it.
    pub(crate) fn is_peer_closed(&self) -> bool {
        self.fd.poll.is_hung_up() || self.fd.with(socket::is_hung_up).unwrap_or(false)
    }

    /// Attempts to accept a connection. `adopt` creates the stream.
    pub(crate) fn poll_accept<T>(
        &self,
        caller: Caller<'_>,
        cx: &mut Context<'_>,
        adopt: fn(NetFd, SockAddr) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        // Called before the lock is taken, because this call may run code of a subscriber.
        let wants_trace = trace::wants_accepts();
        let mut traced = None;
        let polled = self.fd.poll_call(Direction::Read, LockScope::PerCall, caller, cx, |fd| {
            self.fd.ensure_nonblocking();
            let (socket, peer) = match accept(fd) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.is_shut_listener() => {
                    // A connection may have arrived before the listener was shut down.
                    accept(fd).map_err(|error| match error.kind() {
                        io::ErrorKind::WouldBlock => io::Error::from_raw_os_error(libc::EINVAL),
                        _ => error,
                    })?
                }
                accepted => accepted?,
            };
            let stream = self.accepted(socket, &peer)?;
            self.fd.poll.count_accept();
            if wants_trace {
                traced = Some(Accepted::of(&stream, &peer));
            }
            Ok((adopt(stream, peer)?, Remaining::Maybe))
        });
        if let Some(accepted) = traced {
            accepted.trace();
        }
        polled.map_err(|failure| self.error("accept", failure))
    }

    /// Returns whether another user of this Unix listener has shut it down. A non-blocking
    /// accept(2) then returns EAGAIN, as for an empty queue, and a blocking one EINVAL. For a TCP
    /// listener, both return EINVAL.
    #[cold]
    fn is_shut_listener(&self) -> bool {
        self.network.starts_with("unix") && self.fd.is_receiving_shut()
    }
}

/// The data of an accepted connection for its trace event. It is stored, because subscribers must
/// be called outside of the listener's lock.
#[derive(Debug)]
pub(crate) struct Accepted {
    fd: RawFd,
    local: Option<Addr>,
    peer: Option<Addr>,
}

impl Accepted {
    #[cold]
    pub(crate) fn of(stream: &NetFd, peer: &SockAddr) -> Accepted {
        Accepted { fd: stream.fd.number(), local: stream.names().local, peer: Addr::of(peer) }
    }

    #[cold]
    pub(crate) fn trace(&self) {
        trace::accepted(self.fd, self.local.as_ref().map(|addr| addr as _), self.peer.as_ref().map(|addr| addr as _));
    }
}

/// Calls accept4(2), skipping connections that failed while they were queued.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, SockAddr)> {
    let mut retries = 0;
    loop {
        match socket::accept4_any(listener) {
            Err(error) if is_of_dead_connection(&error) && retries < ACCEPT_RETRIES_MAX => retries += 1,
            Ok(accepted) => {
                sample_queue(listener);
                return Ok(accepted);
            }
            error => return error,
        }
    }
}

/// The length of the accept queue is recorded for one in this many accepted connections.
const QUEUE_SAMPLE: u64 = 64;

/// Records the length of the accept queue of a TCP listener for some of the accepted connections.
/// The clock selects them.
fn sample_queue(listener: BorrowedFd<'_>) {
    if !ticks::draws(QUEUE_SAMPLE) {
        return;
    }
    // A simulation must be able to repeat a run exactly, so it does not sample at random.
    #[cfg(feature = "sim")]
    if crate::sim::is_here() {
        return;
    }
    if let Ok(length) = option::accept_queue(listener) {
        // Includes the connection that was just accepted.
        rt::accept_queue().record(u64::from(length) + 1);
    }
}

/// The maximum number of retries of an accept. Each retry removes a failed connection from the
/// queue. If the last retry fails as well, the listener is probably at fault (EOPNOTSUPP can mean
/// either), and the error is returned.
const ACCEPT_RETRIES_MAX: u32 = 64;

/// Returns whether an error of accept(2) concerns the new connection and not the listener:
/// ECONNABORTED, EPERM (a firewall forbids the connection), or a pending network error of the new
/// connection, which the man page says to treat like EAGAIN by retrying.
fn is_of_dead_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | crate::sys::os::ENONET
                | libc::EOPNOTSUPP
                | libc::EPERM
        )
    )
}

impl fmt::Debug for NetFd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Names { local, peer } = self.names();
        let mut debug = f.debug_struct("NetFd");
        debug.field("network", &self.network);
        if let Some(local) = local {
            debug.field("local", &format_args!("{local}"));
        }
        if let Some(peer) = peer {
            debug.field("peer", &format_args!("{peer}"));
        }
        debug.field("fd", &self.fd.number()).finish()
    }
}

#[cfg(test)]
#[path = "net_fd_tests.rs"]
mod tests;

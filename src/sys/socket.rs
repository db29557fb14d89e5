//! Socket calls as safe functions on borrowed descriptors.
//!
//! recv and send go through [`calls`](super::calls). Their vectored forms are one inlined libc call
//! each. socket, accept4 and dup3 are in `os`. poll and close are libc calls. The other calls go
//! through `socket2` or std. In unit tests, `accept4_any`, `connect`, `take_error`,
//! `peer_addr_any`, `close` and `close_and_keep_number` first consult the test's script
//! (`sys::seam`).
//!
//! # Invariants
//! * S1 — every descriptor created by this module is close-on-exec and, except for duplicates
//!   (`dup_cloexec`), non-blocking.
//! * S2 — no call raises SIGPIPE, because a library cannot know whether the program ignores it.
//! * S3 — an address is read only after `socket2::SockAddr` has checked its family.
//! * S4 — every call that takes MSG_DONTWAIT uses it, so the call does not block, even if
//!   O_NONBLOCK is not set. Every process that shares the open file description may clear
//!   O_NONBLOCK. connect, accept4, readv, splice and sendfile have no such flag; see
//!   `Fd::ensure_nonblocking`.
//!
//! # Compared with Go (internal/poll, syscall)
//! Go uses `write` and `writev`, because its runtime handles SIGPIPE. This module uses `send` and
//! `sendmsg` with `MSG_NOSIGNAL`.

#![allow(unsafe_code)]

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr};
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use libc::c_int;
use socket2::{Domain, Protocol, SockAddr, SockRef, Type};

#[cfg(test)]
use super::seam;
use super::{calls, os, placeholder};

/// The maximum number of bytes that one call with a single buffer on a stream requests, as in Go.
/// Linux transfers at most 2 GiB minus one page per call, and some systems refuse 2 GiB or more.
/// The callers limit the size of calls on streams only, so that a datagram is never split.
pub(crate) const MAX_RW: usize = 1 << 30;

/// The maximum number of buffers of one vectored call: the kernel's UIO_MAXIOV. On a stream,
/// further buffers are left for the next call.
pub(crate) const IOVECS_MAX: usize = 1024;

/// Returns the number of empty buffers at the front. A vectored call on a stream skips them,
/// because they count towards [`IOVECS_MAX`], and because a call with only empty buffers returns 0,
/// which would mean end of stream.
#[inline]
pub(crate) fn leading_empty<B: Deref<Target = [u8]>>(bufs: &[B]) -> usize {
    bufs.iter().take_while(|buf| buf.is_empty()).count()
}

/// Returns the sum of the lengths of `bufs`, or `usize::MAX` if it is larger. If the buffers
/// overlap, their sum may exceed the address space.
#[inline]
pub(crate) fn total<B: Deref<Target = [u8]>>(bufs: &[B]) -> usize {
    sum(bufs.iter().map(|buf| buf.len()))
}

#[inline]
fn sum(lengths: impl Iterator<Item = usize>) -> usize {
    lengths.fold(0, usize::saturating_add)
}

#[inline]
pub(super) fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[inline]
pub(super) fn check_len(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// The flags of every call that sends, for invariants S2 and S4.
pub(super) const SEND_FLAGS: c_int = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;

/// Calls recv(2), or the simulator's version if the descriptor is simulated, with `MSG_DONTWAIT` in
/// addition to `flags`.
///
/// # Safety
/// `buf` must be valid for writes of `length` bytes.
#[inline]
unsafe fn raw_recv(fd: BorrowedFd<'_>, buf: *mut u8, length: usize, flags: c_int) -> libc::ssize_t {
    let (fd, buf, flags) = (fd.as_raw_fd(), buf.cast(), flags | libc::MSG_DONTWAIT);
    #[cfg(feature = "sim")]
    if crate::sim::is_simulated(fd) {
        // SAFETY: the caller's contract.
        return unsafe { crate::sim::recv(fd, buf, length, flags) };
    }
    // SAFETY: the caller's contract.
    unsafe { calls::recv(fd, buf, length, flags) }
}

/// Calls recv(2) with `MSG_DONTWAIT` in addition to `flags`.
#[inline]
pub(crate) fn recv(fd: BorrowedFd<'_>, buf: &mut [u8], flags: c_int) -> io::Result<usize> {
    // SAFETY: `buf` is valid for writes of its length during the call, and the kernel writes
    // initialised bytes.
    check_len(unsafe { raw_recv(fd, buf.as_mut_ptr(), buf.len(), flags) })
}

/// Calls recv(2) with `MSG_DONTWAIT` and uninitialised memory. Returns the number of bytes
/// received; that many bytes at the start of `buf` are then initialised.
#[inline]
pub(crate) fn recv_uninit(fd: BorrowedFd<'_>, buf: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
    // SAFETY: as above.
    check_len(unsafe { raw_recv(fd, buf.as_mut_ptr().cast(), buf.len(), 0) })
}

/// Calls readv(2) with the first [`IOVECS_MAX`] buffers.
#[inline]
pub(crate) fn recv_vectored(fd: BorrowedFd<'_>, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    let count = bufs.len().min(IOVECS_MAX) as c_int;
    // SAFETY: `IoSliceMut` is guaranteed to have the layout of an iovec, and each buffer is valid
    // for writes during the call.
    check_len(unsafe { libc::readv(fd.as_raw_fd(), bufs.as_mut_ptr().cast(), count) })
}

/// Calls send(2), or the simulator's version if the descriptor is simulated.
#[inline]
fn raw_send(fd: BorrowedFd<'_>, buf: &[u8], flags: c_int) -> libc::ssize_t {
    let fd = fd.as_raw_fd();
    #[cfg(feature = "sim")]
    if crate::sim::is_simulated(fd) {
        return crate::sim::send(fd, buf, flags);
    }
    // SAFETY: `buf` is valid for reads of its length during the call.
    unsafe { calls::send(fd, buf.as_ptr().cast(), buf.len(), flags) }
}

/// Calls send(2) with `MSG_NOSIGNAL` and `MSG_DONTWAIT` in addition to `flags`.
#[inline]
pub(crate) fn send(fd: BorrowedFd<'_>, buf: &[u8], flags: c_int) -> io::Result<usize> {
    check_len(raw_send(fd, buf, flags | SEND_FLAGS))
}

/// Calls sendmsg(2) with `MSG_NOSIGNAL` and `MSG_DONTWAIT` and the first [`IOVECS_MAX`] buffers.
#[inline]
pub(crate) fn send_vectored(fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    // SAFETY: `msghdr` is plain data, for which all zeroes is a valid value: no name, no buffers,
    // no control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    // `IoSlice` is guaranteed to have the layout of an iovec. The kernel does not write through the
    // pointer.
    message.msg_iov = bufs.as_ptr().cast_mut().cast();
    message.msg_iovlen = bufs.len().min(IOVECS_MAX) as _;
    // SAFETY: `message` and the buffers that it points to are valid for reads during the call.
    check_len(unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const message, SEND_FLAGS) })
}

/// Calls [`accept4_any`] and converts the address. The address is `None` if it is not an IP
/// address.
#[cfg(test)]
pub(crate) fn accept4(fd: BorrowedFd<'_>) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    accept4_any(fd).map(|(socket, address)| (socket, address.as_socket()))
}

/// Calls accept4(2), or accept(2) on macOS. Returns a non-blocking, close-on-exec socket and its
/// peer's address.
#[inline]
pub(crate) fn accept4_any(fd: BorrowedFd<'_>) -> io::Result<(OwnedFd, SockAddr)> {
    #[cfg(test)]
    seam::accept4(fd)?;
    os::accept(fd)
}

/// Calls socket(2) for a non-blocking, close-on-exec socket.
pub(crate) fn socket(domain: Domain, ty: Type, protocol: Option<Protocol>) -> io::Result<OwnedFd> {
    os::socket(domain, ty, protocol)
}

/// Calls connect(2). On a non-blocking TCP socket EINPROGRESS is the usual result.
pub(crate) fn connect(fd: BorrowedFd<'_>, address: &SockAddr) -> io::Result<()> {
    #[cfg(test)]
    if let Some(result) = seam::connect(fd, address) {
        return result;
    }
    SockRef::from(&fd).connect(address)
}

/// Calls bind(2).
pub(crate) fn bind(fd: BorrowedFd<'_>, address: &SockAddr) -> io::Result<()> {
    SockRef::from(&fd).bind(address)
}

/// Calls listen(2).
pub(crate) fn listen(fd: BorrowedFd<'_>, backlog: c_int) -> io::Result<()> {
    SockRef::from(&fd).listen(backlog)
}

/// Calls shutdown(2).
pub(crate) fn shutdown(fd: BorrowedFd<'_>, how: Shutdown) -> io::Result<()> {
    SockRef::from(&fd).shutdown(how)
}

/// Returns whether the descriptor is readable, or with `write` writable, or has an error or a
/// hang-up, as reported by poll(2) without waiting.
pub(crate) fn is_ready(fd: BorrowedFd<'_>, write: bool) -> io::Result<bool> {
    let events = if write { libc::POLLOUT } else { libc::POLLIN };
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: there is one entry, which is valid during the call.
    check(unsafe { libc::poll(&raw mut entry, 1, 0) }).map(|ready| ready > 0)
}

/// Returns whether the peer has closed its sending side, receiving was shut down, or the connection
/// is gone (poll(2)). On a system whose poll(2) does not report a half-close, returns whether the
/// connection is gone.
pub(crate) fn is_hung_up(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let half_closed = os::POLL_HALF_CLOSED.unwrap_or(0);
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events: half_closed, revents: 0 };
    // SAFETY: there is one entry, which is valid during the call.
    check(unsafe { libc::poll(&raw mut entry, 1, 0) })?;
    Ok(entry.revents & (half_closed | libc::POLLHUP) != 0)
}

/// Blocks in poll(2) until the descriptor is readable, or with `write` writable, until it has an
/// error or a hang-up, until a signal interrupts the call, or until `timeout`, limited to 24 days,
/// has passed.
pub(crate) fn wait_ready(fd: BorrowedFd<'_>, write: bool, timeout: Option<Duration>) -> io::Result<()> {
    let events = if write { libc::POLLOUT } else { libc::POLLIN };
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    let millis = timeout.map_or(-1, |timeout| c_int::try_from(timeout.as_millis() + 1).unwrap_or(c_int::MAX));
    // SAFETY: there is one entry, which is valid during the call.
    match check(unsafe { libc::poll(&raw mut entry, 1, millis) }) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}

/// Returns whether a TCP socket whose error queue is in use is ready, like [`is_ready`]. While the
/// queue has messages, poll(2) reports POLLERR, which is ignored. If the connection has failed,
/// poll(2) also reports a hang-up.
pub(crate) fn is_ready_beside_errors(fd: BorrowedFd<'_>, write: bool) -> io::Result<bool> {
    let events = if write { libc::POLLOUT } else { libc::POLLIN };
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: there is one entry, which is valid during the call.
    check(unsafe { libc::poll(&raw mut entry, 1, 0) })?;
    Ok(entry.revents & !libc::POLLERR != 0)
}

/// Returns and clears the pending error of a socket, if there is one (`SO_ERROR`).
pub(crate) fn take_error(fd: BorrowedFd<'_>) -> io::Result<Option<io::Error>> {
    #[cfg(test)]
    if let Some(result) = seam::take_error(fd) {
        return result;
    }
    SockRef::from(&fd).take_error()
}

/// Calls getsockname(2). The address may be of any family.
pub(crate) fn local_addr_any(fd: BorrowedFd<'_>) -> io::Result<SockAddr> {
    SockRef::from(&fd).local_addr()
}

/// Calls getpeername(2). The address may be of any family.
pub(crate) fn peer_addr_any(fd: BorrowedFd<'_>) -> io::Result<SockAddr> {
    #[cfg(test)]
    seam::peer_addr(fd)?;
    SockRef::from(&fd).peer_addr()
}

/// Calls getsockname(2). Returns EAFNOSUPPORT if the address is not an IP address.
pub(crate) fn local_addr(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    local_addr_any(fd)?.as_socket().ok_or_else(not_ip)
}

/// Calls getpeername(2). Returns EAFNOSUPPORT if the address is not an IP address.
pub(crate) fn peer_addr(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    peer_addr_any(fd)?.as_socket().ok_or_else(not_ip)
}

#[cold]
fn not_ip() -> io::Error {
    io::Error::from_raw_os_error(libc::EAFNOSUPPORT)
}

/// Calls close(2) exactly once. On Linux the call always frees the number, even if it fails, so a
/// second call could close another owner's descriptor.
pub(crate) fn close(fd: OwnedFd) -> io::Result<()> {
    #[cfg(test)]
    let scripted = seam::close(&fd);
    let raw = fd.into_raw_fd();
    // SAFETY: the number came from an `OwnedFd`, so this function owns it, and it is not used
    // afterwards.
    let result = check(unsafe { libc::close(raw) }).map(drop);
    #[cfg(test)]
    scripted?;
    result
}

/// Closes a socket but keeps its number in use, so that calls on it fail, and returns the number,
/// which [`close`] frees. Returns `None` for a simulated socket that is closed outside of its
/// simulation: its number is not kept. If that simulation is running, it closes the socket at its
/// next step.
///
/// # Errors
/// Returns the socket, which is still open, if the [placeholder](super::placeholder) cannot be
/// opened or cannot take its number.
pub(crate) fn close_and_keep_number(fd: OwnedFd) -> Result<Option<OwnedFd>, OwnedFd> {
    #[cfg(feature = "sim")]
    if crate::sim::is_simulated(fd.as_raw_fd()) {
        let is_kept = crate::sim::close_and_keep_number(fd.as_raw_fd());
        if !is_kept {
            let _ = close(fd);
            return Ok(None);
        }
        return Ok(Some(fd));
    }
    let Ok(placeholder) = placeholder::get() else { return Err(fd) };
    #[cfg(test)]
    let _ = seam::close(&fd);
    match os::replace(fd.as_fd(), placeholder) {
        Ok(()) => Ok(Some(fd)),
        Err(_) => Err(fd),
    }
}

/// Sets or clears `O_NONBLOCK`. Duplicates of the descriptor share the flag.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>, nonblocking: bool) -> io::Result<()> {
    SockRef::from(&fd).set_nonblocking(nonblocking)
}

/// Calls fcntl(2) with `F_DUPFD_CLOEXEC`. Returns another descriptor for the same socket.
pub(crate) fn dup_cloexec(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    fd.try_clone_to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read, Write};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn sum_of_lengths_does_not_overflow() {
        assert_eq!(total(&[IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"c")]), 3);
        assert_eq!(sum([usize::MAX - 1, 1].into_iter()), usize::MAX);
        assert_eq!(sum([7, usize::MAX - 1, usize::MAX].into_iter()), usize::MAX);
    }

    fn flags(fd: BorrowedFd<'_>, command: c_int) -> c_int {
        // SAFETY: these commands take no argument.
        check(unsafe { libc::fcntl(fd.as_raw_fd(), command) }).unwrap()
    }

    fn assert_fresh(fd: BorrowedFd<'_>) {
        assert_ne!(flags(fd, libc::F_GETFL) & libc::O_NONBLOCK, 0, "the socket is blocking");
        assert_ne!(flags(fd, libc::F_GETFD) & libc::FD_CLOEXEC, 0, "the socket is not close-on-exec");
    }

    #[test]
    fn bytes_pass_plain_and_vectored() {
        let (client, server) = pair();
        assert_eq!(send(client.as_fd(), b"one", 0).unwrap(), 3);
        let mut buf = [0; 8];
        assert_eq!(recv(server.as_fd(), &mut buf, libc::MSG_PEEK).unwrap(), 3);
        assert_eq!(recv(server.as_fd(), &mut buf, 0).unwrap(), 3);
        assert_eq!(&buf[..3], b"one");
        let sent = send_vectored(client.as_fd(), &[IoSlice::new(b"two"), IoSlice::new(b""), IoSlice::new(b"three")]);
        assert_eq!(sent.unwrap(), 8);
        let (mut first, mut second) = ([0; 5], [0; 8]);
        let mut bufs = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
        assert_eq!(recv_vectored(server.as_fd(), &mut bufs).unwrap(), 8);
        assert_eq!((&first, &second[..3]), (b"twoth", &b"ree"[..]));
        shutdown(client.as_fd(), Shutdown::Write).unwrap();
        assert_eq!(recv(server.as_fd(), &mut buf, 0).unwrap(), 0);
    }

    #[test]
    fn buffers_beyond_the_limit_are_left_for_the_next_call() {
        let (client, mut server) = pair();
        let slices = vec![IoSlice::new(b"x"); IOVECS_MAX + 7];
        assert_eq!(send_vectored(client.as_fd(), &slices).unwrap(), IOVECS_MAX);
        assert_eq!(send_vectored(client.as_fd(), &slices[IOVECS_MAX..]).unwrap(), 7);
        drop(client);
        let mut all = Vec::new();
        assert_eq!(server.read_to_end(&mut all).unwrap(), IOVECS_MAX + 7);
        let (client, mut server) = pair();
        server.write_all(&[b'y'; IOVECS_MAX + 7]).unwrap();
        while recv(client.as_fd(), &mut [0; 2 * IOVECS_MAX], libc::MSG_PEEK).unwrap() < IOVECS_MAX + 7 {
            std::thread::yield_now();
        }
        let mut bytes = [0; IOVECS_MAX + 7];
        let mut bufs: Vec<_> = bytes.chunks_mut(1).map(IoSliceMut::new).collect();
        assert_eq!(recv_vectored(client.as_fd(), &mut bufs).unwrap(), IOVECS_MAX);
    }

    /// SIGPIPE would terminate the process. Rust's runtime ignores the signal, so the test runs in
    /// a child process that first restores the default action.
    #[test]
    fn send_to_a_closed_peer_is_an_error_without_a_signal() {
        crate::own_process::run(module_path!(), "send_to_a_closed_peer_is_an_error_without_a_signal", || {
            // SAFETY: SIG_DFL is a valid disposition, and no other test runs in this process.
            unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
            let (ours, theirs) = UnixStream::pair().unwrap();
            drop(theirs);
            assert_eq!(send(ours.as_fd(), b"x", 0).unwrap_err().kind(), ErrorKind::BrokenPipe);
            let vectored = send_vectored(ours.as_fd(), &[IoSlice::new(b"x")]);
            assert_eq!(vectored.unwrap_err().kind(), ErrorKind::BrokenPipe);
        });
    }

    #[test]
    fn connection_is_made_accepted_and_closed() {
        let listener = socket(Domain::IPV4, Type::STREAM, None).unwrap();
        assert_fresh(listener.as_fd());
        bind(listener.as_fd(), &SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        listen(listener.as_fd(), 16).unwrap();
        assert_eq!(accept4(listener.as_fd()).unwrap_err().kind(), ErrorKind::WouldBlock);
        let address = local_addr(listener.as_fd()).unwrap();
        let client = socket(Domain::IPV4, Type::STREAM, None).unwrap();
        let connected = connect(client.as_fd(), &address.into());
        assert!(connected.is_ok() || connected.unwrap_err().raw_os_error() == Some(libc::EINPROGRESS));
        let (server, peer) = loop {
            match accept4(listener.as_fd()) {
                Ok(accepted) => break accepted,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        };
        assert_fresh(server.as_fd());
        assert_eq!(peer.unwrap(), local_addr(client.as_fd()).unwrap());
        assert_eq!(peer_addr(server.as_fd()).unwrap(), peer.unwrap());
        assert!(take_error(client.as_fd()).unwrap().is_none());
        set_nonblocking(server.as_fd(), false).unwrap();
        assert_eq!(flags(server.as_fd(), libc::F_GETFL) & libc::O_NONBLOCK, 0);
        let copy = dup_cloexec(server.as_fd()).unwrap();
        assert_ne!(flags(copy.as_fd(), libc::F_GETFD) & libc::FD_CLOEXEC, 0);
        close(server).unwrap();
        assert_eq!(peer_addr(copy.as_fd()).unwrap(), peer.unwrap());
        close(copy).unwrap();
    }

    #[test]
    fn address_of_another_family_is_an_error() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert_eq!(local_addr(ours.as_fd()).unwrap_err().raw_os_error(), Some(libc::EAFNOSUPPORT));
        assert_eq!(peer_addr(ours.as_fd()).unwrap_err().raw_os_error(), Some(libc::EAFNOSUPPORT));
        assert!(local_addr_any(ours.as_fd()).unwrap().is_unix());
    }
}

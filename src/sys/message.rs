//! Sending and receiving messages: bytes in one or more buffers, with an address and control data.
//!
//! Each function makes one libc call. The address may be of any family. If a received message has
//! no address, the family is `AF_UNSPEC`.
//!
//! # Invariants
//! * Received descriptors are close-on-exec, and are closed unless the caller takes them
//!   ([`Control`]).
//! * S2, S3 and S4 of [`socket`](super::socket): no SIGPIPE, checked families, no blocking.

#![allow(unsafe_code)]
// Lengths of control data are `size_t` in some C libraries and `socklen_t` in others.
#![allow(clippy::unnecessary_cast)]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::c_int;
use socket2::SockAddr;

use super::control::{Control, ControlWriter, Word};
use super::os;
use super::socket::{IOVECS_MAX, SEND_FLAGS, check_len, total};

/// A received message.
#[derive(Debug)]
pub(crate) struct Received<'a> {
    /// The number of bytes in the buffers, or the full length of the message if the flags passed to
    /// the call contain `MSG_TRUNC`.
    pub(crate) bytes: usize,
    /// The flags that the call returned, such as `MSG_TRUNC` if bytes did not fit, and `MSG_CTRUNC`
    /// if control data did not fit.
    pub(crate) flags: c_int,
    /// The sender's address, or an `AF_UNSPEC` address if there is none.
    pub(crate) address: SockAddr,
    pub(crate) control: Control<'a>,
}

/// An upper bound of the size of a UDP datagram, and of datagrams combined by receive offload.
const DATAGRAM_MAX: usize = 65_535;

/// Calls recvmsg(2) with `MSG_CMSG_CLOEXEC` (where it exists) and `MSG_DONTWAIT` in addition to
/// `flags`. The socket must be a UDP socket if `bufs` has more than [`IOVECS_MAX`] buffers.
#[inline]
pub(crate) fn recvmsg<'a>(
    fd: BorrowedFd<'_>,
    bufs: &mut [IoSliceMut<'_>],
    control: &'a mut [Word],
    flags: c_int,
) -> io::Result<Received<'a>> {
    if bufs.len() > IOVECS_MAX {
        return recvmsg_scattered(fd, bufs, control, flags);
    }
    // SAFETY: `msghdr` is plain data for which all zeroes is a valid value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    // `IoSliceMut` is guaranteed to have the layout of an iovec.
    message.msg_iov = bufs.as_mut_ptr().cast();
    message.msg_iovlen = bufs.len() as _;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(control) as _;
    let receive = |storage: *mut socket2::SockAddrStorage, length: *mut libc::socklen_t| {
        message.msg_name = storage.cast();
        message.msg_namelen = size_of::<socket2::SockAddrStorage>() as _;
        let flags = flags | os::RECEIVE_CLOSE_ON_EXEC | libc::MSG_DONTWAIT;
        // SAFETY: name, buffers and control data are valid for writes of the given lengths during
        // the call.
        let bytes = check_len(unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, flags) })?;
        // SAFETY: `try_init` passes a length that is valid for writes.
        unsafe { length.write(message.msg_namelen) };
        Ok(bytes)
    };
    // SAFETY: on success the kernel has written an address of the stored length. If there is no
    // address, the storage is still zeroed, which is an `AF_UNSPEC` address.
    let (bytes, address) = unsafe { SockAddr::try_init(receive) }?;
    // SAFETY: the kernel has just written this many bytes of control data for this message.
    let control = unsafe { Control::new(control, message.msg_controllen as usize) };
    Ok(Received { bytes, flags: message.msg_flags, address, control })
}

/// Receives like [`recvmsg`], but into more buffers than the kernel accepts. Receives into one
/// temporary buffer and copies its bytes to the caller's buffers.
#[cold]
fn recvmsg_scattered<'a>(
    fd: BorrowedFd<'_>,
    bufs: &mut [IoSliceMut<'_>],
    control: &'a mut [Word],
    flags: c_int,
) -> io::Result<Received<'a>> {
    let room = total(bufs);
    let mut bytes = vec![0; room.min(DATAGRAM_MAX)];
    let received = recvmsg(fd, &mut [IoSliceMut::new(&mut bytes)], control, flags)?;
    let mut rest = &bytes[..received.bytes.min(bytes.len())];
    for buf in bufs {
        let (part, behind) = rest.split_at(rest.len().min(buf.len()));
        buf[..part.len()].copy_from_slice(part);
        rest = behind;
    }
    Ok(received)
}

/// Calls sendmsg(2) with `MSG_NOSIGNAL` and `MSG_DONTWAIT` in addition to `flags`. A datagram is
/// sent as a whole, so if there are more buffers than the kernel accepts, they are combined first.
/// The socket must then be a UDP socket.
#[inline]
pub(crate) fn sendmsg(
    fd: BorrowedFd<'_>,
    bufs: &[IoSlice<'_>],
    to: Option<&SockAddr>,
    control: Option<&ControlWriter<'_>>,
    flags: c_int,
) -> io::Result<usize> {
    if bufs.len() > IOVECS_MAX {
        // One byte more than `DATAGRAM_MAX` is sufficient, because the kernel refuses a message of
        // that size like any longer message.
        let bytes: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).take(DATAGRAM_MAX + 1).collect();
        return sendmsg(fd, &[IoSlice::new(&bytes)], to, control, flags);
    }
    // SAFETY: `msghdr` is plain data for which all zeroes is a valid value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    // `IoSlice` is guaranteed to have the layout of an iovec. The kernel does not write through any
    // of these pointers.
    message.msg_iov = bufs.as_ptr().cast_mut().cast();
    message.msg_iovlen = bufs.len() as _;
    if let Some(to) = to {
        message.msg_name = to.as_ptr().cast_mut().cast();
        message.msg_namelen = to.len();
    }
    if let Some(bytes) = control.map(ControlWriter::bytes) {
        message.msg_control = bytes.as_ptr().cast_mut().cast();
        message.msg_controllen = bytes.len() as _;
    }
    // SAFETY: `message` and everything that it points to are valid for reads during the call.
    check_len(unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const message, flags | SEND_FLAGS) })
}

/// Calls recvfrom(2) with `MSG_DONTWAIT` in addition to `flags`.
#[inline]
pub(crate) fn recv_from(fd: BorrowedFd<'_>, buf: &mut [u8], flags: c_int) -> io::Result<(usize, SockAddr)> {
    let receive = |storage: *mut socket2::SockAddrStorage, length: *mut libc::socklen_t| {
        let (start, room, flags) = (buf.as_mut_ptr().cast(), buf.len(), flags | libc::MSG_DONTWAIT);
        // SAFETY: the buffer, and the storage and length that `try_init` passes, are valid for
        // writes.
        check_len(unsafe { libc::recvfrom(fd.as_raw_fd(), start, room, flags, storage.cast(), length) })
    };
    // SAFETY: the same as in `recvmsg`.
    unsafe { SockAddr::try_init(receive) }
}

/// Calls sendto(2) with `MSG_NOSIGNAL` and `MSG_DONTWAIT` in addition to `flags`.
#[inline]
pub(crate) fn send_to(fd: BorrowedFd<'_>, buf: &[u8], to: &SockAddr, flags: c_int) -> io::Result<usize> {
    let (start, count, flags) = (buf.as_ptr().cast(), buf.len(), flags | SEND_FLAGS);
    // SAFETY: buffer and address are valid for reads of their lengths during the call.
    check_len(unsafe { libc::sendto(fd.as_raw_fd(), start, count, flags, to.as_ptr().cast(), to.len()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::control::{FDS_MAX, RIGHTS_WORDS, space, words};
    use crate::sys::fd::has_descriptors;
    use std::fs::File;
    use std::io::{ErrorKind, Read, Write};
    use std::net::UdpSocket;
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::net::{UnixDatagram, UnixStream};

    fn send_fds(to: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        let mut buffer = [0; RIGHTS_WORDS];
        let mut control = ControlWriter::new(&mut buffer);
        control.push_fds(fds)?;
        sendmsg(to, &[IoSlice::new(bytes)], None, Some(&control), 0)
    }

    #[test]
    fn passed_descriptors_are_close_on_exec() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut near, far) = UnixStream::pair().unwrap();
        assert_eq!(send_fds(ours.as_fd(), b"take these", &[far.as_fd(), far.as_fd()]).unwrap(), 10);
        drop(far);
        let (mut first, mut second) = ([0; 4], [0; 16]);
        let mut buffer = [0; RIGHTS_WORDS];
        let mut bufs = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
        let mut received = recvmsg(theirs.as_fd(), &mut bufs, &mut buffer, 0).unwrap();
        assert_eq!((received.bytes, received.flags & libc::MSG_CTRUNC), (10, 0));
        let mut fds = Vec::new();
        assert_eq!(received.control.take_fds(&mut fds), 2);
        assert_eq!(received.control.take_fds(&mut fds), 0, "the descriptors are returned once");
        drop(received);
        assert_eq!((&first, &second[..6]), (b"take", &b" these"[..]));
        for fd in &fds {
            // SAFETY: F_GETFD takes no argument.
            let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) };
            assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
        }
        File::from(fds.pop().unwrap()).write_all(b"far").unwrap();
        drop(fds);
        let mut text = String::new();
        near.read_to_string(&mut text).unwrap();
        assert_eq!(text, "far", "no other copy is open");
    }

    /// Returns whether `near` is at end of stream, that is, whether the last copy of the other end
    /// is closed.
    fn is_closed_everywhere(mut near: &UnixStream) -> bool {
        near.set_nonblocking(true).unwrap();
        near.read(&mut [0]).is_ok_and(|count| count == 0)
    }

    #[test]
    fn unclaimed_fds_are_closed_on_truncation() {
        for room in [RIGHTS_WORDS, words(space(8)), words(space(4)), 0] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let (near, far) = UnixStream::pair().unwrap();
            send_fds(ours.as_fd(), b"x", &[far.as_fd(); 5]).unwrap();
            drop(far);
            let (mut byte, mut buffer) = ([0], vec![0; room]);
            let received = recvmsg(theirs.as_fd(), &mut [IoSliceMut::new(&mut byte)], &mut buffer, 0).unwrap();
            assert_eq!(received.flags & libc::MSG_CTRUNC != 0, room != RIGHTS_WORDS, "room of {room} words");
            assert_eq!(is_closed_everywhere(&near), room == 0, "the kernel closes descriptors that do not fit");
            drop(received);
            assert!(is_closed_everywhere(&near), "room of {room} words");
        }
    }

    /// Regression test: each message leaked one descriptor.
    #[test]
    fn unrequested_descriptors_of_senders_are_closed() {
        /// The value in asm-generic.
        const SO_PASSPIDFD: c_int = 76;
        let (ours, theirs) = UnixStream::pair().unwrap();
        if crate::sys::option::switch(theirs.as_fd(), libc::SOL_SOCKET, SO_PASSPIDFD, true).is_err() {
            return eprintln!("skipped: this kernel does not have SO_PASSPIDFD");
        }
        for takes in [false, true] {
            (&ours).write_all(b"x").unwrap();
            let (mut byte, mut buffer) = ([0], [0; RIGHTS_WORDS]);
            let mut received = recvmsg(theirs.as_fd(), &mut [IoSliceMut::new(&mut byte)], &mut buffer, 0).unwrap();
            let message = received.control.messages().next().unwrap();
            let number = message.value::<c_int>().unwrap();
            let target = std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap();
            let mut fds = Vec::new();
            if takes {
                assert_eq!(received.control.take_fds(&mut fds), 0);
            }
            drop(received);
            assert_ne!(std::fs::read_link(format!("/proc/self/fd/{number}")).ok(), Some(target));
        }
    }

    #[test]
    fn the_maximum_number_of_descriptors_passes() {
        if !has_descriptors(1000) {
            return eprintln!("skipped: the limit of descriptors is too low");
        }
        let (ours, theirs) = UnixStream::pair().unwrap();
        let file = File::open("/dev/null").unwrap();
        send_fds(ours.as_fd(), b"x", &[file.as_fd(); FDS_MAX]).unwrap();
        let (mut byte, mut buffer) = ([0], [0; RIGHTS_WORDS]);
        let mut received = recvmsg(theirs.as_fd(), &mut [IoSliceMut::new(&mut byte)], &mut buffer, 0).unwrap();
        let mut fds: Vec<OwnedFd> = Vec::new();
        assert_eq!((received.control.take_fds(&mut fds), received.flags & libc::MSG_CTRUNC), (FDS_MAX, 0));
    }

    #[test]
    fn messages_have_addresses_of_any_family() {
        let (ours, theirs) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let to = SockAddr::from(theirs.local_addr().unwrap());
        let bufs = [IoSlice::new(b"ab"), IoSlice::new(b"cde")];
        assert_eq!(sendmsg(ours.as_fd(), &bufs, Some(&to), None, 0).unwrap(), 5);
        let mut short = [0; 3];
        let received = recvmsg(theirs.as_fd(), &mut [IoSliceMut::new(&mut short)], &mut [], 0).unwrap();
        assert_eq!(received.address.as_socket(), ours.local_addr().ok());
        assert_eq!((received.bytes, received.flags & libc::MSG_TRUNC), (3, libc::MSG_TRUNC));
        assert_eq!(&short, b"abc");
        assert_eq!(send_to(ours.as_fd(), b"", &to, 0).unwrap(), 0);
        let (count, from) = recv_from(theirs.as_fd(), &mut short, 0).unwrap();
        assert_eq!((count, from.as_socket()), (0, ours.local_addr().ok()));

        let path = std::env::temp_dir().join(format!("netpoll-message-{}", std::process::id()));
        let named = UnixDatagram::bind(&path).unwrap();
        let to = SockAddr::unix(&path).unwrap();
        let unnamed = UnixDatagram::unbound().unwrap();
        assert_eq!(sendmsg(unnamed.as_fd(), &[IoSlice::new(b"x")], Some(&to), None, 0).unwrap(), 1);
        let received = recvmsg(named.as_fd(), &mut [IoSliceMut::new(&mut short)], &mut [], 0).unwrap();
        assert_eq!(i32::from(received.address.family()), libc::AF_UNSPEC);
        assert!(received.address.as_socket().is_none() && !received.address.is_unix());
        named.send_to(b"y", &path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let received = recvmsg(named.as_fd(), &mut [IoSliceMut::new(&mut short)], &mut [], 0).unwrap();
        assert_eq!(received.address.as_pathname(), Some(&*path));
    }

    #[test]
    fn errors_of_the_call_are_returned() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut byte = [0];
        let nothing = recvmsg(socket.as_fd(), &mut [IoSliceMut::new(&mut byte)], &mut [], 0);
        assert_eq!(nothing.unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(recv_from(socket.as_fd(), &mut byte, 0).unwrap_err().kind(), ErrorKind::WouldBlock);
        let to = SockAddr::from(socket.local_addr().unwrap());
        let long = vec![0; 70_000];
        assert_eq!(send_to(socket.as_fd(), &long, &to, 0).unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
        let nowhere = sendmsg(socket.as_fd(), &[IoSlice::new(b"x")], None, None, 0);
        assert_eq!(nowhere.unwrap_err().raw_os_error(), Some(libc::EDESTADDRREQ));
    }
}

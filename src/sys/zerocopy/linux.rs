//! MSG_ZEROCOPY: the socket option, the call, the completions in the error queue
//! (Documentation/networking/msg_zerocopy.rst of Linux), and the reset of a connection.

#![allow(unsafe_code)]

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::Completion;
use crate::sys::{option, socket};

// Values of linux/errqueue.h, which the crate `libc` does not define.
const SO_EE_ORIGIN_ZEROCOPY: u8 = 5;
const SO_EE_CODE_ZEROCOPY_COPIED: u8 = 1;

/// Sets SO_ZEROCOPY.
pub(crate) fn set(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    option::switch(fd, libc::SOL_SOCKET, libc::SO_ZEROCOPY, on)
}

/// Calls send(2) with MSG_ZEROCOPY. The kernel may read the memory of `buf` until a [`Completion`]
/// reports the call. If the memory is changed or freed earlier, wrong bytes may be sent. The
/// function is nevertheless safe, because the kernel holds references to the pages.
pub(crate) fn send(fd: BorrowedFd<'_>, buf: &[u8]) -> io::Result<usize> {
    socket::send(fd, buf, libc::MSG_ZEROCOPY)
}

/// Calls connect(2) with AF_UNSPEC, which resets a TCP connection and drops queued data. The call
/// affects all descriptors of the socket. Fails for a Unix stream, which cannot be reset.
pub(crate) fn disconnect(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: `sockaddr` is plain data for which all zeroes is a valid value.
    let mut nowhere: libc::sockaddr = unsafe { mem::zeroed() };
    nowhere.sa_family = libc::AF_UNSPEC as libc::sa_family_t;
    // SAFETY: `nowhere` is valid for reads of its size during the call.
    let result =
        unsafe { libc::connect(fd.as_raw_fd(), &raw const nowhere, size_of::<libc::sockaddr>() as libc::socklen_t) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes messages from the error queue until one of them is a completion, and returns the
/// completion. Discards the messages before the completion. Returns EAGAIN when the queue is empty.
pub(crate) fn completion(fd: BorrowedFd<'_>) -> io::Result<Completion> {
    /// The length of the control buffer in words: enough for a control message that includes an
    /// address. A word has at least the alignment of a `cmsghdr`.
    const ROOM: usize = 16;
    loop {
        let mut control = [0u64; ROOM];
        // SAFETY: `msghdr` is plain data, for which all zeroes is a valid value: no name, no
        // buffers.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = mem::size_of_val(&control) as _;
        // SAFETY: `message` and the control buffer are valid for writes during the call.
        let received =
            unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) };
        if received < 0 {
            return Err(io::Error::last_os_error());
        }
        if let Some(completion) = decode(&message) {
            return Ok(completion);
        }
    }
}

fn decode(message: &libc::msghdr) -> Option<Completion> {
    // SAFETY: recvmsg(2) has filled in `message`.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !next.is_null() {
        // SAFETY: `next` is not null, so it points to a whole header in the control data that
        // recvmsg(2) wrote. It is aligned, because the buffer is, and the macros align each
        // following header.
        let header = unsafe { next.read() };
        let kind = (header.cmsg_level, header.cmsg_type);
        // SAFETY: the function only does arithmetic.
        let least = unsafe { libc::CMSG_LEN(size_of::<libc::sock_extended_err>() as u32) } as usize;
        if matches!(kind, (libc::SOL_IP, libc::IP_RECVERR) | (libc::SOL_IPV6, libc::IPV6_RECVERR))
            && header.cmsg_len as usize >= least
        {
            // SAFETY: `next` points to a header, and the length of the message includes data after
            // it.
            let data = unsafe { libc::CMSG_DATA(next) };
            let mut error = MaybeUninit::<libc::sock_extended_err>::uninit();
            // SAFETY: according to its length, the message contains the whole structure. The
            // structure may be unaligned, so it is copied as bytes.
            unsafe { data.copy_to_nonoverlapping(error.as_mut_ptr().cast(), size_of::<libc::sock_extended_err>()) };
            // SAFETY: all bytes were written, and every bit pattern is a valid value.
            let error = unsafe { error.assume_init() };
            if error.ee_errno == 0 && error.ee_origin == SO_EE_ORIGIN_ZEROCOPY {
                let copied = error.ee_code & SO_EE_CODE_ZEROCOPY_COPIED != 0;
                return Some(Completion { calls: error.ee_info..=error.ee_data, copied });
            }
        }
        // SAFETY: `next` is a header of `message`.
        next = unsafe { libc::CMSG_NXTHDR(message, next) };
    }
    None
}

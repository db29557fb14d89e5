//! Calls that only Unix sockets have, as safe functions.
//!
//! Invariants S1 and S2 of [`socket`](super::socket) apply here as well.

#![allow(unsafe_code)]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;

use socket2::{Domain, SockAddr, Socket, Type};

/// Calls socketpair(2). Returns two connected, unnamed, non-blocking and close-on-exec sockets.
pub(crate) fn pair(ty: Type) -> io::Result<(OwnedFd, OwnedFd)> {
    let (one, other) = Socket::pair_raw(Domain::UNIX, ty.nonblocking().cloexec(), None)?;
    Ok((one.into(), other.into()))
}

/// Returns the credentials of the other end (`SO_PEERCRED`). The kernel returns process 0 if it
/// cannot be named here, and user and group -1 if there is no other end.
pub(crate) fn peer_cred(fd: BorrowedFd<'_>) -> io::Result<libc::ucred> {
    let mut cred = MaybeUninit::<libc::ucred>::zeroed();
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    let (value, size) = (cred.as_mut_ptr().cast(), &raw mut length);
    // SAFETY: value and length are valid for writes during the call.
    if unsafe { libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, value, size) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: three integers, zeroes before the call; every bit pattern is a valid value.
    Ok(unsafe { cred.assume_init() })
}

/// Returns the effective user of this process.
pub(crate) fn user() -> libc::uid_t {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() }
}

/// Converts an address from the kernel. No address becomes the unnamed address.
///
/// # Errors
/// Returns EAFNOSUPPORT if the address is of another family.
pub(crate) fn from_kernel(address: &SockAddr) -> io::Result<SocketAddr> {
    if !address.is_unix() && address.family() != libc::AF_UNSPEC as libc::sa_family_t {
        return Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT));
    }
    let named = match (address.as_pathname(), address.as_abstract_namespace()) {
        (Some(path), _) => SocketAddr::from_pathname(path).ok(),
        (None, Some(name)) => SocketAddr::from_abstract_name(name).ok(),
        (None, None) => None,
    };
    // An empty path makes the unnamed address.
    named.map_or_else(|| SocketAddr::from_pathname(""), Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket;
    use std::os::fd::AsFd;

    #[test]
    fn pairs_are_connected_and_have_credentials() {
        for ty in [Type::STREAM, Type::DGRAM, Type::SEQPACKET] {
            let (one, other) = pair(ty).unwrap();
            let mut buf = [0; 4];
            assert_eq!(socket::recv(other.as_fd(), &mut buf, 0).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            assert_eq!(socket::send(one.as_fd(), b"pair", 0).unwrap(), 4);
            assert_eq!(socket::recv(other.as_fd(), &mut buf, 0).unwrap(), 4);
            let cred = peer_cred(one.as_fd()).unwrap();
            assert_eq!(cred.pid, std::process::id() as libc::pid_t);
            // SAFETY: no arguments, cannot fail.
            assert_eq!(cred.uid, unsafe { libc::geteuid() });
            // SAFETY: no arguments, cannot fail.
            assert_eq!(cred.gid, unsafe { libc::getegid() });
        }
    }

    #[test]
    fn socket_without_a_peer_has_no_peer_credentials() {
        let lonely = socket::socket(Domain::UNIX, Type::STREAM, None).unwrap();
        let cred = peer_cred(lonely.as_fd()).unwrap();
        assert_eq!((cred.pid, cred.uid, cred.gid), (0, u32::MAX, u32::MAX));
    }
}

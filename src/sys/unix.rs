//! Calls for Unix sockets, the user ID and file locks, as safe functions.
//!
//! Invariants S1 and S2 of [`socket`](super::socket) apply to this module as well.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::SocketAddr;

use socket2::{SockAddr, Type};

use super::os;

/// Calls socketpair(2). Returns two connected, unnamed, non-blocking and close-on-exec sockets.
pub(crate) fn pair(ty: Type) -> io::Result<(OwnedFd, OwnedFd)> {
    os::pair(ty)
}

/// Returns the process, user and group IDs of the peer. A process ID of 0 means that it is unknown.
///
/// # Errors
/// Returns ENOTCONN if there is no peer, or another OS error.
pub(crate) fn peer_cred(fd: BorrowedFd<'_>) -> io::Result<(libc::pid_t, libc::uid_t, libc::gid_t)> {
    let cred = os::peer_cred(fd)?;
    if cred.1 == libc::uid_t::MAX { Err(io::Error::from_raw_os_error(libc::ENOTCONN)) } else { Ok(cred) }
}

/// Returns the effective user ID of this process.
#[allow(unsafe_code)]
pub(crate) fn user() -> libc::uid_t {
    // SAFETY: the call has no arguments and cannot fail.
    unsafe { libc::geteuid() }
}

/// Locks a file or directory exclusively (flock(2)), until `fd` and its duplicates are closed. Does
/// not wait.
///
/// # Errors
/// Returns `WouldBlock` if the file is already locked, or another OS error.
#[allow(unsafe_code)]
pub(crate) fn try_lock(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointer is passed, and the descriptor is borrowed.
    match unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Converts an address from the kernel. If there is no address, or if std has no function that
/// creates it (a path of 108 bytes on Linux), returns the unnamed address.
///
/// # Errors
/// Returns EAFNOSUPPORT if the address is of another family.
pub(crate) fn from_kernel(address: &SockAddr) -> io::Result<SocketAddr> {
    if !address.is_unix() && address.family() != libc::AF_UNSPEC as libc::sa_family_t {
        return Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT));
    }
    let named = match (address.as_pathname(), address.as_abstract_namespace()) {
        (Some(path), _) => SocketAddr::from_pathname(path).ok(),
        (None, Some(name)) => os::from_abstract_name(name).ok(),
        (None, None) => None,
    };
    // `from_pathname` converts an empty path into the unnamed address.
    named.map_or_else(|| SocketAddr::from_pathname(""), Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket;
    use socket2::Domain;
    use std::os::fd::AsFd;

    #[test]
    #[allow(unsafe_code)]
    fn pairs_are_connected_and_have_credentials() {
        for ty in [Type::STREAM, Type::DGRAM] {
            let (one, other) = pair(ty).unwrap();
            let mut buf = [0; 4];
            assert_eq!(socket::recv(other.as_fd(), &mut buf, 0).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            assert_eq!(socket::send(one.as_fd(), b"pair", 0).unwrap(), 4);
            assert_eq!(socket::recv(other.as_fd(), &mut buf, 0).unwrap(), 4);
            let (pid, uid, gid) = peer_cred(one.as_fd()).unwrap();
            assert_eq!(pid, std::process::id() as libc::pid_t);
            // SAFETY: the call has no arguments and cannot fail.
            assert_eq!(uid, unsafe { libc::geteuid() });
            // SAFETY: the call has no arguments and cannot fail.
            assert_eq!(gid, unsafe { libc::getegid() });
        }
    }

    #[test]
    fn socket_without_a_peer_has_no_peer_credentials() {
        let lonely = socket::socket(Domain::UNIX, Type::STREAM, None).unwrap();
        assert_eq!(peer_cred(lonely.as_fd()).unwrap_err().raw_os_error(), Some(libc::ENOTCONN));
    }
}

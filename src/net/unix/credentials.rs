//! `PeerCred`.

use std::io;
use std::os::fd::BorrowedFd;

use crate::sys::unix;

/// Who is at the other end of a connection: the process that connected, or that listened, or that made the pair, and its user and
/// group at that moment.
///
/// The kernel vouches for it. A process id may have been given to another process since; the user and the group cannot change.
///
/// Source: `SO_PEERCRED` in unix(7).
///
/// # Examples
/// ```
/// # netpoll::task::block_on(async {
/// use netpoll::os::unix::net::UnixStream;
///
/// let (ours, _theirs) = UnixStream::pair()?;
/// let cred = ours.peer_cred()?;
/// assert_eq!(cred.pid(), Some(std::process::id()));
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerCred {
    pid: Option<u32>,
    uid: u32,
    gid: u32,
}

impl PeerCred {
    pub(super) fn of(fd: BorrowedFd<'_>) -> io::Result<PeerCred> {
        let libc::ucred { pid, uid, gid } = unix::peer_cred(fd)?;
        if uid == u32::MAX {
            return Err(io::Error::from_raw_os_error(libc::ENOTCONN));
        }
        Ok(PeerCred { pid: u32::try_from(pid).ok().filter(|&pid| pid != 0), uid, gid })
    }

    /// The process; none where it has no number in this process's namespace.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// The effective user.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The effective group.
    pub fn gid(&self) -> u32 {
        self.gid
    }
}

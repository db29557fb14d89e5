//! [`PeerCred`]: the credentials of a peer.

use std::io;
use std::os::fd::BorrowedFd;

use crate::sys::unix;

/// The process, user and group at the other end of a connection.
///
/// The kernel records them when the peer calls connect(2), listen(2) or socketpair(2), and a
/// process cannot forge them. They do not change afterwards, but another process may have reused
/// the process ID since. macOS does not record the process ID: it reports the process that last
/// used the peer's socket, which may have inherited or received it from another process.
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
#[doc(alias = "UCred")]
pub struct PeerCred {
    pid: Option<u32>,
    uid: u32,
    gid: u32,
}

impl PeerCred {
    pub(super) fn of(fd: BorrowedFd<'_>) -> io::Result<PeerCred> {
        let (pid, uid, gid) = unix::peer_cred(fd)?;
        Ok(PeerCred { pid: u32::try_from(pid).ok().filter(|&pid| pid != 0), uid, gid })
    }

    /// Returns the process ID. Returns `None` if the process is not visible in this process's PID
    /// namespace, if macOS does not report the ID, and always on FreeBSD, where the ID is not
    /// queried.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Returns the effective user ID.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Returns the effective group ID.
    pub fn gid(&self) -> u32 {
        self.gid
    }
}

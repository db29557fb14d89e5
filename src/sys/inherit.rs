//! Descriptors that a process inherits, and those that it leaves to a child.

#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use libc::c_int;

#[inline]
fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// What is open under a number: the same for duplicates, in other processes too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// # Errors
    /// EBADF for a number that is not open.
    #[allow(clippy::useless_conversion, reason = "32 bits on some machines")]
    pub(crate) fn of(number: RawFd) -> io::Result<Identity> {
        let mut status = MaybeUninit::<libc::stat>::zeroed();
        // SAFETY: the structure is valid for writes during the call; a number that is not open is an error.
        check(unsafe { libc::fstat(number, status.as_mut_ptr()) })?;
        // SAFETY: zeroes are a value, and the call filled it in.
        let status = unsafe { status.assume_init() };
        Ok(Identity { device: status.st_dev.into(), inode: status.st_ino.into() })
    }

    pub(crate) fn of_open(fd: BorrowedFd<'_>) -> io::Result<Identity> {
        Identity::of(fd.as_raw_fd())
    }

    /// What `Display` writes.
    pub(crate) fn parse(text: &str) -> Option<Identity> {
        let (device, inode) = text.split_once('-')?;
        Some(Identity { device: device.parse().ok()?, inode: inode.parse().ok()? })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.device, self.inode)
    }
}

/// Whether a number is open and was inherited: what this process opens itself is close-on-exec, what it inherited is not.
pub(crate) fn is_inherited(number: RawFd) -> io::Result<bool> {
    // SAFETY: no memory is passed; a number that is not open is an error.
    Ok(check(unsafe { libc::fcntl(number, libc::F_GETFD) })? & libc::FD_CLOEXEC == 0)
}

/// Makes an inherited number ours, and close-on-exec. The caller has asked [`is_inherited`], and asks for each number once.
pub(crate) fn adopt_inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed; a number that is not open is an error.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: it is open, and was before this process opened anything: who started it left it to whoever reads the environment, as we
    // do once. Whatever else in here owns a descriptor made it close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A close-on-exec duplicate with a number of `least` or more.
pub(crate) fn dup_above(fd: BorrowedFd<'_>, least: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let number = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) })?;
    // SAFETY: the kernel just gave us this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Gives the children of `command` each of `fds` under the numbers from `first` on, open across exec(2). `kept` lives as long as
/// `command`.
pub(crate) fn pass_at(command: &mut Command, first: RawFd, fds: Vec<OwnedFd>, kept: Vec<OwnedFd>) {
    let pass = move || {
        let _ = &kept;
        for (fd, number) in fds.iter().zip(first..) {
            // dup2(2) and reading errno are safe to call after fork(2), and so is making an error of a number: it allocates nothing.
            // SAFETY: no memory is passed; in this process, which is about to become another, `number` belongs to nobody.
            check(unsafe { libc::dup2(fd.as_raw_fd(), number) })?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes only calls that are safe in the child of a process with threads.
    unsafe { command.pre_exec(pass) };
}

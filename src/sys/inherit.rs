//! Descriptors that a process inherits, and those that it passes to a child.

#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use libc::c_int;

use super::os;

#[inline]
fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The identity of an open file: the same for duplicates, also in other processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// # Errors
    /// Returns EBADF if the number is not open.
    pub(crate) fn of(number: RawFd) -> io::Result<Identity> {
        let mut status = MaybeUninit::<libc::stat>::zeroed();
        // SAFETY: the structure is valid for writes during the call; a number that is not open is
        // an error.
        check(unsafe { libc::fstat(number, status.as_mut_ptr()) })?;
        // SAFETY: zeroes are a value, and the call filled it in.
        Ok(Identity::from(&unsafe { status.assume_init() }))
    }

    pub(crate) fn of_open(fd: BorrowedFd<'_>) -> io::Result<Identity> {
        Identity::of(fd.as_raw_fd())
    }

    /// Parses the text that `Display` writes.
    pub(crate) fn parse(text: &str) -> Option<Identity> {
        let (device, inode) = text.split_once('-')?;
        Some(Identity { device: device.parse().ok()?, inode: inode.parse().ok()? })
    }
}

impl From<&libc::stat> for Identity {
    #[allow(clippy::unnecessary_cast, reason = "32 bits on some machines, and signed on some systems")]
    fn from(status: &libc::stat) -> Identity {
        Identity { device: status.st_dev as u64, inode: status.st_ino as u64 }
    }
}

/// A process: its id, and its start time, because ids are reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    number: u32,
    /// In ticks since the machine started; `None` for a process that has ended, and without
    /// proc(5).
    start: Option<u64>,
}

impl Process {
    pub(crate) fn own() -> Process {
        Process::of(std::process::id())
    }

    fn of(number: u32) -> Process {
        let stat = std::fs::read(format!("/proc/{number}/stat")).unwrap_or_default();
        let stat = String::from_utf8_lossy(&stat);
        // proc_pid_stat(5): the second field is the name in parentheses, which may contain
        // anything; field 3 is `state`, field 22 is `starttime`.
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
        let has_ended = matches!(fields.next(), None | Some("Z" | "X"));
        let start = fields.nth(22 - 4).and_then(|start| start.parse().ok());
        Process { number, start: start.filter(|_| !has_ended) }
    }

    /// Parses the text that `Display` writes.
    pub(crate) fn parse(text: &str) -> Option<Process> {
        let (number, start) = text.split_once('-')?;
        let start = if start.is_empty() { None } else { Some(start.parse().ok()?) };
        Some(Process { number: number.parse().ok()?, start })
    }

    /// Returns whether `self` started this process with the environment variable `mark`. False in a
    /// child of such a process, which inherits the variable.
    pub(crate) fn started_this_one(self, mark: (&str, &str)) -> bool {
        let parent = std::os::unix::process::parent_id();
        if self.number == std::process::id() {
            // It became this process by exec(2).
            true
        } else if self.number == parent {
            // Unless it became the parent by exec(2), with the mark.
            let environment = std::fs::read(format!("/proc/{parent}/environ")).unwrap_or_default();
            let mark = format!("{}={}", mark.0, mark.1);
            !environment.split(|&byte| byte == 0).any(|variable| variable == mark.as_bytes())
        } else {
            // If it has ended, its children have a new parent: an ancestor of it, which is older.
            // The parent of a grandchild is not older.
            let is_older = || Process::of(parent).start.zip(self.start).is_some_and(|(parent, own)| parent < own);
            Process::of(self.number) != self && (parent == 1 || is_older())
        }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-", self.number)?;
        self.start.map_or(Ok(()), |start| write!(f, "{start}"))
    }
}

/// Returns the identity of the pipe or Unix socket that is open under `number`, if it is
/// close-on-exec. Makes only calls that are safe after fork(2).
fn private_channel(number: RawFd) -> Option<Identity> {
    let mut status = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the structure is valid for writes during the call; a number that is not open is an
    // error.
    check(unsafe { libc::fstat(number, status.as_mut_ptr()) }).ok()?;
    // SAFETY: all zeroes is a valid value, and the call filled it in.
    let status = unsafe { status.assume_init() };
    let is_channel = match status.st_mode & libc::S_IFMT {
        libc::S_IFIFO => true,
        libc::S_IFSOCK => os::domain(number).ok()? == libc::AF_UNIX,
        _ => false,
    };
    if is_channel && !is_inherited(number).ok()? { Some(Identity::from(&status)) } else { None }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.device, self.inode)
    }
}

/// Returns whether a number is open and was inherited: descriptors that this process opens are
/// close-on-exec, inherited ones are not.
pub(crate) fn is_inherited(number: RawFd) -> io::Result<bool> {
    // SAFETY: no memory is passed; a number that is not open is an error.
    Ok(check(unsafe { libc::fcntl(number, libc::F_GETFD) })? & libc::FD_CLOEXEC == 0)
}

/// Takes ownership of an inherited number and makes it close-on-exec. The caller must have checked
/// [`is_inherited`], and must call this once per number.
pub(crate) fn adopt_inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed; a number that is not open is an error.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: it is open, and was open before this process opened anything: the parent left it to
    // the code that reads the environment, which is this call, made once. All other owners of
    // descriptors in this process made theirs close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Returns a close-on-exec duplicate with a number of at least `least`.
pub(crate) fn dup_above(fd: BorrowedFd<'_>, least: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let number = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) })?;
    // SAFETY: the kernel has just created this descriptor, and it has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Makes each child of `command` have `fds` under the numbers from `first` on, open across exec(2).
/// `kept` lives as long as `command`.
///
/// `Command` learns of a failed exec(2) from a pipe or a pair of Unix sockets. The child has one
/// end, under an unknown number. It may be one of these numbers, if that was closed since this
/// call. A channel that was not there before is therefore left alone, until exec(2) closes it. The
/// descriptor for that number is then open only under its own number.
pub(crate) fn pass_at(command: &mut Command, first: RawFd, fds: Vec<OwnedFd>, kept: Vec<OwnedFd>) {
    let known: Vec<_> = (first..).take(fds.len()).map(private_channel).collect();
    let pass = move || {
        let _ = &kept;
        // The calls are safe after fork(2), and so is creating an error from a number, which does
        // not allocate.
        for ((fd, number), known) in fds.iter().zip(first..).zip(&known) {
            let found = private_channel(number);
            if found.is_some() && found != *known {
                // SAFETY: no memory is passed, and the child owns its copy of the number.
                check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) })?;
            } else {
                // SAFETY: no memory is passed; in this process, which is about to exec, `number`
                // has no owner.
                check(unsafe { libc::dup2(fd.as_raw_fd(), number) })?;
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes only calls that are safe in the child of a
    // multi-threaded process.
    unsafe { command.pre_exec(pass) };
}

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
    pub(crate) fn of(number: RawFd) -> io::Result<Identity> {
        let mut status = MaybeUninit::<libc::stat>::zeroed();
        // SAFETY: the structure is valid for writes during the call; a number that is not open is an error.
        check(unsafe { libc::fstat(number, status.as_mut_ptr()) })?;
        // SAFETY: zeroes are a value, and the call filled it in.
        Ok(Identity::from(&unsafe { status.assume_init() }))
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

impl From<&libc::stat> for Identity {
    #[allow(clippy::useless_conversion, reason = "32 bits on some machines")]
    fn from(status: &libc::stat) -> Identity {
        Identity { device: status.st_dev.into(), inode: status.st_ino.into() }
    }
}

/// A process: its number, and when it started, because numbers are given out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    number: u32,
    /// In ticks since the machine started; none for one that has ended, and without proc(5).
    start: Option<u64>,
}

impl Process {
    pub(crate) fn own() -> Process {
        Process::of(std::process::id())
    }

    fn of(number: u32) -> Process {
        let stat = std::fs::read(format!("/proc/{number}/stat")).unwrap_or_default();
        let stat = String::from_utf8_lossy(&stat);
        // proc_pid_stat(5): the second field is the name in parentheses, which may contain anything; 3 is `state`, 22 is `starttime`.
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

    /// Whether this process is the one that `self` started with the environment variable `mark`, and not a child of that one, which
    /// inherits the variable.
    pub(crate) fn started_this_one(self, mark: (&str, &str)) -> bool {
        let parent = std::os::unix::process::parent_id();
        if self.number == std::process::id() {
            // It became this one by exec(2).
            true
        } else if self.number == parent {
            // Unless it became the parent by exec(2), with the mark.
            let environment = std::fs::read(format!("/proc/{parent}/environ")).unwrap_or_default();
            let mark = format!("{}={}", mark.0, mark.1);
            !environment.split(|&byte| byte == 0).any(|variable| variable == mark.as_bytes())
        } else {
            // It has ended, and its children have a new parent: an ancestor of it, which is older. The parent of a grandchild is not.
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

/// Returns the identity of the pipe or Unix socket that is open under `number`, if it is close-on-exec. Makes only calls that are safe
/// after fork(2).
fn private_channel(number: RawFd) -> Option<Identity> {
    let mut status = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the structure is valid for writes during the call; a number that is not open is an error.
    check(unsafe { libc::fstat(number, status.as_mut_ptr()) }).ok()?;
    // SAFETY: zeroes are a value, and the call filled it in.
    let status = unsafe { status.assume_init() };
    let is_channel = match status.st_mode & libc::S_IFMT {
        libc::S_IFIFO => true,
        libc::S_IFSOCK => {
            let (mut domain, mut length): (c_int, _) = (0, size_of::<c_int>() as libc::socklen_t);
            let place = (&raw mut domain).cast();
            // SAFETY: the number and its length are valid for reads and writes during the call.
            check(unsafe { libc::getsockopt(number, libc::SOL_SOCKET, libc::SO_DOMAIN, place, &raw mut length) })
                .ok()?;
            domain == libc::AF_UNIX
        }
        _ => false,
    };
    if is_channel && !is_inherited(number).ok()? { Some(Identity::from(&status)) } else { None }
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

/// Has each child of `command` find `fds` under the numbers from `first` on, open across exec(2). `kept` lives as long as `command`.
///
/// `Command` learns that exec(2) failed from a pipe or a pair of Unix sockets. The child has one end, and `Command` does not say under
/// which number. It may be one of these, if it was closed since this call. So a channel that was not there before stays where it is,
/// until exec(2) closes it. The descriptor for that number is then open under its own number only.
pub(crate) fn pass_at(command: &mut Command, first: RawFd, fds: Vec<OwnedFd>, kept: Vec<OwnedFd>) {
    let known: Vec<_> = (first..).take(fds.len()).map(private_channel).collect();
    let pass = move || {
        let _ = &kept;
        // The calls are safe after fork(2), and so is making an error of a number: it allocates nothing.
        for ((fd, number), known) in fds.iter().zip(first..).zip(&known) {
            let found = private_channel(number);
            if found.is_some() && found != *known {
                // SAFETY: no memory is passed, and the child owns its copy of the number.
                check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) })?;
            } else {
                // SAFETY: no memory is passed; in this process, which is about to become another, `number` belongs to nobody.
                check(unsafe { libc::dup2(fd.as_raw_fd(), number) })?;
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes only calls that are safe in the child of a process with threads.
    unsafe { command.pre_exec(pass) };
}

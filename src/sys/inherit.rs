//! Descriptors that a process inherits from its parent, and descriptors that it passes to a child.
//! Both processes identify files and processes by an [`Identity`] and a [`Process`].

#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use libc::c_int;

use super::fd::status;
use super::os;
use super::socket::check;

/// The identity of an open file. Duplicates have the same identity, even in other processes.
/// Different files may have the same identity: the two ends of a pipe do, and all eventfds do on
/// Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// Returns the identity of the file that is open as descriptor `number`.
    ///
    /// # Errors
    /// Returns EBADF if the descriptor is not open.
    pub(crate) fn of(number: RawFd) -> io::Result<Identity> {
        status(number).map(|status| Identity::from(&status))
    }

    pub(crate) fn of_open(fd: BorrowedFd<'_>) -> io::Result<Identity> {
        Identity::of(fd.as_raw_fd())
    }

    /// Parses the text that `Display` writes. Returns `None` if the text does not have this form.
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
    /// The start time in clock ticks since boot. `None` if the process has ended, or if proc(5) is
    /// not available.
    start: Option<u64>,
}

impl Process {
    pub(crate) fn own() -> Process {
        Process::of(std::process::id())
    }

    fn of(number: u32) -> Process {
        let stat = std::fs::read(format!("/proc/{number}/stat")).unwrap_or_default();
        let stat = String::from_utf8_lossy(&stat);
        // proc_pid_stat(5): field 2 is the name in parentheses, which may contain any character;
        // field 3 is `state`, field 22 is `starttime`.
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
        let has_ended = matches!(fields.next(), None | Some("Z" | "X"));
        let start = fields.nth(22 - 4).and_then(|start| start.parse().ok());
        Process { number, start: start.filter(|_| !has_ended) }
    }

    /// Parses the text that `Display` writes. Returns `None` if the text does not have this form.
    pub(crate) fn parse(text: &str) -> Option<Process> {
        let (number, start) = text.split_once('-')?;
        let start = if start.is_empty() { None } else { Some(start.parse().ok()?) };
        Some(Process { number: number.parse().ok()?, start })
    }

    /// Returns whether the process `self` started this process with the environment variable
    /// `mark`. Returns false if a child of `self` has started this process and passed the variable
    /// on, unless both `self` and that child have ended.
    pub(crate) fn started_this_one(self, mark: (&str, &str)) -> bool {
        let parent = std::os::unix::process::parent_id();
        if self.number == std::process::id() {
            // This process was started by exec(2) without fork(2).
            true
        } else if self.number == parent {
            // If the parent's environment has the mark, the parent has replaced its program with
            // exec(2) and is itself the process that was started with the mark. This process is
            // only its child.
            let environment = std::fs::read(format!("/proc/{parent}/environ")).unwrap_or_default();
            let mark = format!("{}={}", mark.0, mark.1);
            !environment.split(|&byte| byte == 0).any(|variable| variable == mark.as_bytes())
        } else {
            // If `self` has ended, its children were reparented to one of its ancestors, which is
            // older than `self`. The parent of a grandchild is not older.
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

/// Returns the identity of the file that is open as descriptor `number` if it is a close-on-exec
/// pipe or Unix socket, and `None` otherwise. Makes only calls that are safe after fork(2).
fn private_channel(number: RawFd) -> Option<Identity> {
    let status = status(number).ok()?;
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

/// Returns whether descriptor `number` was inherited, that is, whether it is not close-on-exec.
/// This assumes that all descriptors that this process opens are close-on-exec. Returns EBADF if
/// `number` is not open.
pub(crate) fn is_inherited(number: RawFd) -> io::Result<bool> {
    // SAFETY: no memory is passed; for a descriptor that is not open the call returns an error.
    Ok(check(unsafe { libc::fcntl(number, libc::F_GETFD) })? & libc::FD_CLOEXEC == 0)
}

/// Makes inherited descriptors close-on-exec: all of them or, if the call returns an error, none.
pub(crate) fn make_private(numbers: &[RawFd]) -> io::Result<()> {
    let set = |number: &RawFd, flags: c_int| {
        // SAFETY: no memory is passed; for a descriptor that is not open the call returns an error.
        check(unsafe { libc::fcntl(*number, libc::F_SETFD, flags) })
    };
    for (done, number) in numbers.iter().enumerate() {
        if let Err(error) = set(number, libc::FD_CLOEXEC) {
            numbers[..done].iter().for_each(|number| drop(set(number, 0)));
            return Err(error);
        }
    }
    Ok(())
}

/// Returns a close-on-exec duplicate of `fd` whose number is at least `least`.
pub(crate) fn dup_above(fd: BorrowedFd<'_>, least: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let number = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) })?;
    // SAFETY: the kernel has just created this descriptor, and it has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Makes `command` pass `fds` to each child, as descriptors `first`, `first + 1` and so on. `kept`
/// stays open as long as `command` exists.
///
/// `Command` reports a failed exec(2) over a channel, which is a pipe or a pair of Unix sockets.
/// The child has one end of the channel, with an unknown number. It may be a target number that was
/// not open at the time of this call, or was closed afterwards. Therefore, if a target number
/// refers to a close-on-exec channel that it did not refer to at the time of this call, the channel
/// is not replaced, and exec(2) closes it. The child then has the descriptor only under its
/// original number.
pub(crate) fn pass_at(command: &mut Command, first: RawFd, fds: Vec<OwnedFd>, kept: Vec<OwnedFd>) {
    let known: Vec<_> = (first..).take(fds.len()).map(private_channel).collect();
    let pass = move || {
        let _ = &kept;
        // These calls are safe after fork(2). So is creating an error from an errno, which does not
        // allocate.
        for ((fd, number), known) in fds.iter().zip(first..).zip(&known) {
            let found = private_channel(number);
            if found.is_some() && found != *known {
                // SAFETY: no memory is passed, and the child owns its copy of the descriptor.
                check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) })?;
            } else {
                // SAFETY: no memory is passed; in the child, which is about to call exec(2),
                // `number` has no owner.
                check(unsafe { libc::dup2(fd.as_raw_fd(), number) })?;
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes only calls that are safe in the child of a
    // multi-threaded process.
    unsafe { command.pre_exec(pass) };
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn descriptor_that_is_not_open_leaves_the_others_inherited() {
        let files = [(); 2].map(|()| File::open("/dev/null").unwrap());
        let numbers = files.each_ref().map(AsRawFd::as_raw_fd);
        for number in numbers {
            // SAFETY: no memory is passed.
            check(unsafe { libc::fcntl(number, libc::F_SETFD, 0) }).unwrap();
        }
        let error = make_private(&[numbers[0], numbers[1], RawFd::MAX]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        assert!(numbers.iter().all(|&number| is_inherited(number).unwrap()));
        make_private(&numbers).unwrap();
        assert!(numbers.iter().all(|&number| !is_inherited(number).unwrap()));
    }
}

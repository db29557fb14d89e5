//! Calls on descriptors of any kind, and the limits on their number.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use super::socket;

/// Returns whether `O_NONBLOCK` is set. Duplicates share the flag, including those in other
/// processes.
pub(crate) fn is_nonblocking(fd: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: the command takes no argument.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    if flags < 0 { Err(io::Error::last_os_error()) } else { Ok(flags & libc::O_NONBLOCK != 0) }
}

/// Sets `O_NONBLOCK`. Returns true if the flag was not set before.
pub(crate) fn make_nonblocking(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let was_blocking = !is_nonblocking(fd)?;
    if was_blocking {
        socket::set_nonblocking(fd, true)?;
    }
    Ok(was_blocking)
}

/// Calls `call`, an operation on `fd`, until its result is neither `Interrupted` nor `WouldBlock`.
/// So the operation blocks even if `O_NONBLOCK` is set. After `WouldBlock`, waits in poll(2) until
/// `fd` is readable or, if `write` is true, until it is writable.
pub(crate) fn blocking<T>(fd: BorrowedFd<'_>, write: bool, mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut waited = false;
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if waited {
                    // Another thread or process took the data or the room, or poll(2) reports
                    // readiness wrongly. The pause prevents a busy loop.
                    std::thread::sleep(Duration::from_millis(1));
                }
                socket::wait_ready(fd, write, None)?;
                waited = true;
            }
            result => return result,
        }
    }
}

/// Calls fstat(2). Returns EBADF if descriptor `number` is not open. Safe to call after fork(2).
pub(super) fn status(number: RawFd) -> io::Result<libc::stat> {
    let mut status = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: `status` is valid for writes during the call; for a descriptor that is not open the
    // call returns an error.
    socket::check(unsafe { libc::fstat(number, status.as_mut_ptr()) })?;
    // SAFETY: all zeroes is a valid value of this plain struct, and the call has filled it in.
    Ok(unsafe { status.assume_init() })
}

/// The identity of an open file, as far as fstat(2) distinguishes files. Different files may have
/// the same identity: the two ends of a pipe do, and all eventfds do on Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct File {
    device: libc::dev_t,
    inode: libc::ino_t,
    kind: libc::mode_t,
}

impl File {
    pub(crate) fn of(fd: BorrowedFd<'_>) -> io::Result<File> {
        let status = status(fd.as_raw_fd())?;
        Ok(File { device: status.st_dev, inode: status.st_ino, kind: status.st_mode & libc::S_IFMT })
    }

    /// Returns whether the file may have to be polled. Regular files and directories are always
    /// ready.
    pub(crate) fn is_pollable(&self) -> bool {
        self.kind != libc::S_IFREG && self.kind != libc::S_IFDIR
    }
}

/// Returns the maximum number of descriptors that the process may have open (RLIMIT_NOFILE), or
/// `u64::MAX` if it is unknown.
#[allow(clippy::unnecessary_cast)]
pub(crate) fn limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for writes during the call.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    if result < 0 { u64::MAX } else { limit.rlim_cur as u64 }
}

/// Returns a description of the type of a file that cannot be polled, for error texts.
pub(crate) fn kind(fd: BorrowedFd<'_>) -> &'static str {
    let Ok(status) = status(fd.as_raw_fd()) else { return "file" };
    match status.st_mode & libc::S_IFMT {
        libc::S_IFREG => "regular file",
        libc::S_IFDIR => "directory",
        libc::S_IFCHR => "character device without poll",
        libc::S_IFBLK => "block device",
        _ => "file of this kind",
    }
}

/// Returns EMFILE or ENFILE if no descriptor is available to the process or in the system, and
/// `None` otherwise. In a simulation, always returns `None`.
pub(crate) fn exhausted() -> Option<i32> {
    // Simulated look-ups need no descriptor, and a simulation must not open files.
    #[cfg(feature = "sim")]
    if crate::sim::simulates() {
        return None;
    }
    let errno = std::fs::File::open("/").err()?.raw_os_error();
    errno.filter(|errno| matches!(*errno, libc::EMFILE | libc::ENFILE))
}

/// Returns whether this process may have `count` descriptors open. Tests that need many descriptors
/// check this.
#[cfg(test)]
pub(crate) fn has_descriptors(count: u64) -> bool {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.is_none_or(|most| most >= count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn nonblocking_flag_is_set_once() {
        let (reader, _writer) = io::pipe().unwrap();
        assert!(make_nonblocking(reader.as_fd()).unwrap());
        assert!(!make_nonblocking(reader.as_fd()).unwrap());
    }

    #[test]
    fn blocking_call_waits_in_nonblocking_mode() {
        use std::io::{Read, Write};
        for nonblocking in [false, true] {
            let (reader, writer) = io::pipe().unwrap();
            for end in [reader.as_fd(), writer.as_fd()] {
                socket::set_nonblocking(end, nonblocking).unwrap();
            }
            let sent: Vec<u8> = (0..1 << 20).map(|index: u32| index as u8).collect();
            let expected = sent.clone();
            let sender = std::thread::spawn(move || {
                let mut rest = &sent[..];
                while !rest.is_empty() {
                    let count = blocking(writer.as_fd(), true, || (&writer).write(rest)).unwrap();
                    rest = &rest[count..];
                }
            });
            let mut got = Vec::new();
            loop {
                let mut chunk = [0; 1000];
                match blocking(reader.as_fd(), false, || (&reader).read(&mut chunk)).unwrap() {
                    0 => break,
                    count => got.extend_from_slice(&chunk[..count]),
                }
            }
            sender.join().unwrap();
            assert!(got == expected, "O_NONBLOCK {nonblocking}");
        }
        let mut answers = [io::ErrorKind::Interrupted, io::ErrorKind::BrokenPipe].into_iter();
        let (reader, _writer) = io::pipe().unwrap();
        let failed = blocking::<()>(reader.as_fd(), false, || Err(answers.next().unwrap().into()));
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn kind_describes_the_file_type() {
        let kind_of = |path: &str| kind(std::fs::File::open(path).unwrap().as_fd());
        assert_eq!(kind_of("/proc/self/exe"), "regular file");
        assert_eq!(kind_of("/"), "directory");
        assert_eq!(kind_of("/dev/null"), "character device without poll");
        assert_eq!(kind(io::pipe().unwrap().0.as_fd()), "file of this kind");
    }
}

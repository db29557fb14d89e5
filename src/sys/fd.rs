//! Calls on descriptors of any kind.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::socket;

/// Sees that `O_NONBLOCK` is set, and tells whether it was not. Duplicates share the flag, those of other processes too.
pub(crate) fn make_nonblocking(fd: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: the command takes no argument.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    let was_blocking = flags & libc::O_NONBLOCK == 0;
    if was_blocking {
        socket::set_nonblocking(fd, true)?;
    }
    Ok(was_blocking)
}

/// What kind of file it is, in words (fstat(2)).
pub(crate) fn kind(fd: BorrowedFd<'_>) -> &'static str {
    let mut status = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: `status` is valid for writes during the call.
    let result = unsafe { libc::fstat(fd.as_raw_fd(), status.as_mut_ptr()) };
    // SAFETY: all zeroes is a value of this plain struct, and the call at most filled it in.
    let status = unsafe { status.assume_init() };
    match status.st_mode & libc::S_IFMT {
        _ if result < 0 => "file",
        libc::S_IFREG => "regular file",
        libc::S_IFDIR => "directory",
        libc::S_IFCHR => "character device without poll",
        libc::S_IFBLK => "block device",
        _ => "file of this kind",
    }
}

/// The error of opening a descriptor, where the process or the system has none left (EMFILE, ENFILE).
pub(crate) fn exhausted() -> Option<i32> {
    let errno = std::fs::File::open("/").err()?.raw_os_error();
    errno.filter(|errno| matches!(*errno, libc::EMFILE | libc::ENFILE))
}

/// Whether this process may have so many: a test that needs them says so where it may not.
#[cfg(test)]
pub(crate) fn has_descriptors(count: u64) -> bool {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.is_none_or(|most| most >= count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn the_flag_is_set_once() {
        let (reader, _writer) = io::pipe().unwrap();
        assert!(make_nonblocking(reader.as_fd()).unwrap());
        assert!(!make_nonblocking(reader.as_fd()).unwrap());
    }

    #[test]
    fn kinds_have_names() {
        let kind_of = |path: &str| kind(std::fs::File::open(path).unwrap().as_fd());
        assert_eq!(kind_of("/proc/self/exe"), "regular file");
        assert_eq!(kind_of("/"), "directory");
        assert_eq!(kind_of("/dev/null"), "character device without poll");
        assert_eq!(kind(io::pipe().unwrap().0.as_fd()), "file of this kind");
    }
}

//! Calls that move bytes inside the kernel, splice(2) and sendfile(2), and calls for the pipes and
//! files that they use.
//!
//! # Invariants
//! * S2 of [`socket`](crate::sys::socket) — no call raises SIGPIPE. splice and sendfile have no
//!   flag for this, so [`without_sigpipe`] checks the disposition of the signal. If the signal is
//!   ignored, which is the default in Rust programs, the check costs one call. Otherwise the signal
//!   is blocked in this thread during the call. If the call made it pending, it is consumed before
//!   the mask is restored. A SIGPIPE that was already pending stays pending.
//! * SPLICE_F_MORE and SPLICE_F_MOVE are not used. SPLICE_F_MORE would delay small writes by up to
//!   200 ms.

#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

#[cfg(test)]
use crate::sys::seam;
use crate::sys::socket::{check, check_len};

/// A pipe. Both ends are non-blocking and close-on-exec.
#[derive(Debug)]
pub(crate) struct Pipe {
    output: OwnedFd,
    input: OwnedFd,
    /// The number of buffers. Each holds a page or a part of a packet.
    pub(crate) slots: usize,
}

impl Pipe {
    /// Creates a pipe (pipe2(2)). Its size is at least `bytes` if the limits on pipe memory allow
    /// it.
    pub(crate) fn new(bytes: usize) -> io::Result<Pipe> {
        let mut ends = [0; 2];
        // SAFETY: the array of two ints is valid for writes.
        check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) })?;
        // SAFETY: the kernel has just created this descriptor, and it has no other owner.
        let output = unsafe { OwnedFd::from_raw_fd(ends[0]) };
        // SAFETY: as above.
        let input = unsafe { OwnedFd::from_raw_fd(ends[1]) };
        // SAFETY: the command takes an int. If it fails, the pipe stays small, which also works.
        let enlarged = check(unsafe { libc::fcntl(input.as_raw_fd(), libc::F_SETPIPE_SZ, bytes as libc::c_int) });
        // SAFETY: the command takes no argument.
        let size = enlarged.or_else(|_| check(unsafe { libc::fcntl(input.as_raw_fd(), libc::F_GETPIPE_SZ) }))?;
        // SAFETY: sysconf(3) takes no pointers.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        Ok(Pipe { output, input, slots: (size as usize / usize::try_from(page).unwrap_or(4096)).max(1) })
    }

    /// Calls splice(2) for at most `most` bytes from `source` into the pipe. Does not wait if
    /// `source` is non-blocking.
    pub(crate) fn fill(&self, source: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        #[cfg(test)]
        seam::fail(source, seam::Call::SpliceFrom)?;
        splice(source, self.input.as_fd(), most)
    }

    /// Calls splice(2) for at most `most` bytes from the pipe to `target`. Does not wait if
    /// `target` is non-blocking.
    pub(crate) fn drain(&self, target: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        #[cfg(test)]
        seam::fail(target, seam::Call::SpliceTo)?;
        without_sigpipe(|| splice(self.output.as_fd(), target, most))
    }

    /// Reads from the pipe (read(2)).
    pub(crate) fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        // SAFETY: `buf` is valid for writes of its length during the call, and the kernel writes
        // initialised bytes.
        check_len(unsafe { libc::read(self.output.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len()) })
    }
}

fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
    let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
    // SAFETY: no offsets, and so no pointers, are passed.
    check_len(unsafe { libc::splice(from, ptr::null_mut(), to, ptr::null_mut(), most, libc::SPLICE_F_NONBLOCK) })
}

/// Calls sendfile(2) for at most `most` bytes of `file`, from `offset` or, if it is `None`, from
/// the file's own position. Advances the offset or the position.
pub(crate) fn sendfile(
    to: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: Option<&mut u64>,
    most: usize,
) -> io::Result<usize> {
    #[cfg(test)]
    seam::fail(to, seam::Call::SendFile)?;
    let (to, file) = (to.as_raw_fd(), file.as_raw_fd());
    let Some(offset) = offset else {
        // SAFETY: no offset, and so no pointer, is passed.
        return without_sigpipe(|| check_len(unsafe { libc::sendfile64(to, file, ptr::null_mut(), most) }));
    };
    let mut at = i64::try_from(*offset).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
    // SAFETY: `at` is valid for reads and writes during the call.
    let sent = without_sigpipe(|| check_len(unsafe { libc::sendfile64(to, file, &raw mut at, most) }))?;
    *offset += sent as u64;
    Ok(sent)
}

/// Calls pread(2).
pub(crate) fn read_at(file: BorrowedFd<'_>, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let at = i64::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
    // SAFETY: `buf` is valid for writes of its length during the call, and the kernel writes
    // initialised bytes.
    check_len(unsafe { libc::pread64(file.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), at) })
}

/// Calls `call`, which may raise SIGPIPE in this thread, and suppresses the signal.
fn without_sigpipe(call: impl FnOnce() -> io::Result<usize>) -> io::Result<usize> {
    if is_sigpipe_ignored() { call() } else { with_sigpipe_blocked(call) }
}

fn is_sigpipe_ignored() -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: no new action is passed, and `action` is valid for writes.
    if unsafe { libc::sigaction(libc::SIGPIPE, ptr::null(), action.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: all zeroes is a valid value, and the call has filled it in.
    unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

#[cold]
fn with_sigpipe_blocked(call: impl FnOnce() -> io::Result<usize>) -> io::Result<usize> {
    let mut pipe = MaybeUninit::<libc::sigset_t>::zeroed();
    let mut pending = MaybeUninit::<libc::sigset_t>::zeroed();
    let mut before = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: `pipe` is valid for writes.
    unsafe { libc::sigemptyset(pipe.as_mut_ptr()) };
    // SAFETY: the set is initialised, and the signal number is valid.
    unsafe { libc::sigaddset(pipe.as_mut_ptr(), libc::SIGPIPE) };
    // SAFETY: `pending` is valid for writes.
    unsafe { libc::sigpending(pending.as_mut_ptr()) };
    // SAFETY: `sigpending` has filled in the set.
    let was_pending = unsafe { libc::sigismember(pending.as_ptr(), libc::SIGPIPE) } == 1;
    // SAFETY: the new set is initialised, and `before` is valid for writes.
    let blocked = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, pipe.as_ptr(), before.as_mut_ptr()) };
    if blocked != 0 {
        return Err(io::Error::from_raw_os_error(blocked));
    }
    let result = call();
    // The signal may be pending even if the call succeeded: one call may send several times, and it
    // returns the number of bytes sent if a later send fails.
    if !was_pending {
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the set is initialised, details are not requested, and the time is valid. EAGAIN
        // means that no signal was raised. EINTR means that another signal arrived.
        while unsafe { libc::sigtimedwait(pipe.as_ptr(), ptr::null_mut(), &raw const at_once) } < 0
            && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
        {}
    }
    // SAFETY: `before` is the mask from above. With a valid command the call cannot fail.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    /// Returns a socket whose writes fail with EPIPE.
    fn dead() -> TcpStream {
        let (ours, _theirs) = pair();
        ours.shutdown(Shutdown::Write).unwrap();
        ours
    }

    #[test]
    fn bytes_go_through_a_pipe() {
        let ((mut client, source), (target, mut server)) = (pair(), pair());
        source.set_nonblocking(true).unwrap();
        let pipe = Pipe::new(256 << 10).unwrap();
        assert!(pipe.slots >= 2);
        assert_eq!(pipe.fill(source.as_fd(), 100).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        client.write_all(b"hello").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut filled = 0;
        while filled < 5 {
            filled += pipe.fill(source.as_fd(), 100).unwrap_or(0);
        }
        assert_eq!(pipe.drain(target.as_fd(), 3).unwrap(), 3);
        let mut buf = [0; 8];
        assert_eq!(pipe.read(&mut buf).unwrap(), 2);
        assert_eq!(&buf[..2], b"lo");
        assert_eq!(pipe.fill(source.as_fd(), 100).unwrap(), 0);
        drop(target);
        let mut all = Vec::new();
        server.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"hel");
    }

    /// The test runs in its own process, with the default disposition of SIGPIPE. Programs that are
    /// not written in Rust usually have this disposition.
    #[test]
    fn closed_peer_is_an_error_without_a_signal() {
        crate::own_process::run(module_path!(), "closed_peer_is_an_error_without_a_signal", || {
            // SAFETY: SIG_DFL is a valid disposition, and no other test runs in this process.
            unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
            assert!(!is_sigpipe_ignored());
            let pipe = Pipe::new(64 << 10).unwrap();
            File::from(pipe.input.try_clone().unwrap()).write_all(b"x").unwrap();
            for _ in 0..2 {
                assert_eq!(pipe.drain(dead().as_fd(), 1).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
            }
            let file = File::open("/proc/self/exe").unwrap();
            let sent = sendfile(dead().as_fd(), file.as_fd(), None, 1);
            assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
            let mut offset = 3;
            let sent = sendfile(dead().as_fd(), file.as_fd(), Some(&mut offset), 1);
            assert_eq!((sent.unwrap_err().kind(), offset), (io::ErrorKind::BrokenPipe, 3));
            // The reset that answers the first part of the file makes the rest of the call fail.
            let (mut ours, theirs) = pair();
            drop(theirs);
            assert_eq!(ours.read(&mut [0]).unwrap(), 0);
            assert!(sendfile(ours.as_fd(), file.as_fd(), None, 1 << 20).unwrap() < 1 << 20);
            // The mask is restored: SIGPIPE is not blocked.
            let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
            // SAFETY: no new mask is passed, and `set` is valid for writes.
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), set.as_mut_ptr()) };
            // SAFETY: the call has filled in the set.
            assert_eq!(unsafe { libc::sigismember(set.as_ptr(), libc::SIGPIPE) }, 0);
        });
    }
}

//! `Real`: the real sockets of a test in which only the clock is virtual.
//!
//! They are registered with a separate epoll instance, which the run loop checks when no task can
//! run. Bytes that a TCP socket has sent are *in flight* until the peer's kernel acknowledges them.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The maximum number of events per call.
const EVENTS_MAX: usize = 64;

/// The ioctl(2) request SIOCOUTQNSD of Linux, which returns the number of written bytes that have
/// not been sent yet.
const UNSENT: libc::Ioctl = 0x894b;

/// An epoll instance for one thread; see the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Real {
    epoll: OwnedFd,
}

impl Real {
    pub(crate) fn new() -> io::Result<Real> {
        // SAFETY: no pointer is passed.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just returned this descriptor, and nothing else owns it.
        Ok(Real { epoll: unsafe { OwnedFd::from_raw_fd(epoll) } })
    }

    fn control(&self, operation: libc::c_int, fd: i32, data: u64) -> io::Result<()> {
        let interest = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLPRI | libc::EPOLLET;
        let mut event = libc::epoll_event { events: interest as u32, u64: data };
        // SAFETY: `event` is valid for the call, which keeps no pointer to it.
        let result = unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &raw mut event) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    pub(super) fn add(&self, fd: i32, data: u64, is_first: bool) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, data).or_else(|error| match error.raw_os_error() {
            Some(libc::EEXIST) if !is_first => self.control(libc::EPOLL_CTL_MOD, fd, data),
            _ => Err(error),
        })
    }

    pub(super) fn delete(&self, fd: i32) {
        let _ = self.control(libc::EPOLL_CTL_DEL, fd, 0);
    }

    /// Appends edges to `edges`, waiting for the first one for up to `millis` milliseconds of real
    /// time. Returns whether there may be more edges.
    pub(crate) fn wait(&self, edges: &mut Vec<(u64, u32)>, millis: i32) -> bool {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX];
        // SAFETY: the buffer has room for that many events.
        let count =
            unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), events.as_mut_ptr(), EVENTS_MAX as libc::c_int, millis) };
        let count = usize::try_from(count).unwrap_or_default();
        edges.extend(events[..count].iter().map(|event| (event.u64, event.events)));
        count == EVENTS_MAX
    }

    /// Returns whether a TCP socket has bytes in flight. Returns false if the kernel does not
    /// report their number.
    pub(crate) fn is_in_flight(fd: i32) -> bool {
        let mut counts = [0_i32; 2];
        for (request, count) in [libc::TIOCOUTQ as libc::Ioctl, UNSENT].into_iter().zip(&mut counts) {
            // SAFETY: both requests write an int.
            if unsafe { libc::ioctl(fd, request, &raw mut *count) } < 0 {
                return false;
            }
        }
        counts[0] > counts[1]
    }
}

/// Waits for about a millisecond of real time. A signal may end the wait earlier.
pub(crate) fn sleep_1_ms() {
    // SAFETY: no entries are passed.
    unsafe { libc::poll(std::ptr::null_mut(), 0, 1) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn edges_of_real_sockets_have_their_data() {
        let (mut one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        let (real, mut edges) = (Real::new().unwrap(), Vec::new());
        real.add(other.as_raw_fd(), 7, true).unwrap();
        assert_eq!(real.add(other.as_raw_fd(), 7, true).unwrap_err().raw_os_error(), Some(libc::EEXIST));
        real.wait(&mut edges, 0);
        assert_eq!(edges, [(7, libc::EPOLLOUT as u32)]);
        one.write_all(b"x").unwrap();
        edges.clear();
        real.wait(&mut edges, 0);
        assert!(matches!(edges[..], [(7, bits)] if bits & libc::EPOLLIN as u32 != 0));
        real.delete(other.as_raw_fd());
        one.write_all(b"x").unwrap();
        edges.clear();
        real.wait(&mut edges, 0);
        assert!(edges.is_empty());
    }
}

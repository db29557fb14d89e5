//! All that is epoll: the one back end of the poller.
//!
//! # The contract of a back end
//! * `new` makes an instance; `add` registers a descriptor once, for both directions, edge-triggered: from then on every
//!   change to readiness is reported, and what is ready at that moment is reported once. `delete` ends that; closing the last
//!   duplicate of the descriptor does so too.
//! * `wait` fills a batch of [`Event`]s, at most as many as asked for, and returns after the timeout with fewer or none.
//!   It never returns before the timeout without an event, a break or a signal.
//! * `wake` makes the current or the next `wait` return, from any thread; many calls before that cost one system call.
//! * An event names the index and generation it was registered with, never a pointer. It may come late: after the descriptor is
//!   gone and the slot reused.
//!
//! # What each errno means here (epoll_ctl(2), epoll_wait(2), eventfd(2))
//! | call | errno | outcome |
//! |---|---|---|
//! | epoll_create1, eventfd | EMFILE, ENFILE, ENOMEM | returned to who opens a socket, or to the operation that needed the poller; tried again by the next |
//! | ADD | EEXIST | returned where the caller asked for the first; else MOD: a duplicate of the descriptor was registered under the same number |
//! | MOD | ENOENT | ADD again, once |
//! | ADD | EPERM | returned: "not pollable" (a regular file) |
//! | ADD | ENOSPC, ENOMEM, ELOOP | returned; the next wait tries again |
//! | DEL | ENOENT, EBADF | ignored: gone already |
//! | wait | EINTR | an empty batch; the caller looks at the clock again |
//! | pwait2 | any but EINTR | remembered; epoll_wait in whole milliseconds from then on (ENOSYS: an old kernel; others: a filter) |
//! | wait | EBADF, EFAULT, EINVAL | the process closed our descriptor or worse: the message and abort |
//! | eventfd write | EAGAIN | ignored: the counter is full, so the event is there; EINTR: again |
//!
//! # Compared with Go (runtime/netpoll_epoll.go)
//! PRI is asked for as well, because urgent data cuts a read short. The eventfd is edge-triggered and never drained, which saves
//! a read(2) a break. Timeouts have nanoseconds.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::OnceLock;

use crate::rt::poll::poll_desc::{ERROR, HANG_UP, PRIORITY};
use crate::sync::{AtomicBool, Ordering};

/// Events of one batch at most.
pub(crate) const EVENTS_MAX: usize = 256;

const BREAK: u64 = u64::MAX;

/// What one event says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) index: u32,
    pub(crate) generation: u32,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// HANG_UP, ERROR and PRIORITY of `poll_desc`, by direction.
    pub(crate) read_reasons: u64,
    pub(crate) write_reasons: u64,
}

/// The buffer of a batch.
pub(crate) struct Events {
    raw: Vec<libc::epoll_event>,
}

impl Events {
    pub(crate) fn new() -> Events {
        // Written once: MemorySanitizer does not see what epoll_pwait2 writes.
        Events { raw: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX] }
    }

    /// The events of the last batch, breaks left out.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Event> + '_ {
        self.raw.iter().filter(|raw| raw.u64 != BREAK).map(|raw| {
            let (bits, data) = (raw.events as i32, raw.u64);
            let hung_up = bits & (libc::EPOLLHUP | libc::EPOLLRDHUP) != 0;
            let failed = bits & libc::EPOLLERR != 0;
            let end = bits & (libc::EPOLLHUP | libc::EPOLLERR) != 0;
            let error = if failed { ERROR } else { 0 };
            Event {
                index: data as u32,
                generation: (data >> 32) as u32,
                readable: end || bits & (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLPRI) != 0,
                writable: end || bits & libc::EPOLLOUT != 0,
                read_reasons: error
                    | if hung_up { HANG_UP } else { 0 }
                    | if bits & libc::EPOLLPRI != 0 { PRIORITY } else { 0 },
                write_reasons: error | if bits & libc::EPOLLHUP != 0 { HANG_UP } else { 0 },
            }
        })
    }
}

/// An epoll instance with the eventfd that breaks its wait.
#[derive(Debug)]
pub(crate) struct Epoll {
    epoll: OwnedFd,
    breaker: OwnedFd,
    /// A break was written and not yet seen.
    breaking: AtomicBool,
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[allow(unsafe_code)]
impl Epoll {
    pub(crate) fn new() -> io::Result<Epoll> {
        // SAFETY: no pointer is passed.
        let epoll = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the kernel just gave us this descriptor and nobody else has it.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        // SAFETY: no pointer is passed.
        let breaker = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: as above.
        let breaker = unsafe { OwnedFd::from_raw_fd(breaker) };
        let this = Epoll { epoll, breaker, breaking: AtomicBool::new(false) };
        this.control(libc::EPOLL_CTL_ADD, this.breaker.as_raw_fd(), libc::EPOLLIN | libc::EPOLLET, BREAK)?;
        Ok(this)
    }

    fn control(&self, operation: libc::c_int, fd: libc::c_int, events: libc::c_int, data: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events as u32, u64: data };
        // SAFETY: `event` is valid for the call, which keeps no pointer to it.
        check(unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &raw mut event) }).map(drop)
    }

    /// Registers `fd` for both directions under `index` and `generation`.
    /// `is_first`: one that is in already is an error.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, index: u32, generation: u32, is_first: bool) -> io::Result<()> {
        const INTEREST: libc::c_int =
            libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLPRI | libc::EPOLLET;
        let (fd, data) = (fd.as_raw_fd(), u64::from(generation) << 32 | u64::from(index));
        let added = self.control(libc::EPOLL_CTL_ADD, fd, INTEREST, data).or_else(|error| {
            if is_first || error.raw_os_error() != Some(libc::EEXIST) {
                return Err(error);
            }
            self.control(libc::EPOLL_CTL_MOD, fd, INTEREST, data)
                .or_else(|_| self.control(libc::EPOLL_CTL_ADD, fd, INTEREST, data))
        });
        added.map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM) => {
                io::Error::new(io::ErrorKind::InvalidInput, "not pollable: epoll refuses this kind of file")
            }
            _ => error,
        })
    }

    /// Takes `fd` out, if it is in.
    pub(crate) fn delete(&self, fd: BorrowedFd<'_>) {
        let _ = self.control(libc::EPOLL_CTL_DEL, fd.as_raw_fd(), 0, 0);
    }

    /// Waits for events, at most `most` of them, and for `timeout` nanoseconds at most (`None`: no limit).
    pub(crate) fn wait(&self, events: &mut Events, most: usize, timeout: Option<u64>) {
        events.raw.clear();
        let most = most.clamp(1, EVENTS_MAX) as libc::c_int;
        let (epoll, buffer) = (self.epoll.as_raw_fd(), events.raw.as_mut_ptr());
        let count = match (timeout, pwait2()) {
            (Some(nanos @ 1..), Some(pwait2)) => {
                let limit = libc::timespec {
                    tv_sec: (nanos / 1_000_000_000).min(i32::MAX as u64) as libc::time_t,
                    tv_nsec: (nanos % 1_000_000_000) as libc::c_long,
                };
                // SAFETY: the buffer has room for EVENTS_MAX events, `limit` lives through the call, and a null mask means none.
                let count = unsafe { pwait2(epoll, buffer, most, &raw const limit, ptr::null()) };
                if count < 0 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                    PWAIT2_REFUSED.store(true, Ordering::Relaxed);
                    return;
                }
                count
            }
            (timeout, _) => {
                let millis = timeout.map_or(-1, |nanos| nanos.div_ceil(1_000_000).min(i32::MAX as u64) as libc::c_int);
                // SAFETY: the buffer has room for EVENTS_MAX events.
                unsafe { libc::epoll_wait(epoll, buffer, most, millis) }
            }
        };
        if count < 0 {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                return;
            }
            eprintln!("netpoll: waiting for events failed, the epoll descriptor was closed by somebody else: {error}");
            std::process::abort();
        }
        // SAFETY: the kernel has filled `count` entries, at most EVENTS_MAX, which is the capacity.
        unsafe { events.raw.set_len(count as usize) };
        if events.raw.iter().any(|raw| raw.u64 == BREAK) {
            // ORDERING: SeqCst, before the caller looks at the queues again: a `wake` after this one writes anew (model
            // `breaks_are_not_lost`). A swap, which costs what a SeqCst store does, reads from the `wake`s before it.
            self.breaking.swap(false, Ordering::SeqCst);
        }
    }

    /// Makes the current or next wait return.
    pub(crate) fn wake(&self) {
        // ORDERING: SeqCst: the swap comes after the caller made its work visible and before it relies on the wait to end.
        if self.breaking.swap(true, Ordering::SeqCst) {
            return;
        }
        let one = 1_u64.to_ne_bytes();
        loop {
            // SAFETY: eight readable bytes, as eventfd(2) wants.
            let written = unsafe { libc::write(self.breaker.as_raw_fd(), one.as_ptr().cast(), one.len()) };
            if written >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                return;
            }
        }
    }
}

type Pwait2 = unsafe extern "C" fn(
    libc::c_int,
    *mut libc::epoll_event,
    libc::c_int,
    *const libc::timespec,
    *const libc::sigset_t,
) -> libc::c_int;

static PWAIT2_REFUSED: AtomicBool = AtomicBool::new(false);

/// glibc's `epoll_pwait2`, where the C library has it (2.35) and the kernel has not refused it (5.11). Looked up by name, so
/// that an older C library still links, and a function of the C library, so that sanitizers see what the kernel writes.
#[allow(unsafe_code)]
fn pwait2() -> Option<Pwait2> {
    static FOUND: OnceLock<Option<Pwait2>> = OnceLock::new();
    if PWAIT2_REFUSED.load(Ordering::Relaxed) {
        return None;
    }
    *FOUND.get_or_init(|| {
        // SAFETY: the name is a C string; the default handle searches the loaded libraries.
        let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"epoll_pwait2".as_ptr()) };
        if address.is_null() {
            return None;
        }
        // SAFETY: the symbol of that name has this signature by epoll_pwait2(2).
        Some(unsafe { std::mem::transmute::<*mut libc::c_void, Pwait2>(address) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    impl Events {
        /// Breaks included.
        pub(crate) fn is_empty(&self) -> bool {
            self.raw.is_empty()
        }
    }

    /// The events of a wait that ends at once: index and generation.
    fn taken(epoll: &Epoll, most: usize) -> Vec<(u32, u32)> {
        let mut events = Events::new();
        epoll.wait(&mut events, most, Some(0));
        events.iter().map(|event| (event.index, event.generation)).collect()
    }

    #[test]
    fn what_the_kernel_says_is_told_by_direction() {
        use libc::{EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP};
        for (bits, read, write) in [
            (0, None, None),
            (EPOLLIN, Some(0), None),
            (EPOLLOUT, None, Some(0)),
            (EPOLLIN | EPOLLOUT, Some(0), Some(0)),
            (EPOLLPRI, Some(PRIORITY), None),
            (EPOLLRDHUP, Some(HANG_UP), None),
            (EPOLLHUP, Some(HANG_UP), Some(HANG_UP)),
            (EPOLLERR, Some(ERROR), Some(ERROR)),
            (EPOLLIN | EPOLLPRI | EPOLLRDHUP, Some(PRIORITY | HANG_UP), None),
            (EPOLLERR | EPOLLHUP | EPOLLPRI, Some(ERROR | HANG_UP | PRIORITY), Some(ERROR | HANG_UP)),
        ] {
            let raw = |u64| libc::epoll_event { events: bits as u32, u64 };
            let events = Events { raw: vec![raw(BREAK), raw(7 << 32 | 5)] };
            let all: Vec<_> = events.iter().collect();
            assert_eq!(all.len(), 1, "breaks are left out");
            let event = &all[0];
            assert_eq!((event.index, event.generation), (5, 7));
            assert_eq!((event.readable, event.writable), (read.is_some(), write.is_some()), "{bits:x}");
            assert_eq!((event.read_reasons, event.write_reasons), (read.unwrap_or(0), write.unwrap_or(0)), "{bits:x}");
        }
    }

    #[test]
    fn a_descriptor_is_in_under_its_last_name() {
        let epoll = Epoll::new().unwrap();
        let (socket, peer) = UnixStream::pair().unwrap();
        epoll.add(socket.as_fd(), 3, 1, true).unwrap();
        assert_eq!(taken(&epoll, 8), [(3, 1)], "room to write");
        assert_eq!(taken(&epoll, 8), [], "an edge comes once");
        let refused = epoll.add(socket.as_fd(), 4, 1, true).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EEXIST));
        epoll.add(socket.as_fd(), 4, u32::MAX, false).unwrap();
        assert_eq!(taken(&epoll, 8), [(4, u32::MAX)], "registered anew, what is there is told anew");
        epoll.delete(socket.as_fd());
        drop(peer);
        assert_eq!(taken(&epoll, 8), []);
        epoll.delete(socket.as_fd());
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert_eq!(epoll.add(file.as_fd(), 0, 0, false).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_batch_is_as_large_as_is_asked_for() {
        let epoll = Epoll::new().unwrap();
        let pairs: Vec<_> = (0..5).map(|_| UnixStream::pair().unwrap()).collect();
        pairs.iter().zip(0..).for_each(|(pair, index)| epoll.add(pair.0.as_fd(), index, 0, true).unwrap());
        assert_eq!([2, 0, EVENTS_MAX + 1].map(|most| taken(&epoll, most).len()), [2, 1, 2]);
    }

    #[test]
    fn a_break_ends_one_wait_and_the_next_break_another() {
        let epoll = Epoll::new().unwrap();
        let mut events = Events::new();
        for _ in 0..3 {
            (0..3).for_each(|_| epoll.wake());
            epoll.wait(&mut events, 8, None);
            assert_eq!((events.raw.len(), events.iter().count()), (1, 0));
            epoll.wait(&mut events, 8, Some(0));
            assert_eq!(events.raw.len(), 0, "many breaks before the wait are one");
        }
    }

    #[test]
    fn a_wait_lasts_as_long_as_it_says() {
        let epoll = Epoll::new().unwrap();
        let mut events = Events::new();
        for nanos in [1, 3_000_000, 1_001_000_000] {
            let start = Instant::now();
            epoll.wait(&mut events, 8, Some(nanos));
            let waited = start.elapsed();
            assert!(waited >= Duration::from_nanos(nanos), "{waited:?} for {nanos} ns");
        }
        assert!(check(-1).is_err() && check(0).is_ok_and(|result| result == 0) && check(7).is_ok());
    }
}

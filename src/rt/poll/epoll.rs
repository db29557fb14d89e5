//! epoll(7): the back end of Linux.
//!
//! The contract is in [`backend`](crate::rt::poll::backend). The other back ends are `kqueue.rs`
//! and `poll.rs`.
//!
//! # Handling of errors (epoll_ctl(2), epoll_wait(2), eventfd(2))
//! | call | errno | outcome |
//! |---|---|---|
//! | epoll_create1, eventfd, ADD of the eventfd | EMFILE, ENFILE, ENOMEM, ENOSPC | returned to the caller that opens a socket or to the operation that registers one; a thread that would sleep pauses for up to 10 ms; the next call retries. In a shard other than 0, the descriptor is registered in shard 0 instead |
//! | ADD | EEXIST | returned if `is_first` is true; otherwise MOD, because the same open file is already registered under this number |
//! | MOD | any | ADD again, once |
//! | ADD | EPERM | returned as "not pollable" (for example a regular file) |
//! | ADD | others, such as ENOSPC, ENOMEM and ELOOP | returned; the next operation that has to wait retries |
//! | DEL | ENOENT, EBADF | ignored: already removed |
//! | wait | EINTR | an empty batch; the caller checks the clock again |
//! | wait by epoll_pwait2 | all but EINTR | an empty batch; epoll_wait is used from then on, with timeouts in whole milliseconds (ENOSYS: an old kernel; others: a seccomp filter) |
//! | wait by epoll_wait | EBADF, EFAULT, EINVAL | aborts with a message: the process closed the descriptor, or memory is corrupt |
//! | eventfd write | EAGAIN | ignored: it would take 2⁶⁴ − 2 interrupts to fill the counter |
//! | eventfd write | EINTR | repeated |
//!
//! # Compared with Go (runtime/netpoll_epoll.go)
//! EPOLLPRI is also requested, because a read that ends at urgent data returns a short count even
//! if more data is available. After this event, a short count is not evidence that no data is left.
//! The eventfd is edge-triggered and never drained, which saves one read(2) per interrupt. With
//! epoll_pwait2(2), timeouts have nanosecond precision.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::OnceLock;

use crate::rt::poll::backend::{self, BackEnd, EVENTS_MAX, Event, LOOK_MAX, State, Token, not_pollable};
use crate::rt::warn::warn;
use crate::sync::{AtomicBool, Ordering};

/// The data of the eventfd's events. No token has this value, because no slot has the index
/// `u32::MAX`, and the token of [`knows`](BackEnd::knows) has the generation 0.
const BREAK: u64 = u64::MAX;

/// A buffer for a batch of events.
pub(crate) struct Batch {
    raw: Vec<libc::epoll_event>,
}

impl backend::Batch for Batch {
    fn new() -> Batch {
        // The buffer is initialised, because MemorySanitizer does not see the writes of
        // epoll_pwait2.
        Batch { raw: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX] }
    }

    #[inline]
    fn events(&self) -> impl Iterator<Item = Event> + '_ {
        self.raw.iter().filter(|raw| raw.u64 != BREAK).map(|raw| event(raw.u64, raw.events))
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }
}

/// Decodes an event from its data and its EPOLL bits.
#[inline]
pub(crate) fn event(data: u64, bits: u32) -> Event {
    let has = |flags: libc::c_int| bits & flags as u32 != 0;
    if !has(libc::EPOLLPRI | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) {
        return Event::plain(Token::unpack(data), has(libc::EPOLLIN), has(libc::EPOLLOUT));
    }
    let state = State {
        input: has(libc::EPOLLIN),
        output: has(libc::EPOLLOUT),
        priority: has(libc::EPOLLPRI),
        half_closed: has(libc::EPOLLRDHUP),
        hung_up: has(libc::EPOLLHUP),
        failed: has(libc::EPOLLERR),
    };
    Event::new(Token::unpack(data), state)
}

/// An epoll instance, with the eventfd that interrupts its wait.
#[derive(Debug)]
pub(crate) struct Epoll {
    epoll: OwnedFd,
    breaker: OwnedFd,
    /// Whether an interrupt was written and has not been seen yet.
    breaking: AtomicBool,
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[allow(unsafe_code)]
impl Epoll {
    fn control(&self, operation: libc::c_int, fd: libc::c_int, events: libc::c_int, data: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events as u32, u64: data };
        // SAFETY: `event` is valid for the call, which keeps no pointer to it.
        check(unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &raw mut event) }).map(drop)
    }
}

#[allow(unsafe_code)]
impl BackEnd for Epoll {
    const NAME: &'static str = "epoll";
    const ARMS: bool = false;
    const SHARDS: bool = true;
    type Batch = Batch;

    fn open() -> io::Result<Epoll> {
        // SAFETY: no pointer is passed.
        let epoll = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the kernel just returned this descriptor, and nothing else owns it.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        // SAFETY: no pointer is passed.
        let breaker = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: as above.
        let breaker = unsafe { OwnedFd::from_raw_fd(breaker) };
        let this = Epoll { epoll, breaker, breaking: AtomicBool::new(false) };
        this.control(libc::EPOLL_CTL_ADD, this.breaker.as_raw_fd(), libc::EPOLLIN | libc::EPOLLET, BREAK)?;
        Ok(this)
    }

    fn add(&self, fd: BorrowedFd<'_>, token: Token, is_first: bool) -> io::Result<()> {
        const INTEREST: libc::c_int =
            libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLPRI | libc::EPOLLET;
        let (fd, data) = (fd.as_raw_fd(), token.pack());
        let added = self.control(libc::EPOLL_CTL_ADD, fd, INTEREST, data).or_else(|error| {
            if is_first || error.raw_os_error() != Some(libc::EEXIST) {
                return Err(error);
            }
            self.control(libc::EPOLL_CTL_MOD, fd, INTEREST, data)
                .or_else(|_| self.control(libc::EPOLL_CTL_ADD, fd, INTEREST, data))
        });
        added.map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM) => not_pollable(Self::NAME),
            _ => error,
        })
    }

    fn delete(&self, fd: BorrowedFd<'_>) {
        let _ = self.control(libc::EPOLL_CTL_DEL, fd.as_raw_fd(), 0, 0);
    }

    fn arm(&self, _: Token, _: bool, _: bool) {}

    fn wait(&self, events: &mut Batch, most: usize, timeout: Option<u64>) {
        events.raw.clear();
        let most = most.clamp(1, EVENTS_MAX) as libc::c_int;
        let (epoll, buffer) = (self.epoll.as_raw_fd(), events.raw.as_mut_ptr());
        let count = match (timeout, pwait2()) {
            (Some(nanos @ 1..), Some(pwait2)) => {
                let limit = libc::timespec {
                    tv_sec: (nanos / 1_000_000_000).min(i32::MAX as u64) as libc::time_t,
                    tv_nsec: (nanos % 1_000_000_000) as libc::c_long,
                };
                // SAFETY: the buffer has room for EVENTS_MAX events, `limit` outlives the call, and
                // a null mask is valid.
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
            warn(format_args!("waiting for events failed because other code closed the epoll descriptor: {error}"));
            std::process::abort();
        }
        // SAFETY: the kernel filled `count` entries, at most EVENTS_MAX, which is the capacity.
        unsafe { events.raw.set_len(count as usize) };
        if events.raw.iter().any(|raw| raw.u64 == BREAK) {
            // ORDERING: SeqCst, before the caller checks the queues again: a later `wake` writes
            // again (model `breaks_are_not_lost`). A swap costs as much as a SeqCst store, and also
            // synchronizes with earlier `wake`s.
            self.breaking.swap(false, Ordering::SeqCst);
        }
    }

    fn look(&self, events: &mut Batch) -> bool {
        self.wait(events, LOOK_MAX, Some(0));
        if events.raw.iter().any(|raw| raw.u64 == BREAK) {
            // The interrupt is meant for the thread that waits, or for the next wait (model
            // `interrupt_against_look`).
            self.wake();
        }
        true
    }

    fn wake(&self) {
        // ORDERING: SeqCst: the swap comes after the caller has published its work, and before the
        // caller relies on the end of the wait.
        if self.breaking.swap(true, Ordering::SeqCst) {
            return;
        }
        let one = 1_u64.to_ne_bytes();
        loop {
            // SAFETY: eight readable bytes, as eventfd(2) requires.
            let written = unsafe { libc::write(self.breaker.as_raw_fd(), one.as_ptr().cast(), one.len()) };
            if written >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                return;
            }
        }
    }

    fn owns(&self, fd: RawFd) -> bool {
        fd == self.epoll.as_raw_fd() || fd == self.breaker.as_raw_fd()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.epoll.as_fd())
    }

    /// Tries to add `fd`, and removes it again on success. In between, epoll may report a hang-up
    /// or an error, but the event has the token of a slot that does not exist.
    fn knows(&self, fd: BorrowedFd<'_>) -> bool {
        let no_slot = Token { index: u32::MAX, generation: 0 };
        let added = self.control(libc::EPOLL_CTL_ADD, fd.as_raw_fd(), libc::EPOLLET, no_slot.pack());
        if added.is_ok() {
            self.delete(fd);
        }
        added.is_err_and(|error| error.raw_os_error() == Some(libc::EEXIST))
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

/// Returns the C library's `epoll_pwait2` (since glibc 2.35), unless the kernel (before 5.11) or a
/// seccomp filter has refused it. The function is looked up by name, so that the program links with
/// an older C library. A raw system call would hide the writes of the kernel from the sanitizers
/// that intercept the function.
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
    use crate::rt::poll::backend::Batch as _;
    use crate::rt::poll::side::{ERROR, HANG_UP, PRIORITY};

    #[test]
    fn kernel_events_are_split_by_direction() {
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
            let batch = Batch { raw: vec![raw(BREAK), raw(7 << 32 | 5)] };
            let all: Vec<_> = batch.events().collect();
            assert_eq!(all.len(), 1, "interrupts are omitted");
            let event = &all[0];
            assert_eq!((event.index, event.generation), (5, 7));
            assert_eq!((event.readable, event.writable), (read.is_some(), write.is_some()), "{bits:x}");
            assert_eq!((event.read_reasons, event.write_reasons), (read.unwrap_or(0), write.unwrap_or(0)), "{bits:x}");
        }
    }

    #[test]
    fn negative_result_of_a_call_is_an_error() {
        assert!(check(-1).is_err() && check(0).is_ok_and(|result| result == 0) && check(7).is_ok());
    }
}

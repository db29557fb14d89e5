//! kqueue(2): the back end of macOS and FreeBSD.
//!
//! The contract is in [`backend`](super::backend); `epoll.rs` and `poll.rs` are its twins. On Linux it is compiled for unit tests only,
//! which run it over a model (`sys/kqueue/model.rs`); it was not run on the systems themselves.
//!
//! # Filters
//! A descriptor has two, READ and WRITE, with EV_CLEAR, and a batch may have an event of each. EV_ADD takes the flags anew, so each of them
//! has EV_CLEAR: without it a second EV_ADD would make levels of edges. Urgent data is not reported; see
//! `sys::os::SHORT_COUNTS_ARE_EVIDENCE`.
//!
//! # What flags mean here
//! | filter | flags | event |
//! |---|---|---|
//! | READ | EV_EOF | HANG_UP for readers; data may be left, so they go on until the end |
//! | WRITE | EV_EOF | HANG_UP for writers: the peer takes no more, or this side was shut down |
//! | both | EV_EOF and `fflags` | ERROR as well, in both directions |
//! | USER | | a break, left out of the events |
//!
//! A descriptor is added after connect(2): before, some systems report an end of file.
//!
//! # What each errno means here (kqueue(2))
//! | call | errno | outcome |
//! |---|---|---|
//! | kqueue | EMFILE, ENFILE, ENOMEM | returned to who opens a socket; tried again by the next |
//! | EV_ADD | any, of one filter | the other serves: one end of a pipe has one direction |
//! | EV_ADD | any, of both | returned |
//! | EV_DELETE | ENOENT, EBADF | ignored: gone already |
//! | wait | EINTR | an empty batch; the caller looks at the clock again |
//! | wait | EBADF, EFAULT, EINVAL | the process closed our descriptor or worse: the message and abort |

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::backend::{self, BackEnd, EVENTS_MAX, Event, Token, not_pollable};
use super::poll_desc::{ERROR, HANG_UP};
use crate::sync::{AtomicBool, Mutex, Ordering};
use crate::sys::fd::File;
use crate::sys::kqueue::{
    EV_ADD, EV_CLEAR, EV_DELETE, EV_EOF, EV_RECEIPT, EVFILT_READ, EVFILT_USER, EVFILT_WRITE, Kevent, NOTE_TRIGGER,
    kevent, kevent_of, kqueue,
};

/// A queue.
#[derive(Debug)]
pub(crate) struct Kqueue {
    queue: OwnedFd,
    /// A break was triggered and not yet seen.
    breaking: AtomicBool,
    /// Descriptors that were registered as the first: kqueue cannot tell.
    firsts: Mutex<HashMap<RawFd, File>>,
}

/// The buffer of a batch.
pub(crate) struct Batch {
    raw: Vec<Kevent>,
    len: usize,
}

// SAFETY: `udata` is a token, and not followed.
#[allow(unsafe_code)]
unsafe impl Send for Batch {}

fn decode(raw: &Kevent) -> Option<Event> {
    let Token { index, generation } = Token::unpack(raw.udata as usize as u64);
    let is_over = raw.flags & EV_EOF != 0;
    let is_failed = is_over && raw.fflags != 0;
    let end = if is_over { HANG_UP } else { 0 };
    let error = if is_failed { ERROR } else { 0 };
    let (is_read, is_write) = (raw.filter == EVFILT_READ, raw.filter == EVFILT_WRITE);
    (is_read || is_write).then_some(Event {
        index,
        generation,
        readable: is_read || is_failed,
        writable: is_write || is_failed,
        read_reasons: if is_read { end | error } else { error },
        write_reasons: if is_write { end | error } else { error },
    })
}

impl backend::Batch for Batch {
    fn new() -> Batch {
        Batch { raw: vec![kevent_of(0, 0, 0, 0, 0); EVENTS_MAX], len: 0 }
    }

    fn events(&self) -> impl Iterator<Item = Event> + '_ {
        self.raw[..self.len].iter().filter_map(decode)
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Kqueue {
    /// Changes both filters of a descriptor. Returns the errno of each, or 0.
    fn change(&self, fd: RawFd, flags: u16, token: u64) -> io::Result<[i32; 2]> {
        let change = |filter| kevent_of(fd as usize, filter, flags | EV_RECEIPT, 0, token);
        let changes = [change(EVFILT_READ), change(EVFILT_WRITE)];
        let mut answers = [kevent_of(0, 0, 0, 0, 0); 2];
        kevent(self.queue.as_fd(), &changes, &mut answers, None)?;
        Ok(answers.map(|answer| answer.data as i32))
    }

    fn user(&self, flags: u16, fflags: u32) -> io::Result<()> {
        kevent(self.queue.as_fd(), &[kevent_of(0, EVFILT_USER, flags, fflags, 0)], &mut [], None).map(drop)
    }
}

impl BackEnd for Kqueue {
    const NAME: &'static str = "kqueue";
    const ARMS: bool = false;
    type Batch = Batch;

    fn open() -> io::Result<Kqueue> {
        let this = Kqueue { queue: kqueue()?, breaking: AtomicBool::new(false), firsts: Mutex::new(HashMap::new()) };
        this.user(EV_ADD | EV_CLEAR, 0)?;
        Ok(this)
    }

    fn add(&self, fd: BorrowedFd<'_>, token: Token, is_first: bool) -> io::Result<()> {
        let number = fd.as_raw_fd();
        if is_first {
            let file = File::of(fd)?;
            if !file.is_pollable() {
                return Err(not_pollable(Self::NAME));
            }
            let mut firsts = self.firsts.lock();
            if firsts.get(&number) == Some(&file) {
                return Err(io::Error::from_raw_os_error(libc::EEXIST));
            }
            firsts.insert(number, file);
        }
        let added = self.change(number, EV_ADD | EV_CLEAR, token.pack()).and_then(|errnos| match errnos {
            [read, write] if read != 0 && write != 0 => Err(io::Error::from_raw_os_error(read)),
            _ => Ok(()),
        });
        if added.is_err() && is_first {
            self.firsts.lock().remove(&number);
        }
        added
    }

    fn delete(&self, fd: BorrowedFd<'_>) {
        self.firsts.lock().remove(&fd.as_raw_fd());
        let _ = self.change(fd.as_raw_fd(), EV_DELETE, 0);
    }

    fn arm(&self, _: Token, _: bool, _: bool) {}

    fn wait(&self, batch: &mut Batch, most: usize, timeout: Option<u64>) {
        batch.len = 0;
        let room = &mut batch.raw[..most.clamp(1, EVENTS_MAX)];
        match kevent(self.queue.as_fd(), &[], room, timeout) {
            Ok(count) => batch.len = count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                eprintln!(
                    "netpoll: waiting for events failed, the kqueue descriptor was closed by somebody else: {error}"
                );
                std::process::abort();
            }
        }
        if batch.raw[..batch.len].iter().any(|raw| raw.filter == EVFILT_USER) {
            // ORDERING: SeqCst, before the caller looks at the queues again: a `wake` after this one triggers anew (model
            // `breaks_are_not_lost`).
            self.breaking.swap(false, Ordering::SeqCst);
        }
    }

    fn wake(&self) {
        // ORDERING: SeqCst: the swap comes after the caller made its work visible and before it relies on the wait to end.
        if !self.breaking.swap(true, Ordering::SeqCst) {
            while self.user(0, NOTE_TRIGGER).is_err_and(|error| error.kind() == io::ErrorKind::Interrupted) {}
        }
    }

    fn owns(&self, fd: RawFd) -> bool {
        fd == self.queue.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_and_flags_become_events() {
        let token = Token { index: 5, generation: u32::MAX };
        let reset = libc::ECONNRESET as u32;
        for (filter, flags, fflags, read, write) in [
            (EVFILT_READ, 0, 0, Some(0), None),
            (EVFILT_WRITE, 0, 0, None, Some(0)),
            (EVFILT_READ, EV_EOF, 0, Some(HANG_UP), None),
            (EVFILT_WRITE, EV_EOF, 0, None, Some(HANG_UP)),
            (EVFILT_READ, EV_EOF, reset, Some(HANG_UP | ERROR), Some(ERROR)),
            (EVFILT_WRITE, EV_EOF, reset, Some(ERROR), Some(HANG_UP | ERROR)),
            (EVFILT_READ, EV_CLEAR, reset, Some(0), None),
        ] {
            let event = decode(&kevent_of(9, filter, flags, fflags, token.pack())).unwrap();
            assert_eq!((event.index, event.generation), (5, u32::MAX));
            assert_eq!((event.readable, event.writable), (read.is_some(), write.is_some()), "{filter} {flags:x}");
            assert_eq!((event.read_reasons, event.write_reasons), (read.unwrap_or(0), write.unwrap_or(0)));
        }
        assert_eq!(decode(&kevent_of(0, EVFILT_USER, 0, 0, 0)), None);
    }
}

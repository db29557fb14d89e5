//! kqueue(2): the back end of macOS and FreeBSD.
//!
//! The contract is in [`backend`](crate::rt::poll::backend). The other back ends are `epoll.rs` and
//! `poll.rs`. On Linux, this file is compiled only for unit tests on 64-bit CPUs, which run it on a
//! model (`sys/kqueue/model.rs`). It has not been run on macOS or FreeBSD.
//!
//! # Filters
//! Each descriptor has two filters, READ and WRITE, with EV_CLEAR. A batch may contain one event of
//! each. Every EV_ADD must pass EV_CLEAR, because EV_ADD replaces the flags, and a filter without
//! EV_CLEAR is level-triggered. Urgent data is not reported; see
//! `sys::os::SHORT_COUNTS_ARE_EVIDENCE`.
//!
//! # Meaning of flags
//! | filter | flags | event |
//! |---|---|---|
//! | READ | EV_EOF | HANG_UP for readers, which read any remaining data up to the end of the stream. Writers retry, because some systems report only this when the reader of a pipe is closed |
//! | WRITE | EV_EOF | HANG_UP for writers: the peer accepts no more data, or this side was shut down |
//! | both | EV_EOF with `fflags`, EV_ERROR | also ERROR, in both directions |
//! | USER | | an interrupt, which is not an event |
//!
//! A descriptor is added after connect(2), because some systems report EV_EOF for a socket that is
//! not connected.
//!
//! # Handling of errors (kqueue(2))
//! | call | errno | outcome |
//! |---|---|---|
//! | kqueue | EMFILE, ENFILE, ENOMEM | returned to the caller that opens a socket or to the operation that registers one; a thread that would sleep pauses for up to 10 ms; the next call retries |
//! | EV_ADD | any, for one filter | ignored if the other change succeeds, because each end of a pipe has only one direction |
//! | EV_ADD | any, for both filters | returned |
//! | EV_ENABLE | any, for both filters | the descriptor is not registered, because it was closed |
//! | EV_DELETE | ENOENT, EBADF | ignored: already removed |
//! | any change | EINTR | repeated |
//! | wait | EINTR | an empty batch; the caller checks the clock again |
//! | wait | EBADF, EFAULT, EINVAL | aborts with a message: the process closed the descriptor, or memory is corrupt |

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::rt::poll::backend::{self, BackEnd, EVENTS_MAX, Event, Token, not_pollable};
use crate::rt::poll::side::{ERROR, HANG_UP};
use crate::rt::warn::warn;
use crate::sync::{AtomicBool, Mutex, Ordering};
use crate::sys::fd::File;
use crate::sys::kqueue::{
    EV_ADD, EV_CLEAR, EV_DELETE, EV_ENABLE, EV_EOF, EV_ERROR, EV_RECEIPT, EVFILT_READ, EVFILT_USER, EVFILT_WRITE,
    Kevent, NOTE_TRIGGER, kevent, kevent_of, kqueue,
};

/// A buffer for a batch of events.
pub(crate) struct Batch {
    raw: Vec<Kevent>,
    len: usize,
}

// SAFETY: `udata` is a token and is not dereferenced.
#[allow(unsafe_code)]
unsafe impl Send for Batch {}

/// Decodes an event. Returns `None` for an interrupt.
fn decode(raw: &Kevent) -> Option<Event> {
    let Token { index, generation } = Token::unpack(raw.udata as usize as u64);
    let is_over = raw.flags & EV_EOF != 0;
    let is_failed = is_over && raw.fflags != 0 || raw.flags & EV_ERROR != 0;
    let end = if is_over { HANG_UP } else { 0 };
    let error = if is_failed { ERROR } else { 0 };
    let (is_read, is_write) = (raw.filter == EVFILT_READ, raw.filter == EVFILT_WRITE);
    (is_read || is_write).then_some(Event {
        index,
        generation,
        readable: is_read || is_failed,
        writable: is_write || is_over || is_failed,
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

/// A kqueue.
#[derive(Debug)]
pub(crate) struct Kqueue {
    queue: OwnedFd,
    /// Whether an interrupt was triggered and has not been seen yet.
    breaking: AtomicBool,
    /// The tokens of the descriptors that were registered, by number. An entry remains when the
    /// descriptor is closed; see [`is_registered`](Kqueue::is_registered). The lock is held while
    /// the filters of a descriptor are changed.
    tokens: Mutex<HashMap<RawFd, u64>>,
}

impl Kqueue {
    /// Applies changes. The kernel stores one answer for each change with EV_RECEIPT. If the call
    /// is interrupted, it is repeated, so a change may be applied twice.
    fn apply(&self, changes: &[Kevent], answers: &mut [Kevent]) -> io::Result<()> {
        loop {
            match kevent(self.queue.as_fd(), changes, answers, None) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map(drop),
            }
        }
    }

    /// Changes both filters of a descriptor. Returns the errno of each change, or 0 if it
    /// succeeded.
    fn change(&self, fd: RawFd, flags: u16, token: u64) -> io::Result<[i32; 2]> {
        let change = |filter| kevent_of(fd as usize, filter, flags | EV_RECEIPT, 0, token);
        let changes = [change(EVFILT_READ), change(EVFILT_WRITE)];
        let mut answers = [kevent_of(0, 0, 0, 0, 0); 2];
        self.apply(&changes, &mut answers)?;
        Ok(answers.map(|answer| answer.data as i32))
    }

    /// Returns whether the descriptor `fd` is registered. A change without EV_ADD fails with ENOENT
    /// if it is not. Otherwise the change replaces the token, so it must have the `token` of the
    /// registration.
    fn is_registered(&self, fd: RawFd, token: u64) -> io::Result<bool> {
        Ok(self.change(fd, EV_ENABLE | EV_CLEAR, token)?.contains(&0))
    }

    /// Changes the USER filter, which reports interrupts.
    fn change_user(&self, flags: u16, fflags: u32) -> io::Result<()> {
        self.apply(&[kevent_of(0, EVFILT_USER, flags, fflags, 0)], &mut [])
    }
}

impl BackEnd for Kqueue {
    const NAME: &'static str = "kqueue";
    const ARMS: bool = false;
    type Batch = Batch;

    fn open() -> io::Result<Kqueue> {
        let this = Kqueue { queue: kqueue()?, breaking: AtomicBool::new(false), tokens: Mutex::new(HashMap::new()) };
        this.change_user(EV_ADD | EV_CLEAR, 0)?;
        Ok(this)
    }

    fn add(&self, fd: BorrowedFd<'_>, token: Token, is_first: bool) -> io::Result<()> {
        let number = fd.as_raw_fd();
        if !File::of(fd)?.is_pollable() {
            return Err(not_pollable(Self::NAME));
        }
        let mut tokens = self.tokens.lock();
        if is_first
            && let Some(&known) = tokens.get(&number)
            && self.is_registered(number, known)?
        {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        match self.change(number, EV_ADD | EV_CLEAR, token.pack())? {
            [read, write] if read != 0 && write != 0 => Err(io::Error::from_raw_os_error(read)),
            _ => {
                tokens.insert(number, token.pack());
                Ok(())
            }
        }
    }

    fn delete(&self, fd: BorrowedFd<'_>) {
        let mut tokens = self.tokens.lock();
        tokens.remove(&fd.as_raw_fd());
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
                warn(format_args!(
                    "waiting for events failed because other code closed the kqueue descriptor: {error}"
                ));
                std::process::abort();
            }
        }
        if batch.raw[..batch.len].iter().any(|raw| raw.filter == EVFILT_USER) {
            // ORDERING: SeqCst, before the caller checks the queues again: a later `wake` triggers
            // again (model `breaks_are_not_lost`).
            self.breaking.swap(false, Ordering::SeqCst);
        }
    }

    fn wake(&self) {
        // ORDERING: SeqCst: the swap comes after the caller has published its work, and before the
        // caller relies on the end of the wait.
        if !self.breaking.swap(true, Ordering::SeqCst) {
            let _ = self.change_user(0, NOTE_TRIGGER);
        }
    }

    fn owns(&self, fd: RawFd) -> bool {
        fd == self.queue.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::kqueue::interrupt_next_change;

    #[test]
    fn filters_and_flags_become_events() {
        let token = Token { index: 5, generation: u32::MAX };
        let reset = libc::ECONNRESET as u32;
        for (filter, flags, fflags, read, write) in [
            (EVFILT_READ, 0, 0, Some(0), None),
            (EVFILT_WRITE, 0, 0, None, Some(0)),
            // Some systems report only this to the writer of a pipe whose reader is closed.
            (EVFILT_READ, EV_EOF, 0, Some(HANG_UP), Some(0)),
            (EVFILT_WRITE, EV_EOF, 0, None, Some(HANG_UP)),
            (EVFILT_READ, EV_EOF, reset, Some(HANG_UP | ERROR), Some(ERROR)),
            (EVFILT_WRITE, EV_EOF, reset, Some(ERROR), Some(HANG_UP | ERROR)),
            (EVFILT_READ, EV_CLEAR, reset, Some(0), None),
            (EVFILT_READ, EV_ERROR, 0, Some(ERROR), Some(ERROR)),
            (EVFILT_WRITE, EV_ERROR, 0, Some(ERROR), Some(ERROR)),
        ] {
            let event = decode(&kevent_of(9, filter, flags, fflags, token.pack())).unwrap();
            assert_eq!((event.index, event.generation), (5, u32::MAX));
            assert_eq!((event.readable, event.writable), (read.is_some(), write.is_some()), "{filter} {flags:x}");
            assert_eq!((event.read_reasons, event.write_reasons), (read.unwrap_or(0), write.unwrap_or(0)));
        }
        assert_eq!(decode(&kevent_of(0, EVFILT_USER, 0, 0, 0)), None);
    }

    #[test]
    fn interrupted_change_is_repeated() {
        let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        let (it, mut batch) = (Kqueue::open().unwrap(), <Batch as backend::Batch>::new());
        if !interrupt_next_change() {
            return;
        }
        it.add(socket.as_fd(), Token { index: 5, generation: 1 }, true).unwrap();
        interrupt_next_change();
        it.wake();
        it.wait(&mut batch, 8, Some(0));
        assert!(batch.raw[..batch.len].iter().any(|raw| raw.filter == EVFILT_USER), "an interrupt is pending");
        interrupt_next_change();
        it.delete(socket.as_fd());
        it.wait(&mut batch, 8, Some(0));
        assert_eq!(batch.len, 0, "no filter is left");
        interrupt_next_change();
        assert!(Kqueue::open().is_ok());
    }
}

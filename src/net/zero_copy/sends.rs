//! [`Sends`]: what a socket has sent with MSG_ZEROCOPY, and the memory that the kernel still reads.
//!
//! # States of an entry
//! *sending* (its future makes calls; the future has the buffer) → *waiting* for the completions of its calls → *done*, taken by the
//! future with the buffer. A future that is dropped or fails before leaves its buffer here: *abandoned*, freed when its completions
//! have come.
//!
//! # Invariants
//! * The kernel counts the calls of a socket; so does `next`, under the lock that the call is made under.
//! * A buffer is freed when its calls are done, or after the socket has been closed with a reset, which makes the kernel forget what it
//!   has to send. For that SO_LINGER is zero from the moment something is abandoned until all that was is done, and when
//!   the socket is closed while something is under way. Where somebody may have a duplicate, our close is not the socket's: what is under
//!   way then is never freed.
//! * Whoever reads the error queue finds completions for others and wakes them, outside the lock; buffers are dropped outside it too.
//!
//! # Compared with Go
//! It has no MSG_ZEROCOPY, and its poller takes the edge of a completion for "not pollable".

use std::any::Any;
use std::io;
use std::os::fd::BorrowedFd;
use std::task::Waker;
use std::time::Duration;

use crate::net::options;
use crate::rt::waiters::Wakers;
use crate::sync::Mutex;
use crate::sys::{socket, zerocopy};

/// Of one socket; nothing until MSG_ZEROCOPY is used.
#[derive(Debug, Default)]
pub(crate) struct Sends(Mutex<State>);

impl Drop for Sends {
    fn drop(&mut self) {
        let (entries, exposed) = {
            let mut state = self.0.lock();
            (std::mem::take(&mut state.entries), state.exposed)
        };
        for entry in entries {
            if exposed && entry.done != entry.calls {
                std::mem::forget(entry.abandoned);
            }
        }
    }
}

#[derive(Debug, Default)]
struct State {
    enabled: bool,
    /// Somebody may have duplicated the descriptor.
    exposed: bool,
    /// The kernel's number for the next call.
    next: u32,
    entries: Vec<Entry>,
    keys: u64,
    /// SO_LINGER as it was before something was abandoned, or was set since.
    linger: Option<Option<Duration>>,
}

#[derive(Debug)]
struct Entry {
    key: u64,
    /// Its calls: the write lock is held across them, so their numbers follow each other.
    first: u32,
    calls: u32,
    done: u32,
    copied: bool,
    waker: Option<Waker>,
    abandoned: Option<Box<dyn Any + Send>>,
}

impl Sends {
    pub(crate) fn enable(&self, fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
        let mut state = self.0.lock();
        zerocopy::set(fd, on)?;
        state.enabled = on;
        Ok(())
    }

    pub(crate) fn expose(&self) {
        self.0.lock().exposed = true;
    }

    /// A new entry's key.
    pub(crate) fn begin(&self) -> u64 {
        let mut state = self.0.lock();
        state.keys += 1;
        let key = state.keys;
        let first = state.next;
        state.entries.push(Entry { key, first, calls: 0, done: 0, copied: false, waker: None, abandoned: None });
        key
    }

    /// One call for `key`. Without the option, or memory for one more completion, it copies.
    pub(crate) fn send(&self, fd: BorrowedFd<'_>, key: u64, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(socket::MAX_RW)];
        let mut guard = self.0.lock();
        let state = &mut *guard;
        let entry = state.entries.iter_mut().find(|entry| entry.key == key).ok_or(io::ErrorKind::NotFound)?;
        let sent = match zerocopy_send(fd, bytes, state.enabled) {
            Some(sent) => sent?,
            None => {
                entry.copied = true;
                return socket::send(fd, bytes, 0);
            }
        };
        if entry.calls == 0 {
            entry.first = state.next;
        }
        entry.calls += 1;
        state.next = state.next.wrapping_add(1);
        Ok(sent)
    }

    /// Reads the error queue to its end.
    pub(crate) fn reap(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let mut wakers = Wakers::new();
        let mut freed = Vec::new();
        let reaped = {
            let mut state = self.0.lock();
            let reaped = state.reap(fd, &mut wakers);
            state.free(fd, &mut freed);
            reaped
        };
        drop(freed);
        wakers.wake_all();
        reaped
    }

    /// Whether the calls of `key` are done, and then whether any copied; the entry goes. Otherwise `waker` hears when somebody else
    /// finds the completion.
    pub(crate) fn take_done(&self, key: u64, waker: &Waker) -> Option<bool> {
        let waker = waker.clone();
        let mut state = self.0.lock();
        let index = state.entries.iter().position(|entry| entry.key == key)?;
        let entry = &mut state.entries[index];
        // What it replaces, and what is left, is dropped without the lock.
        let (_old, done);
        if entry.done == entry.calls {
            (_old, done) = (Some(waker), Some(state.entries.swap_remove(index)));
        } else {
            (_old, done) = (entry.waker.replace(waker), None);
        }
        drop(state);
        done.map(|entry| entry.copied)
    }

    /// The future of `key` goes before its calls are done: keeps its buffer. `fd` is none if the socket is closed.
    pub(crate) fn abandon(&self, fd: Option<BorrowedFd<'_>>, key: u64, buffer: Box<dyn Any + Send>) {
        let (mut freed, mut waker, mut buffer) = (Vec::new(), None, Some(buffer));
        {
            let mut state = self.0.lock();
            if let Some(entry) = state.entries.iter_mut().find(|entry| entry.key == key) {
                waker = entry.waker.take();
                entry.abandoned = buffer.take();
            }
            if let Some(fd) = fd {
                state.free(fd, &mut freed);
                if state.linger.is_none() && state.entries.iter().any(|entry| entry.abandoned.is_some()) {
                    state.linger = Some(options::linger(fd).unwrap_or(None));
                    let _ = options::set_linger(fd, Some(Duration::ZERO));
                }
            }
        }
        drop((freed, waker, buffer));
    }

    /// SO_LINGER as the user has it.
    pub(crate) fn linger(&self, fd: BorrowedFd<'_>) -> io::Result<Option<Duration>> {
        self.0.lock().linger.map_or_else(|| options::linger(fd), Ok)
    }

    /// Sets it, when everything that was abandoned is done.
    pub(crate) fn set_linger(&self, fd: BorrowedFd<'_>, linger: Option<Duration>) -> io::Result<()> {
        match &mut self.0.lock().linger {
            Some(kept) => *kept = linger,
            None => options::set_linger(fd, linger)?,
        }
        Ok(())
    }

    /// The socket is about to be closed: if the kernel still reads anything, with a reset.
    pub(crate) fn before_close(&self, fd: BorrowedFd<'_>) {
        let _ = self.reap(fd);
        if self.0.lock().entries.iter().any(|entry| entry.done != entry.calls) {
            let _ = options::set_linger(fd, Some(Duration::ZERO));
        }
    }

    /// The descriptor is given away with what is under way: nobody will ever know when it is done, so that memory is never freed.
    pub(crate) fn give_away(self, fd: BorrowedFd<'_>) {
        let _ = self.reap(fd);
        let mut state = self.0.lock();
        if let Some(linger) = state.linger.take() {
            let _ = options::set_linger(fd, linger);
        }
        for entry in state.entries.drain(..) {
            std::mem::forget(entry.abandoned);
        }
    }
}

/// `None`: it has to be copied.
fn zerocopy_send(fd: BorrowedFd<'_>, bytes: &[u8], enabled: bool) -> Option<io::Result<usize>> {
    if !enabled || bytes.is_empty() {
        return None;
    }
    match zerocopy::send(fd, bytes) {
        // So many completions are under way that there is no memory for the note of one more.
        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => None,
        sent => Some(sent),
    }
}

impl State {
    fn reap(&mut self, fd: BorrowedFd<'_>, wakers: &mut Wakers) -> io::Result<()> {
        loop {
            let completion = match zerocopy::completion(fd) {
                Ok(completion) => completion,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let (mut call, last) = completion.calls.into_inner();
            loop {
                if let Some(entry) = self.entries.iter_mut().find(|entry| call.wrapping_sub(entry.first) < entry.calls)
                {
                    entry.done += 1;
                    entry.copied |= completion.copied;
                    if entry.done == entry.calls {
                        wakers.extend(entry.waker.take());
                    }
                }
                if call == last {
                    break;
                }
                call = call.wrapping_add(1);
            }
        }
    }

    /// Takes out what was abandoned and is done; with the last of it SO_LINGER is as it was.
    fn free(&mut self, fd: BorrowedFd<'_>, freed: &mut Vec<Entry>) {
        let is_done = |entry: &mut Entry| entry.abandoned.is_some() && entry.done == entry.calls;
        freed.extend(self.entries.extract_if(.., is_done));
        if self.linger.is_some() && self.entries.iter().all(|entry| entry.abandoned.is_none()) {
            let _ = options::set_linger(fd, self.linger.take().flatten());
        }
    }
}

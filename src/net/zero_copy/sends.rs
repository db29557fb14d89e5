//! [`Sends`]: the MSG_ZEROCOPY calls of one socket, and the buffers that the kernel still reads.
//!
//! # States of an entry
//! *sending* (its future makes calls and owns the buffer) → *waiting* for the completions of its
//! calls → *done* (the future returns the buffer). If the future fails or is dropped earlier, its
//! drop leaves the buffer in the entry (*abandoned*). The buffer is freed when the last completion
//! has been read from the error queue.
//!
//! # Invariants
//! * Z1 — a buffer that the kernel may read is freed only after its completions have arrived. A
//!   buffer whose completions can no longer arrive (the descriptor was released, the socket was
//!   closed while it may have been shared, a close did not wait until all completions had arrived,
//!   or this process is a forked child) is never freed, so its memory leaks.
//! * Z2 — the kernel numbers the MSG_ZEROCOPY calls of a socket, and `next` repeats that count.
//!   Therefore no other user of the socket may make such calls. On an [exposed](crate::net::fd)
//!   socket, and in a forked child, no such calls are made: the bytes are copied. An exposed
//!   descriptor stays exposed, so the numbers of its earlier calls stay correct.
//! * Z3 — a call is made, counted and recorded in its entry under one lock. [`end`](Loans::end)
//!   takes the same lock, so no such call is made after `end` has returned.
//! * Completions may belong to any entry. If the thread that reads the error queue finds the last
//!   completion of an entry, it wakes the entry's future or drops the abandoned buffer, outside the
//!   lock.
//!
//! # Close
//! [`recall`](Loans::recall) runs when no call is in progress and none can follow. If completions
//! are missing and the socket cannot be shared, it calls connect(2) with AF_UNSPEC. This
//! disconnects the socket, even if other descriptors refer to it at that moment (a child between
//! fork and exec has one). The peer gets a reset, and the kernel drops the send queue. Packets in a
//! device's queue complete a moment later. [`wait`](Loans::wait) waits for them, for at most
//! [`RECALL_MAX`].
//!
//! # Compared with Go
//! Go does not use MSG_ZEROCOPY. Its poller mistakes an event with EPOLLERR alone, such as a
//! completion while the send buffer is full, for "not pollable".

use std::any::Any;
use std::io;
use std::os::fd::BorrowedFd;
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::net::fd::closing::Loans;
use crate::rt::fork;
use crate::rt::waiters::Wakers;
use crate::sync::Mutex;
use crate::sys::{option, socket, zerocopy};

/// The maximum time that a close waits for devices that are still sending. Packets usually stay in
/// a device's queue for milliseconds.
const RECALL_MAX: Duration = Duration::from_secs(1);
/// The pause between two checks for completions.
const RECALL_PAUSE: Duration = Duration::from_millis(1);

/// The MSG_ZEROCOPY sends of one socket; see the [module documentation](self).
#[derive(Debug, Default)]
pub(crate) struct Sends(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    enabled: bool,
    /// Whether the descriptor may have duplicates.
    exposed: bool,
    /// The number that the kernel gives to the next MSG_ZEROCOPY call.
    next: u32,
    entries: Vec<Entry>,
    keys: u64,
}

#[derive(Debug)]
struct Entry {
    key: u64,
    /// The number of the entry's first call. The write lock is held across its calls, so their
    /// numbers are consecutive.
    first: u32,
    calls: u32,
    done: u32,
    copied: bool,
    waker: Option<Waker>,
    abandoned: Option<Box<dyn Any + Send>>,
}

impl Entry {
    fn is_done(&self) -> bool {
        self.done == self.calls
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if !self.is_done() {
            // Invariant Z1: the kernel may still read the buffer.
            std::mem::forget(self.abandoned.take());
        }
    }
}

impl Sends {
    pub(crate) fn enable(&self, fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
        let mut state = self.0.lock();
        zerocopy::set(fd, on)?;
        state.enabled = on;
        Ok(())
    }

    /// Creates an entry and returns its key.
    pub(crate) fn begin(&self) -> u64 {
        let mut state = self.0.lock();
        state.keys += 1;
        let key = state.keys;
        let first = state.next;
        state.entries.push(Entry { key, first, calls: 0, done: 0, copied: false, waker: None, abandoned: None });
        key
    }

    /// Sends bytes for the entry `key`. The bytes are copied if a call without a copy is not
    /// allowed or not possible.
    pub(crate) fn send(&self, fd: BorrowedFd<'_>, key: u64, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(socket::MAX_RW)];
        let mut guard = self.0.lock();
        let state = &mut *guard;
        let entry = state.entries.iter_mut().find(|entry| entry.key == key).ok_or(io::ErrorKind::NotFound)?;
        let may_zerocopy = state.enabled && !state.exposed && !fork::is_child();
        let sent = match zerocopy_send(fd, bytes, may_zerocopy) {
            Some(sent) => sent?,
            None => {
                let sent = socket::send(fd, bytes, 0)?;
                entry.copied |= sent > 0;
                return Ok(sent);
            }
        };
        if entry.calls == 0 {
            entry.first = state.next;
        }
        entry.calls += 1;
        state.next = state.next.wrapping_add(1);
        Ok(sent)
    }

    /// Reads the error queue until it is empty or recvmsg(2) fails. Wakes the futures, and drops
    /// the abandoned buffers, whose calls are then complete. Does nothing in a forked child,
    /// because the queue belongs to the parent.
    pub(crate) fn reap(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        if fork::is_child() {
            return Ok(());
        }
        let mut wakers = Wakers::new();
        let (reaped, freed): (_, Vec<Entry>) = {
            let mut state = self.0.lock();
            let reaped = state.reap(fd, &mut wakers);
            (reaped, state.entries.extract_if(.., |entry| entry.abandoned.is_some() && entry.is_done()).collect())
        };
        drop(freed);
        wakers.wake_all();
        reaped
    }

    /// If the calls of the entry `key` are complete, removes the entry and returns whether bytes
    /// may have been copied. Otherwise returns `None` and registers `waker`, which
    /// [`reap`](Sends::reap) wakes when it finds the last completion.
    pub(crate) fn take_done(&self, key: u64, waker: &Waker) -> Option<bool> {
        let waker = waker.clone();
        let mut state = self.0.lock();
        let index = state.entries.iter().position(|entry| entry.key == key)?;
        let entry = &mut state.entries[index];
        // The replaced waker and the rest of the entry are dropped after the lock is released.
        let (_old, done);
        if entry.is_done() {
            (_old, done) = (Some(waker), Some(state.entries.swap_remove(index)));
        } else {
            (_old, done) = (entry.waker.replace(waker), None);
        }
        drop(state);
        done.map(|entry| entry.copied)
    }

    /// Moves the buffer of a future that ends early to the entry, which keeps it until the calls
    /// are complete.
    pub(crate) fn abandon(&self, key: u64, buffer: Box<dyn Any + Send>) {
        let mut state = self.0.lock();
        // Declared outside the block below, so that both are dropped after the lock is released.
        let (mut _done, mut _waker) = (None, None);
        if let Some(index) = state.entries.iter().position(|entry| entry.key == key) {
            let entry = &mut state.entries[index];
            _waker = entry.waker.take();
            entry.abandoned = Some(buffer);
            if entry.is_done() {
                _done = Some(state.entries.swap_remove(index));
            }
        }
        drop(state);
    }

    fn is_reading(&self) -> bool {
        self.0.lock().entries.iter().any(|entry| !entry.is_done())
    }
}

impl Loans for Sends {
    fn end(&self) {
        self.0.lock().exposed = true;
    }

    fn recall(&self, fd: BorrowedFd<'_>, may_be_shared: bool) -> bool {
        let _ = self.reap(fd);
        if may_be_shared || !self.is_reading() {
            return false;
        }
        // If the kernel refuses to disconnect, the close resets the connection.
        let _ = option::socket::set_linger(fd, Some(Duration::ZERO));
        let _ = zerocopy::disconnect(fd);
        let _ = self.reap(fd);
        self.is_reading()
    }

    fn wait(&self, fd: BorrowedFd<'_>) {
        let until = Instant::now() + RECALL_MAX;
        while self.is_reading() && Instant::now() < until {
            // poll(2) cannot wait for completions, because for a disconnected socket it returns at
            // once.
            std::thread::sleep(RECALL_PAUSE);
            let _ = self.reap(fd);
        }
    }
}

/// Sends without a copy. Returns `None` if the bytes must be copied.
fn zerocopy_send(fd: BorrowedFd<'_>, bytes: &[u8], may_zerocopy: bool) -> Option<io::Result<usize>> {
    if !may_zerocopy || bytes.is_empty() {
        return None;
    }
    match zerocopy::send(fd, bytes) {
        // The kernel has no memory for another notification, usually because too many are pending.
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
                    if entry.is_done() {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    /// Returns the CPU time of this thread.
    #[allow(unsafe_code)]
    fn cpu_time() -> Duration {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is valid for writes during the call.
        assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) }, 0);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }

    /// The copying call fails when the send buffer is full.
    #[test]
    fn failed_call_does_not_count_as_a_copy() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_nonblocking(true).unwrap();
        let sends = Sends::default();
        let [full, empty] = [[7; 1 << 16].as_slice(), &[]].map(|bytes| (sends.begin(), bytes));
        while sends.send(stream.as_fd(), full.0, full.1).is_ok() {}
        assert_eq!(sends.take_done(full.0, Waker::noop()), Some(true));
        let key = sends.begin();
        assert_eq!(sends.send(stream.as_fd(), key, &[7]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(sends.take_done(key, Waker::noop()), Some(false));
        assert_eq!(sends.send(stream.as_fd(), empty.0, empty.1).unwrap(), 0);
        assert_eq!(sends.take_done(empty.0, Waker::noop()), Some(false));
    }

    /// Simulates a device that holds the packets of the connection for longer than a close waits.
    #[test]
    fn wait_for_completions_sleeps() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let sends = Sends::default();
        let key = sends.begin();
        sends.0.lock().entries[0].calls = 1;
        assert!(sends.recall(stream.as_fd(), false), "a call has no completion");
        let (before, start) = (cpu_time(), Instant::now());
        sends.wait(stream.as_fd());
        assert!(start.elapsed() >= RECALL_MAX && sends.is_reading());
        assert!(cpu_time() - before < RECALL_MAX / 2);
        sends.0.lock().entries[0].done = 1;
        assert_eq!(sends.take_done(key, Waker::noop()), Some(false));
    }
}

//! poll(2): a back end for systems whose poll(2) reports a half-close. It converts levels to edges.
//!
//! The contract is in [`backend`](crate::rt::poll::backend). The other back ends are `epoll.rs` and
//! `kqueue.rs`. This back end is used if it is selected by name, or if the system has no better
//! one. The cost of a wait is proportional to the number of descriptors.
//!
//! # Edges
//! After a level was reported, it is requested again only when an operation that begins to wait
//! [arms](crate::rt::poll::backend::BackEnd::ARMS) its direction. poll(2) always reports hang-ups
//! and errors, so a descriptor that has reported one is omitted from the call until it is armed.
//! Hang-ups, errors (such as a message in the error queue) and urgent data may persist after the
//! call of the operation. If they were reported again as soon as they are armed, they would cause a
//! busy loop, so they are reported again only after [`QUIET_NANOS`]. The other levels (data, room
//! and a half-close) are reported again immediately. So an operation is woken again immediately if
//! its call fails with EAGAIN although one of them persists, for example because a closure of the
//! program needs more data than is available.
//!
//! # Close
//! While poll(2) waits, it holds references to the open files. `delete` therefore interrupts a wait
//! and returns after poll(2) has returned. Otherwise a close after `delete` would not reach the
//! peer, and the port would stay in use, until poll(2) returns.
//!
//! # Handling of errors (poll(2), pipe(2))
//! | call | errno | outcome |
//! |---|---|---|
//! | pipe | EMFILE, ENFILE | returned to the caller that opens a socket or to the operation that registers one; a thread that would sleep pauses for up to 10 ms; the next call retries |
//! | wait | EINTR | an empty batch; the caller checks the clock again |
//! | wait | EAGAIN, ENOMEM, EINVAL | a pause of one millisecond and an empty batch |
//! | wait | POLLNVAL | reported as an error in both directions: other code closed the descriptor |
//! | pipe write | EAGAIN | ignored: the pipe is full, so the interrupt is pending |
//! | pipe write | EINTR | repeated |
//!
//! EINVAL means that the call was made for more descriptors than RLIMIT_NOFILE permits. `add`
//! refuses further descriptors with `QuotaExceeded` when their number, including the read end of
//! the pipe, has reached the limit. If the limit is lowered later, each call is made for only some
//! of the descriptors and waits for at most one millisecond. So EINVAL occurs only if the limit is
//! 0, or is lowered between the check and the call.

use std::collections::HashMap;
use std::io;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use libc::c_short;

use crate::rt::poll::backend::{self, BackEnd, Event, State, Token, not_pollable};
use crate::rt::time::clock;
use crate::sync::{AtomicBool, Condvar, Mutex, Ordering};
use crate::sys;
use crate::sys::fd::File;

/// The time after which a hang-up, an error or urgent data that persists is reported again, in
/// nanoseconds. Also the maximum length of a wait for only some of the descriptors.
const QUIET_NANOS: u64 = 1_000_000;

/// The level of a half-close, or 0 if the system has none. In this case, [`Poll::open`] fails.
const HALF_CLOSED: c_short = match sys::os::POLL_HALF_CLOSED {
    Some(level) => level,
    None => 0,
};

/// The levels that poll(2) reports even if they are not requested.
const ALWAYS: c_short = libc::POLLERR | libc::POLLHUP | libc::POLLNVAL;
const READ: c_short = libc::POLLIN | libc::POLLPRI | HALF_CLOSED;
const WRITE: c_short = libc::POLLOUT;

/// The levels that are reported again only after [`QUIET_NANOS`], because they may persist.
const LASTING: c_short = ALWAYS | libc::POLLPRI;

/// A buffer for a batch of events.
pub(crate) struct Batch {
    /// The request and the answer. The first entry is the read end of the pipe.
    polled: Vec<libc::pollfd>,
    /// The slot index of each entry except the first.
    indices: Vec<u32>,
    events: Vec<Event>,
    /// Whether the last wait saw an interrupt.
    has_interrupt: bool,
    /// The position of the first descriptor of the next request, which advances with each request,
    /// so that every descriptor is requested from time to time.
    start: usize,
}

impl backend::Batch for Batch {
    fn new() -> Batch {
        Batch { polled: Vec::new(), indices: Vec::new(), events: Vec::new(), has_interrupt: false, start: 0 }
    }

    fn events(&self) -> impl Iterator<Item = Event> + '_ {
        self.events.iter().copied()
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.events.is_empty() && !self.has_interrupt
    }
}

/// A registered descriptor.
#[derive(Debug)]
struct Entry {
    fd: RawFd,
    generation: u32,
    file: File,
    /// The levels that have not been reported since they were armed.
    armed: c_short,
    /// The lasting levels that are not requested before `quiet_until`, because they were just
    /// reported.
    quiet: c_short,
    quiet_until: u64,
}

impl Entry {
    fn new(fd: RawFd, generation: u32, file: File) -> Entry {
        Entry { fd, generation, file, armed: ALWAYS | READ | WRITE, quiet: 0, quiet_until: 0 }
    }

    /// Arms errors, hang-ups, and each direction whose flag is true. Returns whether this changes
    /// the armed levels.
    fn arm(&mut self, read: bool, write: bool) -> bool {
        let before = self.armed;
        self.armed |= ALWAYS | if read { READ } else { 0 } | if write { WRITE } else { 0 };
        self.armed != before
    }

    /// Returns the levels to request at `now`, or `None` if the descriptor must be omitted from the
    /// call.
    fn request(&mut self, now: u64) -> Option<c_short> {
        if now >= self.quiet_until {
            self.quiet = 0;
        }
        let levels = self.armed & !self.quiet;
        (levels & ALWAYS == ALWAYS).then_some(levels & !ALWAYS)
    }

    /// Handles the levels that poll(2) has reported at `now`. Returns an event if one of them is
    /// armed.
    fn report(&mut self, index: u32, levels: c_short, now: u64) -> Option<Event> {
        let new = levels & self.armed;
        self.armed &= !new;
        if new & LASTING != 0 {
            self.quiet |= new & LASTING;
            self.quiet_until = now.saturating_add(QUIET_NANOS);
        }
        let has = |level| new & level != 0;
        let state = State {
            input: has(libc::POLLIN),
            output: has(libc::POLLOUT),
            priority: has(libc::POLLPRI),
            half_closed: has(HALF_CLOSED),
            hung_up: has(libc::POLLHUP),
            failed: has(libc::POLLERR | libc::POLLNVAL),
        };
        (new != 0).then(|| Event::new(Token { index, generation: self.generation }, state))
    }
}

#[derive(Debug, Default)]
struct Table {
    /// Entries by the index of their token.
    entries: HashMap<u32, Entry>,
    /// Whether a thread is in poll(2).
    is_asleep: bool,
    /// Whether the current call of poll(2) was interrupted because the table has changed.
    is_broken: bool,
    /// The number of calls of poll(2) that have returned.
    returns: u64,
}

impl Table {
    /// Writes a request for up to `room` descriptors to `batch`, starting with a different
    /// descriptor each time. If the request may lack descriptors, or lacks armed levels, returns
    /// the time at which a new request must be made.
    fn request(&mut self, batch: &mut Batch, room: usize, now: u64) -> Option<u64> {
        batch.polled.truncate(1);
        batch.indices.clear();
        let mut until = (room < self.entries.len()).then(|| now.saturating_add(QUIET_NANOS));
        for (&index, entry) in &mut self.entries {
            if let Some(events) = entry.request(now) {
                batch.polled.push(libc::pollfd { fd: entry.fd, events, revents: 0 });
                batch.indices.push(index);
            }
            if entry.armed & entry.quiet != 0 {
                until = until.into_iter().chain([entry.quiet_until]).min();
            }
        }
        let first = batch.start.checked_rem(batch.indices.len()).unwrap_or(0);
        batch.start = batch.start.wrapping_add(1);
        batch.polled[1..].rotate_left(first);
        batch.indices.rotate_left(first);
        batch.polled.truncate(room.saturating_add(1));
        batch.indices.truncate(room);
        until
    }

    /// Takes up to `most` events from the answers in `batch`.
    fn report(&mut self, batch: &mut Batch, most: usize, now: u64) {
        let answers = batch.polled[1..].iter().zip(&batch.indices);
        for (polled, index) in answers.filter(|(polled, _)| polled.revents != 0) {
            if batch.events.len() == most {
                break;
            }
            // The slot may belong to another descriptor by now, which the next request will
            // contain.
            if let Some(entry) = self.entries.get_mut(index).filter(|entry| entry.fd == polled.fd) {
                batch.events.extend(entry.report(*index, polled.revents, now));
            }
        }
    }
}

/// An instance of the back end: a table of descriptors, and the pipe that interrupts a wait.
#[derive(Debug)]
pub(crate) struct Poll {
    reader: PipeReader,
    writer: PipeWriter,
    /// Whether an interrupt was written and has not been seen yet.
    breaking: AtomicBool,
    table: Mutex<Table>,
    /// Notified when poll(2) has returned.
    returned: Condvar,
}

/// Returns `Unsupported` if this system's poll(2) has no level for a half-close.
fn check(half_closed: Option<c_short>) -> io::Result<()> {
    let text = "poll(2) of this system does not report a half-close by the peer (POLLRDHUP)";
    half_closed.map(drop).ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, text))
}

impl Poll {
    /// Makes a thread in poll(2) rebuild its request, because the table has changed.
    fn break_request(&self, table: &mut Table) {
        if table.is_asleep && !table.is_broken {
            table.is_broken = true;
            self.write();
        }
    }

    /// Writes to the pipe, so that poll(2) returns.
    fn write(&self) {
        while (&self.writer).write(&[1]).is_err_and(|error| error.kind() == io::ErrorKind::Interrupted) {}
    }
}

impl BackEnd for Poll {
    const NAME: &'static str = "poll";
    const ARMS: bool = true;
    type Batch = Batch;

    fn open() -> io::Result<Poll> {
        check(sys::os::POLL_HALF_CLOSED)?;
        let (reader, writer) = io::pipe()?;
        sys::socket::set_nonblocking(reader.as_fd(), true)?;
        sys::socket::set_nonblocking(writer.as_fd(), true)?;
        let (breaking, table) = (AtomicBool::new(false), Mutex::new(Table::default()));
        Ok(Poll { reader, writer, breaking, table, returned: Condvar::new() })
    }

    fn add(&self, fd: BorrowedFd<'_>, token: Token, is_first: bool) -> io::Result<()> {
        let file = File::of(fd)?;
        if !file.is_pollable() {
            return Err(not_pollable(Self::NAME));
        }
        let mut table = self.table.lock();
        let (number, Token { index, generation }) = (fd.as_raw_fd(), token);
        match table.entries.values().find(|entry| entry.fd == number) {
            Some(known) if is_first && known.file == file => return Err(io::Error::from_raw_os_error(libc::EEXIST)),
            None if table.entries.len() as u64 + 1 >= sys::fd::limit() => {
                let text = "too many descriptors for poll(2), which accepts no more than RLIMIT_NOFILE";
                return Err(io::Error::new(io::ErrorKind::QuotaExceeded, text));
            }
            _ => {}
        }
        table.entries.retain(|_, entry| entry.fd != number);
        table.entries.insert(index, Entry::new(number, generation, file));
        self.break_request(&mut table);
        Ok(())
    }

    fn delete(&self, fd: BorrowedFd<'_>) {
        let mut table = self.table.lock();
        table.entries.retain(|_, entry| entry.fd != fd.as_raw_fd());
        self.break_request(&mut table);
        let returns = table.returns;
        while table.is_asleep && table.returns == returns {
            table = self.returned.wait(table);
        }
    }

    fn arm(&self, token: Token, read: bool, write: bool) {
        let mut table = self.table.lock();
        let entry = table.entries.get_mut(&token.index).filter(|entry| entry.generation == token.generation);
        if entry.is_some_and(|entry| entry.arm(read, write)) {
            self.break_request(&mut table);
        }
    }

    fn wait(&self, batch: &mut Batch, most: usize, timeout: Option<u64>) {
        let until = timeout.map(|nanos| clock::now().saturating_add(nanos));
        batch.events.clear();
        batch.has_interrupt = false;
        batch.polled.clear();
        batch.polled.push(libc::pollfd { fd: self.reader.as_raw_fd(), events: libc::POLLIN, revents: 0 });
        let mut table = self.table.lock();
        loop {
            // The pipe needs one entry.
            let room = usize::try_from(sys::fd::limit()).unwrap_or(usize::MAX).saturating_sub(1);
            let now = clock::now();
            let again_at = table.request(batch, room, now);
            let limit = until.into_iter().chain(again_at).min().map(|at| at.saturating_sub(now));
            (table.is_asleep, table.is_broken) = (true, false);
            drop(table);
            let result = sys::os::poll(&mut batch.polled, limit);
            table = self.table.lock();
            table.is_asleep = false;
            table.returns = table.returns.wrapping_add(1);
            self.returned.notify_all();
            if let Err(error) = result {
                drop(table);
                if error.kind() != io::ErrorKind::Interrupted {
                    std::thread::sleep(Duration::from_millis(1));
                }
                return;
            }
            if batch.polled[0].revents != 0 {
                let mut buf = [0; 64];
                while matches!((&self.reader).read(&mut buf), Ok(count) if count == buf.len()) {}
                // ORDERING: SeqCst, before the caller checks the queues again: a later `wake`
                // writes again (model `breaks_are_not_lost`).
                batch.has_interrupt = self.breaking.swap(false, Ordering::SeqCst);
            }
            let now = clock::now();
            table.report(batch, most.max(1), now);
            if batch.has_interrupt || !batch.events.is_empty() || until.is_some_and(|until| now >= until) {
                return;
            }
        }
    }

    fn wake(&self) {
        // ORDERING: SeqCst: the swap comes after the caller has published its work, and before the
        // caller relies on the end of the wait.
        if !self.breaking.swap(true, Ordering::SeqCst) {
            self.write();
        }
    }

    fn owns(&self, fd: RawFd) -> bool {
        fd == self.reader.as_raw_fd() || fd == self.writer.as_raw_fd()
    }
}

#[cfg(test)]
#[path = "poll_tests.rs"]
mod tests;

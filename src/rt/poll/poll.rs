//! poll(2): a back end for systems whose poll(2) reports a half-close. It turns levels into edges.
//!
//! The contract is in [`backend`](crate::rt::poll::backend). The other back ends are `epoll.rs` and
//! `kqueue.rs`. This one is used if it is selected by name, or if the system has no better one. The
//! time that a wait takes is proportional to the number of descriptors.
//!
//! # Edges
//! A level that was reported is marked `told`, and is not requested again until an operation
//! [arms](crate::rt::poll::backend::BackEnd::ARMS) its direction right before it waits. poll(2) always
//! reports hang-ups and errors, so a descriptor that has reported one is left out of the call until
//! it is armed. An error or urgent data may persist, such as a message in the error queue.
//! Reporting it again at once would make a busy loop, so it is reported again after
//! [`QUIET_NANOS`]. A call of the user that fails with EAGAIN although there is data, because it
//! wants more, is woken at once again: the level has not changed.
//!
//! # Close
//! poll(2) holds a reference to the open files it waits for. `delete` breaks the wait and returns
//! after poll(2) has returned. Otherwise the peer would not see the close, and the port would stay
//! in use.
//!
//! # Handling of errors (poll(2))
//! | errno | outcome |
//! |---|---|
//! | EINTR | an empty batch; the caller checks the clock again |
//! | EAGAIN, ENOMEM, EINVAL | a pause of a millisecond and an empty batch |
//! | POLLNVAL | other code closed the descriptor: an error in both directions, and the descriptor is removed |
//!
//! EINVAL means more descriptors than RLIMIT_NOFILE. `add` refuses these with `QuotaExceeded`. If
//! the limit was lowered later, a request has a part of the descriptors and waits for a millisecond
//! at most, so EINVAL occurs only if the limit is lowered between the check and the call.

use std::collections::HashMap;
use std::io;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use libc::c_short;

use crate::rt::poll::backend::{self, BackEnd, Event, State, Token, not_pollable};
use crate::rt::time::clock;
use crate::sync::{AtomicBool, Condvar, Mutex, MutexGuard, Ordering};
use crate::sys;
use crate::sys::fd::File;

/// The time after which an error or urgent data that persists is reported again.
const QUIET_NANOS: u64 = 1_000_000;

/// The text of the error of a descriptor above poll(2)'s limit.
const TOO_MANY: &str = "too many descriptors for poll(2), which accepts no more than RLIMIT_NOFILE";

/// The levels that poll(2) reports even if they are not requested.
const ALWAYS: c_short = libc::POLLERR | libc::POLLHUP | libc::POLLNVAL;

/// The levels that may persist after they were reported.
const LASTING: c_short = ALWAYS | libc::POLLPRI;

/// A registered descriptor.
#[derive(Debug)]
struct Entry {
    fd: RawFd,
    generation: u32,
    /// The identity of the open file, as far as fstat(2) can tell.
    file: File,
    /// Levels that were reported and have not been armed since.
    told: c_short,
    /// Levels that were armed too early; they may be reported again from `quiet_until` on.
    later: c_short,
    quiet_until: u64,
}

#[derive(Debug, Default)]
struct Table {
    /// Entries by the index of their token.
    entries: HashMap<u32, Entry>,
    indices: HashMap<RawFd, u32>,
    /// Whether a thread is in poll(2) and its wait has not been broken.
    sleeps: bool,
    /// The number of calls of poll(2) that have returned.
    returns: u64,
    is_asleep: bool,
}

/// The back end; see the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Poll {
    half_closed: c_short,
    reader: PipeReader,
    writer: PipeWriter,
    /// Whether `wake` has written to the pipe and no wait has consumed it.
    breaking: AtomicBool,
    table: Mutex<Table>,
    /// Notified when poll(2) has returned.
    returned: Condvar,
}

/// A buffer for a batch of events.
pub(crate) struct Batch {
    entries: Vec<libc::pollfd>,
    /// The index of each entry except the first, which is the breaker.
    indices: Vec<u32>,
    events: Vec<Event>,
    is_broken: bool,
    /// The position at which the next request begins, so that every descriptor is polled in turn.
    start: usize,
}

impl backend::Batch for Batch {
    fn new() -> Batch {
        Batch { entries: Vec::new(), indices: Vec::new(), events: Vec::new(), is_broken: false, start: 0 }
    }

    fn events(&self) -> impl Iterator<Item = Event> + '_ {
        self.events.iter().copied()
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.events.is_empty() && !self.is_broken
    }
}

impl Entry {
    /// Returns the levels to request at `now`, or `None` if the descriptor is left out.
    fn question(&mut self, now: u64, half_closed: c_short) -> Option<c_short> {
        if self.later != 0 && now >= self.quiet_until {
            self.told &= !self.later;
            self.later = 0;
        }
        let all = libc::POLLIN | libc::POLLOUT | libc::POLLPRI | half_closed;
        (self.told & ALWAYS == 0).then_some(all & !self.told)
    }

    /// Handles the answer of poll(2) at `now`. Returns an event if there is anything new to report.
    fn answer(&mut self, index: u32, levels: c_short, now: u64, half_closed: c_short) -> Option<Event> {
        let new = levels & !self.told;
        if new == 0 {
            return None;
        }
        self.told |= new;
        if new & LASTING != 0 {
            self.quiet_until = now.saturating_add(QUIET_NANOS);
        }
        let has = |level| new & level != 0;
        let state = State {
            input: has(libc::POLLIN),
            output: has(libc::POLLOUT),
            priority: has(libc::POLLPRI),
            half_closed: has(half_closed),
            hung_up: has(libc::POLLHUP),
            failed: has(libc::POLLERR | libc::POLLNVAL),
        };
        Some(Event::new(Token { index, generation: self.generation }, state))
    }

    fn arm(&mut self, read: bool, write: bool, now: u64, half_closed: c_short) {
        let mut levels = ALWAYS;
        if read {
            levels |= libc::POLLIN | libc::POLLPRI | half_closed;
        }
        if write {
            levels |= libc::POLLOUT;
        }
        let too_soon = if now < self.quiet_until { levels & self.told & LASTING } else { 0 };
        self.later |= too_soon;
        self.told &= !levels | too_soon;
    }
}

impl Table {
    fn remove(&mut self, fd: RawFd) -> bool {
        let Some(index) = self.indices.remove(&fd) else { return false };
        // The slot may belong to another descriptor by now.
        if self.entries.get(&index).is_some_and(|entry| entry.fd == fd) {
            self.entries.remove(&index);
        }
        true
    }

    /// Writes up to `room` requests into `batch`, beginning with another descriptor each time.
    /// Returns the earliest time at which a withheld level may be requested again, if any.
    fn ask(&mut self, batch: &mut Batch, room: usize, half_closed: c_short) -> Option<u64> {
        let now = clock::now();
        batch.entries.truncate(1);
        batch.indices.clear();
        let mut wait_until = None;
        for (&index, entry) in &mut self.entries {
            if let Some(events) = entry.question(now, half_closed) {
                batch.entries.push(libc::pollfd { fd: entry.fd, events, revents: 0 });
                batch.indices.push(index);
            }
            if entry.later != 0 {
                wait_until = Some(wait_until.map_or(entry.quiet_until, |at: u64| at.min(entry.quiet_until)));
            }
        }
        if !batch.indices.is_empty() {
            let first = batch.start % batch.indices.len();
            batch.entries[1..].rotate_left(first);
            batch.indices.rotate_left(first);
        }
        batch.indices.truncate(room);
        batch.entries.truncate(room.saturating_add(1));
        wait_until
    }
}

impl Poll {
    /// Opens an instance for a system whose poll(2) reports by `half_closed` that a peer will send
    /// no more data.
    fn with(half_closed: Option<c_short>) -> io::Result<Poll> {
        let half_closed = half_closed.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::Unsupported,
                "poll(2) of this system does not report that a peer has ended its sending (POLLRDHUP)",
            )
        })?;
        let (reader, writer) = io::pipe()?;
        sys::socket::set_nonblocking(reader.as_fd(), true)?;
        sys::socket::set_nonblocking(writer.as_fd(), true)?;
        let (breaking, table) = (AtomicBool::new(false), Mutex::new(Table::default()));
        Ok(Poll { half_closed, reader, writer, breaking, table, returned: Condvar::new() })
    }

    /// Makes a thread in poll(2) rebuild its request, because the table has changed.
    fn break_sleep(&self, table: &mut Table) {
        if table.sleeps {
            table.sleeps = false;
            self.write();
        }
    }

    /// Makes the breaker readable. If the pipe is full, it already is.
    fn write(&self) {
        while (&self.writer).write(&[1]).is_err_and(|error| error.kind() == io::ErrorKind::Interrupted) {}
    }

    fn drain(&self) {
        let mut buf = [0; 64];
        while matches!((&self.reader).read(&mut buf), Ok(count) if count == buf.len()) {}
    }

    /// Collects up to `most` events from the answers in `batch`.
    fn collect(&self, table: &mut Table, batch: &mut Batch, most: usize) {
        let now = clock::now();
        batch.start = batch.start.wrapping_add(1);
        for (polled, &index) in batch.entries[1..].iter().zip(&batch.indices) {
            if polled.revents == 0 {
                continue;
            }
            if batch.events.len() == most {
                break;
            }
            // Another descriptor may have the slot or the number by now. The next wait requests it.
            let Some(entry) = table.entries.get_mut(&index).filter(|entry| entry.fd == polled.fd) else { continue };
            batch.events.extend(entry.answer(index, polled.revents, now, self.half_closed));
            if polled.revents & libc::POLLNVAL != 0 {
                table.remove(polled.fd);
            }
        }
    }

    /// Calls poll(2) once. Returns whether the wait ends before its timeout.
    fn poll<'a>(
        &'a self,
        mut table: MutexGuard<'a, Table>,
        batch: &mut Batch,
        most: usize,
        limit: Option<u64>,
    ) -> (MutexGuard<'a, Table>, bool) {
        (table.sleeps, table.is_asleep) = (true, true);
        drop(table);
        let result = sys::os::poll(&mut batch.entries, limit);
        let mut table = self.table.lock();
        (table.sleeps, table.is_asleep) = (false, false);
        table.returns = table.returns.wrapping_add(1);
        self.returned.notify_all();
        match result {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return (table, true),
            Err(_) => {
                drop(table);
                std::thread::sleep(Duration::from_millis(1));
                return (self.table.lock(), true);
            }
        }
        if batch.entries[0].revents != 0 {
            self.drain();
            // ORDERING: SeqCst, before the caller checks the queues again: a later `wake` writes
            // again.
            batch.is_broken = self.breaking.swap(false, Ordering::SeqCst);
        }
        self.collect(&mut table, batch, most);
        let is_over = batch.is_broken || !batch.events.is_empty();
        (table, is_over)
    }
}

impl BackEnd for Poll {
    const NAME: &'static str = "poll";
    const ARMS: bool = true;
    type Batch = Batch;

    fn open() -> io::Result<Poll> {
        Poll::with(sys::os::POLL_HALF_CLOSED)
    }

    fn add(&self, fd: BorrowedFd<'_>, token: Token, is_first: bool) -> io::Result<()> {
        let file = File::of(fd)?;
        if !file.is_pollable() {
            return Err(not_pollable(Self::NAME));
        }
        let mut table = self.table.lock();
        let (number, Token { index, generation }) = (fd.as_raw_fd(), token);
        if let Some(known) = table.indices.get(&number).and_then(|index| table.entries.get(index)) {
            if is_first && known.file == file {
                return Err(io::Error::from_raw_os_error(libc::EEXIST));
            }
        } else if table.entries.len() as u64 + 1 >= sys::fd::limit() {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, TOO_MANY));
        }
        table.remove(number);
        table.indices.insert(number, index);
        table.entries.insert(index, Entry { fd: number, generation, file, told: 0, later: 0, quiet_until: 0 });
        self.break_sleep(&mut table);
        Ok(())
    }

    fn delete(&self, fd: BorrowedFd<'_>) {
        let mut table = self.table.lock();
        if !table.remove(fd.as_raw_fd()) || !table.is_asleep {
            return;
        }
        self.break_sleep(&mut table);
        let returns = table.returns;
        while table.is_asleep && table.returns == returns {
            table = self.returned.wait(table);
        }
    }

    fn arm(&self, token: Token, read: bool, write: bool) {
        let mut table = self.table.lock();
        let Some(entry) = table.entries.get_mut(&token.index) else { return };
        if entry.generation == token.generation {
            let told = (entry.told, entry.later);
            entry.arm(read, write, clock::now(), self.half_closed);
            if told != (entry.told, entry.later) {
                self.break_sleep(&mut table);
            }
        }
    }

    fn wait(&self, batch: &mut Batch, most: usize, timeout: Option<u64>) {
        let until = timeout.map(|nanos| clock::now().saturating_add(nanos));
        batch.events.clear();
        batch.is_broken = false;
        if batch.entries.is_empty() {
            batch.entries.push(libc::pollfd { fd: self.reader.as_raw_fd(), events: libc::POLLIN, revents: 0 });
        }
        batch.entries[0].fd = self.reader.as_raw_fd();
        let mut table = self.table.lock();
        loop {
            // The breaker takes one place. If the limit was lowered, the rest is left for the next
            // call.
            let room = usize::try_from(sys::fd::limit()).unwrap_or(usize::MAX).saturating_sub(1);
            let quiet_until = table.ask(batch, room, self.half_closed);
            let now = clock::now();
            let left = |at: u64| at.saturating_sub(now);
            let mut limit = until.map(left);
            if let Some(at) = quiet_until {
                limit = Some(limit.map_or(left(at), |limit| limit.min(left(at))));
            }
            if room < table.entries.len() {
                limit = Some(limit.map_or(QUIET_NANOS, |limit| limit.min(QUIET_NANOS)));
            }
            let (after, is_over) = self.poll(table, batch, most.max(1), limit);
            if is_over || until.is_some_and(|until| clock::now() >= until) {
                return;
            }
            table = after;
        }
    }

    fn wake(&self) {
        // ORDERING: SeqCst: the swap comes after the caller made its work visible, and before the
        // caller relies on the wait ending.
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

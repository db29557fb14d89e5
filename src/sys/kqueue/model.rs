//! A model of kqueue(2) for unit tests on Linux, written from the manual pages of FreeBSD 14 and
//! macOS.
//!
//! The model has the filters READ and WRITE, on real descriptors, and USER. An edge-triggered epoll
//! instance, whose descriptor is that of the queue, activates READ and WRITE. When an event of READ
//! or WRITE is taken, the model checks the condition again, as a kernel does. It checks conditions
//! with poll(2). Constants have FreeBSD's values.
//!
//! | item | behaviour in the manual pages |
//! |---|---|
//! | EV_ADD | Adds or modifies the filter, and checks the condition in either case. Flags that are not passed again are lost. |
//! | EV_DELETE | Fails with ENOENT if there is no such filter. Closing the descriptor also deletes the filter. |
//! | EV_CLEAR | The filter is inactive after the event is taken, until the state changes again. |
//! | EV_ONESHOT, EV_DISPATCH | The filter is deleted, or disabled, after the event is taken. |
//! | EV_DISABLE, EV_ENABLE | Disables or enables the filter, and replaces `udata`. Fails with ENOENT if there is no such filter. No event of a disabled filter is taken. |
//! | EV_RECEIPT | Every change returns EV_ERROR with an errno or 0, and no event is taken. |
//! | EV_ERROR | Reports a failed change, if there is room. Otherwise the call fails. |
//! | EV_EOF | READ: the peer sends no more data, and `data` bytes may be left. WRITE: the peer accepts no more data, or the reader of a pipe is closed. `fflags` is the socket's error. |
//! | NOTE_TRIGGER | Activates USER. |
//! | EINTR | The changes have been applied (see [`interrupt_next_change`]). |
//!
//! The model differs from a kernel mainly in `fflags` and `data`. A kernel stores the error itself
//! in `fflags`, but poll(2) reports only that there is an error, so the model stores ECONNRESET. In
//! the model, `data` is 0 for WRITE and for a listener. As in FreeBSD, an error that does not end
//! the connection, such as an error of a datagram, only activates the filters.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use libc::c_int;

pub(crate) const EVFILT_READ: i16 = -1;
pub(crate) const EVFILT_WRITE: i16 = -2;
pub(crate) const EVFILT_USER: i16 = -11;
pub(crate) const EV_ADD: u16 = 0x1;
pub(crate) const EV_DELETE: u16 = 0x2;
pub(crate) const EV_ENABLE: u16 = 0x4;
pub(crate) const EV_DISABLE: u16 = 0x8;
pub(crate) const EV_ONESHOT: u16 = 0x10;
pub(crate) const EV_CLEAR: u16 = 0x20;
pub(crate) const EV_RECEIPT: u16 = 0x40;
pub(crate) const EV_DISPATCH: u16 = 0x80;
pub(crate) const EV_ERROR: u16 = 0x4000;
pub(crate) const EV_EOF: u16 = 0x8000;
pub(crate) const NOTE_TRIGGER: u32 = 0x0100_0000;

/// The flags of EV_ADD that a filter keeps.
const KEPT: u16 = EV_CLEAR | EV_ONESHOT | EV_DISPATCH;

/// `struct kevent`, with the fields of macOS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Kevent {
    pub(crate) ident: usize,
    pub(crate) filter: i16,
    pub(crate) flags: u16,
    pub(crate) fflags: u32,
    pub(crate) data: isize,
    pub(crate) udata: *mut c_void,
}

// SAFETY: `udata` is used as a number and is never dereferenced.
unsafe impl Send for Kevent {}
// SAFETY: as above.
unsafe impl Sync for Kevent {}

#[derive(Debug)]
struct Knote {
    flags: u16,
    udata: usize,
    is_active: bool,
    is_disabled: bool,
}

#[derive(Debug)]
struct Queue {
    knotes: BTreeMap<(usize, i16), Knote>,
    /// An eventfd that ends the epoll_wait(2) of another thread after each change other than a
    /// deletion.
    bell: OwnedFd,
}

type Shared = Arc<Mutex<Queue>>;

static QUEUES: LazyLock<Mutex<HashMap<RawFd, Shared>>> = LazyLock::new(Mutex::default);

const BELL: u64 = u64::MAX;

thread_local! {
    static INTERRUPTS: Cell<bool> = const { Cell::new(false) };
}

/// Makes the calling thread's next call with changes fail with EINTR after it has applied them.
/// Returns true, because the model supports this.
pub(crate) fn interrupt_next_change() -> bool {
    INTERRUPTS.set(true);
    true
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn owned(number: c_int) -> io::Result<OwnedFd> {
    // SAFETY: the kernel has just returned this descriptor, and it has no other owner.
    if number < 0 { Err(io::Error::last_os_error()) } else { Ok(unsafe { OwnedFd::from_raw_fd(number) }) }
}

fn watch(epoll: RawFd, fd: RawFd, events: c_int, data: u64) -> Result<(), i32> {
    let mut event = libc::epoll_event { events: events as u32, u64: data };
    // SAFETY: `event` is valid for the call.
    let result = unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event) };
    if result < 0 { Err(errno()) } else { Ok(()) }
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// Opens a queue (kqueue(2)).
pub(crate) fn kqueue() -> io::Result<OwnedFd> {
    // SAFETY: no pointer is passed.
    let queue = owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    // SAFETY: no pointer is passed.
    let bell = owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
    watch(queue.as_raw_fd(), bell.as_raw_fd(), libc::EPOLLIN | libc::EPOLLET, BELL)
        .map_err(io::Error::from_raw_os_error)?;
    let state = Queue { knotes: BTreeMap::new(), bell };
    locked(&QUEUES).insert(queue.as_raw_fd(), Arc::new(Mutex::new(state)));
    Ok(queue)
}

/// Returns the state of a descriptor from poll(2).
fn levels(fd: RawFd) -> c_int {
    let events = libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP;
    let mut entry = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: there is one entry, which is valid during the call.
    unsafe { libc::poll(&raw mut entry, 1, 0) };
    entry.revents.into()
}

fn is_fifo(fd: RawFd) -> bool {
    // SAFETY: all zeroes is a valid value of this plain struct.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `status` is valid for writes during the call.
    let result = unsafe { libc::fstat(fd, &raw mut status) };
    result == 0 && status.st_mode & libc::S_IFMT == libc::S_IFIFO
}

/// Returns the flags, fflags and data of a filter's event, or `None` if the filter's condition does
/// not hold.
fn condition(ident: usize, filter: i16) -> Option<(u16, u32, isize)> {
    let fd = ident as RawFd;
    let levels = levels(fd);
    let has = |level: i16| levels & c_int::from(level) != 0;
    // POLLERR on the write end of a pipe means that the reader is closed. It is not a socket error.
    let is_broken_pipe = has(libc::POLLERR) && !has(libc::POLLHUP) && is_fifo(fd);
    let is_over = has(libc::POLLHUP) || is_broken_pipe;
    let error = if is_over && has(libc::POLLERR) && !is_broken_pipe { libc::ECONNRESET as u32 } else { 0 };
    let eof = |is_eof| if is_eof { EV_EOF } else { 0 };
    if filter == EVFILT_WRITE {
        let holds = is_over || has(libc::POLLOUT | libc::POLLERR);
        return holds.then_some((eof(is_over), error, 0));
    }
    if !is_over && !has(libc::POLLIN | libc::POLLRDHUP | libc::POLLERR) {
        return None;
    }
    let mut bytes: c_int = 0;
    // SAFETY: FIONREAD writes an int. It fails on a listener, which has no bytes.
    unsafe { libc::ioctl(fd, libc::FIONREAD, &raw mut bytes) };
    Some((eof(is_over || has(libc::POLLRDHUP)), error, bytes as isize))
}

impl Queue {
    fn change(&mut self, epoll: RawFd, change: &Kevent) -> Result<(), i32> {
        let key = (change.ident, change.filter);
        if change.flags & EV_DELETE != 0 {
            return self.knotes.remove(&key).map(drop).ok_or(libc::ENOENT);
        }
        if ![EVFILT_READ, EVFILT_WRITE, EVFILT_USER].contains(&change.filter) {
            return Err(libc::EINVAL);
        }
        if change.filter != EVFILT_USER {
            let events = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
            match watch(epoll, change.ident as RawFd, events, change.ident as u64) {
                // The descriptor is new to epoll, so an earlier descriptor with this number was
                // closed.
                Ok(()) => self.knotes.retain(|&(ident, filter), _| ident != change.ident || filter == EVFILT_USER),
                Err(libc::EEXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
        if change.flags & EV_ADD != 0 {
            let new = Knote { flags: 0, udata: 0, is_active: false, is_disabled: false };
            let knote = self.knotes.entry(key).or_insert(new);
            knote.flags = change.flags & KEPT;
            knote.is_active |= change.filter != EVFILT_USER && condition(change.ident, change.filter).is_some();
        }
        let knote = self.knotes.get_mut(&key).ok_or(libc::ENOENT)?;
        knote.udata = change.udata as usize;
        if change.flags & EV_DISABLE != 0 {
            knote.is_disabled = true;
        }
        if change.flags & EV_ENABLE != 0 {
            knote.is_disabled = false;
        }
        if change.filter == EVFILT_USER && change.fflags & NOTE_TRIGGER != 0 {
            knote.is_active = true;
        }
        self.ring();
        Ok(())
    }

    fn ring(&self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: the buffer has eight bytes, as eventfd(2) requires.
        unsafe { libc::write(self.bell.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Takes the events that are available, and returns their number.
    fn take(&mut self, events: &mut [Kevent]) -> usize {
        let mut count = 0;
        let mut gone = Vec::new();
        for (&(ident, filter), knote) in &mut self.knotes {
            if count == events.len() {
                break;
            }
            if !knote.is_active || knote.is_disabled {
                continue;
            }
            let state = if filter == EVFILT_USER { Some((0, 0, 0)) } else { condition(ident, filter) };
            let Some((flags, fflags, data)) = state else {
                knote.is_active = false;
                continue;
            };
            let flags = flags | knote.flags;
            events[count] = Kevent { ident, filter, flags, fflags, data, udata: knote.udata as *mut c_void };
            count += 1;
            knote.is_active &= knote.flags & EV_CLEAR == 0;
            knote.is_disabled |= knote.flags & EV_DISPATCH != 0;
            if knote.flags & EV_ONESHOT != 0 {
                gone.push((ident, filter));
            }
        }
        self.knotes.retain(|key, _| !gone.contains(key));
        count
    }

    /// Activates the filters of `ident` whose condition holds. Called after the state of `ident`
    /// has changed.
    fn activate(&mut self, ident: usize) {
        for filter in [EVFILT_READ, EVFILT_WRITE] {
            if let Some(knote) = self.knotes.get_mut(&(ident, filter)) {
                knote.is_active |= condition(ident, filter).is_some();
            }
        }
    }
}

/// Applies changes and takes events (kevent(2)).
pub(crate) fn kevent(
    queue: BorrowedFd<'_>,
    changes: &[Kevent],
    events: &mut [Kevent],
    timeout: Option<u64>,
) -> io::Result<usize> {
    let epoll = queue.as_raw_fd();
    let Some(state) = locked(&QUEUES).get(&epoll).cloned() else {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    };
    let mut answers = 0;
    for change in changes {
        let result = locked(&state).change(epoll, change);
        let errno = result.err().unwrap_or(0);
        if errno == 0 && change.flags & EV_RECEIPT == 0 {
            continue;
        }
        let Some(room) = events.get_mut(answers) else {
            return Err(io::Error::from_raw_os_error(errno));
        };
        *room = Kevent { flags: change.flags | EV_ERROR, data: errno as isize, ..*change };
        answers += 1;
    }
    if !changes.is_empty() && INTERRUPTS.take() {
        return Err(io::Error::from_raw_os_error(libc::EINTR));
    }
    if answers > 0 || events.is_empty() {
        return Ok(answers);
    }
    let until = timeout.map(|nanos| Instant::now() + Duration::from_nanos(nanos.min(1 << 60)));
    let mut raw = [libc::epoll_event { events: 0, u64: 0 }; 64];
    let mut is_late = false;
    loop {
        // The first round does not wait, because events may be available already.
        for limit in [Some(0), until.map(|until| until.saturating_duration_since(Instant::now()).as_nanos())] {
            // SAFETY: the buffer has room for that many events.
            let ready = unsafe {
                let millis = limit.map_or(-1, |nanos| nanos.div_ceil(1_000_000).min(i32::MAX as u128) as c_int);
                libc::epoll_wait(epoll, raw.as_mut_ptr(), raw.len() as c_int, millis)
            };
            let ready = usize::try_from(ready).map_err(|_| io::Error::last_os_error())?;
            let mut state = locked(&state);
            raw[..ready].iter().filter(|raw| raw.u64 != BELL).for_each(|raw| state.activate(raw.u64 as usize));
            let count = state.take(events);
            if count > 0 {
                return Ok(count);
            }
        }
        if is_late {
            return Ok(0);
        }
        is_late = until.is_some_and(|until| Instant::now() >= until);
    }
}

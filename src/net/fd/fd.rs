//! [`Fd`]: a descriptor with its lock and its poll handle, and the close protocol.
//!
//! This is the counterpart of Go's `internal/poll.FD`. [`operation`](super::operation) makes the
//! system calls and waits.
//!
//! # States
//! *open* → (`begin_close`: no operation begins, all waiters are woken) → *closing*, while calls
//! are in progress → (the last reference is dropped) → *destroyed*: the descriptor is removed from
//! the poller, and its number is closed, or passed to a thread that closes it (F2) or to the task
//! that sends the last gathered bytes ([`Fd::finish_gathered`]). A lent number stays open.
//! [`Fd::take`] begins the close, but gives the number away.
//!
//! # Invariants
//! * 1 — the number is used only under a reference, and closed once, after the last reference is
//!   dropped. No reference is held during a wait, so a close never waits for a future that is not
//!   polled. Gathered writes may be sent under the lock of the [`Gathering`] instead, which is
//!   marked as gone before the number is closed. If the number was handed out ([`Fd::hand_out`]),
//!   an explicit close keeps it in use, without the socket, until the last handle and the last
//!   [`Closed`] future are dropped (see [`closing`](super::closing)).
//! * F1 — the generation changes before the number is closed, so that no event is attributed to
//!   another owner of the number. A lent number (`AsyncFd`) is not closed. It is removed from the
//!   poller explicitly, before its owner may close it.
//! * F2 — close(2) does not block a worker. With SO_LINGER set to a time other than zero, close(2)
//!   waits, so it runs on a separate thread pool (on a worker only while the system refuses to
//!   create threads). If the runtime is not running and the close is not explicit, or if a shutdown
//!   drops the pool's job, the option is cleared first. The option is read from the socket if it
//!   may have been set: through this handle, by the owner of a duplicate, or on the listener, from
//!   which a connection inherits it.
//! * F3 — memory that the kernel still reads after the calls have returned ([`Loans`]) is recalled
//!   after the last call and before close(2). A forked child recalls nothing.
//!
//! # Exposed descriptors
//! A descriptor that came from outside, or that was handed out (`as_fd`, `control`), may have
//! duplicates, in this process or in another one. They keep the socket open after the close, and
//! their owners can change its options. So nothing is assumed about an exposed socket: it is
//! removed from the poller explicitly, SO_LINGER is checked, O_NONBLOCK is set again before calls
//! without MSG_DONTWAIT, a short count is not evidence that the next call would wait (kTLS ends a
//! call at a record), and no send lends memory to the kernel. The flag `EXPOSED` is never cleared.
//!
//! # Cancellation
//! If a [`Closed`] future is dropped, the close completes by itself.
//!
//! # Compared with Go (internal/poll/fd_unix.go)
//! The order is nearly the same: mark as closed, take the waiters of the lock and of the poller,
//! drop the closer's reference, wait until the descriptor is destroyed. Go wakes the waiters before
//! it drops the reference; here they are woken after that, because a waker may block. A second
//! close is not an error: it waits for the end of the first close. As in Go, close(2) is not
//! repeated after EINTR.

use std::any::Any;
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, fence};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use socket2::{Domain, Protocol, Type};

use super::closing::{self, Closing, Gone, Guard, Loans};
use super::cork::Gathering;
use super::fast_open::FastOpen;
use super::fd_mutex::FdMutex;
use crate::rt::context;
use crate::rt::fork;
use crate::rt::lazy_box::LazyBox;
use crate::rt::poll::poller::{self, Direction, Failure, PollHandle};
use crate::rt::poll::timeouts::Timeouts;
use crate::rt::sched::task::{contain, spawn_close};
use crate::sync::{Arc, Mutex, Ordering};
use crate::sys::{self, os, placeholder, socket, unix};
use crate::trace;

/// A descriptor with its lock and its poll handle; see the [module documentation](self). Fields
/// that every call uses come first, to share cache lines.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Fd {
    pub(crate) poll: PollHandle,
    number: RawFd,
    /// A combination of [`LENT`] and the constants after it.
    flags: AtomicU8,
    /// The number of consecutive waits per direction that ended as
    /// [`short_wait`](super::short_wait) requires. The count stops at `WAITS_MIN`.
    pub(super) waits: [AtomicU8; 2],
    /// The index of the listener's evidence for `short_wait`; 0 if this is not an accepted plain
    /// TCP connection (see [`PLAIN_TCP`]), and in a simulation.
    pub(super) origin: u8,
    pub(crate) timeouts: Timeouts,
    pub(crate) mutex: FdMutex,
    pub(super) rare: LazyBox<Rare>,
}

/// The number has another owner, so the close leaves it open.
const LENT: u8 = 1;
/// The socket is TCP but not multipath TCP. On Linux, a short count is then evidence, unless the
/// socket is exposed.
const PLAIN_TCP: u8 = 1 << 1;
/// The descriptor may have duplicates.
const EXPOSED: u8 = 1 << 2;
/// SO_LINGER may be set.
const LINGERS: u8 = 1 << 3;
/// Receiving was shut down through this handle.
const RECEIVING_SHUT: u8 = 1 << 4;
/// Writes must be gathered. On a listener, this applies to its connections. A new connection
/// gathers no writes before it is in its owner ([`Gathers`](super::flusher::Gathers)).
const WANTS_GATHERING: u8 = 1 << 5;
/// The number was handed out. It may be used as long as a handle exists, so an explicit close must
/// keep it in use.
const HANDED_OUT: u8 = 1 << 6;
/// Sending was shut down through this handle. Writes fail, although gathered bytes may be left.
const SENDING_SHUT: u8 = 1 << 7;

/// State that only a few descriptors need.
#[derive(Debug, Default)]
pub(super) struct Rare {
    guard: Mutex<Option<Box<dyn Guard>>>,
    /// The completion of the close, created by the first explicit close or set by
    /// [`Fd::keep_number`].
    gone: OnceLock<Arc<Gone>>,
    fast_open: FastOpen,
    loans: OnceLock<Arc<dyn Loans>>,
    gathering: OnceLock<std::sync::Arc<Gathering>>,
    /// The errno of an error that [`Fd::take_error`] took from the socket and that neither a read
    /// nor [`Fd::report_error`] has returned yet.
    taken_error: Mutex<Option<i32>>,
}

/// Calls socket(2). If the runtime is running, fails if the poller cannot be opened, because the
/// first wait would fail.
pub(crate) fn open(domain: Domain, ty: Type, protocol: Option<Protocol>) -> io::Result<OwnedFd> {
    poller::prepare()?;
    socket::socket(domain, ty, protocol)
}

/// Calls socketpair(2). Fails if the poller cannot be opened, as [`open`] does.
pub(crate) fn open_pair(ty: Type) -> io::Result<(OwnedFd, OwnedFd)> {
    poller::prepare()?;
    unix::pair(ty)
}

#[allow(unsafe_code)]
impl Fd {
    /// Takes ownership of a non-blocking descriptor.
    ///
    /// # Errors
    /// Returns the error of [`PollHandle::open`]; the descriptor is then closed.
    pub(crate) fn new(fd: OwnedFd, is_plain_tcp: bool) -> io::Result<Fd> {
        Fd::try_new(fd, is_plain_tcp).map_err(|(error, _fd)| error)
    }

    /// Takes ownership of a non-blocking descriptor, or returns it with the error of
    /// [`new`](Fd::new).
    pub(super) fn try_new(fd: OwnedFd, is_plain_tcp: bool) -> Result<Fd, (io::Error, OwnedFd)> {
        match PollHandle::open() {
            Ok(poll) => Ok(Fd::around(poll, fd.into_raw_fd(), if is_plain_tcp { PLAIN_TCP } else { 0 })),
            Err(error) => Err((error, fd)),
        }
    }

    /// Borrows a non-blocking descriptor. Its owner must keep it open for the lifetime of the `Fd`.
    ///
    /// # Errors
    /// Returns the error of [`PollHandle::open`].
    pub(crate) fn lent(fd: BorrowedFd<'_>) -> io::Result<Fd> {
        Ok(Fd::around(PollHandle::open()?, fd.as_raw_fd(), LENT))
    }

    fn around(mut poll: PollHandle, number: RawFd, flags: u8) -> Fd {
        poll.describe(number, flags & PLAIN_TCP != 0);
        Fd {
            poll,
            number,
            flags: AtomicU8::new(flags),
            waits: [AtomicU8::new(0), AtomicU8::new(0)],
            origin: 0,
            timeouts: Timeouts::default(),
            mutex: FdMutex::new(),
            rare: LazyBox::new(),
        }
    }

    /// Makes the close keep the number in `gone`.
    pub(super) fn keep_number(&self, gone: Arc<Gone>) {
        self.flags.fetch_or(EXPOSED | HANDED_OUT, Ordering::Relaxed);
        let _ = self.rare.get_or_default().gone.set(gone);
    }

    /// Keeps `guard` until the number is closed or given away. Replaces all [`Rare`] state, so
    /// there must be none.
    pub(crate) fn hold(&mut self, guard: impl Guard + 'static) {
        self.rare = LazyBox::from(Rare { guard: Mutex::new(Some(Box::new(guard))), ..Rare::default() });
    }

    /// Returns the descriptor. The caller must hold a reference.
    #[inline]
    pub(crate) fn borrow(&self) -> BorrowedFd<'_> {
        // SAFETY: the number belongs to this `Fd` (or, if lent, to its owner) until `destroy`
        // closes it, after the last reference is dropped, or `take` gives it away. Callers hold a
        // reference, use a new `Fd`, or are steps of these two. `hand_out` passes the number to
        // users, after it has set HANDED_OUT: from then on, `destroy` keeps the number in use until
        // this `Fd` is dropped, and `take` consumes the `Fd`, so no borrow is left.
        unsafe { BorrowedFd::borrow_raw(self.number) }
    }

    /// Returns the descriptor for code that may do anything with it for as long as this handle is
    /// borrowed, and [exposes](Fd::expose) it. After an explicit close, calls on the result fail.
    /// If the number was handed out before the close, the result still has this number.
    pub(crate) fn hand_out(&self) -> BorrowedFd<'_> {
        self.expose();
        // If a reference is granted, `destroy` runs later and sees the flag. Otherwise the close
        // has begun.
        if self.mutex.incref().is_err() {
            return if self.has(HANDED_OUT) { self.borrow() } else { placeholder::closed() };
        }
        if !self.has(HANDED_OUT) {
            self.flags.fetch_or(HANDED_OUT, Ordering::Relaxed);
        }
        // The close needs the placeholder. If it cannot be opened now, the close tries again.
        let _ = placeholder::get();
        if self.mutex.decref() {
            self.destroy();
        }
        self.borrow()
    }

    /// Marks the descriptor as exposed. Called when other code gets the descriptor or may have a
    /// duplicate of it. Sends gathered bytes first, without waiting. From here on, no memory is
    /// lent to the kernel.
    pub(crate) fn expose(&self) {
        self.flush_gathered();
        if !self.is_exposed() {
            self.flags.fetch_or(EXPOSED, Ordering::Relaxed);
        }
        // ORDERING: pairs with the fence in `loans`.
        fence(Ordering::SeqCst);
        if let Some(loans) = self.loans_if_any() {
            loans.end();
        }
    }

    #[inline]
    fn has(&self, flags: u8) -> bool {
        // ORDERING: Relaxed: a flag guards no other memory. `expose` and `loans` order EXPOSED with
        // fences.
        self.flags.load(Ordering::Relaxed) & flags != 0
    }

    pub(crate) fn is_exposed(&self) -> bool {
        self.has(EXPOSED)
    }

    /// Returns whether another handle may register the number after a restart of the runtime.
    /// Always false in a simulation, whose registrations do not depend on the runtime.
    pub(super) fn may_be_shared(&self) -> bool {
        #[cfg(feature = "sim")]
        if crate::sim::simulates() {
            return false;
        }
        self.has(LENT)
    }

    pub(crate) fn is_plain_tcp(&self) -> bool {
        self.has(PLAIN_TCP)
    }

    /// Returns whether a short count means that the next call would wait.
    #[inline]
    pub(crate) fn trusts_short_counts(&self) -> bool {
        os::SHORT_COUNTS_ARE_EVIDENCE && self.flags.load(Ordering::Relaxed) & (PLAIN_TCP | EXPOSED) == PLAIN_TCP
    }

    /// Returns whether SO_LINGER may be set on this socket and on sockets accepted from it.
    pub(crate) fn may_linger(&self) -> bool {
        self.has(LINGERS | EXPOSED)
    }

    pub(crate) fn set_may_linger(&self) {
        self.flags.fetch_or(LINGERS, Ordering::Relaxed);
    }

    /// Returns whether this connection, or the connections of this listener, must gather writes.
    #[inline]
    pub(crate) fn wants_gathering(&self) -> bool {
        self.has(WANTS_GATHERING)
    }

    pub(crate) fn set_wants_gathering(&self) {
        self.flags.fetch_or(WANTS_GATHERING, Ordering::Relaxed);
    }

    /// Returns the state of gathered writes, if gathering was ever turned on. Returns `None` in a
    /// forked child, which does not use the state.
    #[inline]
    pub(super) fn gathering(&self) -> Option<&std::sync::Arc<Gathering>> {
        self.rare.get()?.gathering.get().filter(|_| !fork::is_child())
    }

    pub(super) fn gathering_or_init(&self, make: impl FnOnce() -> Gathering) -> &std::sync::Arc<Gathering> {
        self.rare.get_or_default().gathering.get_or_init(|| std::sync::Arc::new(make()))
    }

    /// Takes the error of the socket (SO_ERROR) for an operation that is not a read. The kernel
    /// reports it only once, so it is kept for the next read that finds the end of the stream, or
    /// for [`report_error`](Fd::report_error). Until then, further calls return it too.
    pub(crate) fn take_error(&self, fd: BorrowedFd<'_>) -> io::Result<Option<io::Error>> {
        let mut taken = self.rare.get_or_default().taken_error.lock();
        // Locked before the call: a read that then finds the end of the stream waits until the
        // error is stored.
        if let Some(errno) = socket::take_error(fd)?.and_then(|error| error.raw_os_error()) {
            *taken = Some(errno);
        }
        Ok(taken.map(io::Error::from_raw_os_error))
    }

    /// Takes the error of the socket (SO_ERROR), or else the error that
    /// [`take_error`](Fd::take_error) has kept, for a caller to whom it is reported. No read
    /// reports it afterwards.
    pub(crate) fn report_error(&self, fd: BorrowedFd<'_>) -> io::Result<Option<io::Error>> {
        if let Some(error) = socket::take_error(fd)? {
            return Ok(Some(error));
        }
        // After the call: if an operation has just taken the error, the lock exists, and is held
        // until the error is stored.
        let kept = self.rare.get().and_then(|rare| rare.taken_error.lock().take());
        Ok(kept.map(io::Error::from_raw_os_error))
    }

    /// Returns, once, the error that [`take_error`](Fd::take_error) took or the error of gathered
    /// bytes that could not be sent, if there is one. Called by a read that found the end of the
    /// stream.
    #[cold]
    pub(crate) fn end_of_stream(&self) -> io::Result<()> {
        let taken = self.rare.get().and_then(|rare| rare.taken_error.lock().take());
        match taken.map(io::Error::from_raw_os_error) {
            Some(error) => Err(error),
            None => self.end_of_gathered(),
        }
    }

    /// Records that receiving was shut down.
    pub(super) fn set_receiving_shut(&self) {
        self.flags.fetch_or(RECEIVING_SHUT, Ordering::Relaxed);
    }

    /// Returns whether receiving was shut down by this handle, or the peer has hung up. If another
    /// user may have shut down receiving, asks the kernel. The caller must hold a reference.
    #[cold]
    pub(crate) fn is_receiving_shut(&self) -> bool {
        self.has(RECEIVING_SHUT)
            || self.poll.is_hung_up()
            || (self.is_exposed() && socket::is_hung_up(self.borrow()).unwrap_or(false))
    }

    /// Records that sending was shut down.
    pub(super) fn set_sending_shut(&self) {
        self.flags.fetch_or(SENDING_SHUT, Ordering::Relaxed);
    }

    /// Returns whether sending was shut down by this handle, so that a write fails. For a Unix
    /// socket without room, the kernel does not report this.
    pub(crate) fn is_sending_shut(&self) -> bool {
        self.has(SENDING_SHUT)
    }

    /// Sets O_NONBLOCK again if a user of a duplicate may have cleared it, before a call that has
    /// no equivalent of MSG_DONTWAIT. If O_NONBLOCK is cleared again before that call, the call may
    /// block. The caller must hold a reference.
    #[inline]
    pub(crate) fn ensure_nonblocking(&self) {
        if self.has(LENT | EXPOSED) {
            // If this fails because the number is not an open descriptor, the call fails too.
            let _ = sys::fd::make_nonblocking(self.borrow());
        }
    }

    /// Returns the loans of the descriptor, which the first call creates. They are recalled before
    /// close(2) (F3).
    ///
    /// # Panics
    /// Panics if loans of another type were created first: a descriptor has one kind of loans.
    pub(crate) fn loans<L: Loans + Default>(&self) -> &L {
        let loans = &**self.rare.get_or_default().loans.get_or_init(|| Arc::new(L::default()));
        // ORDERING: pairs with the fence in `expose`: either this thread sees the flag, or `expose`
        // sees the loans.
        fence(Ordering::SeqCst);
        if self.is_exposed() {
            loans.end();
        }
        (loans as &dyn Any).downcast_ref().expect("a descriptor has one kind of loans")
    }

    /// Returns the loans, if they were created.
    #[inline]
    pub(crate) fn loans_if_any(&self) -> Option<&dyn Loans> {
        self.rare.get()?.loans.get().map(|loans| &**loans)
    }

    /// Sets the loans, for tests.
    #[cfg(test)]
    pub(crate) fn set_loans(&self, loans: Arc<dyn Loans>) {
        let _ = self.rare.get_or_default().loans.set(loans);
    }

    pub(crate) fn number(&self) -> RawFd {
        self.number
    }

    /// Makes a call that belongs to no direction, such as getsockopt(2), under a reference.
    pub(crate) fn with<T>(&self, call: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>) -> Result<T, Failure> {
        self.mutex.incref()?;
        let result = call(self.borrow());
        if self.mutex.decref() {
            self.destroy();
        }
        result.map_err(Failure::Io)
    }

    pub(crate) fn set_deadline(&self, direction: Direction, deadline: Option<Instant>) -> Result<(), Failure> {
        self.poll.set_deadline(direction, deadline)
    }

    /// Begins the close unless it has already begun, and returns its completion. If the close has
    /// not begun, first runs `before`, while the number is open.
    pub(crate) fn close(&self, before: impl FnOnce()) -> Arc<Gone> {
        let gone = self.rare.get_or_default().gone.get_or_init(Arc::default).clone();
        if self.mutex.incref().is_ok() {
            before();
            if self.mutex.decref() {
                self.destroy();
            }
        }
        self.begin_close();
        gone
    }

    pub(super) fn fast_open(&self) -> Option<&FastOpen> {
        self.rare.get().map(|rare| &rare.fast_open)
    }

    pub(super) fn fast_open_or_default(&self) -> &FastOpen {
        &self.rare.get_or_default().fast_open
    }

    fn begin_close(&self) {
        if let Ok(mut wakers) = self.mutex.begin_close() {
            self.poll.evict(&mut wakers);
            if self.mutex.decref() {
                self.destroy();
            }
            // The wakers run last, because a waker may block, or wait for the end of this close.
            wakers.wake_all();
        }
    }

    /// Unregisters the descriptor, and closes it unless it is lent. The thread pool performs a
    /// close that must wait. Called once, after the last reference was dropped. Sends gathered
    /// bytes before it checks whether the connection is [unfinished](Fd::unfinished), because with
    /// TCP Fast Open the SYN may carry them.
    #[cold]
    pub(crate) fn destroy(&self) {
        let (is_lent, is_exposed) = (self.has(LENT), self.is_exposed());
        let mut rest = self.take_gathered();
        let unfinished = self.unfinished();
        // A drop must not start a runtime that was shut down.
        let may_start = || !poller::was_shut_down() || self.rare.get().is_some_and(|rare| rare.gone.get().is_some());
        if rest.is_some() && !may_start() {
            rest = None;
            closing::reset(self.borrow());
        }
        let outlives = unfinished.is_some() || rest.is_some();
        if !is_lent {
            let was_asked = self.rare.get().is_some_and(|rare| rare.gone.get().is_some());
            // A panic of the subscriber must not keep the descriptor open.
            contain(|| trace::closes(self.borrow(), was_asked));
        }
        self.poll.retire(self.borrow(), is_lent || is_exposed || outlives);
        let rare = self.rare.get();
        let gone = rare.and_then(|rare| rare.gone.get()).cloned();
        if is_lent {
            if let Some(gone) = gone {
                gone.set();
            }
            return;
        }
        // SAFETY: the number is open and not lent, so this `Fd` owns it. The close has begun and
        // there are no references, so this runs once, and the number is not used afterwards
        // (invariant 1).
        let fd = unsafe { OwnedFd::from_raw_fd(self.number) };
        let guard = rare.and_then(|rare| rare.guard.lock().take());
        let mut closing = Closing::new(fd, guard, gone);
        closing.is_borrowed = self.has(HANDED_OUT);
        // A forked child has no thread pool, and its parent still has the socket open.
        if !fork::is_child() {
            let loans = rare.and_then(|rare| rare.loans.get());
            closing.prepare(loans, is_exposed || outlives, self.may_linger());
        }
        // If no task may start, the close aborts the connection.
        if let Some(unfinished) = unfinished.filter(|_| may_start()) {
            Fd::close_later(unfinished);
        }
        let closing = match rest {
            Some(rest) => Fd::finish_gathered(closing, rest),
            None => Some(closing),
        };
        // If no job is spawned, the drop of `closing` closes the descriptor without waiting.
        if let Some(closing) = closing
            && closing.waits()
            && (closing.is_explicit() || poller::is_running())
        {
            spawn_close(move || closing.wait());
        }
    }

    /// Returns the descriptor, which is not lent, without closing it, or `Closed` if the close has
    /// begun. `self` is the only handle, so no operation is in progress. The caller must have ended
    /// gathering.
    pub(crate) fn take(self) -> Result<OwnedFd, Failure> {
        let mut wakers = self.mutex.begin_close()?;
        self.poll.evict(&mut wakers);
        // The number stays open, so its registration must be removed explicitly.
        self.poll.retire(self.borrow(), true);
        wakers.wake_all();
        // SAFETY: the number is open, because the close began here, and this `Fd` owns it. The only
        // reference is that of `begin_close`, and gathering has ended, so the number is not used
        // afterwards.
        let fd = unsafe { OwnedFd::from_raw_fd(self.number) };
        // The reference is not dropped. `Drop` finds that the close has begun, and does nothing.
        Ok(fd)
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        self.begin_close();
    }
}

/// A future that completes when the descriptor is closed or, for an
/// [`AsyncFd`](crate::io::AsyncFd), removed from the poller. The output is always `Ok`. If the
/// future is dropped, the close continues.
#[derive(Debug)]
#[must_use = "the close has begun; await the future to wait until it has ended"]
pub struct Closed {
    gone: Arc<Gone>,
    refused: bool,
}

impl Closed {
    pub(crate) fn new(gone: Arc<Gone>) -> Closed {
        Closed { gone, refused: false }
    }
}

impl Future for Closed {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.gone.poll(cx));
        // A loop over completed closes must yield.
        context::poll_budget(cx, &mut self.refused).map(Ok)
    }
}

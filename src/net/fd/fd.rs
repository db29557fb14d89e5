//! `Fd`: a descriptor with its lock and its poll handle; the close protocol.
//!
//! The counterpart of Go's `internal/poll.FD`. What calls may be made and how they wait is in [`operation`](super::operation).
//!
//! # States
//! *open* → (`begin_close`: no operation begins, all who wait are woken) → *closing*, while calls are in flight →
//! (the last reference goes) → *destroyed*: out of the poller, number closed.
//!
//! # Invariants
//! * 1 — the number is used under a reference only, and closed once, by whoever drops the last one. Nobody holds a reference while it
//!   waits, so closing never waits for a future that is not polled.
//! * F1 — the generation moves before the number is closed: an event for the next owner of the number finds the next owner.
//!   A lent number (`AsyncFd`) is not closed at all: it leaves the poller explicitly, before its owner may close it.
//! * F2 — close(2) blocks no worker. With SO_LINGER set it waits, so it runs on the blocking pool. The socket is asked for the option
//!   wherever anybody may have set it: this handle, an owner of a duplicate, or the listener that the connection inherits it from.
//! * F3 — memory that the kernel still reads after its calls ([`Loans`]) is recalled before close(2), once no call can follow.
//!
//! # Exposed descriptors
//! A descriptor that came from outside, or that was handed out (`as_fd`, `control`), may have duplicates, in this process or in another.
//! They keep the socket open beyond our close and change its options. So nothing is assumed about an exposed socket: it leaves epoll
//! explicitly, SO_LINGER and O_NONBLOCK are asked for, a short count is no evidence (kTLS ends a call at a record), and nothing is
//! sent without a copy. The flag is never cleared.
//!
//! # Cancellation
//! A dropped [`Closed`] future leaves a close that has begun to end by itself.
//!
//! # Compared with Go (internal/poll/fd_unix.go)
//! Same order: mark, wake the lock's queue, evict the poller's waiters, drop the own reference, wait until it is destroyed. A second
//! close is not an error: it waits for the same end. close(2) is not repeated after EINTR.

use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::panic::RefUnwindSafe;
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU8;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Type};

use super::fast_open::FastOpen;
use super::fd_mutex::FdMutex;
use super::operation::Failure;
use crate::net::options;
use crate::net::permits::Permit;
use crate::rt::fork;
use crate::rt::lazy_box::LazyBox;
use crate::rt::poll::poller::{self, Direction, PollHandle};
use crate::rt::time::clock;
use crate::rt::waiters::{Waiters, Wakers};
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering};
use crate::sys::{self, socket, unix};

/// See the module's header. What every call touches comes first and lies together.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Fd {
    pub(crate) poll: PollHandle,
    number: RawFd,
    /// [`LENT`] and the flags that follow it.
    flags: AtomicU8,
    /// std's relative timeouts in nanoseconds, by direction; 0 for none.
    timeouts: [AtomicU64; 2],
    pub(crate) mutex: FdMutex,
    rare: LazyBox<Rare>,
}

/// Somebody else owns the number: the close leaves it open.
const LENT: u8 = 1;
/// A TCP socket that is not a multipath one: a short count is evidence.
const PLAIN_TCP: u8 = 1 << 1;
/// The descriptor may have duplicates.
const EXPOSED: u8 = 1 << 2;
/// SO_LINGER may be set.
const LINGERS: u8 = 1 << 3;

/// Memory that the kernel reads after the calls that lent it.
pub(crate) trait Loans: fmt::Debug + Send + Sync + RefUnwindSafe {
    /// No call on the socket is under way or can follow, and its last descriptor of this process is about to be closed. Makes the kernel give
    /// up what is left, unless the socket may have other users. Returns whether it will do so soon.
    fn recall(&self, fd: BorrowedFd<'_>, may_be_shared: bool) -> bool;

    /// Blocks until the kernel has given up what was recalled, for a bounded time.
    fn wait(&self, fd: BorrowedFd<'_>);
}

/// What few descriptors have.
#[derive(Debug, Default)]
struct Rare {
    /// A listener's permit; it goes back when the number is closed or given away.
    permit: Option<Permit>,
    /// For who waits for the end of a close.
    gone: OnceLock<Arc<Gone>>,
    fast_open: FastOpen,
    loans: OnceLock<Arc<dyn Loans>>,
}

/// The end of a close.
#[derive(Debug, Default)]
pub(crate) struct Gone {
    done: AtomicBool,
    waiting: Mutex<Waiters>,
}

impl Gone {
    fn set(&self) {
        let mut wakers = Wakers::new();
        {
            let mut waiting = self.waiting.lock();
            self.done.store(true, Ordering::Release);
            waiting.take_all(&mut wakers);
        }
        wakers.wake_all();
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.done.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        let (waker, mut old) = (cx.waker().clone(), Wakers::new());
        let (done, _unused) = {
            let mut waiting = self.waiting.lock();
            // ORDERING: under the lock that `set` stores `done` under: it is seen here, or the waker is seen there.
            let done = self.done.load(Ordering::Acquire);
            (done, if done { Some(waker) } else { waiting.insert_poll(waker, &mut old) })
        };
        old.wake_all();
        if done { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// socket(2) for what may have to wait: a socket without a poller is refused, instead of failing when it waits for the first time.
pub(crate) fn open(domain: Domain, ty: Type, protocol: Option<Protocol>) -> io::Result<OwnedFd> {
    poller::prepare()?;
    socket::socket(domain, ty, protocol)
}

/// The same for socketpair(2).
pub(crate) fn open_pair(ty: Type) -> io::Result<(OwnedFd, OwnedFd)> {
    poller::prepare()?;
    unix::pair(ty)
}

#[allow(unsafe_code)]
impl Fd {
    /// Takes a descriptor that is non-blocking.
    ///
    /// # Errors
    /// Those of [`PollHandle::open`]; the descriptor is closed then.
    pub(crate) fn new(fd: OwnedFd, is_plain_tcp: bool) -> io::Result<Fd> {
        let poll = PollHandle::open()?;
        Ok(Fd::around(poll, fd.into_raw_fd(), if is_plain_tcp { PLAIN_TCP } else { 0 }))
    }

    /// A non-blocking descriptor whose owner keeps it open for as long as this lives.
    ///
    /// # Errors
    /// Those of [`PollHandle::open`].
    pub(crate) fn lent(fd: BorrowedFd<'_>) -> io::Result<Fd> {
        Ok(Fd::around(PollHandle::open()?, fd.as_raw_fd(), LENT))
    }

    fn around(poll: PollHandle, number: RawFd, flags: u8) -> Fd {
        Fd {
            poll,
            number,
            flags: AtomicU8::new(flags),
            timeouts: [AtomicU64::new(0), AtomicU64::new(0)],
            mutex: FdMutex::new(),
            rare: LazyBox::new(),
        }
    }

    /// Keeps `permit` for as long as the number. The descriptor is new.
    pub(crate) fn hold(&mut self, permit: Option<Permit>) {
        if permit.is_some() {
            self.rare = LazyBox::from(Rare { permit, ..Rare::default() });
        }
    }

    /// The number, for a caller that holds a reference.
    #[inline]
    pub(crate) fn borrow(&self) -> BorrowedFd<'_> {
        // SAFETY: the number is ours (or, lent, its owner's) until `destroy` or `take`, which come after the last reference; callers
        // hold one.
        unsafe { BorrowedFd::borrow_raw(self.number) }
    }

    /// Lends the number to code that may do anything with it, and marks the descriptor as exposed.
    pub(crate) fn expose(&self) -> BorrowedFd<'_> {
        if !self.is_exposed() {
            self.flags.fetch_or(EXPOSED, Ordering::Relaxed);
        }
        self.borrow()
    }

    #[inline]
    fn has(&self, flags: u8) -> bool {
        // ORDERING: Relaxed: a flag is set before the system call that makes it matter, and the kernel orders the calls on one socket.
        self.flags.load(Ordering::Relaxed) & flags != 0
    }

    pub(crate) fn is_exposed(&self) -> bool {
        self.has(EXPOSED)
    }

    pub(crate) fn is_plain_tcp(&self) -> bool {
        self.has(PLAIN_TCP)
    }

    /// Whether a count shorter than asked for says that the next call would wait.
    #[inline]
    pub(crate) fn trusts_short_counts(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & (PLAIN_TCP | EXPOSED) == PLAIN_TCP
    }

    /// Whether SO_LINGER may be set, and so in what is accepted here.
    pub(crate) fn may_linger(&self) -> bool {
        self.has(LINGERS | EXPOSED)
    }

    pub(crate) fn set_may_linger(&self) {
        self.flags.fetch_or(LINGERS, Ordering::Relaxed);
    }

    /// Sets O_NONBLOCK again where a user of a duplicate may have cleared it, before a call that has no flag for not blocking. One that
    /// clears it between this and the call still makes the call block. The caller holds a reference.
    #[inline]
    pub(crate) fn ensure_nonblocking(&self) {
        if self.has(LENT | EXPOSED) {
            // For a number that is no open descriptor the call fails as well.
            let _ = sys::fd::make_nonblocking(self.borrow());
        }
    }

    /// Has `loans` recalled before close(2). The first that is set stays.
    pub(crate) fn set_loans(&self, loans: Arc<dyn Loans>) {
        let _ = self.rare.get_or_default().loans.set(loans);
    }

    pub(crate) fn number(&self) -> RawFd {
        self.number
    }

    /// Makes a call that concerns no direction (an option, a name) under a reference.
    pub(crate) fn with<T>(&self, call: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>) -> Result<T, Failure> {
        self.mutex.incref()?;
        let result = call(self.borrow());
        if self.mutex.decref() {
            self.destroy();
        }
        result.map_err(Failure::Io)
    }

    pub(crate) fn set_deadline(&self, direction: Direction, deadline: Option<Instant>) -> Result<(), Failure> {
        self.poll.set_deadline(direction, deadline).map_err(Failure::from)
    }

    /// The relative timeout of operations in one direction.
    #[inline]
    pub(crate) fn timeout(&self, direction: Direction) -> Option<Duration> {
        match self.timeouts[direction as usize].load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    /// Sets it. Zero is refused, as std does: `None` means no timeout.
    pub(crate) fn set_timeout(&self, direction: Direction, timeout: Option<Duration>) -> io::Result<()> {
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a timeout of zero is refused: None means no timeout, a deadline in the past fails at once",
            ));
        }
        self.timeouts[direction as usize].store(timeout.map_or(0, clock::nanos), Ordering::Relaxed);
        Ok(())
    }

    /// Begins the close, if nobody has, and returns what ends with it. `before` runs once, while the number is still open.
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
        if let Ok(mut queued) = self.mutex.begin_close() {
            queued.wake_all();
            self.poll.evict();
            if self.mutex.decref() {
                self.destroy();
            }
        }
    }

    /// The last reference is gone: out of the poller, then close(2), once.
    #[cold]
    pub(crate) fn destroy(&self) {
        let (is_lent, is_exposed) = (self.has(LENT), self.is_exposed());
        let unfinished = self.unfinished();
        self.poll.retire(self.borrow(), is_lent || is_exposed || unfinished.is_some());
        let rare = self.rare.get();
        let gone = rare.and_then(|rare| rare.gone.get()).cloned();
        if is_lent {
            if let Some(gone) = gone {
                gone.set();
            }
            return;
        }
        // SAFETY: closed and without references: this runs once, and nobody uses the number afterwards (invariant 1).
        let fd = unsafe { OwnedFd::from_raw_fd(self.number) };
        let permit = rare.and_then(|rare| rare.permit.as_ref()?.take());
        let mut closing = Closing { fd: Some(fd), lingers: false, loans: None, permit, gone };
        // A forked child has no pool, and its parent has the socket too.
        if !fork::is_child() {
            let loans = rare.and_then(|rare| rare.loans.get());
            closing.look(loans, is_exposed || unfinished.is_some(), self.may_linger());
        }
        if closing.waits() {
            drop(crate::task::spawn_blocking(move || closing.wait()));
        }
        if let Some(unfinished) = unfinished {
            Fd::close_later(unfinished);
        }
    }

    /// Takes the descriptor out, unclosed. The caller has the only handle, so no operation is under way.
    pub(crate) fn take(self) -> Result<OwnedFd, Failure> {
        let mut queued = self.mutex.begin_close()?;
        queued.wake_all();
        self.poll.evict();
        // Somebody else goes on using the number, so its registration must go explicitly.
        self.poll.retire(self.borrow(), true);
        // SAFETY: closed, and ours is the only reference: nobody uses the number through us any more.
        let fd = unsafe { OwnedFd::from_raw_fd(self.number) };
        // Our reference stays: `Drop` finds the lock closed and does nothing.
        Ok(fd)
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        self.begin_close();
    }
}

/// close(2) and what comes of it: when this is dropped, so that a pool which a shutdown empties closes what it has not come to.
#[derive(Debug)]
struct Closing {
    /// Some until it is closed.
    fd: Option<OwnedFd>,
    /// SO_LINGER is set: close(2) waits.
    lingers: bool,
    /// What the kernel has not given back yet.
    loans: Option<Arc<dyn Loans>>,
    permit: Option<Permit>,
    gone: Option<Arc<Gone>>,
}

impl Closing {
    /// Recalls loans, and looks what there is to wait for.
    fn look(&mut self, loans: Option<&Arc<dyn Loans>>, may_be_shared: bool, may_linger: bool) {
        let Some(fd) = &self.fd else { return };
        self.loans = loans.filter(|loans| loans.recall(fd.as_fd(), may_be_shared)).cloned();
        // Zero does not wait: it resets the connection.
        self.lingers = may_linger && options::linger(fd.as_fd()).ok().flatten().is_some_and(|linger| !linger.is_zero());
    }

    fn waits(&self) -> bool {
        self.lingers || self.loans.is_some()
    }

    /// Blocks, then closes.
    fn wait(mut self) {
        self.lingers = false;
        if let (Some(loans), Some(fd)) = (self.loans.take(), &self.fd) {
            loans.wait(fd.as_fd());
        }
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        if let Some(fd) = self.fd.take() {
            if self.lingers {
                // The pool did not come to it, and nobody else may wait: the kernel sends what is left behind our back.
                let _ = options::set_linger(fd.as_fd(), None);
            }
            // There is nobody to tell, and nothing to be done: the number is free whatever close(2) says.
            let _ = socket::close(fd);
        }
        poller::descriptor_closed();
        drop(self.permit.take());
        if let Some(gone) = &self.gone {
            gone.set();
        }
    }
}

/// A future that ends when a descriptor is gone.
#[derive(Debug)]
#[must_use = "the close has begun; await this to know its end"]
pub struct Closed {
    gone: Arc<Gone>,
}

impl Closed {
    pub(crate) fn new(gone: Arc<Gone>) -> Closed {
        Closed { gone }
    }
}

impl Future for Closed {
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.gone.poll(cx).map(Ok)
    }
}

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
//! * F2 — options of a lingering close: with SO_LINGER set, close(2) may block, so it runs on the blocking pool.
//!
//! # Cancellation
//! A dropped [`Closed`] future leaves a close that has begun to end by itself.
//!
//! # Compared with Go (internal/poll/fd_unix.go)
//! Same order: mark, wake the lock's queue, evict the poller's waiters, drop the own reference, wait until it is destroyed. A second
//! close is not an error: it waits for the same end. close(2) is not repeated after EINTR.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Type};

use super::fast_open::FastOpen;
use super::fd_mutex::FdMutex;
use super::operation::Failure;
use crate::net::options;
use crate::net::permits::Permit;
use crate::rt::lazy_box::LazyBox;
use crate::rt::poller::{self, Direction, PollHandle};
use crate::rt::waiters::Wakers;
use crate::rt::{clock, fork};
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering};
use crate::sys::{socket, unix};

/// See the module's header. What every call touches comes first and lies together.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Fd {
    pub(crate) poll: PollHandle,
    number: RawFd,
    /// Somebody else owns the number: the close leaves it open.
    is_lent: bool,
    /// A short count is evidence: TCP only.
    pub(crate) trusts_short_counts: bool,
    /// The number was shown to somebody who may have duplicated it.
    exposed: AtomicBool,
    /// SO_LINGER was set through us.
    lingers: AtomicBool,
    /// std's relative timeouts in nanoseconds, by direction; 0 for none.
    timeouts: [AtomicU64; 2],
    pub(crate) mutex: FdMutex,
    rare: LazyBox<Rare>,
}

/// What few descriptors have.
#[derive(Debug, Default)]
struct Rare {
    /// A listener's permit; it goes back when the number is closed or given away.
    permit: Option<Permit>,
    /// For who waits for the end of a close.
    gone: OnceLock<Arc<Gone>>,
    fast_open: FastOpen,
}

/// The end of a close.
#[derive(Debug, Default)]
pub(crate) struct Gone {
    done: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

impl Gone {
    fn set(&self) {
        let mut wakers = Wakers::new();
        {
            let mut waiting = self.waiting.lock();
            self.done.store(true, Ordering::Release);
            wakers.extend(waiting.drain(..));
        }
        wakers.wake_all();
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.done.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        let waker = cx.waker().clone();
        let mut waiting = self.waiting.lock();
        // ORDERING: under the lock that `set` stores `done` under: it is seen here, or the waker is seen there.
        if self.done.load(Ordering::Acquire) {
            drop(waiting);
            return Poll::Ready(());
        }
        if waiting.iter().any(|held| held.will_wake(&waker)) {
            drop(waiting);
        } else {
            waiting.push(waker);
        }
        Poll::Pending
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
    pub(crate) fn new(fd: OwnedFd, trusts_short_counts: bool) -> io::Result<Fd> {
        let poll = PollHandle::open()?;
        Ok(Fd::around(poll, fd.into_raw_fd(), false, trusts_short_counts))
    }

    /// A non-blocking descriptor whose owner keeps it open for as long as this lives.
    ///
    /// # Errors
    /// Those of [`PollHandle::open`].
    pub(crate) fn lent(fd: BorrowedFd<'_>) -> io::Result<Fd> {
        Ok(Fd::around(PollHandle::open()?, fd.as_raw_fd(), true, false))
    }

    fn around(poll: PollHandle, number: RawFd, is_lent: bool, trusts_short_counts: bool) -> Fd {
        Fd {
            poll,
            number,
            is_lent,
            trusts_short_counts,
            exposed: AtomicBool::new(false),
            lingers: AtomicBool::new(false),
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

    /// The number, for who may do anything with it as long as it borrows the socket. From here on the close takes it out of epoll
    /// explicitly: a duplicate would keep it in.
    pub(crate) fn expose(&self) -> BorrowedFd<'_> {
        self.exposed.store(true, Ordering::Relaxed);
        self.borrow()
    }

    pub(crate) fn is_exposed(&self) -> bool {
        self.exposed.load(Ordering::Relaxed)
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

    pub(crate) fn set_lingers(&self, lingers: bool) {
        self.lingers.store(lingers, Ordering::Relaxed);
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
        let unfinished = self.unfinished();
        self.poll.retire(self.borrow(), self.is_lent || self.is_exposed() || unfinished.is_some());
        let rare = self.rare.get();
        let gone = rare.and_then(|rare| rare.gone.get()).cloned();
        if self.is_lent {
            if let Some(gone) = gone {
                gone.set();
            }
            return;
        }
        // SAFETY: closed and without references: this runs once, and nobody uses the number afterwards (invariant 1).
        let fd = unsafe { OwnedFd::from_raw_fd(self.number) };
        let permit = rare.and_then(|rare| rare.permit.as_ref()?.take());
        let waits = self.lingers.load(Ordering::Relaxed) && may_wait(fd.as_fd());
        let closing = Closing { fd: Some(fd), permit, gone };
        if waits {
            drop(crate::task::spawn_blocking(move || drop(closing)));
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

/// Whether the close of a socket that was told to linger may wait. Not where a send without a copy has made it a reset meanwhile, after
/// which its memory is freed; nor in a forked child, which has no pool, and whose parent has the socket too.
fn may_wait(fd: BorrowedFd<'_>) -> bool {
    !fork::is_child() && !matches!(options::linger(fd), Ok(Some(Duration::ZERO)))
}

/// close(2) and what comes of it: when this is dropped, so that a pool which a shutdown empties closes what it has not come to.
#[derive(Debug)]
struct Closing {
    /// Some until it is closed.
    fd: Option<OwnedFd>,
    permit: Option<Permit>,
    gone: Option<Arc<Gone>>,
}

impl Drop for Closing {
    fn drop(&mut self) {
        if let Some(fd) = self.fd.take() {
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

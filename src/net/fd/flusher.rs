//! The tasks that send gathered bytes that a socket did not accept immediately: [`Flusher`] while
//! the socket is open, [`Finisher`] after its close.
//!
//! # Flusher
//! A socket has at most one flusher, from the first send that the socket does not accept as a whole
//! until all bytes are sent or discarded. Its reference to the socket is weak, so it keeps no
//! socket open; it has a handle only during a poll and during its drop ([`Borrowed`]). It waits in
//! the write direction, as a write does. If the wait fails, for example because the write deadline
//! has passed, or if the kernel has no memory for the send, the flusher tries again at intervals
//! that grow from [`PAUSE_MIN`] to [`PAUSE_MAX`]. When no bytes are left (any thread may have sent
//! or discarded them), it wakes all waiters of the direction, because a waiting flush may now be
//! complete, and ends. A close of the socket or a shutdown of the runtime also ends it. After a
//! shutdown, the next operation on the socket that writes or waits starts another flusher. If the
//! task of the old flusher still exists at that time, its drop starts the other flusher.
//!
//! # Finisher
//! A finisher owns a duplicate of the descriptor, or the descriptor itself if no other is free, and
//! the bytes that the kernel did not accept even with a larger send buffer. When all bytes are
//! sent, it closes its descriptor, so the peer gets a FIN after the last byte, as after a close
//! with bytes in the send buffer of the kernel. If sending was shut down before the close, the
//! finisher shuts it down after the last byte, because a duplicate of the descriptor may keep the
//! connection open. If the kernel has no memory for a send, the finisher tries again as a flusher
//! does. If the socket accepts nothing for [`FINISH_MAX`], a send fails otherwise, or the runtime
//! shuts down, the connection is [reset](closing::reset).
//!
//! # Cancellation
//! Both futures are owned by their tasks and dropped with them.

use std::future::Future;
use std::net::Shutdown;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{Location, RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::backoff::Backoff;
use super::closing::{self, Closing, Guard};
use super::cork::Gathering;
use super::fd::Fd;
use super::operation::{LockScope, Operation, Remaining};
use crate::rt::poll::poller::{Direction, Failure};
use crate::rt::runtime::runtime;
use crate::rt::sched::task::spawn_untraced;
use crate::rt::time::sleep::Sleep;
use crate::rt::waiters::Waiter;
use crate::sys::socket;

/// The first pause of a flusher or a finisher. Each further pause is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// The maximum pause of a flusher or a finisher.
const PAUSE_MAX: Duration = Duration::from_millis(320);
/// The maximum time that a closed connection may make no progress.
const FINISH_MAX: Duration = Duration::from_secs(60);

/// The owner of a descriptor that gathers writes.
pub(crate) trait Gathers: Send + Sync + RefUnwindSafe + UnwindSafe + 'static {
    /// Returns the descriptor.
    fn fd(&self) -> &Fd;
}

/// Starts a [`Flusher`]. The caller has recorded it in the state.
pub(super) fn start<T: Gathers>(owner: Weak<T>, gathering: Arc<Gathering>) {
    let (operation, epoch) = (Operation::new(), runtime().ensure_running());
    let backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX);
    let flusher = Flusher { owner, gathering, operation, pause: None, backoff, is_entered: true, epoch };
    spawn_untraced(Location::caller(), flusher).detach();
}

/// A handle of the socket that the flusher has during a poll or during its drop.
/// [`unwrap_owner`](super::gather::unwrap_owner) does not count it as a handle.
struct Borrowed<'a, T: Gathers> {
    gathering: &'a Gathering,
    owner: Option<Arc<T>>,
}

impl<'a, T: Gathers> Borrowed<'a, T> {
    /// Takes a handle. Returns `None` if the socket is gone.
    fn new(owner: &Weak<T>, gathering: &'a Gathering) -> Option<Borrowed<'a, T>> {
        let owner = gathering.cork.lock().borrow(|| owner.upgrade())?;
        Some(Borrowed { gathering, owner: Some(owner) })
    }
}

impl<T: Gathers> Deref for Borrowed<'_, T> {
    type Target = Fd;

    fn deref(&self) -> &Fd {
        self.owner.as_ref().expect("present until the drop").fd()
    }
}

impl<T: Gathers> Drop for Borrowed<'_, T> {
    fn drop(&mut self) {
        // If this is now the last handle, its drop closes the socket.
        drop(self.owner.take());
        self.gathering.cork.lock().give_back();
    }
}

/// Sends the gathered bytes of an open socket; see the [module documentation](self).
struct Flusher<T: Gathers> {
    owner: Weak<T>,
    gathering: Arc<Gathering>,
    operation: Operation,
    pause: Option<Sleep>,
    backoff: Backoff,
    /// Whether this flusher is recorded in the state.
    is_entered: bool,
    /// The epoch of the runtime in which this flusher was started.
    epoch: u32,
}

impl<T: Gathers> Future for Flusher<T> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Flusher { owner, gathering, operation, pause, backoff, is_entered, .. } = self.get_mut();
        // If the socket is gone, its close or its conversion has dealt with the bytes.
        let Some(fd) = Borrowed::new(owner, gathering) else { return Poll::Ready(()) };
        loop {
            // Also during a pause, because another thread may send the last bytes.
            if gathering.ends_flusher(cx.waker()) {
                *is_entered = false;
                fd.cancel(Direction::Write, operation);
                fd.poll.side(Direction::Write).wake_waiters();
                return Poll::Ready(());
            }
            if let Some(sleep) = pause {
                ready!(Pin::new(sleep).poll(cx));
                *pause = None;
            }
            match fd.poll_drained(Waiter::Future(operation), cx) {
                Poll::Pending if !gathering.cork.lock().is_starved() => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(Failure::Closed | Failure::Stopped)) => return Poll::Ready(()),
                Poll::Pending | Poll::Ready(Err(_)) => {
                    gathering.send();
                    *pause = Some(Sleep::new(backoff.next()));
                }
            }
        }
    }
}

impl<T: Gathers> Drop for Flusher<T> {
    fn drop(&mut self) {
        let fd = Borrowed::new(&self.owner, &self.gathering);
        if let Some(fd) = &fd {
            fd.cancel(Direction::Write, &mut self.operation);
        }
        if self.is_entered {
            self.gathering.forget_flusher();
            // If the runtime has started again, its operations may have relied on this flusher.
            if let Some(fd) = fd.filter(|_| runtime().is_running() && runtime().epoch() != self.epoch) {
                fd.follow_up();
                fd.poll.side(Direction::Write).wake_waiters();
            }
        }
    }
}

/// The gathered bytes that the socket of a closed connection has not accepted.
pub(super) struct Rest {
    pub(super) bytes: Vec<u8>,
    /// The number of `bytes`, from the front, that were sent.
    pub(super) sent: usize,
    /// Whether sending was shut down, so that the stream ends after the last byte.
    pub(super) ends: bool,
}

/// Sends the last bytes of a closed connection; see the [module documentation](self).
pub(super) struct Finisher {
    fd: Fd,
    operation: Operation,
    rest: Rest,
    /// The end of the time in which the socket must accept a byte.
    limit: Sleep,
    /// The pause after a send for which the kernel had no memory.
    pause: Option<Sleep>,
    backoff: Backoff,
}

impl Finisher {
    /// Starts a task that sends `rest` and closes `fd`. If no
    /// [`PollHandle`](crate::rt::poll::poller::PollHandle) can be opened for `fd`, resets the
    /// connection. Drops `closing` after the close.
    pub(super) fn start(fd: OwnedFd, rest: Rest, closing: Option<Closing>) {
        let mut fd = match Fd::try_new(fd, false) {
            Ok(fd) => fd,
            Err((_, fd)) => {
                closing::reset(fd.as_fd());
                let keeper = closing.as_ref().and_then(Closing::keeper);
                // `closing` ends after the close.
                let mut own = Closing::new(fd, closing.map(|closing| Box::new(closing) as Box<dyn Guard>), keeper);
                own.is_borrowed = true;
                return drop(own);
            }
        };
        if let Some(closing) = closing {
            let keeper = closing.keeper();
            fd.hold(closing);
            if let Some(gone) = keeper {
                fd.keep_number(gone);
            }
        }
        // SO_LINGER may be set on the socket.
        fd.set_may_linger();
        let (operation, limit) = (Operation::new(), Sleep::new(FINISH_MAX));
        let backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX);
        let finisher = Finisher { fd, operation, rest, limit, pause: None, backoff };
        spawn_untraced(Location::caller(), finisher).detach();
    }
}

impl Future for Finisher {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Finisher { fd, operation, rest: Rest { bytes, sent, ends }, limit, pause, backoff } = self.get_mut();
        while *sent < bytes.len() {
            if let Some(sleep) = pause {
                if Pin::new(sleep).poll(cx).is_pending() {
                    return Pin::new(limit).poll(cx);
                }
                *pause = None;
            }
            let polled = fd.poll_call(Direction::Write, LockScope::None, Waiter::Future(operation), cx, |fd| {
                Ok((socket::send(fd, &bytes[*sent..], 0)?, Remaining::Maybe))
            });
            match polled {
                Poll::Ready(Ok(count)) if count > 0 => {
                    *sent += count;
                    *limit = Sleep::new(FINISH_MAX);
                }
                Poll::Ready(Err(Failure::Io(error)))
                    if matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM)) =>
                {
                    *pause = Some(Sleep::new(backoff.next()));
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Pin::new(limit).poll(cx),
            }
        }
        if *ends {
            // If this fails, the connection has failed, and there is nothing to shut down.
            let _ = fd.with(|fd| socket::shutdown(fd, Shutdown::Write));
        }
        Poll::Ready(())
    }
}

impl Drop for Finisher {
    fn drop(&mut self) {
        self.fd.cancel(Direction::Write, &mut self.operation);
        if self.rest.sent < self.rest.bytes.len() {
            let _ = self.fd.with(|fd| {
                closing::reset(fd);
                Ok(())
            });
        }
    }
}

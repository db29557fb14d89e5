//! [`Closing`]: the last steps of a close, on the thread that drops the last reference, on a thread
//! of the pool for closes, or in the task that sends the last gathered bytes. A higher layer can
//! attach [`Loans`], which the close recalls, and a [`Guard`], which the close drops.
//!
//! # Borrowed descriptors
//! A descriptor that was handed out (`as_fd`) can be borrowed while another handle of the socket
//! closes it. So the explicit close of such a socket does not free the number: a duplicate of the
//! process's [placeholder](crate::sys::placeholder) takes the number, and calls on it fail. The
//! [`Gone`] owns the number, and each handle of the socket and each [`Closed`](super::fd::Closed)
//! future owns the `Gone`, so the number is free after the last handle and the last future are
//! dropped. The first hand-out opens the placeholder, so the close needs no free descriptor.
//!
//! If no descriptor was free at any hand-out and none is free at the close, the close only shuts
//! down the socket, and the drop of the `Gone` closes it. If the linger time is zero, a TCP
//! connection is reset on Linux.
//!
//! # Order
//! The close recalls memory that the kernel still reads, and a thread of the pool waits, for a
//! limited time, until the kernel has released this memory. close(2) follows, and then the steps
//! that depend on it: streams of connections that wait for a free descriptor are woken, the guard
//! is dropped, and the `Closed` futures complete.
//!
//! # Cancellation
//! The drop of a [`Closing`] performs the steps that are left, so the descriptor is closed even if
//! a shutdown drops the pool's job or the task.

use std::any::Any;
use std::fmt;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::rt::fork;
use crate::rt::poll::poller;
use crate::rt::runtime::runtime;
use crate::rt::waiters::{Waiters, Wakers};
use crate::sync::{Arc, AtomicBool, Mutex, Ordering};
use crate::sys::{option, socket, zerocopy};

/// Memory that the kernel may read after the calls that lent it have returned.
pub(crate) trait Loans: Any + fmt::Debug + Send + Sync + RefUnwindSafe {
    /// Ends lending, because the descriptor is exposed. When this method returns, no call that
    /// lends memory is in progress, and none follows.
    fn end(&self);

    /// Makes the kernel release the remaining memory, unless the socket may have other users.
    /// Returns whether the kernel will release memory later. Called when no call on the socket is
    /// in progress or can follow. If `may_be_shared` is false, this process is about to close its
    /// last descriptor of the socket.
    fn recall(&self, fd: BorrowedFd<'_>, may_be_shared: bool) -> bool;

    /// Blocks until the kernel has released the recalled memory, for a limited time.
    fn wait(&self, fd: BorrowedFd<'_>);
}

/// A value that is dropped after the number was closed or given away.
pub(crate) trait Guard: fmt::Debug + Send + RefUnwindSafe + UnwindSafe {}

impl<T: fmt::Debug + Send + RefUnwindSafe + UnwindSafe> Guard for T {}

/// The completion of a close.
#[derive(Debug, Default)]
pub(crate) struct Gone {
    done: AtomicBool,
    waiting: Mutex<Waiters>,
    /// Set by a close if the descriptor may be borrowed.
    kept: OnceLock<KeptNumber>,
}

/// The number of a closed socket, or of a socket that was only shut down because the placeholder
/// could not be opened. No other descriptor gets the number until this value is dropped.
#[derive(Debug)]
struct KeptNumber(Option<OwnedFd>);

impl Drop for KeptNumber {
    fn drop(&mut self) {
        if let Some(fd) = self.0.take() {
            let _ = socket::close(fd);
        }
        poller::descriptor_closed();
    }
}

impl Gone {
    /// Closes a socket whose descriptor may be borrowed, and keeps its number until this value is
    /// dropped.
    fn keep_number(&self, fd: OwnedFd) {
        let kept = socket::close_and_keep_number(fd).unwrap_or_else(|fd| {
            end_connection(fd.as_fd());
            Some(fd)
        });
        if let Some(fd) = kept {
            // There is one close, so nothing was kept before.
            let _ = self.kept.set(KeptNumber(Some(fd)));
        }
    }

    pub(super) fn set(&self) {
        let mut wakers = Wakers::new();
        {
            let mut waiting = self.waiting.lock();
            self.done.store(true, Ordering::Release);
            waiting.take_all(&mut wakers);
        }
        wakers.wake_all();
    }

    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.done.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        let (waker, mut old) = (cx.waker().clone(), Wakers::new());
        let (done, _unused) = {
            let mut waiting = self.waiting.lock();
            // ORDERING: `set` stores `done` under the same lock, so either this load sees `done`,
            // or `set` sees the waker.
            let done = self.done.load(Ordering::Acquire);
            (done, if done { Some(waker) } else { waiting.insert_poll(waker, &mut old) })
        };
        old.wake_all();
        if done {
            return Poll::Ready(());
        }
        // A task may have to send the last gathered bytes.
        runtime().wait_begins(cx);
        Poll::Pending
    }
}

/// Ends the connection of a socket that cannot be closed yet, so that the peer need not wait for
/// close(2), and so that close(2) then does not block. In a forked child, has no effect, because
/// the parent has the socket too.
#[cold]
fn end_connection(fd: BorrowedFd<'_>) {
    if fork::is_child() {
        return;
    }
    if matches!(option::socket::linger(fd), Ok(Some(Duration::ZERO))) {
        let _ = zerocopy::disconnect(fd);
    }
    let _ = socket::shutdown(fd, Shutdown::Both);
    let _ = option::socket::set_linger(fd, None);
}

/// Resets a connection whose last gathered bytes cannot be sent: the peer must not mistake the
/// truncated stream for a complete one, and no bytes of another user must follow the gap. On Linux,
/// this also applies to duplicates of the descriptor; on other systems, the close of the last
/// duplicate resets the connection. A Unix stream cannot be reset; its peer reads end of stream. In
/// a forked child, has no effect, because the parent has the connection too.
pub(super) fn reset(fd: BorrowedFd<'_>) {
    if fork::is_child() {
        return;
    }
    // Errors are ignored: they mean that the connection has already failed.
    let _ = option::socket::set_linger(fd, Some(Duration::ZERO));
    if zerocopy::disconnect(fd).is_err() {
        let _ = socket::shutdown(fd, Shutdown::Both);
    }
}

/// A close in progress; see the [module documentation](self).
#[derive(Debug)]
pub(super) struct Closing {
    /// The descriptor; `None` after it was closed, or if the sender of the gathered bytes owns it.
    pub(super) fd: Option<OwnedFd>,
    /// Whether this thread must not call close(2) yet, because SO_LINGER is set to a time other
    /// than zero.
    lingers: bool,
    /// Memory that the kernel has not released yet.
    loans: Option<Arc<dyn Loans>>,
    guard: Option<Box<dyn Guard>>,
    gone: Option<Arc<Gone>>,
    /// Whether the descriptor may be borrowed, so that `gone` must keep its number.
    pub(super) is_borrowed: bool,
}

impl Closing {
    pub(super) fn new(fd: OwnedFd, guard: Option<Box<dyn Guard>>, gone: Option<Arc<Gone>>) -> Closing {
        Closing { fd: Some(fd), lingers: false, loans: None, guard, gone, is_borrowed: false }
    }

    /// Recalls loans, and determines whether the close must wait.
    pub(super) fn prepare(&mut self, loans: Option<&Arc<dyn Loans>>, may_be_shared: bool, may_linger: bool) {
        let Some(fd) = &self.fd else { return };
        self.loans = loans.filter(|loans| loans.recall(fd.as_fd(), may_be_shared)).cloned();
        // With a linger time of zero, close(2) does not wait: it resets the connection.
        self.lingers =
            may_linger && option::socket::linger(fd.as_fd()).ok().flatten().is_some_and(|linger| !linger.is_zero());
    }

    /// Returns whether the close must wait, on a thread of the pool for closes.
    pub(super) fn waits(&self) -> bool {
        self.lingers || self.loans.is_some()
    }

    /// Returns the completion that must keep the number, if the descriptor may be borrowed.
    pub(super) fn keeper(&self) -> Option<Arc<Gone>> {
        self.gone.clone().filter(|_| self.is_borrowed)
    }

    /// Returns whether the close is explicit.
    pub(super) fn is_explicit(&self) -> bool {
        self.gone.is_some()
    }

    /// Waits for the loans, then closes the descriptor. Blocks.
    pub(super) fn wait(mut self) {
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
                // No thread of the pool has run `wait`, and this thread must not block. Without
                // SO_LINGER, the kernel sends unsent data in the background.
                let _ = option::socket::set_linger(fd.as_fd(), None);
            }
            match &self.gone {
                Some(gone) if self.is_borrowed => gone.keep_number(fd),
                // The result is ignored: no caller receives it, and the call must not be repeated.
                _ => _ = socket::close(fd),
            }
            // Called even if the number is kept, because the close also frees an open file (ENFILE)
            // and memory, for which a stream of connections may wait.
            poller::descriptor_closed();
        }
        drop(self.guard.take());
        if let Some(gone) = &self.gone {
            gone.set();
        }
    }
}

//! The tasks that send gathered bytes which a socket did not take at once: [`Flusher`] while it is
//! open, [`Finisher`] after its close.
//!
//! # Flusher
//! One per socket, from the first short send until everything is sent. It refers to the socket
//! weakly, so it keeps no socket open, and waits among the writers. Deadlines and timeouts of writes
//! end its wait but not its work: after one it tries again at intervals, at first of
//! [`PAUSE_MIN`] and at last of [`PAUSE_MAX`]. A shutdown of the runtime drops it; the next operation
//! on the socket starts another one.
//!
//! # Finisher
//! It owns a duplicate and the bytes. When all are sent, it closes the duplicate, so the peer gets a
//! FIN after the last byte, as after a close with bytes in the send buffer of the kernel. If the peer
//! takes nothing for [`FINISH_MAX`], or the runtime shuts down, the connection is reset: the peer
//! must not take the end for a regular one.
//!
//! # Cancellation
//! Nobody else has the futures. They are dropped by the end of their task.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Weak;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::failure::Failure;
use super::fd::Fd;
use super::operation::{LockScope, Operation, Remaining};
use crate::rt::poll::poller::Direction;
use crate::rt::time::sleep::Sleep;
use crate::rt::unsent::Unsent;
use crate::sys::{option, socket};
use crate::task;

const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(320);
/// How long a closed connection may make no progress.
const FINISH_MAX: Duration = Duration::from_secs(60);

/// The owner of a descriptor that gathers writes.
pub(crate) trait Gathers: Unsent + 'static {
    /// Returns the descriptor.
    fn fd(&self) -> &Fd;
}

/// Starts the task that sends gathered bytes. The caller has entered it in the state.
pub(super) fn start<T: Gathers>(owner: Weak<T>) {
    drop(task::spawn(Flusher { owner, operation: Operation::new(), pause: None, next: PAUSE_MIN, is_entered: true }));
}

/// Sends the gathered bytes of an open socket; see the [module documentation](self).
struct Flusher<T: Gathers> {
    owner: Weak<T>,
    operation: Operation,
    pause: Option<Sleep>,
    next: Duration,
    /// Whether the state says that it exists.
    is_entered: bool,
}

impl<T: Gathers> Future for Flusher<T> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        // If it is gone, its close has sent the bytes.
        let Some(owner) = this.owner.upgrade() else { return Poll::Ready(()) };
        let fd = owner.fd();
        loop {
            if let Some(pause) = &mut this.pause {
                ready!(Pin::new(pause).poll(cx));
                this.pause = None;
            }
            if fd.ends_flusher(cx.waker()) {
                this.is_entered = false;
                return Poll::Ready(());
            }
            match fd.poll_drained(Some(&mut this.operation), cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(Failure::Closed | Failure::Stopped)) => return Poll::Ready(()),
                Poll::Ready(Err(_)) => {
                    fd.try_drain();
                    this.pause = Some(Sleep::new(this.next));
                    this.next = (this.next * 2).min(PAUSE_MAX);
                }
            }
        }
    }
}

impl<T: Gathers> Drop for Flusher<T> {
    fn drop(&mut self) {
        if let Some(owner) = self.owner.upgrade() {
            owner.fd().cancel(Direction::Write, &mut self.operation);
            if self.is_entered {
                owner.fd().forget_flusher();
            }
        }
    }
}

/// Sends the last bytes of a closed connection; see the [module documentation](self).
pub(super) struct Finisher {
    fd: Fd,
    operation: Operation,
    bytes: Vec<u8>,
    sent: usize,
    limit: Sleep,
}

impl Finisher {
    /// Starts a task that sends `bytes` from `sent` on and closes `fd`.
    pub(super) fn start(fd: OwnedFd, (bytes, sent): (Vec<u8>, usize)) -> io::Result<()> {
        let fd = Fd::new(fd, false)?;
        // SO_LINGER may be set on the socket.
        fd.set_may_linger();
        let (operation, limit) = (Operation::new(), Sleep::new(FINISH_MAX));
        drop(task::spawn(Finisher { fd, operation, bytes, sent, limit }));
        Ok(())
    }
}

impl Future for Finisher {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Finisher { fd, operation, bytes, sent, limit } = self.get_mut();
        while *sent < bytes.len() {
            let polled = fd.poll_call(Direction::Write, LockScope::None, Some(operation), cx, |fd| {
                Ok((socket::send(fd, &bytes[*sent..], 0)?, Remaining::Maybe))
            });
            match polled {
                Poll::Ready(Ok(count)) if count > 0 => {
                    *sent += count;
                    *limit = Sleep::new(FINISH_MAX);
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Pin::new(limit).poll(cx),
            }
        }
        Poll::Ready(())
    }
}

impl Drop for Finisher {
    fn drop(&mut self) {
        self.fd.cancel(Direction::Write, &mut self.operation);
        if self.sent < self.bytes.len() {
            // The close that follows resets the connection. The error of one that has failed already
            // says nothing new.
            let _ = self.fd.with(|fd| option::socket::set_linger(fd, Some(Duration::ZERO)));
        }
    }
}

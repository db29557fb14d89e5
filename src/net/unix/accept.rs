//! The future of an accept of Unix sockets.

use std::fmt;
use std::future::Future;
use std::io;
use std::os::unix::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::UnixStream;
use crate::net::accept::Adopt;
use crate::net::fd::operation::Operation;
use crate::net::net_fd::NetFd;
use crate::rt::poll::poller::Direction;
use crate::rt::waiters::Waiter;

/// Accepts a connection; returned by [`UnixListener::accept`](super::UnixListener::accept) and
/// [`UnixSeqpacketListener::accept`](super::UnixSeqpacketListener::accept).
#[must_use = "futures do nothing unless they are awaited"]
pub struct Accept<'a, T = UnixStream> {
    fd: &'a NetFd,
    operation: Operation,
    adopt: Adopt<(T, SocketAddr)>,
}

impl<'a, T> Accept<'a, T> {
    pub(super) fn new(fd: &'a NetFd, adopt: Adopt<(T, SocketAddr)>) -> Accept<'a, T> {
        Accept { fd, operation: Operation::new(), adopt }
    }
}

impl<T> Future for Accept<'_, T> {
    type Output = io::Result<(T, SocketAddr)>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.fd.poll_accept(Waiter::Future(&mut this.operation), cx, this.adopt)
    }
}

impl<T> Drop for Accept<'_, T> {
    fn drop(&mut self) {
        self.fd.fd.cancel(Direction::Read, &mut self.operation);
    }
}

impl<T> fmt::Debug for Accept<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accept").field("listener", self.fd).finish_non_exhaustive()
    }
}

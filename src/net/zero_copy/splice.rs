//! [`Splice`]: moving bytes from one socket to another through a pipe with splice(2).
//!
//! # States
//! *empty* (no pipe, or an empty one) → a call fills the pipe from the source → *holding* bytes in
//! the pipe → calls drain the pipe to the target → *empty*. While the copy waits for the source, it
//! has no pipe, because it has returned the pipe to the pool. While it waits for the target, it
//! keeps the pipe.
//!
//! # Invariants
//! * The pipe is empty before it is filled, so EAGAIN from the call that fills it comes from the
//!   source.
//! * No byte is lost when the copy switches to a buffer. If the kernel refuses to drain the pipe,
//!   its contents are read and returned to the caller.
//! * A pipe that is not empty never goes back to the pool.
//! * The source's read lock and the target's write lock are held for one call each. So other
//!   readers may take bytes between two calls, and bytes of other writers may be interleaved with
//!   those of the copy.
//!
//! # Evidence of an empty source
//! A count smaller than requested may mean that the pipe is full. A full pipe has at least one byte
//! in each of its buffers, so on plain TCP a count that is also smaller than the number of buffers
//! means that the source is empty. [`Fd`](crate::net::fd::fd::Fd) ignores this evidence for other
//! sockets and after urgent data, a hang-up or an error.
//!
//! # Urgent data
//! splice(2) does not read past the urgent byte of a TCP socket. At that byte it returns EAGAIN, or
//! 0 if a FIN has arrived, even if there are bytes between the urgent byte and the FIN; recv(2)
//! does read past the urgent byte. So 0 means end of stream only if recv(2) also returns 0, and
//! EAGAIN means an empty source only if no edge ([`backend`](crate::rt::poll::backend)) has
//! reported urgent data. In the other cases, and on EAGAIN after a hang-up or an error, the copy
//! continues through a buffer. If an edge reports urgent data after the EAGAIN, the source becomes
//! ready again.
//!
//! # Cancellation
//! When the copy is dropped, the bytes in the pipe are lost, as are those in the buffer of a
//! buffered copy. A pipe holds at most [`CHUNK_BYTES`], and on current kernels at most
//! [`pipes::PIPE_BYTES`].

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::pipes::{self, Copying};
use super::{CHUNK_BYTES, unless_refused};
use crate::net::fd::operation::{LockScope, Operation, Remaining};
use crate::net::net_fd::NetFd;
use crate::rt::kernel_copies;
use crate::rt::poll::poller::Direction;
use crate::rt::waiters::Waiter;
use crate::sys::socket;
use crate::sys::splice::Pipe;

/// A copy from one socket to another; see the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Splice {
    source: Arc<NetFd>,
    target: Arc<NetFd>,
    pipe: Option<Pipe>,
    /// The number of bytes in the pipe.
    held: usize,
    read: Operation,
    write: Operation,
    _copying: Copying,
}

/// The result of one step.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// This many bytes were taken from the source.
    Took(usize),
    /// This many bytes were written to the target.
    Gave(usize),
    /// The source is at its end, and the pipe is empty.
    End,
    /// The caller must continue with a buffer, because the kernel cannot splice these sockets, no
    /// pipe is available, or urgent data may prevent a splice. The bytes were taken from the source
    /// and have not been written.
    Refused(Vec<u8>),
}

impl Splice {
    pub(crate) fn new(source: Arc<NetFd>, target: Arc<NetFd>) -> Splice {
        let (read, write) = (Operation::new(), Operation::new());
        Splice { source, target, pipe: None, held: 0, read, write, _copying: Copying::begin() }
    }

    /// Returns whether the pipe is empty. If so, a pending step waits for the source, otherwise for
    /// the target.
    pub(crate) fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Polls one step, which fills or drains the pipe with one call. Takes at most `limit` bytes
    /// from the source; `limit` must not be 0.
    pub(crate) fn poll_step(&mut self, cx: &mut Context<'_>, limit: u64) -> Poll<io::Result<Step>> {
        if self.held > 0 { self.poll_drain(cx) } else { self.poll_fill(cx, limit) }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, limit: u64) -> Poll<io::Result<Step>> {
        let most = usize::try_from(limit).map_or(CHUNK_BYTES, |limit| limit.min(CHUNK_BYTES));
        let mut refused = false;
        let polled =
            self.source.fd.poll_call(Direction::Read, LockScope::PerCall, Waiter::Future(&mut self.read), cx, |fd| {
                let pipe = match &self.pipe {
                    Some(pipe) => pipe,
                    None => match pipes::take() {
                        Ok(pipe) => self.pipe.insert(pipe),
                        Err(_) => {
                            refused = true;
                            return Ok((0, Remaining::Maybe));
                        }
                    },
                };
                self.source.fd.ensure_nonblocking();
                let filled = match unless_refused(|| pipe.fill(fd, most)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock && may_be_urgent(&self.source) => None,
                    filled => filled?,
                };
                let count = filled.unwrap_or(0);
                if count > 0 {
                    self.source.fd.poll.count(Direction::Read, count);
                } else {
                    refused = filled.is_none() || !is_at_end(fd)?;
                    if !refused {
                        self.source.fd.end_of_stream()?;
                    }
                }
                Ok((
                    count,
                    if count > 0 && count < pipe.slots.min(most) { Remaining::Nothing } else { Remaining::Maybe },
                ))
            });
        if self.held == 0
            && !matches!(polled, Poll::Ready(Ok(1..)))
            && let Some(pipe) = self.pipe.take()
        {
            pipes::give(pipe);
        }
        Poll::Ready(match ready!(polled) {
            _ if refused => Ok(Step::Refused(Vec::new())),
            Ok(0) => Ok(Step::End),
            Ok(count) => {
                self.held = count;
                Ok(Step::Took(count))
            }
            Err(failure) => Err(self.source.error("read", failure)),
        })
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Step>> {
        let Some(pipe) = &self.pipe else { return Poll::Ready(Err(io::ErrorKind::WriteZero.into())) };
        let held = self.held;
        let polled =
            self.target.fd.poll_call(Direction::Write, LockScope::PerCall, Waiter::Future(&mut self.write), cx, |fd| {
                self.target.fd.ensure_nonblocking();
                let count = unless_refused(|| pipe.drain(fd, held))?;
                if let Some(count) = count {
                    self.target.fd.poll.count(Direction::Write, count);
                }
                Ok((count, Remaining::Maybe))
            });
        Poll::Ready(match ready!(polled) {
            Ok(None) => self.take_back().map(Step::Refused),
            Ok(Some(0)) => Err(io::ErrorKind::WriteZero.into()),
            Ok(Some(count)) => {
                kernel_copies().add(1);
                self.held -= count.min(held);
                Ok(Step::Gave(count))
            }
            Err(failure) => Err(self.target.error("write", failure)),
        })
    }

    /// Reads the contents of the pipe.
    fn take_back(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.held];
        if let Some(pipe) = &self.pipe {
            while self.held > 0 {
                let start = bytes.len() - self.held;
                match pipe.read(&mut bytes[start..]) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(count) => self.held -= count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(bytes)
    }
}

/// Returns whether an edge has reported urgent data, a hang-up or an error. After a hang-up or an
/// error, urgent data cannot be ruled out. Returns false if the source is closed or its deadline
/// has passed.
fn may_be_urgent(source: &NetFd) -> bool {
    source.fd.poll.side(Direction::Read).begin().is_ok_and(|ticket| ticket.distrusts_short_counts())
}

/// Returns whether recv(2) finds the end of the stream.
fn is_at_end(fd: BorrowedFd<'_>) -> io::Result<bool> {
    match socket::recv(fd, &mut [0], libc::MSG_PEEK) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        peeked => peeked.map(|count| count == 0),
    }
}

impl Drop for Splice {
    fn drop(&mut self) {
        self.source.fd.cancel(Direction::Read, &mut self.read);
        self.target.fd.cancel(Direction::Write, &mut self.write);
        if self.held == 0
            && let Some(pipe) = self.pipe.take()
        {
            pipes::give(pipe);
        }
    }
}

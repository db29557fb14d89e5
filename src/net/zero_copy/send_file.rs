//! [`SendFile`]: sending from a file to a socket with sendfile(2).
//!
//! The operation keeps the socket's write lock until it is done. If the kernel refuses the file
//! (such as some files in /proc), the bytes are read with pread(2) and sent under the same lock.
//! `io::copy` makes single calls with [`NetFd::poll_send_from`], and copies the bytes itself if the
//! kernel refuses the file.
//!
//! # Blocking
//! Pages that are not in memory are read from disk during the call, on the thread that polls the
//! future, because a file has no readiness to wait for. A call moves at most [`CHUNK_BYTES`]. If
//! the disk is slow, the monitor of blocked threads (`rt/sched/monitor`) lets another worker run
//! the other tasks, and may add a worker. A single-threaded runtime usually has no monitor. Go also
//! blocks the thread and uses another one.
//!
//! # Cancellation
//! Dropping the future stops sending. [`SendFile::sent`] returns the number of bytes sent so far.

use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::{CHUNK_BYTES, unless_refused};
use crate::net::TcpStream;
use crate::net::fd::operation::{Caller, LockScope, Operation, Remaining};
use crate::net::net_fd::NetFd;
use crate::rt::kernel_copies;
use crate::rt::poll::poller::Direction;
use crate::rt::waiters::Waiter;
use crate::sys::{socket, splice};

/// The maximum number of calls per poll.
const CALLS_PER_POLL: u32 = 4;

/// The size of the buffer for a file that the kernel refuses.
const BUFFER_BYTES: usize = 64 << 10;

impl TcpStream {
    /// Sends `len` bytes of `file`, starting at `offset`, with sendfile(2). The bytes do not pass
    /// through this process. Returns the number of bytes sent, which is smaller than `len` if the
    /// file ends first. With `u64::MAX`, sends to the end of the file. The file's own position is
    /// neither used nor changed.
    ///
    /// Concurrent writes do not interleave, as with [`write_all`](TcpStream::write_all). If the
    /// kernel cannot send from the file, its bytes are read into a buffer and written. Reading from
    /// a disk blocks the thread, for up to 1 MiB at a time.
    ///
    /// # Errors
    /// Returns the same errors as [`write`](TcpStream::write). No SIGPIPE is raised, even in a
    /// program that does not ignore it. Also returns the error of reading the file, such as EIO,
    /// EBADF for a file that is not open for reading, EISDIR for a directory, ESPIPE for a file
    /// without offsets (for a pipe use [`io::copy`](crate::io::copy())), or EOVERFLOW for an offset
    /// of 2⁶³ or more. [`SendFile::sent`] returns the number of bytes sent before the error.
    ///
    /// # Cancel safety
    /// Not cancel safe: part of the file may have been sent. Call [`sent`](SendFile::sent) before
    /// you drop the future to learn how many bytes were sent.
    ///
    /// Source: sendfile(2), `internal/poll.SendFile` of Go.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// # use netpoll::net::{TcpListener, TcpStream};
    /// # let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// # let stream = TcpStream::connect(listener.local_addr()?).await?;
    /// # let (peer, _) = listener.accept().await?;
    /// let file = std::fs::File::open("README.md")?;
    /// assert_eq!(stream.send_file(&file, 2, 7).await?, 7);
    /// let mut buf = [0; 7];
    /// assert_eq!(peer.read(&mut buf).await?, 7);
    /// assert_eq!(&buf, b"netpoll");
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    #[doc(alias = "sendfile")]
    pub fn send_file<'a>(&'a self, file: &'a impl AsFd, offset: u64, len: u64) -> SendFile<'a> {
        SendFile::new(&self.fd, file.as_fd(), offset, len)
    }
}

impl NetFd {
    /// Attempts one sendfile(2) of at most `most` bytes, and at most [`CHUNK_BYTES`], from the
    /// file's current position, which advances. Returns `None` if the kernel refuses the file.
    pub(crate) fn poll_send_from(
        &self,
        caller: Caller<'_>,
        cx: &mut Context<'_>,
        file: BorrowedFd<'_>,
        most: u64,
    ) -> Poll<io::Result<Option<usize>>> {
        let most = usize::try_from(most).map_or(CHUNK_BYTES, |most| most.min(CHUNK_BYTES));
        let polled = self.fd.poll_call(Direction::Write, LockScope::PerCall, caller, cx, |fd| {
            self.fd.ensure_nonblocking();
            let count = unless_refused(|| splice::sendfile(fd, file, None, most))?;
            if let Some(sent) = count {
                self.fd.poll.count(Direction::Write, sent);
                kernel_copies().add(u64::from(sent > 0));
            }
            Ok((count, Remaining::Maybe))
        });
        polled.map_err(|failure| self.error("write", failure))
    }
}

/// Sends a file; returned by [`TcpStream::send_file`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct SendFile<'a> {
    fd: &'a NetFd,
    operation: Operation,
    file: BorrowedFd<'a>,
    offset: u64,
    /// The number of bytes that are still to be sent.
    left: u64,
    sent: u64,
    /// The buffer, once the kernel has refused the file.
    buffer: Option<Buffer>,
}

struct Buffer {
    bytes: Box<[u8]>,
    /// `bytes[start..end]` was read and has not been sent yet.
    start: usize,
    end: usize,
}

impl<'a> SendFile<'a> {
    pub(crate) fn new(fd: &'a NetFd, file: BorrowedFd<'a>, offset: u64, len: u64) -> SendFile<'a> {
        SendFile { fd, operation: Operation::new(), file, offset, left: len, sent: 0, buffer: None }
    }

    /// Returns the number of bytes sent so far, even after an error.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let SendFile { fd, operation, file, offset, left, buffer, .. } = self;
        let most = usize::try_from(*left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        let polled =
            fd.fd.poll_call(Direction::Write, LockScope::WholeOperation, Waiter::Future(operation), cx, |socket| {
                if most == 0 {
                    return Ok((0, Remaining::Maybe));
                }
                fd.fd.ensure_nonblocking();
                let count = match buffer {
                    Some(buffer) => buffer.send(socket, *file, offset, most)?,
                    None => match unless_refused(|| splice::sendfile(socket, *file, Some(offset), most))? {
                        None => {
                            let buffer = buffer.insert(Buffer::new());
                            buffer.send(socket, *file, offset, most)?
                        }
                        Some(count) => {
                            kernel_copies().add(u64::from(count > 0));
                            count
                        }
                    },
                };
                fd.fd.poll.count(Direction::Write, count);
                // The lock is released with the last byte, or at the end of the file.
                Ok((count, if count > 0 && count as u64 != *left { Remaining::More } else { Remaining::Maybe }))
            });
        polled.map_err(|failure| self.fd.error("write", failure))
    }
}

impl Buffer {
    fn new() -> Buffer {
        Buffer { bytes: vec![0; BUFFER_BYTES].into_boxed_slice(), start: 0, end: 0 }
    }

    fn send(&mut self, fd: BorrowedFd<'_>, file: BorrowedFd<'_>, offset: &mut u64, most: usize) -> io::Result<usize> {
        if self.start == self.end {
            let room = most.min(self.bytes.len());
            let count = splice::read_at(file, &mut self.bytes[..room], *offset)?;
            (self.start, self.end) = (0, count);
            *offset += count as u64;
            if count == 0 {
                return Ok(0);
            }
        }
        let count = socket::send(fd, &self.bytes[self.start..self.end], 0)?;
        self.start += count;
        Ok(count)
    }
}

impl Future for SendFile<'_> {
    type Output = io::Result<u64>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        let this = &mut *self;
        for _ in 0..CALLS_PER_POLL {
            let count = ready!(this.poll_step(cx))? as u64;
            this.sent += count;
            this.left -= count;
            if count == 0 || this.left == 0 {
                return Poll::Ready(Ok(this.sent));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for SendFile<'_> {
    fn drop(&mut self) {
        self.fd.fd.cancel(Direction::Write, &mut self.operation);
    }
}

impl fmt::Debug for SendFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("SendFile");
        debug.field("fd", self.fd).field("file", &self.file).field("sent", &self.sent).field("left", &self.left);
        debug.finish_non_exhaustive()
    }
}

//! [`Transfer`]: one direction of a copy, by splice(2), by sendfile(2), or through a buffer.
//!
//! # States
//! The types of the reader and the writer determine the path at the start. If the kernel refuses a
//! transfer, no pipe is available, or urgent data may prevent a splice, the rest of the copy uses
//! the buffer, beginning with the bytes that were in the pipe. At end of stream, an empty buffer
//! flushes the writer, which may have gathered bytes.
//!
//! # Faults
//! A [`Fault`] says whether the reader or the writer failed, because a bidirectional copy continues
//! after a failure of the writer. For sendfile(2), EIO counts as a failure of the reader, because a
//! failed read of the file has this error. Other errors count as failures of the writer, even if
//! the file has caused them (EBADF if it is not open for reading).
//!
//! # A peer that goes away
//! While the reader has no data, a writer that is a socket is watched for a hang-up of both
//! directions, because there is no write that could report it. (Go only waits for the reader; see
//! golang/go issue 58628.) A TCP peer that closes its socket sends a FIN, or a reset if it has
//! unread data. After a FIN, the hang-up is detected when the kernel receives a reset: after the
//! next bytes or a keep-alive probe.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_io::{AsyncRead as Read, AsyncWrite as Write};

use super::buffer::{self, BYTES_PER_POLL, BYTES_PER_STEP, Buffer, Fault};
use crate::net::error::raw_os_error;
use crate::net::fd::operation::Operation;
use crate::net::net_fd::NetFd;
use crate::net::zero_copy::endpoint;
use crate::net::zero_copy::splice::{self, Splice};
use crate::rt::poll::poller::Direction;
use crate::rt::waiters::Waiter;

#[derive(Debug)]
enum Path {
    Splice(Splice),
    /// Sends a file to the socket.
    SendFile(Arc<NetFd>, Operation),
    Buffer(Buffer),
}

/// The reason why a transfer ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The reader is at end of stream.
    Source,
    /// Both directions of the writer's connection are closed, and the connection has no error.
    Gone,
}

/// One direction of a copy; see the [module documentation](self).
#[derive(Debug)]
pub(super) struct Transfer {
    path: Path,
    /// The writer's socket, if the writer is a socket.
    target: Option<Arc<NetFd>>,
    /// The wait for a hang-up of `target`.
    gone: Operation,
    read: u64,
    written: u64,
}

impl Transfer {
    pub(super) fn new<R: ?Sized, W: ?Sized>(reader: &mut R, writer: &mut W) -> Transfer {
        let target = endpoint::socket_of(writer);
        let path = target.as_ref().and_then(|target| {
            endpoint::with_reader(reader, |known| match known.socket() {
                Some(source) => Some(Path::Splice(Splice::new(source, target.clone()))),
                None => known.file().map(|_| Path::SendFile(target.clone(), Operation::new())),
            })
        });
        let path = path.flatten().unwrap_or_else(|| Path::Buffer(Buffer::default()));
        Transfer { path, target, gone: Operation::new(), read: 0, written: 0 }
    }

    /// Returns the number of bytes that were written to the writer.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Shuts down the writing side of the writer if it is a socket, and returns whether it is. Does
    /// not wait for room for gathered bytes, which are sent first. An error is ignored.
    pub(super) fn end_socket(&self) -> bool {
        let ended = self.target.as_ref().map(|target| target.finish_writing());
        ended.is_some()
    }

    /// Returns a number that changes whenever bytes have moved.
    pub(super) fn progress(&self) -> u64 {
        self.read.wrapping_add(self.written)
    }

    /// Returns whether the transfer holds no bytes and its next step takes bytes from the reader.
    /// Returns false if the transfer sends a file, because it then waits only for the writer.
    fn is_empty(&self) -> bool {
        match &self.path {
            Path::Splice(splice) => splice.is_empty(),
            Path::SendFile(..) => false,
            Path::Buffer(buffer) => buffer.is_empty(),
        }
    }

    /// Returns whether the reader has reported end of stream and must not be polled again.
    pub(super) fn is_at_end(&self) -> bool {
        matches!(&self.path, Path::Buffer(buffer) if buffer.is_finished())
    }

    /// Cancels the transfer's waits and drops the bytes that it holds. The transfer must not be
    /// polled again.
    pub(super) fn stop(&mut self) {
        self.cancel();
        self.path = Path::Buffer(Buffer::default());
    }

    pub(super) fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
    ) -> Poll<Result<End, Fault>>
    where
        R: Read + Unpin + ?Sized,
        W: Write + Unpin + ?Sized,
    {
        if let Poll::Ready(ended) = self.poll_path(cx, reader, writer) {
            return Poll::Ready(ended.map(|()| End::Source));
        }
        match &self.target {
            Some(target) if self.is_empty() => {
                target.poll_gone(&mut self.gone, cx).map_ok(|()| End::Gone).map_err(Fault::Writer)
            }
            _ => Poll::Pending,
        }
    }

    fn poll_path<R, W>(&mut self, cx: &mut Context<'_>, reader: &mut R, writer: &mut W) -> Poll<Result<(), Fault>>
    where
        R: Read + Unpin + ?Sized,
        W: Write + Unpin + ?Sized,
    {
        let mut left = BYTES_PER_POLL;
        while left > 0 {
            if let (true, Some(target)) = (self.is_empty(), &self.target) {
                target.check_write().map_err(Fault::Writer)?;
            }
            let before = self.progress();
            if ready!(self.poll_step(cx, reader, writer))? {
                return Poll::Ready(Ok(()));
            }
            left = left.saturating_sub((self.progress() - before).max(BYTES_PER_STEP));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Polls one read or one write. Returns true at the end of the copy.
    fn poll_step<R, W>(&mut self, cx: &mut Context<'_>, reader: &mut R, writer: &mut W) -> Poll<Result<bool, Fault>>
    where
        R: Read + Unpin + ?Sized,
        W: Write + Unpin + ?Sized,
    {
        match &mut self.path {
            Path::Splice(splice) => {
                let limit = endpoint::with_reader(reader, |known| known.limit()).unwrap_or(0);
                if limit == 0 && splice.is_empty() {
                    self.path = Path::Buffer(Buffer::ended());
                    return Poll::Ready(Ok(false));
                }
                let fault = if splice.is_empty() { Fault::Reader } else { Fault::Writer };
                match ready!(splice.poll_step(cx, limit)).map_err(fault)? {
                    splice::Step::Took(count) => {
                        endpoint::with_reader(reader, |known| known.took(count as u64));
                        self.read += count as u64;
                    }
                    splice::Step::Gave(count) => self.written += count as u64,
                    splice::Step::End => self.path = Path::Buffer(Buffer::ended()),
                    splice::Step::Refused(held) => self.path = Path::Buffer(Buffer::holding(held)),
                }
            }
            Path::SendFile(target, operation) => {
                let sent = endpoint::with_reader(reader, |known| {
                    let limit = known.limit();
                    match known.file() {
                        Some(file) if limit > 0 => target.poll_send_from(Waiter::Future(operation), cx, file, limit),
                        _ => Poll::Ready(Ok(Some(0))),
                    }
                });
                match ready!(sent.unwrap_or(Poll::Ready(Ok(None)))).map_err(fault_of_sendfile)? {
                    Some(0) => {
                        target.fd.cancel(Direction::Write, operation);
                        self.path = Path::Buffer(Buffer::ended());
                    }
                    Some(count) => {
                        endpoint::with_reader(reader, |known| known.took(count as u64));
                        self.written += count as u64;
                    }
                    None => {
                        target.fd.cancel(Direction::Write, operation);
                        self.path = Path::Buffer(Buffer::default());
                    }
                }
            }
            Path::Buffer(buffer) => match ready!(buffer.poll_step(cx, reader, writer))? {
                buffer::Step::Read(count) => self.read += count as u64,
                buffer::Step::Wrote(count) => self.written += count as u64,
                buffer::Step::End => return Poll::Ready(Ok(true)),
            },
        }
        Poll::Ready(Ok(false))
    }
}

/// Returns an error of sendfile(2) as a failure of the file (EIO) or of the socket (any other
/// error).
fn fault_of_sendfile(error: io::Error) -> Fault {
    if raw_os_error(&error) == Some(libc::EIO) { Fault::Reader(error) } else { Fault::Writer(error) }
}

impl Transfer {
    /// Cancels the transfer's waits, except those of a splice, which its destructor cancels.
    fn cancel(&mut self) {
        if let Path::SendFile(target, operation) = &mut self.path {
            target.fd.cancel(Direction::Write, operation);
        }
        if let Some(target) = &self.target {
            target.fd.cancel(Direction::Write, &mut self.gone);
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::error::Op;

    #[test]
    fn eio_of_sendfile_is_a_failure_of_the_reader() {
        for (errno, is_of_reader) in [(libc::EIO, true), (libc::EPIPE, false), (libc::ECONNRESET, false)] {
            let plain = io::Error::from_raw_os_error(errno);
            let wrapped = Op::at("write", "tcp", None).call("sendfile", io::Error::from_raw_os_error(errno));
            for error in [plain, wrapped] {
                assert_eq!(matches!(fault_of_sendfile(error), Fault::Reader(_)), is_of_reader, "{errno}");
            }
        }
        assert!(matches!(fault_of_sendfile(io::ErrorKind::TimedOut.into()), Fault::Writer(_)));
    }
}

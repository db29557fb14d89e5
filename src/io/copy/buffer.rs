//! [`Buffer`]: copying through memory.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_io::{AsyncRead as Read, AsyncWrite as Write};

/// The size of the buffer in bytes, as in Go's `io.Copy`.
const BUFFER_BYTES: usize = 32 << 10;

/// The approximate sum of the bytes read and the bytes written in one poll before the task yields.
/// Moving them takes about a millisecond.
pub(super) const BYTES_PER_POLL: u64 = 4 << 20;

/// The minimum number of bytes that a step counts towards [`BYTES_PER_POLL`], because each step has
/// a fixed cost.
pub(super) const BYTES_PER_STEP: u64 = 16 << 10;

/// The cause of a failed transfer.
#[derive(Debug)]
pub(super) enum Fault {
    /// Reading failed. All bytes read before the failure were written.
    Reader(io::Error),
    /// Writing failed, or would fail.
    Writer(io::Error),
}

impl Fault {
    pub(super) fn is_interrupted(&self) -> bool {
        let (Fault::Reader(error) | Fault::Writer(error)) = self;
        error.kind() == io::ErrorKind::Interrupted
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> io::Error {
        let (Fault::Reader(error) | Fault::Writer(error)) = fault;
        error
    }
}

/// A buffer for bytes that were read and not yet written.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    /// Allocated on first use.
    bytes: Vec<u8>,
    /// `bytes[start..end]` was read and is not yet written.
    start: usize,
    end: usize,
    /// Whether the reader is at end of stream.
    finished: bool,
    /// Whether the copy has flushed the writer and has written nothing since then.
    flushed: bool,
}

/// The result of one step.
#[derive(Debug)]
pub(super) enum Step {
    Read(usize),
    Wrote(usize),
    /// The reader is at end of stream, and all bytes are written and flushed.
    End,
}

impl Buffer {
    /// Creates a buffer that contains bytes already read.
    pub(super) fn holding(bytes: Vec<u8>) -> Buffer {
        Buffer { end: bytes.len(), bytes, ..Buffer::default() }
    }

    /// Creates a buffer for a reader that is at end of stream. Its steps only flush the writer.
    pub(super) fn ended() -> Buffer {
        Buffer { finished: true, ..Buffer::default() }
    }

    /// Returns whether the buffer is empty and the reader is not at end of stream. If so, the next
    /// step is a read.
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end && !self.finished
    }

    /// Returns whether the reader reported end of stream.
    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Polls one write of the bytes in the buffer, or one read into the empty buffer. Flushes the
    /// writer before a wait for the reader, and at end of stream. Retries after `Interrupted`.
    pub(super) fn poll_step<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
    ) -> Poll<Result<Step, Fault>>
    where
        R: Read + Unpin + ?Sized,
        W: Write + Unpin + ?Sized,
    {
        loop {
            let step = if self.start < self.end {
                ready!(self.poll_write(cx, writer)).map(Step::Wrote).map_err(Fault::Writer)
            } else if self.finished {
                ready!(self.poll_flush(cx, writer)).map(|()| Step::End).map_err(Fault::Writer)
            } else {
                match self.poll_read(cx, reader) {
                    Poll::Ready(read) => read.map(Step::Read).map_err(Fault::Reader),
                    Poll::Pending if self.flushed => return Poll::Pending,
                    Poll::Pending => match ready!(self.poll_flush(cx, writer)) {
                        Ok(()) => return Poll::Pending,
                        Err(error) => Err(Fault::Writer(error)),
                    },
                }
            };
            match step {
                Err(fault) if fault.is_interrupted() => {}
                step => return Poll::Ready(step),
            }
        }
    }

    /// Reads and drops bytes, about [`BYTES_PER_POLL`] per call. Returns `Ready` when the reader is
    /// at end of stream or fails. A buffer must be used either with this method or with
    /// `poll_step`.
    pub(super) fn poll_discard<R>(&mut self, cx: &mut Context<'_>, reader: &mut R) -> Poll<()>
    where
        R: Read + Unpin + ?Sized,
    {
        let mut left = BYTES_PER_POLL;
        while left > 0 {
            match ready!(self.poll_read(cx, reader)) {
                Ok(count @ 1..) => left = left.saturating_sub((count as u64).max(BYTES_PER_STEP)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return Poll::Ready(()),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_flush<W: Write + Unpin + ?Sized>(&mut self, cx: &mut Context<'_>, writer: &mut W) -> Poll<io::Result<()>> {
        ready!(Pin::new(writer).poll_flush(cx))?;
        self.flushed = true;
        Poll::Ready(Ok(()))
    }

    /// Reads into the empty buffer.
    fn poll_read<R: Read + Unpin + ?Sized>(&mut self, cx: &mut Context<'_>, reader: &mut R) -> Poll<io::Result<usize>> {
        self.bytes.resize(BUFFER_BYTES, 0);
        let count = ready!(Pin::new(reader).poll_read(cx, &mut self.bytes))?.min(self.bytes.len());
        (self.start, self.end) = (0, count);
        self.finished = count == 0;
        Poll::Ready(Ok(count))
    }

    fn poll_write<W: Write + Unpin + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut W,
    ) -> Poll<io::Result<usize>> {
        let rest = &self.bytes[self.start..self.end];
        let count = ready!(Pin::new(writer).poll_write(cx, rest))?.min(rest.len());
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.start += count;
        self.flushed = false;
        Poll::Ready(Ok(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    /// A writer whose first flush is interrupted, and which counts its flushes.
    struct Interrupted {
        flushes: usize,
    }

    impl Write for Interrupted {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes += 1;
            Poll::Ready(if self.flushes == 1 { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) })
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    struct Silent;

    impl Read for Silent {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
    }

    #[test]
    fn interrupted_flush_before_a_wait_is_repeated() {
        let (mut buffer, mut writer) = (Buffer::default(), Interrupted { flushes: 0 });
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..2 {
            assert!(buffer.poll_step(&mut cx, &mut Silent, &mut writer).is_pending());
            assert_eq!(writer.flushes, 2);
        }
    }
}

//! [`Buffer`]: a copy through memory.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_io::{AsyncRead as Read, AsyncWrite as Write};

use super::transfer::{BYTES_PER_POLL, BYTES_PER_STEP, Fault};

/// Go's size: a quarter of loopback's usual window, and few enough bytes to stay in a first-level cache.
const BUFFER_BYTES: usize = 32 << 10;

/// What has been read and not written.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    /// Empty until it is needed.
    bytes: Vec<u8>,
    /// `bytes[start..end]` is read and not yet written.
    start: usize,
    end: usize,
    /// The reader is at its end.
    finished: bool,
    /// Something was written since the last flush.
    unflushed: bool,
}

/// What one step did.
#[derive(Debug)]
pub(super) enum Step {
    Read(usize),
    Wrote(usize),
    /// The reader is at its end, and all is written and flushed.
    End,
}

impl Buffer {
    /// With bytes that were read already.
    pub(super) fn holding(bytes: Vec<u8>) -> Buffer {
        Buffer { end: bytes.len(), bytes, ..Buffer::default() }
    }

    /// Whether it waits for the reader, if for anything.
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end && !self.finished
    }

    /// Whether the reader was at its end.
    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

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
                    Poll::Pending => {
                        if self.unflushed {
                            ready!(self.poll_flush(cx, writer)).map_err(Fault::Writer)?;
                        }
                        return Poll::Pending;
                    }
                }
            };
            match step {
                Err(fault) if fault.is_interrupted() => {}
                step => return Poll::Ready(step),
            }
        }
    }

    /// Reads and discards, one turn's worth at most. Ready when the reader ends or fails. The buffer is used for nothing else.
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
        self.unflushed = false;
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
        self.unflushed = true;
        Poll::Ready(Ok(count))
    }
}

//! Extension methods for readers and writers.

use std::fmt::Arguments;

use netpoll::io::{
    BufReadExt as OurBufReadExt, FlushFuture, ReadExactFuture, ReadExt as OurReadExt, ReadFuture, ReadLineFuture,
    ReadToEndFuture, ReadToStringFuture, ReadUntilFuture, ReadVectoredFuture, SeekExt as OurSeekExt, SeekFuture,
    WriteAllFuture, WriteExt as OurWriteExt, WriteFmtFuture, WriteFuture, WriteVectoredFuture,
};

use crate::io::{BufRead, Bytes, Chain, IoSlice, IoSliceMut, Lines, Read, Seek, SeekFrom, Split, Take, Write};

/// Extension methods for readers. See netpoll's [`ReadExt`](netpoll::io::ReadExt) for details.
pub trait ReadExt: Read {
    /// Reads up to `buf.len()` bytes and returns the number of bytes read; 0 means end of stream,
    /// or that `buf` is empty.
    fn read<'a>(&'a mut self, buf: &'a mut [u8]) -> ReadFuture<'a, Self>
    where
        Self: Unpin,
    {
        OurReadExt::read(self, buf)
    }

    /// Reads into several buffers in order, and returns the number of bytes read; 0 means end of
    /// stream, or that all buffers are empty.
    fn read_vectored<'a>(&'a mut self, bufs: &'a mut [IoSliceMut<'a>]) -> ReadVectoredFuture<'a, Self>
    where
        Self: Unpin,
    {
        OurReadExt::read_vectored(self, bufs)
    }

    /// Reads until the end of the stream, appends the bytes to `buf` and returns their number.
    fn read_to_end<'a>(&'a mut self, buf: &'a mut Vec<u8>) -> ReadToEndFuture<'a, Self>
    where
        Self: Unpin,
    {
        OurReadExt::read_to_end(self, buf)
    }

    /// Reads until the end of the stream, appends the text to `buf` and returns the number of bytes
    /// read. Fails with `InvalidData` if the bytes are not UTF-8.
    fn read_to_string<'a>(&'a mut self, buf: &'a mut String) -> ReadToStringFuture<'a, Self>
    where
        Self: Unpin,
    {
        OurReadExt::read_to_string(self, buf)
    }

    /// Reads exactly `buf.len()` bytes. Fails with `UnexpectedEof` if the stream ends before `buf`
    /// is full.
    fn read_exact<'a>(&'a mut self, buf: &'a mut [u8]) -> ReadExactFuture<'a, Self>
    where
        Self: Unpin,
    {
        OurReadExt::read_exact(self, buf)
    }

    /// Returns a reader that reads at most `limit` bytes from this reader and then reports end of
    /// stream.
    fn take(self, limit: u64) -> Take<Self>
    where
        Self: Sized,
    {
        OurReadExt::take(self, limit)
    }

    /// Returns the reader as a mutable reference, so that an adapter does not consume the reader.
    fn by_ref(&mut self) -> &mut Self
    where
        Self: Sized,
    {
        self
    }

    /// Returns a stream of the reader's bytes.
    fn bytes(self) -> Bytes<Self>
    where
        Self: Sized,
    {
        OurReadExt::bytes(self)
    }

    /// Returns a reader that reads from this reader until the end of the stream, and then from
    /// `next`.
    fn chain<R: Read>(self, next: R) -> Chain<Self, R>
    where
        Self: Sized,
    {
        OurReadExt::chain(self, next)
    }
}

impl<T: Read + ?Sized> ReadExt for T {}

/// Extension methods for writers. See netpoll's [`WriteExt`](netpoll::io::WriteExt) for details.
pub trait WriteExt: Write {
    /// Writes up to `buf.len()` bytes and returns the number of bytes written.
    fn write<'a>(&'a mut self, buf: &'a [u8]) -> WriteFuture<'a, Self>
    where
        Self: Unpin,
    {
        OurWriteExt::write(self, buf)
    }

    /// Flushes the writer: writes all buffered bytes to their destination.
    fn flush(&mut self) -> FlushFuture<'_, Self>
    where
        Self: Unpin,
    {
        OurWriteExt::flush(self)
    }

    /// Writes bytes from several buffers, in order, and returns the number of bytes written.
    fn write_vectored<'a>(&'a mut self, bufs: &'a [IoSlice<'a>]) -> WriteVectoredFuture<'a, Self>
    where
        Self: Unpin,
    {
        OurWriteExt::write_vectored(self, bufs)
    }

    /// Writes all of `buf`.
    fn write_all<'a>(&'a mut self, buf: &'a [u8]) -> WriteAllFuture<'a, Self>
    where
        Self: Unpin,
    {
        OurWriteExt::write_all(self, buf)
    }

    /// Writes formatted text. The macro `write!` calls this method.
    fn write_fmt<'a>(&'a mut self, fmt: Arguments<'_>) -> WriteFmtFuture<'a, Self>
    where
        Self: Unpin,
    {
        OurWriteExt::write_fmt(self, fmt)
    }
}

impl<T: Write + ?Sized> WriteExt for T {}

/// Extension methods for buffered readers. See netpoll's [`BufReadExt`](netpoll::io::BufReadExt)
/// for details.
pub trait BufReadExt: BufRead {
    /// Reads up to and including the next `byte`, or to the end of the stream. Appends the bytes to
    /// `buf` and returns their number; 0 means end of stream.
    fn read_until<'a>(&'a mut self, byte: u8, buf: &'a mut Vec<u8>) -> ReadUntilFuture<'a, Self>
    where
        Self: Unpin,
    {
        OurBufReadExt::read_until(self, byte, buf)
    }

    /// Reads the next line, appends it with its line terminator to `buf` and returns the number of
    /// bytes read; 0 means end of stream.
    fn read_line<'a>(&'a mut self, buf: &'a mut String) -> ReadLineFuture<'a, Self>
    where
        Self: Unpin,
    {
        OurBufReadExt::read_line(self, buf)
    }

    /// Returns a stream of the lines, without their line terminators.
    fn lines(self) -> Lines<Self>
    where
        Self: Unpin + Sized,
    {
        OurBufReadExt::lines(self)
    }

    /// Returns a stream of the segments separated by `byte`.
    fn split(self, byte: u8) -> Split<Self>
    where
        Self: Sized,
    {
        OurBufReadExt::split(self, byte)
    }
}

impl<T: BufRead + ?Sized> BufReadExt for T {}

/// The extension method of types that can seek. See netpoll's [`SeekExt`](netpoll::io::SeekExt) for
/// details.
pub trait SeekExt: Seek {
    /// Seeks to `pos` and returns the new position in bytes from the start of the stream.
    fn seek(&mut self, pos: SeekFrom) -> SeekFuture<'_, Self>
    where
        Self: Unpin,
    {
        OurSeekExt::seek(self, pos)
    }
}

impl<T: Seek + ?Sized> SeekExt for T {}

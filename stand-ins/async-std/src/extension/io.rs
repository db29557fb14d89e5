//! Methods of readers and writers.

use std::fmt::Arguments;

use netpoll::io::{
    BufReadExt as OurBufReadExt, FlushFuture, ReadExactFuture, ReadExt as OurReadExt, ReadFuture, ReadLineFuture,
    ReadToEndFuture, ReadToStringFuture, ReadUntilFuture, ReadVectoredFuture, SeekExt as OurSeekExt, SeekFuture,
    WriteAllFuture, WriteExt as OurWriteExt, WriteFmtFuture, WriteFuture, WriteVectoredFuture,
};

use crate::io::{BufRead, Bytes, Chain, IoSlice, IoSliceMut, Lines, Read, Seek, SeekFrom, Split, Take, Write};

/// Methods of readers: those of netpoll's [`ReadExt`](netpoll::io::ReadExt), which documents them.
pub trait ReadExt: Read {
    /// Reads up to `buf.len()` bytes and returns the number of bytes read; 0 means end of stream.
    fn read<'a>(&'a mut self, buf: &'a mut [u8]) -> ReadFuture<'a, Self>
    where
        Self: Unpin,
    {
        OurReadExt::read(self, buf)
    }

    /// Reads into several buffers, one after the other.
    fn read_vectored<'a>(&'a mut self, bufs: &'a mut [IoSliceMut<'a>]) -> ReadVectoredFuture<'a, Self>
    where
        Self: Unpin,
    {
        OurReadExt::read_vectored(self, bufs)
    }

    /// Appends all bytes up to the end of the stream to `buf`.
    fn read_to_end<'a>(&'a mut self, buf: &'a mut Vec<u8>) -> ReadToEndFuture<'a, Self>
    where
        Self: Unpin,
    {
        OurReadExt::read_to_end(self, buf)
    }

    /// Appends all text up to the end of the stream, which must be UTF-8, to `buf`.
    fn read_to_string<'a>(&'a mut self, buf: &'a mut String) -> ReadToStringFuture<'a, Self>
    where
        Self: Unpin,
    {
        OurReadExt::read_to_string(self, buf)
    }

    /// Fills `buf`. Fails with `UnexpectedEof` if the stream ends before.
    fn read_exact<'a>(&'a mut self, buf: &'a mut [u8]) -> ReadExactFuture<'a, Self>
    where
        Self: Unpin,
    {
        OurReadExt::read_exact(self, buf)
    }

    /// Returns a reader that ends after `limit` bytes.
    fn take(self, limit: u64) -> Take<Self>
    where
        Self: Sized,
    {
        OurReadExt::take(self, limit)
    }

    /// Returns a reference that adapters can take instead of the reader.
    fn by_ref(&mut self) -> &mut Self
    where
        Self: Sized,
    {
        self
    }

    /// Returns the bytes as a stream.
    fn bytes(self) -> Bytes<Self>
    where
        Self: Sized,
    {
        OurReadExt::bytes(self)
    }

    /// Returns a reader of this reader's bytes, followed by those of `next`.
    fn chain<R: Read>(self, next: R) -> Chain<Self, R>
    where
        Self: Sized,
    {
        OurReadExt::chain(self, next)
    }
}

impl<T: Read + ?Sized> ReadExt for T {}

/// Methods of writers: those of netpoll's [`WriteExt`](netpoll::io::WriteExt), which documents them.
pub trait WriteExt: Write {
    /// Writes some bytes of `buf`. Returns their number.
    fn write<'a>(&'a mut self, buf: &'a [u8]) -> WriteFuture<'a, Self>
    where
        Self: Unpin,
    {
        OurWriteExt::write(self, buf)
    }

    /// Writes the bytes that the writer buffers.
    fn flush(&mut self) -> FlushFuture<'_, Self>
    where
        Self: Unpin,
    {
        OurWriteExt::flush(self)
    }

    /// Writes some bytes of several buffers. Returns their number.
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

    /// Writes formatted text; the macro `write!` calls this.
    fn write_fmt<'a>(&'a mut self, fmt: Arguments<'_>) -> WriteFmtFuture<'a, Self>
    where
        Self: Unpin,
    {
        OurWriteExt::write_fmt(self, fmt)
    }
}

impl<T: Write + ?Sized> WriteExt for T {}

/// Methods of buffered readers: those of netpoll's [`BufReadExt`](netpoll::io::BufReadExt), which documents them.
pub trait BufReadExt: BufRead {
    /// Appends all bytes up to and including the next `byte` to `buf`.
    fn read_until<'a>(&'a mut self, byte: u8, buf: &'a mut Vec<u8>) -> ReadUntilFuture<'a, Self>
    where
        Self: Unpin,
    {
        OurBufReadExt::read_until(self, byte, buf)
    }

    /// Appends the next line, including its end, to `buf`.
    fn read_line<'a>(&'a mut self, buf: &'a mut String) -> ReadLineFuture<'a, Self>
    where
        Self: Unpin,
    {
        OurBufReadExt::read_line(self, buf)
    }

    /// Returns the lines, without their ends, as a stream.
    fn lines(self) -> Lines<Self>
    where
        Self: Unpin + Sized,
    {
        OurBufReadExt::lines(self)
    }

    /// Returns the parts between `byte`s as a stream.
    fn split(self, byte: u8) -> Split<Self>
    where
        Self: Sized,
    {
        OurBufReadExt::split(self, byte)
    }
}

impl<T: BufRead + ?Sized> BufReadExt for T {}

/// The method of readers and writers that have a position.
pub trait SeekExt: Seek {
    /// Moves the position. Returns it, counted from the start.
    fn seek(&mut self, pos: SeekFrom) -> SeekFuture<'_, Self>
    where
        Self: Unpin,
    {
        OurSeekExt::seek(self, pos)
    }
}

impl<T: Seek + ?Sized> SeekExt for T {}

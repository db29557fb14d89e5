//! Input and output: types of std, types and functions of netpoll, and extension traits, all under
//! async-std's names.

pub use std::io::{Error, ErrorKind, IoSlice, IoSliceMut, Result, SeekFrom};

#[doc(hidden)]
pub use netpoll::io::{_eprint, _print};
pub use netpoll::io::{
    BufRead, BufReader, BufWriter, Bytes, Chain, Cursor, Empty, IntoInnerError, Lines, Read, Repeat, Seek, Sink, Split,
    Stderr, Stdin, Stdout, Take, Write, empty, repeat, sink, stderr, stdin, stdout, timeout,
};

pub use prelude::{BufReadExt, ReadExt, SeekExt, WriteExt};

pub mod prelude {
    //! The traits for readers and writers, and their extension traits.

    pub use super::{BufRead, Read, Seek, Write};
    pub use crate::extension::{BufReadExt, ReadExt, SeekExt, WriteExt};
}

/// Copies bytes from `reader` to `writer` until the end of the stream, flushes the writer and
/// returns the number of bytes copied.
///
/// # Errors
/// Returns the first error of the reader or the writer, `WriteZero` if the writer accepts no more
/// bytes, or `BrokenPipe` or `ConnectionReset` if the writer is a socket whose peer is gone. Bytes
/// that were read but not yet written are then lost. Retries after `Interrupted`.
///
/// # Cancel safety
/// Not cancel safe: dropping the future loses bytes that were read but not yet written.
#[cfg(not(feature = "unstable"))]
pub async fn copy<R, W>(reader: &mut R, writer: &mut W) -> Result<u64>
where
    R: Read + Unpin + ?Sized,
    W: Write + Unpin + ?Sized,
{
    netpoll::io::copy(reader, writer).await
}

/// Copies bytes from `reader` to `writer` until the end of the stream, flushes the writer and
/// returns the number of bytes copied.
///
/// # Errors
/// Returns the first error of the reader or the writer, `WriteZero` if the writer accepts no more
/// bytes, or `BrokenPipe` or `ConnectionReset` if the writer is a socket whose peer is gone. Bytes
/// that were read but not yet written are then lost. Retries after `Interrupted`.
///
/// # Cancel safety
/// Not cancel safe: dropping the future loses bytes that were read but not yet written.
#[cfg(feature = "unstable")]
pub async fn copy<R, W>(reader: R, writer: W) -> Result<u64>
where
    R: Read + Unpin,
    W: Write + Unpin,
{
    let (mut reader, mut writer) = (reader, writer);
    netpoll::io::copy(&mut reader, &mut writer).await
}

//! Asynchronous input and output: async-std's `io`, over the futures-io traits.
//!
//! The traits are those of `futures-io` under shorter names, so every type here, every socket of [`net`](crate::net) and
//! every futures-io library fit each other. What moves bytes between them (adapters without behaviour of their own) comes
//! from `futures-lite`; what has to keep promises about errors and cancellation is written here.
//!
//! # Cancellation
//!
//! A deadline makes an operation fail, `timeout` and `race` drop it: both may strike in the middle of a line or a buffer.
//! The rule of this module: **what was taken from the reader is in the caller's buffer**, whether an operation
//! succeeds, fails or is dropped. So [`read_until`](BufReadExt::read_until), [`read_to_end`](ReadExt::read_to_end),
//! [`read_line`](BufReadExt::read_line), [`Lines`] and [`Split`] can go on after an error. The exceptions are stated where
//! they are: [`read_exact`](ReadExt::read_exact), [`write_all`](WriteExt::write_all) and [`copy()`] forget how far they came,
//! and a `String` cannot hold half a character.
//!
//! # Errors
//!
//! Errors of the reader or writer come through as they are (`raw_os_error` works); async-std wraps some of them.
//! `Interrupted` is retried by everything that loops. Text that is not UTF-8 is `InvalidData`, and the bytes are in the
//! error: see [`BufReadExt::read_line`].
//!
//! # Compared with Go
//!
//! Go's `bufio` and `io.Copy`; a `Read` at the end gives `Ok(0)` where Go has `io.EOF`.

mod async_fd;
mod buf_read;
mod buf_writer;
mod call;
mod copy;
pub mod prelude;
mod print;
mod read;
mod seek;
mod stdin;
mod stdout;
mod timeout;
mod utf8;
mod write;

#[doc(no_inline)]
pub use std::io::{Error, ErrorKind, IoSlice, IoSliceMut, Result, SeekFrom};

#[doc(inline)]
pub use futures_io::{AsyncBufRead as BufRead, AsyncRead as Read, AsyncSeek as Seek, AsyncWrite as Write};

// The link definitions resolve links in the documentation of the re-exported items, wherever it is read.
/// [`AsyncReadExt::chain()`]: ReadExt::chain
/// [`AsyncReadExt::read()`]: ReadExt::read
/// [`AsyncReadExt::read_vectored()`]: ReadExt::read_vectored
/// [`AsyncReadExt::take()`]: ReadExt::take
/// [`AsyncSeekExt::seek()`]: SeekExt::seek
/// [`AsyncWriteExt::close()`]: WriteExt::close
/// [`AsyncWriteExt::flush()`]: WriteExt::flush
/// [`AsyncWriteExt::write()`]: WriteExt::write
/// [`AsyncWriteExt::write_vectored()`]: WriteExt::write_vectored
#[doc(inline)]
pub use futures_lite::io::{
    AssertAsync, BufReader, Chain, CloseFuture, Cursor, Empty, FlushFuture, ReadFuture, ReadVectoredFuture, Repeat,
    SeekFuture, Sink, Take, WriteFuture, WriteVectoredFuture, empty, repeat, sink,
};

pub use async_fd::{
    AsyncFd, AsyncFdReadWith, AsyncFdReadable, AsyncFdReadyGuard, AsyncFdWritable, AsyncFdWriteWith, NotPollable,
    TryIoError,
};
pub use buf_read::{BufReadExt, Lines, ReadLineFuture, ReadUntilFuture, Split, TooLong};
pub use buf_writer::{BufWriter, IntoInnerError};
pub use copy::{copy, copy_bidirectional, copy_bidirectional_with};
#[doc(hidden)]
pub use print::{_eprint, _print};
pub use read::{Bytes, ReadExactFuture, ReadExt, ReadToEndFuture, ReadToStringFuture};
pub use seek::SeekExt;
pub use stdin::{Stdin, stdin};
pub use stdout::{Stderr, Stdout, stderr, stdout};
pub use timeout::timeout;
pub use write::{WriteAllFuture, WriteExt, WriteFmtFuture};

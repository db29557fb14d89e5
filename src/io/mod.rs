//! Asynchronous input and output: async-std's `io`, based on the futures-io traits.
//!
//! The traits are those of `futures-io` under shorter names, so all types of this module, all
//! stream sockets of [`net`](crate::net) and all futures-io libraries work together. Simple
//! adapters come from `futures-lite`. Adapters that give guarantees about errors and cancellation
//! are implemented here.
//!
//! # Cancel safety
//!
//! A deadline makes an operation fail, whereas `timeout` and `race` drop the operation. Either may
//! happen in the middle of a line or a buffer. In this module, **bytes taken from the reader are in
//! the caller's buffer** or in the stream of pieces ([`Lines`] or [`Split`]), whether an operation
//! succeeds, fails or is dropped. So [`read_until`](BufReadExt::read_until),
//! [`read_to_end`](ReadExt::read_to_end), [`read_line`](BufReadExt::read_line), [`Lines`] and
//! [`Split`] can be resumed after an error. The exceptions are:
//!
//! * [`read_exact`](ReadExt::read_exact), [`write_all`](WriteExt::write_all),
//!   [`write_fmt`](WriteExt::write_fmt), [`copy()`], [`copy_bidirectional`] and
//!   [`copy_bidirectional_with`] lose their progress. The copies also lose bytes that were read and
//!   not yet written.
//! * A `String` can hold neither part of a character nor invalid UTF-8. When an operation fails or
//!   is dropped, these bytes and those after them are lost. When a line or text is complete and is
//!   not UTF-8, its bytes are in the error.
//! * The streams of [`lines_bounded`](BufReadExt::lines_bounded) and
//!   [`split_bounded`](BufReadExt::split_bounded) discard the bytes that they have read of a piece
//!   that is too long.
//! * Dropping a stream of pieces or a [`BufReader`] discards the bytes that it has buffered.
//!
//! # Errors
//!
//! Errors of the reader or writer are returned unchanged, so `raw_os_error` works; async-std wraps
//! some of them. Methods that make several reads or writes retry after `Interrupted`. Reading text
//! that is not UTF-8 fails with `InvalidData`, and the error contains the bytes; see
//! [`BufReadExt::read_line`].
//!
//! # Compared with Go
//!
//! The module corresponds to Go's `bufio` and `io.Copy`. At end of stream a `Read` returns `Ok(0)`
//! where Go returns `io.EOF`.

mod async_fd;
mod buf_read;
mod buf_writer;
mod call;
mod chain;
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

// These link definitions are for the documentation of the re-exported items.
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
    AssertAsync, BufReader, CloseFuture, Cursor, Empty, FlushFuture, ReadFuture, ReadVectoredFuture, Repeat,
    SeekFuture, Sink, Take, WriteFuture, WriteVectoredFuture, empty, repeat, sink,
};

// Items of tokio's and futures' `io` that have other names here, or that this crate does not have.
#[cfg(false)]
pub trait AsyncBufRead {} // absent: use io::BufRead
#[cfg(false)]
pub trait AsyncBufReadExt {} // absent: use netpoll::prelude::*, or io::BufReadExt
#[cfg(false)]
pub trait AsyncRead {} // absent: use io::Read
#[cfg(false)]
pub trait AsyncReadExt {} // absent: use netpoll::prelude::*, or io::ReadExt
#[cfg(false)]
pub trait AsyncWrite {} // absent: use io::Write
#[cfg(false)]
pub trait AsyncWriteExt {} // absent: use netpoll::prelude::*, or io::WriteExt
#[cfg(false)]
pub struct BufStream {} // absent: use io::BufReader and io::BufWriter on (&stream, &stream)
#[cfg(false)]
pub fn duplex() {} // absent: use net::pipe
#[cfg(false)]
pub struct ReadHalf {} // absent: use &stream, or a clone: every operation takes &self
#[cfg(false)]
pub struct WriteHalf {} // absent: use &stream, or a clone: every operation takes &self
#[cfg(false)]
pub mod unix {} // absent: use io::AsyncFd
#[cfg(false)]
pub fn split() {} // absent: use (&stream, &stream), or clones: every operation takes &self

pub use async_fd::{
    AsyncFd, AsyncFdReadWith, AsyncFdReadable, AsyncFdReadyGuard, AsyncFdWritable, AsyncFdWriteWith, NotPollable,
    TryIoError,
};
pub use buf_read::{BufReadExt, Lines, ReadLineFuture, ReadUntilFuture, Split, TooLong};
pub use buf_writer::{BufWriter, IntoInnerError};
pub use chain::Chain;
pub use copy::{copy, copy_bidirectional, copy_bidirectional_with};
#[doc(hidden)]
pub use print::{_eprint, _print};
pub use read::{Bytes, ReadExactFuture, ReadExt, ReadToEndFuture, ReadToStringFuture};
pub use seek::SeekExt;
pub use stdin::{Stdin, stdin};
pub use stdout::{Stderr, Stdout, stderr, stdout};
pub use timeout::timeout;
pub use write::{WriteAllFuture, WriteExt, WriteFmtFuture};

//! [`copy()`] and [`copy_bidirectional`]: everything from a reader to a writer, and both ways.
//!
//! `transfer` is one direction: it chooses between the kernel (`net::zero_copy`) and the `buffer`. `bidirectional` is two of
//! them with half-close and an idle limit.
//!
//! # Invariants
//! * The reader is not polled again after it said it was at its end.
//! * While it waits for the reader nothing sits in a buffered writer: that is flushed first (the other end may be
//!   waiting for it before it sends more).
//! * Nothing is taken from the reader when the writer is a socket that is closed or past its deadline.
//! * A reader and a writer that are always ready do not hold their thread for ever: after
//!   [`BYTES_PER_POLL`](transfer::BYTES_PER_POLL) or so the task yields.
//!
//! # Compared with Go
//! `io.Copy`, with its buffer size and its choice of splice, sendfile or the buffer.

mod bidirectional;
mod buffer;
#[cfg(test)]
mod refusal_tests;
mod transfer;

use std::future::poll_fn;
use std::io;
use std::task::ready;

use futures_io::{AsyncRead as Read, AsyncWrite as Write};

use transfer::{End, Transfer};

pub use bidirectional::{copy_bidirectional, copy_bidirectional_with};

/// Copies everything from `reader`, to its end, to `writer`, flushes that and says how many bytes went. The writer is not closed.
///
/// From a stream socket of this crate to another the bytes stay in the kernel (splice(2)), and so they do from a
/// [`File`](std::fs::File) in [`AssertAsync`](crate::io::AssertAsync) to a socket (sendfile(2)): also through references and, for the
/// reader, through [`take`](crate::io::ReadExt::take). Anything else, and what the kernel refuses, goes through a buffer of 32 KiB; so does
/// a TCP stream from its first urgent byte on. [`Metrics::kernel_copies`](crate::rt::Metrics::kernel_copies) counts. Reading a file that is
/// not in memory blocks the thread for as long as the disk takes.
///
/// A writer that is a socket is watched while the reader has nothing: when its peer is gone, the copy ends.
///
/// # Errors
/// Those of the reader and the writer, unchanged (async-std puts a text in front and hides the code); `Interrupted` is
/// retried; `WriteZero` when the writer takes nothing more; `BrokenPipe` or `ConnectionReset` when its peer is gone. No SIGPIPE is
/// raised, also in a program that does not ignore it. A writer's expired deadline or close is found before anything is read.
///
/// # Cancellation
/// The bytes that have been read and not yet written are lost when it fails or is dropped: up to 32 KiB in the buffer, or what
/// the pipe of a splice holds (some hundred KiB), which only happens while it waits for the writer.
///
/// ```
/// use netpoll::io;
///
/// # netpoll::task::block_on(async {
/// let (mut reader, mut writer) = (&b"hello"[..], Vec::new());
/// assert_eq!(io::copy(&mut reader, &mut writer).await?, 5);
/// assert_eq!(writer, b"hello");
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub async fn copy<R, W>(reader: &mut R, writer: &mut W) -> io::Result<u64>
where
    R: Read + Unpin + ?Sized,
    W: Write + Unpin + ?Sized,
{
    let mut transfer = Transfer::new(reader, writer);
    poll_fn(|cx| {
        std::task::Poll::Ready(match ready!(transfer.poll(cx, reader, writer))? {
            End::Source => Ok(transfer.written()),
            End::Gone => Err(io::ErrorKind::BrokenPipe.into()),
        })
    })
    .await
}

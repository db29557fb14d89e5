//! [`copy()`] and [`copy_bidirectional`]: copying all bytes from a reader to a writer, and in both
//! directions.
//!
//! `transfer` is one direction: it chooses between the kernel (`net::zero_copy`) and the `buffer`.
//! `bidirectional` combines two of them, with half-close and an idle limit.
//!
//! # Invariants
//! * The reader is not polled again after it reported end of stream.
//! * While a copy waits for the reader, a buffered writer holds no bytes: it is flushed first,
//!   because the other side may wait for them before it sends more.
//! * Nothing is taken from the reader if the writer is a socket that is closed or past its
//!   deadline.
//! * A reader and a writer that are always ready do not occupy their thread forever: after about
//!   [`BYTES_PER_POLL`](transfer::BYTES_PER_POLL) the task yields.
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

/// Copies all bytes from `reader` to `writer` until end of stream, and flushes the writer. Returns
/// the number of bytes copied. The writer is not closed.
///
/// Between stream sockets of this crate the bytes stay in the kernel (splice(2)), as they do from a
/// [`File`](std::fs::File) in [`AssertAsync`](crate::io::AssertAsync) to a socket (sendfile(2)).
/// This also works through references and, for the reader, through
/// [`take`](crate::io::ReadExt::take). All other types, and transfers that the kernel refuses, use
/// a buffer of 32 KiB; so does a TCP stream from its first urgent byte on.
/// [`Metrics::kernel_copies`](crate::rt::Metrics::kernel_copies) counts kernel copies. Reading a
/// file that is not in memory blocks the thread while the disk is read.
///
/// If the writer is a socket, it is watched while the reader has no data: the copy ends when the
/// writer's peer is gone.
///
/// # Errors
/// Returns the error of the reader or the writer unchanged (async-std adds a text and hides the
/// code); `Interrupted` is retried. Returns `WriteZero` if the writer accepts no more bytes, and
/// `BrokenPipe` or `ConnectionReset` if its peer is gone. No SIGPIPE is raised, even in a program
/// that does not ignore it. If the writer is closed or past its deadline, the error is returned
/// before anything is read.
///
/// # Cancel safety
/// Not cancel safe: bytes that were read and not written yet are lost if the copy fails or is
/// dropped. These are up to 32 KiB in the buffer, or the contents of a splice pipe (a few hundred
/// KiB), and only while the copy waits for the writer.
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

//! [`copy()`] and [`copy_bidirectional`]: copying all bytes from a reader to a writer, in one
//! direction or in both.
//!
//! `transfer` copies in one direction, through the kernel (`net::zero_copy`) or through a `buffer`.
//! `bidirectional` combines two transfers, with half-close and an idle limit.
//!
//! # Invariants
//! * The reader is not polled again after it has reported end of stream.
//! * A copy through a buffer flushes the writer before each wait for the reader, because the peer
//!   may wait for buffered bytes before it sends more. It omits the flush if it has written no
//!   bytes since the last flush. It flushes before the first wait in any case, because the caller
//!   may have written bytes before the copy. (tokio's copy does not flush before the first wait,
//!   and async-std's flushes only at the end.)
//! * No bytes are taken from the reader if the writer is a socket that is closed or past its
//!   deadline.
//! * A reader and a writer that are always ready do not monopolise their thread: the task yields
//!   after about [`BYTES_PER_POLL`](buffer::BYTES_PER_POLL).
//!
//! # Compared with Go
//! The buffer size is that of `io.Copy`, which also uses splice, sendfile or a buffer, depending on
//! the types of the reader and the writer.

mod bidirectional;
mod buffer;
#[cfg(all(test, target_os = "linux"))]
mod refusal_tests;
mod transfer;

use std::future::poll_fn;
use std::io;
use std::task::ready;

use futures_io::{AsyncRead as Read, AsyncWrite as Write};

use transfer::{End, Transfer};

pub use bidirectional::{copy_bidirectional, copy_bidirectional_with};

/// Copies all bytes from `reader` to `writer` until end of stream, and flushes the writer. Returns
/// the number of bytes copied. The writer is not closed. Bytes that the writer has buffered, from
/// the copy or from earlier writes, are flushed before the copy waits for the reader.
///
/// Between stream sockets of this crate, and from a [`File`](std::fs::File) in
/// [`AssertAsync`](crate::io::AssertAsync) to a socket, the bytes stay in the kernel (splice(2) and
/// sendfile(2)). This also works through references and, for the reader, through
/// [`take`](crate::io::ReadExt::take). Copies between other types use a buffer of 32 KiB. So do
/// copies that the kernel refuses or for which no pipe is available, copies from a TCP stream after
/// its first urgent byte, and copies between sockets on systems other than Linux.
/// [`Metrics::kernel_copies`](crate::rt::Metrics::kernel_copies) counts the calls that move bytes
/// to a socket within the kernel. Reading a file that is not in the page cache blocks the thread
/// while the disk is read.
///
/// If the writer is a socket, the copy watches the socket while it waits for the reader, and fails
/// when the socket's peer is gone.
///
/// # Errors
/// Returns the error of the reader or the writer unchanged (async-std adds a text and hides the OS
/// error code); retries after `Interrupted`. Returns `WriteZero` if the writer accepts no more
/// bytes, and `BrokenPipe` or `ConnectionReset` if the writer's peer is gone. Writing to a socket
/// raises no SIGPIPE, even in a program that does not ignore the signal. If the writer is a socket
/// that is closed or past its deadline, the copy fails before it reads further bytes.
///
/// # Cancel safety
/// Not cancel safe: if the copy fails or is dropped, bytes that were read but not yet written are
/// lost. These are up to 32 KiB in the buffer, or up to 256 KiB in a splice pipe (1 MiB on old
/// kernels).
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

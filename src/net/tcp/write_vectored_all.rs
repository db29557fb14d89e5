//! Writing several buffers completely: [`WriteVectoredAll`], like Go's `net.Buffers`.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::TcpStream;
use crate::net::fd::operation::{Gathered, LockScope, Operation, Remaining};
use crate::net::net_fd::NetFd;
use crate::rt::poll::poller::Direction;
use crate::rt::waiters::Waiter;
use crate::sys::socket;

impl TcpStream {
    /// Writes all of `bufs`, up to 1,024 of them per sendmsg(2). Concurrent calls do not
    /// interleave, as with [`write_all`](TcpStream::write_all).
    ///
    /// `bufs` may contain empty buffers. The elements of `bufs` are advanced as bytes are written.
    /// After the future has completed, even with an error, or was dropped, it is unspecified which
    /// bytes they refer to.
    ///
    /// # Errors
    /// Returns the same errors as [`write`](TcpStream::write). Part of the data may have been
    /// written.
    ///
    /// # Cancel safety
    /// Not cancel safe: part of the data may have been written, and the amount is unknown.
    ///
    /// Source: `net.Buffers` of Go, `Write::write_all_vectored` of std.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// # use netpoll::net::{TcpListener, TcpStream};
    /// # let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// # let stream = TcpStream::connect(listener.local_addr()?).await?;
    /// # let (peer, _) = listener.accept().await?;
    /// use std::io::IoSlice;
    ///
    /// stream.write_vectored_all(&mut [IoSlice::new(b"head"), IoSlice::new(b"body")]).await?;
    /// let mut buf = [0; 8];
    /// assert_eq!(peer.read(&mut buf).await?, 8);
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    #[doc(alias = "net.Buffers")]
    #[doc(alias = "write_all_vectored")]
    pub fn write_vectored_all<'a, 'b>(&'a self, bufs: &'a mut [IoSlice<'b>]) -> WriteVectoredAll<'a, 'b> {
        WriteVectoredAll { fd: &self.fd, operation: Operation::new(), bufs }
    }
}

/// Writes several buffers completely; returned by [`TcpStream::write_vectored_all`].
#[derive(Debug)]
#[must_use = "futures do nothing unless they are awaited"]
pub struct WriteVectoredAll<'a, 'b> {
    fd: &'a NetFd,
    operation: Operation,
    bufs: &'a mut [IoSlice<'b>],
}

impl WriteVectoredAll<'_, '_> {
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let bufs: &[IoSlice<'_>] = self.bufs;
        let (count, bytes) = batch(bufs);
        // While the first buffer exceeds the limit per call, a call writes only its first `MAX_RW`
        // bytes.
        let cut;
        let (batch, bytes) = if count == 0 && !bufs.is_empty() {
            cut = [IoSlice::new(&bufs[0][..socket::MAX_RW])];
            (&cut[..], socket::MAX_RW)
        } else {
            (&bufs[..count], bytes)
        };
        let more = bufs[count..].iter().any(|buf| !buf.is_empty());
        let (direction, scope, caller) =
            (Direction::Write, LockScope::WholeOperation, Waiter::Future(&mut self.operation));
        let append = || if more { None } else { self.fd.fd.append(batch, bytes) };
        let polled = self.fd.fd.poll_call_gathering(direction, scope, caller, cx, append, |fd, gathered| {
            let written = match gathered {
                Gathered::Nothing => socket::send_vectored(fd, batch)?,
                Gathered::First => self.fd.fd.send_after_gathered(fd, batch)?,
            };
            let left = match written {
                _ if written < bytes => Remaining::Nothing,
                _ if more => Remaining::More,
                _ => Remaining::Maybe,
            };
            Ok((written, left))
        });
        self.fd.moved(direction, polled)
    }
}

/// Returns how many of `bufs` fit into one call, and their total size in bytes.
fn batch(bufs: &[IoSlice<'_>]) -> (usize, usize) {
    let mut bytes = 0;
    for (index, buf) in bufs.iter().take(socket::IOVECS_MAX).enumerate() {
        if buf.len() > socket::MAX_RW - bytes {
            return (index, bytes);
        }
        bytes += buf.len();
    }
    (bufs.len().min(socket::IOVECS_MAX), bytes)
}

impl Future for WriteVectoredAll<'_, '_> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        IoSlice::advance_slices(&mut this.bufs, 0);
        loop {
            // Polls even if there is nothing to write, so that a closed socket or an expired
            // deadline is reported.
            let written = ready!(this.poll_step(cx))?;
            if this.bufs.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            IoSlice::advance_slices(&mut this.bufs, written);
            if this.bufs.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl Drop for WriteVectoredAll<'_, '_> {
    fn drop(&mut self) {
        self.fd.fd.cancel(Direction::Write, &mut self.operation);
    }
}

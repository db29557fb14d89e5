//! Items for crates that implement another crate's traits for the sockets of this crate:
//! [`poll_read_uninit`] for uninitialised buffers, and views of sockets for `netpoll-hyper`.
//!
//! [`poll_read_uninit`]: TcpStream::poll_read_uninit

use std::future::{Future, pending};
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::net::error::is_deadline;
use crate::net::fd::operation::Operation;
use crate::net::futures::{PeerClosed, operation_future};
use crate::net::net_fd::NetFd;
use crate::net::tcp::incoming::is_lack_of_resources;
use crate::net::tcp::{TcpListener, TcpStream};
use crate::net::unix::{UnixListener, UnixStream};
use crate::rt::poll::poller::{Direction, Failure};
use crate::rt::time::sleep::Sleep;
use crate::sys::socket;

/// Implements `poll_read_uninit` for stream types.
macro_rules! read_uninit {
    ($($stream:ident),*) => {$(
        /// Reading, for adapters.
        impl $stream {
            /// Attempts to read, as `AsyncRead::poll_read` does, into memory that need not be
            /// initialised. Returns the number of bytes read; 0 means end of stream (or that `buf`
            /// is empty). `unsafe` code may rely on that many bytes at the start of `buf` being
            /// initialised.
            ///
            /// Use this method to implement another crate's reading trait. If nothing is available,
            /// returns `Pending` and wakes the task at the next read event. If more than 4,096
            /// tasks wait this way, they repeatedly wake each other. If an earlier read in the same
            /// poll of the task did not fill its buffer, this method may return `Pending` without a
            /// system call. If bytes have arrived since, the task is woken.
            ///
            /// # Errors
            #[doc = concat!("Returns the same errors as [`read`](", stringify!($stream), "::read).")]
            ///
            /// # Examples
            /// ```
            /// # netpoll::task::block_on(async {
            #[doc = concat!("# use netpoll::{net::TcpListener, net::TcpStream, os::unix::net::UnixStream};")]
            /// use std::future::poll_fn;
            ///
            #[doc = concat!("async fn append(stream: &", stringify!($stream), ", to: &mut Vec<u8>) -> std::io::Result<usize> {")]
            ///     to.reserve(1);
            ///     let count = poll_fn(|cx| stream.poll_read_uninit(cx, to.spare_capacity_mut())).await?;
            ///     // SAFETY: this many bytes after the length are initialised.
            ///     unsafe { to.set_len(to.len() + count) };
            ///     Ok(count)
            /// }
            /// # let (stream, peer) = UnixStream::pair()?;
            /// # drop(append);
            /// # peer.write_all(b"hello").await?;
            /// # let mut bytes = Vec::with_capacity(64);
            /// # let count = poll_fn(|cx| stream.poll_read_uninit(cx, bytes.spare_capacity_mut())).await?;
            /// # unsafe { bytes.set_len(count) };
            /// # assert_eq!(bytes, b"hello");
            /// # std::io::Result::Ok(()) }).unwrap();
            /// ```
            #[inline]
            pub fn poll_read_uninit(
                &self,
                cx: &mut Context<'_>,
                buf: &mut [MaybeUninit<u8>],
            ) -> Poll<io::Result<usize>> {
                self.fd.poll_read_uninit(cx, buf)
            }
        }
    )*};
}

read_uninit!(TcpStream, UnixStream);

/// A weak reference to a stream's socket, for `netpoll-hyper`. It does not keep the socket open.
#[derive(Debug)]
pub struct SocketView(Weak<NetFd>);

impl From<&TcpStream> for SocketView {
    fn from(stream: &TcpStream) -> SocketView {
        SocketView(Arc::downgrade(&stream.fd))
    }
}

impl From<&UnixStream> for SocketView {
    fn from(stream: &UnixStream) -> SocketView {
        SocketView(Arc::downgrade(&stream.fd))
    }
}

impl SocketView {
    /// Returns whether the kernel has data, end of stream or an error for a read. Returns false if
    /// the socket was closed.
    pub fn is_readable(&self) -> bool {
        self.0.upgrade().is_some_and(|fd| is_readable(&fd))
    }

    /// Waits until the connection is reset, closed in both directions or force-closed, or until the
    /// wait fails, for example because the runtime is shut down. Never completes if the write
    /// deadline passes first, or if the socket was dropped before the first poll. From its first
    /// poll, the future keeps the socket open.
    pub async fn aborted(&self) {
        let Some(fd) = self.0.upgrade() else { return pending().await };
        match Aborted::new(&fd).await {
            // The kernel's ETIMEDOUT does not match, because it means that the connection has
            // failed.
            Err(error) if is_deadline(&error) => pending().await,
            _ => {}
        }
    }
}

fn is_readable(fd: &NetFd) -> bool {
    fd.with("read", |fd| socket::is_ready(fd, false)).unwrap_or(false)
}

operation_future! {
    /// Waits until neither side can send, or the connection has failed.
    #[expect(unreachable_pub, reason = "most futures of this macro are public")]
    Aborted<'a> {}, Write -> io::Result<()>,
    |this, cx| this.fd.poll_gone(&mut this.operation, cx)
}

/// The view of a listener that the server of `netpoll-hyper` needs.
pub trait ListenerView {
    /// Returns whether the kernel's queue contains a connection.
    fn is_queued(&self) -> bool;

    /// Waits until the listener accepts no more connections, and returns the reason as an error:
    /// the listener is closed, its deadline has passed, the runtime is shut down, or another owner
    /// of the socket has shut it down (EINVAL, as from a blocking accept(2)).
    fn until_closed(&self) -> impl Future<Output = io::Result<()>> + Send;
}

/// The time after which a wait for the end of a listener tries again to register the listener.
const REGISTER_PAUSE: Duration = Duration::from_millis(100);

macro_rules! listener_view {
    ($($listener:ident),*) => {$(
        impl ListenerView for $listener {
            fn is_queued(&self) -> bool {
                is_readable(&self.fd)
            }

            async fn until_closed(&self) -> io::Result<()> {
                loop {
                    match PeerClosed::new(&self.fd, "accept").await {
                        Err(error) if is_lack_of_resources(&error) => Sleep::new(REGISTER_PAUSE).await,
                        ended => break ended?,
                    }
                }
                // A listener has no peer, so a hang-up means that the listener was shut down.
                Err(self.fd.error("accept", Failure::Io(io::Error::from_raw_os_error(libc::EINVAL))))
            }
        }
    )*};
}

listener_view!(TcpListener, UnixListener);

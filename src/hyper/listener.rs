//! [`Listener`]: a source of connections, and [`Watch`], a view of their sockets.

use std::future::{Future, pending};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use futures_core::Stream;

use crate::net::fd::operation::Operation;
use crate::net::futures::{PeerClosed, operation_future};
use crate::net::net_fd::NetFd;
use crate::net::unix::{UnixListener, UnixStream};
use crate::net::{TcpListener, TcpStream, is_timeout};
use crate::rt::poll::poller::Direction;
use crate::sys::socket;

/// A source of connections for a server; implemented for listeners, references to them and `Arc`s
/// of them.
pub trait Listener {
    /// The connection type.
    type Io: Send + 'static;

    /// Returns a stream of connections. An error ends the server.
    fn accepted(&self) -> impl Stream<Item = io::Result<Self::Io>> + Send;

    /// Completes when the listener is closed. It is polled while the server is at its limit of
    /// connections and accepts none.
    fn closed(&self) -> impl Future<Output = ()> + Send;

    /// Returns whether a connection is in the listener's queue, whether or not
    /// [`accepted`](Listener::accepted) has been notified of it. It is called when the server
    /// stops. The default implementation returns false.
    fn is_queued(&self) -> bool {
        false
    }

    /// Returns a view of the socket of `io`. The default implementation returns `None`; see
    /// [`Watch`] for the consequences.
    fn watch(io: &Self::Io) -> Option<Watch> {
        let _ = io;
        None
    }
}

/// A view of the socket under a connection, with which the server sees events that TLS or an HTTP
/// library hides.
///
/// With it a server drops the handler of an HTTP/1 request when the peer resets the connection or
/// [`force_close`](TcpStream::force_close) closes it. It also answers a request that has arrived
/// when the server stops even if the runtime has not been notified of it yet.
///
/// # Examples
/// A listener of your own passes on the view of the underlying stream:
/// ```
/// use netpoll::hyper::{Listener, Watch};
/// use netpoll::{io, net::{TcpListener, TcpStream}, prelude::*};
/// use std::future::Future;
///
/// /// A listener that logs.
/// struct Logging(TcpListener);
///
/// impl Listener for Logging {
///     type Io = TcpStream;
///
///     fn accepted(&self) -> impl Stream<Item = io::Result<TcpStream>> + Send {
///         self.0.incoming().inspect(|stream| eprintln!("{stream:?}"))
///     }
///
///     fn closed(&self) -> impl Future<Output = ()> + Send {
///         Listener::closed(&self.0)
///     }
///
///     fn is_queued(&self) -> bool {
///         self.0.is_queued()
///     }
///
///     fn watch(io: &TcpStream) -> Option<Watch> {
///         Some(Watch::from(io))
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Watch(Weak<NetFd>);

impl From<&TcpStream> for Watch {
    fn from(stream: &TcpStream) -> Watch {
        Watch(stream.downgrade())
    }
}

impl From<&UnixStream> for Watch {
    fn from(stream: &UnixStream) -> Watch {
        Watch(stream.downgrade())
    }
}

impl Watch {
    /// Returns whether bytes, the peer's FIN or an error can be read, in which case a reader has
    /// been or will be woken.
    pub(super) fn is_readable(&self) -> bool {
        self.0.upgrade().is_some_and(|fd| is_readable(&fd))
    }

    /// Waits until the connection is reset or closed by force.
    ///
    /// It keeps the socket alive from its first poll on, but not before: the only handle can still
    /// be converted into one of std.
    pub(super) async fn aborted(&self) {
        let Some(fd) = self.0.upgrade() else { return pending().await };
        match Aborted::new(&fd).await {
            // A write deadline concerns only writes.
            Err(error) if is_timeout(&error) => pending().await,
            _ => {}
        }
    }
}

/// Asks the kernel whether the socket is readable.
fn is_readable(fd: &NetFd) -> bool {
    fd.with("read", |fd| socket::is_ready(fd, false)).unwrap_or(false)
}

operation_future! {
    /// Waits until neither side can send any more.
    #[expect(unreachable_pub, reason = "most futures of this macro are public")]
    Aborted<'a> {}, Write -> io::Result<()>,
    |this, cx| this.fd.poll_gone(&mut this.operation, cx)
}

/// Implements the trait for a listener with `incoming()` and `as_net_fd()`.
macro_rules! listener {
    ($listener:ty => $stream:ty) => {
        impl Listener for $listener {
            type Io = $stream;

            fn accepted(&self) -> impl Stream<Item = io::Result<$stream>> + Send {
                self.incoming()
            }

            async fn closed(&self) {
                // A listener has no peer, so only a close can end this.
                let _ = PeerClosed::new(self.as_net_fd()).await;
            }

            fn is_queued(&self) -> bool {
                is_readable(self.as_net_fd())
            }

            fn watch(io: &$stream) -> Option<Watch> {
                Some(Watch::from(io))
            }
        }
    };
}

listener!(TcpListener => TcpStream);
listener!(UnixListener => UnixStream);

/// Implements the trait for a type that holds a listener.
macro_rules! holder {
    ($holder:ty) => {
        impl<L: Listener> Listener for $holder {
            type Io = L::Io;

            fn accepted(&self) -> impl Stream<Item = io::Result<L::Io>> + Send {
                L::accepted(self)
            }

            fn closed(&self) -> impl Future<Output = ()> + Send {
                L::closed(self)
            }

            fn is_queued(&self) -> bool {
                L::is_queued(self)
            }

            fn watch(io: &L::Io) -> Option<Watch> {
                L::watch(io)
            }
        }
    };
}

holder!(&L);
holder!(Arc<L>);

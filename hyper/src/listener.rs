//! [`Listener`]: a source of connections. [`Watch`]: a view of the socket of a connection.

use std::future::Future;
use std::io;
use std::sync::Arc;

use futures_core::Stream;
use netpoll::__private::{ListenerView, SocketView};
use netpoll::net::{TcpListener, TcpStream};
use netpoll::os::unix::net::{UnixListener, UnixStream};
use netpoll::prelude::*;

use super::socket::Socket;

/// A source of connections for a server. The trait is implemented for [`TcpListener`] and
/// [`UnixListener`], and for references to listeners and `Arc`s of listeners.
pub trait Listener {
    /// The type of a connection.
    type Io: Send + 'static;

    /// Returns a stream of connections. An error or the end of the stream stops the server. The
    /// server returns the error, unless the error is a [closed](netpoll::net::is_closed) error or
    /// the server was already stopping.
    fn accepted(&self) -> impl Stream<Item = io::Result<Self::Io>> + Send;

    /// Waits until the listener accepts no more connections. Returns an error if the stream of
    /// [`accepted`](Listener::accepted) would return one, such as `TimedOut` after the listener's
    /// deadline. The server polls this future while it is at its connection limit and does not
    /// accept. The server stops when the future is ready.
    fn closed(&self) -> impl Future<Output = io::Result<()>> + Send;

    /// Returns whether a connection is in the listener's queue, even if the stream of
    /// [`accepted`](Listener::accepted) has not been notified of this connection. The server calls
    /// this method when it stops. The default implementation returns false.
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

/// A view of the socket of a connection. With the view, a server detects events that TLS or an HTTP
/// library hides.
///
/// A server with this view drops the handler of an HTTP/1 request when the peer resets the
/// connection, or when [`force_close`](TcpStream::force_close) closes the connection. A stopping
/// server also answers a request that has arrived but whose event the runtime has not received yet.
///
/// # Examples
/// A listener that wraps another one passes on the view of the underlying stream:
/// ```
/// use netpoll::{io, net::TcpListener, net::TcpStream, prelude::*};
/// use netpoll_hyper::{Listener, Socket, Watch};
/// use std::future::Future;
///
/// /// A listener that logs.
/// struct Logging(TcpListener);
///
/// impl Listener for Logging {
///     type Io = Socket<TcpStream>;
///
///     fn accepted(&self) -> impl Stream<Item = io::Result<Socket<TcpStream>>> + Send {
///         self.0.accepted().inspect(|stream| eprintln!("{stream:?}"))
///     }
///
///     fn closed(&self) -> impl Future<Output = io::Result<()>> + Send {
///         Listener::closed(&self.0)
///     }
///
///     fn is_queued(&self) -> bool {
///         self.0.is_queued()
///     }
///
///     fn watch(io: &Socket<TcpStream>) -> Option<Watch> {
///         Some(Watch::from(io))
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Watch(SocketView);

impl Watch {
    /// Returns whether bytes, the peer's FIN or an error can be read. If so, a waiting reader was
    /// or will be woken. Returns false if the socket was dropped or closed.
    pub(super) fn is_readable(&self) -> bool {
        self.0.is_readable()
    }

    /// Waits until the connection is reset, is closed in both directions, or is closed by
    /// `force_close`, or until the wait fails, for example because the runtime is shut down. Never
    /// completes if the socket's write deadline passes first, or if the socket was dropped before
    /// the first poll.
    ///
    /// The future keeps the socket open only from its first poll on. Before this poll, the only
    /// handle of the socket can still be converted into a std socket.
    pub(super) async fn aborted(&self) {
        self.0.aborted().await;
    }
}

/// Implements `Listener` for a listener, and the conversions of its streams into `Watch`.
macro_rules! listener {
    ($listener:ident => $stream:ident) => {
        impl Listener for $listener {
            type Io = Socket<$stream>;

            fn accepted(&self) -> impl Stream<Item = io::Result<Socket<$stream>>> + Send {
                self.incoming().map(|stream| stream.map(Socket::new))
            }

            fn closed(&self) -> impl Future<Output = io::Result<()>> + Send {
                self.until_closed()
            }

            fn is_queued(&self) -> bool {
                ListenerView::is_queued(self)
            }

            fn watch(io: &Socket<$stream>) -> Option<Watch> {
                Some(Watch::from(io))
            }
        }

        impl From<&$stream> for Watch {
            fn from(stream: &$stream) -> Watch {
                Watch(SocketView::from(stream))
            }
        }

        impl From<&Socket<$stream>> for Watch {
            fn from(socket: &Socket<$stream>) -> Watch {
                Watch(SocketView::from(&**socket))
            }
        }
    };
}

listener!(TcpListener => TcpStream);
listener!(UnixListener => UnixStream);

/// Implements `Listener` for a pointer to a listener.
macro_rules! holder {
    ($holder:ty) => {
        impl<L: Listener> Listener for $holder {
            type Io = L::Io;

            fn accepted(&self) -> impl Stream<Item = io::Result<L::Io>> + Send {
                L::accepted(self)
            }

            fn closed(&self) -> impl Future<Output = io::Result<()>> + Send {
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

//! [`Listener`]: a source of connections, and [`Watch`], a view of their sockets.

use std::future::Future;
use std::io;
use std::sync::Arc;

use futures_core::Stream;
use netpoll::__private::{ListenerView, SocketView};
use netpoll::net::{TcpListener, TcpStream};
use netpoll::os::unix::net::{UnixListener, UnixStream};
use netpoll::prelude::*;

use super::socket::Socket;

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
///     fn closed(&self) -> impl Future<Output = ()> + Send {
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
    /// Returns whether bytes, the peer's FIN or an error can be read, in which case a reader has
    /// been or will be woken.
    pub(super) fn is_readable(&self) -> bool {
        self.0.is_readable()
    }

    /// Waits until the connection is reset or closed by force.
    ///
    /// It keeps the socket alive from its first poll on, but not before: the only handle can still
    /// be converted into one of std.
    pub(super) async fn aborted(&self) {
        self.0.aborted().await;
    }
}

/// Implements the trait for a listener, and the view for its streams.
macro_rules! listener {
    ($listener:ident => $stream:ident) => {
        impl Listener for $listener {
            type Io = Socket<$stream>;

            fn accepted(&self) -> impl Stream<Item = io::Result<Socket<$stream>>> + Send {
                self.incoming().map(|stream| stream.map(Socket::new))
            }

            fn closed(&self) -> impl Future<Output = ()> + Send {
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

//! The methods that all Unix sockets except listeners have: readiness, shutdown, addresses, pending
//! errors and deadlines.

/// Implements the methods, and `Debug`, for a type with a field `fd`.
macro_rules! socket_methods {
    ($type:ident) => {
        /// Readiness, shutting down, addresses and pending errors.
        impl $type {
            /// Waits until the socket is readable: data, end of stream or an error is available.
            ///
            /// Another task may read the data first; the next read then waits again.
            ///
            /// # Errors
            /// Returns `TimedOut` after the read deadline or timeout, and a
            /// [closed](crate::net::is_closed) error after an explicit close.
            ///
            /// # Cancel safety
            /// Cancel safe.
            pub fn readable(&self) -> $crate::net::futures::Readable<'_> {
                $crate::net::futures::Readable::new(&self.fd)
            }

            /// Checks whether the socket is readable (see [`readable`](Self::readable)). If it is
            /// not, returns `Pending` and wakes the task at the next read event. Up to 4,096 tasks
            /// may wait this way without waking each other. Use this method to implement your own
            /// `poll_*` methods.
            ///
            /// # Errors
            /// Returns the same errors as [`readable`](Self::readable).
            pub fn poll_readable(&self, cx: &mut std::task::Context<'_>) -> std::task::Poll<io::Result<()>> {
                self.fd.poll_ready(Direction::Read, $crate::rt::waiters::Waiter::Poll, cx)
            }

            /// Waits until the socket is writable: the send buffer has room, or a write would
            /// return an error.
            ///
            /// # Errors
            /// Returns `TimedOut` after the write deadline or timeout, and a
            /// [closed](crate::net::is_closed) error after an explicit close.
            ///
            /// # Cancel safety
            /// Cancel safe.
            pub fn writable(&self) -> $crate::net::futures::Writable<'_> {
                $crate::net::futures::Writable::new(&self.fd)
            }

            /// Checks whether the socket is writable (see [`writable`](Self::writable)). If it is
            /// not, returns `Pending` and wakes the task at the next write event. Up to 4,096 tasks
            /// may wait this way without waking each other. Use this method to implement your own
            /// `poll_*` methods.
            ///
            /// # Errors
            /// Returns the same errors as [`writable`](Self::writable).
            pub fn poll_writable(&self, cx: &mut std::task::Context<'_>) -> std::task::Poll<io::Result<()>> {
                self.fd.poll_ready(Direction::Write, $crate::rt::waiters::Waiter::Poll, cx)
            }

            /// Shuts down reading, writing or both (shutdown(2)). Reads then return the data that
            /// has arrived and after it 0, and writes fail with `BrokenPipe`. Pending operations
            /// complete in the same way.
            ///
            /// # Errors
            /// Returns the OS error; on a stream, the error of a write that `set_auto_cork` has
            /// gathered; a [closed](crate::net::is_closed) error after an explicit close.
            pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
                self.fd.shutdown(how)
            }

            /// Returns the address of this socket, which may be unnamed. A path that std's
            /// `SocketAddr::from_pathname` refuses (108 bytes on Linux) is returned as unnamed.
            ///
            /// # Errors
            /// Returns EAFNOSUPPORT if the descriptor is not a Unix socket, and a
            /// [closed](crate::net::is_closed) error after an explicit close.
            pub fn local_addr(&self) -> io::Result<SocketAddr> {
                self.fd.with("local-addr", |fd| from_kernel(&socket::local_addr_any(fd)?))
            }

            /// Returns the address of the peer, which may be unnamed. A path that std's
            /// `SocketAddr::from_pathname` refuses (108 bytes on Linux) is returned as unnamed.
            ///
            /// # Errors
            /// Returns `NotConnected` if there is no peer; EAFNOSUPPORT if the descriptor is not a
            /// Unix socket; a [closed](crate::net::is_closed) error after an explicit close.
            pub fn peer_addr(&self) -> io::Result<SocketAddr> {
                self.fd.with("peer-addr", |fd| from_kernel(&socket::peer_addr_any(fd)?))
            }

            /// Takes the pending error of the socket (SO_ERROR), or an error that
            /// [`io::copy`](crate::io::copy()) has taken and no read has returned. No read returns
            /// it afterwards.
            ///
            /// # Errors
            /// Returns the OS error, or a [closed](crate::net::is_closed) error after an explicit
            /// close.
            pub fn take_error(&self) -> io::Result<Option<io::Error>> {
                self.fd.with("get", |fd| self.fd.fd.report_error(fd))
            }
        }

        $crate::net::deadlines::deadline_methods!($type);

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut debug = f.debug_struct(stringify!($type));
                if let Ok(addr) = self.local_addr() {
                    debug.field("addr", &addr);
                }
                if let Ok(peer) = self.peer_addr() {
                    debug.field("peer", &peer);
                }
                debug.field("fd", &self.fd.fd.number()).finish()
            }
        }
    };
}

pub(super) use socket_methods;

//! What all Unix sockets but listeners have: names, readiness, the end.

/// Declares them for a type with a field `fd`.
macro_rules! socket_methods {
    ($type:ident) => {
        /// Readiness, shutting down, addresses and pending errors.
        impl $type {
            /// Waits until a read would not wait: something to read, the end, or an error that it would return.
            ///
            /// Another task may read first; then the next read waits.
            ///
            /// # Errors
            /// `TimedOut` past the read deadline; closed.
            pub fn readable(&self) -> $crate::net::futures::Readable<'_> {
                $crate::net::futures::Readable::new(&self.fd)
            }

            /// [`readable`](Self::readable) for `poll_*` methods of your own. The waker is kept until the next event, and any number of
            /// tasks may wait this way.
            ///
            /// # Errors
            /// As [`readable`](Self::readable).
            pub fn poll_readable(&self, cx: &mut std::task::Context<'_>) -> std::task::Poll<io::Result<()>> {
                self.fd.poll_ready(Direction::Read, None, cx)
            }

            /// Waits until a write would not wait: room, or an error that it would return.
            ///
            /// # Errors
            /// `TimedOut` past the write deadline; closed.
            pub fn writable(&self) -> $crate::net::futures::Writable<'_> {
                $crate::net::futures::Writable::new(&self.fd)
            }

            /// [`writable`](Self::writable) for `poll_*` methods of your own.
            ///
            /// # Errors
            /// As [`writable`](Self::writable).
            pub fn poll_writable(&self, cx: &mut std::task::Context<'_>) -> std::task::Poll<io::Result<()>> {
                self.fd.poll_ready(Direction::Write, None, cx)
            }

            /// Shuts one or both sides down (shutdown(2)). What waits on that side ends: reads with 0, writes with `BrokenPipe`.
            ///
            /// # Errors
            /// `NotConnected`; closed.
            pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
                self.fd.shutdown(how)
            }

            /// The name of this side; unnamed where it has none.
            ///
            /// # Errors
            /// EAFNOSUPPORT where it is no Unix socket; closed after an explicit close.
            pub fn local_addr(&self) -> io::Result<SocketAddr> {
                self.fd.with("local-addr", |fd| from_kernel(&socket::local_addr_any(fd)?))
            }

            /// The name of the peer; unnamed where it has none.
            ///
            /// # Errors
            /// `NotConnected`; EAFNOSUPPORT where it is no Unix socket; closed after an explicit close.
            pub fn peer_addr(&self) -> io::Result<SocketAddr> {
                self.fd.with("peer-addr", |fd| from_kernel(&socket::peer_addr_any(fd)?))
            }

            /// Takes the error that is pending on the socket (SO_ERROR), if there is one.
            ///
            /// # Errors
            /// The system call's; closed.
            pub fn take_error(&self) -> io::Result<Option<io::Error>> {
                self.fd.with("get", socket::take_error)
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

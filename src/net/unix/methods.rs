//! What all Unix sockets but listeners have: names, readiness, deadlines, the end.

/// Declares them for a type with a field `fd`.
macro_rules! socket_methods {
    ($type:ident) => {
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

            /// Waits until a write would not wait: room, or an error that it would return.
            ///
            /// # Errors
            /// `TimedOut` past the write deadline; closed.
            pub fn writable(&self) -> $crate::net::futures::Writable<'_> {
                $crate::net::futures::Writable::new(&self.fd)
            }

            /// Sets when reads and writes time out, or (`None`) that they do not. It applies to what waits already and stays until it
            /// is moved; one in the past ends what waits at once. An expired deadline comes before data that is there.
            ///
            /// # Errors
            /// [Closed](crate::net::is_closed) after an explicit close.
            pub fn set_deadline(&self, deadline: impl Into<Option<Instant>>) -> io::Result<()> {
                let deadline = deadline.into();
                self.fd.set_deadline(Direction::Read, deadline)?;
                self.fd.set_deadline(Direction::Write, deadline)
            }

            /// The same for reads only.
            ///
            /// # Errors
            /// [Closed](crate::net::is_closed) after an explicit close.
            pub fn set_read_deadline(&self, deadline: impl Into<Option<Instant>>) -> io::Result<()> {
                self.fd.set_deadline(Direction::Read, deadline.into())
            }

            /// The same for writes only.
            ///
            /// # Errors
            /// [Closed](crate::net::is_closed) after an explicit close.
            pub fn set_write_deadline(&self, deadline: impl Into<Option<Instant>>) -> io::Result<()> {
                self.fd.set_deadline(Direction::Write, deadline.into())
            }

            /// Sets for how long a read may wait, counted anew by each that has to. Where a deadline is set as well, the earlier wins.
            ///
            /// # Errors
            /// `InvalidInput` for zero, as in std.
            pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
                self.fd.set_timeout(Direction::Read, timeout)
            }

            /// The same for writes.
            ///
            /// # Errors
            /// `InvalidInput` for zero, as in std.
            pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
                self.fd.set_timeout(Direction::Write, timeout)
            }

            /// What [`set_read_timeout`](Self::set_read_timeout) set.
            ///
            /// # Errors
            /// None today; the signature is std's.
            pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
                Ok(self.fd.fd.timeout(Direction::Read))
            }

            /// What [`set_write_timeout`](Self::set_write_timeout) set.
            ///
            /// # Errors
            /// None today; the signature is std's.
            pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
                Ok(self.fd.fd.timeout(Direction::Write))
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
                self.fd.with("take-error", socket::take_error)
            }
        }

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

//! Less common socket options of streams and listeners.

use std::io;
use std::os::fd::BorrowedFd;

use super::{TcpListener, TcpStream};
use crate::net::fd::operation::LockScope;
use crate::net::options::{self, KeepAlive, socket, tcp};
use crate::net::raw::RawWrite;
use crate::sys::socket as calls;

/// Implements the options that streams have and that accepted streams inherit from listeners.
macro_rules! shared_options {
    ($type:ident) => {
        /// Socket options that accepted streams inherit from their listener.
        impl $type {
            /// Returns the size of the receive buffer in bytes (SO_RCVBUF). On Linux, the size
            /// includes the kernel's overhead, so a size that was set reads back doubled, within
            /// the kernel's limits.
            ///
            /// # Errors
            /// Returns the OS error, or a [closed](crate::net::is_closed) error after an explicit
            /// close.
            pub fn recv_buffer_size(&self) -> io::Result<usize> {
                self.fd.with("get", socket::recv_buffer_size)
            }

            /// Sets the size of the receive buffer in bytes. Linux limits it to
            /// `net.core.rmem_max`, doubles it and no longer adapts it. On a connection, the size
            /// does not affect the TCP window scale, which the handshake has fixed. To affect the
            /// window scale, use
            /// [`ListenConfig::recv_buffer_size`](crate::net::ListenConfig::recv_buffer_size) or
            /// [`Dialer::recv_buffer_size`](crate::net::Dialer::recv_buffer_size).
            ///
            /// # Errors
            /// Returns `InvalidInput` for zero and for 1 GiB or more, and a
            /// [closed](crate::net::is_closed) error after an explicit close.
            pub fn set_recv_buffer_size(&self, bytes: usize) -> io::Result<()> {
                self.fd.with("set", |fd| socket::set_recv_buffer_size(fd, bytes))
            }

            /// Returns the size of the send buffer in bytes (SO_SNDBUF). On Linux, the size
            /// includes the kernel's overhead, so a size that was set reads back doubled, within
            /// the kernel's limits.
            ///
            /// # Errors
            /// Returns the OS error, or a [closed](crate::net::is_closed) error after an explicit
            /// close.
            pub fn send_buffer_size(&self) -> io::Result<usize> {
                self.fd.with("get", socket::send_buffer_size)
            }

            /// Sets the size of the send buffer in bytes. Linux limits it to `net.core.wmem_max`,
            /// doubles it and no longer adapts it.
            ///
            /// # Errors
            /// Returns `InvalidInput` for zero and for 1 GiB or more, and a
            /// [closed](crate::net::is_closed) error after an explicit close.
            pub fn set_send_buffer_size(&self, bytes: usize) -> io::Result<()> {
                self.fd.with("set", |fd| socket::set_send_buffer_size(fd, bytes))
            }

            /// Returns the traffic class of sent packets (IP_TOS, IPV6_TCLASS): six bits of DSCP
            /// above two bits of ECN.
            ///
            /// # Errors
            /// Returns the OS error, or a [closed](crate::net::is_closed) error after an explicit
            /// close.
            pub fn tos(&self) -> io::Result<u8> {
                self.fd.with("get", socket::tos)
            }

            /// Sets the traffic class of sent packets. TCP controls the ECN bits itself, so Linux
            /// ignores them here.
            ///
            /// # Errors
            /// Returns the OS error, or a [closed](crate::net::is_closed) error after an explicit
            /// close.
            pub fn set_tos(&self, tos: u8) -> io::Result<()> {
                self.fd.with("set", |fd| socket::set_tos(fd, tos))
            }

            /// Returns the maximum segment size in bytes (TCP_MAXSEG). No size is negotiated before
            /// the socket is connected, so until then the value is a default or the one that was
            /// set.
            ///
            /// # Errors
            /// Returns the OS error, or a [closed](crate::net::is_closed) error after an explicit
            /// close.
            pub fn mss(&self) -> io::Result<u32> {
                self.fd.with("get", tcp::mss)
            }

            /// Limits the maximum segment size. On an established connection the kernel stores the
            /// value but keeps sending segments of the negotiated size, so set it on the listener.
            ///
            /// # Errors
            /// Returns `InvalidInput` outside the kernel's range (on Linux, 88 to 32,767), and a
            /// [closed](crate::net::is_closed) error after an explicit close.
            pub fn set_mss(&self, bytes: u32) -> io::Result<()> {
                self.fd.with("set", |fd| tcp::set_mss(fd, bytes))
            }

            /// Returns whether the socket is restricted to IPv6 (IPV6_V6ONLY).
            ///
            /// # Errors
            /// Returns the OS error (always, for an IPv4 socket), or a
            /// [closed](crate::net::is_closed) error after an explicit close.
            pub fn only_v6(&self) -> io::Result<bool> {
                self.fd.with("get", socket::only_v6)
            }
        }
    };
}

shared_options!(TcpStream);
shared_options!(TcpListener);

/// Less common socket options of a connection.
impl TcpStream {
    /// Returns whether urgent bytes are delivered in the normal data stream (SO_OOBINLINE).
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `force_close`.
    pub fn out_of_band_inline(&self) -> io::Result<bool> {
        self.fd.with("get", tcp::out_of_band_inline)
    }

    /// Sets whether urgent bytes are delivered in the normal data stream. By default they are not,
    /// and recv(2) with `MSG_OOB` receives them; see [`read_with`](TcpStream::read_with).
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `force_close`.
    pub fn set_out_of_band_inline(&self, inline: bool) -> io::Result<()> {
        self.fd.with("set", |fd| tcp::set_out_of_band_inline(fd, inline))
    }

    /// Sends one byte as urgent data (`MSG_OOB`), after the data already written.
    ///
    /// # Errors
    /// Returns the same errors as [`write`](TcpStream::write).
    ///
    /// # Cancel safety
    /// If the future is dropped before it completes, the byte has not been sent.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// # use netpoll::net::{TcpListener, TcpStream};
    /// # let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let stream = TcpStream::connect(listener.local_addr()?).await?;
    /// let (peer, _) = listener.accept().await?;
    /// peer.set_out_of_band_inline(true)?;
    /// stream.send_out_of_band(b'!').await?;
    /// let mut buf = [0; 8];
    /// assert_eq!((peer.read(&mut buf).await?, buf[0]), (1, b'!'));
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    pub async fn send_out_of_band(&self, byte: u8) -> io::Result<()> {
        let send = |fd: BorrowedFd<'_>| calls::send(fd, &[byte], libc::MSG_OOB);
        RawWrite::new(&self.fd, LockScope::PerCall, send).await.map(drop)
    }
}

/// Socket options of a listener.
impl TcpListener {
    /// Takes the pending error of the socket (SO_ERROR), if there is one.
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `close`.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.fd.with("get", calls::take_error)
    }

    /// Returns whether new connections send small writes immediately (TCP_NODELAY).
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `close`.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.fd.with("get", options::nodelay)
    }

    /// Sets whether new connections send small writes immediately (TCP_NODELAY). Connections that
    /// are already in the queue are not affected.
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `close`.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.fd.with("set", |fd| options::set_nodelay(fd, nodelay))
    }

    /// Returns the keep-alive settings of new connections; `None` if keep-alive is off.
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `close`.
    pub fn keepalive(&self) -> io::Result<Option<KeepAlive>> {
        self.fd.with("get", options::keepalive)
    }

    /// Sets keep-alive of new connections; `None` turns it off. A value that is `None` in
    /// `keepalive` stays unchanged. Connections that are already in the queue are not affected.
    ///
    /// # Errors
    /// Returns `InvalidInput` for a value that is out of range (see [`KeepAlive`]), and a
    /// [closed](crate::net::is_closed) error after `close`.
    pub fn set_keepalive(&self, keepalive: impl Into<Option<KeepAlive>>) -> io::Result<()> {
        let keepalive = keepalive.into();
        self.fd.with("set", |fd| options::set_keepalive(fd, keepalive.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Unlike `write_with`, `send_out_of_band` passes the descriptor to no code outside this crate.
    #[test]
    fn urgent_byte_does_not_expose_the_socket() {
        crate::task::block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            stream.send_out_of_band(b'!').await.unwrap();
            assert!(!stream.fd.fd.is_exposed());
            stream.write_with(|_| Ok(())).await.unwrap();
            assert!(stream.fd.fd.is_exposed());
        });
    }
}

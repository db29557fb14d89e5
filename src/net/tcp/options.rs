//! Less common socket options of streams and, where accepted streams inherit them, of listeners.

use std::io;
use std::time::Duration;

use super::{TcpListener, TcpStream};
use crate::net::options::{self, KeepAlive, TcpInfo, socket, tcp};
use crate::sys::{option, socket as calls};

/// Implements the options that streams have and that accepted streams inherit from listeners.
macro_rules! shared_options {
    ($type:ident) => {
        /// Socket options that accepted streams inherit from their listener.
        impl $type {
            /// Returns how long sent data may stay unacknowledged before the connection fails with
            /// ETIMEDOUT (TCP_USER_TIMEOUT). `None` means as long as the host keeps retransmitting,
            /// about 15 minutes.
            ///
            /// # Errors
            /// Returns the OS error, or a [closed](crate::net::is_closed) error after an explicit
            /// close.
            pub fn user_timeout(&self) -> io::Result<Option<Duration>> {
                self.fd.with("get", tcp::user_timeout)
            }

            /// Sets how long sent data may stay unacknowledged, rounded up to milliseconds. With
            /// keep-alive on, this time takes precedence over the number of probes.
            ///
            /// # Errors
            /// Returns `InvalidInput` for zero and for 2³¹ ms or more, and a
            /// [closed](crate::net::is_closed) error after an explicit close.
            pub fn set_user_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
                self.fd.with("set", |fd| tcp::set_user_timeout(fd, timeout))
            }

            /// Returns the size of the receive buffer in bytes (SO_RCVBUF). It includes the
            /// kernel's overhead and is twice the value that was set.
            ///
            /// # Errors
            /// Returns the OS error, or a [closed](crate::net::is_closed) error after an explicit
            /// close.
            pub fn recv_buffer_size(&self) -> io::Result<usize> {
                self.fd.with("get", socket::recv_buffer_size)
            }

            /// Sets the size of the receive buffer in bytes. The kernel doubles it, limits it to
            /// `net.core.rmem_max` and no longer adapts it. The TCP window scale is fixed when the
            /// connection is made; to affect it, use
            /// [`ListenConfig::recv_buffer_size`](crate::net::ListenConfig::recv_buffer_size).
            ///
            /// # Errors
            /// Returns `InvalidInput` for zero and for 1 GiB or more, and a
            /// [closed](crate::net::is_closed) error after an explicit close.
            pub fn set_recv_buffer_size(&self, bytes: usize) -> io::Result<()> {
                self.fd.with("set", |fd| socket::set_recv_buffer_size(fd, bytes))
            }

            /// Returns the size of the send buffer in bytes (SO_SNDBUF). It includes the kernel's
            /// overhead and is twice the value that was set.
            ///
            /// # Errors
            /// Returns the OS error, or a [closed](crate::net::is_closed) error after an explicit
            /// close.
            pub fn send_buffer_size(&self) -> io::Result<usize> {
                self.fd.with("get", socket::send_buffer_size)
            }

            /// Sets the size of the send buffer in bytes. The kernel doubles it, limits it to
            /// `net.core.wmem_max` and no longer adapts it.
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

            /// Sets the traffic class of sent packets. TCP controls the ECN bits itself: the kernel
            /// ignores them here.
            ///
            /// # Errors
            /// Returns the OS error, or a [closed](crate::net::is_closed) error after an explicit
            /// close.
            pub fn set_tos(&self, tos: u8) -> io::Result<()> {
                self.fd.with("set", |fd| socket::set_tos(fd, tos))
            }

            /// Returns the name of the congestion control algorithm (TCP_CONGESTION), such as
            /// `cubic`.
            ///
            /// # Errors
            /// Returns the OS error, or a [closed](crate::net::is_closed) error after an explicit
            /// close.
            pub fn congestion_control(&self) -> io::Result<String> {
                self.fd.with("get", tcp::congestion_control)
            }

            /// Sets the congestion control algorithm to one of
            /// `net.ipv4.tcp_available_congestion_control`.
            ///
            /// # Errors
            /// Returns `InvalidInput` if `name` is not 1 to 15 bytes without NUL, `NotFound` if the
            /// kernel does not have it, `PermissionDenied` if it is restricted to administrators,
            /// and a [closed](crate::net::is_closed) error after an explicit close.
            pub fn set_congestion_control(&self, name: &str) -> io::Result<()> {
                self.fd.with("set", |fd| tcp::set_congestion_control(fd, name))
            }

            /// Returns the maximum segment size in bytes (TCP_MAXSEG). Before the socket is
            /// connected this is the kernel's estimate.
            ///
            /// # Errors
            /// Returns the OS error, or a [closed](crate::net::is_closed) error after an explicit
            /// close.
            pub fn mss(&self) -> io::Result<u32> {
                self.fd.with("get", tcp::mss)
            }

            /// Limits the maximum segment size. On an established connection the kernel stores the
            /// value but keeps sending segments of the agreed size: set it on the listener.
            ///
            /// # Errors
            /// Returns `InvalidInput` outside the kernel's range of 88 to 32,767, and a
            /// [closed](crate::net::is_closed) error after an explicit close.
            pub fn set_mss(&self, bytes: u32) -> io::Result<()> {
                self.fd.with("set", |fd| tcp::set_mss(fd, bytes))
            }

            /// Returns how many unsent bytes the socket holds before it stops being writable
            /// (TCP_NOTSENT_LOWAT).
            ///
            /// # Errors
            /// Returns the OS error, or a [closed](crate::net::is_closed) error after an explicit
            /// close.
            pub fn notsent_lowat(&self) -> io::Result<u32> {
                self.fd.with("get", tcp::notsent_lowat)
            }

            /// Sets how many unsent bytes the socket holds before it stops being writable. A small
            /// value bounds how long data written later, such as an urgent frame, waits behind data
            /// written earlier.
            ///
            /// # Errors
            /// Returns the OS error, or a [closed](crate::net::is_closed) error after an explicit
            /// close.
            pub fn set_notsent_lowat(&self, bytes: u32) -> io::Result<()> {
                self.fd.with("set", |fd| tcp::set_notsent_lowat(fd, bytes))
            }

            /// Returns the network device that the socket is bound to (SO_BINDTODEVICE), if any.
            ///
            /// # Errors
            /// Returns the OS error, or a [closed](crate::net::is_closed) error after an explicit
            /// close.
            pub fn device(&self) -> io::Result<Option<String>> {
                self.fd.with("get", socket::device)
            }

            /// Binds the socket to the network device `name`; `None` removes the binding.
            ///
            /// # Errors
            /// Returns `InvalidInput` if `name` is not 1 to 15 bytes without NUL, ENODEV if there
            /// is no such device, `PermissionDenied`, and a [closed](crate::net::is_closed) error
            /// after an explicit close.
            pub fn bind_device(&self, name: Option<&str>) -> io::Result<()> {
                self.fd.with("set", |fd| socket::set_device(fd, name))
            }

            /// Returns whether the socket is restricted to IPv6 (IPV6_V6ONLY).
            ///
            /// # Errors
            /// Returns the OS error, which is always the case for an IPv4 socket, or a
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
    /// Returns whether acknowledgements are sent immediately (TCP_QUICKACK). The kernel changes
    /// this by itself.
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `force_close`.
    pub fn quickack(&self) -> io::Result<bool> {
        self.fd.with("get", tcp::quickack)
    }

    /// Sets whether acknowledgements are sent immediately. The effect is temporary: the kernel
    /// returns to its own judgement as data flows.
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `force_close`.
    pub fn set_quickack(&self, quickack: bool) -> io::Result<()> {
        self.fd.with("set", |fd| tcp::set_quickack(fd, quickack))
    }

    /// Returns whether partial segments are held back (TCP_CORK).
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `force_close`.
    pub fn cork(&self) -> io::Result<bool> {
        self.fd.with("get", tcp::cork)
    }

    /// Sets whether partial segments are held back until they are full, the option is cleared, or
    /// 200 ms have passed. Useful for a header that is followed by a file.
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `force_close`.
    pub fn set_cork(&self, cork: bool) -> io::Result<()> {
        self.fd.with("set", |fd| tcp::set_cork(fd, cork))
    }

    /// Returns whether urgent bytes are delivered in the normal data stream (SO_OOBINLINE).
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `force_close`.
    pub fn out_of_band_inline(&self) -> io::Result<bool> {
        self.fd.with("get", tcp::out_of_band_inline)
    }

    /// Sets whether urgent bytes are delivered in the normal data stream. By default they are not:
    /// recv(2) with `MSG_OOB` receives them, see [`read_with`](TcpStream::read_with).
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `force_close`.
    pub fn set_out_of_band_inline(&self, inline: bool) -> io::Result<()> {
        self.fd.with("set", |fd| tcp::set_out_of_band_inline(fd, inline))
    }

    /// Sends one byte as urgent data (`MSG_OOB`), after the data written before.
    ///
    /// # Errors
    /// Same as [`write`](TcpStream::write).
    ///
    /// # Cancel safety
    /// The byte is either sent or not sent.
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
        self.write_with(|fd| calls::send(fd, &[byte], libc::MSG_OOB)).await.map(drop)
    }

    /// Returns the CPU on which the kernel last received data for the socket (SO_INCOMING_CPU);
    /// `None` before it received any.
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `force_close`.
    pub fn incoming_cpu(&self) -> io::Result<Option<usize>> {
        self.fd.with("get", socket::incoming_cpu)
    }

    /// Returns the kernel's statistics about the connection: round-trip time, retransmissions,
    /// window (TCP_INFO).
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `force_close`.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// # use netpoll::net::{TcpListener, TcpStream};
    /// # let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let stream = TcpStream::connect(listener.local_addr()?).await?;
    /// let info = stream.info()?;
    /// assert!(!info.rtt.is_zero() && info.retransmits == 0);
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    pub fn info(&self) -> io::Result<TcpInfo> {
        self.fd.with("get", tcp::info)
    }

    /// Returns whether the connection uses multipath TCP. A connection that fell back to TCP does
    /// not.
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `force_close`.
    pub fn is_multipath(&self) -> io::Result<bool> {
        self.fd.with("get", option::is_multipath)
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

    /// Returns whether streams accepted from now on send small writes immediately (TCP_NODELAY).
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `close`.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.fd.with("get", options::nodelay)
    }

    /// Sets whether streams accepted from now on send small writes immediately (TCP_NODELAY).
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `close`.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.fd.with("set", |fd| options::set_nodelay(fd, nodelay))
    }

    /// Returns the keep-alive settings of streams accepted from now on; `None` if keep-alive is
    /// off.
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `close`.
    pub fn keepalive(&self) -> io::Result<Option<KeepAlive>> {
        self.fd.with("get", options::keepalive)
    }

    /// Sets keep-alive of streams accepted from now on; `None` turns it off. Settings that
    /// `keepalive` leaves out do not change.
    ///
    /// # Errors
    /// Returns `InvalidInput` for a value that the kernel does not accept (see [`KeepAlive`]), and
    /// a [closed](crate::net::is_closed) error after `close`.
    pub fn set_keepalive(&self, keepalive: impl Into<Option<KeepAlive>>) -> io::Result<()> {
        let keepalive = keepalive.into();
        self.fd.with("set", |fd| options::set_keepalive(fd, keepalive.as_ref()))
    }

    /// Returns the CPU whose connections this listener prefers among those that share its port
    /// (SO_INCOMING_CPU); `None` if there is no preference.
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `close`.
    pub fn incoming_cpu(&self) -> io::Result<Option<usize>> {
        self.fd.with("get", socket::incoming_cpu)
    }

    /// Sets the CPU whose connections this listener prefers. Use it with one listener per worker
    /// thread that is pinned to a CPU.
    ///
    /// # Errors
    /// Returns `InvalidInput` for a number above 2³¹ - 1, and a [closed](crate::net::is_closed)
    /// error after `close`.
    pub fn set_incoming_cpu(&self, cpu: usize) -> io::Result<()> {
        self.fd.with("set", |fd| socket::set_incoming_cpu(fd, cpu))
    }
}

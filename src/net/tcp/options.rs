//! The lesser socket options, on streams and, where accepted streams inherit them, on listeners.

use std::io;
use std::time::Duration;

use super::{TcpListener, TcpStream};
use crate::net::options::{self, KeepAlive, TcpInfo, socket, tcp};
use crate::sys::{option, socket as calls};

/// Options that streams have, and that listeners hand on.
macro_rules! shared_options {
    ($type:ident) => {
        /// Socket options that accepted streams inherit from their listener.
        impl $type {
            /// For how long data sent may stay without an acknowledgement before the connection ends with ETIMEDOUT
            /// (TCP_USER_TIMEOUT); `None`: as long as the host keeps trying, a quarter of an hour or so.
            ///
            /// # Errors
            /// The system call's; closed.
            pub fn user_timeout(&self) -> io::Result<Option<Duration>> {
                self.fd.with("get", tcp::user_timeout)
            }

            /// Sets it, rounded up to milliseconds. Where keep-alive is on, this time decides instead of the count of probes.
            ///
            /// # Errors
            /// `InvalidInput` for zero and for 2³¹ ms or more; closed.
            pub fn set_user_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
                self.fd.with("set", |fd| tcp::set_user_timeout(fd, timeout))
            }

            /// The receive buffer in bytes (SO_RCVBUF), the kernel's bookkeeping included: twice what was set.
            ///
            /// # Errors
            /// The system call's; closed.
            pub fn recv_buffer_size(&self) -> io::Result<usize> {
                self.fd.with("get", socket::recv_buffer_size)
            }

            /// Sets it. The kernel doubles it, keeps it within its bounds (`net.core.rmem_max`) and no longer adapts it. What a peer may
            /// have under way is agreed when the connection is made: see
            /// [`ListenConfig::recv_buffer_size`](crate::net::ListenConfig::recv_buffer_size).
            ///
            /// # Errors
            /// `InvalidInput` for zero and for 1 GiB or more; closed.
            pub fn set_recv_buffer_size(&self, bytes: usize) -> io::Result<()> {
                self.fd.with("set", |fd| socket::set_recv_buffer_size(fd, bytes))
            }

            /// The send buffer in bytes (SO_SNDBUF), the kernel's bookkeeping included: twice what was set.
            ///
            /// # Errors
            /// The system call's; closed.
            pub fn send_buffer_size(&self) -> io::Result<usize> {
                self.fd.with("get", socket::send_buffer_size)
            }

            /// Sets it. The kernel doubles it, keeps it within its bounds (`net.core.wmem_max`) and no longer adapts it.
            ///
            /// # Errors
            /// `InvalidInput` for zero and for 1 GiB or more; closed.
            pub fn set_send_buffer_size(&self, bytes: usize) -> io::Result<()> {
                self.fd.with("set", |fd| socket::set_send_buffer_size(fd, bytes))
            }

            /// The traffic class of packets sent (IP_TOS, IPV6_TCLASS): six bits of DSCP above two of ECN.
            ///
            /// # Errors
            /// The system call's; closed.
            pub fn tos(&self) -> io::Result<u8> {
                self.fd.with("get", socket::tos)
            }

            /// Sets it. The ECN bits are TCP's own: the kernel leaves them as they are.
            ///
            /// # Errors
            /// The system call's; closed.
            pub fn set_tos(&self, tos: u8) -> io::Result<()> {
                self.fd.with("set", |fd| socket::set_tos(fd, tos))
            }

            /// The congestion control in use (TCP_CONGESTION), such as `cubic`.
            ///
            /// # Errors
            /// The system call's; closed.
            pub fn congestion_control(&self) -> io::Result<String> {
                self.fd.with("get", tcp::congestion_control)
            }

            /// Sets it: one of `net.ipv4.tcp_available_congestion_control`.
            ///
            /// # Errors
            /// `InvalidInput` for what cannot be a name (1 to 15 bytes, no NUL); `NotFound` when the kernel does not have it;
            /// `PermissionDenied` when it is for the administrator; closed.
            pub fn set_congestion_control(&self, name: &str) -> io::Result<()> {
                self.fd.with("set", |fd| tcp::set_congestion_control(fd, name))
            }

            /// The largest segment sent, in bytes (TCP_MAXSEG): what the connection uses, or, before there is one, the kernel's guess.
            ///
            /// # Errors
            /// The system call's; closed.
            pub fn mss(&self) -> io::Result<u32> {
                self.fd.with("get", tcp::mss)
            }

            /// Bounds it. On an established connection the kernel takes note but sends as agreed: set it on the listener.
            ///
            /// # Errors
            /// `InvalidInput` outside the kernel's 88 to 32,767; closed.
            pub fn set_mss(&self, bytes: u32) -> io::Result<()> {
                self.fd.with("set", |fd| tcp::set_mss(fd, bytes))
            }

            /// How many bytes may wait to be sent before the socket counts as full (TCP_NOTSENT_LOWAT).
            ///
            /// # Errors
            /// The system call's; closed.
            pub fn notsent_lowat(&self) -> io::Result<u32> {
                self.fd.with("get", tcp::notsent_lowat)
            }

            /// Sets it: with little in the buffer, what is written last (a more urgent frame, a smaller picture) is not far behind.
            ///
            /// # Errors
            /// The system call's; closed.
            pub fn set_notsent_lowat(&self, bytes: u32) -> io::Result<()> {
                self.fd.with("set", |fd| tcp::set_notsent_lowat(fd, bytes))
            }

            /// The network device that the socket is bound to (SO_BINDTODEVICE).
            ///
            /// # Errors
            /// The system call's; closed.
            pub fn device(&self) -> io::Result<Option<String>> {
                self.fd.with("get", socket::device)
            }

            /// Binds the socket to a network device, or (`None`) to none.
            ///
            /// # Errors
            /// `InvalidInput` for what cannot be a name (1 to 15 bytes, no NUL); ENODEV when there is no such device;
            /// `PermissionDenied`; closed.
            pub fn bind_device(&self, name: Option<&str>) -> io::Result<()> {
                self.fd.with("set", |fd| socket::set_device(fd, name))
            }

            /// Whether the socket takes IPv6 only (IPV6_V6ONLY).
            ///
            /// # Errors
            /// The system call's, which has none for an IPv4 socket; closed.
            pub fn only_v6(&self) -> io::Result<bool> {
                self.fd.with("get", socket::only_v6)
            }
        }
    };
}

shared_options!(TcpStream);
shared_options!(TcpListener);

/// Socket options of a connection.
impl TcpStream {
    /// Whether acknowledgements are sent at once (TCP_QUICKACK). The kernel changes it by itself.
    ///
    /// # Errors
    /// The system call's; closed.
    pub fn quickack(&self) -> io::Result<bool> {
        self.fd.with("get", tcp::quickack)
    }

    /// Sets whether acknowledgements are sent at once, for now: the kernel goes back to its own judgement as data flows.
    ///
    /// # Errors
    /// The system call's; closed.
    pub fn set_quickack(&self, quickack: bool) -> io::Result<()> {
        self.fd.with("set", |fd| tcp::set_quickack(fd, quickack))
    }

    /// Whether parts of a segment are held back (TCP_CORK).
    ///
    /// # Errors
    /// The system call's; closed.
    pub fn cork(&self) -> io::Result<bool> {
        self.fd.with("get", tcp::cork)
    }

    /// Sets whether parts of a segment are held back, for 200 ms at most, until it is full or this is taken back: for a header that is
    /// followed by a file.
    ///
    /// # Errors
    /// The system call's; closed.
    pub fn set_cork(&self, cork: bool) -> io::Result<()> {
        self.fd.with("set", |fd| tcp::set_cork(fd, cork))
    }

    /// Whether urgent bytes of the peer stand among the others (SO_OOBINLINE).
    ///
    /// # Errors
    /// The system call's; closed.
    pub fn out_of_band_inline(&self) -> io::Result<bool> {
        self.fd.with("get", tcp::out_of_band_inline)
    }

    /// Sets whether urgent bytes of the peer stand among the others, where reads find them, or apart (the default), where they are
    /// found by recv(2) with `MSG_OOB`; see [`read_with`](TcpStream::read_with).
    ///
    /// # Errors
    /// The system call's; closed.
    pub fn set_out_of_band_inline(&self, inline: bool) -> io::Result<()> {
        self.fd.with("set", |fd| tcp::set_out_of_band_inline(fd, inline))
    }

    /// Sends a byte as urgent (`MSG_OOB`), behind what was written before.
    ///
    /// # Errors
    /// As [`write`](TcpStream::write).
    ///
    /// # Cancel safety
    /// The byte was sent or was not.
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

    /// The processor on which the kernel received last (SO_INCOMING_CPU); `None` before it received.
    ///
    /// # Errors
    /// The system call's; closed.
    pub fn incoming_cpu(&self) -> io::Result<Option<usize>> {
        self.fd.with("get", socket::incoming_cpu)
    }

    /// What the kernel knows of the connection: round-trip time, retransmissions, window (TCP_INFO).
    ///
    /// # Errors
    /// The system call's; closed.
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

    /// Whether the connection is multipath TCP; one that fell back to TCP is not.
    ///
    /// # Errors
    /// The system call's; closed.
    pub fn is_multipath(&self) -> io::Result<bool> {
        self.fd.with("get", option::is_multipath)
    }
}

/// Socket options of a listener.
impl TcpListener {
    /// Takes the error that is pending on the socket (SO_ERROR), if there is one.
    ///
    /// # Errors
    /// The system call's; closed.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.fd.with("get", calls::take_error)
    }

    /// Whether streams accepted from now on send small writes at once (TCP_NODELAY).
    ///
    /// # Errors
    /// The system call's; closed.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.fd.with("get", options::nodelay)
    }

    /// Sets it.
    ///
    /// # Errors
    /// The system call's; closed.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.fd.with("set", |fd| options::set_nodelay(fd, nodelay))
    }

    /// How streams accepted from now on probe a silent peer; `None`: not at all.
    ///
    /// # Errors
    /// The system call's; closed.
    pub fn keepalive(&self) -> io::Result<Option<KeepAlive>> {
        self.fd.with("get", options::keepalive)
    }

    /// Sets it; what `keepalive` leaves out stays as it is.
    ///
    /// # Errors
    /// `InvalidInput` for what the kernel does not take; closed.
    pub fn set_keepalive(&self, keepalive: impl Into<Option<KeepAlive>>) -> io::Result<()> {
        let keepalive = keepalive.into();
        self.fd.with("set", |fd| options::set_keepalive(fd, keepalive.as_ref()))
    }

    /// The processor whose connections this listener prefers (SO_INCOMING_CPU), among those that share its port; `None`: none.
    ///
    /// # Errors
    /// The system call's; closed.
    pub fn incoming_cpu(&self) -> io::Result<Option<usize>> {
        self.fd.with("get", socket::incoming_cpu)
    }

    /// Sets it: for a listener a worker that stays on one processor.
    ///
    /// # Errors
    /// `InvalidInput` for a number beyond 2³¹ - 1; closed.
    pub fn set_incoming_cpu(&self, cpu: usize) -> io::Result<()> {
        self.fd.with("set", |fd| socket::set_incoming_cpu(fd, cpu))
    }
}

//! Socket options of TCP streams and listeners that only Linux has.

use std::io;
use std::time::Duration;

use super::{TcpListener, TcpStream};
use crate::net::options::system::{self as tcp, TcpInfo};
use crate::sys::option;

/// Implements the options that streams have and that accepted streams inherit from listeners.
macro_rules! shared_options {
    ($type:ident) => {
        /// Linux socket options that accepted streams inherit from their listener.
        impl $type {
            /// Returns how long sent data may stay unacknowledged, or unsent because the peer's
            /// receive window is full, before the connection fails with ETIMEDOUT
            /// (TCP_USER_TIMEOUT). `None` means until the host stops retransmitting, by default
            /// after about 15 minutes.
            ///
            /// # Errors
            /// Returns the OS error, or a [closed](crate::net::is_closed) error after an explicit
            /// close.
            ///
            /// Linux only.
            pub fn user_timeout(&self) -> io::Result<Option<Duration>> {
                self.fd.with("get", tcp::user_timeout)
            }

            /// Sets how long sent data may stay unacknowledged, or unsent because the peer's
            /// receive window is full, rounded up to milliseconds. `None` restores the host's
            /// default. With keep-alive on, this time takes precedence over the number of probes.
            ///
            /// # Errors
            /// Returns `InvalidInput` for zero and for more than 2³¹ - 1 ms, and a
            /// [closed](crate::net::is_closed) error after an explicit close.
            ///
            /// Linux only.
            pub fn set_user_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
                self.fd.with("set", |fd| tcp::set_user_timeout(fd, timeout))
            }

            /// Returns the name of the congestion control algorithm (TCP_CONGESTION), such as
            /// `cubic`.
            ///
            /// # Errors
            /// Returns the OS error, or a [closed](crate::net::is_closed) error after an explicit
            /// close.
            ///
            /// Linux only.
            pub fn congestion_control(&self) -> io::Result<String> {
                self.fd.with("get", tcp::congestion_control)
            }

            /// Sets the congestion control algorithm to one of
            /// `net.ipv4.tcp_available_congestion_control`.
            ///
            /// # Errors
            /// Returns `InvalidInput` unless `name` has 1 to 15 bytes and no NUL, `NotFound` if the
            /// kernel does not have the algorithm, `PermissionDenied` if it is restricted to
            /// administrators, and a [closed](crate::net::is_closed) error after an explicit close.
            ///
            /// Linux only.
            pub fn set_congestion_control(&self, name: &str) -> io::Result<()> {
                self.fd.with("set", |fd| tcp::set_congestion_control(fd, name))
            }

            /// Returns the number of unsent bytes at which the socket stops being writable
            /// (TCP_NOTSENT_LOWAT); 0 means the host's default, `net.ipv4.tcp_notsent_lowat`.
            ///
            /// # Errors
            /// Returns the OS error, or a [closed](crate::net::is_closed) error after an explicit
            /// close.
            ///
            /// Linux only.
            pub fn notsent_lowat(&self) -> io::Result<u32> {
                self.fd.with("get", tcp::notsent_lowat)
            }

            /// Sets the number of unsent bytes at which the socket stops being writable. A small
            /// value bounds how long data written later, such as an urgent frame, waits behind data
            /// written earlier. Zero restores the host's default.
            ///
            /// # Errors
            /// Returns the OS error, or a [closed](crate::net::is_closed) error after an explicit
            /// close.
            ///
            /// Linux only.
            pub fn set_notsent_lowat(&self, bytes: u32) -> io::Result<()> {
                self.fd.with("set", |fd| tcp::set_notsent_lowat(fd, bytes))
            }

            /// Returns the network device that the socket is bound to (SO_BINDTODEVICE), if any.
            ///
            /// # Errors
            /// Returns the OS error, or a [closed](crate::net::is_closed) error after an explicit
            /// close.
            ///
            /// Linux only.
            pub fn device(&self) -> io::Result<Option<String>> {
                self.fd.with("get", tcp::device)
            }

            /// Binds the socket to the network device `name`; `None` removes the binding.
            ///
            /// # Errors
            /// Returns `InvalidInput` unless `name` has 1 to 15 bytes and no NUL, ENODEV if there
            /// is no such device, `PermissionDenied` if the process may not change the binding, and
            /// a [closed](crate::net::is_closed) error after an explicit close.
            ///
            /// Linux only.
            pub fn bind_device(&self, name: Option<&str>) -> io::Result<()> {
                self.fd.with("set", |fd| tcp::set_device(fd, name))
            }
        }
    };
}

shared_options!(TcpStream);
shared_options!(TcpListener);

/// Socket options of a connection that only Linux has.
impl TcpStream {
    /// Returns whether acknowledgements are sent immediately (TCP_QUICKACK). The kernel also
    /// changes this setting on its own.
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `force_close`.
    ///
    /// Linux only.
    pub fn quickack(&self) -> io::Result<bool> {
        self.fd.with("get", tcp::quickack)
    }

    /// Sets whether acknowledgements are sent immediately. The effect is temporary, because the
    /// kernel changes the setting again as data flows.
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `force_close`.
    ///
    /// Linux only.
    pub fn set_quickack(&self, quickack: bool) -> io::Result<()> {
        self.fd.with("set", |fd| tcp::set_quickack(fd, quickack))
    }

    /// Returns whether partial segments are held back (TCP_CORK).
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `force_close`.
    ///
    /// Linux only.
    pub fn cork(&self) -> io::Result<bool> {
        self.fd.with("get", tcp::cork)
    }

    /// Sets whether partial segments are held back until they are full, the option is cleared, or
    /// 200 ms have passed. This is useful for a header that is followed by a file.
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `force_close`.
    ///
    /// Linux only.
    pub fn set_cork(&self, cork: bool) -> io::Result<()> {
        self.fd.with("set", |fd| tcp::set_cork(fd, cork))
    }

    /// Returns the CPU on which the kernel last processed a packet for the socket
    /// (SO_INCOMING_CPU); `None` if no packet has arrived yet.
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `force_close`.
    ///
    /// Linux only.
    pub fn incoming_cpu(&self) -> io::Result<Option<usize>> {
        self.fd.with("get", tcp::incoming_cpu)
    }

    /// Returns the kernel's statistics about the connection (TCP_INFO), such as the round-trip
    /// time, retransmissions and the congestion window.
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `force_close`.
    ///
    /// Linux only.
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
    ///
    /// Linux only.
    pub fn is_multipath(&self) -> io::Result<bool> {
        self.fd.with("get", option::is_multipath)
    }
}

/// Socket options of a listener that only Linux has.
impl TcpListener {
    /// Returns the CPU whose connections the kernel prefers to give to this listener, among the
    /// listeners that share its port (SO_INCOMING_CPU); `None` if there is no preference.
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `close`.
    ///
    /// Linux only.
    pub fn incoming_cpu(&self) -> io::Result<Option<usize>> {
        self.fd.with("get", tcp::incoming_cpu)
    }

    /// Sets the CPU whose connections the kernel prefers to give to this listener. Use it with one
    /// listener per worker thread, each pinned to a CPU.
    ///
    /// # Errors
    /// Returns `InvalidInput` for a number above 2³¹ - 1, and a [closed](crate::net::is_closed)
    /// error after `close`.
    ///
    /// Linux only.
    pub fn set_incoming_cpu(&self, cpu: usize) -> io::Result<()> {
        self.fd.with("set", |fd| tcp::set_incoming_cpu(fd, cpu))
    }
}

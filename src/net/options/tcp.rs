//! TCP options that every system has, and [`TcpOptions`], the options of new sockets.
//!
//! A value that does not fit the kernel's type is refused before the call.

use std::io;
use std::os::fd::BorrowedFd;

use super::socket::{invalid, number, set_recv_buffer_size, set_send_buffer_size};
use super::system::TcpExtras;
use super::{KeepAlive, set_keepalive, set_nodelay};
use crate::sys::option;

/// Returns SO_OOBINLINE.
pub(crate) fn out_of_band_inline(fd: BorrowedFd<'_>) -> io::Result<bool> {
    option::socket::out_of_band_inline(fd)
}

/// Sets SO_OOBINLINE.
pub(crate) fn set_out_of_band_inline(fd: BorrowedFd<'_>, inline: bool) -> io::Result<()> {
    option::socket::set_out_of_band_inline(fd, inline)
}

/// Sets TCP_MAXSEG.
pub(crate) fn set_mss(fd: BorrowedFd<'_>, mss: u32) -> io::Result<()> {
    // The kernel treats zero as "no limit". It refuses other values that are out of range with
    // EINVAL.
    if mss == 0 {
        return Err(invalid("MSS must be at least 1"));
    }
    option::set(fd, libc::IPPROTO_TCP, libc::TCP_MAXSEG, number(mss)?)
}

/// Returns TCP_MAXSEG.
pub(crate) fn mss(fd: BorrowedFd<'_>) -> io::Result<u32> {
    option::tcp::mss(fd)
}

/// The options that [`ListenConfig`](crate::net::ListenConfig) and [`Dialer`](crate::net::Dialer)
/// set on new TCP sockets. Accepted sockets inherit the options of their listener.
#[derive(Clone, Copy, Debug)]
pub(in crate::net) struct TcpOptions {
    /// Whether options that the user did not set have Go's defaults instead of the kernel's.
    pub(in crate::net) defaults: bool,
    pub(in crate::net) nodelay: Option<bool>,
    pub(in crate::net) keepalive: Option<Option<KeepAlive>>,
    /// Options that depend on the system.
    pub(in crate::net) extras: TcpExtras,
    pub(in crate::net) recv_buffer_size: Option<usize>,
    pub(in crate::net) send_buffer_size: Option<usize>,
}

impl TcpOptions {
    /// Creates options with Go's defaults: TCP_NODELAY and keep-alive.
    pub(in crate::net) const fn new() -> TcpOptions {
        TcpOptions {
            defaults: true,
            nodelay: None,
            keepalive: None,
            extras: TcpExtras::new(),
            recv_buffer_size: None,
            send_buffer_size: None,
        }
    }

    /// Sets the options on a new socket. If the kernel refuses a default, the socket is used
    /// without it, as in Go.
    ///
    /// # Errors
    /// Returns the error of an option that the user set and that the kernel or this crate refuses.
    pub(in crate::net) fn apply(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        match self.nodelay {
            None if self.defaults => drop(set_nodelay(fd, true)),
            // A new socket has TCP_NODELAY off.
            None | Some(false) => {}
            Some(true) => set_nodelay(fd, true)?,
        }
        match &self.keepalive {
            None if self.defaults => drop(set_keepalive(fd, Some(&KeepAlive::new()))),
            // A new socket has keep-alive off.
            None | Some(None) => {}
            Some(keepalive) => set_keepalive(fd, keepalive.as_ref())?,
        }
        self.extras.apply(fd)?;
        if let Some(bytes) = self.recv_buffer_size {
            set_recv_buffer_size(fd, bytes)?;
        }
        if let Some(bytes) = self.send_buffer_size {
            set_send_buffer_size(fd, bytes)?;
        }
        Ok(())
    }
}

impl Default for TcpOptions {
    fn default() -> TcpOptions {
        TcpOptions::new()
    }
}

/// Declares the option methods of a configuration type whose field holds [`TcpOptions`].
macro_rules! tcp_option_methods {
    ($type:ident, $($field:ident).+) => {
        /// Options of the streams.
        impl $type {
            /// Sets whether streams send small writes immediately (TCP_NODELAY). The default is
            /// true, or false on a `Dialer` with [`defaults(false)`](crate::net::Dialer::defaults).
            pub fn nodelay(mut self, nodelay: bool) -> $type {
                self.$($field).+.nodelay = Some(nodelay);
                self
            }

            /// Sets keep-alive, which probes a silent peer. `None` turns it off. The default is
            /// [`KeepAlive::new`](crate::net::KeepAlive::new), or off on a `Dialer` with
            /// [`defaults(false)`](crate::net::Dialer::defaults).
            pub fn keepalive(mut self, keepalive: impl Into<Option<$crate::net::KeepAlive>>) -> $type {
                self.$($field).+.keepalive = Some(keepalive.into());
                self
            }

            /// Sets the size of the streams' receive buffer in bytes (SO_RCVBUF). Linux limits it
            /// to `net.core.rmem_max`, doubles it and no longer adapts it. With zero, and with
            /// 1 GiB or more, opening a socket fails with `InvalidInput`.
            pub fn recv_buffer_size(mut self, bytes: usize) -> $type {
                self.$($field).+.recv_buffer_size = Some(bytes);
                self
            }

            /// Sets the size of the streams' send buffer in bytes (SO_SNDBUF). Linux limits it to
            /// `net.core.wmem_max`, doubles it and no longer adapts it. With zero, and with 1 GiB
            /// or more, opening a socket fails with `InvalidInput`.
            pub fn send_buffer_size(mut self, bytes: usize) -> $type {
                self.$($field).+.send_buffer_size = Some(bytes);
                self
            }
        }
    };
}

pub(in crate::net) use tcp_option_methods;

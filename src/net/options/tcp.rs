//! Options of TCP: timeouts, acknowledgements, congestion control, deferred and fast accepts;
//! [`TcpOptions`] of new sockets; [`TcpInfo`].
//!
//! Times are rounded up to the kernel's unit. Zero, which the kernel takes for "the default", is
//! refused: `None` asks for the default. Values that do not fit are refused as well.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use libc::c_int;

use super::socket::{invalid, name_from, set_recv_buffer_size, set_send_buffer_size, short_name};
use super::{KeepAlive, set_keepalive, set_nodelay};
use crate::sys::option;

/// Returns `duration` in units of `unit`, rounded up.
fn units(duration: Duration, unit: Duration) -> io::Result<c_int> {
    if duration.is_zero() {
        return Err(invalid("time must not be zero; use None for the system's default"));
    }
    let count = duration.as_nanos().div_ceil(unit.as_nanos());
    c_int::try_from(count).map_err(|_| invalid("time is longer than the kernel accepts"))
}

fn number(value: u32) -> io::Result<c_int> {
    c_int::try_from(value).map_err(|_| invalid("number must be less than 2^31"))
}

/// Sets TCP_USER_TIMEOUT.
pub(crate) fn set_user_timeout(fd: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<()> {
    let timeout = timeout.map_or(Ok(0), |timeout| units(timeout, Duration::from_millis(1)))?;
    option::set(fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, timeout)
}

/// Returns TCP_USER_TIMEOUT.
pub(crate) fn user_timeout(fd: BorrowedFd<'_>) -> io::Result<Option<Duration>> {
    option::user_timeout(fd)
}

/// Returns SO_OOBINLINE.
pub(crate) fn out_of_band_inline(fd: BorrowedFd<'_>) -> io::Result<bool> {
    option::socket::out_of_band_inline(fd)
}

/// Sets SO_OOBINLINE.
pub(crate) fn set_out_of_band_inline(fd: BorrowedFd<'_>, inline: bool) -> io::Result<()> {
    option::socket::set_out_of_band_inline(fd, inline)
}

/// Sets TCP_QUICKACK.
pub(crate) fn set_quickack(fd: BorrowedFd<'_>, quickack: bool) -> io::Result<()> {
    option::set_quickack(fd, quickack)
}

/// Returns TCP_QUICKACK.
pub(crate) fn quickack(fd: BorrowedFd<'_>) -> io::Result<bool> {
    option::quickack(fd)
}

/// Sets TCP_CORK.
pub(crate) fn set_cork(fd: BorrowedFd<'_>, cork: bool) -> io::Result<()> {
    option::set_cork(fd, cork)
}

/// Returns TCP_CORK.
pub(crate) fn cork(fd: BorrowedFd<'_>) -> io::Result<bool> {
    option::cork(fd)
}

/// Sets TCP_NOTSENT_LOWAT.
pub(crate) fn set_notsent_lowat(fd: BorrowedFd<'_>, bytes: u32) -> io::Result<()> {
    option::set_notsent_lowat(fd, bytes)
}

/// Returns TCP_NOTSENT_LOWAT.
pub(crate) fn notsent_lowat(fd: BorrowedFd<'_>) -> io::Result<u32> {
    option::notsent_lowat(fd)
}

/// Sets TCP_CONGESTION.
pub(crate) fn set_congestion_control(fd: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    // The kernel's TCP_CA_NAME_MAX is 16, including the NUL.
    let name = short_name(name, 15).ok_or_else(|| invalid("name must have 1 to 15 bytes and no NUL"))?;
    option::set_congestion(fd, name)
}

/// Returns TCP_CONGESTION.
pub(crate) fn congestion_control(fd: BorrowedFd<'_>) -> io::Result<String> {
    Ok(name_from(&option::congestion(fd)?))
}

/// Sets TCP_MAXSEG.
pub(crate) fn set_mss(fd: BorrowedFd<'_>, mss: u32) -> io::Result<()> {
    // The kernel takes zero for "no limit", and returns EINVAL above 32,767.
    if mss == 0 {
        return Err(invalid("MSS must be at least 1"));
    }
    option::set(fd, libc::IPPROTO_TCP, libc::TCP_MAXSEG, number(mss)?)
}

/// Returns TCP_MAXSEG.
pub(crate) fn mss(fd: BorrowedFd<'_>) -> io::Result<u32> {
    option::tcp::mss(fd)
}

/// Sets TCP_FASTOPEN: how many connections may be queued whose SYN carried data.
pub(crate) fn set_fast_open(fd: BorrowedFd<'_>, queue: u32) -> io::Result<()> {
    option::set(fd, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, number(queue)?)
}

/// Sets TCP_DEFER_ACCEPT: how long a connection without data is held back from accept.
pub(crate) fn set_defer_accept(fd: BorrowedFd<'_>, most: Duration) -> io::Result<()> {
    option::set(fd, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, units(most, Duration::from_secs(1))?)
}

/// Options that new TCP sockets are given, by [`ListenConfig`](crate::net::ListenConfig) and
/// [`Dialer`](crate::net::Dialer) alike. Accepted sockets inherit those of their listener.
#[derive(Clone, Copy, Debug)]
pub(in crate::net) struct TcpOptions {
    /// Whether options that were not asked for are Go's instead of the kernel's.
    pub(in crate::net) defaults: bool,
    pub(in crate::net) nodelay: Option<bool>,
    pub(in crate::net) keepalive: Option<Option<KeepAlive>>,
    pub(in crate::net) user_timeout: Option<Duration>,
    pub(in crate::net) recv_buffer_size: Option<usize>,
    pub(in crate::net) send_buffer_size: Option<usize>,
}

impl TcpOptions {
    /// Creates options with Go's defaults: no delay, and keep-alive.
    pub(in crate::net) const fn new() -> TcpOptions {
        TcpOptions {
            defaults: true,
            nodelay: None,
            keepalive: None,
            user_timeout: None,
            recv_buffer_size: None,
            send_buffer_size: None,
        }
    }

    /// Sets the options on a new socket. If the kernel refuses a default, the socket goes without
    /// it, as in Go; if it refuses an option that was asked for, its error is returned.
    pub(in crate::net) fn apply(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        match self.nodelay {
            None if self.defaults => drop(set_nodelay(fd, true)),
            // A new socket delays.
            None | Some(false) => {}
            Some(true) => set_nodelay(fd, true)?,
        }
        match &self.keepalive {
            None if self.defaults => drop(set_keepalive(fd, Some(&KeepAlive::new()))),
            // A new socket has no keep-alive.
            None | Some(None) => {}
            Some(keepalive) => set_keepalive(fd, keepalive.as_ref())?,
        }
        if let Some(timeout) = self.user_timeout {
            set_user_timeout(fd, Some(timeout))?;
        }
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

/// Declares the methods of a configuration that has [`TcpOptions`] in a field.
macro_rules! tcp_option_methods {
    ($type:ident, $($field:ident).+) => {
        /// Options of the streams.
        impl $type {
            /// Sets whether streams send small writes immediately (TCP_NODELAY). The default is
            /// true.
            pub fn nodelay(mut self, nodelay: bool) -> $type {
                self.$($field).+.nodelay = Some(nodelay);
                self
            }

            /// Sets keep-alive: how a silent peer is probed. `None` turns it off. The default is
            /// [`KeepAlive::new`](crate::net::KeepAlive::new).
            pub fn keepalive(mut self, keepalive: impl Into<Option<$crate::net::KeepAlive>>) -> $type {
                self.$($field).+.keepalive = Some(keepalive.into());
                self
            }

            /// Sets how long sent data may stay unacknowledged before the connection fails with
            /// ETIMEDOUT (TCP_USER_TIMEOUT), rounded up to milliseconds. Keep-alive probes only a
            /// silent connection; this option also detects a peer that died while data was in
            /// flight.
            pub fn user_timeout(mut self, timeout: std::time::Duration) -> $type {
                self.$($field).+.user_timeout = Some(timeout);
                self
            }

            /// Sets the receive buffer of streams in bytes (SO_RCVBUF). The kernel doubles it,
            /// limits it to `net.core.rmem_max` and no longer adapts it.
            pub fn recv_buffer_size(mut self, bytes: usize) -> $type {
                self.$($field).+.recv_buffer_size = Some(bytes);
                self
            }

            /// Sets the send buffer of streams in bytes (SO_SNDBUF). The kernel doubles it, limits
            /// it to `net.core.wmem_max` and no longer adapts it.
            pub fn send_buffer_size(mut self, bytes: usize) -> $type {
                self.$($field).+.send_buffer_size = Some(bytes);
                self
            }
        }
    };
}

pub(in crate::net) use tcp_option_methods;

/// The kernel's statistics about a TCP connection; returned by
/// [`TcpStream::info`](crate::net::TcpStream::info).
///
/// Source: TCP_INFO, tcp(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpInfo {
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Variation of the round-trip time.
    pub rtt_variation: Duration,
    /// Time after which unacknowledged data is sent again.
    pub retransmission_timeout: Duration,
    /// Consecutive retransmissions without an answer; 0 while the peer answers.
    pub retransmits: u32,
    /// Total number of retransmitted segments.
    pub total_retransmits: u32,
    /// Number of segments sent and not acknowledged yet.
    pub unacknowledged: u32,
    /// Number of segments presumed lost.
    pub lost: u32,
    /// Congestion window in segments.
    pub congestion_window: u32,
    /// Maximum segment size for sending, in bytes.
    pub send_mss: u32,
    /// Largest segment received so far, in bytes (the kernel's estimate).
    pub recv_mss: u32,
    /// Path MTU in bytes.
    pub path_mtu: u32,
}

/// Returns TCP_INFO.
pub(crate) fn info(fd: BorrowedFd<'_>) -> io::Result<TcpInfo> {
    let info = option::tcp_info(fd)?;
    let micros = |count: u32| Duration::from_micros(count.into());
    Ok(TcpInfo {
        rtt: micros(info.tcpi_rtt),
        rtt_variation: micros(info.tcpi_rttvar),
        retransmission_timeout: micros(info.tcpi_rto),
        retransmits: info.tcpi_retransmits.into(),
        total_retransmits: info.tcpi_total_retrans,
        unacknowledged: info.tcpi_unacked,
        lost: info.tcpi_lost,
        congestion_window: info.tcpi_snd_cwnd,
        send_mss: info.tcpi_snd_mss,
        recv_mss: info.tcpi_rcv_mss,
        path_mtu: info.tcpi_pmtu,
    })
}

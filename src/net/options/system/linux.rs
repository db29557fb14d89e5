//! Socket options that this crate supports only on Linux. The configuration methods that set some
//! of them are in `net/linux.rs`.
//!
//! Times are rounded up to the kernel's unit. A time of zero, which the kernel treats as a request
//! for the default, is refused. Values that do not fit the kernel's type are also refused.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use libc::c_int;
use socket2::{Domain, Protocol, Type};

use crate::net::fd::fd;
use crate::net::options::socket::{invalid, number};
use crate::sys::option;

/// The Linux-only options of a new TCP socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TcpExtras {
    pub(in crate::net) user_timeout: Option<Duration>,
}

impl TcpExtras {
    pub(crate) const fn new() -> TcpExtras {
        TcpExtras { user_timeout: None }
    }

    /// Sets the options on a new socket.
    pub(crate) fn apply(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.user_timeout.map_or(Ok(()), |timeout| set_user_timeout(fd, Some(timeout)))
    }
}

/// The Linux-only options of a listener.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListenExtras {
    pub(in crate::net) fast_open: Option<u32>,
    pub(in crate::net) defer_accept: Option<Duration>,
    pub(in crate::net) device: Option<String>,
    pub(in crate::net) multipath: bool,
}

impl ListenExtras {
    pub(crate) fn is_multipath(&self) -> bool {
        self.multipath
    }

    /// Opens a multipath socket if one is requested. Returns `None` if it cannot be opened,
    /// whatever the error.
    pub(crate) fn open(&self, domain: Domain) -> Option<OwnedFd> {
        if self.multipath { fd::open(domain, Type::STREAM, Some(Protocol::MPTCP)).ok() } else { None }
    }

    /// Sets the options on a new socket, except multipath TCP, which [`open`](ListenExtras::open)
    /// requests.
    pub(crate) fn apply(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        if let Some(queue) = self.fast_open {
            set_fast_open(fd, queue)?;
        }
        if let Some(most) = self.defer_accept {
            set_defer_accept(fd, most)?;
        }
        if let Some(device) = &self.device {
            set_device(fd, Some(device))?;
        }
        Ok(())
    }
}

/// The Linux-only options of a dial.
#[derive(Clone, Debug)]
pub(crate) struct DialExtras {
    pub(in crate::net) multipath: bool,
    pub(in crate::net) fast_open: bool,
}

impl DialExtras {
    pub(crate) const fn new() -> DialExtras {
        DialExtras { multipath: false, fast_open: false }
    }

    /// Opens a multipath socket if one is requested. Returns `None` if it cannot be opened,
    /// whatever the error.
    pub(crate) fn open(&self, domain: Domain) -> Option<OwnedFd> {
        if self.multipath { fd::open(domain, Type::STREAM, Some(Protocol::MPTCP)).ok() } else { None }
    }

    /// Sets TCP_FASTOPEN_CONNECT if it is requested. It is not an error if the host does not permit
    /// the option or the kernel does not have it.
    pub(crate) fn apply(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        if !self.fast_open {
            return Ok(());
        }
        match option::switch(fd, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, true) {
            Err(error) if !matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOPROTOOPT)) => Err(error),
            _ => Ok(()),
        }
    }
}

/// Sets TCP_USER_TIMEOUT; `None` requests the kernel's default.
pub(crate) fn set_user_timeout(fd: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<()> {
    let timeout = timeout.map_or(Ok(0), |timeout| units(timeout, Duration::from_millis(1)))?;
    option::set(fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, timeout)
}

/// Returns TCP_USER_TIMEOUT; `None` if it is not set.
pub(crate) fn user_timeout(fd: BorrowedFd<'_>) -> io::Result<Option<Duration>> {
    option::user_timeout(fd)
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
    let name = short_name(name, 15).ok_or_else(|| invalid("algorithm name must have 1 to 15 bytes and no NUL"))?;
    option::set_congestion(fd, name)
}

/// Returns TCP_CONGESTION.
pub(crate) fn congestion_control(fd: BorrowedFd<'_>) -> io::Result<String> {
    Ok(name_from(&option::congestion(fd)?))
}

/// Sets TCP_FASTOPEN: the maximum number of pending connections whose SYN carried data.
pub(crate) fn set_fast_open(fd: BorrowedFd<'_>, queue: u32) -> io::Result<()> {
    option::set(fd, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, number(queue)?)
}

/// Sets TCP_DEFER_ACCEPT: how long the kernel holds back a connection without data from accept4(2).
pub(crate) fn set_defer_accept(fd: BorrowedFd<'_>, most: Duration) -> io::Result<()> {
    option::set(fd, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, units(most, Duration::from_secs(1))?)
}

/// The kernel's statistics about a TCP connection; returned by
/// [`TcpStream::info`](crate::net::TcpStream::info).
///
/// Linux only.
///
/// Source: TCP_INFO, tcp(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpInfo {
    /// The smoothed round-trip time.
    pub rtt: Duration,
    /// The variation of the round-trip time.
    pub rtt_variation: Duration,
    /// The time after which unacknowledged data is retransmitted.
    pub retransmission_timeout: Duration,
    /// The number of consecutive unanswered retransmissions; 0 while the peer acknowledges data.
    pub retransmits: u32,
    /// The total number of retransmitted segments.
    pub total_retransmits: u32,
    /// The number of segments sent and not yet acknowledged.
    pub unacknowledged: u32,
    /// The number of segments presumed lost.
    pub lost: u32,
    /// The congestion window, in segments.
    pub congestion_window: u32,
    /// The maximum segment size for sending, in bytes.
    pub send_mss: u32,
    /// The size of the largest segment received so far, in bytes (the kernel's estimate).
    pub recv_mss: u32,
    /// The path MTU in bytes.
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

/// Sets SO_BINDTODEVICE; `None` removes the binding.
pub(crate) fn set_device(fd: BorrowedFd<'_>, device: Option<&str>) -> io::Result<()> {
    let name = match device {
        None => None,
        Some(device) => Some(
            short_name(device, libc::IFNAMSIZ - 1)
                .ok_or_else(|| invalid("device name must have 1 to 15 bytes and no NUL"))?,
        ),
    };
    option::set_device(fd, name)
}

/// Returns SO_BINDTODEVICE; `None` if the socket is not bound to a device.
pub(crate) fn device(fd: BorrowedFd<'_>) -> io::Result<Option<String>> {
    Ok(option::device(fd)?.map(|name| name_from(&name)))
}

/// Sets SO_INCOMING_CPU.
pub(crate) fn set_incoming_cpu(fd: BorrowedFd<'_>, cpu: usize) -> io::Result<()> {
    if cpu > c_int::MAX as usize {
        return Err(invalid("CPU number must be less than 2^31"));
    }
    option::set_incoming_cpu(fd, cpu)
}

/// Returns SO_INCOMING_CPU; `None` if it is not set and nothing was received.
pub(crate) fn incoming_cpu(fd: BorrowedFd<'_>) -> io::Result<Option<usize>> {
    // The kernel's -1 becomes a number above that of every CPU.
    let cpu = option::incoming_cpu(fd)?;
    Ok((cpu <= c_int::MAX as usize).then_some(cpu))
}

/// Returns `duration` in units of `unit`, rounded up.
fn units(duration: Duration, unit: Duration) -> io::Result<c_int> {
    if duration.is_zero() {
        return Err(invalid("time must not be zero"));
    }
    let count = duration.as_nanos().div_ceil(unit.as_nanos());
    c_int::try_from(count).map_err(|_| invalid("time is longer than the kernel accepts"))
}

/// Returns `name` as bytes if it has 1 to `most` bytes and no NUL. The kernel would truncate a
/// longer name to `most` bytes, and a name with a NUL at the NUL.
fn short_name(name: &str, most: usize) -> Option<&[u8]> {
    let fits = !name.is_empty() && name.len() <= most && !name.bytes().any(|byte| byte == 0);
    fits.then_some(name.as_bytes())
}

/// Returns the name in a buffer filled by the kernel, up to its NUL.
fn name_from(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

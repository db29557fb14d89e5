//! Options that only Linux has, or that other systems have in another form.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use libc::c_int;
use socket2::{Domain, Protocol, SockRef};

use super::{TcpState, get};
use crate::sys::control::Plain;

/// The level of the options of multipath TCP (linux/mptcp.h).
const SOL_MPTCP: c_int = 284;

/// An option that only a multipath connection has (linux/mptcp.h). A connection that fell back to
/// TCP does not have it.
const MPTCP_INFO: c_int = 1;

// SAFETY: the structure contains only integers. It has padding in some C libraries, and is only
// read. The kernel may write fewer bytes than its size.
unsafe impl Plain for libc::tcp_info {}

/// Returns whether the socket is an IPv6 socket (SO_DOMAIN).
pub(crate) fn is_v6(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(SockRef::from(&fd).domain()? == Domain::IPV6)
}

/// Returns whether the socket is an IPv4 or IPv6 socket (SO_DOMAIN).
pub(crate) fn is_ip(fd: BorrowedFd<'_>) -> io::Result<bool> {
    SockRef::from(&fd).domain().map(|domain| domain == Domain::IPV4 || domain == Domain::IPV6)
}

/// Returns whether the protocol of the socket is TCP (SO_PROTOCOL). For an MPTCP socket it is not.
pub(crate) fn is_plain_tcp(fd: BorrowedFd<'_>) -> io::Result<bool> {
    SockRef::from(&fd).protocol().map(|protocol| protocol == Some(Protocol::TCP))
}

/// Returns whether the protocol of an IP socket is TCP, with or without multipath, or UDP
/// (SO_PROTOCOL).
pub(crate) fn is_tcp_or_udp(fd: BorrowedFd<'_>) -> bool {
    let protocols = [Protocol::TCP, Protocol::MPTCP, Protocol::UDP];
    matches!(SockRef::from(&fd).protocol(), Ok(Some(protocol)) if protocols.contains(&protocol))
}

/// Returns SO_BINDTODEVICE: the name of the interface, or `None` if the socket is not bound to one.
pub(crate) fn device(fd: BorrowedFd<'_>) -> io::Result<Option<Vec<u8>>> {
    SockRef::from(&fd).device()
}

/// Sets SO_BINDTODEVICE.
pub(crate) fn set_device(fd: BorrowedFd<'_>, name: Option<&[u8]>) -> io::Result<()> {
    SockRef::from(&fd).bind_device(name)
}

/// Returns SO_INCOMING_CPU.
pub(crate) fn incoming_cpu(fd: BorrowedFd<'_>) -> io::Result<usize> {
    SockRef::from(&fd).cpu_affinity()
}

/// Sets SO_INCOMING_CPU.
pub(crate) fn set_incoming_cpu(fd: BorrowedFd<'_>, cpu: usize) -> io::Result<()> {
    SockRef::from(&fd).set_cpu_affinity(cpu)
}

/// Returns TCP_USER_TIMEOUT, or `None` if it is not set.
pub(crate) fn user_timeout(fd: BorrowedFd<'_>) -> io::Result<Option<Duration>> {
    SockRef::from(&fd).tcp_user_timeout()
}

/// Returns TCP_QUICKACK.
pub(crate) fn quickack(fd: BorrowedFd<'_>) -> io::Result<bool> {
    SockRef::from(&fd).tcp_quickack()
}

/// Sets TCP_QUICKACK.
pub(crate) fn set_quickack(fd: BorrowedFd<'_>, quickack: bool) -> io::Result<()> {
    SockRef::from(&fd).set_tcp_quickack(quickack)
}

/// Returns TCP_CORK.
pub(crate) fn cork(fd: BorrowedFd<'_>) -> io::Result<bool> {
    SockRef::from(&fd).tcp_cork()
}

/// Sets TCP_CORK.
pub(crate) fn set_cork(fd: BorrowedFd<'_>, cork: bool) -> io::Result<()> {
    SockRef::from(&fd).set_tcp_cork(cork)
}

/// Returns TCP_NOTSENT_LOWAT.
pub(crate) fn notsent_lowat(fd: BorrowedFd<'_>) -> io::Result<u32> {
    SockRef::from(&fd).tcp_notsent_lowat()
}

/// Sets TCP_NOTSENT_LOWAT.
pub(crate) fn set_notsent_lowat(fd: BorrowedFd<'_>, bytes: u32) -> io::Result<()> {
    SockRef::from(&fd).set_tcp_notsent_lowat(bytes)
}

/// Returns TCP_CONGESTION.
pub(crate) fn congestion(fd: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    SockRef::from(&fd).tcp_congestion()
}

/// Sets TCP_CONGESTION.
pub(crate) fn set_congestion(fd: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    SockRef::from(&fd).set_tcp_congestion(name)
}

/// Returns TCP_INFO. Fields that the kernel does not provide are zero.
pub(crate) fn tcp_info(fd: BorrowedFd<'_>) -> io::Result<libc::tcp_info> {
    get(fd, libc::IPPROTO_TCP, libc::TCP_INFO)
}

/// Returns TCP_INFO in the system-independent form.
pub(crate) fn tcp_state(fd: BorrowedFd<'_>) -> io::Result<TcpState> {
    tcp_info(fd).map(|info| TcpState {
        state: info.tcpi_state,
        rtt_micros: info.tcpi_rtt,
        congestion_window: info.tcpi_snd_cwnd,
        retransmits: info.tcpi_total_retrans,
        unsent: info.tcpi_notsent_bytes,
        bytes_sent: info.tcpi_bytes_acked,
        bytes_received: info.tcpi_bytes_received,
        segments: [info.tcpi_data_segs_in, info.tcpi_data_segs_out],
        last_sent_millis: info.tcpi_last_data_sent,
        last_received_millis: info.tcpi_last_data_recv,
        unacknowledged: info.tcpi_unacked,
        selectively_acknowledged: info.tcpi_sacked,
    })
}

/// Returns the number of unacknowledged segments of a socket in SYN-SENT (TCP_INFO). Returns `None`
/// in other states, and for sockets without TCP_INFO.
pub(crate) fn syn_segments(fd: BorrowedFd<'_>) -> Option<u32> {
    /// TCP_SYN_SENT of netinet/tcp.h.
    const SYN_SENT: u8 = 2;
    tcp_info(fd).ok().filter(|info| info.tcpi_state == SYN_SENT).map(|info| info.tcpi_unacked)
}

/// Returns whether a connection uses multipath TCP. A connection that fell back to TCP, or has
/// always used TCP, has no MPTCP_INFO.
pub(crate) fn is_multipath(fd: BorrowedFd<'_>) -> io::Result<bool> {
    match get::<c_int>(fd, SOL_MPTCP, MPTCP_INFO) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOPROTOOPT)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sets IP_MULTICAST_ALL, which determines whether the socket also receives datagrams to groups
/// that only other sockets of the host have joined (Linux 2.6.31).
pub(crate) fn set_multicast_all_v4(fd: BorrowedFd<'_>, all: bool) -> io::Result<()> {
    SockRef::from(&fd).set_multicast_all_v4(all)
}

/// Sets IPV6_MULTICAST_ALL, the IPv6 version of IP_MULTICAST_ALL (Linux 4.20).
pub(crate) fn set_multicast_all_v6(fd: BorrowedFd<'_>, all: bool) -> io::Result<()> {
    SockRef::from(&fd).set_multicast_all_v6(all)
}

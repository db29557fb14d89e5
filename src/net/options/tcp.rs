//! Options of TCP: timeouts, acknowledgements, congestion control, what listeners hold back; [`TcpInfo`].
//!
//! Times are rounded up to the kernel's unit. Zero, which the kernel takes for "the default", and what does not fit are
//! refused: who wants the default says `None`.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use libc::c_int;
use socket2::SockRef;

use super::socket::{invalid, name_from, short_name};
use crate::sys::option;

/// `duration` in units of `unit`, rounded up.
fn units(duration: Duration, unit: Duration) -> io::Result<c_int> {
    if duration.is_zero() {
        return Err(invalid("a time of zero: None leaves it to the system"));
    }
    let count = duration.as_nanos().div_ceil(unit.as_nanos());
    c_int::try_from(count).map_err(|_| invalid("a time that is longer than the kernel can count"))
}

fn number(value: u32) -> io::Result<c_int> {
    c_int::try_from(value).map_err(|_| invalid("a number beyond 2^31 - 1"))
}

/// Sets TCP_USER_TIMEOUT.
pub(crate) fn set_user_timeout(fd: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<()> {
    let timeout = timeout.map_or(Ok(0), |timeout| units(timeout, Duration::from_millis(1)))?;
    option::set(fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, timeout)
}

/// TCP_USER_TIMEOUT.
pub(crate) fn user_timeout(fd: BorrowedFd<'_>) -> io::Result<Option<Duration>> {
    SockRef::from(&fd).tcp_user_timeout()
}

/// SO_OOBINLINE.
pub(crate) fn out_of_band_inline(fd: BorrowedFd<'_>) -> io::Result<bool> {
    SockRef::from(&fd).out_of_band_inline()
}

/// Sets SO_OOBINLINE.
pub(crate) fn set_out_of_band_inline(fd: BorrowedFd<'_>, inline: bool) -> io::Result<()> {
    SockRef::from(&fd).set_out_of_band_inline(inline)
}

/// Sets TCP_QUICKACK.
pub(crate) fn set_quickack(fd: BorrowedFd<'_>, quickack: bool) -> io::Result<()> {
    SockRef::from(&fd).set_tcp_quickack(quickack)
}

/// TCP_QUICKACK.
pub(crate) fn quickack(fd: BorrowedFd<'_>) -> io::Result<bool> {
    SockRef::from(&fd).tcp_quickack()
}

/// Sets TCP_CORK.
pub(crate) fn set_cork(fd: BorrowedFd<'_>, cork: bool) -> io::Result<()> {
    SockRef::from(&fd).set_tcp_cork(cork)
}

/// TCP_CORK.
pub(crate) fn cork(fd: BorrowedFd<'_>) -> io::Result<bool> {
    SockRef::from(&fd).tcp_cork()
}

/// Sets TCP_NOTSENT_LOWAT.
pub(crate) fn set_notsent_lowat(fd: BorrowedFd<'_>, bytes: u32) -> io::Result<()> {
    SockRef::from(&fd).set_tcp_notsent_lowat(bytes)
}

/// TCP_NOTSENT_LOWAT.
pub(crate) fn notsent_lowat(fd: BorrowedFd<'_>) -> io::Result<u32> {
    SockRef::from(&fd).tcp_notsent_lowat()
}

/// Sets TCP_CONGESTION.
pub(crate) fn set_congestion_control(fd: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    // The kernel's TCP_CA_NAME_MAX is 16 with the NUL.
    let name = short_name(name, 15).ok_or_else(|| invalid("the name has 1 to 15 bytes, none of them NUL"))?;
    SockRef::from(&fd).set_tcp_congestion(name)
}

/// TCP_CONGESTION.
pub(crate) fn congestion_control(fd: BorrowedFd<'_>) -> io::Result<String> {
    Ok(name_from(&SockRef::from(&fd).tcp_congestion()?))
}

/// Sets TCP_MAXSEG.
pub(crate) fn set_mss(fd: BorrowedFd<'_>, mss: u32) -> io::Result<()> {
    // Zero is the kernel's "no limit", and beyond 32,767 it says EINVAL.
    if mss == 0 {
        return Err(invalid("segments of no bytes"));
    }
    option::set(fd, libc::IPPROTO_TCP, libc::TCP_MAXSEG, number(mss)?)
}

/// TCP_MAXSEG.
pub(crate) fn mss(fd: BorrowedFd<'_>) -> io::Result<u32> {
    SockRef::from(&fd).tcp_mss()
}

/// Sets how many connections may wait with data that came with their SYN (TCP_FASTOPEN).
pub(crate) fn set_fast_open(fd: BorrowedFd<'_>, queue: u32) -> io::Result<()> {
    option::set(fd, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, number(queue)?)
}

/// Sets for how long a connection without data is held back from accept (TCP_DEFER_ACCEPT).
pub(crate) fn set_defer_accept(fd: BorrowedFd<'_>, most: Duration) -> io::Result<()> {
    option::set(fd, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, units(most, Duration::from_secs(1))?)
}

/// What the kernel knows of a connection; returned by [`TcpStream::info`](crate::net::TcpStream::info).
///
/// Source: TCP_INFO, tcp(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpInfo {
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// How far it varies.
    pub rtt_variation: Duration,
    /// When what was sent and not acknowledged is sent again.
    pub retransmission_timeout: Duration,
    /// Retransmissions without an answer so far: 0 while the peer answers.
    pub retransmits: u32,
    /// All segments that were sent again.
    pub total_retransmits: u32,
    /// Segments sent and not acknowledged.
    pub unacknowledged: u32,
    /// Segments taken for lost.
    pub lost: u32,
    /// Congestion window in segments.
    pub congestion_window: u32,
    /// Bytes of a full segment sent.
    pub send_mss: u32,
    /// Bytes of a full segment received, as far as was seen.
    pub recv_mss: u32,
    /// The path's MTU in bytes.
    pub path_mtu: u32,
}

/// TCP_INFO.
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

//! Definitions for Linux.

#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::mem::MaybeUninit;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::SocketAddr;
use std::os::unix::thread::JoinHandleExt;
use std::ptr;
use std::thread::JoinHandle;

use libc::c_int;
pub(crate) use libc::{CLOCK_MONOTONIC_COARSE as COARSE_CLOCK, ENONET, mmsghdr};

/// SCM_PIDFD, the type of the control message with a pidfd of the sender (include/linux/socket.h).
/// The crate `libc` does not define it.
pub(crate) const PIDFD_KIND: Option<c_int> = Some(4);

/// Whether a short read of a TCP socket means that no data is left. On Linux it does, except before
/// urgent data, which the poller reports, and with kTLS, which only a socket with an exposed
/// descriptor can have.
pub(crate) const SHORT_COUNTS_ARE_EVIDENCE: bool = true;

/// The errors of getaddrinfo(3) that mean that the name has no address, or no address of the
/// family: EAI_NODATA and EAI_ADDRFAMILY.
pub(crate) const NO_ADDRESS_CODES: [c_int; 2] = [libc::EAI_NODATA, -9];

/// The UDP option that splits sent data into segments.
pub(crate) const SEGMENT_OPTION: c_int = libc::UDP_SEGMENT;

/// The type of the control message that contains the segment size of a received datagram.
pub(crate) const SEGMENTS_KIND: c_int = libc::UDP_GRO;

/// The option that requests [`PACKET_INFO_V4`] messages.
pub(crate) const RECV_PACKET_INFO_V4: c_int = libc::IP_PKTINFO;

/// The type of the control message that contains the addresses and the interface of a datagram.
pub(crate) const PACKET_INFO_V4: c_int = libc::IP_PKTINFO;

/// The type of the control message that selects the interface for an IPv6 destination, if the
/// family of the destination is not known. The kernel treats it as IPV6_PKTINFO. For an IPv4
/// destination, an IPv6 socket skips a message of this type, but refuses an IPV6_PKTINFO message
/// whose address is not IPv4-mapped.
pub(crate) const SKIPPED_PACKET_INFO_V6: c_int = libc::IPV6_2292PKTINFO;

/// The type of the control message that contains the TTL of a received datagram.
pub(crate) const TTL_KIND: c_int = libc::IP_TTL;

/// The type of the control message that contains the TOS of a received datagram.
pub(crate) const TOS_KIND: c_int = libc::IP_TOS;

/// The option that requests the time of arrival.
pub(crate) const RECV_TIMESTAMP: c_int = libc::SO_TIMESTAMPNS;

/// The type of the control message that contains the time of arrival.
pub(crate) const TIMESTAMP_KIND: c_int = libc::SCM_TIMESTAMPNS;

/// The unit of the fraction of a second in a [`TIMESTAMP_KIND`] message, in nanoseconds.
pub(crate) const TIMESTAMP_UNIT: u32 = 1;

/// The data of a [`PACKET_INFO_V4`] message.
pub(crate) type PacketInfoV4 = libc::in_pktinfo;

/// Returns the data that selects the source address, if there is one, and the interface of a
/// datagram.
pub(crate) fn packet_info_v4(local: Option<Ipv4Addr>, interface: u32) -> Option<PacketInfoV4> {
    let address = |address: Ipv4Addr| libc::in_addr { s_addr: u32::from(address).to_be() };
    Some(libc::in_pktinfo {
        ipi_ifindex: interface as c_int,
        ipi_spec_dst: address(local.unwrap_or(Ipv4Addr::UNSPECIFIED)),
        ipi_addr: address(Ipv4Addr::UNSPECIFIED),
    })
}

/// Returns the local address, the destination and the interface of a received datagram.
pub(crate) fn read_packet_info_v4(info: PacketInfoV4) -> (Ipv4Addr, Ipv4Addr, Option<u32>) {
    let address = |address: libc::in_addr| Ipv4Addr::from(u32::from_be(address.s_addr));
    (address(info.ipi_spec_dst), address(info.ipi_addr), u32::try_from(info.ipi_ifindex).ok())
}

/// Calls recvmmsg(2).
///
/// # Safety
/// The `count` headers, and the memory that they point to, must be valid for reads and writes
/// during the call.
#[inline]
pub(crate) unsafe fn recvmmsg(fd: RawFd, headers: *mut mmsghdr, count: u32, flags: c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { libc::recvmmsg(fd, headers, count, flags as _, ptr::null_mut()) }
}

/// Calls sendmmsg(2).
///
/// # Safety
/// The `count` headers must be valid for reads and writes, and the memory that they point to for
/// reads, during the call.
#[inline]
pub(crate) unsafe fn sendmmsg(fd: RawFd, headers: *mut mmsghdr, count: u32, flags: c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { libc::sendmmsg(fd, headers, count, flags as _) }
}

/// Returns the address family of a socket (SO_DOMAIN). Safe to call after fork(2).
pub(crate) fn domain(number: RawFd) -> io::Result<c_int> {
    let (mut domain, mut length): (c_int, _) = (0, size_of::<c_int>() as libc::socklen_t);
    let place = (&raw mut domain).cast();
    // SAFETY: `domain` and its length are valid for reads and writes during the call.
    let result = unsafe { libc::getsockopt(number, libc::SOL_SOCKET, libc::SO_DOMAIN, place, &raw mut length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(domain) }
}

/// Returns the process, user and group of the peer of a Unix socket (SO_PEERCRED). The process is 0
/// if it is not visible in this PID namespace. If there is no peer, the process is 0, and user and
/// group are -1.
pub(crate) fn peer_cred(fd: BorrowedFd<'_>) -> io::Result<(libc::pid_t, libc::uid_t, libc::gid_t)> {
    let mut cred = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    let (value, size) = ((&raw mut cred).cast(), &raw mut length);
    // SAFETY: value and length are valid for writes during the call.
    if unsafe { libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, value, size) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((cred.pid, cred.uid, cred.gid))
}

/// Whether Unix sockets can have abstract names.
pub(crate) const HAS_ABSTRACT_NAMES: bool = true;

/// Returns the abstract name of an address, if it has one.
pub(crate) fn abstract_name(address: &SocketAddr) -> Option<&[u8]> {
    address.as_abstract_name()
}

/// Returns the address with the abstract name `name`.
pub(crate) fn from_abstract_name(name: &[u8]) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(name)
}

/// Joins a thread if it has ended, including its thread-local destructors. Otherwise returns the
/// handle.
pub(crate) fn try_join(thread: JoinHandle<()>) -> Result<(), JoinHandle<()>> {
    // SAFETY: the handle owns the thread, which was neither joined nor detached. A thread that is
    // still running, such as the calling thread, is not joined.
    if unsafe { libc::pthread_tryjoin_np(thread.as_pthread_t(), ptr::null_mut()) } != 0 {
        return Err(thread);
    }
    // Dropping the handle would detach the thread, which no longer exists.
    let _ = thread.into_pthread_t();
    Ok(())
}

/// Returns the address of the calling thread's errno.
pub(crate) fn errno_place() -> *mut libc::c_int {
    // SAFETY: the function has no preconditions.
    unsafe { libc::__errno_location() }
}

/// Returns the number of CPUs that are online, whether or not this process may use them. Returns
/// `None` if /sys/devices/system/cpu/online cannot be read or parsed.
pub(crate) fn online_cpus() -> Option<usize> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online").ok()?;
    let length = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(last.parse::<usize>().ok()?.checked_sub(first.parse().ok()?)? + 1)
    };
    text.trim().split(',').map(length).sum()
}

/// Opens a descriptor that only refers to a path (`O_PATH`). Calls that use an open file fail with
/// EBADF.
pub(crate) fn placeholder() -> io::Result<OwnedFd> {
    Ok(OpenOptions::new().read(true).custom_flags(libc::O_PATH).open("/")?.into())
}

/// Turns `fd` into a duplicate of `placeholder`, which closes the file that `fd` referred to
/// (dup3(2)). On error, `fd` is unchanged.
pub(crate) fn replace(fd: BorrowedFd<'_>, placeholder: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both descriptors are open. dup3(2) replaces the second one atomically, so its number
    // has no other owner in between. The caller owns `fd`.
    let result = unsafe { libc::dup3(placeholder.as_raw_fd(), fd.as_raw_fd(), libc::O_CLOEXEC) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Opens /proc/loadavg. Returns `None` if it cannot be opened or does not belong to procfs. (In
/// some containers it is a file of lxcfs.)
pub(crate) fn load_average() -> Option<File> {
    let file = File::open("/proc/loadavg").ok()?;
    let mut status = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the descriptor is open, and `status` has room for the result.
    let result = unsafe { libc::fstatfs(file.as_raw_fd(), status.as_mut_ptr()) };
    // PROC_SUPER_MAGIC of statfs(2), whose type differs between C libraries.
    // SAFETY: a call that succeeds has filled `status`.
    (result == 0 && unsafe { status.assume_init() }.f_type == 0x9fa0).then_some(file)
}

/// Populates the pages that lie entirely in `memory`, which will be written next, with one call.
/// Before Linux 5.14 this has no effect, and the first write to each page causes a page fault.
pub(crate) fn populate<T>(memory: &mut [MaybeUninit<T>]) {
    // SAFETY: sysconf(3) reads no memory.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.max(1) as usize;
    let range = memory.as_mut_ptr_range();
    let (start, end) = (range.start.addr().next_multiple_of(page), range.end.addr() / page * page);
    if start < end {
        // SAFETY: the pages belong to the slice. The call does not change their contents.
        unsafe { libc::madvise(range.start.with_addr(start).cast(), end - start, libc::MADV_POPULATE_WRITE) };
    }
}

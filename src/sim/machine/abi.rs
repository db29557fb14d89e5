//! The C interface of the simulated kernel: conversion of addresses, buffers and results.
//!
//! The calls with message headers are in [`messages`](super::messages), the resolver is in
//! [`names`](super::names), and the clock, random numbers, threads and files are in
//! [`host`](super::host).
//!
//! Pointers are those that a program passes to the C library's function of the same name. They are
//! used only during the call.

#![allow(unsafe_code)]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::{ptr, slice};

use libc::{c_int, c_ulong, c_void, iovec, pollfd, sockaddr, socklen_t};

use super::backend::is_simulated;
use super::current;
use super::host;
use super::kernel::socket::{Family, Kind};
use super::kernel::{Address, IpOverrides, Kernel, Received, is_group};
use super::lane;

/// The result of a call: its value, or an errno.
pub(super) type Result<T> = std::result::Result<T, i32>;

/// Calls the kernel of this thread's simulation. Fails with EBADF outside simulations. If the call
/// used a descriptor of another simulation, records a refusal.
pub(super) fn kernel<T>(f: impl FnOnce(&mut Kernel) -> Result<T>) -> Result<T> {
    current::with(|machine| {
        let machine = machine?;
        let result = machine.try_kernel(|kernel| (f(kernel), kernel.stranger.take()));
        if let Some((_, Some(fd))) = result {
            machine.refuse_once(format!(
                "a task of a simulation uses the socket {fd} of another simulation: sockets do not outlive their \
                 simulation, so a test cannot keep them in a static"
            ));
        }
        result.map(|(result, _)| result)
    })
    .unwrap_or(Err(libc::EBADF))
}

fn ok<T>(result: Result<T>) -> Result<c_int> {
    result.map(|_| 0)
}

// ---- addresses ----

pub(super) fn read_address(address: *const sockaddr, length: socklen_t) -> Result<Address> {
    let length = length as usize;
    if address.is_null() || length < size_of::<libc::sa_family_t>() {
        return Err(libc::EINVAL);
    }
    // SAFETY: the caller passes an address of `length` bytes.
    let bytes = unsafe { slice::from_raw_parts(address.cast::<u8>(), length) };
    let family = bytes.first_chunk().map(|word| libc::sa_family_t::from_ne_bytes(*word)).unwrap_or_default();
    match i32::from(family) {
        libc::AF_UNSPEC => Ok(Address::Unspecified),
        libc::AF_INET if length >= size_of::<libc::sockaddr_in>() => {
            // SAFETY: the address has enough bytes, and any bytes are a valid value.
            let raw: libc::sockaddr_in = unsafe { ptr::read_unaligned(address.cast()) };
            let ip = Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr));
            Ok(Address::Inet(SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(raw.sin_port)))))
        }
        libc::AF_INET6 if length >= size_of::<libc::sockaddr_in6>() => {
            // SAFETY: as above.
            let raw: libc::sockaddr_in6 = unsafe { ptr::read_unaligned(address.cast()) };
            let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            Ok(Address::Inet(SocketAddr::V6(SocketAddrV6::new(ip, u16::from_be(raw.sin6_port), 0, 0))))
        }
        libc::AF_UNIX => {
            let path = &bytes[size_of::<libc::sa_family_t>()..];
            let is_abstract = path.first() == Some(&0) && path.len() > 1;
            let end = path.iter().position(|&byte| byte == 0).filter(|_| !is_abstract).unwrap_or(path.len());
            Ok(Address::Unix(path[..end].to_vec()))
        }
        libc::AF_INET | libc::AF_INET6 => Err(libc::EINVAL),
        _ => Err(libc::EAFNOSUPPORT),
    }
}

/// Returns the bytes of an address in the form of the C interface, such as `sockaddr_in`.
pub(super) fn encode(address: &Address) -> Vec<u8> {
    fn bytes<T>(raw: &T) -> Vec<u8> {
        // SAFETY: the value is a plain struct, and all its bytes, including padding, were
        // initialised with zeroes.
        unsafe { slice::from_raw_parts(ptr::from_ref(raw).cast::<u8>(), size_of::<T>()) }.to_vec()
    }
    match address {
        Address::Unspecified => Vec::new(),
        Address::Inet(SocketAddr::V4(addr)) => {
            // SAFETY: plain data for which all zeroes is a valid value.
            let mut raw: libc::sockaddr_in = unsafe { std::mem::zeroed() };
            raw.sin_family = libc::AF_INET as libc::sa_family_t;
            (raw.sin_port, raw.sin_addr.s_addr) = (addr.port().to_be(), u32::from(*addr.ip()).to_be());
            bytes(&raw)
        }
        Address::Inet(SocketAddr::V6(addr)) => {
            // SAFETY: plain data for which all zeroes is a valid value.
            let mut raw: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
            raw.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            (raw.sin6_port, raw.sin6_addr.s6_addr) = (addr.port().to_be(), addr.ip().octets());
            bytes(&raw)
        }
        Address::Unix(name) => {
            let mut raw = (libc::AF_UNIX as libc::sa_family_t).to_ne_bytes().to_vec();
            raw.extend_from_slice(name);
            if name.first().is_some_and(|&first| first != 0) {
                raw.push(0);
            }
            raw
        }
    }
}

pub(super) fn write_address(address: &Address, to: *mut sockaddr, length: *mut socklen_t) {
    if to.is_null() || length.is_null() {
        return;
    }
    let bytes = encode(address);
    // SAFETY: the caller passes the length of its storage.
    let room = unsafe { *length } as usize;
    // SAFETY: the storage is valid for writes of that many bytes.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to.cast::<u8>(), bytes.len().min(room)) };
    // SAFETY: the length is valid for writes.
    unsafe { *length = bytes.len() as socklen_t };
}

// ---- sockets ----

/// Records that a task opens a socket of a kind that is not simulated. Returns the errno.
fn refused(what: String, errno: i32) -> i32 {
    let text = format!("a task of a simulation opens {what}, which is not simulated");
    current::with(|machine| machine.map(|machine| machine.refuse(text)));
    errno
}

/// Records, once per simulation, that a task uses a socket in a way that is not simulated. Returns
/// the errno.
pub(super) fn unsupported(what: &str, errno: i32) -> i32 {
    refused_once(format!("a task of a simulation {what}, which is not simulated"), errno)
}

/// Records a refusal with this text, once per simulation, and returns its errno.
fn refused_once(text: String, errno: i32) -> i32 {
    current::with(|machine| machine.map(|machine| machine.refuse_once(text)));
    errno
}

/// Sets the flag FD_CLOEXEC of a new descriptor from the flags of the call that has returned it.
fn close_on_exec(kernel: &mut Kernel, fd: c_int, flags: c_int) -> Result<c_int> {
    kernel.set_closes_on_exec(fd, flags & libc::SOCK_CLOEXEC != 0).map(|()| fd)
}

fn kind(domain: c_int, ty: c_int) -> Result<(Family, Kind, bool)> {
    let family = match domain {
        libc::AF_INET => Family::V4,
        libc::AF_INET6 => Family::V6,
        libc::AF_UNIX => Family::Unix,
        _ => return Err(refused(format!("a socket of family {domain}"), libc::EAFNOSUPPORT)),
    };
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let kind = match ty & !flags {
        libc::SOCK_STREAM => Kind::Stream,
        libc::SOCK_DGRAM => Kind::Datagram,
        libc::SOCK_SEQPACKET if family == Family::Unix => Kind::Packets,
        _ => return Err(refused(format!("a socket of type {}", ty & !flags), libc::ESOCKTNOSUPPORT)),
    };
    Ok((family, kind, ty & libc::SOCK_NONBLOCK != 0))
}

fn here() -> u16 {
    current::with(|machine| machine.map_or(0, |machine| machine.host.get()))
}

pub(super) fn socket(domain: c_int, ty: c_int, protocol: c_int) -> Result<c_int> {
    let (family, kind, nonblocking) = kind(domain, ty)?;
    let expected = match (family, kind) {
        (Family::Unix, _) => libc::PF_UNIX,
        (_, Kind::Datagram) => libc::IPPROTO_UDP,
        _ => libc::IPPROTO_TCP,
    };
    if protocol != 0 && protocol != expected {
        // MPTCP, SCTP and other protocols are not simulated.
        return Err(libc::EPROTONOSUPPORT);
    }
    let host = here();
    kernel(|kernel| {
        let fd = kernel.open(host, family, kind, nonblocking)?;
        close_on_exec(kernel, fd, ty)
    })
}

pub(super) fn socketpair(domain: c_int, ty: c_int, protocol: c_int, fds: *mut c_int) -> Result<c_int> {
    let (family, kind, nonblocking) = kind(domain, ty)?;
    if family != Family::Unix {
        return Err(libc::EOPNOTSUPP);
    }
    if !matches!(protocol, 0 | libc::PF_UNIX) {
        return Err(libc::EPROTONOSUPPORT);
    }
    let host = here();
    let pair = kernel(|kernel| {
        let (first, second) = kernel.pair(host, kind, nonblocking)?;
        Ok([close_on_exec(kernel, first, ty)?, close_on_exec(kernel, second, ty)?])
    })?;
    // SAFETY: the caller passes room for two descriptors.
    unsafe { fds.cast::<[c_int; 2]>().write(pair) };
    Ok(0)
}

pub(super) fn bind(fd: c_int, address: *const sockaddr, length: socklen_t) -> Result<c_int> {
    let address = read_address(address, length)?;
    ok(kernel(|kernel| kernel.bind(fd, &address)))
}

pub(super) fn listen(fd: c_int, backlog: c_int) -> Result<c_int> {
    ok(kernel(|kernel| kernel.listen(fd, backlog)))
}

pub(super) fn connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> Result<c_int> {
    let address = read_address(address, length)?;
    let result = kernel(|kernel| {
        let result = kernel.connect(fd, &address);
        if result == Err(libc::EINPROGRESS) && !kernel.is_nonblocking(fd)? {
            // The call would wait for events that occur only after this thread has returned to the
            // run loop.
            return Err(libc::EDEADLK);
        }
        result
    });
    if result == Err(libc::EDEADLK) {
        let text = "a task of a simulation connects a blocking socket, which would block its only thread: \
                    connect with netpoll::net";
        return Err(refused_once(text.to_owned(), libc::EDEADLK));
    }
    ok(result)
}

pub(super) fn accept4(fd: c_int, address: *mut sockaddr, length: *mut socklen_t, flags: c_int) -> Result<c_int> {
    let nonblocking = flags & libc::SOCK_NONBLOCK != 0;
    let (accepted, peer) = kernel(|kernel| {
        let (accepted, peer) = kernel.accept(fd, nonblocking)?;
        Ok((close_on_exec(kernel, accepted, flags)?, peer))
    })?;
    write_address(&peer, address, length);
    Ok(accepted)
}

pub(super) fn shutdown(fd: c_int, how: c_int) -> Result<c_int> {
    let (read, write) = match how {
        libc::SHUT_RD => (true, false),
        libc::SHUT_WR => (false, true),
        libc::SHUT_RDWR => (true, true),
        _ => return Err(libc::EINVAL),
    };
    ok(kernel(|kernel| kernel.shutdown(fd, read, write)))
}

pub(super) fn getsockname(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> Result<c_int> {
    let own = kernel(|kernel| kernel.local_address(fd))?;
    write_address(&own, address, length);
    Ok(0)
}

pub(super) fn getpeername(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> Result<c_int> {
    let peer = kernel(|kernel| kernel.peer_address(fd))?;
    write_address(&peer, address, length);
    Ok(0)
}

pub(super) fn getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    length: *mut socklen_t,
) -> Result<c_int> {
    let bytes = match (level, name) {
        (libc::SOL_SOCKET, libc::SO_PEERCRED) => {
            kernel(|kernel| kernel.peer_address(fd))?;
            // SAFETY: the call takes no pointer and cannot fail.
            let user = unsafe { libc::geteuid() };
            // SAFETY: as above.
            let group = unsafe { libc::getegid() };
            [std::process::id(), user, group].into_iter().flat_map(u32::to_ne_bytes).collect()
        }
        _ => kernel(|kernel| kernel.option(fd, level, name))?,
    };
    // SAFETY: the caller passes the length of its buffer.
    let room = unsafe { *length } as usize;
    let count = bytes.len().min(room);
    // SAFETY: the buffer is valid for writes of that many bytes.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), value.cast::<u8>(), count) };
    // SAFETY: the length is valid for writes.
    unsafe { *length = count as socklen_t };
    Ok(0)
}

pub(super) fn setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    length: socklen_t,
) -> Result<c_int> {
    if value.is_null() {
        return Err(libc::EFAULT);
    }
    // SAFETY: the caller passes a value of `length` bytes.
    let bytes = unsafe { slice::from_raw_parts(value.cast::<u8>(), length as usize) };
    let result = kernel(|kernel| kernel.set_option(fd, level, name, bytes));
    // TCP_FASTOPEN_CONNECT is not refused: a dial works without it, as on a kernel that does not
    // have this option.
    if result == Err(libc::ENOPROTOOPT)
        && (level, name) != (libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT)
        && kernel(|kernel| kernel.has_level(fd, level)) == Ok(true)
    {
        unsupported(&format!("sets the socket option {name} at level {level}"), libc::ENOPROTOOPT);
    }
    ok(result)
}

/// Returns whether the descriptor belongs to this thread's simulation.
fn is_own(fd: c_int) -> bool {
    kernel(|kernel| Ok(kernel.owns(fd))) == Ok(true)
}

pub(super) fn close(fd: c_int) -> Result<c_int> {
    if is_own(fd) {
        return ok(kernel(|kernel| kernel.close(fd)));
    }
    lane::close_elsewhere(fd);
    Ok(0)
}

/// Closes a descriptor of this thread's simulation but keeps its number in use until [`close`] is
/// called. Returns false, without an effect, if the descriptor does not belong to this simulation.
pub(crate) fn close_and_keep_number(fd: c_int) -> bool {
    is_own(fd) && kernel(|kernel| kernel.close_and_keep_number(fd)).is_ok()
}

pub(super) fn fcntl(fd: c_int, command: c_int, argument: c_ulong) -> Result<c_int> {
    match command {
        // In debug builds, std checks that a descriptor is open before closing it.
        libc::F_GETFD if !is_own(fd) => Ok(libc::FD_CLOEXEC),
        libc::F_GETFD => {
            kernel(|kernel| kernel.closes_on_exec(fd)).map(|closes| if closes { libc::FD_CLOEXEC } else { 0 })
        }
        libc::F_SETFD => {
            let closes = argument as c_int & libc::FD_CLOEXEC != 0;
            ok(kernel(|kernel| kernel.set_closes_on_exec(fd, closes)))
        }
        libc::F_GETFL => {
            let nonblocking = kernel(|kernel| kernel.is_nonblocking(fd))?;
            Ok(libc::O_RDWR | if nonblocking { libc::O_NONBLOCK } else { 0 })
        }
        libc::F_SETFL => {
            let nonblocking = argument as c_int & libc::O_NONBLOCK != 0;
            ok(kernel(|kernel| kernel.set_nonblocking(fd, nonblocking)))
        }
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => kernel(|kernel| {
            let least = c_int::try_from(argument as u32).map_err(|_| libc::EINVAL)?;
            let copy = kernel.duplicate(fd, least)?;
            kernel.set_closes_on_exec(copy, command == libc::F_DUPFD_CLOEXEC)?;
            Ok(copy)
        }),
        _ => kernel(|kernel| kernel.id(fd)).and(Err(libc::EINVAL)),
    }
}

pub(super) fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> Result<c_int> {
    let value = match request {
        libc::FIONBIO => {
            // SAFETY: this request takes a pointer to an int.
            let nonblocking = unsafe { argument.cast::<c_int>().read() } != 0;
            return ok(kernel(|kernel| kernel.set_nonblocking(fd, nonblocking)));
        }
        libc::FIONREAD => kernel(|kernel| kernel.queued(fd).map(|(received, _)| received))?,
        libc::TIOCOUTQ => kernel(|kernel| kernel.queued(fd).map(|(_, sent)| sent))?,
        _ => return Err(libc::ENOTTY),
    };
    // SAFETY: both requests take a pointer to an int.
    unsafe { argument.cast::<c_int>().write(value as c_int) };
    Ok(0)
}

// ---- readiness ----

fn entries<'a>(entries: *mut pollfd, count: c_ulong) -> &'a mut [pollfd] {
    if count == 0 {
        return &mut [];
    }
    // SAFETY: the caller passes that many entries, to which it has exclusive access during the
    // call.
    unsafe { slice::from_raw_parts_mut(entries, count as usize) }
}

pub(super) fn has_simulated(list: *mut pollfd, count: c_ulong) -> bool {
    entries(list, count).iter().any(|entry| is_simulated(entry.fd))
}

/// Adds the bits that Linux reports together with POLLIN and POLLOUT: POLLRDNORM, POLLWRNORM and,
/// except for TCP, POLLWRBAND.
fn normal(fd: c_int, bits: c_int) -> c_int {
    let is_tcp = kernel(|kernel| Ok(kernel.is_tcp(fd))) == Ok(true);
    let input = if bits & libc::EPOLLIN != 0 { libc::EPOLLRDNORM } else { 0 };
    let output = if bits & libc::EPOLLOUT != 0 { libc::EPOLLWRNORM } else { 0 };
    let band = if output != 0 && !is_tcp { libc::EPOLLWRBAND } else { 0 };
    bits | input | output | band
}

/// Implements poll(2). Events occur only after this thread has returned to the run loop. So if no
/// descriptor is ready, the call advances the clock by `timeout` milliseconds, as nanosleep(2)
/// does. If `timeout` is negative, the call fails with EDEADLK.
pub(super) fn poll(list: *mut pollfd, count: c_ulong, timeout: c_int) -> Result<c_int> {
    let mut ready = 0;
    for entry in entries(list, count) {
        if !is_simulated(entry.fd) {
            // SAFETY: one valid entry. The C library's function ignores a negative descriptor.
            unsafe { libc::poll(entry, 1, 0) };
            ready += c_int::from(entry.revents != 0);
            continue;
        }
        let bits = kernel(|kernel| kernel.poll(entry.fd));
        let asked = i32::from(entry.events) | libc::EPOLLERR | libc::EPOLLHUP;
        // The bits of poll(2) and epoll(7) have the same values on Linux.
        entry.revents = bits.map_or(libc::POLLNVAL, |bits| (normal(entry.fd, bits as i32) & asked) as i16);
        ready += c_int::from(entry.revents != 0);
    }
    if ready == 0 && timeout != 0 {
        let Ok(millis) = u64::try_from(timeout) else {
            let text = "a task of a simulation waits in poll(2), which would block its only thread: use netpoll::net";
            return Err(refused_once(text.to_owned(), libc::EDEADLK));
        };
        host::advance(millis * 1_000_000);
    }
    Ok(ready)
}

// ---- data ----

/// The maximum number of buffers of a call (IOV_MAX).
const BUFFERS_MAX: usize = 1024;

fn raw_buffers<'a>(bufs: *const iovec, count: usize) -> Result<&'a [iovec]> {
    match count {
        0 => Ok(&[]),
        // SAFETY: the caller passes that many buffers.
        1..=BUFFERS_MAX => Ok(unsafe { slice::from_raw_parts(bufs, count) }),
        _ => Err(libc::EMSGSIZE),
    }
}

/// Returns the buffers of a call. Fails with EMSGSIZE, the error of sendmsg(2) and recvmsg(2), if
/// there are more than [`BUFFERS_MAX`].
pub(super) fn buffers<'a>(bufs: *const iovec, count: usize) -> Result<Vec<&'a mut [u8]>> {
    let one = |buf: &iovec| {
        let start = if buf.iov_len == 0 { ptr::dangling_mut() } else { buf.iov_base.cast::<u8>() };
        // SAFETY: each buffer is valid for its length during the call.
        unsafe { slice::from_raw_parts_mut(start, buf.iov_len) }
    };
    Ok(raw_buffers(bufs, count)?.iter().map(one).collect())
}

/// Returns the number of buffers of readv(2) or writev(2). Fails with EINVAL if it is negative or
/// greater than [`BUFFERS_MAX`].
fn count_of(count: c_int) -> Result<usize> {
    usize::try_from(count).ok().filter(|&count| count <= BUFFERS_MAX).ok_or(libc::EINVAL)
}

/// Receives into `bufs`. Of the flags, only MSG_OOB, MSG_ERRQUEUE and MSG_PEEK have an effect.
pub(super) fn receive(fd: c_int, bufs: &mut [&mut [u8]], flags: c_int) -> Result<Received> {
    if flags & libc::MSG_OOB != 0 {
        kernel(|kernel| kernel.check_urgent_receive(fd))?;
    }
    if flags & libc::MSG_ERRQUEUE != 0 {
        // The error queue is always empty.
        return kernel(|kernel| kernel.id(fd)).and(Err(libc::EAGAIN));
    }
    kernel(|kernel| kernel.receive(fd, bufs, flags & libc::MSG_PEEK != 0))
}

/// Receives into the buffers of a message. On a TCP socket, MSG_TRUNC discards the bytes, and the
/// buffers may be null.
pub(super) fn receive_into(fd: c_int, bufs: *const iovec, count: usize, flags: c_int) -> Result<Received> {
    let discards = flags & libc::MSG_TRUNC != 0 && kernel(|kernel| Ok(kernel.is_tcp(fd))) == Ok(true);
    if !discards {
        return receive(fd, &mut buffers(bufs, count)?, flags);
    }
    let room = raw_buffers(bufs, count)?.iter().fold(0, |sum: usize, buf| sum.saturating_add(buf.iov_len));
    receive(fd, &mut [&mut vec![0; room.min(receivable(fd))]], flags)
}

/// Returns the length of a buffer that is long enough for the next receive call. It is at least 1,
/// because the result of a call with an empty buffer may differ.
pub(super) fn receivable(fd: c_int) -> usize {
    kernel(|kernel| kernel.queued(fd)).map_or(1, |(queued, _)| queued.max(1))
}

/// Sends the contents of `bufs`, to the address `to` if there is one.
pub(super) fn send_to(
    fd: c_int,
    bufs: &[&[u8]],
    to: Option<&Address>,
    flags: c_int,
    overrides: IpOverrides,
) -> Result<isize> {
    if flags & libc::MSG_OOB != 0 {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        return Err(match kernel(|kernel| kernel.refuse_urgent_send(fd, length))? {
            true => libc::EOPNOTSUPP,
            false => unsupported("sends urgent data (MSG_OOB)", libc::EOPNOTSUPP),
        });
    }
    if flags & (libc::MSG_ZEROCOPY | libc::MSG_FASTOPEN) != 0 {
        return Err(libc::EOPNOTSUPP);
    }
    let result = kernel(|kernel| kernel.send(fd, bufs, to, overrides)).map(|count| count as isize);
    if let (Err(libc::ENETUNREACH), Some(Address::Inet(to))) = (&result, to)
        && is_group(to.ip())
    {
        unsupported(&format!("sends to the multicast or broadcast address {}", to.ip()), libc::ENETUNREACH);
    }
    result
}

/// Implements recv(2) for a slice.
pub(super) fn recv(fd: c_int, buf: &mut [u8], flags: c_int) -> Result<usize> {
    receive(fd, &mut [buf], flags).map(|received| received.bytes)
}

/// Implements send(2) for a slice.
pub(super) fn send(fd: c_int, buf: &[u8], flags: c_int) -> Result<usize> {
    send_to(fd, &[buf], None, flags, IpOverrides::default()).map(|count| count as usize)
}

pub(super) fn read(fd: c_int, buf: *mut c_void, count: usize) -> Result<isize> {
    readv(fd, &iovec { iov_base: buf, iov_len: count }, 1)
}

pub(super) fn write(fd: c_int, buf: *const c_void, count: usize) -> Result<isize> {
    writev(fd, &iovec { iov_base: buf.cast_mut(), iov_len: count }, 1)
}

pub(super) fn readv(fd: c_int, bufs: *const iovec, count: c_int) -> Result<isize> {
    let mut bufs = buffers(bufs, count_of(count)?)?;
    receive(fd, &mut bufs, 0).map(|received| received.bytes as isize)
}

pub(super) fn writev(fd: c_int, bufs: *const iovec, count: c_int) -> Result<isize> {
    let bufs = buffers(bufs, count_of(count)?)?;
    let bufs: Vec<&[u8]> = bufs.iter().map(|buf| &**buf).collect();
    send_to(fd, &bufs, None, 0, IpOverrides::default())
}

pub(super) fn recvfrom(
    fd: c_int,
    buf: *mut c_void,
    count: usize,
    flags: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> Result<isize> {
    let buf = iovec { iov_base: buf, iov_len: count };
    let received = receive_into(fd, &raw const buf, 1, flags)?;
    match &received.from {
        Some(from) => write_address(from, address, length),
        None if !length.is_null() => {
            // SAFETY: the caller passes a place for the length.
            unsafe { *length = 0 };
        }
        None => {}
    }
    let truncates = flags & libc::MSG_TRUNC != 0;
    Ok(if truncates { received.whole } else { received.bytes } as isize)
}

pub(super) fn sendto(
    fd: c_int,
    buf: *const c_void,
    count: usize,
    flags: c_int,
    address: *const sockaddr,
    length: socklen_t,
) -> Result<isize> {
    let to = if address.is_null() { None } else { Some(read_address(address, length)?) };
    let buf = iovec { iov_base: buf.cast_mut(), iov_len: count };
    let bufs = buffers(&raw const buf, 1)?;
    let bufs: Vec<&[u8]> = bufs.iter().map(|buf| &**buf).collect();
    send_to(fd, &bufs, to.as_ref(), flags, IpOverrides::default())
}

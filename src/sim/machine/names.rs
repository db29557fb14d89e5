//! The C interface of a simulation's resolver: getaddrinfo(3) and getnameinfo(3).

#![allow(unsafe_code)]

use std::borrow::Cow;
use std::ffi::CStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ptr;

use libc::{addrinfo, c_char, c_int, sockaddr, socklen_t};

use super::abi::{encode, kernel, read_address};
use super::kernel::{Address, Kernel};

/// The error for an IP address that is not of the requested family (netdb.h). The crate `libc` does
/// not define this constant.
const EAI_ADDRFAMILY: c_int = -9;

fn text<'a>(text: *const c_char) -> Option<Cow<'a, str>> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the caller passes a string that ends in a zero byte.
    Some(unsafe { CStr::from_ptr(text) }.to_string_lossy())
}

fn loopback() -> Vec<IpAddr> {
    vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
}

/// Implements getaddrinfo(3) for the names of hosts, `localhost`, IP addresses and a null host,
/// with a numeric service or none. Returns 0 or an error code (`EAI_…`).
pub(super) fn getaddrinfo(
    host: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    list: *mut *mut addrinfo,
) -> c_int {
    // SAFETY: the pointer is null, or that of hints passed by the caller.
    let hints = unsafe { hints.as_ref() };
    let (family, socktype) = hints.map_or((libc::AF_UNSPEC, 0), |hints| (hints.ai_family, hints.ai_socktype));
    if host.is_null() && service.is_null() {
        return libc::EAI_NONAME;
    }
    let has = |flag: c_int| hints.is_some_and(|hints| hints.ai_flags & flag != 0);
    if !matches!(family, libc::AF_UNSPEC | libc::AF_INET | libc::AF_INET6) {
        return libc::EAI_FAMILY;
    }
    let service = text(service).filter(|service| !service.is_empty());
    let port = match service.map(|service| service.parse::<u16>()) {
        None => 0,
        Some(Ok(port)) => port,
        Some(Err(_)) if has(libc::AI_NUMERICSERV) => return libc::EAI_NONAME,
        // The names of services are in a file of the real machine (services(5)), which is not read.
        Some(Err(_)) => return libc::EAI_SERVICE,
    };
    let literal = text(host).and_then(|name| name.parse::<IpAddr>().ok());
    let ips = match text(host).as_deref() {
        None if has(libc::AI_PASSIVE) => vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)],
        None => loopback(),
        Some(_) if literal.is_some() => literal.into_iter().collect(),
        Some(_) if has(libc::AI_NUMERICHOST) => return libc::EAI_NONAME,
        Some(name) if name.strip_suffix('.').unwrap_or(name).eq_ignore_ascii_case("localhost") => loopback(),
        Some(name) => {
            let find = |kernel: &mut Kernel| {
                let host = kernel.host_named(name).ok_or(libc::ENOENT)?;
                Ok(kernel.hosts[usize::from(host)].addrs.clone())
            };
            kernel(find).unwrap_or_default()
        }
    };
    let of_family = |ip: &IpAddr| match family {
        libc::AF_INET => ip.is_ipv4(),
        libc::AF_INET6 => ip.is_ipv6(),
        _ => true,
    };
    let mut first = ptr::null_mut();
    for ip in ips.into_iter().rev().filter(of_family) {
        let Some(node) = node(SocketAddr::new(ip, port), socktype, first) else { return libc::EAI_MEMORY };
        first = node;
    }
    if first.is_null() {
        return if literal.is_some() { EAI_ADDRFAMILY } else { libc::EAI_NONAME };
    }
    if has(libc::AI_CANONNAME) && !host.is_null() {
        // SAFETY: the caller passes a string. freeaddrinfo(3) frees the copy with the list.
        let name = unsafe { libc::strdup(host) };
        // SAFETY: the node was just created.
        unsafe { (*first).ai_canonname = name };
    }
    // SAFETY: the caller passes a place for the list.
    unsafe { *list = first };
    0
}

/// Implements getnameinfo(3): the name of the host that has the address, or `localhost`. The
/// service is always a number, because services(5) of the real machine is not read. A buffer that
/// is null or empty is not written. Returns 0 or an error code (`EAI_…`).
pub(super) fn getnameinfo(
    address: *const sockaddr,
    length: socklen_t,
    host: (*mut c_char, socklen_t),
    service: (*mut c_char, socklen_t),
    flags: c_int,
) -> c_int {
    let Ok(Address::Inet(address)) = read_address(address, length) else { return libc::EAI_FAMILY };
    let ip = address.ip().to_canonical();
    let named = || match ip {
        ip if ip.is_loopback() => Some("localhost".to_owned()),
        ip => kernel(|kernel| Ok(kernel.name_of(ip).map(str::to_owned))).ok().flatten(),
    };
    let name = if flags & libc::NI_NUMERICHOST != 0 { None } else { named() };
    if name.is_none() && flags & libc::NI_NAMEREQD != 0 {
        return libc::EAI_NONAME;
    }
    let is_written =
        write_text(host, &name.unwrap_or_else(|| ip.to_string())) && write_text(service, &address.port().to_string());
    if is_written { 0 } else { libc::EAI_OVERFLOW }
}

/// Writes `text` and a zero byte into a buffer, unless the buffer is null or empty. Returns false
/// if the buffer is too short.
fn write_text((buffer, length): (*mut c_char, socklen_t), text: &str) -> bool {
    if buffer.is_null() || length == 0 {
        return true;
    }
    if text.len() >= length as usize {
        return false;
    }
    // SAFETY: the caller passes a buffer of `length` bytes, and the text is shorter.
    unsafe { ptr::copy_nonoverlapping(text.as_ptr(), buffer.cast::<u8>(), text.len()) };
    // SAFETY: as above.
    let end = unsafe { buffer.add(text.len()) };
    // SAFETY: as above.
    unsafe { end.write(0) };
    true
}

/// Returns a list entry as glibc allocates it, so that glibc's freeaddrinfo(3) can free it: one
/// allocation, with the address after the entry. Returns `None` if the allocation fails.
fn node(addr: SocketAddr, socktype: c_int, next: *mut addrinfo) -> Option<*mut addrinfo> {
    let bytes = encode(&Address::Inet(addr));
    // SAFETY: calloc accepts any size.
    let memory = unsafe { libc::calloc(1, size_of::<addrinfo>() + bytes.len()) };
    if memory.is_null() {
        return None;
    }
    let entry: *mut addrinfo = memory.cast();
    // SAFETY: the memory is large enough for an entry, and its alignment suits any type.
    let behind = unsafe { entry.add(1) }.cast::<u8>();
    // SAFETY: the memory is also large enough for the address after the entry.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), behind, bytes.len()) };
    let value = addrinfo {
        ai_flags: 0,
        ai_family: if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 },
        ai_socktype: if socktype == 0 { libc::SOCK_STREAM } else { socktype },
        ai_protocol: 0,
        ai_addrlen: bytes.len() as socklen_t,
        ai_addr: behind.cast(),
        ai_canonname: ptr::null_mut(),
        ai_next: next,
    };
    // SAFETY: as above.
    unsafe { entry.write(value) };
    Some(entry)
}

//! The host's name service: getaddrinfo(3) and getnameinfo(3) as safe functions. They block.
//!
//! Both are thread-safe, follow nsswitch.conf(5), hosts(5) and resolv.conf(5) with their search list, time-outs and
//! attempts, and getaddrinfo orders addresses as RFC 6724 and gai.conf(5) say. std's resolver is the same call, but
//! asks for both families only and tells reasons apart by their text only.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ptr;

use libc::{addrinfo, c_char, c_int};
use socket2::SockAddr;

use super::fd;

/// Whose addresses are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Family {
    /// Both families, in the order in which they should be tried.
    Any,
    V4,
    V6,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NameFailure {
    /// There is no such name, or nothing of the kind that was asked for (EAI_NONAME, EAI_NODATA).
    NotFound,
    /// No server answered, or it has a problem now (EAI_AGAIN); the library's text.
    Temporary(String),
    /// Another code; the library's text.
    Other(String),
    /// A system call below failed (EAI_SYSTEM, EAI_MEMORY).
    Errno(i32),
}

/// What getaddrinfo answers, freed with this.
struct List(*mut addrinfo);

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: the list is getaddrinfo's, which filled the pointer in, and is freed once.
        unsafe { libc::freeaddrinfo(self.0) };
    }
}

impl List {
    /// Blocks.
    fn ask(host: Option<&str>, service: Option<&str>, hints: &addrinfo) -> Result<List, NameFailure> {
        // A name with a zero byte names nothing.
        let text = |text: Option<&str>| text.map(CString::new).transpose().map_err(|_| NameFailure::NotFound);
        let (host, service) = (text(host)?, text(service)?);
        let pointer = |text: &Option<CString>| text.as_ref().map_or(ptr::null(), |text| text.as_ptr());
        let mut list = ptr::null_mut();
        // SAFETY: the strings are null or end in a zero byte, the hints and the place for the answer are valid.
        let code = unsafe { libc::getaddrinfo(pointer(&host), pointer(&service), hints, &raw mut list) };
        if code == 0 { Ok(List(list)) } else { Err(explained(failure(code))) }
    }

    fn entries(&self) -> impl Iterator<Item = &addrinfo> {
        // SAFETY: the first entry is valid, or null, as long as the list.
        let first = unsafe { self.0.as_ref() };
        // SAFETY: so is each entry's next.
        std::iter::successors(first, |entry| unsafe { entry.ai_next.as_ref() })
    }

    fn addrs(&self) -> impl Iterator<Item = SocketAddr> {
        self.entries().filter_map(|entry| {
            let copy = |storage: *mut socket2::SockAddrStorage, length: *mut libc::socklen_t| {
                // SAFETY: an address of `ai_addrlen` bytes, which fits into the storage of any address.
                unsafe {
                    ptr::copy_nonoverlapping(entry.ai_addr.cast(), storage.cast::<u8>(), entry.ai_addrlen as usize)
                };
                // SAFETY: `try_init` passes a place for the length.
                unsafe { *length = entry.ai_addrlen };
                Ok(())
            };
            // SAFETY: `copy` has written an address and its length.
            let (_, addr) = unsafe { SockAddr::try_init(copy) }.ok()?;
            addr.as_socket()
        })
    }
}

fn hints(family: Family, socktype: c_int, flags: c_int) -> addrinfo {
    // SAFETY: `addrinfo` is plain data for which all zeroes is a value: no restriction.
    let mut hints: addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_family = match family {
        Family::Any => libc::AF_UNSPEC,
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    hints.ai_socktype = socktype;
    hints.ai_flags = flags;
    hints
}

#[cold]
fn failure(code: c_int) -> NameFailure {
    // The address family has no addresses: a value of Linux that the libc crate does not name.
    const EAI_ADDRFAMILY: c_int = -9;
    match code {
        libc::EAI_NONAME | libc::EAI_NODATA | EAI_ADDRFAMILY => NameFailure::NotFound,
        libc::EAI_SYSTEM => NameFailure::Errno(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)),
        libc::EAI_MEMORY => NameFailure::Errno(libc::ENOMEM),
        libc::EAI_AGAIN => NameFailure::Temporary(text(code)),
        _ => NameFailure::Other(text(code)),
    }
}

/// What a failure means in a process that has no descriptor left: the C library could not read hosts(5) or ask a server, and
/// says anything, from "no such name" to an errno of something else.
#[cold]
fn explained(failure: NameFailure) -> NameFailure {
    fd::exhausted().map_or(failure, NameFailure::Errno)
}

fn text(code: c_int) -> String {
    // SAFETY: it takes any number.
    let text = unsafe { libc::gai_strerror(code) };
    // SAFETY: and returns a static string that ends in a zero byte.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_string_lossy().into_owned()
}

/// The addresses of `host`, with port 0, best first.
pub(crate) fn addrs(host: &str, family: Family) -> Result<Vec<SocketAddr>, NameFailure> {
    let list = List::ask(Some(host), None, &hints(family, libc::SOCK_STREAM, 0))?;
    let addrs: Vec<_> = list.addrs().collect();
    if addrs.is_empty() { Err(NameFailure::NotFound) } else { Ok(addrs) }
}

/// The name at the end of `host`'s aliases.
pub(crate) fn canonical_name(host: &str) -> Result<String, NameFailure> {
    let list = List::ask(Some(host), None, &hints(Family::Any, libc::SOCK_STREAM, libc::AI_CANONNAME))?;
    let name = list.entries().find(|entry| !entry.ai_canonname.is_null()).ok_or(NameFailure::NotFound)?;
    // SAFETY: not null, so a string that ends in a zero byte and lives as long as the list.
    let name = unsafe { CStr::from_ptr(name.ai_canonname) };
    Ok(name.to_string_lossy().into_owned())
}

/// The port of a service of services(5); `socktype` 0 for any protocol.
pub(crate) fn port(service: &str, socktype: c_int) -> Result<u16, NameFailure> {
    // EAI_SERVICE: unknown, at least for this protocol.
    let unknown = |failure| match failure {
        NameFailure::Other(_) => NameFailure::NotFound,
        failure => failure,
    };
    let list = List::ask(None, Some(service), &hints(Family::Any, socktype, 0)).map_err(unknown)?;
    list.addrs().next().map(|addr| addr.port()).ok_or(NameFailure::NotFound)
}

/// The number of the network interface that is called `name`.
pub(crate) fn interface(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: the string ends in a zero byte. 0 is no interface's number.
    Some(unsafe { libc::if_nametoindex(name.as_ptr()) }).filter(|&number| number != 0)
}

/// The name of `ip`.
pub(crate) fn name(ip: IpAddr) -> Result<String, NameFailure> {
    let addr = SockAddr::from(SocketAddr::new(ip, 0));
    let mut name: [c_char; libc::NI_MAXHOST as usize] = [0; libc::NI_MAXHOST as usize];
    // SAFETY: the address and the buffer are valid for their lengths; no service is asked for.
    let code = unsafe {
        libc::getnameinfo(
            addr.as_ptr().cast(),
            addr.len(),
            name.as_mut_ptr(),
            libc::NI_MAXHOST,
            ptr::null_mut(),
            0,
            libc::NI_NAMEREQD,
        )
    };
    if code != 0 {
        return Err(explained(failure(code)));
    }
    // SAFETY: on success the buffer holds a string that ends in a zero byte.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) };
    Ok(name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn the_host_s_own_name_has_the_loopback_address() {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        assert!(addrs("localhost", Family::Any).unwrap().contains(&loopback));
        assert_eq!(addrs("localhost", Family::V4).unwrap(), [loopback]);
        if let Ok(v6) = addrs("localhost", Family::V6) {
            assert!(v6.iter().all(SocketAddr::is_ipv6));
        }
        assert_eq!(addrs("127.0.0.1", Family::V6), Err(NameFailure::NotFound));
        assert!(!canonical_name("localhost").unwrap().is_empty());
        assert!(!name(Ipv4Addr::LOCALHOST.into()).unwrap().is_empty());
    }

    #[test]
    fn names_that_cannot_be_are_not_found() {
        let long = format!("{}.invalid", "x".repeat(64));
        for name in [&long[..], "nul\0byte", "a b", ""] {
            assert_eq!(addrs(name, Family::Any), Err(NameFailure::NotFound), "{name:?}");
        }
        assert_eq!(port("no-such-service", 0), Err(NameFailure::NotFound));
        assert_eq!(port("nul\0byte", 0), Err(NameFailure::NotFound));
    }

    #[test]
    fn codes_become_what_they_mean() {
        assert_eq!(failure(libc::EAI_NODATA), NameFailure::NotFound);
        assert_eq!(failure(libc::EAI_MEMORY), NameFailure::Errno(libc::ENOMEM));
        assert!(matches!(failure(libc::EAI_AGAIN), NameFailure::Temporary(text) if !text.is_empty()));
        assert!(matches!(failure(libc::EAI_FAIL), NameFailure::Other(text) if !text.is_empty()));
    }
}

//! The system's name service: getaddrinfo(3) and getnameinfo(3) as safe functions, which block, and
//! the index of an interface.
//!
//! Both calls are thread-safe. In glibc they follow nsswitch.conf(5), hosts(5) and resolv.conf(5)
//! with its search list, timeouts and attempts, and getaddrinfo orders addresses by RFC 6724 and
//! gai.conf(5). std's resolver also calls getaddrinfo, but always for both families, and its errors
//! can be told apart only by their text.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ptr;

use libc::{addrinfo, c_char, c_int};
use socket2::SockAddr;

use super::{fd, os};

/// The address family of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// Both families, in the order in which the addresses should be tried.
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

/// The cause of a failed query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NameFailure {
    /// The name or the service does not exist, or the name has no records of the queried kind
    /// (EAI_NONAME, EAI_NODATA, EAI_ADDRFAMILY).
    NotFound,
    /// No server answered, or a server reported a temporary failure (EAI_AGAIN). Contains the text
    /// of the C library or of another resolver.
    Temporary(String),
    /// The call failed with another code, and the string is the C library's text; or the call was
    /// not made, and the string is the reason.
    Other(String),
    /// An underlying system call failed (EAI_SYSTEM), or memory (EAI_MEMORY) or descriptors are
    /// exhausted. Contains the errno.
    Errno(i32),
}

/// The result of getaddrinfo(3). It is freed when dropped.
struct List(*mut addrinfo);

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: getaddrinfo created the list, and it is freed once.
        unsafe { libc::freeaddrinfo(self.0) };
    }
}

impl List {
    /// Calls getaddrinfo(3), which blocks.
    fn ask(host: Option<&str>, service: Option<&str>, hints: &addrinfo) -> Result<List, NameFailure> {
        // A name with a NUL byte does not exist.
        let text = |text: Option<&str>| text.map(CString::new).transpose().map_err(|_| NameFailure::NotFound);
        let (host, service) = (text(host)?, text(service)?);
        let pointer = |text: &Option<CString>| text.as_ref().map_or(ptr::null(), |text| text.as_ptr());
        let mut list = ptr::null_mut();
        // SAFETY: the strings are null or end with NUL; hints and result are valid.
        let code = unsafe { libc::getaddrinfo(pointer(&host), pointer(&service), hints, &raw mut list) };
        if code == 0 { Ok(List(list)) } else { Err(explained(failure(code))) }
    }

    fn entries(&self) -> impl Iterator<Item = &addrinfo> {
        // SAFETY: the first entry is null, or valid as long as the list.
        let first = unsafe { self.0.as_ref() };
        // SAFETY: the same holds for each next entry.
        std::iter::successors(first, |entry| unsafe { entry.ai_next.as_ref() })
    }

    fn addrs(&self) -> impl Iterator<Item = SocketAddr> {
        self.entries().filter_map(|entry| {
            let copy = |storage: *mut socket2::SockAddrStorage, length: *mut libc::socklen_t| {
                // SAFETY: the address has `ai_addrlen` bytes, and the storage has room for any
                // address.
                unsafe {
                    ptr::copy_nonoverlapping(entry.ai_addr.cast(), storage.cast::<u8>(), entry.ai_addrlen as usize)
                };
                // SAFETY: `try_init` passes a valid pointer for the length.
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
    // SAFETY: `addrinfo` is plain data, for which all zeroes is a valid value: no restrictions.
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
    match code {
        libc::EAI_NONAME => NameFailure::NotFound,
        code if os::NO_ADDRESS_CODES.contains(&code) => NameFailure::NotFound,
        libc::EAI_SYSTEM => NameFailure::Errno(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)),
        libc::EAI_MEMORY => NameFailure::Errno(libc::ENOMEM),
        libc::EAI_AGAIN => NameFailure::Temporary(text(code)),
        _ => NameFailure::Other(text(code)),
    }
}

/// Returns `failure`, or EMFILE or ENFILE if no descriptor is available. In that case the C library
/// probably could not read hosts(5) or query a server, and its error is misleading, such as "no
/// such name".
#[cold]
fn explained(failure: NameFailure) -> NameFailure {
    fd::exhausted().map_or(failure, NameFailure::Errno)
}

fn text(code: c_int) -> String {
    // SAFETY: the function accepts any number.
    let text = unsafe { libc::gai_strerror(code) };
    // SAFETY: the result is a static string that ends with NUL.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_string_lossy().into_owned()
}

/// Returns the addresses of `host` with port 0, best first.
pub(crate) fn addrs(host: &str, family: Family) -> Result<Vec<SocketAddr>, NameFailure> {
    let list = List::ask(Some(host), None, &hints(family, libc::SOCK_STREAM, 0))?;
    let addrs: Vec<_> = list.addrs().collect();
    if addrs.is_empty() { Err(NameFailure::NotFound) } else { Ok(addrs) }
}

/// Returns the canonical name of `host`: the name at the end of its chain of aliases.
pub(crate) fn canonical_name(host: &str) -> Result<String, NameFailure> {
    let list = List::ask(Some(host), None, &hints(Family::Any, libc::SOCK_STREAM, libc::AI_CANONNAME))?;
    let name = list.entries().find(|entry| !entry.ai_canonname.is_null()).ok_or(NameFailure::NotFound)?;
    // SAFETY: the pointer is not null, so it points to a string that ends with NUL and lives as
    // long as the list.
    let name = unsafe { CStr::from_ptr(name.ai_canonname) };
    Ok(name.to_string_lossy().into_owned())
}

/// Returns the port of a service, which is a name in services(5) or a number. With a `socktype` of
/// 0 the service may be of any protocol.
pub(crate) fn port(service: &str, socktype: c_int) -> Result<u16, NameFailure> {
    // Other codes, such as EAI_SERVICE, mean that the service is unknown, at least for this
    // protocol.
    let unknown = |failure| match failure {
        NameFailure::Other(_) => NameFailure::NotFound,
        failure => failure,
    };
    let list = List::ask(None, Some(service), &hints(Family::Any, socktype, 0)).map_err(unknown)?;
    list.addrs().next().map(|addr| addr.port()).ok_or(NameFailure::NotFound)
}

/// Returns the index of the network interface `name`, or `None` if there is no such interface.
pub(crate) fn interface(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: the string ends with NUL. No interface has the index 0.
    Some(unsafe { libc::if_nametoindex(name.as_ptr()) }).filter(|&number| number != 0)
}

/// Returns the host name of `ip`.
#[allow(clippy::unnecessary_cast, reason = "the constant has another type on some systems")]
pub(crate) fn name(ip: IpAddr) -> Result<String, NameFailure> {
    let addr = SockAddr::from(SocketAddr::new(ip, 0));
    let mut name: [c_char; libc::NI_MAXHOST as usize] = [0; libc::NI_MAXHOST as usize];
    // SAFETY: address and buffer are valid for their lengths; no service is queried.
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
    // SAFETY: on success the buffer contains a string that ends with NUL.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) };
    Ok(name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn localhost_has_the_loopback_address() {
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
    fn impossible_names_are_not_found() {
        let long = format!("{}.invalid", "x".repeat(64));
        for name in [&long[..], "nul\0byte", "a b", ""] {
            assert_eq!(addrs(name, Family::Any), Err(NameFailure::NotFound), "{name:?}");
        }
        assert_eq!(port("no-such-service", 0), Err(NameFailure::NotFound));
        assert_eq!(port("nul\0byte", 0), Err(NameFailure::NotFound));
    }

    #[test]
    fn codes_map_to_failures() {
        assert_eq!(failure(os::NO_ADDRESS_CODES[0]), NameFailure::NotFound);
        assert_eq!(failure(libc::EAI_MEMORY), NameFailure::Errno(libc::ENOMEM));
        assert!(matches!(failure(libc::EAI_AGAIN), NameFailure::Temporary(text) if !text.is_empty()));
        assert!(matches!(failure(libc::EAI_FAIL), NameFailure::Other(text) if !text.is_empty()));
    }
}

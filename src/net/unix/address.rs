//! Names of Unix sockets: paths, std's addresses and the kernel's.
//!
//! std's address holds every path of up to 107 bytes and every abstract name. A path of exactly 108 bytes, which the kernel takes and
//! C programs can bind, does not fit it; such a peer reads as unnamed, since nobody could send to it through std's type either.
//!
//! # Compared with Go (net/unixsock.go, syscall/syscall_linux.go)
//! Go makes `@` at the beginning of a name abstract, and cuts names at a NUL. Here, as in std, `@` is an ordinary byte, NUL at the
//! beginning is what means abstract, and NULs in an abstract name are kept.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr;
use std::path::Path;

use socket2::SockAddr;

use crate::net::error::Addr;

/// Most bytes of a path, and of an abstract name after its NUL.
const NAME_MAX: usize = 107;

/// A name for the kernel and as errors print it.
#[derive(Clone, Debug)]
pub(super) struct Name {
    pub(super) raw: SockAddr,
    /// A file.
    pub(super) is_path: bool,
    printed: Addr,
}

impl Name {
    /// # Errors
    /// `InvalidInput` for a path that is too long, or has a NUL in it; the name to print comes with it.
    pub(super) fn of_path(path: &Path) -> Result<Name, (Addr, io::Error)> {
        let bytes = path.as_os_str().as_bytes();
        if let [0, name @ ..] = bytes {
            return Name::of_abstract(name);
        }
        let printed = Addr::Unix(path.to_owned());
        let refused = |why| (printed.clone(), io::Error::new(io::ErrorKind::InvalidInput, why));
        if bytes.len() > NAME_MAX {
            return Err(refused("a socket's path has at most 107 bytes"));
        }
        if bytes.contains(&0) {
            return Err(refused("a path has no NUL byte, but for one at the beginning of an abstract name"));
        }
        let raw = SockAddr::unix(path).map_err(|error| (printed.clone(), error))?;
        Ok(Name { raw, is_path: !bytes.is_empty(), printed })
    }

    fn of_abstract(name: &[u8]) -> Result<Name, (Addr, io::Error)> {
        let printed = Addr::Unix(std::ffi::OsStr::from_bytes(&[b"@", name].concat()).into());
        if name.len() > NAME_MAX {
            let why = "an abstract name has at most 107 bytes";
            return Err((printed, io::Error::new(io::ErrorKind::InvalidInput, why)));
        }
        let path = [b"\0", name].concat();
        let raw = SockAddr::unix(std::ffi::OsStr::from_bytes(&path)).map_err(|error| (printed.clone(), error))?;
        Ok(Name { raw, is_path: false, printed })
    }

    /// # Errors
    /// As [`of_path`](Name::of_path): a std address from elsewhere may hold what a path may not.
    pub(super) fn of_addr(addr: &SocketAddr) -> Result<Name, (Addr, io::Error)> {
        match addr.as_abstract_name() {
            Some(name) => Name::of_abstract(name),
            None => Name::of_path(addr.as_pathname().unwrap_or(Path::new(""))),
        }
    }

    pub(super) fn addr(&self) -> Addr {
        self.printed.clone()
    }
}

/// The address that the kernel gave: unnamed where it gave none.
///
/// # Errors
/// EAFNOSUPPORT where it is of another family.
pub(in crate::net) fn from_kernel(address: &SockAddr) -> io::Result<SocketAddr> {
    if !address.is_unix() && address.family() != libc::AF_UNSPEC as libc::sa_family_t {
        return Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT));
    }
    let named = match (address.as_pathname(), address.as_abstract_namespace()) {
        (Some(path), _) => SocketAddr::from_pathname(path).ok(),
        (None, Some(name)) => SocketAddr::from_abstract_name(name).ok(),
        (None, None) => None,
    };
    // An empty path makes the unnamed address.
    named.map_or_else(|| SocketAddr::from_pathname(""), Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{message, socket};
    use socket2::{Domain, Type};
    use std::os::fd::AsFd;

    #[test]
    fn names_go_to_the_kernel_and_come_back() {
        let there_and_back = |name: &Name| from_kernel(&name.raw).unwrap();
        let path = Name::of_path(Path::new("/tmp/x")).unwrap();
        assert_eq!(there_and_back(&path).as_pathname(), Some(Path::new("/tmp/x")));
        assert_eq!((path.addr().to_string().as_str(), path.is_path), ("/tmp/x", true));
        let hidden = Name::of_path(Path::new("\0a\0b")).unwrap();
        assert_eq!(there_and_back(&hidden).as_abstract_name(), Some(&b"a\0b"[..]));
        assert_eq!((hidden.addr().to_string().as_str(), hidden.is_path), ("@a\0b", false));
        let again = Name::of_addr(&there_and_back(&hidden)).unwrap();
        assert_eq!(there_and_back(&again).as_abstract_name(), Some(&b"a\0b"[..]));
        let none = Name::of_path(Path::new("")).unwrap();
        assert!(!none.is_path && there_and_back(&none).is_unnamed());
        assert_eq!(Name::of_path(Path::new("@x")).unwrap().addr().to_string(), "@x");
        assert!(Name::of_path(Path::new("@x")).unwrap().is_path, "an ordinary byte");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let long = |count| "x".repeat(count);
        assert!(Name::of_path(Path::new(&long(107))).is_ok());
        assert!(Name::of_path(Path::new(&format!("\0{}", long(107)))).is_ok());
        for bad in [long(108), format!("\0{}", long(108)), "a\0b".to_owned(), long(100_000)] {
            let (_, error) = Name::of_path(Path::new(&bad)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn other_families_are_no_unix_addresses() {
        let v4 = SockAddr::from(std::net::SocketAddr::from(([127, 0, 0, 1], 1)));
        assert_eq!(from_kernel(&v4).unwrap_err().raw_os_error(), Some(libc::EAFNOSUPPORT));
    }

    /// The kernel takes 108 bytes without a NUL at their end, and answers with a length beyond `sockaddr_un`.
    #[test]
    #[allow(unsafe_code)]
    fn a_path_of_108_bytes_reads_as_unnamed() {
        let stem = format!("/tmp/netpoll-{}-", std::process::id());
        let path = format!("{stem}{}", "x".repeat(108 - stem.len()));
        // All of `sun_path`, by way of an abstract name whose NUL is replaced.
        let hidden = SockAddr::unix(format!("\0{}", &path[1..])).unwrap();
        let (length, mut storage) = (hidden.len(), hidden.as_storage());
        // SAFETY: the storage holds an address of this family.
        let un = unsafe { storage.view_as::<libc::sockaddr_un>() };
        un.sun_path[0] = path.as_bytes()[0] as libc::c_char;
        // SAFETY: an address of the family that the storage names, and of its length.
        let raw = unsafe { SockAddr::new(storage, length) };
        let sender = socket::socket(Domain::UNIX, Type::DGRAM, None).unwrap();
        socket::bind(sender.as_fd(), &raw).unwrap();
        let receiver = socket::socket(Domain::UNIX, Type::DGRAM, None).unwrap();
        socket::bind(receiver.as_fd(), &Name::of_path(Path::new("")).unwrap().raw).unwrap();
        let to = socket::local_addr_any(receiver.as_fd()).unwrap();
        message::send_to(sender.as_fd(), b"x", &to, 0).unwrap();
        let (_, from) = message::recv_from(receiver.as_fd(), &mut [0; 4], 0).unwrap();
        let result = from_kernel(&from);
        let local = from_kernel(&socket::local_addr_any(sender.as_fd()).unwrap());
        std::fs::remove_file(&path).unwrap();
        assert!(result.unwrap().is_unnamed());
        assert!(local.unwrap().is_unnamed());
    }
}

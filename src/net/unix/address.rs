//! Names of Unix sockets: conversion between paths, std's addresses and the kernel's.
//!
//! On Linux, std's functions create an address from every path of up to 107 bytes and from every
//! abstract name. The kernel also accepts a path of exactly 108 bytes, which C programs can bind.
//! Only the methods of std's own sockets return an address with such a path, so here a socket with
//! such a path is reported as unnamed. An error would instead lose the connection or the datagram
//! of a peer with such a path.
//!
//! # Compared with Go (net/unixsock.go, syscall/syscall_linux.go)
//! In Go, `@` at the beginning of a name means an abstract name, and names are cut at a NUL. Here,
//! as in std, `@` is an ordinary byte, a NUL at the beginning means an abstract name, and NULs in
//! an abstract name are kept.

use std::ffi::OsStr;
use std::io;
use std::mem::offset_of;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr;
use std::path::Path;

use socket2::SockAddr;

use crate::net::error::Addr;
use crate::sys::os;

/// The maximum length of a path, and of an abstract name after its NUL: 107 bytes on Linux, 103 on
/// macOS and FreeBSD.
const NAME_MAX: usize = size_of::<libc::sockaddr_un>() - offset_of!(libc::sockaddr_un, sun_path) - 1;

const NUL_IN_PATH: &str = "socket path must not contain a NUL byte, except at the beginning of an abstract name";

/// A socket name as the user gave it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Name<'a> {
    Path(&'a Path),
    Addr(&'a SocketAddr),
}

fn refused(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why.into())
}

fn too_long(kind: &str) -> io::Error {
    refused(format!("{kind} must have at most {NAME_MAX} bytes"))
}

impl<'a> Name<'a> {
    /// Converts the name to the kernel's form.
    ///
    /// # Errors
    /// Returns `InvalidInput` if the name is too long or a path contains a NUL byte, and
    /// `Unsupported` for an abstract name on a system that has no abstract names.
    pub(super) fn raw(self) -> io::Result<SockAddr> {
        let path = match self {
            Name::Path(path) => path,
            Name::Addr(addr) => match os::abstract_name(addr) {
                Some(name) => {
                    let mut bytes = [0; NAME_MAX + 1];
                    let room = bytes[1..].get_mut(..name.len()).ok_or_else(|| too_long("abstract name"))?;
                    room.copy_from_slice(name);
                    return SockAddr::unix(OsStr::from_bytes(&bytes[..=name.len()]));
                }
                None => addr.as_pathname().unwrap_or(Path::new("")),
            },
        };
        match path.as_os_str().as_bytes() {
            [0, ..] if !os::HAS_ABSTRACT_NAMES => {
                Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no abstract socket names"))
            }
            [0, name @ ..] if name.len() > NAME_MAX => Err(too_long("abstract name")),
            [0, ..] => SockAddr::unix(path),
            bytes if bytes.len() > NAME_MAX => Err(too_long("socket path")),
            bytes if bytes.contains(&0) => Err(refused(NUL_IN_PATH)),
            _ => SockAddr::unix(path),
        }
    }

    /// Returns the name in the form that errors print.
    pub(super) fn printed(self) -> Addr {
        match self {
            Name::Addr(addr) => Addr::from(addr),
            Name::Path(path) => match path.as_os_str().as_bytes() {
                [0, name @ ..] => Addr::Unix(OsStr::from_bytes(&[b"@", name].concat()).into()),
                _ => Addr::Unix(path.to_owned()),
            },
        }
    }

    /// Returns the file that the name refers to, if the name is a path.
    pub(super) fn file(self) -> Option<&'a Path> {
        match self {
            Name::Addr(addr) => addr.as_pathname(),
            Name::Path(path) => Some(path).filter(|path| !matches!(path.as_os_str().as_bytes(), [] | [0, ..])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::unix::from_kernel;

    fn path(name: &str) -> Name<'_> {
        Name::Path(Path::new(name))
    }

    #[test]
    fn names_survive_conversion_to_the_kernel_form_and_back() {
        let there_and_back = |name: Name<'_>| from_kernel(&name.raw().unwrap()).unwrap();
        let file = there_and_back(path("/tmp/x"));
        assert_eq!(file.as_pathname(), Some(Path::new("/tmp/x")));
        let none = there_and_back(path(""));
        assert!(none.is_unnamed());
        let abstract_addr = os::HAS_ABSTRACT_NAMES.then(|| there_and_back(path("\0a\0b")));
        assert!(abstract_addr.as_ref().is_none_or(|addr| os::abstract_name(addr) == Some(b"a\0b")));
        for addr in [file, none].into_iter().chain(abstract_addr) {
            assert_eq!(format!("{:?}", there_and_back(Name::Addr(&addr))), format!("{addr:?}"));
        }
    }

    #[test]
    fn names_print_and_return_their_file() {
        let abstract_addr = os::from_abstract_name(b"x").ok();
        let names = [
            (path("/tmp/x"), "/tmp/x", true),
            (path("\0x"), "@x", false),
            (path("@x"), "@x", true),
            (path(""), "", false),
        ];
        for (name, printed, is_file) in
            names.into_iter().chain(abstract_addr.iter().map(|name| (Name::Addr(name), "@x", false)))
        {
            assert_eq!((name.printed().to_string().as_str(), name.file().is_some()), (printed, is_file));
        }
    }

    #[test]
    fn long_paths_and_paths_with_a_nul_are_refused() {
        let long = |count| "x".repeat(count);
        assert!(path(&long(NAME_MAX)).raw().is_ok());
        for bad in [long(NAME_MAX + 1), "a\0b".to_owned(), long(100_000)] {
            assert_eq!(path(&bad).raw().unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn long_abstract_names_are_refused() {
        let long = |count| format!("\0{}", "x".repeat(count));
        if !os::HAS_ABSTRACT_NAMES {
            return assert_eq!(path(&long(1)).raw().unwrap_err().kind(), io::ErrorKind::Unsupported);
        }
        assert!(path(&long(NAME_MAX)).raw().is_ok());
        let error = path(&long(NAME_MAX + 1)).raw().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("107 bytes"), "{error}");
        let longest = os::from_abstract_name(&[b'x'; NAME_MAX]).unwrap();
        assert_eq!(Name::Addr(&longest).raw().unwrap().as_abstract_namespace().unwrap().len(), NAME_MAX);
    }

    #[test]
    fn addresses_of_other_families_are_refused() {
        let v4 = SockAddr::from(std::net::SocketAddr::from(([127, 0, 0, 1], 1)));
        assert_eq!(from_kernel(&v4).unwrap_err().raw_os_error(), Some(libc::EAFNOSUPPORT));
    }

    /// Linux accepts 108 bytes without a terminating NUL, and returns a length beyond
    /// `sockaddr_un`. `SocketAddr::from_pathname` refuses the path.
    #[cfg(target_os = "linux")]
    #[test]
    #[allow(unsafe_code)]
    fn path_of_108_bytes_reads_as_unnamed() {
        use crate::sys::{message, socket};
        use socket2::{Domain, Type};
        use std::os::fd::AsFd;

        let stem = format!("/tmp/netpoll-{}-", std::process::id());
        let file = format!("{stem}{}", "x".repeat(108 - stem.len()));
        // The path fills all of `sun_path`. It is made from an abstract name by replacing the NUL.
        let abstract_addr = SockAddr::unix(format!("\0{}", &file[1..])).unwrap();
        let (length, mut storage) = (abstract_addr.len(), abstract_addr.as_storage());
        // SAFETY: the storage holds an address of this family.
        let un = unsafe { storage.view_as::<libc::sockaddr_un>() };
        un.sun_path[0] = file.as_bytes()[0] as libc::c_char;
        // SAFETY: the storage holds an address of its family and of this length.
        let raw = unsafe { SockAddr::new(storage, length) };
        let sender = socket::socket(Domain::UNIX, Type::DGRAM, None).unwrap();
        socket::bind(sender.as_fd(), &raw).unwrap();
        let receiver = socket::socket(Domain::UNIX, Type::DGRAM, None).unwrap();
        socket::bind(receiver.as_fd(), &path("").raw().unwrap()).unwrap();
        let to = socket::local_addr_any(receiver.as_fd()).unwrap();
        message::send_to(sender.as_fd(), b"x", &to, 0).unwrap();
        let (_, from) = message::recv_from(receiver.as_fd(), &mut [0; 4], 0).unwrap();
        let result = from_kernel(&from);
        let local = from_kernel(&socket::local_addr_any(sender.as_fd()).unwrap());
        std::fs::remove_file(&file).unwrap();
        assert!(result.unwrap().is_unnamed());
        assert!(local.unwrap().is_unnamed());
    }
}

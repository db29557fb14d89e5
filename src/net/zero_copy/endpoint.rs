//! [`Endpoint`]: the socket or file under a reader or writer, whose bytes the kernel can move.
//!
//! Known types are [`TcpStream`], [`UnixStream`], references to them, files in [`AssertAsync`], and
//! a [`Take`] reader around any of these. To add a stream type, implement [`Endpoint`] and
//! [`NoLifetime`] for it here and add it to the macro `streams`.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use futures_lite::io::{AssertAsync, Take};

use crate::net::TcpStream;
use crate::net::net_fd::NetFd;
use crate::net::unix::UnixStream;
use crate::sys::identity::{self, Asserted, Limited, NoLifetime, Own, Shared, Unique};

/// The socket or file under a reader or writer.
pub(crate) trait Endpoint {
    /// Returns the stream socket, if the endpoint is a socket.
    fn socket(&self) -> Option<Arc<NetFd>> {
        None
    }

    /// Returns the file, if the endpoint is a file.
    fn file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Returns the maximum number of bytes that may be taken from the endpoint.
    fn limit(&self) -> u64 {
        u64::MAX
    }

    /// Records that bytes were taken, which reduces the [limit](Endpoint::limit) by their number.
    fn took(&mut self, _bytes: u64) {}
}

// SAFETY: the type has no lifetime parameter.
#[allow(unsafe_code)]
unsafe impl NoLifetime for TcpStream {}

impl Endpoint for TcpStream {
    fn socket(&self) -> Option<Arc<NetFd>> {
        Some(self.fd.clone())
    }
}

// SAFETY: the type has no lifetime parameter.
#[allow(unsafe_code)]
unsafe impl NoLifetime for UnixStream {}

impl Endpoint for UnixStream {
    fn socket(&self) -> Option<Arc<NetFd>> {
        Some(self.shared())
    }
}

impl<E: Endpoint> Endpoint for &E {
    fn socket(&self) -> Option<Arc<NetFd>> {
        E::socket(self)
    }
}

impl<E: Endpoint> Endpoint for &mut E {
    fn socket(&self) -> Option<Arc<NetFd>> {
        E::socket(self)
    }
}

impl<F: Read + AsFd> Endpoint for AssertAsync<F> {
    fn file(&self) -> Option<BorrowedFd<'_>> {
        Some(self.get_ref().as_fd())
    }
}

impl<E: Endpoint> Endpoint for Take<E> {
    fn socket(&self) -> Option<Arc<NetFd>> {
        self.get_ref().socket()
    }

    fn file(&self) -> Option<BorrowedFd<'_>> {
        self.get_ref().file()
    }

    fn limit(&self) -> u64 {
        Take::limit(self)
    }

    fn took(&mut self, bytes: u64) {
        self.set_limit(Take::limit(self).saturating_sub(bytes));
    }
}

/// Expands `$try!(FAMILY)` for each stream type and the references to it. `FAMILY` is a type that
/// implements [`identity::Family`].
macro_rules! streams {
    ($try:ident) => {
        $try!(Own<TcpStream>);
        $try!(Shared<TcpStream>);
        $try!(Unique<TcpStream>);
        $try!(Own<UnixStream>);
        $try!(Shared<UnixStream>);
        $try!(Unique<UnixStream>);
    };
}

/// Calls `look` with the reader if its type is known. Otherwise returns `None`.
pub(crate) fn with_reader<R: ?Sized, T>(reader: &mut R, look: impl FnOnce(&mut dyn Endpoint) -> T) -> Option<T> {
    macro_rules! either {
        ($family:ty) => {
            if identity::is::<$family, R>() {
                return identity::with::<$family, R, T>(reader, |known| look(known));
            }
            if identity::is::<Limited<$family>, R>() {
                return identity::with::<Limited<$family>, R, T>(reader, |known| look(known));
            }
        };
    }
    streams!(either);
    either!(Asserted<Own<std::fs::File>>);
    either!(Asserted<Shared<std::fs::File>>);
    either!(Asserted<Unique<std::fs::File>>);
    None
}

/// Returns the socket of a writer if its type is known.
pub(crate) fn socket_of<W: ?Sized>(writer: &mut W) -> Option<Arc<NetFd>> {
    macro_rules! either {
        ($family:ty) => {
            if identity::is::<$family, W>() {
                return identity::with::<$family, W, _>(writer, |known| known.socket()).flatten();
            }
        };
    }
    streams!(either);
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::TcpListener;
    use crate::task::block_on;
    use futures_lite::{AsyncReadExt, io::BufReader};
    use std::fs::File;

    fn kind<R: ?Sized>(reader: &mut R) -> Option<(bool, bool, u64)> {
        with_reader(reader, |known| (known.socket().is_some(), known.file().is_some(), known.limit()))
    }

    #[test]
    fn only_streams_and_files_are_recognised_in_every_form() {
        block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            const SOCKET: Option<(bool, bool, u64)> = Some((true, false, u64::MAX));
            assert_eq!(kind(&mut stream), SOCKET);
            assert_eq!(kind(&mut &stream), SOCKET);
            assert_eq!(kind(&mut &mut stream), SOCKET);
            assert_eq!(kind(&mut (&stream).take(5)), Some((true, false, 5)));
            assert_eq!(kind(&mut (&mut stream).take(5)), Some((true, false, 5)));
            assert_eq!(kind(&mut stream.clone().take(5)), Some((true, false, 5)));
            assert!(socket_of(&mut stream).is_some() && socket_of(&mut &stream).is_some());
            assert!(socket_of(&mut &mut stream).is_some());
            // A `BufReader` is not recognised, because its buffer may have bytes.
            assert_eq!(kind(&mut BufReader::new(&stream)), None);
            let mut boxed: Box<dyn futures_io::AsyncRead> = Box::new(stream.clone());
            assert_eq!((kind(&mut boxed), kind(&mut *boxed)), (None, None));
            let mut file = File::open("/dev/null").unwrap();
            assert_eq!(kind(&mut AssertAsync::new(&file)), Some((false, true, u64::MAX)));
            assert_eq!(kind(&mut AssertAsync::new(&mut file).take(9)), Some((false, true, 9)));
            assert_eq!(kind(&mut AssertAsync::new(file).take(9)), Some((false, true, 9)));
            assert_eq!(kind(&mut AssertAsync::new(&b"bytes"[..])), None);
            let mut limited = (&stream).take(5);
            assert_eq!(with_reader(&mut limited, |known| known.took(3)), Some(()));
            assert_eq!(limited.limit(), 2);
        });
    }
}

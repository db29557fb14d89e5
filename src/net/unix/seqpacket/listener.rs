//! [`UnixSeqpacketListener`]: listening for connections that preserve message boundaries.

use std::fmt;
use std::io;
use std::os::unix::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use socket2::Type;

use super::UnixSeqpacket;
use crate::net::futures::Closed;
use crate::net::net_fd::NetFd;
use crate::net::unix::address::Name;
use crate::net::unix::dial::bind;
use crate::net::unix::file::SocketFile;
use crate::net::unix::listener::Accept;
use crate::net::unix::listener::{Incoming, IntoIncoming, listener};
use crate::rt::poll::poller::Direction;
use crate::sys::socket;
use crate::sys::unix::from_kernel;

/// A Unix-domain socket that listens for connections that preserve message boundaries.
///
/// The methods are those of [`UnixListener`](crate::os::unix::net::UnixListener). The type is not
/// available on macOS.
///
/// Source: `net.UnixListener` of Go with network `unixpacket`.
///
/// # Examples
/// ```
/// # netpoll::task::block_on(async {
/// use netpoll::os::unix::net::{UnixSeqpacket, UnixSeqpacketListener};
///
/// let listener = UnixSeqpacketListener::bind("").await?; // on Linux, the kernel chooses a name
/// let client = UnixSeqpacket::connect_addr(&listener.local_addr()?).await?;
/// let (server, _) = listener.accept().await?;
///
/// client.send(b"one").await?;
/// client.send(b"two").await?;
/// let mut buf = [0; 16];
/// assert_eq!(server.recv(&mut buf).await?, 3);
/// assert_eq!(&buf[..3], b"one");
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub struct UnixSeqpacketListener {
    pub(super) file: SocketFile,
    pub(super) fd: NetFd,
}

listener!(UnixSeqpacketListener, Type::SEQPACKET, UnixSeqpacket);

/// Binding.
impl UnixSeqpacket {
    /// Listens at `path`, like [`UnixSeqpacketListener::bind`].
    ///
    /// # Errors
    /// Returns the same errors as [`UnixSeqpacketListener::bind`].
    ///
    /// # Cancel safety
    /// If the future is dropped before it completes, the name is not bound.
    pub async fn bind<P: AsRef<Path>>(path: P) -> io::Result<UnixSeqpacketListener> {
        UnixSeqpacketListener::bind(path).await
    }
}

crate::net::raw::raw_access!(UnixSeqpacketListener);

//! Unix-specific extensions: Unix-domain sockets ([`net`]) and descriptor traits ([`io`]).

pub mod net {
    //! Unix-domain sockets: stream, datagram and (except on macOS) seqpacket sockets between
    //! processes of one machine.
    //!
    //! The types are those of async-std with the semantics of Go's sockets, as in
    //! [`net`](crate::net): a deadline belongs to the socket, a close wakes every waiter, methods
    //! take `&self`, and the sockets work under any executor. async-std does not have abstract
    //! names (except in `UnixStream::connect`), [`UnixSeqpacket`], [descriptors in
    //! messages](UnixStream::send_with_fds), [peer credentials](UnixStream::peer_cred), a listener
    //! that removes its file, and a dial that waits while the listener's backlog is full.
    //!
    //! # Names
    //! A path names a file and has at most 107 bytes (103 on macOS and FreeBSD). A path that begins
    //! with a NUL byte is a name in the abstract namespace, with at most 107 bytes after the NUL,
    //! and names no file. std's `SocketAddrExt::from_abstract_name` also creates such an address.
    //! If the path given to `bind` is empty, the kernel chooses an abstract name. See unix(7). In a
    //! path, `@` is an ordinary byte; at the beginning of a name in an error text, it stands for
    //! the NUL. Only Linux has abstract names; on other systems, a path that begins with a NUL byte
    //! is refused with `Unsupported`.
    //!
    //! Files are created and removed with blocking calls, so a slow filesystem blocks the calling
    //! thread.

    #[doc(no_inline)]
    pub use std::os::unix::net::SocketAddr;

    pub use crate::net::unix::{
        Incoming, IntoIncoming, PeerCred, TruncatedFds, UnixDatagram, UnixListener, UnixStream,
    };
    #[cfg(not(target_os = "macos"))]
    pub use crate::net::unix::{UnixSeqpacket, UnixSeqpacketListener};

    /// Futures returned by the methods of Unix sockets. `Flush`, `RawRead` and `RawWrite` are in
    /// [`net::futures`](crate::net::futures).
    pub mod futures {
        pub use crate::net::futures::{
            Closed, Peek, PeerClosed, Read, ReadVectored, Readable, Writable, Write, WriteAll, WriteVectored,
        };
        pub use crate::net::unix::futures::{
            Recv, RecvFrom, RecvFromWithFds, RecvWithFds, Send, SendTo, SendToWithFds, SendWithFds,
        };
        pub use crate::net::unix::listener::Accept;
    }
}

// Modules of async-std that this crate does not have.
#[cfg(false)]
pub mod fs {} // absent: use the crate async-fs
#[cfg(false)]
pub mod process {} // absent: use the crate async-process

pub mod io {
    //! The descriptor traits and types of std. All sockets of this crate implement the traits.

    #[doc(no_inline)]
    pub use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
}

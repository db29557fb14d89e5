//! Unix-specific extensions: Unix-domain sockets ([`net`]) and descriptor traits ([`io`]).

pub mod net {
    //! Unix-domain sockets: streams, datagrams and packets between processes of one machine.
    //!
    //! The types are async-std's with Go's semantics, as in [`net`](crate::net): deadlines on the
    //! socket, a close that wakes every waiter, methods that take `&self`, and any executor. Beyond
    //! async-std there are abstract names and names that the kernel chooses, [`UnixSeqpacket`],
    //! [descriptors in messages](UnixStream::send_with_fds), [peer
    //! credentials](UnixStream::peer_cred), a listener that removes its file, and a dial that waits
    //! while the listener is busy.
    //!
    //! # Names
    //! A path names a file and has at most 107 bytes. A path that begins with a NUL byte is a name
    //! in the abstract namespace, without a file, with at most 107 bytes after the NUL; std's
    //! `SocketAddrExt::from_abstract_name` also makes such an address. With an empty path the
    //! kernel chooses an abstract name. (unix(7). `@` is an ordinary byte in paths, and stands for
    //! the NUL in errors.) Only Linux has abstract names; elsewhere such a name is `Unsupported`.
    //!
    //! Files are created and removed with blocking calls: a slow filesystem blocks the calling
    //! thread.

    #[doc(no_inline)]
    pub use std::os::unix::net::SocketAddr;

    pub use crate::net::unix::{
        Incoming, IntoIncoming, PeerCred, TruncatedFds, UnixDatagram, UnixListener, UnixStream,
    };
    #[cfg(not(target_os = "macos"))]
    pub use crate::net::unix::{UnixSeqpacket, UnixSeqpacketListener};

    /// Futures returned by the methods of Unix sockets.
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
    //! Descriptor traits, which all sockets of this crate implement.

    #[doc(no_inline)]
    pub use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
}

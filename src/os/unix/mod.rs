//! Unix: sockets of the local machine ([`net`]), and the traits of descriptors ([`io`]).

pub mod net {
    //! Unix sockets: streams, datagrams and packets between processes of one machine.
    //!
    //! async-std's types with Go's semantics, as in [`net`](crate::net): deadlines on the socket, a close that wakes everyone, everything
    //! on `&self`, under any executor. Beyond async-std: abstract names and names that the kernel chooses, [`UnixSeqpacket`],
    //! [descriptors in messages](UnixStream::send_with_fds), [who the peer is](UnixStream::peer_cred), a listener that removes its
    //! file, and a dial that waits when the listener is busy.
    //!
    //! # Names
    //! A path names a file, of at most 107 bytes. A path that begins with a NUL byte is a name in the abstract namespace, without a
    //! file, of at most 107 bytes after that NUL; std's `SocketAddrExt::from_abstract_name` makes an address of one as well. An empty path
    //! lets the kernel choose an abstract name. (unix(7); `@` is an ordinary byte in paths, and stands for the NUL in errors.)
    //!
    //! Creating and removing the file happens in place: on a filesystem that makes other calls wait, these wait too.

    #[doc(no_inline)]
    pub use std::os::unix::net::SocketAddr;

    pub use crate::net::unix::{
        Incoming, IntoIncoming, PeerCred, TruncatedFds, UnixDatagram, UnixListener, UnixSeqpacket,
        UnixSeqpacketListener, UnixStream,
    };

    /// The futures that methods of Unix sockets return.
    pub mod futures {
        pub use crate::net::futures::{
            Closed, Peek, PeerClosed, Read, ReadVectored, Readable, Writable, Write, WriteAll, WriteVectored,
        };
        pub use crate::net::unix::futures::{
            Accept, Recv, RecvFrom, RecvFromWithFds, RecvWithFds, Send, SendTo, SendToWithFds, SendWithFds,
        };
    }
}

pub mod io {
    //! The traits of descriptors, which all sockets here implement.

    #[doc(no_inline)]
    pub use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
}

//! Sockets.
//!
//! async-std's types and signatures with Go's semantics underneath: deadlines on the socket, a close that wakes everyone, any number of
//! readers and writers a handle. They work under any executor.

mod addr;
pub(crate) mod error;
pub(crate) mod fd;
mod options;
mod pipe;
pub(crate) mod raw;
mod tcp;
mod udp;

pub use std::net::{AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6};

pub use addr::{AddrError, ToSocketAddrs, ToSocketAddrsFuture};
pub use error::{Addr, OpError, is_closed, is_timeout, raw_os_error};
pub use options::KeepAlive;
pub use pipe::{Pipe, pipe};
pub use tcp::{Incoming, IntoIncoming, TcpListener, TcpStream};
pub use udp::{Ancillary, Datagram, Ecn, RecvBatch, RecvInfo, SendBatch, UdpSocket};

/// The futures that methods of sockets return.
pub mod futures {
    pub use super::pipe::{PipeRead, PipeWrite, PipeWriteAll};
    pub use super::raw::{RawRead, RawWrite};
    pub use super::tcp::futures::{
        Accept, Closed, Peek, PeerClosed, Read, ReadVectored, Readable, Writable, Write, WriteAll, WriteVectored,
    };
    pub use super::udp::futures::{
        PeekDatagram, PeekFrom, RecvDatagram, RecvFrom, RecvMany, RecvMsg, SendDatagram, SendMany, SendMsg, SendTo,
    };
}

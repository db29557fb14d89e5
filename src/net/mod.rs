//! Sockets.
//!
//! async-std's types and signatures with Go's semantics underneath: deadlines on the socket, a close that wakes everyone, any number of
//! readers and writers a handle. They work under any executor.

pub mod activation;
mod addr;
mod error;
pub(crate) mod fd;
pub(crate) mod limits;
mod listen_config;
mod options;
pub(crate) mod permits;
mod tcp;
mod udp;
pub(crate) mod zero_copy;

pub use std::net::{AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6};

pub use addr::{AddrError, ToSocketAddrs, ToSocketAddrsFuture};
pub use error::{Addr, OpError, is_closed, is_timeout, raw_os_error};
pub use listen_config::ListenConfig;
pub use options::{KeepAlive, TcpInfo};
pub use tcp::{Incoming, IntoIncoming, TcpListener, TcpStream};
pub use udp::{Ancillary, Datagram, Ecn, RecvBatch, RecvInfo, SendBatch, UdpSocket};
pub use zero_copy::send_zerocopy::ZerocopySent;

/// The futures that methods of sockets return.
pub mod futures {
    pub use super::tcp::futures::{
        Accept, Closed, Peek, PeerClosed, Read, ReadVectored, Readable, Writable, Write, WriteAll, WriteVectored,
    };
    pub use super::tcp::write_vectored_all::WriteVectoredAll;
    pub use super::udp::futures::{
        PeekDatagram, PeekFrom, RecvDatagram, RecvFrom, RecvMany, RecvMsg, SendDatagram, SendMany, SendMsg, SendTo,
    };
    pub use super::zero_copy::send_file::SendFile;
    pub use super::zero_copy::send_zerocopy::SendZerocopy;
}

//! Sockets.
//!
//! async-std's types and signatures with Go's semantics underneath: deadlines on the socket, a close that wakes everyone, any number of
//! readers and writers a handle. They work under any executor.

pub mod activation;
mod addr;
mod dialer;
mod error;
mod fd;
mod happy_eyeballs;
pub(crate) mod limits;
mod listen_config;
mod options;
pub(crate) mod permits;
mod resolve;
mod tcp;
mod udp;

pub use std::net::{AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6};

pub use addr::{AddrError, ToSocketAddrs, ToSocketAddrsFuture};
pub use dialer::Dialer;
pub use error::{Addr, OpError, is_closed, is_timeout, raw_os_error};
pub use listen_config::ListenConfig;
pub use options::{KeepAlive, TcpInfo};
pub use resolve::{LookupError, lookup_addr, lookup_cname, lookup_host, lookup_port, resolve};
#[cfg(feature = "hickory")]
pub use resolve::{Mx, Resolver, ResolverBuilder, Srv};
pub use tcp::{Incoming, IntoIncoming, TcpListener, TcpStream};
pub use udp::{Ancillary, Datagram, Ecn, RecvBatch, RecvInfo, SendBatch, UdpSocket};

/// The futures that methods of sockets return.
pub mod futures {
    pub use super::tcp::futures::{
        Accept, Closed, Peek, PeerClosed, Read, ReadVectored, Readable, Writable, Write, WriteAll, WriteVectored,
    };
    pub use super::udp::futures::{
        PeekDatagram, PeekFrom, RecvDatagram, RecvFrom, RecvMany, RecvMsg, SendDatagram, SendMany, SendMsg, SendTo,
    };
}

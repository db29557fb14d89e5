//! Sockets.
//!
//! async-std's types and signatures with Go's semantics underneath: deadlines on the socket, a close that wakes everyone, any number of
//! readers and writers a handle. They work under any executor.

mod addr;
mod error;
mod fd;
pub mod futures;
mod options;
mod tcp;
mod udp;
pub(crate) mod unix;

pub use std::net::{AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6};

pub use addr::{AddrError, ToSocketAddrs, ToSocketAddrsFuture};
pub use error::{Addr, OpError, is_closed, is_timeout, raw_os_error};
pub use options::KeepAlive;
pub use tcp::{Incoming, IntoIncoming, TcpListener, TcpStream};
pub use udp::{Ancillary, Datagram, Ecn, RecvBatch, RecvInfo, SendBatch, UdpSocket};

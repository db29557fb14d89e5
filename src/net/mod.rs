//! Sockets.
//!
//! async-std's types and signatures with Go's semantics underneath: deadlines on the socket, a close that wakes everyone, any number of
//! readers and writers a handle. They work under any executor.

pub mod activation;
mod addr;
pub(crate) mod error;
pub(crate) mod fd;
pub mod futures;
pub(crate) mod limits;
mod listen_config;
mod options;
pub(crate) mod permits;
mod pipe;
pub(crate) mod raw;
mod tcp;
mod udp;
pub(crate) mod unix;
pub(crate) mod zero_copy;

pub use std::net::{AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6};

pub use addr::{AddrError, ToSocketAddrs, ToSocketAddrsFuture};
pub use error::{Addr, OpError, is_closed, is_timeout, raw_os_error};
pub use listen_config::ListenConfig;
pub use options::{KeepAlive, TcpInfo};
pub use pipe::{Pipe, pipe};
pub use tcp::{Incoming, IntoIncoming, TcpListener, TcpStream};
pub use udp::{Ancillary, Datagram, Ecn, RecvBatch, RecvInfo, SendBatch, UdpSocket};
pub use zero_copy::send_zerocopy::ZerocopySent;

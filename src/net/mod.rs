//! Networking: TCP, UDP and Unix-domain sockets, dialling, listening and name resolution.
//!
//! The types and signatures follow async-std; the semantics follow Go. Deadlines belong to the
//! socket, closing wakes every waiter, and a handle supports any number of concurrent readers and
//! writers. Sockets work under any executor.
//!
//! | to | use |
//! |---|---|
//! | accept connections | [`TcpListener::bind`], or [`ListenConfig`] for options and limits |
//! | serve each connection in a task, and stop gracefully | [`serve()`] |
//! | connect | [`TcpStream::connect`], or [`Dialer`] for timeouts, racing of addresses and options |
//! | send and receive datagrams | [`UdpSocket`] |
//! | communicate over Unix-domain sockets | [`os::unix::net`](crate::os::unix::net) |
//! | test without a network | [`pipe()`] |
//! | tell errors apart | [`is_timeout`], [`is_closed`], [`OpError`] |
//! | inherit listeners from systemd or from a predecessor process | [`activation`] |

// In tokio, `net::tcp` and `net::unix` are public modules. If a program uses one of these names,
// the compiler's error shows the line below that declares the module.
mod accept;
pub mod activation;
mod addr;
mod conn;
mod deadlines;
mod dialer;
mod errno_text;
pub(crate) mod error;
pub(crate) mod fd;
pub mod futures;
mod happy_eyeballs;
mod host_port;
pub(crate) mod limits;
mod listen_config;
pub(crate) mod net_fd;
mod options;
pub(crate) mod permits;
mod pipe;
pub(crate) mod raw;
mod resolve;
#[cfg(test)]
mod seam_tests;
mod serve;
mod tcp; // private: use net::TcpStream; its clones and references serve as halves
mod udp;
pub(crate) mod unix; // private: use os::unix::net
pub(crate) mod zero_copy;

// rustdoc lists inherent impls in module order, so these methods come last.
pub(crate) mod adapter;
mod auto_cork;
#[cfg(target_os = "linux")]
mod linux;

/// Items for `netpoll-resolver`, which must classify names, print errors and yield exactly as this
/// crate does.
pub(crate) mod for_resolver {
    pub use super::errno_text::errno_text;
    pub use super::host_port::literal;
    pub use super::resolve::host_name::is_host_name;
    pub use crate::rt::context::take_turn;
}

#[doc(no_inline)]
pub use std::net::{AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6};

// Items of tokio's `net` that are in another module, or that this crate does not have. If a program
// uses one of these names, the compiler's error shows the line below that declares the name.
#[cfg(false)]
pub struct TcpSocket {} // absent: use net::ListenConfig to listen, net::Dialer to connect
#[cfg(false)]
pub struct UnixDatagram {} // absent: use os::unix::net::UnixDatagram
#[cfg(false)]
pub struct UnixListener {} // absent: use os::unix::net::UnixListener
#[cfg(false)]
pub struct UnixStream {} // absent: use os::unix::net::UnixStream

pub use addr::{ToSocketAddrs, ToSocketAddrsFuture};
pub use conn::{Conn, Listener};
pub use dialer::Dialer;
pub use error::{Addr, OpError, is_closed, is_timeout, raw_os_error};
pub use host_port::AddrError;
pub use listen_config::ListenConfig;
pub use options::KeepAlive;
#[cfg(target_os = "linux")]
pub use options::system::TcpInfo;
pub use pipe::{Pipe, pipe};
#[cfg(feature = "sim")]
pub(crate) use resolve::flight::prepare as prepare_look_ups;
pub use resolve::{Family, LookupError, Resolve, lookup_addr, lookup_cname, lookup_host, lookup_port, resolve};
pub use serve::{Report, Serve, Straggler, serve};
pub use tcp::{Incoming, IntoIncoming, TcpListener, TcpStream};
pub use udp::{Ancillary, Datagram, Ecn, RecvBatch, RecvBatchIter, RecvInfo, SendBatch, UdpSocket};
pub use zero_copy::send_zerocopy::ZerocopySent;

//! Sockets.
mod addr;
mod error;
mod fd;
mod options;

pub use addr::{AddrError, ToSocketAddrs, ToSocketAddrsFuture};
pub use error::{Addr, OpError, is_closed, is_timeout, raw_os_error};
pub use options::KeepAlive;
pub use std::net::SocketAddr;

//! Sockets.
mod addr;
mod error;
mod fd;

pub use addr::{AddrError, ToSocketAddrs, ToSocketAddrsFuture};
pub use error::{Addr, OpError, is_closed, is_timeout, raw_os_error};
pub use std::net::SocketAddr;

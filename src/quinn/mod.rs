//! quinn's QUIC on our sockets (feature `quinn`): its runtime, [`Runtime`], and [`Socket`], a [`UdpSocket`] as quinn wants it.
//!
//! Datagrams pass through quinn-udp: many in one call in both directions where the kernel cuts and joins them (UDP_SEGMENT, UDP_GRO), with
//! ECN and without fragments. No runtime of tokio's is needed.
//!
//! [`endpoint`] makes an endpoint of a socket that its maker keeps a share of: deadlines and [`close`] reach through.
//! The first error of the socket ends the endpoint, which accepts no more, and its connections: with a `TransportError`, or
//! `LocallyClosed` if it was a send that failed.
//!
//! examples/ecosystem/quic_file.rs sends a file.
//!
//! [`UdpSocket`]: crate::net::UdpSocket
//! [`close`]: crate::net::UdpSocket::close
//!
//! # Examples
//! ```
//! use netpoll::net::UdpSocket;
//! use netpoll::quinn::Socket;
//! use quinn::AsyncUdpSocket;
//! use std::sync::Arc;
//!
//! # netpoll::task::block_on(async {
//! let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
//! let quic = Socket::new(Arc::clone(&socket))?;
//! assert_eq!(quic.local_addr()?, socket.local_addr()?);
//! println!("{} datagrams a call", quic.max_transmit_segments());
//! # std::io::Result::Ok(()) }).unwrap();
//! ```

mod runtime;
mod socket;

pub use runtime::{Runtime, endpoint};
pub use socket::Socket;

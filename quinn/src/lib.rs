//! QUIC with quinn on netpoll's UDP sockets.
//!
//! [`Runtime`] implements quinn's runtime trait, and [`Socket`] its socket trait for a
//! [`UdpSocket`]. Datagrams pass through quinn-udp: many per call in both directions if the kernel
//! supports splitting and joining (UDP_SEGMENT, UDP_GRO), with ECN and without fragmentation.
//! tokio's runtime is not needed.
//!
//! [`endpoint`] creates an endpoint on a socket that the caller can keep sharing: its deadlines and
//! [`close`] apply. The first error of the socket ends the endpoint, which then accepts no more
//! connections, and its connections: with a `TransportError`, or with `LocallyClosed` if a send
//! failed.
//!
//! The example `quic_file` of netpoll's repository sends a file.
//!
//! [`UdpSocket`]: netpoll::net::UdpSocket
//! [`close`]: netpoll::net::UdpSocket::close
//!
//! # Examples
//! ```
//! use netpoll::net::UdpSocket;
//! use netpoll_quinn::Socket;
//! use quinn::AsyncUdpSocket;
//! use std::sync::Arc;
//!
//! # netpoll::task::block_on(async {
//! let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
//! let quic = Socket::new(Arc::clone(&socket))?;
//! assert_eq!(quic.local_addr()?, socket.local_addr()?);
//! println!("{} datagrams per call", quic.max_transmit_segments());
//! # std::io::Result::Ok(()) }).unwrap();
//! ```

#![deny(unsafe_code)]

mod runtime;
mod socket;

pub use runtime::{Runtime, endpoint};
pub use socket::Socket;

//! QUIC with quinn on netpoll's UDP sockets.
//!
//! [`Runtime`] implements quinn's runtime trait, and [`Socket`] implements quinn's socket trait for
//! a [`UdpSocket`]. Datagrams are sent and received by quinn-udp, with ECN and without
//! fragmentation. If the kernel supports UDP_SEGMENT and UDP_GRO, one call transfers many
//! datagrams. tokio's runtime is not needed.
//!
//! [`endpoint`] creates an endpoint on a socket to which the caller may keep a reference. The
//! socket's deadlines and [`close`] apply to the endpoint. If a receive fails, for example because
//! the socket is closed or its read deadline has passed, the endpoint accepts no more connections,
//! and its connections end with a `TransportError`. If a send fails because the socket is closed or
//! its write deadline has passed, the sending connection ends with `LocallyClosed`, but only when
//! at most one handle to the connection and to its streams is left.
//!
//! The example `quic_file` in netpoll's repository sends a file.
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

//! Methods of [`ListenConfig`] and [`Dialer`] that only Linux has.

use std::time::Duration;

use super::{Dialer, ListenConfig};

/// Declares the `user_timeout` method of a configuration type whose field holds `TcpOptions`.
macro_rules! user_timeout_method {
    ($type:ident, $($field:ident).+) => {
        /// Linux-only options of the streams.
        impl $type {
            /// Sets how long sent data may stay unacknowledged, or unsent because the peer's
            /// receive window is full, before the connection fails with ETIMEDOUT
            /// (TCP_USER_TIMEOUT, tcp(7)). The time is rounded up to milliseconds. The option
            /// detects a peer that disappears while data is in flight, when keep-alive does not
            /// probe. It also ends a connection whose peer does not read for this long, and a dial
            /// whose SYN is not answered for this long. With keep-alive on, the time takes
            /// precedence over the number of probes. With zero, and with more than 2³¹ - 1 ms,
            /// opening a socket fails with `InvalidInput`.
            ///
            /// Linux only.
            pub fn user_timeout(mut self, timeout: Duration) -> $type {
                self.$($field).+.extras.user_timeout = Some(timeout);
                self
            }
        }
    };
}

user_timeout_method!(ListenConfig, tcp);
user_timeout_method!(Dialer, recipe.tcp);

/// Options that only Linux has.
impl ListenConfig {
    /// Accepts data in the SYN (TCP_FASTOPEN, RFC 7413). At most `queue` connections whose SYN
    /// carried data may be waiting for the end of the handshake. Data in a SYN may arrive twice.
    /// The option has an effect only if bit 1 (value 2) of `net.ipv4.tcp_fastopen` is set; if it is
    /// not, connections are established the usual way. With 2³¹ or more, opening the listener fails
    /// with `InvalidInput`.
    ///
    /// Linux only.
    pub fn fast_open(mut self, queue: u32) -> ListenConfig {
        self.extras.fast_open = Some(queue);
        self
    }

    /// Delays accepting a connection until its first data has arrived (TCP_DEFER_ACCEPT), but not
    /// much longer than `most`, which the kernel rounds up to 1, 3, 7, 15, 31, 63 … seconds. After
    /// this time the kernel retransmits the SYN-ACK, and the connection is accepted without data
    /// when the client acknowledges it. Use the option for protocols in which the client sends
    /// first. With zero, and with more than 2³¹ - 1 s, opening the listener fails with
    /// `InvalidInput`.
    ///
    /// Linux only.
    pub fn defer_accept(mut self, most: Duration) -> ListenConfig {
        self.extras.defer_accept = Some(most);
        self
    }

    /// Accepts only traffic of the network device `name` (SO_BINDTODEVICE), such as `eth0`. If
    /// there is no such device, opening the listener fails with ENODEV. If `name` does not have 1
    /// to 15 bytes, or contains a NUL, opening the listener fails with `InvalidInput`.
    ///
    /// Linux only.
    pub fn bind_device(mut self, name: impl Into<String>) -> ListenConfig {
        self.extras.device = Some(name.into());
        self
    }

    /// Sets whether to open a multipath TCP socket (RFC 8684). If such a socket cannot be opened,
    /// the listener is a TCP socket. Clients without multipath TCP can connect to either kind.
    /// [`TcpStream::is_multipath`](crate::net::TcpStream::is_multipath) reports which protocol a
    /// connection uses.
    ///
    /// Linux only.
    pub fn multipath(mut self, multipath: bool) -> ListenConfig {
        self.extras.multipath = multipath;
        self
    }
}

/// Options that only Linux has.
impl Dialer {
    /// Sets whether to request multipath TCP (RFC 8684, Linux 5.6). If a multipath socket cannot be
    /// opened, the socket is a TCP socket; if the peer does not support multipath TCP, the
    /// connection falls back to TCP.
    ///
    /// Linux only.
    pub fn multipath(mut self, multipath: bool) -> Dialer {
        self.recipe.extras.multipath = multipath;
        self
    }

    /// Sets whether the first data is sent in the SYN to peers that agreed to this in an earlier
    /// connection (TCP Fast Open: TCP_FASTOPEN_CONNECT, tcp(7), Linux 4.11). If the kernel does not
    /// support the option, or bit 0 (value 1) of `net.ipv4.tcp_fastopen` is not set, connections
    /// are established the usual way.
    ///
    /// A dial to such a peer completes immediately without contacting the peer, so a race ends as
    /// soon as it dials such a peer. The handshake begins with the first write, whose data the SYN
    /// carries, or, without data, with the first operation that waits or a shutdown. Reading from a
    /// server that sends first therefore works, but data written after such a wait is not sent in
    /// the SYN. Only the handshake shows whether the peer answers; until it is complete,
    /// [`peer_addr`](crate::net::TcpStream::peer_addr) returns `NotConnected`. The data may arrive
    /// twice, so use this option only for data that is safe to process twice.
    ///
    /// Linux only.
    pub fn fast_open(mut self, fast_open: bool) -> Dialer {
        self.recipe.extras.fast_open = fast_open;
        self
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use super::*;
    use crate::sys::option;

    /// The rule of plain TCP that a short count proves that the socket is empty or full must not
    /// apply to a multipath socket.
    #[test]
    fn multipath_streams_do_not_trust_short_counts() {
        crate::task::block_on(async {
            let config = ListenConfig::new().multipath(true);
            for config in [config.clone(), config.max_connections(9)] {
                let listener = config.listen("127.0.0.1:0").await.unwrap();
                if option::is_plain_tcp(listener.as_fd()).unwrap() {
                    return eprintln!("skipped: this kernel has no multipath TCP");
                }
                let client = Dialer::new().multipath(true).dial(listener.local_addr().unwrap()).await.unwrap();
                let (server, _) = listener.accept().await.unwrap();
                assert!(server.is_multipath().unwrap());
                let plain = [&listener.fd, &*client.fd, &*server.fd].map(|fd| fd.fd.is_plain_tcp());
                assert_eq!(plain, [false; 3]);
                let back = crate::net::TcpStream::from(OwnedFd::from(server));
                assert!(!back.fd.fd.is_plain_tcp());
            }
            let plain = crate::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let back = crate::net::TcpListener::from(OwnedFd::from(plain));
            assert!(back.fd.fd.is_plain_tcp());
        });
    }
}

//! TCP and UDP sockets: netpoll's types under async-std's names.

pub use netpoll::net::{
    AddrParseError, Incoming, IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6,
    TcpListener, TcpStream, ToSocketAddrs, UdpSocket,
};

//! `UdpSocket`.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::ancillary::Ancillary;
use super::batch::{RecvBatch, SendBatch};
use super::calls::{Segmentation, canonical};
use super::futures::{
    PeekDatagram, PeekFrom, RecvDatagram, RecvFrom, RecvMany, RecvMsg, SendDatagram, SendMany, SendMsg, SendTo,
};
use super::options;
use crate::net::deadlines::deadline_methods;
use crate::net::error::{Addr, Op};
use crate::net::fd::net_fd::NetFd;
use crate::net::futures::{Closed, Readable, Writable};
use crate::net::raw::raw_access;
use crate::net::{AddrError, ToSocketAddrs};
use crate::rt::poll::poller::Direction;
use crate::sys::socket;

/// A UDP socket.
///
/// Every method takes `&self`: any number of tasks receive and send at once, in parallel, through one reference or an `Arc`.
/// A datagram goes to one receiver, whole; what does not fit the buffer is lost.
///
/// # Connected and unconnected
/// [`send_to`](UdpSocket::send_to) says where to, [`recv_from`](UdpSocket::recv_from) from where. After
/// [`connect`](UdpSocket::connect) the socket receives datagrams of the peer only, [`send`](UdpSocket::send) sends there, and what ICMP
/// reports (`ConnectionRefused`) is the error of the next operation. A datagram with an address goes to that address on a connected
/// socket too, as with std; the peer stays the peer. (Go refuses it.)
///
/// # Speed
/// [`recv_many`](UdpSocket::recv_many) and [`send_many`](UdpSocket::send_many) move many datagrams a system call. With
/// offload the network stack is passed once for up to 64 of them. `send_many` does so by itself where it can; by hand:
/// [`Ancillary::with_segment_size`] and
/// [`set_segment_size`](UdpSocket::set_segment_size) to send, [`set_gro`](UdpSocket::set_gro) to receive.
///
/// Deadlines and closing are as for [`TcpStream`](crate::net::TcpStream). A full send buffer is waited for; ENOBUFS, the
/// network card's queue being full, is an error.
///
/// Source: `net.UDPConn` of Go, `async_std::net::UdpSocket`, udp(7).
///
/// # Examples
/// ```
/// use netpoll::net::UdpSocket;
///
/// # fn main() -> std::io::Result<()> {
/// netpoll::task::block_on(async {
///     let server = UdpSocket::bind("127.0.0.1:0").await?;
///     let client = UdpSocket::bind("127.0.0.1:0").await?;
///
///     client.send_to(b"ping", server.local_addr()?).await?;
///     let mut buf = [0; 1500];
///     let (count, from) = server.recv_from(&mut buf).await?;
///     assert_eq!((&buf[..count], from), (&b"ping"[..], client.local_addr()?));
///     Ok(())
/// })
/// # }
/// ```
pub struct UdpSocket {
    fd: NetFd,
    segmentation: Segmentation,
}

/// Binding, connecting, receiving, sending, closing and addresses.
impl UdpSocket {
    pub(super) fn from_net_fd(fd: NetFd) -> UdpSocket {
        UdpSocket { fd, segmentation: Segmentation::default() }
    }

    pub(crate) fn net_fd(&self) -> &NetFd {
        &self.fd
    }

    pub(super) fn segmentation(&self) -> &Segmentation {
        &self.segmentation
    }

    pub(super) fn into_net_fd(self) -> NetFd {
        self.fd
    }

    /// Binds to the first of `addrs` that can be had; port 0 for any. `[::]` takes both families, `0.0.0.0` IPv4 only.
    ///
    /// # Errors
    /// An [`OpError`](crate::net::OpError) of the last address, `listen udp ADDR: bind: …`: `AddrInUse`, `AddrNotAvailable`,
    /// `PermissionDenied` …; or that there is none, `listen udp: …`, as [`TcpListener::bind`](crate::net::TcpListener::bind).
    ///
    /// # Cancel safety
    /// Nothing is bound if the future is dropped.
    pub async fn bind<A: ToSocketAddrs>(addrs: A) -> io::Result<UdpSocket> {
        let op = || Op::at("listen", "udp", None);
        let addrs = addrs.to_socket_addrs().await.map_err(|error| op().other(error))?;
        let mut last = None;
        for addr in addrs {
            match options::bound_socket(addr) {
                Ok(fd) => return Ok(UdpSocket::from_net_fd(NetFd::udp(fd)?)),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| op().other(AddrError::missing())))
    }

    /// Binds to the port of `group` on all addresses of its family and joins it, through the interface with index `interface`, or
    /// (0) the one that the routes say. Any number of sockets may have the same group and port, and each gets every datagram. Other
    /// groups are not heard, and what this socket sends to the group does not come back to this host.
    ///
    /// (Go: `net.ListenMulticastUDP`, where the groups of others on the host are heard too.)
    ///
    /// # Errors
    /// `InvalidInput`: `group` is no multicast address. Else as [`bind`](UdpSocket::bind); `setsockopt` in place of `bind` where the
    /// interface has no multicast.
    ///
    /// # Examples
    /// ```no_run
    /// # netpoll::task::block_on(async {
    /// use netpoll::net::UdpSocket;
    ///
    /// let mdns = UdpSocket::bind_multicast("224.0.0.251:5353".parse().unwrap(), 0)?;
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    pub fn bind_multicast(group: SocketAddr, interface: u32) -> io::Result<UdpSocket> {
        Ok(UdpSocket::from_net_fd(NetFd::udp(options::multicast_socket(group, interface)?)?))
    }

    /// Connects to the first of `addrs` that the socket can reach: no packet is sent. A socket may be connected again, to another peer.
    ///
    /// Addresses of a family that the socket does not send to come last: IPv6 for an IPv4 socket; IPv4 for one of IPv6 that is bound to an IPv6
    /// address other than `::`, or takes IPv6 only.
    ///
    /// # Errors
    /// An [`OpError`](crate::net::OpError) of the last address that was tried, `dial udp ADDR: connect: …`: `NetworkUnreachable`, EAFNOSUPPORT for
    /// another family …; or that there is none, `dial udp: …`, as [`TcpStream::connect`](crate::net::TcpStream::connect).
    ///
    /// # Cancel safety
    /// The socket is as it was if the future is dropped.
    pub async fn connect<A: ToSocketAddrs>(&self, addrs: A) -> io::Result<()> {
        let op = |addr: Option<SocketAddr>| Op::at("dial", "udp", addr.map(Addr::Ip));
        let addrs = addrs.to_socket_addrs().await.map_err(|error| op(None).other(error))?;
        let mut last = None;
        for addr in self.fd.targets(addrs) {
            match self.fd.with("dial", |fd| Ok(socket::connect(fd, &canonical(addr))))? {
                Ok(()) => return Ok(()),
                Err(error) => last = Some(op(Some(addr)).call("connect", error)),
            }
        }
        Err(last.unwrap_or_else(|| op(None).other(AddrError::missing())))
    }

    // ---- receiving ----

    /// Receives a datagram of any sender: how many bytes, and from whom. 0 bytes is an empty datagram; with an empty `buf` one is
    /// taken and lost.
    ///
    /// # Errors
    /// `ConnectionRefused` on a connected socket, …: the system call's. `TimedOut` past the read deadline;
    /// [closed](crate::net::is_closed).
    ///
    /// # Cancel safety
    /// No datagram is lost if the future is dropped.
    pub fn recv_from<'a>(&'a self, buf: &'a mut [u8]) -> RecvFrom<'a> {
        RecvFrom::new(&self.fd, buf)
    }

    /// Like [`recv_from`](UdpSocket::recv_from), and leaves the datagram there for the next.
    pub fn peek_from<'a>(&'a self, buf: &'a mut [u8]) -> PeekFrom<'a> {
        PeekFrom::new(&self.fd, buf)
    }

    /// Receives a datagram, on a connected socket of its peer: how many bytes. 0 is an empty datagram; with an empty `buf` nothing is
    /// received.
    ///
    /// # Errors
    /// As [`recv_from`](UdpSocket::recv_from).
    ///
    /// # Cancel safety
    /// No datagram is lost if the future is dropped.
    pub fn recv<'a>(&'a self, buf: &'a mut [u8]) -> RecvDatagram<'a> {
        RecvDatagram::new(&self.fd, buf)
    }

    /// Like [`recv`](UdpSocket::recv), and leaves the datagram there for the next.
    pub fn peek<'a>(&'a self, buf: &'a mut [u8]) -> PeekDatagram<'a> {
        PeekDatagram::new(&self.fd, buf)
    }

    /// Receives a datagram into several buffers (recvmsg(2)), and what came beside it; see [`Ancillary`], where an example is.
    ///
    /// # Errors
    /// As [`recv_from`](UdpSocket::recv_from). Lost bytes and lost control data are none:
    /// [`is_truncated`](super::RecvInfo::is_truncated), [`Ancillary::is_truncated`].
    ///
    /// # Cancel safety
    /// No datagram is lost if the future is dropped.
    pub fn recv_msg<'a>(&'a self, bufs: &'a mut [IoSliceMut<'a>]) -> RecvMsg<'a> {
        RecvMsg::new(&self.fd, bufs)
    }

    /// Receives as many datagrams as are there and fit `batch`, at least one, with one system call (recvmmsg(2)): how many.
    /// What the batch had before is gone. There is an example at [`RecvBatch`].
    ///
    /// # Errors
    /// As [`recv_from`](UdpSocket::recv_from). One that strikes after the first datagram is the next call's.
    ///
    /// # Cancel safety
    /// No datagram is lost if the future is dropped.
    pub fn recv_many<'a>(&'a self, batch: &'a mut RecvBatch) -> RecvMany<'a> {
        RecvMany::new(&self.fd, batch)
    }

    /// Waits until a datagram, or an error, is there. Any number may wait; who receives first has it.
    ///
    /// # Errors
    /// `TimedOut` past the read deadline; closed.
    pub fn readable(&self) -> Readable<'_> {
        Readable::new(&self.fd)
    }

    // ---- sending ----

    /// Sends a datagram to the first address of `to` that the socket can reach. Returns the number of bytes, which is all of them.
    ///
    /// Where `to` has several addresses, those of a family that the socket does not send to come last, as in
    /// [`connect`](UdpSocket::connect), and after an address that the kernel has no route to, or refuses as such, the next is tried.
    /// Exactly one datagram is sent. (std tries the first address alone.)
    ///
    /// # Errors
    /// * `InvalidInput`: `to` has no address;
    /// * EMSGSIZE: more bytes than a datagram carries (65,507 by IPv4), or than the path takes where fragments are forbidden;
    /// * EAFNOSUPPORT: an IPv6 address on an IPv4 socket; `PermissionDenied`: a broadcast on a socket without that option;
    /// * otherwise the system call's; `TimedOut` past the write deadline; closed; resolving.
    ///
    /// Where several addresses were tried, the error is that of the first.
    ///
    /// # Cancel safety
    /// Nothing was sent if the future is dropped.
    pub fn send_to<'a, A: ToSocketAddrs>(&'a self, buf: &'a [u8], to: A) -> SendTo<'a, A::Iter> {
        SendTo::new(self, buf, to.to_socket_addrs())
    }

    /// Sends a datagram to the peer: how many bytes, which is all of them.
    ///
    /// # Errors
    /// EDESTADDRREQ: the socket is not connected. `ConnectionRefused`: an earlier one was not wanted. Else as
    /// [`send_to`](UdpSocket::send_to).
    ///
    /// # Cancel safety
    /// Nothing was sent if the future is dropped.
    pub fn send<'a>(&'a self, buf: &'a [u8]) -> SendDatagram<'a> {
        SendDatagram::new(&self.fd, buf)
    }

    /// Sends a datagram from several buffers (sendmsg(2)), with something beside it; `None` as its address sends it to the peer of a
    /// connected socket. There is an example at [`Ancillary`].
    ///
    /// # Errors
    /// `InvalidInput`: no address on an unconnected socket, or a local address of another family. EINVAL: what is beside it makes no
    /// sense. Else as [`send_to`](UdpSocket::send_to).
    ///
    /// # Cancel safety
    /// Nothing was sent if the future is dropped.
    pub fn send_msg<'a>(
        &'a self,
        bufs: &'a [IoSlice<'a>],
        to: impl Into<Option<SocketAddr>>,
        ancillary: &Ancillary,
    ) -> SendMsg<'a> {
        SendMsg::new(&self.fd, bufs, to.into().map(canonical), *ancillary)
    }

    /// Sends as many datagrams of `batch` as there is room for, at least one, with one system call (sendmmsg(2)): how many.
    /// They are out of the batch then. Nothing to send: 0 at once. There is an example at [`RecvBatch`].
    ///
    /// Neighbours of one size for one peer, with nothing beside their bytes, pass the network stack as one (segmentation offload),
    /// where kernel and device can and [`set_segment_size`](UdpSocket::set_segment_size) says nothing else: the peer gets the same.
    ///
    /// # Errors
    /// As [`send_msg`](UdpSocket::send_msg). A system call's concerns the first datagram, which stays
    /// ([`skip`](SendBatch::skip) takes it out); one that strikes after the first is the next call's.
    ///
    /// # Cancel safety
    /// What went is out of the batch, also if the future is dropped.
    pub fn send_many<'a>(&'a self, batch: &'a mut SendBatch) -> SendMany<'a> {
        SendMany::new(&self.fd, &self.segmentation, batch)
    }

    /// Waits until there is room for a datagram, or an error. Any number may wait.
    ///
    /// # Errors
    /// `TimedOut` past the write deadline; closed.
    pub fn writable(&self) -> Writable<'_> {
        Writable::new(&self.fd)
    }

    // ---- by hand ----

    /// [`recv`](UdpSocket::recv) for who is polled. All pollers are woken when something comes.
    ///
    /// # Errors
    /// As [`recv`](UdpSocket::recv).
    pub fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.fd.poll_recv(None, cx, buf, 0)
    }

    /// [`recv_from`](UdpSocket::recv_from) for who is polled.
    ///
    /// # Errors
    /// As [`recv_from`](UdpSocket::recv_from).
    pub fn poll_recv_from(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        self.fd.poll_recv_from(None, cx, buf, 0)
    }

    /// [`recv_many`](UdpSocket::recv_many) for who is polled.
    ///
    /// # Errors
    /// As [`recv_many`](UdpSocket::recv_many).
    pub fn poll_recv_many(&self, cx: &mut Context<'_>, batch: &mut RecvBatch) -> Poll<io::Result<usize>> {
        self.fd.poll_recv_many(None, cx, batch)
    }

    /// [`readable`](UdpSocket::readable) for who is polled.
    ///
    /// # Errors
    /// As [`readable`](UdpSocket::readable).
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fd.poll_ready(Direction::Read, None, cx)
    }

    /// [`send`](UdpSocket::send) for who is polled.
    ///
    /// # Errors
    /// As [`send`](UdpSocket::send).
    pub fn poll_send(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.fd.poll_send_datagram(None, cx, buf)
    }

    /// [`send_to`](UdpSocket::send_to) for who is polled.
    ///
    /// # Errors
    /// As [`send_to`](UdpSocket::send_to).
    pub fn poll_send_to(&self, cx: &mut Context<'_>, buf: &[u8], to: SocketAddr) -> Poll<io::Result<usize>> {
        self.fd.poll_send_to(None, cx, buf, &canonical(to))
    }

    /// [`writable`](UdpSocket::writable) for who is polled.
    ///
    /// # Errors
    /// As [`writable`](UdpSocket::writable).
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fd.poll_ready(Direction::Write, None, cx)
    }

    /// Makes a call of one's own that reads, without waiting: with the descriptor kept open meanwhile, if it is, and if the read
    /// deadline has not passed. After `WouldBlock`, [`readable`](UdpSocket::readable) waits for the next occasion.
    ///
    /// # Errors
    /// Those of `call`; `TimedOut` past the read deadline; closed.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// # use netpoll::net::UdpSocket;
    /// # let socket = UdpSocket::bind("127.0.0.1:0").await?;
    /// # socket.send_to(b"ping", socket.local_addr()?).await?;
    /// use std::io::ErrorKind;
    ///
    /// let mut buf = [0; 1500];
    /// let count = loop {
    ///     socket.readable().await?;
    ///     match socket.try_read_io(|fd| Ok(rustix::io::read(fd, &mut buf)?)) {
    ///         Err(error) if error.kind() == ErrorKind::WouldBlock => {}
    ///         result => break result?,
    ///     }
    /// };
    /// assert_eq!(&buf[..count], b"ping");
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    pub fn try_read_io<T>(&self, call: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        self.fd.try_call(Direction::Read, call)
    }

    /// The same with a call that writes, the write deadline and [`writable`](UdpSocket::writable).
    ///
    /// # Errors
    /// Those of `call`; `TimedOut` past the write deadline; closed.
    pub fn try_write_io<T>(&self, call: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        self.fd.try_call(Direction::Write, call)
    }

    // ---- names and closing ----

    /// The address of this side.
    ///
    /// # Errors
    /// Closed after [`close`](UdpSocket::close).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.fd.local_addr()
    }

    /// The address of the peer.
    ///
    /// # Errors
    /// `NotConnected` (ENOTCONN) on an unconnected socket; closed.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.fd.peer_addr()
    }

    /// Closes the socket: whoever waits gets the [closed](crate::net::is_closed) error. Begins at once; the future ends when the
    /// descriptor is gone and the port free. Closing twice is no error.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// # use netpoll::net::{self, UdpSocket};
    /// let socket = UdpSocket::bind("127.0.0.1:0").await?;
    /// socket.close().await?;
    /// assert!(net::is_closed(&socket.recv_from(&mut [0; 1]).await.unwrap_err()));
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    pub fn close(&self) -> Closed {
        self.fd.close()
    }
}

deadline_methods! {
    UdpSocket;
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// # use netpoll::net::{UdpSocket, is_timeout};
    /// # let socket = UdpSocket::bind("127.0.0.1:0").await?;
    /// use std::time::{Duration, Instant};
    ///
    /// socket.set_deadline(Instant::now() + Duration::from_millis(10))?;
    /// assert!(is_timeout(&socket.recv_from(&mut [0; 1]).await.unwrap_err()));
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
}

raw_access!(UdpSocket, Free);

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("UdpSocket");
        if let Ok(addr) = self.local_addr() {
            debug.field("addr", &addr);
        }
        if let Ok(peer) = self.peer_addr() {
            debug.field("peer", &peer);
        }
        debug.field("fd", &self.fd.fd.number()).finish()
    }
}

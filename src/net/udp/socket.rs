//! [`UdpSocket`]: binding, connecting, sending and receiving.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::ancillary::Ancillary;
use super::batch::{RecvBatch, SendBatch};
use super::calls::Segmentation;
use super::futures::{
    PeekDatagram, PeekFrom, RecvDatagram, RecvFrom, RecvMany, RecvMsg, SendDatagram, SendMany, SendMsg, SendTo,
};
use super::open::{bound_socket, multicast_socket};
use super::targets::canonical;
use crate::net::deadlines::deadline_methods;
use crate::net::error::{Addr, Op};
use crate::net::fd::operation::LockScope;
use crate::net::futures::{Closed, Readable, Writable};
use crate::net::net_fd::NetFd;
use crate::net::raw::raw_access;
use crate::net::{AddrError, ToSocketAddrs};
use crate::rt::poll::poller::Direction;
use crate::rt::waiters::Waiter;
use crate::sys::socket;

/// A UDP socket.
///
/// Every method takes `&self`, so any number of tasks can send and receive in parallel. Each
/// datagram goes to one receiver as a whole, and bytes that do not fit into the buffer are lost.
///
/// # Connected and unconnected sockets
/// [`send_to`](UdpSocket::send_to) takes the destination, and [`recv_from`](UdpSocket::recv_from)
/// returns the sender. After [`connect`](UdpSocket::connect) the socket accepts only datagrams from
/// the peer, but keeps those already in its queue, and [`send`](UdpSocket::send) sends to the peer.
/// If the peer's host has no socket on the port and answers a datagram with an ICMP error, the next
/// operation fails with `ConnectionRefused`. On a connected socket, `send_to` sends to the given
/// address on Linux, as in std, and fails with EISCONN on macOS and FreeBSD. (In Go, it fails.)
///
/// # Performance
/// [`recv_many`](UdpSocket::recv_many) and [`send_many`](UdpSocket::send_many) transfer many
/// datagrams per system call. With offload, up to 64 datagrams pass through the network stack
/// together. `send_many` uses send offload automatically where it can. To use it explicitly, see
/// [`Ancillary::with_segment_size`] and [`set_segment_size`](UdpSocket::set_segment_size); for
/// receiving, see [`set_gro`](UdpSocket::set_gro).
///
/// Deadlines work as for [`TcpStream`](crate::net::TcpStream). Sends wait while the send buffer is
/// full. If a device's queue is full, Linux drops the datagram without an error.
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
#[doc(alias = "net.UDPConn")]
pub struct UdpSocket {
    fd: NetFd,
    pub(super) segmentation: Segmentation,
}

/// Binding, connecting, receiving, sending, closing and addresses.
impl UdpSocket {
    pub(super) fn from_net_fd(fd: NetFd) -> UdpSocket {
        UdpSocket { fd, segmentation: Segmentation::default() }
    }

    pub(crate) fn net_fd(&self) -> &NetFd {
        &self.fd
    }

    pub(super) fn into_net_fd(self) -> NetFd {
        self.fd
    }

    /// Creates a socket that is bound to the first of `addrs` that can be bound. Port 0 asks the
    /// kernel for a free port. `[::]` accepts both families, or only IPv4 on a host without IPv6.
    ///
    /// # Errors
    /// If every address fails, returns the [`OpError`](crate::net::OpError) of the last address.
    /// Its text is `listen udp ADDR: CALL: …`, where the call is usually `bind`. Its kind is, for
    /// example, `AddrInUse`, `AddrNotAvailable` or `PermissionDenied`. If there is no address,
    /// returns the same errors as [`TcpListener::bind`](crate::net::TcpListener::bind), with
    /// `listen udp` in their texts.
    ///
    /// # Cancel safety
    /// If the future is dropped before it completes, no socket stays open.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// use netpoll::net::UdpSocket;
    ///
    /// let socket = UdpSocket::bind("127.0.0.1:0").await?;
    /// println!("bound to {}", socket.local_addr()?);
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    #[doc(alias = "net.ListenUDP")]
    #[doc(alias = "net.ListenPacket")]
    pub async fn bind<A: ToSocketAddrs>(addrs: A) -> io::Result<UdpSocket> {
        let op = || Op::at("listen", "udp", None);
        let addrs = addrs.to_socket_addrs().await.map_err(|error| op().other(error))?;
        let mut last = None;
        for addr in addrs {
            match bound_socket(addr) {
                Ok(fd) => return Ok(UdpSocket::from_net_fd(fd)),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| op().other(AddrError::missing())))
    }

    /// Creates a socket that has joined the multicast group `group` and is bound to the group's
    /// port on the wildcard address of the group's family. `interface` is the index of the network
    /// interface; 0 means the zone of `group` or, without a zone, lets the routing table choose. On
    /// Linux, any number of sockets that are opened this way can share a group and port, and each
    /// receives every datagram to the group. The socket also receives unicast datagrams to the
    /// port, but (for IPv6, since Linux 4.20) none to other groups. Datagrams that it sends to the
    /// group do not loop back to this host. (In Go, the socket also receives datagrams to groups
    /// that other sockets of the host have joined.)
    ///
    /// # Errors
    /// Returns `InvalidInput` if `group` is not a multicast address. Returns ENODEV or
    /// EADDRNOTAVAIL, with the call `setsockopt`, if there is no such interface or, for 0, no route
    /// to the group. Otherwise returns the same errors as [`bind`](UdpSocket::bind).
    ///
    /// # Examples
    /// ```no_run
    /// # netpoll::task::block_on(async {
    /// use netpoll::net::UdpSocket;
    ///
    /// let mdns = UdpSocket::bind_multicast("224.0.0.251:5353".parse().unwrap(), 0)?;
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    #[doc(alias = "ListenMulticastUDP")]
    pub fn bind_multicast(group: SocketAddr, interface: u32) -> io::Result<UdpSocket> {
        Ok(UdpSocket::from_net_fd(multicast_socket(group, interface)?))
    }

    /// Sets the peer to the first of `addrs` that connect(2) accepts, which is usually the first
    /// address to which the kernel has a route. No packet is sent. Another call changes the peer.
    ///
    /// Addresses of a family that the socket cannot send to are tried last. These are IPv6
    /// addresses for an IPv4 socket, and IPv4 addresses for an IPv6 socket that is bound to an
    /// address other than `::` or restricted to IPv6.
    ///
    /// # Errors
    /// If every address fails, returns the [`OpError`](crate::net::OpError) of the last address,
    /// with the text `dial udp ADDR: connect: …`. Its kind is, for example, `NetworkUnreachable`;
    /// the OS error is EAFNOSUPPORT for an address of another family. If there is no address,
    /// returns the same errors as [`TcpStream::connect`](crate::net::TcpStream::connect), with
    /// `dial udp` in their texts. Returns a [closed](crate::net::is_closed) error after `close`.
    ///
    /// # Cancel safety
    /// If the future is dropped before it completes, the peer is unchanged.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// use netpoll::net::UdpSocket;
    ///
    /// let server = UdpSocket::bind("127.0.0.1:0").await?;
    /// let client = UdpSocket::bind("127.0.0.1:0").await?;
    /// client.connect(server.local_addr()?).await?;
    /// client.send(b"ping").await?;
    ///
    /// let mut buf = [0; 16];
    /// let (count, from) = server.recv_from(&mut buf).await?;
    /// server.send_to(&buf[..count], from).await?;
    /// assert_eq!(client.recv(&mut buf).await?, 4);
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    #[doc(alias = "net.DialUDP")]
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

    /// Receives a datagram into `buf`. Returns the number of bytes and the sender's address;
    /// 0 bytes means an empty datagram. With an empty `buf`, one datagram is received and lost.
    ///
    /// # Errors
    /// Returns the OS error, such as `ConnectionRefused` on a connected socket; `TimedOut` after
    /// the read deadline or timeout; a [closed](crate::net::is_closed) error after `close`.
    ///
    /// # Cancel safety
    /// Dropping the future loses no datagram.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// # use netpoll::net::UdpSocket;
    /// # let socket = UdpSocket::bind("127.0.0.1:0").await?;
    /// # let sender = UdpSocket::bind("127.0.0.1:0").await?;
    /// sender.send_to(b"hello", socket.local_addr()?).await?;
    ///
    /// let mut buf = [0; 1500];
    /// let (count, from) = socket.recv_from(&mut buf).await?;
    /// assert_eq!((&buf[..count], from), (&b"hello"[..], sender.local_addr()?));
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    #[doc(alias = "ReadFrom")]
    pub fn recv_from<'a>(&'a self, buf: &'a mut [u8]) -> RecvFrom<'a> {
        RecvFrom::new(&self.fd, buf)
    }

    /// Receives like [`recv_from`](UdpSocket::recv_from) but leaves the datagram in the socket for
    /// the next call. Errors and cancel safety are those of [`recv_from`](UdpSocket::recv_from).
    pub fn peek_from<'a>(&'a self, buf: &'a mut [u8]) -> PeekFrom<'a> {
        PeekFrom::new(&self.fd, buf)
    }

    /// Receives a datagram into `buf`. Returns the number of bytes; 0 means an empty datagram. With
    /// an empty `buf`, returns 0 and receives nothing.
    ///
    /// # Errors
    /// Returns the same errors as [`recv_from`](UdpSocket::recv_from).
    ///
    /// # Cancel safety
    /// Dropping the future loses no datagram.
    pub fn recv<'a>(&'a self, buf: &'a mut [u8]) -> RecvDatagram<'a> {
        RecvDatagram::new(&self.fd, buf)
    }

    /// Receives like [`recv`](UdpSocket::recv) but leaves the datagram in the socket for the next
    /// call. Errors and cancel safety are those of [`recv`](UdpSocket::recv).
    pub fn peek<'a>(&'a self, buf: &'a mut [u8]) -> PeekDatagram<'a> {
        PeekDatagram::new(&self.fd, buf)
    }

    /// Receives a datagram into several buffers, with its ancillary data (recvmsg(2)).
    /// [`Ancillary`] has an example.
    ///
    /// # Errors
    /// Returns the same errors as [`recv_from`](UdpSocket::recv_from). Lost bytes and lost control
    /// data are not errors: see [`is_truncated`](super::RecvInfo::is_truncated) and
    /// [`Ancillary::is_truncated`].
    ///
    /// # Cancel safety
    /// Dropping the future loses no datagram.
    pub fn recv_msg<'a>(&'a self, bufs: &'a mut [IoSliceMut<'a>]) -> RecvMsg<'a> {
        RecvMsg::new(&self.fd, bufs)
    }

    /// Waits until at least one datagram is available. Then receives the available datagrams, up to
    /// the capacity of `batch`. On Linux, this takes one system call (recvmmsg(2)). Returns the
    /// number of datagrams received. They replace the previous contents of the batch. If the call
    /// fails, the batch keeps its datagrams, but the bytes of the first may have been overwritten.
    /// [`RecvBatch`] has an example.
    ///
    /// # Errors
    /// Returns the same errors as [`recv_from`](UdpSocket::recv_from). On Linux, an error that
    /// occurs after the first datagram is returned by the next call. On other systems it is lost.
    ///
    /// # Cancel safety
    /// Dropping the future loses no datagram.
    pub fn recv_many<'a>(&'a self, batch: &'a mut RecvBatch) -> RecvMany<'a> {
        RecvMany::new(&self.fd, batch)
    }

    /// Waits until a datagram or an error is available. Any number of tasks may wait.
    ///
    /// # Errors
    /// Returns `TimedOut` after the read deadline or timeout, and a [closed](crate::net::is_closed)
    /// error after `close`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub fn readable(&self) -> Readable<'_> {
        Readable::new(&self.fd)
    }

    // ---- sending ----

    /// Sends a datagram to the first address of `to` that the kernel accepts. Returns the number of
    /// bytes sent, which is always `buf.len()`.
    ///
    /// If `to` has several addresses, those of a family that the socket cannot send to are tried
    /// last, as in [`connect`](UdpSocket::connect). If the kernel has no route to an address, or
    /// the address is not valid for the socket (EAFNOSUPPORT, EADDRNOTAVAIL, EINVAL), the next
    /// address is tried. At most one datagram is sent. (std tries only the first address.)
    ///
    /// # Errors
    /// * Returns `InvalidInput` if `to` has no address.
    /// * Returns EMSGSIZE if `buf` is too large for a datagram (more than 65,507 bytes over IPv4),
    ///   or for the path if fragmentation is forbidden.
    /// * Returns EAFNOSUPPORT for an IPv6 address on an IPv4 socket, and `PermissionDenied` for a
    ///   broadcast address if [broadcasts](UdpSocket::set_broadcast) are off.
    /// * Returns other OS errors, `TimedOut` after the write deadline or timeout, a
    ///   [closed](crate::net::is_closed) error after `close`, and errors of name resolution. The
    ///   deadline, the timeout and a close also end a send that waits for the look-up of a name.
    ///
    /// If the last address fails too, returns the error of the first. An error for which the next
    /// address is not tried, such as EMSGSIZE or `PermissionDenied`, ends the send.
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has sent nothing.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// # use netpoll::net::UdpSocket;
    /// # let socket = UdpSocket::bind("127.0.0.1:0").await?;
    /// # let receiver = UdpSocket::bind("127.0.0.1:0").await?;
    /// # let port = receiver.local_addr()?.port();
    /// socket.send_to(b"hello", ("127.0.0.1", port)).await?;
    /// # assert_eq!(receiver.recv(&mut [0; 8]).await?, 5);
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    #[doc(alias = "WriteTo")]
    pub fn send_to<'a, A: ToSocketAddrs>(&'a self, buf: &'a [u8], to: A) -> SendTo<'a, A::Iter> {
        SendTo::new(&self.fd, buf, to.to_socket_addrs())
    }

    /// Sends a datagram to the peer. Returns the number of bytes sent, which is always `buf.len()`.
    ///
    /// # Errors
    /// Returns EDESTADDRREQ if the socket is not connected, and `ConnectionRefused` if the peer
    /// refused an earlier datagram. Otherwise returns the same errors as
    /// [`send_to`](UdpSocket::send_to).
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has sent nothing.
    pub fn send<'a>(&'a self, buf: &'a [u8]) -> SendDatagram<'a> {
        SendDatagram::new(&self.fd, buf)
    }

    /// Sends a datagram from several buffers with ancillary data (sendmsg(2)). If `to` is `None`,
    /// the datagram goes to the peer of a connected socket. Returns the number of bytes sent.
    /// [`Ancillary`] has an example.
    ///
    /// # Errors
    /// Returns `InvalidInput` if `to` is `None` on an unconnected socket, if the local address in
    /// `ancillary` is of another family than `to`, or if the interface index is 2³¹ or more; EINVAL
    /// if the kernel refuses the ancillary data. Otherwise returns the same errors as
    /// [`send_to`](UdpSocket::send_to).
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has sent nothing.
    pub fn send_msg<'a>(
        &'a self,
        bufs: &'a [IoSlice<'a>],
        to: impl Into<Option<SocketAddr>>,
        ancillary: &Ancillary,
    ) -> SendMsg<'a> {
        SendMsg::new(&self.fd, bufs, to.into().map(canonical), *ancillary)
    }

    /// Waits until the send buffer has room for at least one datagram. Then sends as many datagrams
    /// of `batch` as there is room for, and removes them from the batch. On Linux, this usually
    /// takes one system call (sendmmsg(2)). One call sends at most 1,024 datagrams, or groups of
    /// datagrams that segmentation offload combines. Returns the number of datagrams sent. If the
    /// batch is empty, returns 0 immediately. [`RecvBatch`] has an example.
    ///
    /// Consecutive datagrams of equal size to one peer without ancillary data pass through the
    /// network stack together (segmentation offload) if the kernel and the device support it and no
    /// [segment size](UdpSocket::set_segment_size) is set on the socket. The peer receives the same
    /// datagrams either way.
    ///
    /// # Errors
    /// Returns the same errors as [`send_msg`](UdpSocket::send_msg). On an error, no datagram is
    /// sent or removed. An error that the network has reported, such as `ConnectionRefused`,
    /// concerns an earlier datagram. Any other OS error concerns the first datagram of the batch
    /// ([`skip`](SendBatch::skip) removes it). An error that occurs after the first datagram is
    /// returned by the next call if it concerns a datagram of the batch, and is lost otherwise.
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has sent nothing, and the batch is unchanged.
    pub fn send_many<'a>(&'a self, batch: &'a mut SendBatch) -> SendMany<'a> {
        SendMany::new(&self.fd, &self.segmentation, batch)
    }

    /// Waits until the socket is writable: the send buffer has room, or a send would return an
    /// error. Any number of tasks may wait.
    ///
    /// # Errors
    /// Returns `TimedOut` after the write deadline or timeout, and a
    /// [closed](crate::net::is_closed) error after `close`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub fn writable(&self) -> Writable<'_> {
        Writable::new(&self.fd)
    }

    // ---- polling and the caller's own system calls ----

    /// Attempts to receive a datagram, as [`recv`](UdpSocket::recv) does. If none is available,
    /// returns `Pending` and wakes the task when the socket becomes readable. When a datagram
    /// arrives, every task whose `poll_*` call is pending for reading is woken.
    ///
    /// # Errors
    /// Returns the same errors as [`recv`](UdpSocket::recv).
    pub fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.fd.poll_recv(Waiter::Poll, cx, buf, 0)
    }

    /// Attempts to receive a datagram with its sender; see [`poll_recv`](UdpSocket::poll_recv).
    ///
    /// # Errors
    /// Returns the same errors as [`recv_from`](UdpSocket::recv_from).
    pub fn poll_recv_from(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        self.fd.poll_recv_from(Waiter::Poll, cx, buf, 0)
    }

    /// Attempts to receive many datagrams; see [`poll_recv`](UdpSocket::poll_recv).
    ///
    /// # Errors
    /// Returns the same errors as [`recv_many`](UdpSocket::recv_many).
    pub fn poll_recv_many(&self, cx: &mut Context<'_>, batch: &mut RecvBatch) -> Poll<io::Result<usize>> {
        self.fd.poll_recv_many(Waiter::Poll, cx, batch)
    }

    /// Checks whether the socket is readable. If it is not, returns `Pending`; see
    /// [`poll_recv`](UdpSocket::poll_recv).
    ///
    /// # Errors
    /// Returns the same errors as [`readable`](UdpSocket::readable).
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fd.poll_ready(Direction::Read, Waiter::Poll, cx)
    }

    /// Attempts to send a datagram to the peer, as [`send`](UdpSocket::send) does. If the send
    /// buffer is full, returns `Pending` and wakes the task when the socket becomes writable.
    ///
    /// # Errors
    /// Returns the same errors as [`send`](UdpSocket::send).
    pub fn poll_send(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.fd.poll_send_datagram(Waiter::Poll, cx, buf)
    }

    /// Attempts to send a datagram to `to`; see [`poll_send`](UdpSocket::poll_send).
    ///
    /// # Errors
    /// Returns the same errors as [`send_to`](UdpSocket::send_to), except those of name resolution.
    pub fn poll_send_to(&self, cx: &mut Context<'_>, buf: &[u8], to: SocketAddr) -> Poll<io::Result<usize>> {
        self.fd.poll_send_to(Waiter::Poll, cx, buf, &canonical(to))
    }

    /// Checks whether the socket is writable. If it is not, returns `Pending`; see
    /// [`poll_send`](UdpSocket::poll_send).
    ///
    /// # Errors
    /// Returns the same errors as [`writable`](UdpSocket::writable).
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fd.poll_ready(Direction::Write, Waiter::Poll, cx)
    }

    /// Runs `call` once, without waiting for readability. `call` should make one read system call.
    /// The descriptor stays open during the call. If `call` returns `WouldBlock`, wait with
    /// [`readable`](UdpSocket::readable) and try again.
    ///
    /// # Errors
    /// Returns the error of `call`; `TimedOut` after the read deadline; a
    /// [closed](crate::net::is_closed) error after `close`.
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
    #[doc(alias = "try_io")]
    pub fn try_read_io<T>(&self, call: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        self.fd.try_call(Direction::Read, call)
    }

    /// Runs `call`, which should make one read system call. If `call` returns `WouldBlock`, returns
    /// `Pending` and wakes the task when the socket becomes readable. The descriptor stays open
    /// during each call. If more than 4,096 tasks wait this way, they repeatedly wake each other.
    ///
    /// # Errors
    /// Returns the error of `call`; `TimedOut` after the read deadline or timeout; a
    /// [closed](crate::net::is_closed) error after `close`.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// # use netpoll::net::UdpSocket;
    /// # let socket = UdpSocket::bind("127.0.0.1:0").await?;
    /// # socket.send_to(b"ping", socket.local_addr()?).await?;
    /// let mut buf = [0; 1500];
    /// let read = std::future::poll_fn(|cx| socket.poll_read_io(cx, |fd| Ok(rustix::io::read(fd, &mut buf)?)));
    /// assert_eq!(read.await?, 4);
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    pub fn poll_read_io<T>(
        &self,
        cx: &mut Context<'_>,
        call: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        self.fd.expose();
        let polled = self.fd.fd.poll_pinned(Direction::Read, LockScope::None, Waiter::Poll, cx, call);
        polled.map_err(|failure| self.fd.error("read", failure))
    }

    /// Runs `call` once, without waiting for writability. `call` should make one write system call.
    /// The descriptor stays open during the call. If `call` returns `WouldBlock`, wait with
    /// [`writable`](UdpSocket::writable) and try again.
    ///
    /// # Errors
    /// Returns the error of `call`; `TimedOut` after the write deadline; a
    /// [closed](crate::net::is_closed) error after `close`.
    pub fn try_write_io<T>(&self, call: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        self.fd.try_call(Direction::Write, call)
    }

    // ---- addresses and closing ----

    /// Returns the local address.
    ///
    /// # Errors
    /// Returns a [closed](crate::net::is_closed) error after [`close`](UdpSocket::close).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.fd.local_addr()
    }

    /// Returns the peer's address.
    ///
    /// # Errors
    /// Returns `NotConnected` if the socket is not connected, and a [closed](crate::net::is_closed)
    /// error after `close`.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.fd.peer_addr()
    }

    /// Closes the socket. Pending operations return a [closed](crate::net::is_closed) error.
    ///
    /// The close begins immediately, even if the future is dropped. The future completes when the
    /// descriptor is closed; the port is then free, unless the descriptor has duplicates. Closing
    /// twice is not an error.
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

raw_access!(UdpSocket, None);

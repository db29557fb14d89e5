//! System calls that send and receive. No call waits: a call that would block fails with EAGAIN.

use std::net::{IpAddr, SocketAddr};

use super::calls::{Address, Result};
use super::network::Kernel;
use super::packet::{Body, IpFields, Packet, Protocol};
use super::socket::{Datagram, Family, Kind, Role, Socket, SocketId};
use super::tcp::State;

/// The largest payload of a UDP datagram over IPv4.
const DATAGRAM_MAX: usize = 65_507;

/// The largest payload of a UDP datagram over IPv6. The length field of IPv6 does not include the
/// IP header.
const DATAGRAM_MAX_V6: usize = 65_527;

/// The result of a receive call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    /// The number of bytes that were copied to the caller's buffers.
    pub(crate) bytes: usize,
    /// The length of the whole message. For a stream, this is `bytes`.
    pub(crate) whole: usize,
    pub(crate) from: Option<Address>,
    /// For UDP datagrams: the fields of the IP header, and the destination address.
    pub(crate) ip_fields: Option<(IpFields, IpAddr)>,
}

/// Fields of the IP header that a program sets for one datagram, in place of those of its socket
/// (IP_PKTINFO, IP_TOS, IP_TTL and the IPv6 equivalents).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct IpOverrides {
    pub(crate) source: Option<IpAddr>,
    pub(crate) tos: Option<u8>,
    pub(crate) hops: Option<u8>,
}

impl Received {
    pub(super) fn stream(bytes: usize) -> Received {
        Received { bytes, whole: bytes, from: None, ip_fields: None }
    }
}

/// Copies as much of `data` into the buffers as fits. Returns the number of bytes copied.
pub(super) fn scatter(data: &[u8], bufs: &mut [&mut [u8]]) -> usize {
    let mut rest = data;
    for buf in bufs {
        let (part, behind) = rest.split_at(rest.len().min(buf.len()));
        buf[..part.len()].copy_from_slice(part);
        rest = behind;
    }
    data.len() - rest.len()
}

impl Kernel {
    /// Receives into several buffers (recv(2), recvmsg(2), readv(2)). `peeks` corresponds to
    /// MSG_PEEK.
    pub(crate) fn receive(&mut self, fd: i32, bufs: &mut [&mut [u8]], peeks: bool) -> Result<Received> {
        let result = self.try_receive(fd, bufs, peeks);
        let host = self.host_of(fd)?;
        if !matches!(result, Err(libc::EAGAIN)) {
            self.log_call(host, "recv", fd, result.as_ref().map(|received| received.bytes as i64).map_err(|&e| e));
        }
        result
    }

    fn try_receive(&mut self, fd: i32, bufs: &mut [&mut [u8]], peeks: bool) -> Result<Received> {
        if self.faults.strikes(self.faults.interrupted, self.now, "EINTR") {
            return Err(libc::EINTR);
        }
        let id = self.id(fd)?;
        if self.faults.again > 0.0
            && self.readiness(id).is_some_and(|bits| bits & libc::EPOLLIN as u32 != 0)
            && self.faults.strikes(self.faults.again, self.now, "EAGAIN")
        {
            self.raise_later(id);
            return Err(libc::EAGAIN);
        }
        let (_, socket) = self.get_mut(fd)?;
        let shown = |socket: &Socket, from: SocketAddr| Address::Inet(socket.shown(from));
        match &mut socket.role {
            Role::Unconnected => match socket.take_error() {
                None if socket.shut.read => Ok(Received::stream(0)),
                error => Err(error.unwrap_or(libc::ENOTCONN)),
            },
            Role::Listener(_) if socket.family == Family::Unix && socket.kind == Kind::Stream => Err(libc::EINVAL),
            Role::Listener(_) => Err(libc::ENOTCONN),
            Role::Dead => Err(libc::ENETDOWN),
            Role::Tcp(_) => self.receive_tcp(id, bufs, peeks),
            Role::Unix(_) => self.receive_unix(id, bufs, peeks),
            Role::Udp(datagrams) => {
                let Some(Datagram { from, to, ip_fields, data }) = datagrams.queue.front() else {
                    // This also applies after a shutdown. On Linux, only a call that waits returns
                    // 0 then.
                    return Err(socket.error.take().unwrap_or(libc::EAGAIN));
                };
                if let Some(error) = socket.error.take() {
                    return Err(error);
                }
                let (bytes, whole) = (scatter(data, bufs), data.len());
                let (from, ip_fields) = (*from, Some((*ip_fields, *to)));
                if !peeks {
                    datagrams.bytes -= whole + 512;
                    datagrams.queue.pop_front();
                }
                Ok(Received { bytes, whole, from: Some(shown(socket, from)), ip_fields })
            }
        }
    }

    fn receive_tcp(&mut self, id: SocketId, bufs: &mut [&mut [u8]], peeks: bool) -> Result<Received> {
        let room: usize = bufs.iter().map(|buf| buf.len()).sum();
        let Some(Socket { role: Role::Tcp(connection), .. }) = self.socket_mut(id) else { return Err(libc::EBADF) };
        let most = connection.readable().min(room);
        if most == 0 {
            let state = connection.state;
            let ends = connection.fin_received || state == State::Closed || connection.read_shut;
            // As on Linux, a read of no bytes returns 0 while there is data, and a reset after the
            // end of the stream does not affect readers.
            if connection.readable() > 0 || connection.fin_received {
                return Ok(Received::stream(0));
            }
            return match self.take_error_of(id) {
                Some(error) => Err(error),
                None if ends => Ok(Received::stream(0)),
                None => Err(libc::EAGAIN),
            };
        }
        let shortened = self.faults.shortened(most, self.now);
        if shortened < most {
            // There is more data. An edge must report it, because the caller may conclude from the
            // short count that there is none.
            self.raise_later(id);
        }
        let most = shortened;
        let Some(Socket { role: Role::Tcp(connection), .. }) = self.socket_mut(id) else { return Err(libc::EBADF) };
        let mut bytes = 0;
        for buf in bufs {
            let part = buf.len().min(most - bytes);
            bytes += connection.peek(bytes, &mut buf[..part]);
        }
        if !peeks {
            self.with_connection(id, |connection, _, out| connection.consume(bytes, out));
            self.after(id, false);
        }
        Ok(Received::stream(bytes))
    }

    /// Sends the contents of several buffers (send(2), sendto(2), sendmsg(2), writev(2)).
    pub(crate) fn send(
        &mut self,
        fd: i32,
        bufs: &[&[u8]],
        to: Option<&Address>,
        overrides: IpOverrides,
    ) -> Result<usize> {
        let result = self.try_send(fd, bufs, to, overrides);
        let host = self.host_of(fd)?;
        if !matches!(result, Err(libc::EAGAIN)) {
            self.log_call(host, "send", fd, result.map(|bytes| bytes as i64));
        }
        result
    }

    fn try_send(&mut self, fd: i32, bufs: &[&[u8]], to: Option<&Address>, overrides: IpOverrides) -> Result<usize> {
        if self.faults.strikes(self.faults.interrupted, self.now, "EINTR") {
            return Err(libc::EINTR);
        }
        let (id, socket) = self.get(fd)?;
        match &socket.role {
            Role::Listener(_) if socket.family == Family::Unix => {
                let is_addressed = socket.kind == Kind::Stream && to.is_some();
                return Err(if is_addressed { libc::EOPNOTSUPP } else { libc::ENOTCONN });
            }
            // As on Linux, a listener may have the error of an earlier connection.
            Role::Unconnected | Role::Listener(_) => return Err(self.take_error_of(id).unwrap_or(libc::EPIPE)),
            Role::Dead => return Err(libc::ENETDOWN),
            Role::Unix(_) => return self.send_unix(id, bufs, to),
            Role::Tcp(_) => {}
            Role::Udp(_) => return self.send_udp(id, bufs, to, overrides),
        }
        if self.faults.strikes(self.faults.again, self.now, "EAGAIN") {
            self.raise_later(id);
            return Err(libc::EAGAIN);
        }
        let Some(Socket { role: Role::Tcp(connection), .. }) = self.socket_mut(id) else { return Err(libc::EBADF) };
        let (state, is_shut) = (connection.state, connection.write_shut);
        if let Some(error) = self.take_error_of(id) {
            return Err(error);
        }
        match state {
            State::SynSent | State::SynReceived => return Err(libc::EAGAIN),
            State::Closed | State::TimeWait => return Err(libc::EPIPE),
            State::Established if is_shut => return Err(libc::EPIPE),
            State::Established => {}
        }
        let room = self.with_connection(id, |connection, _, _| {
            let room = connection.room();
            connection.wants_room |= room == 0;
            room
        });
        let room = room.unwrap_or_default();
        let all: usize = bufs.iter().map(|buf| buf.len()).sum();
        if room == 0 && all > 0 {
            return Err(libc::EAGAIN);
        }
        let possible = all.min(room);
        let shortened = self.faults.shortened(possible, self.now);
        // Without a fault, `write` gets all bytes, so that it sets `wants_room` if not all fit.
        let is_short = shortened < possible;
        let most = if is_short { shortened } else { all };
        let written = self.with_connection(id, |connection, now, out| {
            let mut written = 0;
            for buf in bufs {
                let part = &buf[..buf.len().min(most - written)];
                let count = connection.write(now, part, out);
                written += count;
                if count < part.len() {
                    break;
                }
            }
            written
        });
        self.after(id, false);
        if is_short {
            // The buffer may have room. An edge must report it, because the caller may conclude
            // from the short count that there is none.
            self.raise_later(id);
        }
        Ok(written.unwrap_or_default())
    }

    /// Handles a send of `length` bytes of urgent data, which is not simulated. Returns whether the
    /// socket is of a kind without urgent data, for which the call fails with EOPNOTSUPP on Linux
    /// as well.
    pub(crate) fn refuse_urgent_send(&mut self, fd: i32, length: usize) -> Result<bool> {
        let (id, socket) = self.get(fd)?;
        if let Role::Udp(_) = socket.role {
            self.port_of_datagrams(id)?;
            return if length > usize::from(u16::MAX) { Err(libc::EMSGSIZE) } else { Ok(true) };
        }
        Ok(socket.kind != Kind::Stream)
    }

    /// Fails with the error of a receive of urgent data, which never arrives. UDP sockets ignore
    /// the request.
    pub(crate) fn check_urgent_receive(&self, fd: i32) -> Result<()> {
        let (_, socket) = self.get(fd)?;
        match (&socket.role, socket.kind) {
            (Role::Udp(_), _) => Ok(()),
            (_, Kind::Datagram | Kind::Packets) => Err(libc::EOPNOTSUPP),
            (Role::Listener(_), _) if socket.family != Family::Unix => Err(libc::ENOTCONN),
            _ => Err(libc::EINVAL),
        }
    }

    /// Returns the port of a UDP socket. The call binds the socket to a free port if it has none.
    pub(super) fn port_of_datagrams(&mut self, id: SocketId) -> Result<u16> {
        if let Some(port) = self.port(id) {
            return Ok(port);
        }
        let Some(socket) = self.socket(id) else { return Err(libc::EBADF) };
        let (host, own) = (socket.host, socket.local.map_or(socket.wildcard(), |local| local.ip()));
        let port = self.free_port(host, Protocol::Udp).map_err(|_| libc::EAGAIN)?;
        self.set_local(id, SocketAddr::new(own, port));
        Ok(port)
    }

    fn send_udp(
        &mut self,
        id: SocketId,
        bufs: &[&[u8]],
        to: Option<&Address>,
        overrides: IpOverrides,
    ) -> Result<usize> {
        if self.faults.strikes(self.faults.no_buffers, self.now, "ENOBUFS") {
            return Err(libc::ENOBUFS);
        }
        // As on Linux, the socket gets a port even if the call fails.
        let port = self.port_of_datagrams(id)?;
        let Some(socket) = self.socket(id) else { return Err(libc::EBADF) };
        let host = socket.host;
        let is_shut = matches!(&socket.role, Role::Udp(datagrams) if datagrams.shut.write);
        let remote = match to {
            Some(Address::Inet(addr)) => Kernel::destination(socket, *addr)?,
            Some(Address::Unix(_)) => return Err(libc::EAFNOSUPPORT),
            Some(Address::Unspecified) | None => socket.remote.ok_or(libc::EDESTADDRREQ)?,
        };
        // As on Linux, a socket may be connected to port 0, but an IPv6 socket sends to an IPv4
        // peer as if the call had its address.
        let has_address = matches!(to, Some(Address::Inet(_))) || (socket.family == Family::V6 && remote.is_ipv4());
        if remote.port() == 0 && has_address {
            return Err(libc::EINVAL);
        }
        let length: usize = bufs.iter().map(|buf| buf.len()).sum();
        if length > if remote.is_ipv4() { DATAGRAM_MAX } else { DATAGRAM_MAX_V6 } {
            return Err(libc::EMSGSIZE);
        }
        let ip = match overrides.source {
            Some(ip) if !self.is_own(host, ip) || ip.is_ipv4() != remote.is_ipv4() => return Err(libc::EINVAL),
            Some(ip) => ip,
            None => self.source(host, socket, remote.ip())?,
        };
        let ip_fields = socket.options.ip_fields(remote.is_ipv4(), overrides);
        // As on Linux, a destination without a route is reported before an error of an earlier
        // datagram.
        if let Some(error) = self.take_error_of(id) {
            return Err(error);
        }
        if is_shut {
            return Err(libc::EPIPE);
        }
        let packet =
            Packet { src: SocketAddr::new(ip, port), dst: remote, body: Body::Udp(bufs.concat().into(), ip_fields) };
        self.output(host, packet);
        Ok(length)
    }
}

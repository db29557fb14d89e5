//! System calls that bind simulated sockets, listen, accept, shut down, or return addresses. No
//! call waits: a call that would block fails with EAGAIN.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::network::{Event, Kernel};
use super::packet::Protocol;
use super::socket::{Family, HostId, Kind, Listener, Role, Shut, Socket, SocketId, Stage, canonical};
use super::tcp::State;

/// The result of a call: its value, or an errno.
pub(crate) type Result<T> = std::result::Result<T, i32>;

/// The maximum backlog of a listener (net.core.somaxconn).
const BACKLOG_MAX: usize = 4096;

/// The lowest port that the kernel chooses (net.ipv4.ip_local_port_range).
pub(super) const FIRST_PORT: u16 = 32_768;
/// The highest port that the kernel chooses.
pub(super) const LAST_PORT: u16 = 60_999;

/// Returns whether `ip` stands for several hosts: a multicast address, or the broadcast address.
pub(crate) fn is_group(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// A socket address of any family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Inet(SocketAddr),
    /// The name of a Unix socket. It is empty for an unnamed socket, and an abstract name begins
    /// with a zero byte.
    Unix(Vec<u8>),
    /// The address of the family AF_UNSPEC.
    Unspecified,
}

impl Kernel {
    // ---- names ----

    /// bind(2).
    pub(crate) fn bind(&mut self, fd: i32, address: &Address) -> Result<()> {
        self.logged("bind", fd, |kernel| kernel.try_bind(fd, address))
    }

    fn try_bind(&mut self, fd: i32, address: &Address) -> Result<()> {
        let (id, socket) = self.get(fd)?;
        let host = socket.host;
        let addr = match (address, socket.family) {
            (Address::Unix(name), Family::Unix) => return self.bind_unix(id, name.clone()),
            (Address::Inet(addr), Family::V4) if addr.is_ipv4() => *addr,
            (Address::Inet(addr), Family::V6) if addr.is_ipv6() => canonical(*addr),
            // As on Linux, an IPv4 address is too short for an IPv6 socket.
            (Address::Inet(_), Family::V6) => return Err(libc::EINVAL),
            (_, Family::V4 | Family::V6) => return Err(libc::EAFNOSUPPORT),
            _ => return Err(libc::EINVAL),
        };
        if matches!(socket.role, Role::Dead) {
            return Err(libc::ENETDOWN);
        }
        if self.port(id).is_some() {
            return Err(libc::EINVAL);
        }
        let ip = addr.ip();
        let is_own = ip.is_unspecified() || ip.is_loopback() || self.hosts[host as usize].addrs.contains(&ip);
        if socket.options.only_v6 && ip.is_ipv4() && socket.family == Family::V6 {
            return Err(libc::EINVAL);
        }
        if !is_own {
            return Err(libc::EADDRNOTAVAIL);
        }
        let protocol = Protocol::of(socket.kind);
        let port = match addr.port() {
            0 => self.free_port(host, protocol),
            port => self.check_port(id, host, protocol, ip, port).map(|()| port),
        };
        let (_, socket) = self.get_mut(fd)?;
        if port.is_err() {
            // As on Linux, a bind(2) that fails for lack of a port removes the IP address that the
            // socket shows, but not the port.
            let wildcard = socket.wildcard();
            [&mut socket.local, &mut socket.bound].into_iter().flatten().for_each(|addr| addr.set_ip(wildcard));
        }
        let port = port?;
        socket.bound = Some(addr);
        let is_mapped = socket.family == Family::V6 && ip.is_ipv4();
        socket.had_bound_ip |= !ip.is_unspecified() || is_mapped;
        // As on Linux, this stays so after the socket has lost the address.
        socket.options.only_v6 |= ip.is_ipv6() && !ip.is_unspecified();
        self.set_local(id, SocketAddr::new(ip, port));
        Ok(())
    }

    pub(super) fn set_local(&mut self, id: SocketId, local: SocketAddr) {
        self.bindings += 1;
        let order = self.bindings;
        let Some(socket) = self.socket_mut(id) else { return };
        (socket.local, socket.bound_order) = (Some(local), order);
        let (host, protocol) = (socket.host, Protocol::of(socket.kind));
        self.link_port(id, host, protocol, local.port());
    }

    /// Fails with EADDRINUSE if `id` may not be bound to the address and port.
    fn check_port(&mut self, id: SocketId, host: HostId, protocol: Protocol, ip: IpAddr, port: u16) -> Result<()> {
        // For the comparison, the socket is treated as if it were already bound.
        let Some(socket) = self.socket_mut(id) else { return Err(libc::EBADF) };
        let before = socket.local.replace(SocketAddr::new(ip, port));
        let conflicts = self.conflicts(id, host, protocol, port);
        if let Some(socket) = self.socket_mut(id) {
            socket.local = before;
        }
        if conflicts { Err(libc::EADDRINUSE) } else { Ok(()) }
    }

    fn conflicts(&self, id: SocketId, host: HostId, protocol: Protocol, port: u16) -> bool {
        let (Some(own), Some(others)) = (self.socket(id), self.ports.get(&(host, protocol, port))) else {
            return false;
        };
        others.iter().filter(|&&other| other != id).filter_map(|&other| self.socket(other)).any(|other| {
            let both_reuse_port = own.options.reuse_port && other.options.reuse_port;
            let both_reuse = own.options.reuse_address && other.options.reuse_address;
            // An accepted connection has inherited the options of its listener.
            let is_listening = matches!(other.role, Role::Listener(_)) && protocol == Protocol::Tcp;
            let may_share = both_reuse_port || (both_reuse && !is_listening);
            own.overlaps(other) && !may_share
        })
    }

    /// Returns a port that no socket of the host uses for this protocol. Fails with EADDRINUSE if
    /// there is none.
    pub(super) fn free_port(&mut self, host: HostId, protocol: Protocol) -> Result<u16> {
        for _ in FIRST_PORT..=LAST_PORT {
            let next = &mut self.hosts[host as usize].next_port;
            let port = *next;
            *next = if port >= LAST_PORT { FIRST_PORT } else { port + 1 };
            if !self.ports.contains_key(&(host, protocol, port)) {
                return Ok(port);
            }
        }
        Err(libc::EADDRINUSE)
    }

    /// getsockname(2).
    pub(crate) fn local_address(&self, fd: i32) -> Result<Address> {
        let (_, socket) = self.get(fd)?;
        if socket.family == Family::Unix {
            return Ok(Address::Unix(socket.name.clone()));
        }
        let unbound = SocketAddr::new(socket.wildcard(), 0);
        Ok(Address::Inet(socket.local.map_or(unbound, |local| socket.shown(local))))
    }

    /// getpeername(2).
    pub(crate) fn peer_address(&self, fd: i32) -> Result<Address> {
        let (_, socket) = self.get(fd)?;
        match &socket.role {
            Role::Unix(end) if end.peer.is_some() || end.is_hung_up => Ok(Address::Unix(socket.peer_name.clone())),
            Role::Tcp(connection) if connection.state == State::Established => {
                socket.remote.map(|remote| Address::Inet(socket.shown(remote))).ok_or(libc::ENOTCONN)
            }
            Role::Udp(_) => match socket.remote.filter(|remote| remote.port() != 0) {
                Some(remote) => Ok(Address::Inet(socket.shown(remote))),
                None => Err(libc::ENOTCONN),
            },
            _ => Err(libc::ENOTCONN),
        }
    }

    /// Returns the source address of packets from `socket` to `remote`. If there is none, fails
    /// with the error of a send to `remote`.
    pub(super) fn source(&self, host: HostId, socket: &Socket, remote: IpAddr) -> Result<IpAddr> {
        let is_group = is_group(remote);
        if let Some(local) = socket.local.map(|local| local.ip()).filter(|ip| !ip.is_unspecified()) {
            let is_same_family = local.is_ipv4() == remote.is_ipv4();
            let is_reachable = local.is_loopback() == remote.is_loopback() || self.is_own(host, remote);
            return match (is_same_family, is_reachable) {
                (true, true) if is_group => Err(libc::ENETUNREACH),
                (true, true) => Ok(local),
                (true, false) => Err(libc::EINVAL),
                (false, _) if local.is_ipv6() => Err(libc::ENETUNREACH),
                (false, _) => Err(libc::EAFNOSUPPORT),
            };
        }
        let addrs = &self.hosts[host as usize].addrs;
        if remote.is_loopback() {
            // As on Linux, this is the source also of packets to other addresses in 127.0.0.0/8.
            let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
            return Ok(if remote.is_ipv4() { v4 } else { remote });
        }
        if addrs.contains(&remote) {
            return Ok(remote);
        }
        let own = addrs.iter().find(|addr| addr.is_ipv4() == remote.is_ipv4()).filter(|_| !is_group);
        own.copied().ok_or(libc::ENETUNREACH)
    }

    pub(super) fn is_own(&self, host: HostId, ip: IpAddr) -> bool {
        ip.is_loopback() || self.hosts[host as usize].addrs.contains(&ip)
    }

    /// Returns the destination of a packet to `addr`. The wildcard address stands for this host: as
    /// on Linux, for the IPv4 address of the socket if it has one, and otherwise for the loopback
    /// address.
    pub(super) fn destination(socket: &Socket, addr: SocketAddr) -> Result<SocketAddr> {
        let remote = match (socket.family, addr) {
            (Family::V4, SocketAddr::V4(_)) => addr,
            (Family::V6, SocketAddr::V6(_)) => canonical(addr),
            // As on Linux, an IPv6 socket for datagrams takes an IPv4 address in place of a mapped
            // one.
            (Family::V6, SocketAddr::V4(_)) if socket.kind == Kind::Datagram => addr,
            (Family::V6, SocketAddr::V4(_)) => return Err(libc::EINVAL),
            _ => return Err(libc::EAFNOSUPPORT),
        };
        let own = socket.local.map(|local| local.ip());
        let own_v4 = own.filter(|own| own.is_ipv4() && !own.is_unspecified());
        let loopback_v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let ip = match remote.ip() {
            IpAddr::V4(v4) if v4.is_unspecified() => own_v4.unwrap_or(loopback_v4),
            IpAddr::V6(v6) if v6.is_unspecified() && own.is_some_and(|own| own.is_ipv4()) => loopback_v4,
            IpAddr::V6(v6) if v6.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        if socket.family == Family::V6 && ip.is_ipv4() && socket.options.only_v6 {
            return Err(libc::ENETUNREACH);
        }
        Ok(SocketAddr::new(ip, remote.port()))
    }

    // ---- listeners and the ends of connections ----

    /// listen(2).
    pub(crate) fn listen(&mut self, fd: i32, backlog: i32) -> Result<()> {
        self.logged("listen", fd, |kernel| kernel.try_listen(fd, backlog))
    }

    fn try_listen(&mut self, fd: i32, backlog: i32) -> Result<()> {
        let backlog = usize::try_from(backlog).unwrap_or(BACKLOG_MAX).min(BACKLOG_MAX);
        let (id, socket) = self.get_mut(fd)?;
        let (host, family, kind) = (socket.host, socket.family, socket.kind);
        let is_named = !socket.name.is_empty();
        match &mut socket.role {
            Role::Listener(listener) => {
                listener.backlog = backlog;
                return Ok(());
            }
            Role::Unconnected => {}
            Role::Unix(end) if kind != Kind::Datagram && !end.is_joined() && is_named => {}
            Role::Unix(_) if kind == Kind::Datagram => return Err(libc::EOPNOTSUPP),
            Role::Unix(_) => return Err(libc::EINVAL),
            Role::Udp(_) => return Err(libc::EOPNOTSUPP),
            Role::Dead => return Err(libc::ENETDOWN),
            Role::Tcp(_) => return Err(libc::EINVAL),
        }
        if let Role::Unix(end) = &socket.role {
            socket.shut = Shut { read: end.read_shut, write: end.write_shut };
        }
        let listener = Role::Listener(Listener { backlog, ..Listener::default() });
        if family == Family::Unix {
            socket.role = listener;
            return Ok(());
        }
        let ip = socket.bound.map_or(socket.wildcard(), |bound| bound.ip());
        let port = match self.port(id) {
            Some(port) => port,
            None => {
                let port = self.free_port(host, Protocol::Tcp)?;
                self.set_local(id, SocketAddr::new(ip, port));
                port
            }
        };
        // SO_REUSEADDR allows two sockets to be bound to the port, but only one of them to listen,
        // unless both have SO_REUSEPORT.
        if self.conflicts(id, host, Protocol::Tcp, port) {
            return Err(libc::EADDRINUSE);
        }
        let socket = self.get_mut(fd)?.1;
        if socket.had_connection {
            return Err(libc::EINVAL);
        }
        (socket.was_listener, socket.role) = (true, listener);
        self.listeners.entry((host, port)).or_default().push(id);
        self.raise(id);
        Ok(())
    }

    /// accept4(2): returns the descriptor of the connection and the address of the peer.
    pub(crate) fn accept(&mut self, fd: i32, nonblocking: bool) -> Result<(i32, Address)> {
        let host = self.host_of(fd)?;
        let result = self.try_accept(fd, nonblocking);
        if !matches!(result, Err(libc::EAGAIN)) {
            let accepted = result.as_ref().map(|accepted| self.log_number(accepted.0).into()).map_err(|&errno| errno);
            self.log_call(host, "accept", fd, accepted);
        }
        result
    }

    fn try_accept(&mut self, fd: i32, nonblocking: bool) -> Result<(i32, Address)> {
        if self.faults.strikes(self.faults.interrupted, self.now, "EINTR") {
            return Err(libc::EINTR);
        }
        let (id, socket) = self.get_mut(fd)?;
        let next = match &mut socket.role {
            Role::Listener(listener) => listener.queue.front().copied().ok_or(libc::EAGAIN)?,
            Role::Dead => return Err(libc::ENETDOWN),
            _ if socket.kind == Kind::Datagram => return Err(libc::EOPNOTSUPP),
            _ => return Err(libc::EINVAL),
        };
        if self.faults.strikes(self.faults.again, self.now, "EAGAIN") {
            self.raise_later(id);
            return Err(libc::EAGAIN);
        }
        let accepted = self.assign_descriptor(next)?;
        if let (_, Socket { role: Role::Listener(listener), .. }) = self.get_mut(fd)? {
            listener.queue.pop_front();
        }
        let (_, socket) = self.get_mut(accepted)?;
        (socket.is_nonblocking, socket.stage) = (nonblocking, Stage::Connected);
        let peer = match socket.family {
            Family::Unix => Address::Unix(socket.peer_name.clone()),
            _ => socket.remote.map_or(Address::Unspecified, |remote| Address::Inet(socket.shown(remote))),
        };
        Ok((accepted, peer))
    }

    /// Schedules an edge. Called after an injected fault has made a call fail with EAGAIN or
    /// transfer fewer bytes.
    pub(super) fn raise_later(&mut self, id: SocketId) {
        self.schedule(self.now + 100_000, Event::Edge(id));
    }

    /// shutdown(2).
    pub(crate) fn shutdown(&mut self, fd: i32, read: bool, write: bool) -> Result<()> {
        self.logged("shutdown", fd, |kernel| kernel.try_shutdown(fd, read, write))
    }

    fn try_shutdown(&mut self, fd: i32, read: bool, write: bool) -> Result<()> {
        let (id, socket) = self.get_mut(fd)?;
        match &mut socket.role {
            // As on Linux, the call fails, but the next connection of the socket begins shut down.
            Role::Unconnected => {
                socket.shut.add(read, write);
                self.raise(id);
                return Err(libc::ENOTCONN);
            }
            Role::Dead => return Err(libc::ENETDOWN),
            Role::Listener(listener) => {
                if socket.family == Family::Unix {
                    socket.shut.add(read, write);
                } else if read {
                    let queued = std::mem::take(&mut listener.queue);
                    self.close_listener(id, queued);
                    self.unlink_ended(id);
                    self.make_unconnected(id);
                } else {
                    return Ok(());
                }
            }
            Role::Tcp(connection) if connection.state == State::Closed => {
                if socket.stage == Stage::Connecting {
                    socket.stage = Stage::Disconnecting;
                }
                return Err(libc::ENOTCONN);
            }
            Role::Tcp(connection) if connection.state == State::SynSent => {
                self.dissociate(id);
                self.make_unconnected(id);
                self.get_mut(fd)?.1.error = Some(libc::ECONNRESET);
            }
            Role::Tcp(_) => {
                // As on Linux, this reports to the program that the handshake has succeeded.
                socket.stage = Stage::Connected;
                self.with_connection(id, |connection, now, out| {
                    if read {
                        connection.shut_read();
                    }
                    if write {
                        connection.shut_write(now, out);
                    }
                });
                self.after(id, true);
            }
            Role::Udp(datagrams) => {
                datagrams.shut.add(read, write);
                if socket.remote.is_none() {
                    return Err(libc::ENOTCONN);
                }
            }
            Role::Unix(_) => self.shutdown_unix(id, read, write),
        }
        self.raise(id);
        Ok(())
    }
}

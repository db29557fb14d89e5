//! connect(2). The call does not wait: on a TCP socket, it usually fails with EINPROGRESS.
//!
//! # States of a TCP socket
//! *unconnected* (`Role::Unconnected`) → *connecting* → *connected* or *disconnecting* (`Role::Tcp`
//! and [`Stage`]), as in Linux's `struct socket`. These calls change the state of a *connecting*
//! socket:
//!
//! * A further connect(2) after the end of the handshake. If the call succeeds, the socket becomes
//!   *connected*. If it reports that the handshake has failed or the connection has ended, the
//!   socket becomes *unconnected*.
//! * shutdown(2). While the SYN is not answered, the socket becomes *unconnected*. Later, it
//!   becomes *connected* if the call succeeds, and *disconnecting* if the call fails because the
//!   connection has ended.
//!
//! A socket that accept(2) returns is *connected*. *Connected* and *disconnecting* sockets stay so
//! until connect(2) to AF_UNSPEC, even if the connection ends. That call makes any TCP socket
//! *unconnected*.

use std::net::{IpAddr, SocketAddr};

use super::calls::{Address, FIRST_PORT, LAST_PORT, Result};
use super::network::Kernel;
use super::packet::Protocol;
use super::socket::{Family, Kind, Role, Shut, SocketId, Stage};
use super::tcp::{Connection, State};

impl Kernel {
    /// connect(2).
    pub(crate) fn connect(&mut self, fd: i32, address: &Address) -> Result<()> {
        self.logged("connect", fd, |kernel| kernel.try_connect(fd, address))
    }

    fn try_connect(&mut self, fd: i32, address: &Address) -> Result<()> {
        let (id, socket) = self.get(fd)?;
        let host = socket.host;
        let addr = match address {
            Address::Unix(name) if socket.family == Family::Unix => return self.connect_unix(id, name),
            Address::Unspecified => return self.disconnect(id),
            _ if socket.family == Family::Unix => return Err(libc::EINVAL),
            Address::Inet(addr) => *addr,
            Address::Unix(_) => return Err(libc::EAFNOSUPPORT),
        };
        match &socket.role {
            Role::Unconnected => {}
            // As on Linux, the socket gets a port even if the call fails.
            Role::Udp(_) => _ = self.port_of_datagrams(id)?,
            Role::Tcp(_) => return self.connect_again(id),
            Role::Listener(_) => return Err(libc::EISCONN),
            Role::Dead => return Err(libc::ENETDOWN),
            Role::Unix(_) => return Err(libc::EINVAL),
        }
        let Some(socket) = self.socket(id) else { return Err(libc::EBADF) };
        let remote = match Kernel::destination(socket, addr) {
            Err(libc::ENETUNREACH) if addr.is_ipv4() => return Err(libc::EAFNOSUPPORT),
            result => result?,
        };
        let ip = self.source(host, socket, remote.ip())?;
        let kind = socket.kind;
        let port = match self.port(id) {
            Some(port) => port,
            None => self.port_to(id, SocketAddr::new(ip, 0), remote)?,
        };
        let local = SocketAddr::new(ip, port);
        if kind == Kind::Stream && self.connections.contains_key(&(host, local, remote)) {
            return Err(libc::EADDRNOTAVAIL);
        }
        if self.socket(id).is_some_and(|socket| socket.was_listener) {
            return self.refuse_to_connect(id, ip);
        }
        self.set_local(id, local);
        let mss = self.mss(host, local, remote);
        let (now, mut out) = (self.now, std::mem::take(&mut self.segments));
        self.begun += u64::from(kind == Kind::Stream);
        let number = self.begun;
        let Some(socket) = self.socket_mut(id) else { return Err(libc::EBADF) };
        socket.remote = Some(remote);
        if kind == Kind::Datagram {
            self.segments = out;
            return Ok(());
        }
        let mut settings = socket.options.tcp.clone();
        settings.mss = settings.mss.min(mss);
        (socket.error, socket.stage) = (None, Stage::Connecting);
        let mut connection = Connection::connect(settings, number, now, &mut out);
        (connection.read_shut, connection.write_shut) = (socket.shut.read, socket.shut.write);
        socket.role = Role::Tcp(Box::new(connection));
        socket.had_connection = true;
        self.segments = out;
        self.connections.insert((host, local, remote), id);
        self.after(id, false);
        Err(libc::EINPROGRESS)
    }

    /// connect(2) on a socket that was a listener: fails late, as on Linux. As at the end of a
    /// connection, the socket loses a port that the program has not chosen. If bind(2) has ever set
    /// an IP address, the socket's address becomes `ip`, the source address of the connection that
    /// was not made.
    fn refuse_to_connect(&mut self, id: SocketId, ip: IpAddr) -> Result<()> {
        self.unlink_ended(id);
        if let Some(socket) = self.socket_mut(id)
            && socket.had_bound_ip
        {
            [&mut socket.local, &mut socket.bound].into_iter().flatten().for_each(|addr| addr.set_ip(ip));
        }
        Err(libc::EINVAL)
    }

    /// connect(2) on a socket that has a connection: reports the state of the connection.
    fn connect_again(&mut self, id: SocketId) -> Result<()> {
        let Some(socket) = self.socket_mut(id) else { return Err(libc::EBADF) };
        let Role::Tcp(connection) = &socket.role else { return Err(libc::EISCONN) };
        match connection.state {
            _ if socket.stage == Stage::Connected => Err(libc::EISCONN),
            _ if socket.stage == Stage::Disconnecting => Err(libc::EINVAL),
            State::SynSent | State::SynReceived => Err(libc::EALREADY),
            State::Established => {
                socket.stage = Stage::Connected;
                Ok(())
            }
            // This call reports the failure, and the next one may connect. If the socket has a
            // port, the program has chosen it, or bind(2) has set it since the end of the
            // connection.
            State::Closed | State::TimeWait => {
                let error = socket.take_error().unwrap_or(libc::ECONNABORTED);
                self.forget_peer(id);
                self.make_unconnected(id);
                Err(error)
            }
        }
    }

    /// connect(2) to AF_UNSPEC: removes the peer of a datagram socket, resets the connection of a
    /// TCP socket, or ends a TCP listener. Fails with EINVAL for Unix sockets of other kinds.
    fn disconnect(&mut self, id: SocketId) -> Result<()> {
        let Some(socket) = self.socket_mut(id) else { return Err(libc::EBADF) };
        match &mut socket.role {
            Role::Unix(_) if socket.kind == Kind::Datagram => self.disconnect_unix(id),
            Role::Udp(_) => self.dissociate(id),
            Role::Unconnected => socket.shut = Shut::default(),
            Role::Tcp(connection) => {
                let is_reset = matches!(connection.state, State::SynSent | State::Established);
                let error = connection.error.take();
                if connection.state == State::Closed {
                    self.forget_peer(id);
                } else {
                    self.with_connection(id, |connection, _, out| connection.abort(out));
                    self.after(id, false);
                    self.dissociate(id);
                }
                self.make_unconnected(id);
                let Some(socket) = self.socket_mut(id) else { return Err(libc::EBADF) };
                socket.error = if is_reset { Some(libc::ECONNRESET) } else { error };
                self.raise(id);
            }
            Role::Listener(listener) if socket.family != Family::Unix => {
                let queued = std::mem::take(&mut listener.queue);
                self.close_listener(id, queued);
                self.dissociate(id);
                self.make_unconnected(id);
                self.raise(id);
            }
            Role::Dead => return Err(libc::ENETDOWN),
            Role::Listener(_) | Role::Unix(_) => return Err(libc::EINVAL),
        }
        Ok(())
    }

    /// Makes a TCP socket unconnected. No direction of the socket is shut down any more.
    pub(super) fn make_unconnected(&mut self, id: SocketId) {
        if let Some(socket) = self.socket_mut(id) {
            (socket.role, socket.shut) = (Role::Unconnected, Shut::default());
        }
    }

    /// Returns a local port for a connection to `remote`. As on Linux, connections to different
    /// addresses may have the same port if the kernel has chosen it. Ports without any socket are
    /// preferred.
    fn port_to(&mut self, id: SocketId, local: SocketAddr, remote: SocketAddr) -> Result<u16> {
        let Some(host) = self.socket(id).map(|socket| socket.host) else { return Err(libc::EBADF) };
        if let Ok(port) = self.free_port(host, Protocol::Tcp) {
            return Ok(port);
        }
        let shared = self.ports.range((host, Protocol::Tcp, FIRST_PORT)..=(host, Protocol::Tcp, LAST_PORT));
        let usable = shared.map(|(key, holders)| (key.2, holders)).find(|(port, holders)| {
            let is_free = !self.connections.contains_key(&(host, SocketAddr::new(local.ip(), *port), remote));
            is_free && holders.iter().all(|&holder| self.is_chosen_by_connect(holder))
        });
        usable.map(|(port, _)| port).ok_or(libc::EADDRNOTAVAIL)
    }

    /// Returns whether connect(2) has chosen the port of a socket.
    fn is_chosen_by_connect(&self, id: SocketId) -> bool {
        let socket = self.socket(id).filter(|socket| socket.bound.is_none());
        matches!(socket.map(|socket| &socket.role), Some(Role::Tcp(connection)) if connection.is_client)
    }
}

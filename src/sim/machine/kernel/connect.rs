//! connect(2). The call does not wait: on a TCP socket, it usually fails with EINPROGRESS.
//!
//! # States of a TCP socket
//! *unconnected* → *connecting* → *connected*, with `Role::Fresh`, `Role::Tcp` and `Socket::is_connected` as in the
//! kernel's `struct socket`. A socket is *connecting* until a further connect(2) reports that the handshake has succeeded
//! or failed, or shutdown(2) succeeds. A *connected* socket stays so until connect(2) to AF_UNSPEC, even if its connection
//! ends.

use std::net::SocketAddr;

use super::calls::{Address, FIRST_PORT, LAST_PORT, Result};
use super::network::Kernel;
use super::packet::Protocol;
use super::socket::{Family, Kind, Role, SocketId};
use super::tcp::{Connection, State};

impl Kernel {
    /// connect(2).
    pub(crate) fn connect(&mut self, fd: i32, address: &Address) -> Result<()> {
        let result = self.try_connect(fd, address);
        let host = self.host_of(fd)?;
        self.note(host, "connect", fd, result.map(|()| 0));
        result
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
            Role::Fresh => {}
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
            None if kind == Kind::Datagram => self.free_port(id, host, Protocol::Udp, ip).map_err(|_| libc::EAGAIN)?,
            None => self.port_to(id, SocketAddr::new(ip, 0), remote)?,
        };
        let local = SocketAddr::new(ip, port);
        if kind == Kind::Stream && self.connections.contains_key(&(host, local, remote)) {
            return Err(libc::EADDRNOTAVAIL);
        }
        self.set_local(id, local);
        let mss = self.mss(host, local, remote);
        let (now, mut out) = (self.now, std::mem::take(&mut self.segments));
        let Some(socket) = self.socket_mut(id) else { return Err(libc::EBADF) };
        socket.remote = Some(remote);
        if kind == Kind::Datagram {
            self.segments = out;
            return Ok(());
        }
        let mut settings = socket.options.tcp.clone();
        settings.mss = settings.mss.min(mss);
        (socket.error, socket.is_connected) = (None, false);
        socket.role = Role::Tcp(Box::new(Connection::connect(settings, now, &mut out)));
        self.segments = out;
        self.connections.insert((host, local, remote), id);
        self.after(id, false);
        Err(libc::EINPROGRESS)
    }

    /// connect(2) on a socket that has a connection: reports the state of the connection.
    fn connect_again(&mut self, id: SocketId) -> Result<()> {
        let Some(socket) = self.socket_mut(id) else { return Err(libc::EBADF) };
        let Role::Tcp(connection) = &socket.role else { return Err(libc::EISCONN) };
        match connection.state {
            _ if socket.is_connected => Err(libc::EISCONN),
            State::SynSent | State::SynReceived => Err(libc::EALREADY),
            State::Established => {
                socket.is_connected = true;
                Ok(())
            }
            // This call reports the failure, and the next one may connect. As on Linux, a socket whose connection is in
            // TIME-WAIT counts as closed.
            State::Closed | State::TimeWait => {
                let is_over = connection.state == State::Closed;
                let error = socket.take_error().unwrap_or(libc::ECONNABORTED);
                // A port of a connection that is over is one that bind(2) has set since then.
                if is_over {
                    self.forget_peer(id)
                } else {
                    self.dissociate(id)
                }
                if let Some(socket) = self.socket_mut(id) {
                    socket.role = Role::Fresh;
                }
                Err(error)
            }
        }
    }

    /// connect(2) to AF_UNSPEC: removes the peer of a datagram socket, resets the connection of a TCP socket, or ends a
    /// listener. Fails with EINVAL for other Unix sockets.
    fn disconnect(&mut self, id: SocketId) -> Result<()> {
        let Some(socket) = self.socket_mut(id) else { return Err(libc::EBADF) };
        match &mut socket.role {
            Role::Unix(_) if socket.kind == Kind::Datagram => self.disconnect_unix(id),
            Role::Udp(_) => self.dissociate(id),
            Role::Fresh => {}
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
                let Some(socket) = self.socket_mut(id) else { return Err(libc::EBADF) };
                (socket.role, socket.is_connected) = (Role::Fresh, false);
                socket.error = if is_reset { Some(libc::ECONNRESET) } else { error };
                self.raise(id);
            }
            Role::Listener(listener) if socket.family != Family::Unix => {
                let queued = std::mem::take(&mut listener.queue);
                self.close_listener(id, queued);
                self.dissociate(id);
                if let Some(socket) = self.socket_mut(id) {
                    socket.role = Role::Fresh;
                }
                self.raise(id);
            }
            Role::Dead => return Err(libc::ENETDOWN),
            Role::Listener(_) | Role::Unix(_) => return Err(libc::EINVAL),
        }
        Ok(())
    }

    /// Returns a local port for a connection to `remote`. As on Linux, connections to different addresses may have the
    /// same port if the kernel has chosen it. Ports without any socket are preferred.
    fn port_to(&mut self, id: SocketId, local: SocketAddr, remote: SocketAddr) -> Result<u16> {
        let Some(host) = self.socket(id).map(|socket| socket.host) else { return Err(libc::EBADF) };
        if let Ok(port) = self.free_port(id, host, Protocol::Tcp, local.ip()) {
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

//! System calls that return or change the state of a socket: options, readiness, registrations with
//! pollers, queued bytes, and the flag O_NONBLOCK.

use super::calls::Result;
use super::network::Kernel;
use super::socket::{Family, Kind, Role, SocketId};

impl Kernel {
    /// Returns and clears the pending error of a socket, if there is one (SO_ERROR).
    #[cfg(test)]
    pub(crate) fn take_error(&mut self, fd: i32) -> Result<Option<i32>> {
        let id = self.id(fd)?;
        Ok(self.take_error_of(id))
    }

    pub(super) fn take_error_of(&mut self, id: SocketId) -> Option<i32> {
        self.socket_mut(id)?.take_error()
    }

    /// setsockopt(2).
    pub(crate) fn set_option(&mut self, fd: i32, level: i32, name: i32, bytes: &[u8]) -> Result<()> {
        let is_bound = self.port(self.id(fd)?).is_some();
        let (id, socket) = self.get_mut(fd)?;
        let is_tcp = socket.is_tcp();
        let result = match socket.family {
            Family::Unix if level != libc::SOL_SOCKET => Err(libc::EOPNOTSUPP),
            Family::V4 if level == libc::IPPROTO_IPV6 => Err(libc::ENOPROTOOPT),
            Family::V6 if (level, name) == (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY) && is_bound => Err(libc::EINVAL),
            _ => socket.options.set(level, name, bytes, is_tcp),
        };
        let (host, tcp) = (socket.host, socket.options.tcp.clone());
        if result.is_ok() && is_tcp {
            self.with_connection(id, |connection, now, out| connection.configure(tcp, now, out));
            self.after(id, false);
        }
        if (level, name) == (libc::SOL_SOCKET, libc::SO_SNDBUF) {
            // As on Linux, a larger buffer wakes writers.
            self.raise(id);
        }
        if let Err(errno) = result {
            self.log_call(host, "setsockopt", fd, Err(errno));
        }
        result
    }

    /// getsockopt(2).
    pub(crate) fn option(&mut self, fd: i32, level: i32, name: i32) -> Result<Vec<u8>> {
        let (id, socket) = self.get(fd)?;
        let is_tcp = socket.is_tcp();
        let word = |value: i32| Ok(value.to_ne_bytes().to_vec());
        if level != libc::SOL_SOCKET && socket.family == Family::Unix {
            return Err(libc::EOPNOTSUPP);
        }
        if level != libc::SOL_SOCKET {
            return match socket.family {
                Family::V4 if level == libc::IPPROTO_IPV6 => Err(libc::EOPNOTSUPP),
                Family::V6 if level == libc::IPPROTO_TCP && !is_tcp => Err(libc::ENOPROTOOPT),
                _ => socket.options.get(level, name, is_tcp),
            };
        }
        match name {
            libc::SO_ERROR => word(self.take_error_of(id).unwrap_or_default()),
            libc::SO_TYPE => word(match socket.kind {
                Kind::Stream => libc::SOCK_STREAM,
                Kind::Datagram => libc::SOCK_DGRAM,
                Kind::Packets => libc::SOCK_SEQPACKET,
            }),
            libc::SO_DOMAIN => word(match socket.family {
                Family::V4 => libc::AF_INET,
                Family::V6 => libc::AF_INET6,
                Family::Unix => libc::AF_UNIX,
            }),
            libc::SO_PROTOCOL => word(match (socket.family, socket.kind) {
                (Family::Unix, _) => 0,
                (_, Kind::Datagram) => libc::IPPROTO_UDP,
                _ => libc::IPPROTO_TCP,
            }),
            libc::SO_ACCEPTCONN => word(i32::from(matches!(socket.role, Role::Listener(_)))),
            _ => socket.options.get(level, name, is_tcp),
        }
    }

    /// Returns whether a socket of this kind may have options of this level. With another level,
    /// the call fails on Linux as well.
    pub(crate) fn has_level(&self, fd: i32, level: i32) -> Result<bool> {
        let (_, socket) = self.get(fd)?;
        Ok(match level {
            libc::IPPROTO_TCP => socket.is_tcp(),
            libc::IPPROTO_IPV6 => socket.family == Family::V6,
            _ => true,
        })
    }

    /// Returns whether the descriptor is that of a TCP socket.
    pub(crate) fn is_tcp(&self, fd: i32) -> bool {
        self.get(fd).is_ok_and(|(_, socket)| socket.is_tcp())
    }

    /// Returns the value of a stored option.
    pub(crate) fn stored_option(&self, fd: i32, level: i32, name: i32) -> Result<i32> {
        Ok(self.get(fd)?.1.options.stored(level, name))
    }

    /// Returns the number of bytes that can be read, and the number of written bytes that are not
    /// acknowledged, which is 0 except for TCP. For a datagram socket, the first number is the
    /// length of the next message.
    pub(crate) fn queued(&self, fd: i32) -> Result<(usize, usize)> {
        Ok(match &self.get(fd)?.1.role {
            Role::Tcp(connection) => (connection.readable(), connection.unacknowledged()),
            Role::Udp(datagrams) => (datagrams.queue.front().map_or(0, |datagram| datagram.data.len()), 0),
            Role::Unix(end) if self.get(fd)?.1.kind != Kind::Datagram => (end.bytes, 0),
            Role::Unix(end) => (end.queue.front().map_or(0, |message| message.data.len()), 0),
            Role::Unconnected => (0, 0),
            Role::Listener(_) | Role::Dead => return Err(libc::EINVAL),
        })
    }

    pub(crate) fn is_nonblocking(&self, fd: i32) -> Result<bool> {
        Ok(self.get(fd)?.1.is_nonblocking)
    }

    pub(crate) fn set_nonblocking(&mut self, fd: i32, nonblocking: bool) -> Result<()> {
        self.get_mut(fd)?.1.is_nonblocking = nonblocking;
        Ok(())
    }

    /// Returns the readiness that poll(2) reports, as EPOLL bits.
    pub(crate) fn poll(&mut self, fd: i32) -> Result<u32> {
        let id = self.id(fd)?;
        self.poll_socket(id).ok_or(libc::EBADF)
    }

    /// Returns the readiness of a socket for poll(2) or a poller, or `None` if there is no such
    /// socket. As on Linux, if the socket is not writable, an edge reports when it becomes
    /// writable, even if no write has failed.
    pub(super) fn poll_socket(&mut self, id: SocketId) -> Option<u32> {
        let bits = self.readiness(id)?;
        if bits & libc::EPOLLOUT as u32 == 0 {
            match self.socket_mut(id).map(|socket| &mut socket.role) {
                Some(Role::Tcp(connection)) => connection.wants_room = true,
                Some(Role::Unix(end)) => end.wants_room = true,
                _ => {}
            }
        }
        Some(bits)
    }

    pub(super) fn readiness(&self, id: SocketId) -> Option<u32> {
        let socket = self.socket(id)?;
        Some(socket.readiness(self.unix_has_room(id)))
    }

    /// Registers a descriptor with a poller, in place of an earlier registration. Each edge
    /// contains `data`. If the socket is ready, the first edge is due now.
    pub(crate) fn watch(&mut self, fd: i32, data: u64) -> Result<()> {
        let (id, socket) = self.get_mut(fd)?;
        socket.watchers.retain(|&(watched, _)| watched != fd);
        socket.watchers.push((fd, data));
        self.raise(id);
        Ok(())
    }

    pub(crate) fn is_watched(&self, fd: i32) -> bool {
        self.get(fd).is_ok_and(|(_, socket)| socket.watchers.iter().any(|&(watched, _)| watched == fd))
    }

    pub(crate) fn unwatch(&mut self, fd: i32) -> Result<()> {
        self.get_mut(fd)?.1.watchers.retain(|&(watched, _)| watched != fd);
        Ok(())
    }
}

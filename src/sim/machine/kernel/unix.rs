//! Unix sockets of the simulated kernel: pairs, streams, datagrams and sequenced packets within a host.
//!
//! Bytes are transferred immediately. The edge that reports them is queued, and the run loop delivers it later, as
//! it does every edge. Names exist in a table of the host, not in the file system.

use std::collections::VecDeque;

use super::calls::{Address, Result};
use super::data::{Received, scatter};
use super::network::Kernel;
use super::socket::{Family, HostId, Kind, Role, Socket, SocketId, UnixEnd};

/// The number of messages above which the queue of a datagram socket accepts no more (net.unix.max_dgram_qlen). As on
/// Linux, the queue may have one message more than this.
const MESSAGES_MAX: usize = 10;

impl Kernel {
    /// socketpair(2).
    pub(crate) fn pair(&mut self, host: HostId, kind: Kind, nonblocking: bool) -> Result<(i32, i32)> {
        let first = self.open(host, Family::Unix, kind, nonblocking)?;
        let second = match self.open(host, Family::Unix, kind, nonblocking) {
            Ok(second) => second,
            Err(errno) => {
                self.close(first)?;
                return Err(errno);
            }
        };
        let (one, other) = (self.id(first)?, self.id(second)?);
        self.join(one, other);
        Ok((first, second))
    }

    fn join(&mut self, one: SocketId, other: SocketId) {
        for (own, peer) in [(one, other), (other, one)] {
            if let Some(end) = self.end_mut(own) {
                end.peer = Some(peer);
            }
        }
    }

    fn end(&self, id: SocketId) -> Option<&UnixEnd> {
        match &self.socket(id)?.role {
            Role::Unix(end) => Some(end),
            _ => None,
        }
    }

    fn end_mut(&mut self, id: SocketId) -> Option<&mut UnixEnd> {
        match &mut self.socket_mut(id)?.role {
            Role::Unix(end) => Some(end),
            _ => None,
        }
    }

    pub(super) fn bind_unix(&mut self, id: SocketId, name: Vec<u8>) -> Result<()> {
        let Some(socket) = self.socket(id) else { return Err(libc::EBADF) };
        let host = socket.host;
        if !socket.name.is_empty() {
            return Err(libc::EINVAL);
        }
        let name = if name.is_empty() { format!("\0{:05x}", id.index).into_bytes() } else { name };
        if self.unix_names.contains_key(&(host, name.clone())) {
            return Err(libc::EADDRINUSE);
        }
        self.unix_names.insert((host, name.clone()), id);
        if let Some(socket) = self.socket_mut(id) {
            socket.name = name;
        }
        Ok(())
    }

    pub(super) fn connect_unix(&mut self, id: SocketId, name: &[u8]) -> Result<()> {
        let Some(socket) = self.socket(id) else { return Err(libc::EBADF) };
        let (host, kind) = (socket.host, socket.kind);
        let own_name = socket.name.clone();
        match &socket.role {
            Role::Unix(end) if kind != Kind::Datagram && (end.peer.is_some() || end.is_hung_up) => {
                return Err(libc::EISCONN);
            }
            Role::Unix(_) => {}
            _ => return Err(libc::EINVAL),
        }
        let target = self.unix_target(host, name)?;
        let Some(other) = self.socket(target) else { return Err(libc::ECONNREFUSED) };
        if other.kind != kind {
            return Err(libc::EPROTOTYPE);
        }
        if kind == Kind::Datagram {
            if let Some(socket) = self.socket_mut(id) {
                socket.peer_name = name.to_vec();
            }
            if let Some(end) = self.end_mut(id) {
                end.peer = Some(target);
            }
            return Ok(());
        }
        match &other.role {
            Role::Listener(listener) if listener.read_shut => return Err(libc::ECONNREFUSED),
            Role::Listener(listener) if listener.is_full() => return Err(libc::EAGAIN),
            Role::Listener(_) => {}
            _ => return Err(libc::ECONNREFUSED),
        }
        let mut child = self.fresh(host, Family::Unix, kind);
        (child.name, child.peer_name) = (name.to_vec(), own_name);
        let child = self.insert(child);
        self.join(id, child);
        if let Some(socket) = self.socket_mut(id) {
            socket.peer_name = name.to_vec();
        }
        if let Some(Role::Listener(listener)) = self.socket_mut(target).map(|socket| &mut socket.role) {
            listener.queue.push_back(child);
        }
        self.raise(target);
        self.raise(id);
        Ok(())
    }

    fn unix_target(&self, host: HostId, name: &[u8]) -> Result<SocketId> {
        let missing = if name.first() == Some(&0) { libc::ECONNREFUSED } else { libc::ENOENT };
        self.unix_names.get(&(host, name.to_vec())).copied().ok_or(missing)
    }

    /// Returns whether a write of one byte on the socket of `end` would not have to wait for room in the queue of the
    /// peer. Also returns true if the write would fail for another reason.
    pub(super) fn unix_has_room(&self, end: &UnixEnd) -> bool {
        let Some(peer) = end.peer.and_then(|peer| self.socket(peer)) else { return true };
        match &peer.role {
            Role::Unix(other) => other.read_shut || room(peer, other) > 0,
            _ => true,
        }
    }

    pub(super) fn receive_unix(&mut self, id: SocketId, bufs: &mut [&mut [u8]], peeks: bool) -> Result<Received> {
        let Some(socket) = self.socket_mut(id) else { return Err(libc::EBADF) };
        let kind = socket.kind;
        let has_data = matches!(&socket.role, Role::Unix(end) if !end.queue.is_empty());
        // A stream reports an error only after its data.
        if (kind != Kind::Stream || !has_data)
            && let Some(error) = socket.error.take()
        {
            return Err(error);
        }
        let peer_name = socket.peer_name.clone();
        let Role::Unix(end) = &mut socket.role else { return Err(libc::EINVAL) };
        let Some((from, data)) = end.queue.front_mut() else {
            return match () {
                // After a shutdown of a datagram socket, only a blocking receive returns 0.
                () if kind != Kind::Datagram && (end.read_shut || end.is_hung_up) => Ok(Received::stream(0)),
                () if end.peer.is_none() && kind != Kind::Datagram => Err(libc::ENOTCONN),
                () => Err(libc::EAGAIN),
            };
        };
        let (whole, from) = (data.len(), from.clone());
        let bytes = scatter(data.make_contiguous(), bufs);
        if !peeks {
            if kind == Kind::Stream {
                data.drain(..bytes);
                end.bytes -= bytes;
                if data.is_empty() {
                    end.queue.pop_front();
                }
            } else {
                end.bytes -= whole;
                end.queue.pop_front();
            }
            let writers = end.peer;
            self.wake_unix_writers(id, writers);
        }
        let from = match kind {
            Kind::Datagram => Address::Unix(from),
            _ => Address::Unix(peer_name),
        };
        Ok(Received { bytes, whole: if kind == Kind::Stream { bytes } else { whole }, from: Some(from), marks: None })
    }

    /// Raises an edge for each socket that has found the queue of `id` full, after data was taken from the queue.
    fn wake_unix_writers(&mut self, id: SocketId, peer: Option<SocketId>) {
        let Some(socket) = self.socket(id) else { return };
        let mut waiting: Vec<SocketId> = peer.into_iter().collect();
        if socket.kind == Kind::Datagram {
            // Any socket of the host may have found the queue full. Sockets that wait for another queue get an edge too.
            let host = socket.host;
            let all = self.places.iter().zip(0..).filter_map(|(place, index)| {
                let is_unix = place.socket.as_ref().is_some_and(|s| s.host == host && matches!(s.role, Role::Unix(_)));
                is_unix.then_some(SocketId { index, generation: place.generation })
            });
            waiting.extend(all);
        }
        for writer in waiting {
            if let Some(end) = self.end_mut(writer)
                && std::mem::take(&mut end.wants_room)
            {
                self.raise(writer);
            }
        }
    }

    /// Raises an edge for each datagram socket that has found the queue of its peer `id` full, after `id` was closed.
    fn wake_unix_writers_to(&mut self, id: SocketId) {
        for index in 0..self.places.len() as u32 {
            let writer = SocketId { index, generation: self.places[index as usize].generation };
            if let Some(end) = self.end_mut(writer).filter(|end| end.peer == Some(id))
                && std::mem::take(&mut end.wants_room)
            {
                self.raise(writer);
            }
        }
    }

    /// Ends the association of a datagram socket with a peer that was closed. As on Linux, this takes place when a send
    /// fails for the first time, and discards the received messages.
    fn dissociate_unix(&mut self, id: SocketId) {
        if let Some(end) = self.end_mut(id) {
            (end.peer, end.is_hung_up, end.bytes) = (None, false, 0);
            end.queue.clear();
        }
        self.wake_unix_writers(id, None);
    }

    pub(super) fn send_unix(&mut self, id: SocketId, bufs: &[&[u8]], to: Option<&Address>) -> Result<usize> {
        let Some(socket) = self.socket_mut(id) else { return Err(libc::EBADF) };
        let (host, kind, name) = (socket.host, socket.kind, socket.name.clone());
        // A write to a stream fails with EPIPE and leaves the error for the next read.
        if kind != Kind::Stream
            && let Some(error) = socket.error.take()
        {
            return Err(error);
        }
        let Role::Unix(end) = &mut socket.role else { return Err(libc::EINVAL) };
        if end.write_shut {
            return Err(libc::EPIPE);
        }
        let hung_up = end.is_hung_up;
        let peer = match to {
            Some(Address::Unix(name)) if !name.is_empty() && kind == Kind::Datagram => {
                let name = name.clone();
                self.unix_target(host, &name)?
            }
            Some(Address::Inet(_)) => return Err(libc::EINVAL),
            _ => match end.peer {
                Some(peer) => peer,
                None if hung_up && kind == Kind::Datagram => {
                    self.dissociate_unix(id);
                    return Err(libc::ECONNREFUSED);
                }
                None if hung_up => return Err(libc::EPIPE),
                None => return Err(libc::ENOTCONN),
            },
        };
        let length: usize = bufs.iter().map(|buf| buf.len()).sum();
        let Some(target) = self.socket(peer) else {
            // The peer was connected to another socket, or to none, when it was closed.
            self.dissociate_unix(id);
            return Err(libc::ECONNREFUSED);
        };
        let Role::Unix(other) = &target.role else { return Err(libc::ECONNREFUSED) };
        if other.read_shut {
            return Err(libc::EPIPE);
        }
        if kind != Kind::Stream && length > target.options.tcp.receive_buffer as usize {
            return Err(libc::EMSGSIZE);
        }
        let room = room(target, other);
        if (kind == Kind::Stream && length > 0 && room == 0) || (kind != Kind::Stream && room < length.max(1)) {
            if let Some(end) = self.end_mut(id) {
                end.wants_room = true;
            }
            return Err(libc::EAGAIN);
        }
        let most = if kind == Kind::Stream { length.min(room) } else { length };
        let most = if kind == Kind::Stream { self.faults.shortened(most, self.now) } else { most };
        let data: VecDeque<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).take(most).collect();
        if most < length
            && let Some(end) = self.end_mut(id)
        {
            end.wants_room = true;
        }
        if let Some(other) = self.end_mut(peer) {
            other.bytes += data.len();
            match other.queue.back_mut() {
                Some((_, last)) if kind == Kind::Stream => last.extend(data),
                _ if kind == Kind::Stream && data.is_empty() => {}
                _ => other.queue.push_back((name, data)),
            }
        }
        self.raise(peer);
        Ok(most)
    }

    pub(super) fn shutdown_unix(&mut self, id: SocketId, read: bool, write: bool) {
        let peer = self.end(id).and_then(|end| end.peer);
        for (own, read, write) in [(Some(id), read, write), (peer, write, read)] {
            let Some(own) = own else { continue };
            let is_stream = self.socket(own).is_some_and(|socket| socket.kind != Kind::Datagram);
            if let Some(end) = self.end_mut(own)
                && (is_stream || own == id)
            {
                end.read_shut |= read;
                end.write_shut |= write;
                self.raise(own);
            }
        }
    }

    pub(super) fn close_unix(&mut self, id: SocketId) {
        let Some(socket) = self.socket(id) else { return };
        let kind = socket.kind;
        let (peer, is_unread) = match &socket.role {
            Role::Unix(end) => (end.peer, !end.queue.is_empty()),
            _ => (None, false),
        };
        self.remove(id);
        if kind == Kind::Datagram {
            self.wake_unix_writers_to(id);
        }
        let peer = peer.filter(|&peer| self.end(peer).is_some_and(|end| end.peer == Some(id)));
        if let Some(peer) = peer {
            if let Some(end) = self.end_mut(peer) {
                (end.peer, end.is_hung_up) = (None, true);
            }
            if is_unread
                && kind != Kind::Datagram
                && let Some(socket) = self.socket_mut(peer)
            {
                socket.error = Some(libc::ECONNRESET);
            }
            self.raise(peer);
        }
    }
}

/// Returns the number of bytes that the queue of a socket accepts. Returns 0 for a datagram socket with too many
/// messages.
fn room(socket: &Socket, end: &UnixEnd) -> usize {
    let most = socket.options.tcp.receive_buffer as usize;
    match socket.kind {
        Kind::Datagram if end.queue.len() > MESSAGES_MAX => 0,
        _ => most.saturating_sub(end.bytes),
    }
}

//! Unix sockets of the simulated kernel: pairs, streams, datagrams and sequenced packets within a
//! host.
//!
//! Bytes are transferred immediately. The edge that reports them is queued, and the run loop
//! delivers it later, as it does every edge. Names exist in a table of the host, not in the file
//! system.

use std::collections::VecDeque;

use super::calls::{Address, Result};
use super::data::{Received, scatter};
use super::network::Kernel;
use super::socket::{Family, HostId, Kind, Message, Role, SocketId, UnixEnd};

/// The number of messages above which the queue of a datagram socket accepts no more
/// (net.unix.max_dgram_qlen). As on Linux, the queue may have one message more than this.
const MESSAGES_MAX: usize = 10;

/// The greatest number that the kernel chooses as the name of a socket: five hexadecimal digits.
const CHOSEN_MAX: u32 = 0xf_ffff;

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
            // An empty name asks the kernel to choose one. As on Linux, a socket that has a name
            // keeps it.
            return if name.is_empty() { Ok(()) } else { Err(libc::EINVAL) };
        }
        let kind = socket.kind;
        let is_taken = |name: &[u8]| self.unix_names.contains_key(&(host, key(name, kind)));
        let name = match name.is_empty() {
            // As on Linux, a chosen name has five digits, and a name that is taken is skipped.
            true => (0..=CHOSEN_MAX)
                .map(|step| format!("\0{:05x}", id.index.wrapping_add(step) & CHOSEN_MAX).into_bytes())
                .find(|name| !is_taken(name))
                .ok_or(libc::ENOSPC)?,
            false if is_taken(&name) => return Err(libc::EADDRINUSE),
            false => name,
        };
        self.unix_names.insert((host, key(&name, kind)), id);
        // The sockets that are connected to this one see the name, and so do receivers of its
        // messages.
        self.name_messages(id, &name);
        for peer in self.unix_ends_at(id) {
            if let Some(socket) = self.socket_mut(peer) {
                socket.peer_name.clone_from(&name);
            }
        }
        if let Some(socket) = self.socket_mut(id) {
            socket.name = name;
        }
        Ok(())
    }

    /// Sets the name of the sender in the messages from `id` that were not received yet.
    fn name_messages(&mut self, id: SocketId, name: &[u8]) {
        for socket in self.places.iter_mut().filter_map(|place| place.socket.as_mut()) {
            let Role::Unix(end) = &mut socket.role else { continue };
            for message in end.queue.iter_mut().filter(|message| message.sender == id) {
                message.from = name.to_vec();
            }
        }
    }

    /// Returns the Unix sockets that are connected to `id`.
    fn unix_ends_at(&self, id: SocketId) -> Vec<SocketId> {
        let all = self.places.iter().zip(0..);
        let connected = all.filter_map(|(place, index)| {
            let is_end = matches!(&place.socket.as_ref()?.role, Role::Unix(end) if end.peer == Some(id));
            is_end.then_some(SocketId { index, generation: place.generation })
        });
        connected.collect()
    }

    pub(super) fn connect_unix(&mut self, id: SocketId, name: &[u8]) -> Result<()> {
        if name.is_empty() {
            return Err(libc::EINVAL);
        }
        let Some(socket) = self.socket(id) else { return Err(libc::EBADF) };
        let (host, kind) = (socket.host, socket.kind);
        let own_name = socket.name.clone();
        let target = self.unix_target(host, kind, name)?;
        let Some(other) = self.socket(target) else { return Err(libc::ECONNREFUSED) };
        if kind == Kind::Datagram {
            if !self.unix_may_send(id, target) {
                return Err(libc::EPERM);
            }
            if self.end(id).is_some_and(|end| end.peer.is_some_and(|peer| peer != target) || end.is_hung_up) {
                self.disconnect_unix(id);
            }
            if let Some(socket) = self.socket_mut(id) {
                socket.peer_name = name.to_vec();
            }
            if let Some(end) = self.end_mut(id) {
                end.peer = Some(target);
            }
            return Ok(());
        }
        match &other.role {
            Role::Listener(_) if other.shut.read => return Err(libc::ECONNREFUSED),
            Role::Listener(listener) if listener.is_full() => return Err(libc::EAGAIN),
            Role::Listener(_) => {}
            _ => return Err(libc::ECONNREFUSED),
        }
        // As on Linux, the state of this socket matters only if the listener would take the
        // connection.
        match self.socket(id).map(|socket| &socket.role) {
            Some(Role::Unix(end)) if end.is_joined() => return Err(libc::EISCONN),
            Some(Role::Unix(_)) => {}
            _ => return Err(libc::EINVAL),
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

    /// Returns the socket with a name. Fails with EPROTOTYPE if the socket is not of this kind.
    fn unix_target(&self, host: HostId, kind: Kind, name: &[u8]) -> Result<SocketId> {
        let missing = if name.first() == Some(&0) { libc::ECONNREFUSED } else { libc::ENOENT };
        let target = self.unix_names.get(&(host, key(name, kind))).copied().ok_or(missing)?;
        match self.socket(target) {
            Some(socket) if socket.kind != kind => Err(libc::EPROTOTYPE),
            _ => Ok(target),
        }
    }

    /// Returns whether a datagram socket may send to another. A socket that is connected takes
    /// datagrams only from its peer, even if the peer was closed.
    fn unix_may_send(&self, id: SocketId, to: SocketId) -> bool {
        self.end(to).is_none_or(|end| !end.is_hung_up && end.peer.is_none_or(|peer| peer == id))
    }

    /// Returns whether poll(2) reports that a Unix socket is writable. As on Linux, at least three
    /// quarters of its buffer must be free, and the queue of its peer must not be full. A shutdown
    /// of the peer's reading makes no difference.
    pub(super) fn unix_has_room(&self, id: SocketId) -> bool {
        let Some(socket) = self.socket(id) else { return true };
        let Role::Unix(end) = &socket.role else { return false };
        let is_full = |peer| self.end(peer).is_some_and(|other| is_queue_full(id, socket.kind, peer, other));
        end.unread * 4 <= socket.options.tcp.send_buffer as usize && !end.peer.is_some_and(is_full)
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
        let Some(Message { sender, from, data }) = end.queue.front_mut() else {
            return match kind {
                Kind::Stream if !end.is_joined() => Err(libc::EINVAL),
                Kind::Packets if !end.is_joined() => Err(libc::ENOTCONN),
                // After a shutdown of a datagram socket, only a blocking receive returns 0.
                Kind::Stream | Kind::Packets if end.read_shut || end.is_hung_up => Ok(Received::stream(0)),
                _ => Err(libc::EAGAIN),
            };
        };
        let (sender, whole, from) = (*sender, data.len(), from.clone());
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
            self.give_back(sender, if kind == Kind::Stream { bytes } else { cost(whole) });
            self.wake_unix_writers(id, writers);
        }
        let from = if kind == Kind::Datagram { from } else { peer_name };
        let from = Some(from).filter(|name| !name.is_empty()).map(Address::Unix);
        Ok(Received { bytes, whole: if kind == Kind::Stream { bytes } else { whole }, from, ip_fields: None })
    }

    /// Frees room in the buffer of a sender whose message was received or discarded.
    fn give_back(&mut self, sender: SocketId, count: usize) {
        if let Some(end) = self.end_mut(sender) {
            end.unread = end.unread.saturating_sub(count);
        }
    }

    /// Discards the messages in the queue of a socket, and wakes the senders if it is a datagram
    /// socket.
    fn discard_messages(&mut self, id: SocketId) {
        let Some(end) = self.end_mut(id) else { return };
        end.bytes = 0;
        for message in std::mem::take(&mut end.queue) {
            self.give_back(message.sender, cost(message.data.len()));
        }
        self.wake_unix_writers(id, None);
    }

    /// Raises an edge for each socket that has found its buffer or the queue of `id` full and is
    /// writable now. Called after data was taken from the queue.
    fn wake_unix_writers(&mut self, id: SocketId, peer: Option<SocketId>) {
        let Some(socket) = self.socket(id) else { return };
        let mut waiting: Vec<SocketId> = peer.into_iter().collect();
        if socket.kind == Kind::Datagram {
            // Any socket of the host may have found the queue full. A socket that waits for another
            // queue gets an edge too, if poll(2) reports it as writable.
            let host = socket.host;
            let all = self.places.iter().zip(0..).filter_map(|(place, index)| {
                let is_unix = place.socket.as_ref().is_some_and(|s| s.host == host && matches!(s.role, Role::Unix(_)));
                is_unix.then_some(SocketId { index, generation: place.generation })
            });
            waiting.extend(all);
        }
        for writer in waiting {
            if self.end(writer).is_some_and(|end| end.wants_room)
                && self.unix_has_room(writer)
                && let Some(end) = self.end_mut(writer)
            {
                end.wants_room = false;
                self.raise(writer);
            }
        }
    }

    /// Raises an edge for each datagram socket that has found the queue of its peer `id` full,
    /// after `id` was closed.
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

    /// Ends the association of a datagram socket with its peer, if it has one. As on Linux, this
    /// discards the messages in the socket's queue. If there were any, a peer that is connected to
    /// this socket gets an error. If the peer was closed, the association ends when a send first
    /// fails.
    pub(super) fn disconnect_unix(&mut self, id: SocketId) {
        let Some(socket) = self.socket_mut(id) else { return };
        let Role::Unix(end) = &mut socket.role else { return };
        if !end.is_joined() {
            return;
        }
        let (peer, had_messages) = (end.peer.take(), !end.queue.is_empty());
        end.is_hung_up = false;
        socket.peer_name.clear();
        self.discard_messages(id);
        let peer = peer.filter(|&peer| had_messages && self.end(peer).is_some_and(|end| end.peer == Some(id)));
        if let Some(peer) = peer {
            if let Some(socket) = self.socket_mut(peer) {
                socket.error = Some(libc::ECONNRESET);
            }
            self.raise(peer);
        }
    }

    pub(super) fn send_unix(&mut self, id: SocketId, bufs: &[&[u8]], to: Option<&Address>) -> Result<usize> {
        let Some(socket) = self.socket_mut(id) else { return Err(libc::EBADF) };
        let (host, kind, name) = (socket.host, socket.kind, socket.name.clone());
        let is_nameless = |to: &Address| !matches!(to, Address::Unix(name) if !name.is_empty());
        if kind == Kind::Datagram && to.is_some_and(is_nameless) {
            return Err(libc::EINVAL);
        }
        // If a stream has an error, a write fails with EPIPE and leaves the error for the next
        // read.
        if kind == Kind::Packets
            && let Some(error) = socket.error.take()
        {
            return Err(error);
        }
        let most = socket.options.tcp.send_buffer as usize;
        let Role::Unix(end) = &mut socket.role else { return Err(libc::EINVAL) };
        let (hung_up, is_joined, is_shut) = (end.is_hung_up, end.is_joined(), end.write_shut);
        let (to, own_peer) = (to.filter(|_| kind != Kind::Packets), end.peer);
        match kind {
            Kind::Stream if to.is_some() => return Err(if is_joined { libc::EISCONN } else { libc::EOPNOTSUPP }),
            Kind::Stream | Kind::Packets if !is_joined => return Err(libc::ENOTCONN),
            _ => {}
        }
        let length: usize = bufs.iter().map(|buf| buf.len()).sum();
        // Linux adds 32 bytes to the length of a message.
        if kind != Kind::Stream && length + 32 > most {
            return Err(libc::EMSGSIZE);
        }
        if kind == Kind::Datagram
            && let Some(error) = socket.error.take()
        {
            return Err(error);
        }
        if is_shut {
            return Err(libc::EPIPE);
        }
        let free = most.saturating_sub(end.unread);
        // As on Linux, a full buffer is reported before an error of the destination.
        if kind != Kind::Stream && free == 0 {
            end.wants_room = true;
            return Err(libc::EAGAIN);
        }
        let peer = match to {
            Some(Address::Unix(name)) => self.unix_target(host, kind, name)?,
            Some(_) => return Err(libc::EINVAL),
            None => match own_peer {
                Some(peer) => peer,
                None if hung_up && kind == Kind::Datagram => {
                    self.disconnect_unix(id);
                    return Err(libc::ECONNREFUSED);
                }
                None if is_joined => return Err(libc::EPIPE),
                None => return Err(libc::ENOTCONN),
            },
        };
        let Some(target) = self.socket(peer) else {
            // The peer was connected to another socket, or to none, when it was closed.
            self.disconnect_unix(id);
            return Err(libc::ECONNREFUSED);
        };
        let Role::Unix(other) = &target.role else { return Err(libc::ECONNREFUSED) };
        if !self.unix_may_send(id, peer) {
            return Err(libc::EPERM);
        }
        if other.read_shut {
            return Err(libc::EPIPE);
        }
        let is_full = if kind == Kind::Stream { free == 0 && length > 0 } else { is_queue_full(id, kind, peer, other) };
        if is_full {
            if let Some(end) = self.end_mut(id) {
                end.wants_room = true;
            }
            return Err(libc::EAGAIN);
        }
        // As on Linux, a message may be longer than the free part of the buffer.
        let most = if kind == Kind::Stream { self.faults.shortened(length.min(free), self.now) } else { length };
        let data: VecDeque<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).take(most).collect();
        if most < length
            && let Some(end) = self.end_mut(id)
        {
            end.wants_room = true;
        }
        if let Some(other) = self.end_mut(peer) {
            other.bytes += data.len();
            let used = if kind == Kind::Stream { data.len() } else { cost(data.len()) };
            match other.queue.back_mut() {
                Some(last) if kind == Kind::Stream => last.data.extend(data),
                _ if kind == Kind::Stream && data.is_empty() => {}
                _ => other.queue.push_back(Message { sender: id, from: name, data }),
            }
            if let Some(end) = self.end_mut(id) {
                end.unread += used;
            }
        }
        self.raise(peer);
        Ok(most)
    }

    pub(super) fn shutdown_unix(&mut self, id: SocketId, read: bool, write: bool) {
        let peer = self.end(id).and_then(|end| end.peer);
        let is_datagram = self.socket(id).is_some_and(|socket| socket.kind == Kind::Datagram);
        let peer = peer.filter(|_| !is_datagram);
        for (own, read, write) in [(Some(id), read, write), (peer, write, read)] {
            let Some(own) = own else { continue };
            if let Some(end) = self.end_mut(own) {
                end.read_shut |= read;
                end.write_shut |= write;
                self.raise(own);
            }
        }
    }

    /// Closes a Unix socket. As on Linux, the peer of a connection gets ECONNRESET if this socket
    /// had unread data, or if `resets` is true, which means that the listener has not accepted the
    /// connection.
    pub(super) fn close_unix(&mut self, id: SocketId, resets: bool) {
        let Some(socket) = self.socket(id) else { return };
        let kind = socket.kind;
        let (peer, is_unread) = match &socket.role {
            // As on recent versions of Linux, an empty message at the front does not count.
            Role::Unix(end) => (end.peer, end.queue.len() > 1 || end.bytes > 0),
            _ => (None, false),
        };
        self.discard_messages(id);
        self.remove(id);
        if kind == Kind::Datagram {
            self.wake_unix_writers_to(id);
        }
        let peer = peer.filter(|&peer| self.end(peer).is_some_and(|end| end.peer == Some(id)));
        if let Some(peer) = peer {
            if let Some(end) = self.end_mut(peer) {
                (end.peer, end.is_hung_up) = (None, true);
            }
            if (is_unread || resets)
                && kind != Kind::Datagram
                && let Some(socket) = self.socket_mut(peer)
            {
                socket.error = Some(libc::ECONNRESET);
            }
            self.raise(peer);
        }
    }
}

/// Returns the key of a name in `Kernel::unix_names`. As on Linux, the kinds of sockets have
/// separate abstract names.
pub(super) fn key(name: &[u8], kind: Kind) -> Vec<u8> {
    let mut key = name.to_vec();
    if name.first() == Some(&0) {
        key.push(kind as u8);
    }
    key
}

/// Returns the room that a message takes in the sender's buffer. An empty message takes room as
/// well, so the number of empty messages is limited.
fn cost(length: usize) -> usize {
    length.max(1)
}

/// Returns whether the queue of a datagram socket has too many messages for the sender `id`. If the
/// socket is connected to the sender, only the sender's buffer limits the queue, as on Linux.
fn is_queue_full(id: SocketId, kind: Kind, peer: SocketId, other: &UnixEnd) -> bool {
    kind == Kind::Datagram && peer != id && other.peer != Some(id) && other.queue.len() > MESSAGES_MAX
}

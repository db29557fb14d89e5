//! The path of a packet over a link to its socket, and the answers that it causes.

use std::net::SocketAddr;

use super::link::{Dropped, Link, LinkConfig, Sent};
use super::log::Fate;
use super::network::{Event, Kernel};
use super::packet::{Body, IpFields, Packet, Protocol, Segment, Unreachable};
use super::socket::{self, Datagram, HostId, Role, Socket, SocketId};
use super::tcp::{Connection, NEVER, State};

impl Kernel {
    /// Sends a packet from `host`, unless the host is down.
    pub(super) fn output(&mut self, host: HostId, packet: Packet) {
        if !self.hosts[host as usize].is_up {
            return;
        }
        match self.host_at(host, packet.dst) {
            Some(to) => self.send_on(host, to, packet),
            None => {
                self.log.packet(self.now, host, &packet, Fate::Sent);
                self.refuse(host, &packet);
            }
        }
    }

    /// Reports to the sender of a packet, as a router does, that no host has the destination
    /// address.
    pub(super) fn refuse(&mut self, host: HostId, packet: &Packet) {
        let protocol = match packet.body {
            Body::Tcp(_) => Protocol::Tcp,
            Body::Udp(..) => Protocol::Udp,
            Body::Unreachable(..) => return,
        };
        let body = Body::Unreachable(protocol, Unreachable::Host);
        let answer = Packet { src: packet.dst, dst: packet.src, body };
        let mut link = Link::new(LinkConfig { loss: 0.0, ..self.default_link.clone() });
        if let Sent::Arrives(at, _) = link.send(self.now, answer.len(), &mut self.random, &mut |_| false) {
            self.schedule(at, Event::Arrive { from: host, to: host, packet: Box::new(answer) });
        }
    }

    pub(super) fn send_on(&mut self, from: HostId, to: HostId, packet: Packet) {
        let (now, length) = (self.now, packet.len());
        let config = if from == to { LinkConfig::loopback() } else { self.default_link.clone() };
        let link = self.links.entry((from, to)).or_insert_with(|| Link::new(config));
        let is_too_long = matches!(packet.body, Body::Tcp(_)) && length > link.config.mtu;
        let sent = match is_too_long {
            true => Sent::Dropped(Dropped::Size),
            false => link.send(now, length, &mut self.random, &mut |what| {
                let (from, to) = (&self.hosts[from as usize].name, &self.hosts[to as usize].name);
                self.faults.happens(now, &format_args!("{what}, from {from} to {to}: {packet}"))
            }),
        };
        match sent {
            Sent::Dropped(why) => {
                self.log.packet(now, from, &packet, Fate::Sent);
                self.log.packet(now, from, &packet, Fate::Dropped(why));
            }
            Sent::Held => {
                self.log.packet(now, from, &packet, Fate::Held);
                if let Some(held) = &mut self.link_mut(from, to).held {
                    held.push(packet);
                }
            }
            Sent::Arrives(at, twin) => {
                self.log.packet(now, from, &packet, Fate::Sent);
                if let Some(twin) = twin {
                    let packet = Box::new(packet.clone());
                    self.schedule(twin, Event::Arrive { from, to, packet });
                }
                self.schedule(at, Event::Arrive { from, to, packet: Box::new(packet) });
            }
        }
    }

    pub(super) fn arrive(&mut self, from: HostId, to: HostId, packet: Packet) {
        let is_partitioned = self.links.get(&(from, to)).is_some_and(|link| link.is_partitioned);
        let dropped = match self.hosts[to as usize].is_up {
            false => Some(Dropped::Down),
            true => is_partitioned.then_some(Dropped::Partition),
        };
        if let Some(why) = dropped {
            return self.log.packet(self.now, to, &packet, Fate::Dropped(why));
        }
        self.log.packet(self.now, to, &packet, Fate::Arrived);
        let Packet { src, dst, body } = packet;
        match body {
            Body::Tcp(segment) => self.arrive_tcp(to, src, dst, &segment),
            Body::Udp(data, ip_fields) => self.arrive_udp(to, src, dst, data, ip_fields),
            Body::Unreachable(Protocol::Tcp, why) => self.arrive_unreachable_tcp(to, src, dst, why),
            Body::Unreachable(Protocol::Udp, why) => self.arrive_unreachable_udp(to, src, dst, why),
        }
    }

    pub(super) fn arrive_tcp(&mut self, host: HostId, src: SocketAddr, dst: SocketAddr, segment: &Segment) {
        let opens = segment.syn && segment.ack.is_none();
        // A SYN is late if its connection was established before, or began before one that was.
        // This includes retransmissions. Linux answers such a SYN, but because initial sequence
        // numbers are random there, the peer resets the resulting connection before a program can
        // accept it.
        let is_late = opens && self.accepted.get(&(host, dst, src)).is_some_and(|&number| segment.connection <= number);
        if let Some(&id) = self.connections.get(&(host, dst, src)) {
            let is_new = opens && !is_late;
            let is_over = |socket: &Socket| matches!(&socket.role, Role::Tcp(c) if c.state == State::TimeWait);
            if !(is_new && self.socket(id).is_some_and(is_over)) {
                let changed = self.with_connection(id, |connection, now, out| connection.input(now, segment, out));
                return self.after(id, changed.unwrap_or_default());
            }
            // The new connection replaces the connection in TIME-WAIT.
            self.with_connection(id, |connection, _, out| connection.abort(out));
            self.segments.clear();
            self.after(id, true);
        }
        if is_late {
            return;
        }
        match self.listener(host, dst) {
            Some(listener) if segment.syn && segment.ack.is_none() && !segment.rst => {
                self.arrive_syn(listener, src, dst, segment);
            }
            _ if segment.rst => {}
            _ => {
                let reset = Segment {
                    seq: segment.ack.unwrap_or_default(),
                    ack: Some(segment.end()),
                    syn: false,
                    fin: false,
                    rst: true,
                    window: 0,
                    data: Box::default(),
                    connection: segment.connection,
                };
                self.output(host, Packet { src: dst, dst: src, body: Body::Tcp(reset) });
            }
        }
    }

    /// Returns the listener for an address: a listener bound to the address or, if there is none,
    /// to the wildcard address. If there are several (SO_REUSEPORT), chooses one at random. Returns
    /// `None` if no listener matches.
    pub(super) fn listener(&mut self, host: HostId, dst: SocketAddr) -> Option<SocketId> {
        let listeners = self.listeners.get(&(host, dst.port()))?;
        let socket = |id: &SocketId| self.socket(*id);
        let is_exact = |id: &&SocketId| socket(id).and_then(|socket| socket.local).is_some_and(|a| a.ip() == dst.ip());
        let takes = |id: &&SocketId| socket(id).is_some_and(|socket| socket.takes(dst.ip()));
        let exact: Vec<_> = listeners.iter().filter(is_exact).copied().collect();
        let of = if exact.is_empty() { listeners.iter().filter(takes).copied().collect() } else { exact };
        match of.len() {
            0 => None,
            1 => of.first().copied(),
            count => of.get(self.random.below(count as u64) as usize).copied(),
        }
    }

    pub(super) fn arrive_syn(&mut self, listener: SocketId, src: SocketAddr, dst: SocketAddr, syn: &Segment) {
        let now = self.now;
        let Some(socket) = self.socket(listener) else { return };
        let (host, family, options, shut) = (socket.host, socket.family, socket.options.clone(), socket.shut);
        let had_bound_ip = socket.had_bound_ip;
        match &socket.role {
            Role::Listener(state) if !state.is_full() => {}
            // As on Linux, the SYN is ignored, and the client retransmits it.
            _ => return self.log.text(now, host, "backlog full: SYN ignored"),
        }
        let mut child = self.fresh(host, family, socket::Kind::Stream);
        (child.local, child.remote, child.parent) = (Some(dst), Some(src), Some(listener));
        (child.options, child.had_connection) = (options, true);
        // As on Linux, a connection keeps the IP address to which its listener was bound, but not
        // the port.
        child.had_bound_ip = had_bound_ip;
        child.bound = had_bound_ip.then(|| SocketAddr::new(dst.ip(), 0));
        let mut settings = child.options.tcp.clone();
        settings.mss = settings.mss.min(self.mss(host, dst, src));
        let mut out = std::mem::take(&mut self.segments);
        let mut connection = Connection::accept(settings, now, syn, &mut out);
        (connection.read_shut, connection.write_shut) = (shut.read, shut.write);
        child.role = Role::Tcp(Box::new(connection));
        self.segments = out;
        let id = self.insert(child);
        self.link_port(id, host, Protocol::Tcp, dst.port());
        self.connections.insert((host, dst, src), id);
        if let Some(Role::Listener(state)) = self.socket_mut(listener).map(|socket| &mut socket.role) {
            state.half_open += 1;
        }
        self.after(id, false);
    }

    /// Returns the maximum segment size between two addresses, which the smaller MTU of both
    /// directions determines.
    pub(super) fn mss(&mut self, host: HostId, local: SocketAddr, remote: SocketAddr) -> u64 {
        let header = if local.is_ipv4() { 40 } else { 60 };
        let Some(to) = self.host_at(host, remote) else { return 1460 };
        let mtu = self.link_mut(host, to).config.mtu.min(self.link_mut(to, host).config.mtu);
        mtu.saturating_sub(header).max(1)
    }

    /// Calls `call` with a connection and returns its result, or `None` if `id` is not a
    /// connection. The caller then calls [`after`](Kernel::after), which sends the connection's
    /// segments.
    pub(super) fn with_connection<T>(
        &mut self,
        id: SocketId,
        call: impl FnOnce(&mut Connection, u64, &mut Vec<Segment>) -> T,
    ) -> Option<T> {
        let now = self.now;
        let mut out = std::mem::take(&mut self.segments);
        let result = match self.socket_mut(id).map(|socket| &mut socket.role) {
            Some(Role::Tcp(connection)) => Some(call(connection, now, &mut out)),
            _ => None,
        };
        self.segments = out;
        result
    }

    /// Handles the effects of any action on a connection: sends its segments, sets its timer, and
    /// processes the end of the handshake and of the connection. With `changed`, also raises an
    /// edge.
    pub(super) fn after(&mut self, id: SocketId, changed: bool) {
        let Some(socket) = self.socket(id) else { return };
        let (host, parent) = (socket.host, socket.parent);
        if let (Some(src), Some(dst)) = (socket.local, socket.remote) {
            let mut out = std::mem::take(&mut self.segments);
            for segment in out.drain(..) {
                self.output(host, Packet { src, dst, body: Body::Tcp(segment) });
            }
            self.segments = out;
        }
        if changed {
            self.raise(id);
        }
        self.separate_time_wait(id);
        let Some(socket) = self.socket_mut(id) else { return };
        let Role::Tcp(connection) = &socket.role else { return };
        let (state, deadline, is_orphan) = (connection.state, connection.deadline(), connection.is_orphan);
        let key = socket.local.zip(socket.remote).map(|(local, remote)| (host, local, remote));
        if deadline < socket.timer_at {
            socket.timer_at = deadline;
            self.schedule(deadline, Event::Timer(id));
        }
        if let Some(parent) = parent
            && state != State::SynReceived
        {
            self.handshake_is_over(id, parent, state);
        }
        if state == State::Closed {
            // A connection that had ended before is not in the table. Its socket may have been
            // bound since then.
            if key.is_some_and(|key| self.connections.get(&key) == Some(&id)) {
                self.unlink_ended(id);
            }
            let was_half_open = parent.is_some() && self.socket(id).is_some_and(|socket| socket.parent.is_some());
            if is_orphan || was_half_open {
                self.remove(id);
            }
        }
    }

    /// Moves a connection that has entered TIME-WAIT to a socket without a descriptor. As on Linux,
    /// the connection is over for the program's socket, which loses a port that the program has not
    /// chosen, and neither unread data nor SO_LINGER ends TIME-WAIT.
    fn separate_time_wait(&mut self, id: SocketId) {
        let Some(socket) = self.socket_mut(id) else { return };
        let (host, family, options) = (socket.host, socket.family, socket.options.clone());
        let (Some(local), Some(remote)) = (socket.local, socket.remote) else { return };
        let Role::Tcp(connection) = &mut socket.role else { return };
        if connection.state != State::TimeWait || connection.is_orphan {
            return;
        }
        let of_socket = Box::new(connection.leave_socket());
        let left = std::mem::replace(connection, of_socket);
        let timer_at = left.deadline();
        let mut rest = self.fresh(host, family, socket::Kind::Stream);
        (rest.local, rest.remote, rest.options) = (Some(local), Some(remote), options);
        (rest.role, rest.timer_at) = (Role::Tcp(left), timer_at);
        self.unlink_ended(id);
        let rest = self.insert(rest);
        self.link_port(rest, host, Protocol::Tcp, local.port());
        self.connections.insert((host, local, remote), rest);
        self.schedule(timer_at, Event::Timer(rest));
    }

    pub(super) fn handshake_is_over(&mut self, id: SocketId, parent: SocketId, state: State) {
        let is_established = state != State::Closed;
        if let Some(Role::Listener(listener)) = self.socket_mut(parent).map(|socket| &mut socket.role) {
            listener.half_open -= 1;
            if is_established {
                listener.queue.push_back(id);
                self.raise(parent);
            }
        }
        if is_established && let Some(socket) = self.socket_mut(id) {
            socket.parent = None;
            let (host, local, remote) = (socket.host, socket.local, socket.remote);
            if let (Role::Tcp(connection), Some(local), Some(remote)) = (&socket.role, local, remote) {
                let number = connection.number;
                self.accepted.insert((host, local, remote), number);
                self.forget_accepted();
            }
        }
    }

    pub(super) fn timer(&mut self, id: SocketId) {
        let now = self.now;
        let Some(socket) = self.socket_mut(id) else { return };
        if socket.timer_at > now {
            // The event belongs to an earlier setting of the timer, and that setting no longer
            // applies.
            return;
        }
        socket.timer_at = NEVER;
        let Role::Tcp(connection) = &socket.role else { return };
        let is_due = connection.deadline() <= now;
        let changed = is_due.then(|| self.with_connection(id, |connection, now, out| connection.timeout(now, out)));
        self.after(id, changed.flatten().unwrap_or_default());
    }

    pub(super) fn arrive_unreachable_tcp(&mut self, host: HostId, src: SocketAddr, dst: SocketAddr, why: Unreachable) {
        let Some(&id) = self.connections.get(&(host, dst, src)) else { return };
        let failed = self.with_connection(id, |connection, _, _| {
            let is_fatal = matches!(connection.state, State::SynSent | State::SynReceived);
            if is_fatal {
                connection.fail(why.errno());
            }
            is_fatal
        });
        self.after(id, failed.unwrap_or_default());
    }

    pub(super) fn arrive_udp(
        &mut self,
        host: HostId,
        src: SocketAddr,
        dst: SocketAddr,
        data: Box<[u8]>,
        ip_fields: IpFields,
    ) {
        let Some(id) = self.udp_receiver(host, src, dst) else {
            let body = Body::Unreachable(Protocol::Udp, Unreachable::Port);
            return self.output(host, Packet { src: dst, dst: src, body });
        };
        let now = self.now;
        let Some(socket) = self.socket_mut(id) else { return };
        let most = socket.options.tcp.receive_buffer as usize;
        let Role::Udp(datagrams) = &mut socket.role else { return };
        // As on Linux, each datagram also needs room for its metadata, and an empty queue takes any
        // datagram.
        if datagrams.bytes + data.len() + 512 > most && !datagrams.queue.is_empty() {
            return self.log.text(now, host, "receive buffer full: datagram dropped");
        }
        datagrams.bytes += data.len() + 512;
        datagrams.queue.push_back(Datagram { from: src, to: dst.ip(), ip_fields, data });
        self.raise(id);
    }

    /// Returns the socket for a datagram, or `None` if there is none. A socket with the address of
    /// the datagram precedes one that is bound to the wildcard address. Among these, a socket that
    /// is connected to the sender precedes one that is not connected.
    pub(super) fn udp_receiver(&self, host: HostId, src: SocketAddr, dst: SocketAddr) -> Option<SocketId> {
        let sockets = self.ports.get(&(host, Protocol::Udp, dst.port()))?;
        let score = |id: &SocketId| {
            let socket = self.socket(*id)?;
            // As on Linux, a socket that is connected to port 0 takes datagrams from any port.
            let has_port = socket.remote.is_some_and(|remote| remote.port() != 0);
            let differs = |remote: SocketAddr| remote.ip() != src.ip() || (has_port && remote.port() != src.port());
            let is_other = socket.remote.is_some_and(differs);
            if is_other || !socket.takes(dst.ip()) {
                return None;
            }
            let is_exact = socket.local.is_some_and(|local| local.ip() == dst.ip());
            // As on Linux, an IPv4 socket precedes an IPv6 socket that takes the same datagrams.
            let is_v4 = socket.family == socket::Family::V4;
            Some((is_exact, has_port, socket.remote.is_some(), is_v4))
        };
        let best = sockets.iter().filter_map(score).max()?;
        let of: Vec<_> = sockets.iter().filter(|id| score(id) == Some(best)).copied().collect();
        let socket = |id: &SocketId| self.socket(*id);
        let last = *of.iter().max_by_key(|id| socket(id).map(|socket| socket.bound_order))?;
        if !self.socket(last)?.options.reuse_port {
            // As with SO_REUSEADDR on Linux, the socket that was bound last takes all datagrams.
            return Some(last);
        }
        // As with SO_REUSEPORT on Linux, all datagrams of one sender go to one socket while the
        // sockets stay the same.
        let group: Vec<_> =
            of.into_iter().filter(|id| socket(id).is_some_and(|socket| socket.options.reuse_port)).collect();
        group.get(usize::from(src.port()) % group.len()).copied()
    }

    /// Reports an undelivered datagram to the connected socket that has sent it. Ignores a message
    /// that a host is unreachable. Linux reports such a message only to a socket with IP_RECVERR,
    /// which is not simulated.
    pub(super) fn arrive_unreachable_udp(&mut self, host: HostId, src: SocketAddr, dst: SocketAddr, why: Unreachable) {
        let Some(id) = self.udp_receiver(host, src, dst).filter(|_| why == Unreachable::Port) else { return };
        if let Some(socket) = self.socket_mut(id).filter(|socket| socket.remote.is_some()) {
            socket.error = Some(why.errno());
            self.raise(id);
        }
    }
}

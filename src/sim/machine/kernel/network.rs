//! `Kernel`: hosts, links, the table of sockets, events, and the way of a packet.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::faults::Faults;
use super::link::{Dropped, Link, LinkConfig, Sent};
use super::log::{Fate, Log};
use super::options;
use super::packet::{Body, Packet, Protocol, Segment, Unreachable};
use super::random::Random;
use super::socket;
use super::socket::{Datagrams, HostId, Role, Socket, SocketId};
use super::tcp::{Connection, NEVER, State};

/// The first number of simulated descriptors. The kernel's numbers stay below `fs.nr_open`, which
/// is below 2³⁰.
pub(crate) const FD_BASE: i32 = 1 << 30;

/// A host.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) addrs: Vec<IpAddr>,
    pub(crate) is_up: bool,
    pub(super) next_port: u16,
    /// How far the host's wall clock is ahead, in nanoseconds.
    pub(crate) clock_offset: i64,
}

#[derive(Debug)]
pub(super) enum Event {
    Arrive {
        from: HostId,
        to: HostId,
        packet: Box<Packet>,
    },
    Timer(SocketId),
    /// A late or repeated edge.
    Edge(SocketId),
}

#[derive(Debug)]
pub(super) struct Scheduled {
    at: u64,
    sequence: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Scheduled) -> bool {
        (self.at, self.sequence) == (other.at, other.sequence)
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Scheduled) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Scheduled) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) generation: u32,
    pub(super) socket: Option<Box<Socket>>,
}

/// See the [module documentation](super).
#[derive(Debug)]
pub(crate) struct Kernel {
    /// Nanoseconds since the simulation began.
    pub(crate) now: u64,
    pub(super) random: Random,
    pub(super) events: BinaryHeap<Reverse<Scheduled>>,
    pub(super) sequence: u64,
    pub(crate) hosts: Vec<Host>,
    pub(super) by_addr: BTreeMap<IpAddr, HostId>,
    pub(super) links: BTreeMap<(HostId, HostId), Link>,
    pub(crate) default_link: LinkConfig,
    pub(super) places: Vec<Place>,
    pub(super) free: Vec<u32>,
    pub(super) descriptors: Vec<Option<SocketId>>,
    pub(super) free_descriptors: BinaryHeap<Reverse<u32>>,
    /// Connections by host, local and remote address.
    pub(super) connections: BTreeMap<(HostId, SocketAddr, SocketAddr), SocketId>,
    /// All sockets that are bound to a port.
    pub(super) ports: BTreeMap<(HostId, Protocol, u16), BTreeSet<SocketId>>,
    pub(super) listeners: BTreeMap<(HostId, u16), Vec<SocketId>>,
    pub(super) unix_names: BTreeMap<(HostId, Vec<u8>), SocketId>,
    pub(super) edged: Vec<SocketId>,
    /// Segments that a connection is sending. Empty between calls.
    pub(super) segments: Vec<Segment>,
    pub(crate) faults: Faults,
    pub(crate) log: Log,
}

impl Kernel {
    pub(crate) fn new(seed: u64) -> Kernel {
        Kernel {
            now: 0,
            random: Random::new(seed, 1),
            events: BinaryHeap::new(),
            sequence: 0,
            hosts: Vec::new(),
            by_addr: BTreeMap::new(),
            links: BTreeMap::new(),
            default_link: LinkConfig::new(),
            places: Vec::new(),
            free: Vec::new(),
            descriptors: Vec::new(),
            free_descriptors: BinaryHeap::new(),
            connections: BTreeMap::new(),
            ports: BTreeMap::new(),
            listeners: BTreeMap::new(),
            unix_names: BTreeMap::new(),
            edged: Vec::new(),
            segments: Vec::new(),
            faults: Faults::new(seed),
            log: Log::new(),
        }
    }

    // ---- hosts and links ----

    /// Adds a host with an IPv4 and an IPv6 address.
    pub(crate) fn add_host(&mut self, name: &str) -> HostId {
        let id = self.hosts.len() as HostId;
        let [high, low] = (id + 1).to_be_bytes();
        let addrs =
            [IpAddr::V4(Ipv4Addr::new(10, 0, high, low)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, id + 1))];
        self.by_addr.extend(addrs.map(|addr| (addr, id)));
        let next_port = 32_768 + self.random.below(28_000) as u16;
        let host = Host { name: name.to_owned(), addrs: addrs.to_vec(), is_up: true, next_port, clock_offset: 0 };
        self.hosts.push(host);
        id
    }

    pub(crate) fn host_named(&self, name: &str) -> Option<HostId> {
        let name = name.strip_suffix('.').unwrap_or(name);
        self.hosts.iter().position(|host| host.name.eq_ignore_ascii_case(name)).map(|at| at as HostId)
    }

    /// Replaces the addresses of a host. Returns false if another host has one of them.
    pub(crate) fn set_addrs(&mut self, host: HostId, addrs: &[IpAddr]) -> bool {
        if addrs.iter().any(|addr| self.by_addr.get(addr).is_some_and(|&of| of != host)) {
            return false;
        }
        self.by_addr.retain(|_, of| *of != host);
        self.by_addr.extend(addrs.iter().map(|&addr| (addr, host)));
        self.hosts[host as usize].addrs = addrs.to_vec();
        true
    }

    /// Returns the link from one host to another.
    pub(crate) fn link_mut(&mut self, from: HostId, to: HostId) -> &mut Link {
        let config = if from == to { LinkConfig::loopback() } else { self.default_link.clone() };
        self.links.entry((from, to)).or_insert_with(|| Link::new(config))
    }

    /// Releases the packets that were held, in order.
    pub(crate) fn release(&mut self, from: HostId, to: HostId) {
        let held = self.link_mut(from, to).held.take().unwrap_or_default();
        held.into_iter().for_each(|packet| self.send_on(from, to, packet));
    }

    /// Takes the host down. Nothing more is sent, its sockets are dead, and packets to it are lost.
    pub(crate) fn crash(&mut self, host: HostId) {
        self.hosts[host as usize].is_up = false;
        self.connections.retain(|key, _| key.0 != host);
        self.ports.retain(|key, _| key.0 != host);
        self.listeners.retain(|key, _| key.0 != host);
        self.unix_names.retain(|key, _| key.0 != host);
        for index in 0..self.places.len() as u32 {
            let place = &mut self.places[index as usize];
            let generation = place.generation;
            let Some(socket) = place.socket.as_mut().filter(|socket| socket.host == host) else { continue };
            let is_open = socket.descriptors > 0;
            (socket.role, socket.timer_at, socket.parent) = (Role::Dead, NEVER, None);
            let id = SocketId { index, generation };
            if is_open { self.raise(id) } else { self.remove(id) }
        }
        self.log.text(self.now, host, "crash");
    }

    pub(crate) fn restart(&mut self, host: HostId) {
        self.hosts[host as usize].is_up = true;
        self.log.text(self.now, host, "restart");
    }

    // ---- events ----

    pub(super) fn schedule(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse(Scheduled { at, sequence: self.sequence, event }));
    }

    /// Returns the time of the next event.
    pub(crate) fn next_event(&self) -> Option<u64> {
        self.events.peek().map(|Reverse(scheduled)| scheduled.at)
    }

    /// Processes the next event if it is due.
    pub(crate) fn step(&mut self) -> bool {
        if self.next_event().is_none_or(|at| at > self.now) {
            return false;
        }
        let Some(Reverse(Scheduled { event, .. })) = self.events.pop() else { return false };
        match event {
            Event::Arrive { from, to, packet } => self.arrive(from, to, *packet),
            Event::Timer(id) => self.timer(id),
            Event::Edge(id) => self.raise(id),
        }
        true
    }

    /// Marks a socket so that its readiness is reported to its pollers.
    pub(super) fn raise(&mut self, id: SocketId) {
        let Some(socket) = self.socket_mut(id) else { return };
        if !socket.is_edged && !socket.watchers.is_empty() {
            socket.is_edged = true;
            self.edged.push(id);
        }
    }

    /// Returns whether there are edges to take.
    pub(crate) fn has_edges(&self) -> bool {
        !self.edged.is_empty()
    }

    /// Takes the edges since the last call: the poller's data and the readiness of the socket. Some
    /// are delayed, and some are repeated.
    pub(crate) fn take_edges(&mut self, edges: &mut Vec<(u64, u32)>) {
        for id in std::mem::take(&mut self.edged) {
            let Some(bits) = self.readiness(id) else { continue };
            let Some(socket) = self.socket_mut(id) else { continue };
            socket.is_edged = false;
            let delay = self.faults.edge(self.now);
            if let Some(delay) = delay.late {
                self.schedule(self.now + delay, Event::Edge(id));
                continue;
            }
            if let Some(delay) = delay.again {
                self.schedule(self.now + delay, Event::Edge(id));
            }
            if bits != 0
                && let Some(socket) = self.socket(id)
            {
                edges.extend(socket.watchers.iter().map(|&(_, data)| (data, bits)));
            }
        }
    }

    // ---- the table of sockets ----

    pub(super) fn insert(&mut self, socket: Socket) -> SocketId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            self.places.len() as u32 - 1
        });
        let place = &mut self.places[index as usize];
        place.socket = Some(Box::new(socket));
        SocketId { index, generation: place.generation }
    }

    pub(super) fn socket(&self, id: SocketId) -> Option<&Socket> {
        let place = self.places.get(id.index as usize).filter(|place| place.generation == id.generation)?;
        place.socket.as_deref()
    }

    pub(super) fn socket_mut(&mut self, id: SocketId) -> Option<&mut Socket> {
        let place = self.places.get_mut(id.index as usize).filter(|place| place.generation == id.generation)?;
        place.socket.as_deref_mut()
    }

    /// Removes a socket from all tables.
    pub(super) fn remove(&mut self, id: SocketId) {
        self.unlink(id);
        let place = &mut self.places[id.index as usize];
        if place.generation == id.generation && place.socket.take().is_some() {
            place.generation += 1;
            self.free.push(id.index);
        }
    }

    /// Removes a socket's addresses from the tables used to find the socket of a packet.
    pub(super) fn unlink(&mut self, id: SocketId) {
        let Some(socket) = self.socket(id) else { return };
        let (host, local, remote) = (socket.host, socket.local, socket.remote);
        let name = (host, socket.name.clone());
        let protocol = if matches!(socket.role, Role::Udp(_)) { Protocol::Udp } else { Protocol::Tcp };
        if self.unix_names.get(&name) == Some(&id) {
            self.unix_names.remove(&name);
        }
        let Some(local) = local else { return };
        if let Some(remote) = remote
            && self.connections.get(&(host, local, remote)) == Some(&id)
        {
            self.connections.remove(&(host, local, remote));
        }
        let key = (host, protocol, local.port());
        if let Some(sockets) = self.ports.get_mut(&key) {
            sockets.remove(&id);
            if sockets.is_empty() {
                self.ports.remove(&key);
            }
        }
        if let Some(listeners) = self.listeners.get_mut(&(host, local.port())) {
            listeners.retain(|&listener| listener != id);
            if listeners.is_empty() {
                self.listeners.remove(&(host, local.port()));
            }
        }
    }

    pub(super) fn link_port(&mut self, id: SocketId, host: HostId, protocol: Protocol, port: u16) {
        self.ports.entry((host, protocol, port)).or_default().insert(id);
    }

    // ---- the way of a packet ----

    pub(super) fn is_loopback(ip: IpAddr) -> bool {
        ip.is_loopback()
    }

    /// Sends a packet from `host`.
    pub(super) fn output(&mut self, host: HostId, packet: Packet) {
        if !self.hosts[host as usize].is_up {
            return;
        }
        let ip = packet.dst.ip();
        let to = if Kernel::is_loopback(ip) { Some(host) } else { self.by_addr.get(&ip).copied() };
        match to {
            Some(to) => self.send_on(host, to, packet),
            None => {
                self.log.packet(self.now, host, &packet, Fate::Sent);
                self.refuse(host, &packet);
            }
        }
    }

    /// No host has the address: a router reports that.
    pub(super) fn refuse(&mut self, host: HostId, packet: &Packet) {
        let protocol = match packet.body {
            Body::Tcp(_) => Protocol::Tcp,
            Body::Udp(_) => Protocol::Udp,
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
            false => link.send(now, length, &mut self.random, &mut |what| self.faults.happens(now, what)),
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
            Body::Udp(data) => self.arrive_udp(to, src, dst, data),
            Body::Unreachable(Protocol::Tcp, why) => self.arrive_unreachable_tcp(to, src, dst, why),
            Body::Unreachable(Protocol::Udp, why) => self.arrive_unreachable_udp(to, src, dst, why),
        }
    }

    pub(super) fn arrive_tcp(&mut self, host: HostId, src: SocketAddr, dst: SocketAddr, segment: &Segment) {
        if let Some(&id) = self.connections.get(&(host, dst, src)) {
            let is_new = segment.syn && segment.ack.is_none();
            let is_over = |socket: &Socket| matches!(&socket.role, Role::Tcp(c) if c.state == State::TimeWait);
            if !(is_new && self.socket(id).is_some_and(is_over)) {
                let changed = self.with_connection(id, |connection, now, out| connection.input(now, segment, out));
                return self.after(id, changed.unwrap_or_default());
            }
            // A new connection replaces one in TIME-WAIT.
            self.with_connection(id, |connection, _, out| connection.abort(out));
            self.segments.clear();
            self.after(id, true);
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
                };
                self.output(host, Packet { src: dst, dst: src, body: Body::Tcp(reset) });
            }
        }
    }

    /// Finds the listener for an address: one bound to the address, or else to the wildcard. If
    /// there are several (SO_REUSEPORT), one is chosen at random.
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
        let (host, family, options) = (socket.host, socket.family, socket.options.clone());
        match &socket.role {
            Role::Listener(state) if !state.is_full() => {}
            // As on Linux, the client tries again.
            _ => return self.log.text(now, host, "backlog full: SYN ignored"),
        }
        let mut child = self.fresh(host, family, socket::Kind::Stream);
        (child.local, child.remote, child.parent) = (Some(dst), Some(src), Some(listener));
        child.options = options;
        let mut settings = child.options.tcp.clone();
        settings.mss = settings.mss.min(self.mss(host, dst, src));
        let mut out = std::mem::take(&mut self.segments);
        child.role = Role::Tcp(Box::new(Connection::accept(settings, now, syn, &mut out)));
        self.segments = out;
        let id = self.insert(child);
        self.link_port(id, host, Protocol::Tcp, dst.port());
        self.connections.insert((host, dst, src), id);
        if let Some(Role::Listener(state)) = self.socket_mut(listener).map(|socket| &mut socket.role) {
            state.half_open += 1;
        }
        self.after(id, false);
    }

    /// Returns the largest segment between two addresses.
    pub(super) fn mss(&mut self, host: HostId, local: SocketAddr, remote: SocketAddr) -> u64 {
        let header = if local.is_ipv4() { 40 } else { 60 };
        let to = if Kernel::is_loopback(remote.ip()) { Some(host) } else { self.by_addr.get(&remote.ip()).copied() };
        let Some(to) = to else { return 1460 };
        let mtu = self.link_mut(host, to).config.mtu.min(self.link_mut(to, host).config.mtu);
        mtu.saturating_sub(header).max(1)
    }

    /// Calls a connection, whose segments [`after`](Kernel::after) then sends.
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

    /// Follows up on any action on a connection: sends its segments, sets its timer, and handles
    /// the end of the handshake and of the connection.
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
        let Some(socket) = self.socket_mut(id) else { return };
        let Role::Tcp(connection) = &socket.role else { return };
        let (state, deadline, is_orphan) = (connection.state, connection.deadline(), connection.is_orphan);
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
            self.unlink(id);
            let is_unreachable = is_orphan || (parent.is_some() && self.socket(id).is_some_and(|s| s.parent.is_some()));
            if is_unreachable {
                self.remove(id);
            }
        }
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
        }
    }

    pub(super) fn timer(&mut self, id: SocketId) {
        let now = self.now;
        let Some(socket) = self.socket_mut(id) else { return };
        if socket.timer_at > now {
            // The event of an earlier timer setting, which no longer applies.
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

    pub(super) fn arrive_udp(&mut self, host: HostId, src: SocketAddr, dst: SocketAddr, data: Box<[u8]>) {
        let Some(id) = self.udp_receiver(host, src, dst) else {
            let body = Body::Unreachable(Protocol::Udp, Unreachable::Port);
            return self.output(host, Packet { src: dst, dst: src, body });
        };
        let now = self.now;
        let Some(socket) = self.socket_mut(id) else { return };
        let most = socket.options.tcp.receive_buffer as usize;
        let Role::Udp(datagrams) = &mut socket.role else { return };
        // As on Linux, each datagram also needs room for its metadata.
        if datagrams.bytes + data.len() + 512 > most {
            return self.log.text(now, host, "receive buffer full: datagram dropped");
        }
        datagrams.bytes += data.len() + 512;
        datagrams.queue.push_back((Some(src), data));
        self.raise(id);
    }

    /// Finds the socket for a datagram: one connected to the sender, else one bound to the address,
    /// else one bound to the wildcard.
    pub(super) fn udp_receiver(&self, host: HostId, src: SocketAddr, dst: SocketAddr) -> Option<SocketId> {
        let sockets = self.ports.get(&(host, Protocol::Udp, dst.port()))?;
        let score = |id: &SocketId| {
            let socket = self.socket(*id)?;
            let is_other = socket.remote.is_some_and(|remote| remote != src);
            if is_other || !socket.takes(dst.ip()) {
                return None;
            }
            let is_exact = socket.local.is_some_and(|local| local.ip() == dst.ip());
            Some((socket.remote.is_some(), is_exact))
        };
        let best = sockets.iter().filter_map(score).max()?;
        let of: Vec<_> = sockets.iter().filter(|id| score(id) == Some(best)).copied().collect();
        // As with SO_REUSEPORT on Linux, all datagrams of one sender go to one socket.
        of.get(usize::from(src.port()) % of.len()).copied()
    }

    pub(super) fn arrive_unreachable_udp(&mut self, host: HostId, src: SocketAddr, dst: SocketAddr, why: Unreachable) {
        let Some(sockets) = self.ports.get(&(host, Protocol::Udp, dst.port())) else { return };
        let concerned = |id: &&SocketId| self.socket(**id).is_some_and(|socket| socket.remote == Some(src));
        let Some(&id) = sockets.iter().find(concerned) else { return };
        if let Some(socket) = self.socket_mut(id) {
            socket.error = Some(why.errno());
            self.raise(id);
        }
    }

    pub(super) fn fresh(&self, host: HostId, family: socket::Family, kind: socket::Kind) -> Socket {
        let role = match (family, kind) {
            (socket::Family::Unix, _) => Role::Unix(socket::UnixEnd::default()),
            (_, socket::Kind::Datagram) => Role::Udp(Datagrams::default()),
            _ => Role::Fresh,
        };
        Socket {
            host,
            family,
            kind,
            descriptors: 0,
            local: None,
            remote: None,
            name: Vec::new(),
            peer_name: Vec::new(),
            options: options::Options::new(),
            error: None,
            is_nonblocking: false,
            role,
            parent: None,
            watchers: Vec::new(),
            is_edged: false,
            timer_at: NEVER,
        }
    }
}

//! `Kernel`: hosts, links, the table of sockets, and events.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::faults::{EdgeFaults, Faults};
use super::link::{Link, LinkConfig};
use super::log::Log;
use super::options;
use super::packet::{Body, Packet, Protocol, Segment};
use super::random::Random;
use super::socket;
use super::socket::{Datagrams, HostId, Role, Socket, SocketId};
use super::tcp::NEVER;
use super::unix;

/// The number from which descriptors count as simulated. Real descriptors are below `fs.nr_open`,
/// which is 2²⁰ by default. systemd raises it to slightly less than 2³⁰.
pub(crate) const FD_BASE: i32 = 1 << 30;

/// The maximum number of descriptors that a simulation may have open.
pub(crate) const DESCRIPTORS_MAX: i32 = 100_000;

/// The initial and smallest value of `Kernel::accepted_most`.
const ACCEPTED_MOST: usize = 1000;

/// A host.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) addrs: Vec<IpAddr>,
    pub(crate) is_up: bool,
    pub(super) next_port: u16,
    /// The time by which the host's wall clock is ahead of the simulation's, in nanoseconds;
    /// negative if it is behind.
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
    /// The edge after an injected fault of a call.
    Edge(SocketId),
    /// A late or repeated edge, which is not delayed or repeated again.
    SecondEdge(SocketId),
}

#[derive(Debug)]
pub(super) struct Scheduled {
    pub(super) at: u64,
    sequence: u64,
    pub(super) event: Event,
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

/// An entry of the table of sockets.
#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) generation: u32,
    pub(super) socket: Option<Box<Socket>>,
}

/// The simulated kernel: hosts, links, sockets and pending events.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// The virtual time since the simulation began, in nanoseconds.
    pub(crate) now: u64,
    pub(super) random: Random,
    pub(super) events: BinaryHeap<Reverse<Scheduled>>,
    pub(super) sequence: u64,
    /// The time of a pending event that was not upkeep in the last search, or 0; see `upkeep`.
    pub(super) counts_until: u64,
    pub(crate) hosts: Vec<Host>,
    pub(super) by_addr: BTreeMap<IpAddr, HostId>,
    pub(super) links: BTreeMap<(HostId, HostId), Link>,
    pub(crate) default_link: LinkConfig,
    pub(super) places: Vec<Place>,
    pub(super) free: Vec<u32>,
    /// The lowest descriptor number of this simulation.
    pub(crate) first_descriptor: i32,
    pub(super) descriptors: Vec<Option<SocketId>>,
    /// A descriptor on which a call was made although it does not belong to this simulation.
    pub(crate) stranger: Cell<Option<i32>>,
    pub(super) free_descriptors: BinaryHeap<Reverse<u32>>,
    /// The descriptors with the flag FD_CLOEXEC, by index in `descriptors`.
    pub(super) closed_on_exec: BTreeSet<u32>,
    /// The numbers that are still in use although their descriptors are closed, by index in
    /// `descriptors`.
    pub(super) kept_numbers: BTreeSet<u32>,
    /// Connections by host, local and remote address.
    pub(super) connections: BTreeMap<(HostId, SocketAddr, SocketAddr), SocketId>,
    /// The number of connections that were begun.
    pub(super) begun: u64,
    /// The number of the last connection that a listener has established, by host, local and remote
    /// address. An entry is needed only as long as a SYN of that connection, or of an earlier one
    /// between the same addresses, may arrive.
    pub(super) accepted: BTreeMap<(HostId, SocketAddr, SocketAddr), u64>,
    /// The number of entries of `accepted` at which the entries that are not needed are removed.
    pub(super) accepted_most: usize,
    /// The sockets that are bound to each port, including accepted connections.
    pub(super) ports: BTreeMap<(HostId, Protocol, u16), BTreeSet<SocketId>>,
    /// The number of times that a local address was set.
    pub(super) bindings: u64,
    pub(super) listeners: BTreeMap<(HostId, u16), Vec<SocketId>>,
    /// The Unix sockets that have names, by host and [`unix::key`].
    pub(super) unix_names: BTreeMap<(HostId, Vec<u8>), SocketId>,
    /// The sockets whose readiness the next [`take_edges`](Kernel::take_edges) reports.
    pub(super) edged: Vec<SocketId>,
    /// A buffer for the segments that a connection sends. It is empty between calls of the kernel.
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
            counts_until: 0,
            hosts: Vec::new(),
            by_addr: BTreeMap::new(),
            links: BTreeMap::new(),
            default_link: LinkConfig::new(),
            places: Vec::new(),
            free: Vec::new(),
            first_descriptor: FD_BASE,
            descriptors: Vec::new(),
            stranger: Cell::new(None),
            free_descriptors: BinaryHeap::new(),
            closed_on_exec: BTreeSet::new(),
            kept_numbers: BTreeSet::new(),
            connections: BTreeMap::new(),
            begun: 0,
            accepted: BTreeMap::new(),
            accepted_most: ACCEPTED_MOST,
            ports: BTreeMap::new(),
            bindings: 0,
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
        // The numbers of hosts begin with 0, and those in the addresses of hosts with 1.
        let id = HostId::try_from(self.hosts.len()).ok().filter(|&id| id < HostId::MAX);
        let id = id.expect("a simulation has at most 65,535 hosts");
        // `set_addrs` may have given one of these addresses to another host.
        let of_number = |number: u16| {
            let [high, low] = number.to_be_bytes();
            let v6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number);
            [IpAddr::V4(Ipv4Addr::new(10, 0, high, low)), IpAddr::V6(v6)]
        };
        let is_free = |addrs: &[IpAddr; 2]| !addrs.iter().any(|addr| self.by_addr.contains_key(addr));
        let addrs = (id + 1..=u16::MAX).map(of_number).find(is_free).expect("a free address");
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

    /// Returns the name of the host that has the address `ip`.
    pub(crate) fn name_of(&self, ip: IpAddr) -> Option<&str> {
        self.by_addr.get(&ip).map(|&host| &*self.hosts[usize::from(host)].name)
    }

    /// Replaces the addresses of a host. Returns false and changes nothing if another host has one
    /// of them.
    pub(crate) fn set_addrs(&mut self, host: HostId, addrs: &[IpAddr]) -> bool {
        if addrs.iter().any(|addr| self.by_addr.get(addr).is_some_and(|&of| of != host)) {
            return false;
        }
        self.by_addr.retain(|_, of| *of != host);
        self.by_addr.extend(addrs.iter().map(|&addr| (addr, host)));
        self.hosts[host as usize].addrs = addrs.to_vec();
        true
    }

    /// Returns the destination host of a packet from `host` to `addr`, if there is one.
    pub(super) fn host_at(&self, host: HostId, addr: SocketAddr) -> Option<HostId> {
        if addr.ip().is_loopback() { Some(host) } else { self.by_addr.get(&addr.ip()).copied() }
    }

    /// Returns the link from one host to another, and creates it if needed.
    pub(crate) fn link_mut(&mut self, from: HostId, to: HostId) -> &mut Link {
        let config = if from == to { LinkConfig::loopback() } else { self.default_link.clone() };
        self.links.entry((from, to)).or_insert_with(|| Link::new(config))
    }

    /// Sends the packets that a link holds back, in order, and holds no further packets.
    pub(crate) fn release(&mut self, from: HostId, to: HostId) {
        let held = self.link_mut(from, to).held.take().unwrap_or_default();
        held.into_iter().for_each(|packet| self.send_on(from, to, packet));
    }

    /// Takes the host down: its sockets are dead, and until [`restart`](Kernel::restart) it sends
    /// nothing and packets to it are lost.
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

    /// Returns the time of the next event, or `None` if no event is pending.
    pub(crate) fn next_event(&self) -> Option<u64> {
        self.events.peek().map(|Reverse(scheduled)| scheduled.at)
    }

    /// Processes the next event if it is due, and returns whether it was.
    pub(crate) fn step(&mut self) -> bool {
        if self.next_event().is_none_or(|at| at > self.now) {
            return false;
        }
        let Some(Reverse(Scheduled { event, .. })) = self.events.pop() else { return false };
        match event {
            Event::Arrive { from, to, packet } => self.arrive(from, to, *packet),
            Event::Timer(id) => self.timer(id),
            Event::Edge(id) => self.raise(id),
            Event::SecondEdge(id) => {
                self.raise(id);
                if let Some(socket) = self.socket_mut(id) {
                    socket.is_second_edge = socket.is_edged;
                }
            }
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

    /// Appends to `edges` the edges that have become due since the last call, each as the poller's
    /// data and the readiness of the socket. Injected faults may delay or repeat an edge.
    pub(crate) fn take_edges(&mut self, edges: &mut Vec<(u64, u32)>) {
        for id in std::mem::take(&mut self.edged) {
            let Some(bits) = self.poll_socket(id) else { continue };
            let Some(socket) = self.socket_mut(id) else { continue };
            socket.is_edged = false;
            let is_second = std::mem::take(&mut socket.is_second_edge);
            if bits == 0 || socket.watchers.is_empty() {
                continue;
            }
            let faults = if is_second { EdgeFaults { late: None, again: None } } else { self.faults.edge(self.now) };
            if let Some(delay) = faults.late {
                self.schedule(self.now + delay, Event::SecondEdge(id));
                continue;
            }
            if let Some(delay) = faults.again {
                self.schedule(self.now + delay, Event::SecondEdge(id));
            }
            if let Some(socket) = self.socket(id) {
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

    /// Removes a socket from the tables in which sockets are found by their addresses, ports and
    /// names.
    pub(super) fn unlink(&mut self, id: SocketId) {
        let Some(socket) = self.socket(id) else { return };
        let (host, local, remote) = (socket.host, socket.local, socket.remote);
        let name = (host, unix::key(&socket.name, socket.kind));
        let protocol = Protocol::of(socket.kind);
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

    /// Removes from the tables a socket whose connection has ended, or that no longer listens. As
    /// on Linux, the socket keeps a port that the program has chosen.
    pub(super) fn unlink_ended(&mut self, id: SocketId) {
        let Some(socket) = self.socket(id) else { return };
        let (host, protocol) = (socket.host, Protocol::of(socket.kind));
        let chosen = socket.bound.map_or(0, |bound| bound.port());
        let kept = self.port(id).filter(|_| chosen != 0);
        self.unlink(id);
        if let Some(port) = kept {
            self.link_port(id, host, protocol, port);
        }
    }

    /// Ends the association of a socket with a peer. The addresses are again those of bind(2).
    /// Without a port that the program has chosen, a stream socket still shows its last port, as on
    /// Linux.
    pub(super) fn dissociate(&mut self, id: SocketId) {
        self.unlink_ended(id);
        self.forget_peer(id);
    }

    /// Removes the peer of a socket that is not in the table of connections, as
    /// [`dissociate`](Kernel::dissociate) does. The socket keeps the port that it holds.
    pub(super) fn forget_peer(&mut self, id: SocketId) {
        let Some(socket) = self.socket_mut(id) else { return };
        let mut bound = socket.bound.unwrap_or(SocketAddr::new(socket.wildcard(), 0));
        if let Some(local) = socket.local.filter(|_| socket.had_bound_ip) {
            // As on Linux, a bind(2) to an IP address also applies after later ones to the wildcard
            // address.
            bound.set_ip(local.ip());
        }
        let last = socket.local.filter(|_| socket.kind == socket::Kind::Stream).map_or(bound.port(), |at| at.port());
        (socket.local, socket.remote) = (Some(SocketAddr::new(bound.ip(), last)), None);
    }

    /// Returns the port that a socket holds, or `None` if it has none yet or has lost it.
    pub(super) fn port(&self, id: SocketId) -> Option<u16> {
        let socket = self.socket(id)?;
        let port = socket.local?.port();
        let holders = self.ports.get(&(socket.host, Protocol::of(socket.kind), port))?;
        holders.contains(&id).then_some(port)
    }

    /// If `accepted` has many entries, removes those that are not needed: entries without a
    /// connection at either end and without a SYN on the way.
    pub(super) fn forget_accepted(&mut self) {
        if self.accepted.len() < self.accepted_most {
            return;
        }
        let arriving = self.events.iter().filter_map(|Reverse(scheduled)| match &scheduled.event {
            Event::Arrive { packet, .. } => Some(&**packet),
            _ => None,
        });
        let held = self.links.values().filter_map(|link| link.held.as_ref()).flatten();
        let is_syn = |packet: &&Packet| matches!(&packet.body, Body::Tcp(segment) if segment.syn);
        let on_the_way = arriving.chain(held).filter(is_syn).map(|packet| (packet.src, packet.dst));
        // The client is the first of the two addresses.
        let needed: BTreeSet<_> = on_the_way.chain(self.connections.keys().map(|key| (key.1, key.2))).collect();
        let (accepted, connections) = (&mut self.accepted, &self.connections);
        accepted.retain(|key, _| needed.contains(&(key.2, key.1)) || connections.contains_key(key));
        self.accepted_most = (2 * accepted.len()).max(ACCEPTED_MOST);
    }

    pub(super) fn link_port(&mut self, id: SocketId, host: HostId, protocol: Protocol, port: u16) {
        self.ports.entry((host, protocol, port)).or_default().insert(id);
    }

    /// Returns a new socket, which is in no table and has no descriptor.
    pub(super) fn fresh(&self, host: HostId, family: socket::Family, kind: socket::Kind) -> Socket {
        let role = match (family, kind) {
            (socket::Family::Unix, _) => Role::Unix(socket::UnixEnd::default()),
            (_, socket::Kind::Datagram) => Role::Udp(Datagrams::default()),
            _ => Role::Unconnected,
        };
        Socket {
            host,
            family,
            kind,
            descriptors: 0,
            local: None,
            bound: None,
            had_bound_ip: false,
            bound_order: 0,
            stage: socket::Stage::Connecting,
            had_connection: false,
            was_listener: false,
            remote: None,
            name: Vec::new(),
            peer_name: Vec::new(),
            options: options::Options::new(),
            error: None,
            is_nonblocking: false,
            role,
            shut: socket::Shut::default(),
            parent: None,
            watchers: Vec::new(),
            is_edged: false,
            is_second_edge: false,
            timer_at: NEVER,
        }
    }
}

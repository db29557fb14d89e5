//! Sockets in a snapshot: state from the poll cache, addresses and TCP state from the kernel.
//!
//! # Addresses
//! Asking for the two addresses of a socket takes two system calls, which is most of the cost of a
//! snapshot. The addresses of a connected or listening TCP socket do not change, so they are kept
//! with the generation of its slot, and a later snapshot asks only for those of new sockets. The
//! kept addresses take 72 bytes per slot, from the first snapshot on.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use socket2::SockAddr;

use super::{ListenerLimits, SocketAddress, SocketId, SocketInfo, SocketState, TcpDetails};
use crate::rt::poll::labels::{self, Label};
use crate::rt::poll::poll_desc::{Description, Direction, PollDesc};
use crate::rt::poll::usage::{self, Usage};
use crate::rt::runtime::runtime;
use crate::rt::time::clock;
use crate::rt::time::ticks::Scale;
use crate::rt::unsent;
use crate::sys::{option, socket};

/// The addresses of a TCP socket of which an earlier snapshot has asked.
#[derive(Clone, Copy, Debug)]
struct Known {
    generation: u32,
    local: SocketAddr,
    /// None for a listener.
    peer: Option<SocketAddr>,
}

/// The known addresses by slot. A snapshot that finds it locked by another one does without.
static KNOWN: Mutex<Vec<Option<Known>>> = Mutex::new(Vec::new());

/// The TCP states in which one side has ended its sending side.
const HALF_CLOSED: [&str; 3] = ["CLOSE_WAIT", "FIN_WAIT1", "FIN_WAIT2"];

/// The kind of a socket, its addresses and whether it listens.
#[derive(Debug)]
struct Identity {
    kind: &'static str,
    local: Option<SocketAddress>,
    peer: Option<SocketAddress>,
    state: SocketState,
}

/// Reads the sockets of one snapshot.
pub(super) struct Reader<'a> {
    addresses: bool,
    tcp: bool,
    now: u64,
    scale: &'a Scale,
    known: Option<MutexGuard<'static, Vec<Option<Known>>>>,
    gathered: HashMap<(u32, u32), usize>,
}

impl<'a> Reader<'a> {
    /// Creates a reader that asks the kernel for addresses, and for details of TCP connections, as
    /// the two settings say.
    pub(super) fn new(addresses: bool, tcp: bool, now: u64, scale: &'a Scale) -> Reader<'a> {
        let gathered = unsent::amounts().into_iter().map(|amount| ((amount.index, amount.generation), amount.bytes));
        Reader { addresses, tcp, now, scale, gathered: gathered.collect(), known: KNOWN.try_lock().ok() }
    }

    /// Returns all open sockets, ordered by descriptor number, and the places of sockets by slot:
    /// the position plus one, or 0 for a slot without a socket.
    pub(super) fn read(mut self) -> (Vec<SocketInfo>, Vec<usize>) {
        let all = runtime().cache.iter().filter_map(|desc| Some((desc.described()?, desc)));
        let mut all: Vec<(Description, &'static PollDesc)> = all.collect();
        all.sort_unstable_by_key(|(description, _)| description.number);
        let mut sockets = Vec::with_capacity(all.len());
        let mut places = vec![0; all.iter().map(|(_, desc)| desc.index as usize + 1).max().unwrap_or(0)];
        for (description, desc) in all {
            if let Some(info) = self.socket(description, desc) {
                sockets.push(info);
                places[desc.index as usize] = sockets.len();
            }
        }
        (sockets, places)
    }

    /// Returns the TCP listeners, with their TCP_INFO.
    pub(super) fn listeners(mut self) -> Vec<SocketInfo> {
        let mut listeners = Vec::new();
        for desc in runtime().cache.iter() {
            let Some(description) = desc.described().filter(|description| description.is_tcp) else { continue };
            self.tcp = false;
            if self.socket(description, desc).is_some_and(|socket| socket.state == SocketState::Listening) {
                self.tcp = true;
                listeners.extend(self.socket(description, desc));
            }
        }
        listeners
    }

    fn socket(&mut self, description: Description, desc: &'static PollDesc) -> Option<SocketInfo> {
        let number = description.number as i32;
        // SAFETY: the number is open while the generation is current. If the socket is closed
        // meanwhile and the number is reused, these calls only read state, and the result is
        // discarded below.
        #[allow(unsafe_code)]
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        let known = self.known(description.generation, desc);
        let is_new = known.is_none();
        let identity = match known {
            Some(known) => known,
            None if self.addresses => identify(fd, description.is_tcp),
            None => Identity {
                kind: if description.is_tcp { "tcp" } else { "socket" },
                local: None,
                peer: None,
                state: SocketState::Unknown,
            },
        };
        let is_tcp = identity.kind == "tcp";
        let tcp = if self.tcp && is_tcp { option::tcp_state(fd).ok().map(|state| details(&state)) } else { None };
        let [read, write] = desc.sides();
        let deadline = |direction| match desc.deadline(direction) {
            clock::NONE => None,
            clock::EXPIRED => Some(Duration::ZERO),
            at => Some(Duration::from_nanos(at.saturating_sub(self.now))),
        };
        let is_half_closed = tcp.as_ref().is_some_and(|tcp| HALF_CLOSED.contains(&tcp.state));
        let state = match identity.state {
            _ if read.is_closing() => SocketState::Closing,
            SocketState::Listening => SocketState::Listening,
            SocketState::Unconnected if is_tcp && write.waiting() > 0 => SocketState::Connecting,
            _ if is_half_closed => SocketState::HalfClosed,
            _ if read.is_hung_up() => SocketState::HungUp,
            state => state,
        };
        let usage = if description.is_tcp { None } else { usage::get(desc.index).map(Usage::read) };
        let (bytes, last_use) = match (usage, &tcp) {
            (Some((bytes, used)), _) => (Some(bytes), Some(self.scale.since(used))),
            (None, Some(tcp)) if identity.state != SocketState::Listening => {
                let last_use = tcp.last_sent.min(tcp.last_received).min(self.scale.since(description.opened));
                (Some([tcp.bytes_received, tcp.bytes_sent]), Some(last_use))
            }
            _ => (None, None),
        };
        let operations = match &tcp {
            _ if !is_tcp || identity.state == SocketState::Listening => Some(desc.operations()),
            Some(tcp) => Some([tcp.segments_received, tcp.segments_sent]),
            None => None,
        };
        let (errors, errno) = desc.failures();
        let (mut host, mut limits) = (None, None);
        match labels::get(desc.index, description.generation) {
            Some(Label::Host(name)) => host = Some(name),
            Some(Label::Limits(of)) => {
                limits = of.upgrade().map(|of| ListenerLimits {
                    connections: of.connections(),
                    max_connections: of.most(),
                    refused: of.refused(),
                });
            }
            None => {}
        }
        let info = SocketInfo {
            id: SocketId { index: desc.index, generation: description.generation },
            fd: number,
            kind: identity.kind,
            local: identity.local,
            peer: identity.peer,
            host,
            state,
            age: self.scale.since(description.opened),
            readers: read.waiting(),
            writers: write.waiting(),
            waiting: Vec::new(),
            read_deadline: deadline(Direction::Read),
            write_deadline: deadline(Direction::Write),
            reads: operations.map(|operations| operations[0]),
            writes: operations.map(|operations| operations[1]),
            bytes_received: bytes.map(|bytes| bytes[0]),
            bytes_sent: bytes.map(|bytes| bytes[1]),
            last_use,
            gathered: self.gathered.get(&(desc.index, description.generation)).copied().unwrap_or(0),
            errors,
            last_errno: (errno != 0).then_some(i32::from(errno)),
            limits,
            tcp,
        };
        // Checked last: if it is current, the number belonged to this socket throughout.
        if !desc.is_current(description.generation) {
            return None;
        }
        if is_new && is_tcp {
            self.remember(&info, identity.state);
        }
        Some(info)
    }

    fn known(&self, generation: u32, desc: &PollDesc) -> Option<Identity> {
        let known = (*self.known.as_ref()?.get(desc.index as usize)?)?;
        (known.generation == generation).then(|| Identity {
            kind: "tcp",
            local: Some(SocketAddress::Ip(known.local)),
            peer: known.peer.map(SocketAddress::Ip),
            state: if known.peer.is_some() { SocketState::Open } else { SocketState::Listening },
        })
    }

    /// Keeps the addresses of a TCP socket that is connected or listens.
    fn remember(&mut self, info: &SocketInfo, state: SocketState) {
        let Some(SocketAddress::Ip(local)) = info.local else { return };
        let peer = match (&info.peer, state) {
            (Some(SocketAddress::Ip(peer)), _) => Some(*peer),
            (None, SocketState::Listening) => None,
            _ => return,
        };
        let (Some(known), place) = (&mut self.known, info.id.index as usize) else { return };
        if known.len() <= place {
            known.resize(place + 1, None);
        }
        known[place] = Some(Known { generation: info.id.generation, local, peer });
    }
}

/// Asks the kernel for a socket's kind and addresses.
fn identify(fd: BorrowedFd<'_>, is_tcp: bool) -> Identity {
    let local = socket::local_addr_any(fd).ok();
    let peer = local.as_ref().and_then(|_| socket::peer_addr_any(fd).ok());
    let kind = match &local {
        None => "fd",
        Some(_) if is_tcp => "tcp",
        Some(local) => socket_kind(fd, local),
    };
    let listens = || option::is_on(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN).unwrap_or(false);
    let state = match () {
        () if peer.is_some() => SocketState::Open,
        () if local.is_some() && listens() => SocketState::Listening,
        () => SocketState::Unconnected,
    };
    Identity { kind, local: local.as_ref().and_then(address), peer: peer.as_ref().and_then(address), state }
}

fn socket_kind(fd: BorrowedFd<'_>, local: &SockAddr) -> &'static str {
    let ty = option::get::<libc::c_int>(fd, libc::SOL_SOCKET, libc::SO_TYPE).unwrap_or(0);
    let is_unix = i32::from(local.family()) == libc::AF_UNIX;
    match ty {
        libc::SOCK_STREAM if is_unix => "unix",
        libc::SOCK_DGRAM if is_unix => "unixgram",
        libc::SOCK_SEQPACKET => "unixpacket",
        libc::SOCK_STREAM => "tcp",
        libc::SOCK_DGRAM => "udp",
        _ => "socket",
    }
}

/// Returns an address, or `None` for a Unix socket without a name.
fn address(address: &SockAddr) -> Option<SocketAddress> {
    if let Some(address) = address.as_socket() {
        return Some(SocketAddress::Ip(address));
    }
    if let Some(path) = address.as_pathname() {
        return Some(SocketAddress::Unix(path.display().to_string()));
    }
    let name = address.as_abstract_namespace()?;
    Some(SocketAddress::Unix(format!("@{}", String::from_utf8_lossy(name))))
}

fn details(now: &option::TcpState) -> TcpDetails {
    let millis = |millis: u32| Duration::from_millis(u64::from(millis));
    let is_listener = now.is_listener();
    TcpDetails {
        state: now.name(),
        rtt: Duration::from_micros(u64::from(now.rtt_micros)),
        congestion_window: now.congestion_window,
        retransmits: now.retransmits,
        unsent: now.unsent,
        bytes_sent: now.bytes_sent,
        bytes_received: now.bytes_received,
        segments_received: now.segments[0],
        segments_sent: now.segments[1],
        last_sent: millis(now.last_sent_millis),
        last_received: millis(now.last_received_millis),
        accept_queue: if is_listener { now.unacknowledged } else { 0 },
        accept_queue_max: if is_listener { now.selectively_acknowledged } else { 0 },
    }
}

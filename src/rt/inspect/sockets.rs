//! Reads the sockets of a snapshot: state from the poll cache, addresses and TCP state from the
//! kernel.
//!
//! # Addresses
//! Querying the addresses of a socket takes up to five system calls, which would be most of the
//! cost of a snapshot. The addresses of most TCP sockets are [recorded](addresses) when the sockets
//! are opened. For other TCP sockets that are connected or listen, such as adopted sockets, the
//! results of queries are kept, for up to [`ASKED_MAX`] sockets. Sockets of multipath TCP, and
//! those in an [`AsyncFd`](crate::io::AsyncFd), are queried in each snapshot. A snapshot with a
//! limit on the calls begins with the sockets for which the previous snapshot had no calls left.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use socket2::SockAddr;

use super::memory::{AHEAD, fetch, with_room};
use super::shards;
use super::socket_info::{Addresses, Extras, NO_DEADLINE, NO_SHARD, SocketKind, SocketWaits};
use super::{ListenerLimits, SocketAddress, SocketId, SocketInfo, SocketState, TcpDetails};
use crate::rt::poll::addresses::{self, Known};
use crate::rt::poll::labels::{self, Label};
use crate::rt::poll::poll_desc::{Description, PollDesc};
use crate::rt::poll::side::Side;
use crate::rt::poll::usage::{self, Usage};
use crate::rt::runtime::runtime;
use crate::rt::time::clock;
use crate::rt::time::ticks::Scale;
use crate::rt::unsent;
use crate::sys::{option, socket};

/// The addresses of a socket that an earlier snapshot has queried.
#[derive(Clone, Copy, Debug)]
struct Asked {
    generation: u32,
    known: Known,
}

/// The results that are kept, by slot. A snapshot does not use them if another snapshot holds the
/// lock.
static ASKED: Mutex<Option<HashMap<u32, Asked>>> = Mutex::new(None);

/// The maximum number of results that are kept.
const ASKED_MAX: usize = 4096;

/// The descriptor number at which the next snapshot with a limit begins its queries.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// The number of system calls that a snapshot may make for addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asking {
    Never,
    UpTo(usize),
    Always,
}

/// The TCP sockets whose TCP_INFO is queried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Details {
    Never,
    Listeners,
    Always,
}

/// The TCP states in which one direction is closed.
const HALF_CLOSED: [&str; 3] = ["CLOSE_WAIT", "FIN_WAIT1", "FIN_WAIT2"];

/// The kind of a socket, its addresses and its state according to them.
#[derive(Debug)]
struct Identity {
    kind: SocketKind,
    local: Option<SocketAddress>,
    peer: Option<SocketAddress>,
    state: SocketState,
}

/// Reads the sockets of one snapshot.
pub(super) struct Reader<'a> {
    asking: Asking,
    tcp: Details,
    now: u64,
    scale: &'a Scale,
    local_ips: Vec<IpAddr>,
    asked: Option<MutexGuard<'static, Option<HashMap<u32, Asked>>>>,
    /// Whether the results for closed sockets were removed.
    has_pruned: bool,
    has_labels: bool,
    gathered: HashMap<(u32, u32), usize>,
}

impl<'a> Reader<'a> {
    /// Creates a reader. `asking` limits the queries for addresses; `tcp` adds the details of TCP
    /// sockets.
    pub(super) fn new(asking: Asking, tcp: bool, now: u64, scale: &'a Scale) -> Reader<'a> {
        let gathered = unsent::amounts().into_iter().map(|amount| ((amount.index, amount.generation), amount.bytes));
        Reader {
            asking,
            tcp: if tcp { Details::Always } else { Details::Never },
            now,
            scale,
            local_ips: addresses::local_ips(),
            asked: ASKED.try_lock().ok(),
            has_pruned: false,
            has_labels: labels::exist(),
            gathered: gathered.collect(),
        }
    }

    /// Returns all open sockets, ordered by descriptor number, and the place of each socket by
    /// slot: its position plus one, or 0 for a slot without a socket.
    pub(super) fn read(mut self) -> (Vec<SocketInfo>, Vec<u32>) {
        let descriptors = runtime().descriptors.load(Ordering::Relaxed);
        let cache = &runtime().cache;
        let mut all: Vec<(u32, u32)> = with_room(descriptors);
        all.extend(cache.iter().filter_map(|desc| Some((desc.number()?, desc.index))));
        all.sort_unstable();
        let mut sockets = with_room(all.len());
        let mut places = vec![0; all.iter().map(|&(_, index)| index as usize + 1).max().unwrap_or(0)];
        // ORDERING: Relaxed, here and below: `NEXT` is a hint.
        let first = if self.has_limit() { NEXT.swap(0, Ordering::Relaxed) } else { 0 };
        let mut skipped = Vec::new();
        for (at, &(number, index)) in all.iter().enumerate() {
            if let Some(next) = all.get(at + AHEAD).and_then(|&(_, next)| cache.get(next)) {
                fetch(next);
                if let Some(words) = addresses::words(next.index) {
                    fetch(words);
                }
            }
            let Some(desc) = cache.get(index) else { continue };
            // If the number has changed, the slot belongs to a new socket, which would be out of
            // order.
            let Some(description) = desc.described().filter(|now| now.number == number) else { continue };
            let known = self.known(description, desc);
            let calls = calls(known, kind(&description, desc));
            let comes_later = description.number < first && calls > 0;
            let asks = !comes_later && self.may_ask(calls, description.number);
            if let Some(info) = self.socket(description, desc, known, asks) {
                sockets.push(info);
                places[desc.index as usize] = sockets.len() as u32;
                if comes_later {
                    skipped.push((sockets.len() - 1, description, desc));
                }
            }
        }
        // The previous snapshot has queried these sockets, so they come last.
        for (position, description, desc) in skipped {
            let known = self.known(description, desc);
            if !self.may_ask(calls(known, kind(&description, desc)), description.number) {
                break;
            }
            if let Some(info) = self.socket(description, desc, known, true) {
                sockets[position] = info;
            }
        }
        (sockets, places)
    }

    fn has_limit(&self) -> bool {
        matches!(self.asking, Asking::UpTo(_))
    }

    /// Deducts the `calls` that the addresses of a socket may need from the limit. Returns whether
    /// the limit permits these calls.
    fn may_ask(&mut self, calls: usize, number: u32) -> bool {
        match (&mut self.asking, calls) {
            (Asking::Never, _) => false,
            (Asking::Always, _) | (_, 0) => true,
            (Asking::UpTo(rest), calls) if calls <= *rest => {
                *rest -= calls;
                true
            }
            (Asking::UpTo(rest), _) => {
                *rest = 0;
                let _ = NEXT.compare_exchange(0, number, Ordering::Relaxed, Ordering::Relaxed);
                false
            }
        }
    }

    /// Returns the TCP listeners, with their TCP_INFO.
    pub(super) fn listeners(mut self) -> Vec<SocketInfo> {
        self.tcp = Details::Listeners;
        let mut listeners = Vec::new();
        for desc in runtime().cache.iter() {
            let Some(description) = desc.described().filter(|description| description.is_tcp) else { continue };
            let known = self.known(description, desc);
            if matches!(known, Some(Known::Connection { .. })) {
                continue;
            }
            let found = self.socket(description, desc, known, true);
            listeners.extend(found.filter(|socket| socket.state == SocketState::Listening));
        }
        listeners
    }

    /// Returns a socket, unless it was closed in the meantime. `known` has its known addresses;
    /// `asks` says whether the other addresses are queried from the kernel.
    fn socket(
        &mut self,
        description: Description,
        desc: &'static PollDesc,
        known: Option<Known>,
        asks: bool,
    ) -> Option<SocketInfo> {
        let number = description.number as i32;
        // SAFETY: the number is open while the generation is current. If the socket is closed in
        // the meantime, the calls below fail or, if the number is reused, only read the state of
        // another descriptor. The result is then discarded.
        #[allow(unsafe_code)]
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        let identity = match known {
            Some(known) => known_identity(known, fd, asks),
            None if asks => identify(fd, &description, desc),
            None => Identity {
                kind: kind(&description, desc).unwrap_or(SocketKind::Socket),
                local: None,
                peer: None,
                state: SocketState::Unknown,
            },
        };
        let is_tcp = identity.kind == SocketKind::Tcp;
        let has_details = match self.tcp {
            Details::Never => false,
            Details::Listeners => is_tcp && identity.state == SocketState::Listening,
            Details::Always => is_tcp,
        };
        let tcp = if has_details { option::tcp_state(fd).ok().map(|state| Box::new(details(&state))) } else { None };
        let [read, write] = desc.sides();
        let deadline = |side: Side<'_>| match side.deadline() {
            clock::NONE => NO_DEADLINE,
            clock::EXPIRED => 0,
            at => at.saturating_sub(self.now),
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
        let extras = self.extras(&description, desc, identity.state);
        let info = SocketInfo {
            id: SocketId { index: desc.index, generation: description.generation },
            fd: number,
            state,
            kind: identity.kind,
            poller_shard: shards::of(desc).unwrap_or(NO_SHARD),
            errors: desc.failures().0,
            addresses: Addresses::new(identity.local, identity.peer),
            age_nanos: self.scale.nanos_since(description.opened),
            readers: read.waiting() as u32,
            writers: write.waiting() as u32,
            waiting: SocketWaits::default(),
            deadlines_nanos: [deadline(read), deadline(write)],
            tcp,
            extras,
        };
        // Checked last: if the generation is current, the number belonged to this socket
        // throughout.
        if !desc.is_current(description.generation) {
            return None;
        }
        // The results for other sockets are not kept, because `known` does not return them.
        if description.is_tcp && asks {
            self.remember(&info, known, identity.state);
        }
        Some(info)
    }

    /// Returns the data that most TCP connections do not have, or `None` if this socket does not
    /// have such data either.
    fn extras(&self, description: &Description, desc: &PollDesc, state: SocketState) -> Option<Box<Extras>> {
        let id = (desc.index, description.generation);
        let mut extras = Extras::default();
        if !description.is_tcp
            && let Some(usage) = usage::get(desc.index)
        {
            let (bytes, used) = usage.read();
            (extras.bytes, extras.last_use) = (Some(bytes), Some(self.scale.since(used)));
        }
        if !description.is_tcp || state == SocketState::Listening {
            extras.operations = Some(desc.operations());
        }
        let errno = desc.failures().1;
        extras.last_errno = (errno != 0).then_some(i32::from(errno));
        if !self.gathered.is_empty() {
            extras.gathered = self.gathered.get(&id).copied().unwrap_or(0);
        }
        match self.has_labels.then(|| labels::get(id.0, id.1)).flatten() {
            Some(Label::Host(name)) => extras.host = Some(name),
            Some(Label::Limits(of)) => {
                extras.limits = of.upgrade().map(|of| ListenerLimits {
                    connections: of.connections(),
                    max_connections: of.most(),
                    refused: of.refused(),
                });
            }
            None => {}
        }
        (extras != Extras::default()).then(|| Box::new(extras))
    }

    /// Returns the addresses of a TCP socket that are known without a query.
    fn known(&self, description: Description, desc: &PollDesc) -> Option<Known> {
        if !description.is_tcp {
            return None;
        }
        addresses::get((desc.index, description.generation), &self.local_ips).or_else(|| {
            let asked = self.asked.as_ref()?.as_ref()?.get(&desc.index)?;
            (asked.generation == description.generation).then_some(asked.known)
        })
    }

    /// Keeps the addresses of a TCP socket that is connected or listens, if they were not known
    /// before.
    fn remember(&mut self, info: &SocketInfo, known: Option<Known>, state: SocketState) {
        let Some(SocketAddress::Ip(local)) = info.local() else { return };
        let SocketId { index, generation } = info.id;
        match known {
            Some(Known::Listener { local: None } | Known::Connection { local: None, .. }) => {
                addresses::add_local((index, generation), local);
            }
            Some(_) => {}
            None => {
                let known = match (info.peer(), state) {
                    (Some(SocketAddress::Ip(peer)), _) => Known::Connection { local: Some(local), peer },
                    (None, SocketState::Listening) => Known::Listener { local: Some(local) },
                    _ => return,
                };
                let Some(asked) = &mut self.asked else { return };
                let asked = asked.get_or_insert_default();
                if asked.len() >= ASKED_MAX && !std::mem::replace(&mut self.has_pruned, true) {
                    let cache = &runtime().cache;
                    asked
                        .retain(|&index, asked| cache.get(index).is_some_and(|desc| desc.is_current(asked.generation)));
                }
                if asked.len() < ASKED_MAX {
                    asked.insert(index, Asked { generation, known });
                }
            }
        }
    }
}

/// Returns the identity of a TCP socket with known addresses. `asks` says whether an unknown local
/// address is queried from the kernel.
fn known_identity(known: Known, fd: BorrowedFd<'_>, asks: bool) -> Identity {
    let (local, peer, state) = match known {
        Known::Listener { local } => (local, None, SocketState::Listening),
        Known::Connection { local, peer } => (local, Some(peer), SocketState::Open),
    };
    let local = local.or_else(|| asks.then(|| socket::local_addr(fd).ok()).flatten());
    Identity { kind: SocketKind::Tcp, local: local.map(SocketAddress::Ip), peer: peer.map(SocketAddress::Ip), state }
}

/// Returns the maximum number of system calls for the addresses of a socket. `kind` is its kind, if
/// it is known without a query.
fn calls(known: Option<Known>, kind: Option<SocketKind>) -> usize {
    match known {
        Some(Known::Listener { local: Some(_) } | Known::Connection { local: Some(_), .. }) => 0,
        Some(_) => 1,
        // getsockname(2), getpeername(2) and SO_ACCEPTCONN.
        None if kind.is_some() => 3,
        // Also SO_TYPE and SO_PROTOCOL.
        None => 5,
    }
}

/// Returns the kind of a socket, if it is known without a query.
fn kind(description: &Description, desc: &PollDesc) -> Option<SocketKind> {
    if description.is_tcp {
        Some(SocketKind::Tcp)
    } else {
        usage::get(desc.index).and_then(Usage::kind).map(SocketKind::of)
    }
}

/// Queries a socket's kind and addresses from the kernel.
fn identify(fd: BorrowedFd<'_>, description: &Description, desc: &PollDesc) -> Identity {
    let local = socket::local_addr_any(fd).ok();
    let peer = local.as_ref().and_then(|_| socket::peer_addr_any(fd).ok());
    let kind = match &local {
        None => SocketKind::Fd,
        Some(local) => kind(description, desc).unwrap_or_else(|| socket_kind(fd, local)),
    };
    let listens = || option::is_on(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN).unwrap_or(false);
    let state = match () {
        () if peer.is_some() => SocketState::Open,
        () if local.is_some() && listens() => SocketState::Listening,
        () => SocketState::Unconnected,
    };
    Identity { kind, local: local.as_ref().and_then(address), peer: peer.as_ref().and_then(address), state }
}

fn socket_kind(fd: BorrowedFd<'_>, local: &SockAddr) -> SocketKind {
    let ty = option::get::<libc::c_int>(fd, libc::SOL_SOCKET, libc::SO_TYPE).unwrap_or(0);
    match (i32::from(local.family()), ty) {
        (libc::AF_UNIX, libc::SOCK_STREAM) => SocketKind::Unix,
        (libc::AF_UNIX, libc::SOCK_DGRAM) => SocketKind::Unixgram,
        (libc::AF_UNIX, libc::SOCK_SEQPACKET) => SocketKind::Unixpacket,
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_STREAM) if option::is_tcp_or_udp(fd) => SocketKind::Tcp,
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_DGRAM) if option::is_tcp_or_udp(fd) => SocketKind::Udp,
        _ => SocketKind::Socket,
    }
}

/// Converts an address. Returns `None` for an unnamed Unix socket, and for an address of another
/// family.
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::io::AsyncFd;
    use crate::rt::Inspect;

    /// Regression: such results took the places of results that are used.
    #[test]
    fn results_are_kept_only_for_sockets_whose_later_snapshots_use_them() {
        let other = AsyncFd::new(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let adopted = crate::net::TcpListener::from(TcpListener::bind("127.0.0.1:0").unwrap());
        let is_kept = |fd: i32| {
            let snapshot = Inspect::new().addresses(true).take();
            let id = snapshot.sockets.iter().find(|socket| socket.fd == fd).expect("an open socket").id;
            let asked = ASKED.lock().unwrap();
            asked.as_ref().and_then(|asked| asked.get(&id.index)).is_some_and(|it| it.generation == id.generation)
        };
        // A snapshot that another test takes at the same time may hold the lock.
        assert!((0..1000).any(|_| {
            std::thread::yield_now();
            is_kept(adopted.as_raw_fd())
        }));
        for _ in 0..100 {
            assert!(!is_kept(other.get_ref().as_raw_fd()));
        }
    }
}

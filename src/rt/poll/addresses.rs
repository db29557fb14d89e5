//! Records the addresses of TCP sockets without multipath, so that
//! [`inspect`](crate::rt::inspect()) needs few system calls for them.
//!
//! accept4(2) returns the peer's address. After a dial, both addresses are usually known. A
//! connection of a listener that is bound to one address has that local address. When a connection
//! is opened, its known addresses are written to the [words](super::slot_words) of its slot, so a
//! snapshot of many connections has to query only a few of them. An unknown local address, such as
//! that of a connection of a wildcard listener, is added when it is first queried.
//!
//! # Layout
//! From the lowest bit up, the first word contains the local port, the peer's port and the number
//! of the local IP address (16 bits each, 0 if unknown), 13 bits of the generation, and the kind.
//! The other two words contain the peer's IP address. Local IP addresses are in a table, because a
//! process has few of them. An entry of that table is never removed.
//!
//! # States
//! *none* (kind 0) → *listener*, *wildcard listener*, *IPv4 connection* or *IPv6 connection* →
//! *none*. The owner of the slot sets *none* when it opens a descriptor, and afterwards changes the
//! kind at most once. Any thread may add the local address, with a compare-and-swap of the first
//! word.
//!
//! # Memory ordering
//! The first word protects the other words, like the sequence number of a seqlock. The owner stores
//! *none* in the first word, issues a release fence, writes the other words, and stores the new
//! first word with Release. A reader loads the first word with Acquire, reads the other words,
//! issues an acquire fence, and loads the first word again.
//!
//! # Limits
//! Addresses with a scope or flow information are not stored. Neither are local IP addresses after
//! the first 65,535.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::slot_words::{self, Words};

/// The known addresses of one socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// The socket is a listener.
    Listener { local: Option<SocketAddr> },
    /// The socket is a connection.
    Connection { local: Option<SocketAddr>, peer: SocketAddr },
}

/// The slot index and the generation of a socket.
pub(crate) type Id = (u32, u32);

const PEER_PORT_SHIFT: u32 = 16;
const IP_SHIFT: u32 = 32;
const GENERATION_SHIFT: u32 = 48;
const GENERATION_MASK: u64 = (1 << 13) - 1;
const KIND_SHIFT: u32 = 61;
const LISTENER: u64 = 1;
const V4: u64 = 2;
const V6: u64 = 3;
/// A listener on all addresses of the host. Its connections have other local addresses.
const WILDCARD: u64 = 4;
/// The bits of the first word that contain the local address.
const LOCAL_MASK: u64 = 0xffff | 0xffff << IP_SHIFT;

/// The local IP addresses. The number of an address is its position plus one.
#[derive(Debug, Default)]
struct Locals {
    ips: Vec<IpAddr>,
    numbers: HashMap<IpAddr, u16>,
}

static LOCALS: Mutex<Option<Locals>> = Mutex::new(None);

fn lock() -> MutexGuard<'static, Option<Locals>> {
    LOCALS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Creates the table before a simulation starts. The table's hasher takes random numbers from the
/// thread that creates it, and must not take random numbers of a simulation.
#[cfg(feature = "sim")]
pub(crate) fn prepare() {
    lock().get_or_insert_default();
}

/// Returns the number of a local IP address, which is added to the table if necessary. Returns 0 if
/// the table is full.
fn number(ip: IpAddr) -> u16 {
    let mut locals = lock();
    let locals = locals.get_or_insert_default();
    if let Some(&number) = locals.numbers.get(&ip) {
        return number;
    }
    let Ok(number) = u16::try_from(locals.ips.len() + 1) else { return 0 };
    locals.ips.push(ip);
    locals.numbers.insert(ip, number);
    number
}

/// Returns a copy of the table of local IP addresses, for [`get`].
pub(crate) fn local_ips() -> Vec<IpAddr> {
    lock().as_ref().map(|locals| locals.ips.clone()).unwrap_or_default()
}

/// Returns whether the words can hold `addr`.
fn is_plain(addr: &SocketAddr) -> bool {
    match addr {
        SocketAddr::V4(_) => true,
        SocketAddr::V6(addr) => addr.scope_id() == 0 && addr.flowinfo() == 0,
    }
}

/// Returns the bits of a local address. If it cannot be stored or its port is unknown, returns bits
/// without the number of an IP address, which mean that the address is unknown.
fn local_bits(local: SocketAddr) -> u64 {
    if !is_plain(&local) || local.port() == 0 {
        return 0;
    }
    u64::from(local.port()) | u64::from(number(local.ip())) << IP_SHIFT
}

fn generation_bits(generation: u32) -> u64 {
    (u64::from(generation) & GENERATION_MASK) << GENERATION_SHIFT
}

/// Clears the addresses of a slot for a new socket.
pub(crate) fn reset(index: u32) {
    if let Some([first, ..]) = slot_words::get(index) {
        first.store(0, Ordering::Relaxed);
    }
}

/// Stores the address of a new listener. With port 0, the address is not known yet. (The caller
/// also passes port 0 for an IPv6 wildcard address that may fall back to that of IPv4.)
pub(crate) fn set_listener((index, generation): Id, local: SocketAddr) {
    let kind = if local.ip().is_unspecified() { WILDCARD } else { LISTENER };
    write(index, kind << KIND_SHIFT | generation_bits(generation) | local_bits(local), [0; 2]);
}

/// Stores the addresses of a new connection.
pub(crate) fn set_connection(id: Id, local: Option<SocketAddr>, peer: SocketAddr) {
    // A socket that is bound to a wildcard address gets another local address when it is connected.
    let local = local.filter(|local| !local.ip().is_unspecified());
    set_peer(id, local.map_or(0, local_bits), peer);
}

/// Stores the addresses of a connection that `listener` has accepted.
pub(crate) fn set_accepted(id: Id, listener: Id, peer: SocketAddr) {
    let first = slot_words::get(listener.0).map_or(0, |[first, ..]| first.load(Ordering::Relaxed));
    let local = match first >> KIND_SHIFT {
        LISTENER if has_generation(first, listener.1) => first & LOCAL_MASK,
        _ => 0,
    };
    set_peer(id, local, peer);
}

fn set_peer((index, generation): Id, local: u64, peer: SocketAddr) {
    // Port 0 means that the port is not known. The peer of a connection to a wildcard address has
    // another address.
    if !is_plain(&peer) || peer.port() == 0 || peer.ip().is_unspecified() {
        return;
    }
    let (kind, ip) = match peer.ip() {
        IpAddr::V4(ip) => (V4, [u64::from(ip.to_bits()), 0]),
        IpAddr::V6(ip) => (V6, [(ip.to_bits() >> 64) as u64, ip.to_bits() as u64]),
    };
    let port = u64::from(peer.port()) << PEER_PORT_SHIFT;
    write(index, kind << KIND_SHIFT | generation_bits(generation) | port | local, ip);
}

fn write(index: u32, value: u64, ip: [u64; 2]) {
    let [first, high, low] = slot_words::of(index);
    // ORDERING: see the module documentation.
    first.store(0, Ordering::Relaxed);
    fence(Ordering::Release);
    high.store(ip[0], Ordering::Relaxed);
    low.store(ip[1], Ordering::Relaxed);
    first.store(value, Ordering::Release);
}

/// Adds the local address that the kernel has returned for a socket whose other data is stored.
pub(crate) fn add_local((index, generation): Id, local: SocketAddr) {
    let Some([first, ..]) = slot_words::get(index) else { return };
    let seen = first.load(Ordering::Relaxed);
    if !matches!(seen >> KIND_SHIFT, LISTENER | WILDCARD | V4 | V6) || !has_generation(seen, generation) {
        return;
    }
    let known = seen & !LOCAL_MASK | local_bits(local);
    if known != seen {
        // ORDERING: Relaxed: the other words do not change. If the slot belongs to a new socket,
        // the word has changed, and the compare-and-swap fails.
        let _ = first.compare_exchange(seen, known, Ordering::Relaxed, Ordering::Relaxed);
    }
}

fn has_generation(first: u64, generation: u32) -> bool {
    (first ^ generation_bits(generation)) & GENERATION_MASK << GENERATION_SHIFT == 0
}

/// Returns the words of a slot, so that a snapshot can prefetch them.
pub(crate) fn words(index: u32) -> Option<&'static Words> {
    slot_words::get(index)
}

/// Returns the addresses of a socket, if they are stored. `local_ips` is the result of
/// [`local_ips`]. A local address that was added to the table after that call is missing.
///
/// The caller must check afterwards that the slot still belongs to the generation. If it does not,
/// the addresses may be those of another socket.
pub(crate) fn get((index, generation): Id, local_ips: &[IpAddr]) -> Option<Known> {
    let [first, high, low] = slot_words::get(index)?;
    let seen = first.load(Ordering::Acquire);
    if !has_generation(seen, generation) {
        return None;
    }
    let ip = [high, low].map(|word| word.load(Ordering::Relaxed));
    fence(Ordering::Acquire);
    if first.load(Ordering::Relaxed) != seen {
        return None;
    }
    let local = (local_ips.get((seen >> IP_SHIFT & 0xffff).wrapping_sub(1) as usize))
        .map(|&ip| SocketAddr::new(ip, seen as u16));
    let peer: IpAddr = match seen >> KIND_SHIFT {
        LISTENER | WILDCARD => return Some(Known::Listener { local }),
        V4 => Ipv4Addr::from_bits(ip[0] as u32).into(),
        V6 => Ipv6Addr::from_bits(u128::from(ip[0]) << 64 | u128::from(ip[1])).into(),
        _ => return None,
    };
    Some(Known::Connection { local, peer: SocketAddr::new(peer, (seen >> PEER_PORT_SHIFT) as u16) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::slab::SLOTS_MAX;

    /// A slot that no other test uses.
    fn slot(number: u32) -> u32 {
        SLOTS_MAX as u32 - 200 - number
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn get(id: Id) -> Option<Known> {
        super::get(id, &local_ips())
    }

    #[test]
    fn connection_has_the_addresses_that_were_stored() {
        for (at, local, peer) in
            [(0, "192.0.2.1:1234", "198.51.100.7:80"), (1, "[2001:db8::1]:1", "[2001:db8:ffff:1:2:3:4:5]:65535")]
        {
            let id = (slot(at), 77);
            assert_eq!(get(id), None);
            set_connection(id, Some(addr(local)), addr(peer));
            assert_eq!(get(id), Some(Known::Connection { local: Some(addr(local)), peer: addr(peer) }));
            assert_eq!(get((id.0, 78)), None, "another generation");
            reset(id.0);
            assert_eq!(get(id), None);
        }
    }

    #[test]
    fn accepted_connection_has_the_address_of_its_listener() {
        let (listener, id, peer) = ((slot(10), 5), (slot(11), 9), addr("198.51.100.7:80"));
        let local = addr("192.0.2.1:443");
        set_listener(listener, local);
        assert_eq!(get(listener), Some(Known::Listener { local: Some(local) }));
        set_accepted(id, listener, peer);
        assert_eq!(get(id), Some(Known::Connection { local: Some(local), peer }));
        // The slot of the listener belongs to another socket by now.
        set_accepted(id, (listener.0, 6), peer);
        assert_eq!(get(id), Some(Known::Connection { local: None, peer }));
    }

    #[test]
    fn address_of_a_wildcard_listener_is_not_that_of_its_connections() {
        for (at, wildcard) in [(20, "0.0.0.0:443"), (22, "[::]:443")] {
            let (listener, id, peer) = ((slot(at), 5), (slot(at + 1), 9), addr("198.51.100.7:80"));
            set_listener(listener, addr(wildcard));
            set_accepted(id, listener, peer);
            assert_eq!(get(id), Some(Known::Connection { local: None, peer }));
            let local = addr("192.0.2.9:443");
            add_local((id.0, 8), local);
            assert_eq!(get(id), Some(Known::Connection { local: None, peer }), "added to another generation");
            add_local(id, local);
            assert_eq!(get(id), Some(Known::Connection { local: Some(local), peer }));
        }
    }

    #[test]
    fn port_of_a_listener_is_added_when_it_is_known() {
        let listener = (slot(30), 5);
        set_listener(listener, addr("127.0.0.1:0"));
        assert_eq!(get(listener), Some(Known::Listener { local: None }));
        add_local(listener, addr("127.0.0.1:40000"));
        assert_eq!(get(listener), Some(Known::Listener { local: Some(addr("127.0.0.1:40000")) }));
    }

    #[test]
    fn addresses_that_are_incomplete_or_do_not_fit_are_not_stored() {
        let id = (slot(40), 5);
        let scoped = std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 0, 3).into();
        for peer in [scoped, addr("0.0.0.0:80"), addr("[::]:80"), addr("192.0.2.1:0")] {
            set_connection(id, None, peer);
            assert_eq!(get(id), None, "{peer}");
        }
        for local in [scoped, addr("0.0.0.0:80"), addr("192.0.2.2:0")] {
            set_connection(id, Some(local), addr("192.0.2.1:80"));
            assert_eq!(get(id), Some(Known::Connection { local: None, peer: addr("192.0.2.1:80") }));
        }
    }

    #[test]
    fn byte_counts_are_not_taken_for_addresses() {
        let index = slot(50);
        let [first, ..] = slot_words::of(index);
        for bytes in [0, 1, u64::from(u32::MAX), 1 << 60] {
            first.store(bytes, Ordering::Relaxed);
            assert_eq!(get((index, (bytes >> GENERATION_SHIFT) as u32)), None);
            add_local((index, (bytes >> GENERATION_SHIFT) as u32), addr("192.0.2.1:80"));
            assert_eq!(first.load(Ordering::Relaxed), bytes);
        }
    }

    #[test]
    fn reader_finds_the_addresses_of_one_socket() {
        let index = slot(60);
        let peer = |generation: u32| SocketAddr::new(Ipv4Addr::from_bits(generation).into(), generation as u16 | 1);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for generation in 1..20_000 {
                    reset(index);
                    set_connection((index, generation), None, peer(generation));
                }
            });
            while !writer.is_finished() {
                for generation in [1, 77, 5_000, 8_000] {
                    if let Some(found) = get((index, generation)) {
                        let of = [0, 1, 2].map(|round| peer(generation + (round << 13)));
                        assert!(of.iter().any(|&peer| found == Known::Connection { local: None, peer }), "{found:?}");
                    }
                }
            }
        });
    }
}

//! Counts the bytes that descriptors other than TCP sockets without multipath have moved, and
//! stores their kind and the time of their last use, for [`inspect`](crate::rt::inspect()).
//!
//! The kernel counts the bytes of a TCP connection (TCP_INFO), but not, for example, those of UDP
//! and Unix sockets. The data is in the [words](super::slot_words) of the slot.

use std::sync::atomic::{AtomicU64, Ordering};

use super::slot_words::{self, Words};

/// The usage of one descriptor. Arrays are in the order of
/// [`Direction`](crate::rt::poll::poll_desc::Direction).
// ORDERING: Relaxed throughout: no other memory depends on the counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    bytes: [&'static AtomicU64; 2],
    /// The rough time of the last operation, or of the opening, in the low half, and the number of
    /// the kind in the high half.
    used: &'static AtomicU64,
}

/// The kinds of sockets. The number of a kind is its position plus one.
const KINDS: [&str; 4] = ["udp", "unix", "unixgram", "unixpacket"];

/// Returns the usage of a slot. Allocates it if it does not exist.
pub(crate) fn of(index: u32) -> Usage {
    slot_words::of(index).into()
}

/// Returns the usage of a slot, if it exists.
pub(crate) fn get(index: u32) -> Option<Usage> {
    slot_words::get(index).map(Usage::from)
}

impl From<&'static Words> for Usage {
    fn from([received, sent, used]: &'static Words) -> Usage {
        Usage { bytes: [received, sent], used }
    }
}

impl Usage {
    /// Clears the usage for a new descriptor of unknown kind, opened at `now`.
    pub(crate) fn reset(self, now: u32) {
        self.bytes.iter().for_each(|bytes| bytes.store(0, Ordering::Relaxed));
        self.used.store(u64::from(now), Ordering::Relaxed);
    }

    /// Counts an operation at `now` that moved `bytes` bytes.
    pub(crate) fn add(self, direction: usize, bytes: usize, now: u32) {
        self.bytes[direction].fetch_add(bytes as u64, Ordering::Relaxed);
        self.set_used(now);
    }

    fn set_used(self, now: u32) {
        self.used.store(self.used.load(Ordering::Relaxed) >> 32 << 32 | u64::from(now), Ordering::Relaxed);
    }

    /// Stores the kind of a new socket. A kind that is not one of [`KINDS`] counts as unknown.
    pub(crate) fn set_kind(self, kind: &str) {
        let number = KINDS.iter().position(|&known| known == kind).map_or(0, |place| place as u64 + 1);
        self.used.store(number << 32 | u64::from(self.used.load(Ordering::Relaxed) as u32), Ordering::Relaxed);
    }

    /// Returns the kind of the socket, if it is known.
    pub(crate) fn kind(self) -> Option<&'static str> {
        let number = (self.used.load(Ordering::Relaxed) >> 32) as usize;
        KINDS.get(number.checked_sub(1)?).copied()
    }

    /// Returns the number of bytes moved in each direction, and the rough time of the last
    /// operation, or of the opening if there was none.
    pub(crate) fn read(self) -> ([u64; 2], u32) {
        (self.bytes.map(|bytes| bytes.load(Ordering::Relaxed)), self.used.load(Ordering::Relaxed) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::slab::SLOTS_MAX;

    #[test]
    fn each_slot_has_its_own_usage() {
        // These slots are far from those that other tests use.
        let (one, other) = (of(SLOTS_MAX as u32 - 101), of(SLOTS_MAX as u32 - 102));
        one.reset(7);
        one.add(0, 5, 8);
        one.add(1, 6, 9);
        assert_eq!(one.read(), ([5, 6], 9));
        assert_eq!(other.read(), ([0, 0], 0));
        assert_eq!(get(SLOTS_MAX as u32 - 101).unwrap().read(), ([5, 6], 9));
        one.reset(10);
        assert_eq!(one.read(), ([0, 0], 10));
    }

    #[test]
    fn kind_is_kept_until_the_slot_has_another_socket() {
        let usage = of(SLOTS_MAX as u32 - 103);
        usage.reset(7);
        assert_eq!(usage.kind(), None);
        for kind in KINDS {
            usage.set_kind(kind);
            usage.add(1, 6, u32::MAX);
            assert_eq!((usage.kind(), usage.read().1), (Some(kind), u32::MAX));
        }
        usage.set_kind("raw");
        assert_eq!(usage.kind(), None);
        usage.set_kind("udp");
        usage.reset(8);
        assert_eq!(usage.kind(), None);
    }
}

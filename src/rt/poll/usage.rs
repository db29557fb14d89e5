//! Usage: the bytes that sockets other than plain TCP have moved, for
//! [`inspect`](crate::rt::inspect()).
//!
//! The kernel counts the bytes of a TCP connection (TCP_INFO), but not those of UDP and Unix
//! sockets. They are counted here, in a table by the slot of the socket. Its memory is allocated in
//! blocks of 16 slots when the first such socket gets a slot of the block, 24 bytes per slot, and is
//! kept.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::rt::slab::SLOTS_MAX;

const BLOCK_SLOTS: usize = 16;
const PAGE_BLOCKS: usize = 1024;
const PAGES: usize = SLOTS_MAX.div_ceil(PAGE_BLOCKS * BLOCK_SLOTS);

type Block = Box<[Usage; BLOCK_SLOTS]>;
type Page = Box<[OnceLock<Block>; PAGE_BLOCKS]>;

static TABLE: [OnceLock<Page>; PAGES] = [const { OnceLock::new() }; PAGES];

/// The use of one socket. Arrays are in the order of
/// [`Direction`](crate::rt::poll::poll_desc::Direction).
// ORDERING: Relaxed throughout: the counts guard nothing.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    bytes: [AtomicU64; 2],
    /// The rough time of the last operation.
    used: AtomicU32,
}

const _: () = assert!(size_of::<Usage>() <= 24);

/// Returns the usage of a slot, and creates it if there is none.
pub(crate) fn of(index: u32) -> &'static Usage {
    let (page, block, slot) = place(index);
    let page = TABLE[page].get_or_init(|| Box::new([const { OnceLock::new() }; PAGE_BLOCKS]));
    &page[block].get_or_init(Block::default)[slot]
}

/// Returns the usage of a slot, if there is one.
pub(crate) fn get(index: u32) -> Option<&'static Usage> {
    let (page, block, slot) = place(index);
    Some(&TABLE.get(page)?.get()?[block].get()?[slot])
}

fn place(index: u32) -> (usize, usize, usize) {
    let index = index as usize;
    (index / BLOCK_SLOTS / PAGE_BLOCKS, index / BLOCK_SLOTS % PAGE_BLOCKS, index % BLOCK_SLOTS)
}

impl Usage {
    /// Begins the use of the slot by a new socket.
    pub(crate) fn reset(&self, now: u32) {
        self.bytes.iter().for_each(|bytes| bytes.store(0, Ordering::Relaxed));
        self.used.store(now, Ordering::Relaxed);
    }

    /// Counts an operation that moved `bytes`.
    pub(crate) fn add(&self, direction: usize, bytes: usize, now: u32) {
        self.bytes[direction].fetch_add(bytes as u64, Ordering::Relaxed);
        self.used.store(now, Ordering::Relaxed);
    }

    /// Returns the bytes moved, and the rough time of the last operation.
    pub(crate) fn read(&self) -> ([u64; 2], u32) {
        (self.bytes.each_ref().map(|bytes| bytes.load(Ordering::Relaxed)), self.used.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_has_its_own_usage() {
        // Far from the slots that other tests use.
        let last = SLOTS_MAX as u32 - 1;
        assert!(get(last).is_none());
        let (one, other) = (of(last), of(last - 1));
        one.reset(7);
        one.add(0, 5, 8);
        one.add(1, 6, 9);
        assert_eq!(one.read(), ([5, 6], 9));
        assert_eq!(other.read(), ([0, 0], 0));
        assert!(std::ptr::eq(get(last).unwrap(), one));
        one.reset(10);
        assert_eq!(one.read(), ([0, 0], 10));
    }
}

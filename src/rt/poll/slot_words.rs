//! Three additional words per slot, for [`inspect`](crate::rt::inspect()).
//!
//! They contain the [addresses](super::addresses) of a TCP socket without multipath, or the
//! [usage](super::usage) of another descriptor. The words of 16 slots are allocated together when a
//! descriptor in one of the slots first needs them, and are never freed.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

use crate::rt::slab::SLOTS_MAX;

const BLOCK_SLOTS: usize = 16;
const PAGE_BLOCKS: usize = 1024;
const PAGES: usize = SLOTS_MAX.div_ceil(PAGE_BLOCKS * BLOCK_SLOTS);

/// The words of one slot.
pub(crate) type Words = [AtomicU64; 3];

// The words must not take more than 24 bytes per slot.
const _: () = assert!(size_of::<Words>() <= 24);

type Block = Box<[Words; BLOCK_SLOTS]>;
type Page = Box<[OnceLock<Block>; PAGE_BLOCKS]>;

static TABLE: [OnceLock<Page>; PAGES] = [const { OnceLock::new() }; PAGES];

/// Returns the words of a slot. Allocates them if they do not exist.
pub(super) fn of(index: u32) -> &'static Words {
    let (page, block, slot) = place(index);
    let page = TABLE[page].get_or_init(|| Box::new([const { OnceLock::new() }; PAGE_BLOCKS]));
    &page[block].get_or_init(Block::default)[slot]
}

/// Returns the words of a slot, if they exist.
pub(super) fn get(index: u32) -> Option<&'static Words> {
    let (page, block, slot) = place(index);
    Some(&TABLE.get(page)?.get()?[block].get()?[slot])
}

fn place(index: u32) -> (usize, usize, usize) {
    let index = index as usize;
    (index / BLOCK_SLOTS / PAGE_BLOCKS, index / BLOCK_SLOTS % PAGE_BLOCKS, index % BLOCK_SLOTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_has_its_own_words() {
        // This slot is far from those that other tests use.
        let last = SLOTS_MAX as u32 - 1;
        assert!(get(last).is_none());
        assert!(std::ptr::eq(of(last), get(last).unwrap()));
        assert!(!std::ptr::eq(of(last), of(last - 1)));
    }
}

//! [`Slab`]: slots that are reused but never unmapped.
//!
//! The states of descriptors (`PollDesc`) and the records of tasks (`Record`) are in slabs. Slots
//! are allocated in blocks of 16, which are never unmapped, so a late epoll event, a late timer or
//! [`inspect`](crate::rt::inspect()) can read any slot at any time. A freed slot goes to the free
//! list or, if the owner of a [`Stash`] frees it, to the stash, and is reused. The surplus of the
//! stashes is in a vector of the slab. The owner of a slot marks each use with a generation or an
//! id. Finding a slot by its index takes two loads.
//!
//! # Invariants
//! * C1 — the address of a slot never changes, and the slot stays readable until the process ends.
//! * C2 — a slot is not allocated again before it is freed. A pop (`alloc`) and a push (`free_all`)
//!   are compare-and-swaps of the head of the free list, which contains a count of pops, against
//!   ABA (model `free_list_hands_out_once`). A push may add several slots (model
//!   `slots_freed_together_are_handed_out_once`). The link of a slot outside the list may have any
//!   value: if a pop reads it, another pop has taken the slot in the meantime, so the
//!   compare-and-swap of the first pop fails.
//! * C3 — there are at most [`SLOTS_MAX`] slots. If all of them are in use or in stashes, `alloc`
//!   returns `None`.
//!
//! # Compared with Go (runtime.pollCache)
//! Go takes a global lock twice per connection, and pads a 296-byte descriptor to 512 bytes to get
//! tag bits in its pointers.

use std::mem::{self, MaybeUninit};
use std::ptr;

use crate::sync::{
    AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, MODEL, Mutex, Ordering, array_of, const_fn, injected_bug,
};

/// The number of slots per block. It is a power of two, so that finding a slot needs no division.
pub(crate) const BLOCK_SLOTS: usize = if MODEL { 1 } else { 16 };
const PAGE_BLOCKS: usize = if MODEL { 2 } else { 1024 };
const PAGES: usize = if MODEL { 1 } else { 1024 };
/// The maximum number of slots: 2²⁴, which exceeds the kernel's default limit of 2²⁰ open
/// descriptors per process.
pub(crate) const SLOTS_MAX: usize = PAGES * PAGE_BLOCKS * BLOCK_SLOTS;

#[derive(Debug)]
struct Block<T: Slot> {
    shared: T::Shared,
    slots: [T; BLOCK_SLOTS],
}

type Page<T> = [AtomicPtr<Block<T>>; PAGE_BLOCKS];

/// A value that lives in a slab.
pub(crate) trait Slot: Sized + 'static {
    /// Data that a block stores beside its slots; `()` if there is none.
    type Shared: From<First> + std::fmt::Debug + 'static;
    /// Creates the slot `index`, which is not in use.
    fn vacant(index: u32) -> Self;
    /// Returns the index that was passed to [`vacant`](Slot::vacant).
    fn index(&self) -> u32;
    /// Returns the atomic in which the slab stores a link while the slot is free.
    fn link(&self) -> &AtomicU32;
}

/// The index of the first slot of a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct First(pub(crate) u32);

impl From<First> for () {
    fn from(_: First) {}
}

/// Returns the position of the slot `index` within its block.
pub(crate) fn place_in_block(index: u32) -> u32 {
    index % BLOCK_SLOTS as u32
}

/// Returns the data of the block that contains `slot`.
///
/// # Safety
/// `slot` must belong to a slab, at the position `place` within its block.
#[allow(unsafe_code)]
pub(crate) unsafe fn shared<T: Slot>(slot: &T, place: u32) -> &'static T::Shared {
    let slots = ptr::from_ref(slot).addr() - place as usize * size_of::<T>();
    let block = ptr::with_exposed_provenance::<Block<T>>(slots - std::mem::offset_of!(Block<T>, slots));
    // SAFETY: the caller guarantees that this is the address of a block, which `grow` has exposed
    // and leaked.
    let block = unsafe { &*block };
    &block.shared
}

const _: () = assert!(SLOTS_MAX < u32::MAX as usize, "an index plus one must fit into a link");

/// The maximum size of the memory that is allocated for blocks in one step, in bytes.
const RESERVE_BYTES: usize = 1 << 20;

/// Memory for further blocks. Blocks are allocated together, because they are never freed. If a
/// block lay between tasks in the heap, malloc could not join their memory after they have ended,
/// and would hand it out in another order.
type Reserve<T> = &'static mut [MaybeUninit<Block<T>>];

/// Allocates memory for `count` blocks or, if there is not enough memory for that, for one.
fn reserve<T: Slot>(count: usize) -> Reserve<T> {
    let mut blocks = Vec::new();
    let count = if blocks.try_reserve_exact(count).is_ok() { count } else { 1 };
    blocks.resize_with(count, MaybeUninit::uninit);
    blocks.leak()
}

/// Creates a block of slots, whose indices begin at `first`, in `reserve`. If `reserve` is empty,
/// first fills it with memory for as many blocks as exist, but at most [`RESERVE_BYTES`].
fn new_block<T: Slot>(first: u32, reserve: &mut Reserve<T>) -> &'static Block<T> {
    if reserve.is_empty() {
        let most = if MODEL { 1 } else { (RESERVE_BYTES / size_of::<Block<T>>()).max(1) };
        *reserve = self::reserve((first as usize / BLOCK_SLOTS).clamp(1, most));
    }
    let (place, rest) = mem::take(reserve).split_first_mut().expect("it was filled");
    *reserve = rest;
    let block: &'static Block<T> = place.write(Block {
        shared: T::Shared::from(First(first)),
        slots: std::array::from_fn(|slot| T::vacant(first + slot as u32)),
    });
    // `shared` computes this address.
    ptr::from_ref(block).expose_provenance();
    block
}

/// Returns new slots that belong to no slab. They have data of a block, as the slots of a slab do.
pub(crate) fn block_outside<T: Slot>() -> &'static [T; BLOCK_SLOTS] {
    &new_block(0, &mut Reserve::default()).slots
}

/// A set of slots; see the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Slab<T: Slot> {
    pages: [AtomicPtr<Page<T>>; PAGES],
    /// The index + 1 of the first free slot, or 0 if there is none, in the low half, and the number
    /// of pops, modulo 2³², in the high half.
    free: AtomicU64,
    /// The number of slots that exist.
    slots: AtomicU32,
    /// Locked while a block is added. Contains the memory for further blocks.
    growing: Mutex<Reserve<T>>,
    /// Free slots outside the free list, which full stashes have moved here. Unlike the free list,
    /// which links slots that are not in the CPU's cache, the vector shows several of them at once.
    /// Empty stashes take them back; [`alloc`](Slab::alloc) takes one if the free list is empty.
    stacked: Mutex<Vec<&'static T>>,
}

impl<T: Slot> Slab<T> {
    const_fn! {
        pub(crate) fn new() -> Slab<T> {
            Slab {
                pages: array_of![AtomicPtr::new(ptr::null_mut()); PAGES],
                free: AtomicU64::new(0),
                slots: AtomicU32::new(0),
                growing: Mutex::new(&mut []),
                stacked: Mutex::new(Vec::new()),
            }
        }
    }

    /// Returns the slot `index`, if it exists.
    #[inline]
    #[allow(unsafe_code)]
    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        let (block, slot) = (index as usize / BLOCK_SLOTS, index as usize % BLOCK_SLOTS);
        // ORDERING: Acquire pairs with the Release stores in `grow`: the block's slots are
        // initialised.
        let page = self.pages.get(block / PAGE_BLOCKS)?.load(Ordering::Acquire);
        // SAFETY: the pointer is null or that of a leaked `Page` (C1).
        let page = unsafe { page.as_ref() }?;
        // ORDERING: Acquire, as above.
        let block = page[block % PAGE_BLOCKS].load(Ordering::Acquire);
        // SAFETY: the pointer is null or that of a leaked `Block` (C1).
        let block = unsafe { block.as_ref() }?;
        Some(&block.slots[slot])
    }

    /// Allocates a slot, in a new block if the free list and the vector are empty. If there are
    /// already [`SLOTS_MAX`] slots, returns `None` instead of adding a block.
    pub(crate) fn alloc(&self) -> Option<&T> {
        loop {
            let head = self.free.load(Ordering::Acquire);
            let Some(index) = (head as u32).checked_sub(1) else {
                if let Some(slot) = self.pop_stacked() {
                    return Some(slot);
                }
                self.grow()?;
                continue;
            };
            let slot = self.get(index)?;
            // ORDERING: Relaxed: if the slot was popped in the meantime, the link is outdated, but
            // so is the count in `head`, and the compare-and-swap fails.
            let next = u64::from(slot.link().load(Ordering::Relaxed));
            let pops = if injected_bug!("free_list_without_count") { 0 } else { (head >> 32).wrapping_add(1) << 32 };
            // ORDERING: AcqRel pairs with `free_all`: the previous owner no longer uses the slot.
            if self.free.compare_exchange_weak(head, pops | next, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return Some(slot);
            }
        }
    }

    #[cold]
    fn pop_stacked(&self) -> Option<&'static T> {
        self.stacked.lock().pop()
    }

    /// Frees a slot that `alloc` has returned. The owner must have marked its use as ended.
    pub(crate) fn free(&self, slot: &T) {
        self.free_all([slot]);
    }

    /// Frees `slots` in one step, as [`free`](Slab::free) does. The first of them is allocated
    /// last.
    pub(crate) fn free_all<'a>(&self, slots: impl IntoIterator<Item = &'a T>) {
        let mut slots = slots.into_iter();
        let Some(last) = slots.next() else { return };
        let mut first = last.index() + 1;
        for slot in slots {
            // ORDERING: Release, as below.
            slot.link().store(first, Ordering::Release);
            first = slot.index() + 1;
        }
        let mut head = self.free.load(Ordering::Relaxed);
        loop {
            // ORDERING: Release: a slot in use may store data in the link. A reader that finds the
            // link of the free list instead also sees that the use has ended (`described` of
            // `PollDesc`).
            last.link().store(head as u32, Ordering::Release);
            let next = head & !u64::from(u32::MAX) | u64::from(first);
            // ORDERING: Release publishes the links and the states of the slots to the `alloc` that
            // pops them.
            let order = if injected_bug!("free_list_not_published") { Ordering::Relaxed } else { Ordering::Release };
            match self.free.compare_exchange_weak(head, next, order, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Adds a block, unless the free list has got slots in the meantime. Returns `None` if there
    /// are already [`SLOTS_MAX`] slots.
    #[cold]
    #[allow(unsafe_code)]
    fn grow(&self) -> Option<()> {
        let mut reserve = self.growing.lock();
        if self.free.load(Ordering::Acquire) as u32 != 0 {
            return Some(());
        }
        let first = self.slots.load(Ordering::Relaxed) as usize;
        if first == SLOTS_MAX {
            return None;
        }
        let block = first / BLOCK_SLOTS;
        let page_slot = &self.pages[block / PAGE_BLOCKS];
        let mut page = page_slot.load(Ordering::Acquire);
        if page.is_null() {
            let fresh: Page<T> = std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut()));
            page = Box::into_raw(Box::new(fresh));
            // ORDERING: Release pairs with `get`.
            page_slot.store(page, Ordering::Release);
        }
        let block_of_slots = new_block(first as u32, &mut reserve);
        // SAFETY: the pointer is not null, and the page is leaked, so it stays valid (C1).
        let page = unsafe { &*page };
        // ORDERING: Release pairs with `get`.
        page[block % PAGE_BLOCKS].store(ptr::from_ref(block_of_slots).cast_mut(), Ordering::Release);
        self.slots.store((first + BLOCK_SLOTS) as u32, Ordering::Release);
        self.free_all(block_of_slots.slots.iter().rev());
        Some(())
    }

    /// Returns all slots, free or not.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        (0..self.slots.load(Ordering::Acquire)).filter_map(|index| self.get(index))
    }
}

/// The maximum number of slots in a [`Stash`].
const STASH: usize = 32;

/// Free slots of a static slab that are not in its free list. The owner of the stash usually
/// allocates and frees slots without a compare-and-swap, and uses the same slots again while they
/// are in the CPU's cache. A full stash moves half of its slots to the slab's vector of free slots,
/// and an empty one takes as many from there, or one from the free list.
#[derive(Debug)]
pub(crate) struct Stash<T: Slot> {
    // ORDERING: Relaxed: only the owner accesses the fields. The hand-over of the stash orders the
    // accesses of two owners.
    slots: [AtomicPtr<T>; STASH],
    len: AtomicUsize,
}

impl<T: Slot> Stash<T> {
    pub(crate) fn new() -> Stash<T> {
        Stash { slots: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())), len: AtomicUsize::new(0) }
    }

    /// Returns the slot at the position `at`, where `free` or `refill` must have stored one.
    #[inline]
    #[allow(unsafe_code)]
    fn at(&self, at: usize) -> &'static T {
        // SAFETY: the callers pass only such positions, which contain static references.
        unsafe { &*self.slots[at].load(Ordering::Relaxed) }
    }

    /// Allocates a slot, as [`Slab::alloc`] does. Only the owner may call this, always with the
    /// same slab.
    #[inline]
    pub(crate) fn alloc(&self, slab: &'static Slab<T>) -> Option<&'static T> {
        let left = match self.len.load(Ordering::Relaxed).checked_sub(1) {
            Some(left) => left,
            None => self.refill(slab)?,
        };
        self.len.store(left, Ordering::Relaxed);
        Some(self.at(left))
    }

    /// Takes free slots of `slab`. Returns their number minus one, or `None` if there are none.
    #[cold]
    fn refill(&self, slab: &'static Slab<T>) -> Option<usize> {
        let mut stacked = slab.stacked.lock();
        let left = stacked.len().saturating_sub(STASH / 2);
        let places = self.slots.iter().zip(stacked.drain(left..));
        let count = places.map(|(place, slot)| place.store(ptr::from_ref(slot).cast_mut(), Ordering::Relaxed)).count();
        drop(stacked);
        if count == 0 {
            self.slots[0].store(ptr::from_ref(slab.alloc()?).cast_mut(), Ordering::Relaxed);
        }
        Some(count.saturating_sub(1))
    }

    /// Frees a slot, as [`Slab::free`] does. Only the owner may call this, always with the same
    /// slab.
    #[inline]
    pub(crate) fn free(&self, slab: &'static Slab<T>, slot: &'static T) {
        let mut len = self.len.load(Ordering::Relaxed);
        if len >= STASH {
            len = self.spill(slab);
        }
        self.slots[len].store(ptr::from_ref(slot).cast_mut(), Ordering::Relaxed);
        self.len.store(len + 1, Ordering::Relaxed);
    }

    /// Moves half of the slots of a full stash to the slab's vector, and returns the number of the
    /// others. The slots go to the free list instead, which needs neither memory nor a lock, if the
    /// vector cannot grow or is locked. In a child of fork(2), a thread that exists only in the
    /// parent may have locked it.
    #[cold]
    fn spill(&self, slab: &'static Slab<T>) -> usize {
        let slots = (STASH / 2..STASH).map(|at| self.at(at));
        if let Some(mut stacked) = slab.stacked.try_lock()
            && stacked.try_reserve(STASH / 2).is_ok()
        {
            stacked.extend(slots);
        } else {
            slab.free_all(slots);
        }
        STASH / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::poll::poll_desc::PollCache;

    #[test]
    fn slots_are_allocated_once_and_reused_with_a_new_generation() {
        let cache = PollCache::new();
        let slots: Vec<_> = (0..100).map(|_| cache.alloc().expect("far below the limit")).collect();
        let mut numbers: Vec<_> = slots.iter().map(|desc| desc.index).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 100);
        let generation = slots[7].open();
        slots[7].retire(generation);
        cache.free(slots[7]);
        let again = cache.alloc().expect("just freed");
        assert!(ptr::eq(again, slots[7]), "last in, first out");
        assert_eq!(again.open(), generation + 1);
        assert!(cache.get(SLOTS_MAX as u32).is_none() && cache.get(5000).is_none());
        assert_eq!(cache.iter().count(), 112);
    }

    /// In a child of fork(2), the vector may be locked by a thread that exists only in the parent.
    #[test]
    fn full_stash_uses_the_free_list_while_the_vector_is_locked() {
        let cache: &'static PollCache = Box::leak(Box::new(PollCache::new()));
        let stash = Stash::new();
        let slots: Vec<_> = (0..100).map(|_| cache.alloc().expect("far below the limit")).collect();
        let count = cache.iter().count();
        let stacked = cache.stacked.lock();
        slots.into_iter().for_each(|slot| stash.free(cache, slot));
        assert!(stacked.is_empty());
        drop(stacked);
        let mut numbers: Vec<_> = (0..count).map(|_| stash.alloc(cache).expect("a free slot").index).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..count as u32).collect::<Vec<_>>());
        assert_eq!(cache.iter().count(), count);
    }

    #[test]
    fn stash_hands_out_each_slot_once_and_keeps_few() {
        static CACHE: PollCache = PollCache::new();
        let cache = &CACHE;
        let stash = Stash::new();
        for count in [1, 15, 16, 17, 100, 1000, 31, 32, 33] {
            let slots: Vec<_> = (0..count).map(|_| stash.alloc(cache).expect("far below the limit")).collect();
            let mut numbers: Vec<_> = slots.iter().map(|desc| desc.index).collect();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), count);
            slots.into_iter().for_each(|slot| stash.free(cache, slot));
        }
        let kept = stash.len.load(Ordering::Relaxed);
        assert!(kept <= STASH);
        // The other slots are in the vector or in the list.
        let is_free = || !cache.stacked.lock().is_empty() || cache.free.load(Ordering::Relaxed) as u32 != 0;
        let free = std::iter::from_fn(|| if is_free() { cache.alloc() } else { None }).count();
        assert_eq!(free + kept, cache.iter().count());
    }
}

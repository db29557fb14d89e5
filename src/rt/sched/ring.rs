//! [`Ring`]: the items of a run queue in FIFO order, in a ring buffer that grows.
//!
//! The owner appends items and takes the oldest one. Other threads, the *thieves*, take one or more
//! of the oldest items at once.
//!
//! # The buffer
//! Items have consecutive indices, modulo 2³². The ring contains the items from index `head` up to,
//! but not including, `tail`. The item `i` is in slot `i % length` of the buffer, whose length is a
//! power of two, [`RING`] at first. If the buffer is full, the owner replaces it by a buffer of
//! twice the length, which has copies of the items. If the owner finds the ring empty, it replaces
//! a buffer longer than [`KEPT_MAX`] by one of [`RING`] slots.
//!
//! A replaced buffer is *retired*: thieves may still read it, and its slots do not change any more.
//! The owner frees retired buffers when no thief is in the ring. It checks this when it replaces a
//! buffer, and each time that it finds the ring empty while there are retired buffers. If the ring
//! is not used after a thief has delayed this, the buffers remain until it is used again. The owner
//! does not shrink the ring while there are retired buffers. So at any time, the retired buffers
//! together are shorter than the current buffer plus one buffer of the longest length so far, even
//! if a thief is suspended in the ring.
//!
//! # Invariants
//! * Q3 — a slot is overwritten only after `head` has passed its item, and a thief uses its copies
//!   only if `head` did not move while it made them (model `ring_slots_are_used_again`).
//! * Q4 — a thief that takes items up to `tail` reads them in a buffer that has all of them: it
//!   loads `tail` before it loads the buffer (models `ring_grows_against_thief`,
//!   `ring_is_used_again_after_it_has_shrunk`). The copies in a new buffer begin at the `head` that
//!   the owner has loaded, and `head` is not behind it when the thief takes the items.
//! * Q5 — a buffer is not freed while a thief may read it: a thief counts itself in `thieves`
//!   before it loads the buffer, and the owner checks `thieves` after it has replaced the buffer
//!   (models `ring_shrinks_against_thief`, `ring_shrinks_against_two_thieves`).
//!
//! # Memory ordering
//! The owner stores `tail` with Release, and thieves load it with Acquire, so they see the items
//! below `tail`, and a buffer that is at least as new as the one in which the last of them was
//! stored. The owner and the thieves advance `head` by compare-and-swap with Release, and load it
//! with Acquire. So the owner reuses a slot only after the thieves have read it, and a thief that
//! loads `head` and then `tail` gets a `tail` that is not behind this `head`.
//!
//! For Q5, a thief has a SeqCst fence between its increment of `thieves` and its load of the
//! buffer, and the owner has one between its store of the buffer and its load of `thieves`. If the
//! owner's load does not see the increment, the owner's fence precedes the thief's, so the thief
//! loads the new buffer. If it sees the decrement, which is a Release, the thief's last read
//! precedes the load, which is an Acquire.

use std::ptr::{self, NonNull};

use crate::sync::{AtomicPtr, AtomicU32, MODEL, Ordering, UnsafeCell, fence, injected_bug};

/// The number of slots of a new ring.
pub(crate) const RING: usize = if MODEL { 4 } else { 256 };
/// The maximum number of items that a thief takes at once. A ring always has room for them if it is
/// empty.
const BATCH: usize = RING / 2;
/// The maximum number of slots that the owner keeps when it finds the ring empty.
const KEPT_MAX: usize = if MODEL { RING } else { 16 * RING };
/// The maximum number of items. Distances between indices fit in an `i32`.
const ITEMS_MAX: u32 = 1 << 30;

/// A runnable task as a raw pointer. The thread that takes it out of a queue owns it.
pub(crate) type Item = NonNull<()>;

/// A growing ring of items; see the [module documentation](self).
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Ring {
    head: AtomicU32,
    tail: AtomicU32,
    /// The owner's view of the buffer. Only the owner accesses it.
    view: UnsafeCell<View>,
    buffer: AtomicPtr<Buffer>,
    /// The number of threads that may read a buffer and are not the owner.
    thieves: AtomicU32,
    /// The retired buffers. Only the owner accesses them.
    retired: UnsafeCell<Vec<*mut Buffer>>,
}

/// The slots of the current buffer.
#[derive(Clone, Copy, Debug)]
struct View {
    slots: *const AtomicPtr<()>,
    /// The number of slots minus one.
    mask: u32,
    /// Whether an empty ring has memory to free: retired buffers, or more than [`KEPT_MAX`] slots.
    is_untidy: bool,
}

#[derive(Debug)]
struct Buffer {
    mask: u32,
    slots: Box<[AtomicPtr<()>]>,
    /// Tells a model checker when a thief reads the slots and when they are freed.
    lifetime: UnsafeCell<()>,
}

// SAFETY: an item owns a runnable task, which may be run on any thread (`spawn` requires the future
// to be `Send`). The cells are accessed by the owner only, and the thread that becomes the owner
// synchronises with the previous one.
#[allow(unsafe_code)]
unsafe impl Send for Ring {}
// SAFETY: as above. Other threads use only the atomics, and read buffers as described by Q5.
#[allow(unsafe_code)]
unsafe impl Sync for Ring {}

impl Buffer {
    /// Allocates a buffer of `length` slots, a power of two, which are null.
    fn allocate(length: u32) -> Buffer {
        Buffer { mask: length - 1, slots: null_slots(length as usize), lifetime: UnsafeCell::new(()) }
    }

    /// Returns the content of the slot of the item `index`.
    fn load(&self, index: u32) -> *mut () {
        self.lifetime.with(|_| ());
        self.slots[(index & self.mask) as usize].load(Ordering::Relaxed)
    }
}

/// Returns `length` slots, which are null.
#[allow(unsafe_code)]
fn null_slots(length: usize) -> Box<[AtomicPtr<()>]> {
    if MODEL {
        return (0..length).map(|_| AtomicPtr::new(ptr::null_mut())).collect();
    }
    // Null pointers are allocated as zeroed memory, which is faster than a loop.
    let pointers: Box<[*mut ()]> = vec![ptr::null_mut(); length].into_boxed_slice();
    // SAFETY: outside models, an `AtomicPtr` has the size, the alignment and the representation of
    // a pointer.
    unsafe { Box::from_raw(Box::into_raw(pointers) as *mut [AtomicPtr<()>]) }
}

#[allow(unsafe_code)]
impl View {
    /// Returns the view of a buffer that is or will be the current one.
    fn of(buffer: *mut Buffer) -> View {
        // SAFETY: only the owner frees buffers, and not the current one.
        let buffer = unsafe { &*buffer };
        View { slots: buffer.slots.as_ptr(), mask: buffer.mask, is_untidy: true }
    }

    /// Returns the slot of the item `index`. The caller must be the owner.
    #[inline(always)]
    fn slot(&self, index: u32) -> &AtomicPtr<()> {
        // SAFETY: `slots` has `mask + 1` elements.
        let slot = unsafe { self.slots.add((index & self.mask) as usize) };
        // SAFETY: only the owner, which is the caller, frees the buffer.
        unsafe { &*slot }
    }
}

#[allow(unsafe_code)]
impl Ring {
    pub(crate) fn new() -> Ring {
        let buffer = Box::into_raw(Box::new(Buffer::allocate(RING as u32)));
        Ring {
            head: AtomicU32::new(0),
            tail: AtomicU32::new(0),
            view: UnsafeCell::new(View { is_untidy: false, ..View::of(buffer) }),
            buffer: AtomicPtr::new(buffer),
            thieves: AtomicU32::new(0),
            retired: UnsafeCell::new(Vec::new()),
        }
    }

    /// Returns the view of the current buffer. Only the owner may call this.
    #[inline(always)]
    fn view(&self) -> View {
        // SAFETY: only the owner accesses the cell.
        self.view.with(|view| unsafe { *view })
    }

    /// Returns the number of items. The number is exact only if the owner calls this and no thread
    /// steals at the same time.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        let held = self.tail.load(Ordering::Relaxed).wrapping_sub(self.head.load(Ordering::Relaxed));
        // `head` may have passed the loaded `tail` between the loads.
        if held > ITEMS_MAX { 0 } else { held as usize }
    }

    /// Returns the index of the next item that will be appended, for
    /// [`has_passed`](Ring::has_passed). Only the owner may call this.
    pub(crate) fn end(&self) -> u32 {
        self.tail.load(Ordering::Relaxed)
    }

    /// Returns whether all items before the index `end` have been taken. The result is valid until
    /// 2³¹ further items have been taken.
    pub(crate) fn has_passed(&self, end: u32) -> bool {
        self.head.load(Ordering::Relaxed).wrapping_sub(end) as i32 >= 0
    }

    /// Appends an item. Only the owner may call this.
    #[inline]
    pub(crate) fn push(&self, item: Item) {
        let view = self.view();
        // ORDERING: Relaxed: only the owner stores `tail`.
        let tail = self.tail.load(Ordering::Relaxed);
        // ORDERING: Acquire pairs with the thieves' Release, so the thieves that have advanced
        // `head` have read their slots (Q3).
        let head = self.head.load(Ordering::Acquire);
        if tail.wrapping_sub(head) > view.mask {
            return self.push_growing(item, head);
        }
        view.slot(tail).store(item.as_ptr(), Ordering::Relaxed);
        // ORDERING: Release pairs with the Acquire of `tail` in `claim`.
        let order = if injected_bug!("ring_relaxed_tail") { Ordering::Relaxed } else { Ordering::Release };
        self.tail.store(tail.wrapping_add(1), order);
    }

    /// Doubles the buffer, which is full of items from `head` on, and appends an item.
    #[cold]
    #[inline(never)]
    fn push_growing(&self, item: Item, head: u32) {
        let length = self.view().mask + 1;
        assert!(length < ITEMS_MAX, "a run queue has more than 2^30 tasks");
        self.replace(length * 2, head);
        self.push(item);
    }

    /// Takes the oldest item. Only the owner may call this.
    #[inline]
    pub(crate) fn pop(&self) -> Option<Item> {
        let view = self.view();
        let mut head = self.head.load(Ordering::Acquire);
        let tail = self.tail.load(Ordering::Relaxed);
        while head != tail {
            let item = view.slot(head).load(Ordering::Relaxed);
            // ORDERING: AcqRel, as in `claim`. The Release is for thieves: a thief that loads this
            // `head` and then `tail` gets a `tail` that is not behind `head`.
            match self.head.compare_exchange_weak(head, head.wrapping_add(1), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return NonNull::new(item),
                Err(now) => head = now,
            }
        }
        if view.is_untidy {
            self.tidy();
        }
        None
    }

    /// Frees the memory that an empty ring does not need. Only the owner may call this, with an
    /// empty ring.
    #[cold]
    #[inline(never)]
    fn tidy(&self) {
        let (is_free, view) = (self.free_retired(), self.view());
        if is_free && view.mask as usize >= KEPT_MAX {
            self.replace(RING as u32, self.tail.load(Ordering::Relaxed));
        }
    }

    /// Replaces the buffer by one of `length` slots, to which it copies the items from `head` on.
    fn replace(&self, length: u32, head: u32) {
        let (view, tail) = (self.view(), self.tail.load(Ordering::Relaxed));
        let buffer = Buffer::allocate(length);
        for ahead in 0..tail.wrapping_sub(head) {
            let index = head.wrapping_add(ahead);
            let item = view.slot(index).load(Ordering::Relaxed);
            buffer.slots[(index & buffer.mask) as usize].store(item, Ordering::Relaxed);
        }
        let buffer = Box::into_raw(Box::new(buffer));
        let old = self.buffer.load(Ordering::Relaxed);
        // ORDERING: Release pairs with the Acquire of `buffer` in `claim`: the copies are visible.
        let order = if injected_bug!("ring_buffer_is_relaxed") { Ordering::Relaxed } else { Ordering::Release };
        self.buffer.store(buffer, order);
        // SAFETY: only the owner accesses the cells.
        self.retired.with_mut(|retired| unsafe { (*retired).push(old) });
        // SAFETY: as above.
        self.view.with_mut(|view| unsafe { *view = View::of(buffer) });
        self.free_retired();
    }

    /// Frees the retired buffers if no thief is in the ring. Returns whether no retired buffer is
    /// left.
    fn free_retired(&self) -> bool {
        if !injected_bug!("ring_owner_has_no_fence") {
            // ORDERING: SeqCst pairs with the fence in `claim`. The buffer was stored before (Q5).
            fence(Ordering::SeqCst);
        }
        // ORDERING: Acquire pairs with the Release of the decrement in `claim` (Q5).
        let is_free = self.thieves.load(Ordering::Acquire) == 0 || injected_bug!("ring_freed_under_thief");
        self.retired.with_mut(|retired| {
            // SAFETY: only the owner accesses the cell.
            let retired = unsafe { &mut *retired };
            if is_free {
                // SAFETY: no thief has loaded the pointer of one of these buffers, except thieves
                // that have finished reading (Q5).
                retired.drain(..).for_each(|buffer| unsafe { free(buffer) });
            }
            self.view.with_mut(|view| {
                // SAFETY: only the owner accesses the cell.
                let view = unsafe { &mut *view };
                view.is_untidy = !retired.is_empty() || view.mask as usize >= KEPT_MAX;
            });
            retired.is_empty()
        })
    }

    /// Takes half of the items, rounded up, but at most [`BATCH`]. Returns the youngest of them,
    /// and moves the others to `thief`. The ring `thief` must belong to the calling thread and be
    /// empty.
    pub(crate) fn steal(&self, thief: &Ring) -> Option<Item> {
        let (start, view) = (thief.tail.load(Ordering::Relaxed), thief.view());
        let count = self.claim(|at, item| view.slot(start.wrapping_add(at)).store(item, Ordering::Relaxed));
        let last = start.wrapping_add(count.checked_sub(1)?);
        // ORDERING: Release, as in `push`.
        thief.tail.store(last, Ordering::Release);
        NonNull::new(view.slot(last).load(Ordering::Relaxed))
    }

    /// Moves half of the items, rounded up, but at most [`BATCH`], to the end of `taken`. Returns
    /// false if the ring is empty. Any thread may call this.
    pub(crate) fn take(&self, taken: &mut Vec<Item>) -> bool {
        let mut items = [ptr::null_mut(); BATCH];
        let count = self.claim(|at, item| items[at as usize] = item);
        taken.extend(items.into_iter().take(count as usize).filter_map(NonNull::new));
        count > 0
    }

    /// Takes half of the items, rounded up, but at most [`BATCH`], and returns their number. Calls
    /// `copy` with the position and the content of each slot, again if another thread has taken
    /// items in the meantime. The caller must use only the last copy for each position below the
    /// returned number.
    fn claim(&self, mut copy: impl FnMut(u32, *mut ())) -> u32 {
        // ORDERING: Acquire, here and if the exchange below fails: the `tail` that is loaded later
        // is not behind this `head`, so `held` is too large only if `head` has moved.
        let mut head = self.head.load(Ordering::Acquire);
        // The check is for thieves of empty rings, which would otherwise contend for `thieves`.
        if self.tail.load(Ordering::Relaxed) == head {
            return 0;
        }
        self.thieves.fetch_add(1, Ordering::Relaxed);
        if !injected_bug!("ring_thief_has_no_fence") {
            // ORDERING: SeqCst pairs with the fence in `free_retired`. The buffer is loaded later
            // (Q5).
            fence(Ordering::SeqCst);
        }
        let early = injected_bug!("ring_buffer_before_tail").then(|| self.buffer.load(Ordering::Acquire));
        let count = loop {
            // ORDERING: Acquire pairs with the owner's Release: the items below `tail` are in the
            // buffer that is loaded next (Q4).
            let tail = self.tail.load(Ordering::Acquire);
            let held = tail.wrapping_sub(head);
            // If `head` has moved, `held` may exceed the number of items. Then the copies are not
            // used.
            let count = (held - held / 2).min(BATCH as u32);
            if count == 0 {
                break 0;
            }
            // ORDERING: Acquire pairs with the Release in `replace`.
            let buffer = early.unwrap_or_else(|| self.buffer.load(Ordering::Acquire));
            // SAFETY: the buffer is not freed before this thread decrements `thieves` (Q5).
            let buffer = unsafe { &*buffer };
            (0..count).for_each(|at| copy(at, buffer.load(head.wrapping_add(at))));
            if injected_bug!("steal_without_claim") {
                self.head.store(head.wrapping_add(count), Ordering::Release);
                break count;
            }
            // ORDERING: Release: the slots are read before the owner can reuse them (Q3).
            match self.head.compare_exchange(head, head.wrapping_add(count), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break count,
                Err(now) => head = now,
            }
        };
        // ORDERING: Release pairs with the load in `free_retired`: the slots are read before they
        // are freed (Q5).
        let order = if injected_bug!("ring_thief_leaves_relaxed") { Ordering::Relaxed } else { Ordering::Release };
        self.thieves.fetch_sub(1, order);
        count
    }
}

#[allow(unsafe_code)]
impl Drop for Ring {
    fn drop(&mut self) {
        let current = self.buffer.load(Ordering::Relaxed);
        self.retired.with_mut(|retired| {
            // SAFETY: the ring is borrowed exclusively.
            let retired = unsafe { &mut *retired };
            for buffer in retired.drain(..).chain([current]) {
                // SAFETY: the pointer came from `Box::into_raw`. No other thread reads the buffer,
                // because the ring is borrowed exclusively.
                drop(unsafe { Box::from_raw(buffer) });
            }
        });
    }
}

/// Frees a retired buffer.
///
/// # Safety
/// The pointer must come from [`Box::into_raw`], and no thread may use the buffer any more.
#[allow(unsafe_code)]
unsafe fn free(buffer: *mut Buffer) {
    // SAFETY: the caller guarantees that the buffer exists.
    unsafe { (*buffer).lifetime.with_mut(|_| ()) };
    // In a model with an injected bug, a thief may still read the buffer, which the checker
    // reports.
    if !MODEL {
        // SAFETY: the caller guarantees both conditions.
        drop(unsafe { Box::from_raw(buffer) });
    }
}

// With the two slots of `RunQueue`, the fields that the owner always needs are in one cache line.
const _: () = assert!(MODEL || std::mem::offset_of!(Ring, buffer) <= 24);

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;

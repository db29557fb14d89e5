//! Models of the poll cache's free list and of operations that wait until a socket is closed.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use crate::engine::{UnsafeCell, thread};
use crate::harness::block_on;
use crate::rt::poll::closings::Closings;
use crate::rt::poll::poll_desc::PollCache;
use crate::sync::{AtomicBool, Ordering};

/// A poll cache, with data that belongs to the owner of each slot.
struct Slots {
    cache: PollCache,
    owners: [UnsafeCell<u32>; 2],
}

// SAFETY: the checker reports unsynchronised accesses to the cells; detecting them is the purpose
// of the model.
unsafe impl Sync for Slots {}
// SAFETY: as above; the cells hold plain values.
unsafe impl Send for Slots {}

impl Slots {
    /// Uses the data of a slot, as its owner.
    fn own(&self, index: u32) {
        // SAFETY: the pointer is valid; the checker reports a second owner of the slot.
        self.owners[index as usize].with_mut(|owner| unsafe { *owner += 1 });
    }
}

/// Two threads allocate slots, and one of them also frees a slot. A slot must have one owner at a
/// time, which sees the writes of the previous owner.
pub fn free_list_hands_out_once() {
    let slots = Arc::new(Slots { cache: PollCache::new(), owners: [UnsafeCell::new(0), UnsafeCell::new(0)] });
    let [first, second] = [(); 2].map(|()| slots.cache.alloc().unwrap());
    slots.cache.free(second);
    slots.cache.free(first);
    let other = thread::spawn({
        let slots = slots.clone();
        move || {
            let Some(one) = slots.cache.alloc() else { return };
            slots.own(one.index);
            let two = slots.cache.alloc();
            slots.cache.free(one);
            if let Some(two) = two {
                slots.own(two.index);
                // This thread uses the slot while the other one allocates the remaining slots.
                thread::yield_now();
                slots.own(two.index);
            }
        }
    });
    for _ in 0..2 {
        if let Some(slot) = slots.cache.alloc() {
            slots.own(slot.index);
        }
    }
    other.join().unwrap();
}

/// One thread frees two slots together, while another allocates slots. A slot must have one owner
/// at a time, which sees the writes of the previous owner.
pub fn slots_freed_together_are_handed_out_once() {
    let slots = Arc::new(Slots { cache: PollCache::new(), owners: [UnsafeCell::new(0), UnsafeCell::new(0)] });
    let both = [(); 2].map(|()| slots.cache.alloc().unwrap());
    let other = thread::spawn({
        let slots = slots.clone();
        move || {
            // The slab has no further slots, so an allocation fails until both slots are free.
            while let Some(slot) = slots.cache.alloc() {
                slots.own(slot.index);
            }
        }
    });
    both.iter().for_each(|slot| slots.own(slot.index));
    slots.cache.free_all(both);
    if let Some(slot) = slots.cache.alloc() {
        slots.own(slot.index);
        slots.cache.free(slot);
    }
    other.join().unwrap();
}

/// A socket is closed while an accept that found no free descriptor begins to wait. The wait must
/// end.
pub fn a_closing_is_not_missed() {
    let closings = Arc::new(Closings::new());
    let free = Arc::new(AtomicBool::new(false));
    let accepting = thread::spawn({
        let (closings, free) = (closings.clone(), free.clone());
        move || {
            block_on(poll_fn(|cx| {
                loop {
                    let seen = closings.count();
                    if free.load(Ordering::Acquire) {
                        return Poll::Ready(());
                    }
                    if closings.poll(cx, seen).is_pending() {
                        return Poll::Pending;
                    }
                }
            }));
        }
    });
    free.store(true, Ordering::Release);
    closings.note();
    accepting.join().unwrap();
}

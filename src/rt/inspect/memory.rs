//! The memory of large snapshots.
//!
//! A snapshot of 16,000 tasks and sockets takes 8 MB, most of it in two lists. The kernel is asked
//! for the pages of a list in one call, because a page fault per page takes longer. A list that is
//! not longer than an earlier one of its kind is likely to get memory that has pages.
//!
//! What a snapshot reads is seldom in the cache of its processor, so it is fetched some rows ahead.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::sys::os;

/// The size in bytes from which on a list is large.
const LARGE: usize = 256 << 10;

/// The number of rows by which memory is fetched ahead.
pub(super) const AHEAD: usize = 12;

/// Makes the lists of one kind.
#[derive(Debug)]
pub(super) struct Lists {
    /// The size in bytes of the largest one, or [`LARGE`].
    largest: AtomicUsize,
}

impl Lists {
    pub(super) const fn new() -> Lists {
        Lists { largest: AtomicUsize::new(LARGE) }
    }

    /// Returns an empty list with room for `count` elements.
    pub(super) fn with_room<T>(&self, count: usize) -> Vec<T> {
        let mut list = Vec::with_capacity(count);
        let room: &mut [MaybeUninit<T>] = list.spare_capacity_mut();
        let size = size_of_val(room);
        // ORDERING: Relaxed: it is a guess.
        if self.largest.fetch_max(size, Ordering::Relaxed) < size {
            os::populate(room);
        }
        list
    }
}

/// Fetches `value` into the cache of this processor.
#[inline]
#[allow(unsafe_code)]
pub(super) fn fetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    for offset in (0..size_of::<T>()).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let line = std::ptr::from_ref(value).cast::<i8>().wrapping_add(offset);
        // SAFETY: the instruction has no effect but on the cache, at any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_has_room_for_its_elements() {
        let lists = Lists::new();
        for count in [0, 1, 1000, 100_000, 99_999, 100_001] {
            let mut list = lists.with_room::<u64>(count);
            assert!(list.is_empty() && list.capacity() >= count);
            list.extend(0..count as u64);
            list.iter().for_each(fetch);
            assert!(list.iter().copied().eq(0..count as u64));
        }
        assert_eq!(lists.with_room::<()>(7).len(), 0);
    }
}

//! The memory of large snapshots.
//!
//! The first snapshot of 16,000 tasks and sockets takes 4 MB of new memory, most of it in two lists, so
//! their rows are small. The kernel is asked for the pages of a list in one call, because a page fault
//! per page takes longer. Where the memory has pages, of an earlier snapshot, the call takes some
//! microseconds. Huge pages are not asked for: with the usual setting (`defrag` is
//! `madvise`) the kernel may move memory for milliseconds to make one.
//!
//! What a snapshot reads is seldom in the cache of its processor, so it is fetched some rows ahead.

use crate::sys::os;

/// The size in bytes from which on a list is large.
const LARGE: usize = 256 << 10;

/// The number of rows by which memory is fetched ahead.
pub(super) const AHEAD: usize = 12;

/// Returns an empty list with room for `count` elements.
pub(super) fn with_room<T>(count: usize) -> Vec<T> {
    let mut list = Vec::with_capacity(count);
    let room = list.spare_capacity_mut();
    if size_of_val(room) >= LARGE {
        os::populate(room);
    }
    list
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
        for count in [0, 1, 1000, 100_000, 99_999, 100_001] {
            let mut list = with_room::<u64>(count);
            assert!(list.is_empty() && list.capacity() >= count);
            list.extend(0..count as u64);
            list.iter().for_each(fetch);
            assert!(list.iter().copied().eq(0..count as u64));
        }
        assert_eq!(with_room::<()>(7).len(), 0);
    }
}

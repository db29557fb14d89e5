//! Allocates and prefetches the memory of large snapshots.
//!
//! The first snapshot of 16,000 tasks and sockets allocates 4 MB, most of it in two lists. The
//! pages of a large list are populated with one system call, because one page fault per page would
//! take longer. If the memory was used by an earlier snapshot and still has its pages, the call
//! takes only a few microseconds. Huge pages are not requested, because with the usual setting
//! (`defrag` is `madvise`) the kernel may compact memory for milliseconds to create one.
//!
//! The slots of sockets that a snapshot reads, and the rows of sockets that it pairs with tasks,
//! are seldom in the CPU's cache, so they are prefetched.

use crate::sys::os;

/// The minimum size in bytes of a list whose pages are populated with one system call.
const LARGE: usize = 256 << 10;

/// The number of rows by which prefetching is ahead of reading.
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

/// Prefetches `value` into this CPU's cache on x86-64. Does nothing on other CPUs.
#[inline]
#[allow(unsafe_code)]
pub(super) fn fetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    for offset in (0..size_of::<T>()).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let line = std::ptr::from_ref(value).cast::<i8>().wrapping_add(offset);
        // SAFETY: the instruction affects only the cache, and accepts any address.
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

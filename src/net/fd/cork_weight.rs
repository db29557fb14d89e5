//! The weight of the writes that a thread gathers, which determines when the duration of the turn
//! is checked.

use std::cell::Cell;

/// The weight of gathered writes between two checks of the turn's duration. A power of two.
const WEIGHT_PER_CHECK: u32 = 256;
/// The number of bytes with the weight of one write.
const BYTES_PER_WRITE: usize = 256;

thread_local! {
    /// The weight of the writes that this thread has gathered, modulo 2³².
    static WEIGHT: Cell<u32> = const { Cell::new(0) };
}

/// Returns the weight of this thread's writes with a further write of `len` bytes, and whether that
/// write needs a check of the turn's duration.
#[inline]
pub(super) fn with(len: usize) -> (u32, bool) {
    let before = WEIGHT.get();
    let weight = before.wrapping_add(1 + (len / BYTES_PER_WRITE) as u32);
    (weight, (before ^ weight) >= WEIGHT_PER_CHECK)
}

/// Sets the weight of this thread's writes.
#[inline]
pub(super) fn set(weight: u32) {
    WEIGHT.set(weight);
}

//! [`Buffer`]: the bytes of gathered writes, in memory that the sockets of a thread use one after
//! the other.
//!
//! A socket without gathered bytes has no memory. It takes memory from the thread that gathers the
//! first of its bytes. The thread that sends the last of them keeps or frees the memory. The
//! capacity of new memory is [`FIRST`]. When a write needs more, the capacity is doubled or, if
//! this is not enough for the write, set to the size that the write needs. It is at most
//! [`GATHERED_MAX`].
//!
//! # Short writes
//! [`push`](Buffer::push) uses only memory that the buffer already has. It copies up to
//! [`SHORT_MAX`] bytes without a call of memcpy(3), which would cost more than the copy.

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::mem::{MaybeUninit, take};

/// The maximum number of gathered bytes per socket.
pub(crate) const GATHERED_MAX: usize = 64 << 10;
/// The length, in bytes, of the longest write that [`Buffer::push`] copies without calling
/// memcpy(3).
pub(super) const SHORT_MAX: usize = 32;
/// The maximum number of empty buffers that a thread keeps.
const SPARES: usize = 16;
/// The capacity of a new buffer, in bytes.
const FIRST: usize = 1 << 10;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// The bytes of gathered writes; see the [module documentation](self).
#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    /// The number of `bytes`, from the front, that were sent.
    sent: usize,
}

impl Buffer {
    /// Returns the bytes that were not sent.
    #[inline]
    pub(super) fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Records that the first `count` unsent bytes were sent.
    pub(super) fn advance(&mut self, count: usize) {
        self.sent += count;
    }

    /// Makes room for `len` bytes. They and the unsent bytes must be at most [`GATHERED_MAX`]
    /// bytes.
    #[inline]
    pub(super) fn reserve(&mut self, len: usize) {
        if self.bytes.capacity() == 0 {
            let spare = SPARE.try_with(|spares| spares.borrow_mut().pop()).ok().flatten();
            self.bytes = spare.unwrap_or_else(|| Vec::with_capacity(FIRST));
        }
        if self.sent > 0 {
            // If the sent bytes stayed, the memory could grow beyond the maximum.
            self.bytes.drain(..take(&mut self.sent));
        }
        let all = self.bytes.len() + len;
        if all > self.bytes.capacity() {
            let doubled = (2 * self.bytes.capacity()).min(GATHERED_MAX);
            self.bytes.reserve_exact(doubled.max(all) - self.bytes.len());
        }
    }

    /// Appends `buf`. The memory grows if necessary.
    #[inline]
    pub(super) fn extend(&mut self, buf: &[u8]) {
        self.bytes.extend_from_slice(buf);
    }

    /// Appends `buf` if its length is not 0 and the memory has room for it. Returns whether `buf`
    /// was appended. Does not panic.
    #[inline]
    pub(super) fn push(&mut self, buf: &[u8]) -> bool {
        let len = self.bytes.len();
        let Some(room) = self.bytes.spare_capacity_mut().get_mut(..buf.len()) else { return false };
        match buf.len() {
            0 => return false,
            1 => copy_ends::<1>(buf, room),
            2..4 => copy_ends::<2>(buf, room),
            4..8 => copy_ends::<4>(buf, room),
            8..16 => copy_ends::<8>(buf, room),
            16..=SHORT_MAX => copy_ends::<16>(buf, room),
            // The compiler turns this into a call of memcpy(3).
            _ => buf.iter().zip(room).for_each(|(byte, place)| _ = place.write(*byte)),
        }
        // SAFETY: the capacity includes `room`, which follows the first `len` bytes and is
        // initialised now.
        unsafe { self.bytes.set_len(len + buf.len()) };
        true
    }

    /// Discards the bytes. Keeps the memory for the next socket that gathers writes on this thread,
    /// unless the thread already has [`SPARES`] empty buffers or is exiting.
    pub(super) fn clear(&mut self) {
        self.sent = 0;
        let mut bytes = take(&mut self.bytes);
        if bytes.capacity() == 0 {
            return;
        }
        bytes.clear();
        let _ = SPARE.try_with(|spares| {
            let mut spares = spares.borrow_mut();
            if spares.len() < SPARES {
                spares.push(bytes);
            }
        });
    }

    /// Takes the bytes out. Returns them and the number of them that were sent.
    pub(super) fn take(&mut self) -> (Vec<u8>, usize) {
        (take(&mut self.bytes), take(&mut self.sent))
    }
}

/// Copies `from` to `to`, as two pieces of `N` bytes that may overlap. Both slices have the same
/// length, which is between `N` and `2 * N`.
#[inline]
fn copy_ends<const N: usize>(from: &[u8], to: &mut [MaybeUninit<u8>]) {
    if let (Some(from), Some(to)) = (from.first_chunk::<N>(), to.first_chunk_mut::<N>()) {
        *to = from.map(MaybeUninit::new);
    }
    if let (Some(from), Some(to)) = (from.last_chunk::<N>(), to.last_chunk_mut::<N>()) {
        *to = from.map(MaybeUninit::new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pushed_bytes_are_unchanged() {
        let source: Vec<u8> = (0..=255).collect();
        let (mut buffer, mut expected) = (Buffer::default(), Vec::new());
        assert!(!buffer.push(b"no memory"));
        for len in 1..source.len() {
            buffer.reserve(len);
            assert!(buffer.push(&source[..len]));
            expected.extend_from_slice(&source[..len]);
            assert_eq!(buffer.unsent(), expected);
        }
        assert!(!buffer.push(b""));
    }

    #[test]
    fn push_needs_room_and_the_capacity_has_a_limit() {
        let mut buffer = Buffer::default();
        while buffer.unsent().len() < GATHERED_MAX {
            buffer.reserve(1024);
            while buffer.push(&[7; 64]) {}
            assert_eq!(buffer.unsent().len(), buffer.bytes.capacity());
        }
        assert_eq!(buffer.bytes.capacity(), GATHERED_MAX);
        assert!(!buffer.push(b"x"));
        buffer.advance(GATHERED_MAX - 1);
        assert_eq!(buffer.unsent(), [7]);
        buffer.clear();
        assert!(buffer.is_empty());
        assert_eq!(buffer.bytes.capacity(), 0);
    }
}

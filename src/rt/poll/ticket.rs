//! [`Ticket`]: the word of a direction at one moment, and the bits of the word.
//!
//! [`side`](super::side) has a table of the bits. An operation takes a ticket before each of its
//! calls. The result of the call is evidence about the state in the ticket only. So READY is
//! cleared by a compare-and-swap that fails if an edge has incremented the tick since.

use crate::sync::{AtomicU64, Ordering, injected_bug};

pub(super) const READY: u64 = 1 << 0;
pub(super) const LISTED: u64 = 1 << 1;
pub(super) const CLOSING: u64 = 1 << 2;
pub(crate) const HANG_UP: u64 = 1 << 3;
pub(crate) const ERROR: u64 = 1 << 4;
pub(crate) const PRIORITY: u64 = 1 << 5;
/// Writes are gathered. Used in the word of the write direction only.
pub(super) const CORKED: u64 = PRIORITY;
pub(super) const PLACED: u64 = 1 << 6;
pub(super) const COUNTED: u64 = 1 << 7;
pub(super) const TICK_SHIFT: u32 = 40;
pub(super) const TICK_ONE: u64 = 1 << TICK_SHIFT;
pub(super) const TICK_MASK: u64 = !0 << TICK_SHIFT;

/// The value of the word before a system call; see the [module documentation](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(pub(super) u64);

impl Ticket {
    /// A placeholder for a ticket while there is no call.
    pub(crate) const NONE: Ticket = Ticket(0);

    /// Returns whether READY is set. If it is clear, an operation makes its call at most once per
    /// poll before it waits.
    #[inline]
    pub(crate) fn is_ready(self) -> bool {
        self.0 & READY != 0
    }

    /// Returns whether an operation may be waiting in this direction.
    #[inline]
    pub(crate) fn has_waiters(self) -> bool {
        self.0 & (PLACED | LISTED) != 0
    }

    /// Returns whether READY is set and no operation waits.
    #[inline]
    pub(crate) fn is_only_ready(self) -> bool {
        self.0 & (READY | PLACED | LISTED) == READY
    }

    /// Returns whether no edge was recorded between `earlier` and this ticket of the same
    /// direction, and no bit except READY and those of waiters has changed.
    #[inline]
    pub(crate) fn has_no_edge_since(self, earlier: Ticket) -> bool {
        (self.0 ^ earlier.0) & !(READY | PLACED | LISTED) == 0
    }

    /// Returns the tick, which is not shifted down; see [`Side::edges`](super::side::Side::edges).
    pub(crate) fn edges(self) -> u64 {
        self.0 & TICK_MASK
    }

    /// Returns whether a short count does not prove that the direction is idle. After a hang-up, an
    /// error or urgent data, a call may return a short count although no other edge follows. While
    /// writes are gathered, the count of a write is not that of a system call.
    #[inline]
    pub(crate) fn distrusts_short_counts(self) -> bool {
        self.0 & (HANG_UP | ERROR | PRIORITY) != 0
    }
}

/// The place of a direction's word. It outlives the descriptor, and identifies the direction among
/// those of all descriptors that exist.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place(pub(super) &'static AtomicU64);

impl PartialEq for Place {
    #[inline]
    fn eq(&self, other: &Place) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl Place {
    /// Clears READY, because a call that began at `ticket` had a short count. Has no effect if an
    /// edge has been recorded since, or if a bit other than READY and those of waiters has changed,
    /// for example because the word belongs to another descriptor. If edges could be skipped at
    /// `ticket`, the caller must already have called
    /// [`Side::clear_ready`](super::side::Side::clear_ready). It sets COUNTED, which is such a bit,
    /// so this call then has no effect.
    pub(crate) fn clear_ready(self, ticket: Ticket) {
        clear_ready(self.0, ticket);
    }
}

/// Clears READY in `word` and returns true. If `ticket` was not ready, does nothing and returns
/// true. If `ticket` was ready and, since then, an edge was recorded or a bit other than READY and
/// those of waiters has changed, does nothing and returns false.
#[inline]
pub(super) fn clear_ready(word: &AtomicU64, ticket: Ticket) -> bool {
    let mut seen = ticket.0;
    while seen & READY != 0 {
        // ORDERING: AcqRel, as in `Side::open`. If an edge has incremented the tick, this fails.
        match word.compare_exchange_weak(seen, seen & !READY, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return true,
            Err(now) if !injected_bug!("clear_ignores_tick") && !Ticket(now).has_no_edge_since(ticket) => {
                return false;
            }
            Err(now) => seen = now,
        }
    }
    true
}

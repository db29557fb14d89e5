//! The last short count of this thread's turn, which may replace the next call in the same
//! direction. A call has a *short count* if it transfers at least one byte, but fewer bytes than
//! requested.
//!
//! `net::fd::short_wait` has the rules. This module keeps the record: the direction, its state when
//! the call began, and whether the turn has written since or the next read needs no write.
//!
//! # States
//! *none* → ([`set`]) *recorded* → ([`take`], [`forget`]) *none*. A record that is not used is
//! *applied*: READY of its direction is cleared, unless an edge has been recorded since. This
//! happens if another direction has a short count, and at the beginning and the end of a turn
//! ([`end_turn`]). So READY is set after the turn only if a call may succeed.

use std::cell::Cell;
use std::task::Waker;

use super::poll::side::{Place, Ticket};
use super::sched::own_waker;

struct ShortCount {
    /// The direction, or `None` if there is no record.
    place: Cell<Option<Place>>,
    /// The state of the direction when the call began.
    ticket: Cell<Ticket>,
    /// Whether the turn has written since the call, or the next read needs no write.
    has_written: Cell<bool>,
}

thread_local! {
    static SHORT: ShortCount = const {
        ShortCount { place: Cell::new(None), ticket: Cell::new(Ticket::NONE), has_written: Cell::new(false) }
    };
}

// Some functions use several small closures, because a large one is not inlined.

/// Returns whether this thread is in a turn of a task whose own waker is known. Elsewhere no record
/// can be used.
#[inline]
pub(crate) fn is_possible() -> bool {
    own_waker::data().is_some()
}

/// Records that a call that began at `ticket` had a short count in the direction at `place`.
#[inline(always)]
pub(crate) fn set(writes: bool, place: Place, ticket: Ticket) {
    if SHORT.with(|short| short.place.get()).is_some_and(|other| other != place) {
        apply();
    }
    SHORT.with(|short| short.place.set(Some(place)));
    SHORT.with(|short| short.ticket.set(ticket));
    // A short write needs no further write: it proves that the socket's buffer has no room, and the
    // operation waits for room.
    if !writes {
        SHORT.with(|short| short.has_written.set(false));
    }
}

/// Records that the turn has written.
#[inline]
pub(crate) fn note_write() {
    SHORT.with(|short| short.has_written.set(true));
}

/// Permits the record to replace the next read although the turn has not written since. Called if
/// the record is for the direction of that read. Returns false if the turn has written since, so
/// that no permission is needed.
#[inline]
pub(crate) fn need_no_write() -> bool {
    SHORT.with(|short| !short.has_written.replace(true))
}

/// Ends the permission of [`need_no_write`].
#[inline]
pub(crate) fn need_write() {
    SHORT.with(|short| short.has_written.set(false));
}

/// Applies a record that was not used. Called at the beginning and the end of a turn.
#[inline]
pub(crate) fn end_turn() {
    if SHORT.with(|short| short.place.get()).is_some() {
        apply();
    }
}

/// Clears the record and, unless an edge has been recorded since, READY in its direction.
#[cold]
#[inline(never)]
fn apply() {
    SHORT.with(|short| {
        if let Some(place) = short.place.take() {
            place.clear_ready(short.ticket.get());
        }
    });
}

/// Returns whether there is a record for the direction at `place`.
#[inline]
pub(crate) fn is_of(place: Place) -> bool {
    SHORT.with(|short| short.place.get()) == Some(place)
}

/// Returns whether the record shows that the direction at `place`, whose state is `now`, is no
/// longer ready.
#[inline]
pub(crate) fn uses_up(place: Place, now: Ticket) -> bool {
    is_of(place) && now.is_ready() && SHORT.with(|short| now.has_no_edge_since(short.ticket.get()))
}

/// Returns the state in which the call with the short count began, if the record is for the
/// direction at `place`, the turn has written since, and `waker` is the task's own waker.
#[inline]
pub(crate) fn ticket(place: Place, waker: &Waker) -> Option<Ticket> {
    let is_usable = is_of(place) && SHORT.with(|short| short.has_written.get()) && own_waker::has_data_of(waker);
    is_usable.then(|| SHORT.with(|short| short.ticket.get()))
}

/// Returns whether there is a [`ticket`], and no edge has been recorded since. `now` is the present
/// state of the direction. If so, clears the record.
#[inline]
pub(crate) fn take(place: Place, now: Ticket, waker: &Waker) -> bool {
    let is_usable = ticket(place, waker).is_some_and(|ticket| now.has_no_edge_since(ticket));
    if is_usable {
        forget(place);
    }
    is_usable
}

/// Clears the record of the direction at `place`. The caller has cleared READY.
#[inline]
pub(crate) fn forget(place: Place) {
    if is_of(place) {
        SHORT.with(|short| short.place.set(None));
    }
}

#[cfg(test)]
#[path = "short_count_tests.rs"]
mod tests;

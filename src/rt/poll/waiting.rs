//! The waiting half of [`Side`]: how a waiter enters and leaves the slot or the list of a
//! direction.
//!
//! # Slot and list
//! The first waiter uses the slot, which needs no lock: an edge that finds PLACED set clears it in
//! the step that sets READY, and the thread then owns the waker. A waiter enters the list if the
//! slot is taken, if the list is not empty, or if it is a future that was in the list before or
//! waits only for interruption (see [`Interest::Interrupt`]). The waiter in the slot is therefore
//! older than those in the list and is woken first. A thread that clears PLACED of another waiter
//! must wake this waiter, even if the wake-up is spurious: in the meantime the waiter may have
//! missed events, or its future may have been dropped.
//!
//! As in `rt/waiters.rs`, a waiter is a *future* or a *poll* (a task that has called a `poll_*`
//! method).
//!
//! # Invariants
//! * W1 (`waiters`) — a waker is cloned before the slot is taken or the list locked, and dropped or
//!   woken after the thread has given up the slot or the lock. For the slot, [`to_store`] may
//!   return the spare reference of the task instead of a clone.
//! * 2 — a waiter announces itself by a read-modify-write of the word ([`publish`](Side::publish),
//!   [`publish_after`](Side::publish_after), [`announce`](Side::announce)), and then checks again
//!   whether it must not wait.
//!
//! # Cancellation
//! A future that waited calls `end_wait` when it is dropped. It also calls `end_wait` when it
//! completes, unless its last call began in a state without waiters. If the future was woken, or if
//! `wait` returned [`Wait::Retry`], but the future has not made its call since, `end_wait` wakes
//! the next waiter (models `a_dropped_reader_passes_on`,
//! `a_reader_dropped_while_polled_passes_on`).

#![allow(unsafe_code)]

use std::task::Waker;

use crate::rt::poll::poll_desc::generation_of;
use crate::rt::poll::side::{CLOSING, LISTED, PLACED, READY, Side, Ticket, Wait};
use crate::rt::poll::wait_slot::is_of_slot;
use crate::rt::sched::own_waker::to_store;
use crate::rt::waiters::{Interest, Key, Waiter, Waiters, Wakers, wake};
use crate::sync::{MutexGuard, Ordering, injected_bug};

/// The number of waiters in the list of a direction, including polls, at which further futures are
/// refused, similar to the limit of a socket's lock (invariant 13). Polls have a separate limit.
pub(super) const WAITERS_MAX: usize = 1 << 20;

impl Side<'_> {
    /// Puts the waker of `waiter` into the slot or the list. Then, unless the word of the direction
    /// or its deadline already forbids the wait, calls `still`, which returns whether the reason
    /// for the wait still holds. After a change that makes `still` return false, the changing
    /// thread must call [`interrupt`](Side::interrupt).
    #[inline(always)]
    pub(crate) fn wait(self, waiter: Waiter<'_>, interest: Interest, waker: &Waker, still: impl Fn() -> bool) -> Wait {
        match waiter {
            // Cloning runs user code, so it happens before the slot is taken and outside the lock
            // (W1).
            Waiter::Future(key @ None) if interest == Interest::Event => {
                let (waker, is_own) = to_store(waker);
                self.wait_anew(key, waker, is_own, still)
            }
            Waiter::Future(key) => self.wait_again(key, interest, waker, still),
            Waiter::Poll => self.wait_poll(reasons(interest), waker, still),
        }
    }

    /// Starts the wait of a future because of a call with a short count. The call began at
    /// `ticket`, when the direction was ready and had no waiter. `key` must be `None`. Clears READY
    /// in the step that announces the waiter. If the state has changed since `ticket`, or the slot
    /// is taken, returns [`Wait::Retry`] and leaves `key` and the direction unchanged. Otherwise
    /// sets `key`, even if it then returns `Retry` because the deadline has passed or `still`
    /// returns false. `still` is as for [`wait`](Side::wait).
    #[inline(always)]
    pub(crate) fn wait_after(
        self,
        ticket: Ticket,
        key: &mut Option<Key>,
        waker: &Waker,
        still: impl Fn() -> bool,
    ) -> Wait {
        let (waker, is_own) = to_store(waker);
        let Ok(placed) = self.slot().claim(false, waker, is_own) else { return Wait::Retry };
        if !self.publish_after(ticket) {
            return self.leave_unpublished();
        }
        *key = Some(placed);
        if injected_bug!("wait_after_without_recheck") || (!self.is_expired() && still()) {
            return Wait::Listed;
        }
        self.withdraw(key, placed)
    }

    /// Empties the slot, which the caller has claimed and not published.
    #[cold]
    fn leave_unpublished(self) -> Wait {
        // SAFETY: the slot is taken, and the caller has it exclusively.
        drop(unsafe { self.slot().vacate() }.waker);
        Wait::Retry
    }

    /// Starts the wait of a future that is neither in the slot nor in the list.
    #[inline]
    fn wait_anew(self, key: &mut Option<Key>, waker: Waker, is_own: bool, still: impl Fn() -> bool) -> Wait {
        let claimed = if self.word().load(Ordering::Relaxed) & LISTED == 0 {
            self.slot().claim(false, waker, is_own)
        } else {
            Err(waker)
        };
        match claimed {
            Ok(placed) => {
                *key = Some(placed);
                if self.publish(READY, &still) {
                    return Wait::Listed;
                }
                self.withdraw(key, placed)
            }
            Err(waker) => self.wait_listed(key, waker, still),
        }
    }

    /// Starts the wait of a future that enters the list.
    #[cold]
    fn wait_listed(self, key: &mut Option<Key>, waker: Waker, still: impl Fn() -> bool) -> Wait {
        let mut list = self.list().lock();
        *key = Some(list.get_or_insert_default().push(Interest::Event, waker));
        self.look_again(key, true, READY, list, still)
    }

    /// Announces the waiter in the slot, to which the caller has exclusive access. Returns whether
    /// the waiter may wait.
    #[inline]
    fn publish(self, reasons: u64, still: &impl Fn() -> bool) -> bool {
        // ORDERING: AcqRel: Release publishes the waker. With Acquire, the step that announces the
        // waiter sees READY, CLOSING and everything that was stored before an earlier `interrupt`.
        // PLACED is clear before this step, because only the exclusive owner of the slot sets it.
        let word = self.word().fetch_add(PLACED, Ordering::AcqRel);
        debug_assert_eq!(word & PLACED, 0, "published by another thread");
        injected_bug!("wait_without_recheck") || (!self.forbids(word, reasons) && still())
    }

    /// Takes the future `placed`, which must not wait, out of the slot. The future keeps its key,
    /// as if it had been woken, so that `end_wait` passes the wake-up on if the future does not
    /// make its call.
    #[cold]
    fn withdraw(self, key: &mut Option<Key>, placed: Key) -> Wait {
        if injected_bug!("retry_forgets_the_edge") {
            *key = None;
        }
        drop(self.take_out(placed));
        Wait::Retry
    }

    /// Takes the future `key` out of the slot. Returns `None` if it was already taken out.
    fn take_out(self, key: Key) -> Option<Waker> {
        self.take_slot(|| self.slot().is_of(key))?;
        // SAFETY: `take_slot` succeeded, so the slot is taken and exclusively the caller's.
        let found = unsafe { self.slot().vacate() };
        if found.key() == Some(key) || injected_bug!("slot_left_by_another_waiter") {
            return Some(found.waker);
        }
        // The future was taken out between the two checks, and another waiter took the slot. That
        // waiter is woken spuriously; see `turn_out`.
        wake(found.waker);
        None
    }

    /// Clears PLACED if the slot is published and `is_meant` returns true. The slot remains taken,
    /// and the caller then has it exclusively. Otherwise returns `None`.
    fn take_slot(self, is_meant: impl Fn() -> bool) -> Option<()> {
        let mut word = self.word().load(Ordering::Acquire);
        while word & PLACED != 0 && is_meant() {
            // ORDERING: Acquire, for the waker in the slot; Release, as in `open`.
            match self.word().compare_exchange_weak(word, word & !PLACED, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(()),
                Err(now) => word = now,
            }
        }
        None
    }

    /// Continues [`wait`](Side::wait) for a future that has waited before, or that waits for
    /// interruption only. The future may still be listed, with this waker or a different one.
    #[cold]
    fn wait_again(self, key: &mut Option<Key>, interest: Interest, waker: &Waker, still: impl Fn() -> bool) -> Wait {
        if let Some(placed) = key.filter(|&key| is_of_slot(key)) {
            return self.wait_on(key, placed, waker, still);
        }
        let reasons = reasons(interest);
        let interest = if injected_bug!("interrupt_takes_events") { Interest::Event } else { interest };
        // Declared before the guard, so that it is dropped after the guard.
        let mut _replaced = None;
        let mut list = self.list().lock();
        let mut is_new = false;
        if !key.is_some_and(|key| list.as_mut().is_some_and(|waiters| waiters.holds(key, waker))) {
            drop(list);
            let fresh = waker.clone();
            list = self.list().lock();
            let (new, old) = list.get_or_insert_default().insert(*key, interest, fresh);
            is_new = old.is_none();
            (*key, _replaced) = (Some(new), old);
        }
        self.look_again(key, is_new, reasons, list, still)
    }

    /// Continues the wait of a future that has had the slot as `placed`. If it still has the slot,
    /// it keeps its place in the order.
    fn wait_on(self, key: &mut Option<Key>, placed: Key, waker: &Waker, still: impl Fn() -> bool) -> Wait {
        let (waker, is_own) = to_store(waker);
        if self.take_slot(|| self.slot().is_of(placed)).is_some() {
            if self.slot().is_of(placed) {
                // SAFETY: `take_slot` succeeded, so the slot is taken and exclusively the caller's.
                let held = unsafe { self.slot().replace(waker, is_own) };
                let waits = self.publish(READY, &still);
                drop(held);
                return if waits { Wait::Listed } else { self.withdraw(key, placed) };
            }
            self.turn_out();
        }
        self.wait_anew(key, waker, is_own, still)
    }

    /// Evicts another waiter from the slot, which the caller has taken, and wakes it spuriously. It
    /// is not put back: while the caller had the slot, the waiter may have missed events such as a
    /// timeout, and it could not remove its waker if it was dropped. The caller must hold no lock.
    #[cold]
    fn turn_out(self) {
        if injected_bug!("slot_is_put_back") {
            self.word().fetch_add(PLACED, Ordering::AcqRel);
            return;
        }
        // SAFETY: `take_slot` succeeded, so the slot is taken and exclusively the caller's.
        wake(unsafe { self.slot().vacate() }.waker);
    }

    /// Completes the entry of a waiter into the list, which the caller has locked: announces the
    /// waiter and checks again whether it must not wait. `is_new` says whether this call of
    /// [`wait`](Side::wait) has added the waiter to the list. Only such a waiter is refused if the
    /// list is full.
    fn look_again(
        self,
        key: &mut Option<Key>,
        is_new: bool,
        reasons: u64,
        mut list: MutexGuard<'_, Option<Box<Waiters>>>,
        still: impl Fn() -> bool,
    ) -> Wait {
        let full = is_new && list.as_ref().is_some_and(|waiters| waiters.len() > WAITERS_MAX);
        if !full && !self.announce(reasons) && still() {
            return Wait::Listed;
        }
        // The key is kept, as in `withdraw`.
        let listed = if full || injected_bug!("retry_forgets_the_edge") { key.take() } else { *key };
        let removed = listed.and_then(|key| list.as_mut()?.remove(key));
        self.settle(list.as_deref());
        drop(list);
        drop(removed);
        if full { Wait::Full } else { Wait::Retry }
    }

    /// Starts or continues the wait of a poll, which has no key. If the poll must not wait, its
    /// waker remains and may be woken spuriously by a later event, which the caller of a poll must
    /// expect anyway.
    fn wait_poll(self, reasons: u64, waker: &Waker, still: impl Fn() -> bool) -> Wait {
        if self.word().load(Ordering::Relaxed) & LISTED == 0 && self.take_slot_for_poll(waker) {
            return if self.publish(reasons, &still) { Wait::Listed } else { Wait::Retry };
        }
        self.wait_poll_listed(reasons, waker.clone(), still)
    }

    /// Takes the slot for a poll with `waker`, if the slot is free or has an equivalent waker of a
    /// poll. Returns true if it has taken the slot. The caller then has the slot exclusively and
    /// must publish it. If a poll with another waker has the slot, evicts that poll and returns
    /// false.
    fn take_slot_for_poll(self, waker: &Waker) -> bool {
        if self.slot().is_free() {
            let (waker, is_own) = to_store(waker);
            return self.slot().claim(true, waker, is_own).is_ok();
        }
        if self.take_slot(|| self.slot().is_poll()).is_none() {
            return false;
        }
        // SAFETY: `take_slot` succeeded, so the slot is taken and exclusively the caller's.
        if unsafe { self.slot().holds_poll(waker) } {
            return true;
        }
        self.turn_out();
        false
    }

    #[cold]
    fn wait_poll_listed(self, reasons: u64, waker: Waker, still: impl Fn() -> bool) -> Wait {
        let mut old = Wakers::new();
        let mut list = self.list().lock();
        let unused = list.get_or_insert_default().insert_poll(waker, &mut old);
        let waits = !self.announce(reasons) && still();
        drop(list);
        drop(unused);
        old.wake_all();
        if waits { Wait::Listed } else { Wait::Retry }
    }

    /// Announces a waiter in the list, which the caller has locked. Returns true if the waiter must
    /// not wait.
    fn announce(self, reasons: u64) -> bool {
        // ORDERING: AcqRel, as in `publish`.
        let word = self.word().fetch_or(LISTED, Ordering::AcqRel);
        !injected_bug!("wait_without_recheck") && self.forbids(word, reasons)
    }

    /// Returns whether a waiter that was announced in `word` must not wait.
    #[inline]
    fn forbids(self, word: u64, reasons: u64) -> bool {
        word & (reasons | CLOSING) != 0
            || generation_of(word) != self.generation
            // ORDERING: Acquire, after the announcement: `fire` and `set_deadline` store EXPIRED
            // and then call `interrupt`.
            || self.is_expired()
    }

    /// Ends the wait of the future `key`, if there is one. `acted` says whether the future has made
    /// its call since it was woken. If it was woken and has not made its call, passes the wake-up
    /// on.
    pub(crate) fn end_wait(self, key: &mut Option<Key>, acted: bool, wakers: &mut Wakers) {
        let Some(key) = key.take() else { return };
        if !self.has_waiters() {
            return;
        }
        let removed = if is_of_slot(key) {
            self.take_out(key)
        } else {
            let mut list = self.list().lock();
            let removed = list.as_mut().and_then(|waiters| waiters.remove(key));
            self.settle(list.as_deref());
            removed
        };
        if removed.is_none() && !acted && !injected_bug!("drop_keeps_wakeup") {
            self.pass_on(wakers);
        }
    }
}

/// Returns the bits of the word that forbid a wait with this interest, in addition to CLOSING.
#[inline]
fn reasons(interest: Interest) -> u64 {
    if interest == Interest::Event { READY } else { 0 }
}

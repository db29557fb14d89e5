//! The lock of a descriptor: the read lock, the write lock, the number of system calls that use it,
//! and whether it is closed, in one word.
//!
//! Every operation checks this word before it uses the descriptor, except to send gathered writes.
//! A *reference* means that a system call (or a raw closure) is using the descriptor number. It is
//! held during that call only, never across a suspension. The *read lock* and the *write lock*
//! serialise operations of one direction. An operation that writes all of a buffer or a file, such
//! as `write_all`, keeps its lock across suspensions; all other operations that take a lock hold it
//! for one call. Closing sets a bit in the word. After that, the thread that drops the last
//! reference destroys the descriptor.
//!
//! # The word
//!
//! | bits | name | meaning | set by | cleared by |
//! |---|---|---|---|---|
//! | 0 | `CLOSED` | every later lock and reference is refused | `begin_close` | never |
//! | 1 | `READ_LOCKED` | an operation owns the read side | `try_lock_ref`, `poll_lock` | `unlock*` |
//! | 2 | `WRITE_LOCKED` | an operation owns the write side | as above | as above |
//! | 3 | `READ_WAITERS` | the read queue may hold waiters, so `unlock*` must check it | a waiter, under the queues' lock | the call that empties the queue, under that lock |
//! | 4 | `WRITE_WAITERS` | the write queue may hold waiters | as above | as above |
//! | 5–7 | | unused | | |
//! | 8–63 | refs | system calls in progress, plus one for the closer until its `decref` | `incref`, `try_lock_ref`, `poll_lock`, `begin_close` | `decref`, `unlock_ref` |
//!
//! # Invariants
//! * M1 — a direction has at most one owner: its lock bit is set only by a CAS on a word in which
//!   it is clear.
//! * M2 — at most one `decref` or `unlock_ref` returns true: the call that leaves no reference when
//!   `CLOSED` is set. No reference is taken afterwards. (`Fd::take` keeps the closer's reference,
//!   so no call returns true.)
//! * M3 — while a queue holds a waiter, its bit is set. A waiter enters the queue only in the
//!   critical section in which it has seen (by its CAS, or because the bit was already set) that
//!   the lock was taken and the word not closed. So the owner's unlock, or the closer, finds the
//!   waiter.
//! * M4 — no wake-up by an unlock is lost: all waiting callers of `poll_*` methods (*polls*) are
//!   woken, and the one future that is taken from the queue either tries again or, when it is
//!   dropped or refused, passes the wake-up on ([`FdMutex::cancel`]).
//! * M5 — wakers are cloned, woken and dropped with the queues' lock released.
//!
//! # Memory ordering
//! All decisions are made on one word, so no two locations have to be ordered. Locking is Acquire
//! and unlocking is Release: the next owner sees the changes of the previous one to the socket's
//! state. Every call that drops a reference is AcqRel: the caller that destroys the descriptor has
//! seen the end of every call that used it. All other changes are read-modify-writes as well, so
//! release sequences stay intact. A stale load costs a failed CAS, or leads to the queues' lock,
//! under which the relevant bits cannot be stale.
//!
//! # Cancellation
//! A future stores the key that [`FdMutex::poll_lock`] gives it, and its `Drop` passes the key to
//! [`FdMutex::cancel`]. A future that is dropped while it owns the lock unlocks. A poll has no
//! object to drop, so every unlock wakes all polls.
//!
//! # Compared with Go
//! `internal/poll/fd_mutex.go` counts waiters in the word and posts a semaphore. Here there are
//! waiters bits and lists of wakers, because a waiter may disappear. As in Go, there is no
//! hand-off (a newcomer may overtake a woken waiter), waiters hold no reference, and closing
//! releases all waiters at once. Unlike in Go, a lock may be held without a reference, and too many
//! references or waiters are an error instead of a panic.

use std::fmt;
use std::task::{Context, Poll, Waker};

use crate::rt::poll::poll_desc::Direction;
use crate::rt::waiters::{Interest, Key, Waiter, Waiters, Wakers, wake_taken};
use crate::sync::{AtomicU64, Mutex, Ordering, injected_bug};

const CLOSED: u64 = 1;
const READ_LOCKED: u64 = 1 << 1;
const WRITE_LOCKED: u64 = 1 << 2;
const READ_WAITERS: u64 = 1 << 3;
const WRITE_WAITERS: u64 = 1 << 4;
const REFS_SHIFT: u32 = 8;
const REF: u64 = 1 << REFS_SHIFT;

/// The maximum number of references. A reference is held for one system call, so only a leak of
/// references can reach this limit. The limit turns the leak into an error long before the field
/// can wrap.
const REFS_MAX: u64 = (1 << 32) - 1;

/// The number of waiters per direction at which a new future is refused, the same as Go's limit. It
/// bounds the memory of the queue. (Polls have the limit of [`Waiters`].) If a million tasks wait
/// for the same socket, the program has a defect.
const WAITERS_MAX: usize = (1 << 20) - 1;

const FLAGS: u64 = CLOSED | READ_LOCKED | WRITE_LOCKED | READ_WAITERS | WRITE_WAITERS;
const _: () = assert!(FLAGS & !(REF - 1) == 0, "the flags must not overlap the reference count");
const _: () = assert!(REFS_MAX < u64::MAX >> REFS_SHIFT, "the field must have room for the closer's reference");

/// The reason why a lock or a reference was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockError {
    /// The descriptor is closed or being closed.
    Closed,
    /// The descriptor has too many references or waiters.
    TooMany,
}

/// The bits of one direction.
#[derive(Clone, Copy)]
struct Bits {
    locked: u64,
    waiters: u64,
}

#[inline]
const fn bits(direction: Direction) -> Bits {
    match direction {
        Direction::Read => Bits { locked: READ_LOCKED, waiters: READ_WAITERS },
        Direction::Write => Bits { locked: WRITE_LOCKED, waiters: WRITE_WAITERS },
    }
}

/// The waiters of both directions, allocated by the first operation that has to wait for a lock.
#[derive(Debug)]
struct Queues {
    read: Waiters,
    write: Waiters,
}

impl Queues {
    fn of(&mut self, direction: Direction) -> &mut Waiters {
        match direction {
            Direction::Read => &mut self.read,
            Direction::Write => &mut self.write,
        }
    }
}

/// The lock of a descriptor; see the [module documentation](self).
#[repr(C)]
pub(crate) struct FdMutex {
    word: AtomicU64,
    /// One lock for both directions, because it is taken only when a direction is contended.
    queues: Mutex<Option<Box<Queues>>>,
}

impl FdMutex {
    pub(crate) fn new() -> FdMutex {
        FdMutex { word: AtomicU64::new(0), queues: Mutex::new(None) }
    }

    /// Returns whether closing has begun. A hint: only a refused lock or reference is conclusive.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        // ORDERING: Relaxed: no other memory depends on it.
        self.word.load(Ordering::Relaxed) & CLOSED != 0
    }

    /// Returns whether a direction is locked. A hint, like [`is_closed`](FdMutex::is_closed).
    #[inline]
    pub(crate) fn is_locked(&self, direction: Direction) -> bool {
        self.word.load(Ordering::Relaxed) & bits(direction).locked != 0
    }

    /// Calls `lock`, which locks a state, and returns its guard, unless the direction is locked or
    /// the descriptor is closed. An operation may take the direction's lock while the guard lives,
    /// but it cannot lock the state before the guard is dropped.
    #[inline]
    pub(crate) fn lock_while_free<G>(&self, direction: Direction, lock: impl FnOnce() -> G) -> Option<G> {
        let is_free = || self.is_free(direction);
        if injected_bug!("fd_mutex_looks_before_state_is_locked") {
            return if is_free() { Some(lock()) } else { None };
        }
        let state = lock();
        // An owner that locked the state earlier had taken the direction's lock before that, so
        // locking the state makes the bit visible here. An owner that locks the state later sees
        // the changes made under this guard (model `appends_come_between_operations`).
        if is_free() { Some(state) } else { None }
    }

    /// Returns whether the direction is not locked and the descriptor is not closed. The caller
    /// must have access to the state that [`lock_while_free`](FdMutex::lock_while_free) describes.
    #[inline]
    pub(crate) fn is_free(&self, direction: Direction) -> bool {
        // ORDERING: Relaxed: access to the state orders this load; see `lock_while_free`.
        self.word.load(Ordering::Relaxed) & (CLOSED | bits(direction).locked) == 0
    }

    /// Takes a reference for one system call.
    #[inline]
    pub(crate) fn incref(&self) -> Result<(), LockError> {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            if word & CLOSED != 0 {
                return Err(LockError::Closed);
            }
            if word >> REFS_SHIFT >= REFS_MAX {
                return Err(LockError::TooMany);
            }
            // ORDERING: Acquire, for symmetry with the locks; a reference protects a number, not
            // data.
            match self.word.compare_exchange_weak(word, word + REF, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => word = now,
            }
        }
    }

    /// Drops a reference. Returns true if it was the last reference to a closed descriptor: the
    /// caller must then destroy the descriptor.
    #[inline]
    #[must_use = "the last reference destroys the descriptor"]
    pub(crate) fn decref(&self) -> bool {
        self.release(0, REF).1
    }

    /// Begins the close: in one step, refuses all later locks and references, and takes a reference
    /// for the caller. Returns the wakers of both directions. The caller must drop the reference
    /// (unless it gives the descriptor away), and wake the wakers when it holds no lock.
    ///
    /// # Errors
    /// Returns `Closed` if the close has already begun.
    pub(crate) fn begin_close(&self) -> Result<Wakers, LockError> {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            if word & CLOSED != 0 {
                return Err(LockError::Closed);
            }
            // ORDERING: AcqRel: the caller that destroys the descriptor sees all that the closer
            // did before this step.
            match self.word.compare_exchange_weak(word, (word | CLOSED) + REF, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        let mut wakers = Wakers::new();
        // No waiter enters after CLOSED is set, and the bit of a waiter that entered before is in
        // `word` (M3).
        if word & (READ_WAITERS | WRITE_WAITERS) != 0 && !injected_bug!("fd_mutex_close_leaves_waiters") {
            let mut queues = self.queues.lock();
            if let Some(queues) = queues.as_deref_mut() {
                queues.read.take_all(&mut wakers);
                queues.write.take_all(&mut wakers);
            }
            self.word.fetch_and(!(READ_WAITERS | WRITE_WAITERS), Ordering::Relaxed);
        }
        Ok(wakers)
    }

    /// Takes a direction's lock and a reference, for one system call, if the lock is free. Returns
    /// `Ok(false)` if another operation has it.
    #[inline]
    pub(crate) fn try_lock_ref(&self, direction: Direction) -> Result<bool, LockError> {
        self.acquire(bits(direction))
    }

    /// Releases the lock of a caller that has already dropped its reference, and wakes the next
    /// waiters. Wakers run here, so the caller must hold no lock.
    #[inline]
    pub(crate) fn unlock(&self, direction: Direction) {
        let bits = bits(direction);
        if self.release(bits.locked, 0).0 & bits.waiters != 0 {
            self.wake_next(direction);
        }
    }

    /// Releases a lock and a reference, and wakes the next waiters. Returns true if the reference
    /// was the last one to a closed descriptor: the caller must then destroy the descriptor.
    /// Wakers run here, so the caller must hold no lock.
    #[inline(always)]
    #[must_use = "the last reference destroys the descriptor"]
    pub(crate) fn unlock_ref(&self, direction: Direction) -> bool {
        let bits = bits(direction);
        let before = self.subtract(bits.locked + REF);
        // The usual case in one comparison: the lock was held, nothing waits for it, and the
        // descriptor is open.
        if before & (bits.locked | bits.waiters | CLOSED) == bits.locked && before >= REF {
            return false;
        }
        self.end_unlock_ref(direction, before)
    }

    /// Completes [`unlock_ref`](FdMutex::unlock_ref), which has changed the word from `before`.
    #[cold]
    fn end_unlock_ref(&self, direction: Direction, before: u64) -> bool {
        let bits = bits(direction);
        let last = self.is_last(before, bits.locked, REF);
        if before & bits.waiters != 0 {
            self.wake_next(direction);
        }
        last
    }

    /// Takes a direction's lock and a reference, for one system call. If another operation has the
    /// lock, queues the waiter.
    ///
    /// When this returns `Ready`, the key of a future is `None` again. A future that is dropped or
    /// gives up while it has a key must call [`cancel`](FdMutex::cancel). The waker of a poll stays
    /// in the queue until it is woken, at the latest by the next unlock or by the close.
    #[inline]
    pub(crate) fn poll_lock(
        &self,
        direction: Direction,
        cx: &mut Context<'_>,
        waiter: Waiter<'_>,
    ) -> Poll<Result<(), LockError>> {
        if !is_queued(&waiter) {
            match self.acquire(bits(direction)) {
                Ok(true) => return Poll::Ready(Ok(())),
                Ok(false) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.poll_lock_slow(direction, cx, waiter)
    }

    /// Removes from the queue a future that gives up or is dropped. If the future has been woken
    /// already, wakes the next waiter in its place.
    #[cold]
    pub(crate) fn cancel(&self, direction: Direction, key: Key) {
        let mut wakers = Wakers::new();
        let removed = {
            let mut queues = self.queues.lock();
            let Some(queues) = queues.as_deref_mut() else { return };
            let queue = queues.of(direction);
            let removed = queue.remove(key);
            if removed.is_none() && !injected_bug!("fd_mutex_cancel_keeps_wakeup") {
                // This does not check whether the lock is free: if the lock is taken, the waiter
                // queues again.
                queue.take_event(&mut wakers);
            }
            self.settle(bits(direction), queue);
            removed
        };
        drop(removed);
        wakers.wake_all();
    }

    /// Takes the lock and a reference if the lock is free. Returns `Ok(false)` if it is not.
    #[inline]
    fn acquire(&self, bits: Bits) -> Result<bool, LockError> {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            if word & (CLOSED | bits.locked) != 0 || word >> REFS_SHIFT >= REFS_MAX {
                return refusal(word, bits);
            }
            // ORDERING: Acquire pairs with the Release in `subtract`: the previous owner's work is
            // visible (model `one_owner_per_direction`).
            let ordering =
                if injected_bug!("fd_mutex_lock_is_relaxed") { Ordering::Relaxed } else { Ordering::Acquire };
            match self.word.compare_exchange_weak(word, word + bits.locked + REF, ordering, Ordering::Relaxed) {
                Ok(_) => return Ok(true),
                Err(now) => word = now,
            }
        }
    }

    /// Takes the lock and a reference like [`acquire`](FdMutex::acquire). If another operation has
    /// the lock, makes sure that the waiters bit is set while the lock is taken (M3). The caller
    /// must hold the queues' lock.
    fn acquire_or_announce(&self, bits: Bits) -> Result<bool, LockError> {
        loop {
            if self.acquire(bits)? {
                return Ok(true);
            }
            let word = self.word.load(Ordering::Relaxed);
            if injected_bug!("fd_mutex_announce_without_look") {
                self.word.fetch_or(bits.waiters, Ordering::Relaxed);
                return Ok(false);
            }
            if word & CLOSED != 0 || word & bits.locked == 0 {
                continue;
            }
            if word & bits.waiters != 0 {
                return Ok(false);
            }
            // ORDERING: Relaxed: the queues' lock guards the contents of the queue. The CAS fails
            // if an unlock or a close came first.
            if self.word.compare_exchange(word, word | bits.waiters, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return Ok(false);
            }
        }
    }

    /// Subtracts `locked` and `refs` from the word. Returns the previous word, and whether this
    /// dropped the last reference of a closed descriptor.
    #[inline]
    fn release(&self, locked: u64, refs: u64) -> (u64, bool) {
        let word = self.subtract(locked + refs);
        (word, self.is_last(word, locked, refs))
    }

    /// Subtracts a lock bit, references or both from the word, and returns the previous word.
    #[inline(always)]
    fn subtract(&self, held: u64) -> u64 {
        // ORDERING: Release publishes the owner's work to the next lock (pairs with `acquire`).
        // Acquire is for the last reference: the descriptor is destroyed after every call that used
        // it. Models `one_owner_per_direction`, `last_reference_destroys_once`.
        let ordering = match () {
            () if injected_bug!("fd_mutex_unlock_is_relaxed") => Ordering::Relaxed,
            () if injected_bug!("fd_mutex_last_does_not_acquire") => Ordering::Release,
            () => Ordering::AcqRel,
        };
        self.word.fetch_sub(held, ordering)
    }

    /// Returns whether subtracting `locked` and `refs` from `word` has dropped the last reference
    /// of a closed descriptor. If the caller did not hold them, undoes the subtraction and panics.
    #[inline]
    fn is_last(&self, word: u64, locked: u64, refs: u64) -> bool {
        if word & locked != locked || word >> REFS_SHIFT < refs >> REFS_SHIFT {
            self.word.fetch_add(locked + refs, Ordering::Relaxed);
            inconsistent();
        }
        let after = if injected_bug!("fd_mutex_last_seen_twice") {
            self.word.load(Ordering::SeqCst)
        } else {
            word - locked - refs
        };
        refs != 0 && after & CLOSED != 0 && after >> REFS_SHIFT == 0
    }

    /// Clears the waiters bit if the queue is empty. The caller must hold the queues' lock.
    fn settle(&self, bits: Bits, queue: &Waiters) {
        if queue.is_empty() || injected_bug!("fd_mutex_bit_cleared_early") {
            self.word.fetch_and(!bits.waiters, Ordering::Relaxed);
        }
    }

    #[cold]
    fn wake_next(&self, direction: Direction) {
        wake_taken(|wakers| {
            let mut queues = self.queues.lock();
            let Some(queues) = queues.as_deref_mut() else { return };
            let queue = queues.of(direction);
            queue.take_event(wakers);
            self.settle(bits(direction), queue);
        });
    }

    #[cold]
    fn poll_lock_slow(
        &self,
        direction: Direction,
        cx: &mut Context<'_>,
        mut waiter: Waiter<'_>,
    ) -> Poll<Result<(), LockError>> {
        let bits = bits(direction);
        let mut waker = if is_queued(&waiter) { None } else { Some(cx.waker().clone()) };
        // The waiters to wake in place of this one, or because an insertion evicted them (W2).
        let mut others = Wakers::new();
        loop {
            let (outcome, discarded) = {
                let mut queues = self.queues.lock();
                let queue = queues.get_or_insert_with(new_queues).of(direction);
                self.try_or_queue(bits, queue, cx.waker(), &mut waker, &mut waiter, &mut others)
            };
            drop(discarded);
            others.wake_all();
            match outcome {
                Some(outcome) => return outcome,
                None => waker = Some(cx.waker().clone()),
            }
        }
    }

    /// Runs one critical section of [`poll_lock_slow`](FdMutex::poll_lock_slow). The outcome is
    /// `None` if a clone of the waker is needed. The second value is a waker that the caller must
    /// drop outside the lock.
    #[allow(clippy::too_many_arguments)]
    fn try_or_queue(
        &self,
        bits: Bits,
        queue: &mut Waiters,
        current: &Waker,
        waker: &mut Option<Waker>,
        waiter: &mut Waiter<'_>,
        others: &mut Wakers,
    ) -> (Option<Poll<Result<(), LockError>>>, Option<Waker>) {
        let result = match (self.acquire_or_announce(bits), waiter.reborrow()) {
            (Ok(false), Waiter::Poll) => {
                let unused = waker.take().and_then(|waker| queue.insert_poll(waker, others));
                return (Some(Poll::Pending), unused);
            }
            (Ok(false), Waiter::Future(key)) if key.is_some_and(|key| queue.holds(key, current)) => {
                return (Some(Poll::Pending), None);
            }
            // A waiter that was admitted once is not refused when it returns after a wake-up.
            (Ok(false), Waiter::Future(key)) if key.is_some() || queue.len() < WAITERS_MAX => match waker.take() {
                Some(waker) => {
                    let (new_key, replaced) = queue.insert(*key, Interest::Event, waker);
                    *key = Some(new_key);
                    return (Some(Poll::Pending), replaced);
                }
                None => return (None, None),
            },
            (Ok(false), Waiter::Future(_)) => Err(LockError::TooMany),
            (Ok(true), _) => Ok(()),
            (Err(error), _) => Err(error),
        };
        let mut removed = None;
        if let Waiter::Future(key) = waiter
            && let Some(key) = key.take()
        {
            removed = queue.remove(key);
            if removed.is_none() && result == Err(LockError::TooMany) {
                // The waiter was woken but does not take the lock, so another waiter is woken in
                // its place.
                queue.take_event(others);
            }
        }
        self.settle(bits, queue);
        (Some(Poll::Ready(result)), removed)
    }
}

impl fmt::Debug for FdMutex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word.load(Ordering::Relaxed);
        f.debug_struct("FdMutex")
            .field("closed", &(word & CLOSED != 0))
            .field("read_locked", &(word & READ_LOCKED != 0))
            .field("write_locked", &(word & WRITE_LOCKED != 0))
            .field("refs", &(word >> REFS_SHIFT))
            .finish_non_exhaustive()
    }
}

/// Returns the result of an attempt to take a lock in the state `word`, which does not permit it.
#[cold]
fn refusal(word: u64, bits: Bits) -> Result<bool, LockError> {
    match () {
        () if word & CLOSED != 0 => Err(LockError::Closed),
        () if word & bits.locked != 0 => Ok(false),
        () => Err(LockError::TooMany),
    }
}

/// Returns whether the waiter is in a queue, or was in a queue until it was woken.
#[inline]
fn is_queued(waiter: &Waiter<'_>) -> bool {
    waiter.future().is_some_and(Option::is_some)
}

#[cold]
fn new_queues() -> Box<Queues> {
    Box::new(Queues { read: Waiters::new(), write: Waiters::new() })
}

/// Reports that a caller released a lock or a reference that it did not hold.
#[cold]
#[inline(never)]
fn inconsistent() -> ! {
    panic!("inconsistent FdMutex");
}

#[cfg(test)]
#[path = "fd_mutex_tests.rs"]
mod tests;

//! The lock of a descriptor: who may read, who may write, who uses it now, and whether it is closed, in one word.
//!
//! `Fd` asks here before every system call. A *reference* says "a system call (or a raw closure) is using the
//! descriptor number"; it is taken around that call only and never kept across a suspension. The *read lock* and the
//! *write lock* serialise operations of one direction; `write_all` keeps its lock across suspensions, everything else
//! holds lock and reference for one call. Closing marks the word; whoever drops the last reference destroys the
//! descriptor.
//!
//! # The word
//!
//! | bits | name | meaning | set by | cleared by |
//! |---|---|---|---|---|
//! | 0 | `CLOSED` | every later lock and reference is refused | `begin_close` | never |
//! | 1 | `READ_LOCKED` | an operation owns the read side | `try_lock*`, `poll_lock*` | `unlock*` |
//! | 2 | `WRITE_LOCKED` | the same for the write side | | |
//! | 3 | `READ_WAITERS` | the read queue may hold waiters: `unlock` must look | a waiter, under the queues' lock | who empties the queue, under that lock |
//! | 4 | `WRITE_WAITERS` | the same for the write queue | | |
//! | 5–7 | | unused | | |
//! | 8–63 | refs | system calls in flight, and one for a closer until its `decref` | `incref`, `*_ref`, `begin_close` | `decref`, `unlock_ref` |
//!
//! # Invariants
//! * M1 — a direction has one owner: its lock bit goes 0 → 1 by one CAS.
//! * M2 — exactly one `decref`/`unlock_ref` answers "last", after `CLOSED`, when no reference is left; none comes after
//!   it.
//! * M3 — a queue that holds a waiter has its bit set. A waiter enters only in the critical section in which it saw (by
//!   CAS, or with the bit there already) the lock taken and the word open; so the owner's unlock, or the closer, finds
//!   it.
//! * M4 — of an unlock's wake-ups none is lost: every poll is woken, and the one future taken either comes back and
//!   tries, or passes the wake-up on when it is dropped ([`FdMutex::cancel`]).
//! * M5 — wakers are cloned, woken and dropped with the queues' lock released.
//!
//! # Memory ordering
//! All decisions are made on one word, so there is no race between two places to order. Locking is Acquire and
//! unlocking Release: what an owner did to the socket's state is seen by the next. `decref` is AcqRel: whoever destroys
//! the descriptor has seen the end of every call that used it. Other changes are read-modify-writes too, so they keep
//! release sequences whole. A stale load costs a failed CAS, or leads to the queues' lock, behind which it cannot be
//! stale in the way that matters.
//!
//! # Cancellation
//! [`FdMutex::poll_lock`] keeps its key in the future; the future's `Drop` hands it to [`FdMutex::cancel`]. An owner
//! that is dropped unlocks. Poll callers have no object to drop, hence all of them are woken at every unlock.
//!
//! # Compared with Go
//! `internal/poll/fd_mutex.go` counts waiters in the word and posts a semaphore; here are has-waiters bits and lists of
//! wakers, because a waiter may vanish. As there: no hand-off (a newcomer may overtake the one woken), waiters hold no
//! reference, closing frees all waiters at once. Unlike there: a lock may be held without a reference, and too many
//! references or waiters are an error instead of a panic.

use std::fmt;
use std::task::{Context, Poll, Waker};

use crate::rt::poll_desc::Direction;
use crate::rt::waiters::{Interest, Key, Waiters, Wakers};
use crate::sync::{AtomicU64, Mutex, Ordering, planted};

const CLOSED: u64 = 1;
const READ_LOCKED: u64 = 1 << 1;
const WRITE_LOCKED: u64 = 1 << 2;
const READ_WAITERS: u64 = 1 << 3;
const WRITE_WAITERS: u64 = 1 << 4;
const REFS_SHIFT: u32 = 8;
const REF: u64 = 1 << REFS_SHIFT;

/// Most references at a time. References are held for a system call, so no program has this many unless it leaks
/// guards; the bound turns that into an error long before the field could wrap.
const REFS_MAX: u64 = (1 << 32) - 1;

/// Most waiters in one direction's queue: Go's bound. Each is a task that waits to use one socket; a million of them is
/// a program out of control, and the list's memory must have an end.
const WAITERS_MAX: usize = (1 << 20) - 1;

const FLAGS: u64 = CLOSED | READ_LOCKED | WRITE_LOCKED | READ_WAITERS | WRITE_WAITERS;
const _: () = assert!(FLAGS & !(REF - 1) == 0, "the flags end below the reference count");
const _: () = assert!(REFS_MAX < u64::MAX >> REFS_SHIFT, "the closer's reference fits above the bound");

/// Why a lock or a reference was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockError {
    /// The descriptor is closed, or being closed.
    Closed,
    /// Too many references or waiters on one descriptor.
    TooMany,
}

/// A direction's bits.
#[derive(Clone, Copy)]
struct Side {
    locked: u64,
    waiters: u64,
}

#[inline]
const fn side(direction: Direction) -> Side {
    match direction {
        Direction::Read => Side { locked: READ_LOCKED, waiters: READ_WAITERS },
        Direction::Write => Side { locked: WRITE_LOCKED, waiters: WRITE_WAITERS },
    }
}

/// The waiters of both directions, allocated by the first lock that has to wait.
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

/// See the module's header.
pub(crate) struct FdMutex {
    word: AtomicU64,
    /// One lock for both directions: it is taken only where a direction is contended, and a socket pays 24 bytes.
    queues: Mutex<Option<Box<Queues>>>,
}

impl FdMutex {
    pub(crate) fn new() -> FdMutex {
        FdMutex { word: AtomicU64::new(0), queues: Mutex::new(None) }
    }

    /// Whether closing has begun. A hint: only a refused lock or reference decides.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        // ORDERING: Relaxed, nothing is read on the strength of it.
        self.word.load(Ordering::Relaxed) & CLOSED != 0
    }

    /// Whether somebody has the lock of a direction. A hint, as [`is_closed`](FdMutex::is_closed).
    #[inline]
    pub(crate) fn is_locked(&self, direction: Direction) -> bool {
        self.word.load(Ordering::Relaxed) & side(direction).locked != 0
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
            // ORDERING: Acquire, for symmetry with the locks; a reference protects a number, not data.
            match self.word.compare_exchange_weak(word, word + REF, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => word = now,
            }
        }
    }

    /// Drops a reference. True says that it was the last one of a closed descriptor: the caller must destroy it.
    #[inline]
    #[must_use = "the last reference destroys the descriptor"]
    pub(crate) fn decref(&self) -> bool {
        self.release(0, REF).1
    }

    /// Closes: refuses everything from here on and takes a reference for the caller, in one step. Returns the waiters
    /// of both directions, whom the caller wakes before it evicts the poller's waiters and drops its reference.
    pub(crate) fn begin_close(&self) -> Result<Wakers, LockError> {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            if word & CLOSED != 0 {
                return Err(LockError::Closed);
            }
            // ORDERING: AcqRel, what the closer did before is seen by whoever destroys the descriptor.
            match self.word.compare_exchange_weak(word, (word | CLOSED) + REF, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        let mut wakers = Wakers::new();
        // No waiter enters after CLOSED, and one that entered before has its bit in `word` (M3).
        if word & (READ_WAITERS | WRITE_WAITERS) != 0 && !planted!("fd_mutex_close_leaves_waiters") {
            let mut queues = self.queues.lock();
            if let Some(queues) = queues.as_deref_mut() {
                queues.read.take_all(&mut wakers);
                queues.write.take_all(&mut wakers);
            }
            self.word.fetch_and(!(READ_WAITERS | WRITE_WAITERS), Ordering::Relaxed);
        }
        Ok(wakers)
    }

    /// Tries to take a direction's lock without a reference, to be kept across suspensions. `Ok(false)`: somebody has
    /// it.
    #[inline]
    pub(crate) fn try_lock(&self, direction: Direction) -> Result<bool, LockError> {
        self.acquire(side(direction), false)
    }

    /// Tries to take a direction's lock and a reference, for one system call. `Ok(false)`: somebody has the lock.
    #[inline]
    pub(crate) fn try_lock_ref(&self, direction: Direction) -> Result<bool, LockError> {
        self.acquire(side(direction), true)
    }

    /// Gives back a lock that was taken without a reference, and wakes who waits for it. Wakers run here: call it with
    /// no lock held.
    #[inline]
    pub(crate) fn unlock(&self, direction: Direction) {
        let side = side(direction);
        if self.release(side.locked, 0).0 & side.waiters != 0 {
            self.wake_next(direction);
        }
    }

    /// Gives back a lock and a reference, and wakes who waits for the lock. True says that the reference was the last
    /// one of a closed descriptor: the caller must destroy it. Wakers run here: call it with no lock held.
    #[inline]
    #[must_use = "the last reference destroys the descriptor"]
    pub(crate) fn unlock_ref(&self, direction: Direction) -> bool {
        let side = side(direction);
        let (before, last) = self.release(side.locked, REF);
        if before & side.waiters != 0 {
            self.wake_next(direction);
        }
        last
    }

    /// Takes a direction's lock (and a reference, where `with_ref`) for a named future, or queues it.
    ///
    /// `key` is the future's place in the queue: none at first, kept by the future between polls, none again once this
    /// returns `Ready`. A future that is dropped, or gives up, while it has a key must call
    /// [`cancel`](FdMutex::cancel).
    #[inline]
    pub(crate) fn poll_lock(
        &self,
        direction: Direction,
        with_ref: bool,
        cx: &mut Context<'_>,
        key: &mut Option<Key>,
    ) -> Poll<Result<(), LockError>> {
        if key.is_none() {
            match if with_ref { self.try_lock_ref(direction) } else { self.try_lock(direction) } {
                Ok(true) => return Poll::Ready(Ok(())),
                Ok(false) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.poll_lock_slow(direction, with_ref, cx, key)
    }

    /// Takes a direction's lock and a reference for a `poll_*` call, or keeps its waker until the next unlock.
    #[inline]
    pub(crate) fn poll_lock_poll(&self, direction: Direction, cx: &mut Context<'_>) -> Poll<Result<(), LockError>> {
        match self.try_lock_ref(direction) {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => self.poll_lock_poll_slow(direction, cx),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Takes a future that no longer wants the lock out of the queue. Where it had been woken, the next waiter is woken
    /// in its place.
    #[cold]
    pub(crate) fn cancel(&self, direction: Direction, key: Key) {
        let mut wakers = Wakers::new();
        let removed = {
            let mut queues = self.queues.lock();
            let Some(queues) = queues.as_deref_mut() else { return };
            let queue = queues.of(direction);
            let removed = queue.remove(key);
            if removed.is_none() && !planted!("fd_mutex_cancel_keeps_wakeup") {
                // Whether the lock is free is not asked: if it is not, the waiter looks and queues again.
                queue.take_event(&mut wakers);
            }
            self.settle(side(direction), queue);
            removed
        };
        drop(removed);
        wakers.wake_all();
    }

    /// `Ok(false)`: somebody has the lock.
    #[inline]
    fn acquire(&self, side: Side, with_ref: bool) -> Result<bool, LockError> {
        let added = if with_ref { side.locked + REF } else { side.locked };
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            if word & CLOSED != 0 {
                return Err(LockError::Closed);
            }
            if word & side.locked != 0 {
                return Ok(false);
            }
            if with_ref && word >> REFS_SHIFT >= REFS_MAX {
                return Err(LockError::TooMany);
            }
            // ORDERING: Acquire, pairs with the Release in `release`: the last owner's work is seen (model
            // `one_owner_a_direction`).
            let ordering = if planted!("fd_mutex_lock_is_relaxed") { Ordering::Relaxed } else { Ordering::Acquire };
            match self.word.compare_exchange_weak(word, word + added, ordering, Ordering::Relaxed) {
                Ok(_) => return Ok(true),
                Err(now) => word = now,
            }
        }
    }

    /// [`acquire`](FdMutex::acquire) for the holder of the queues' lock: where the direction is taken, its waiters bit
    /// is set in the same step (M3).
    fn acquire_or_announce(&self, side: Side, with_ref: bool) -> Result<bool, LockError> {
        loop {
            if self.acquire(side, with_ref)? {
                return Ok(true);
            }
            let word = self.word.load(Ordering::Relaxed);
            if planted!("fd_mutex_announce_without_look") {
                self.word.fetch_or(side.waiters, Ordering::Relaxed);
                return Ok(false);
            }
            if word & CLOSED != 0 || word & side.locked == 0 {
                continue;
            }
            if word & side.waiters != 0 {
                return Ok(false);
            }
            // ORDERING: Relaxed, the queue's contents are guarded by its lock; the CAS decides against unlock and
            // close.
            if self.word.compare_exchange(word, word | side.waiters, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return Ok(false);
            }
        }
    }

    /// Takes `locked` and `refs` off the word. Returns the word before and whether the last reference went.
    #[inline]
    fn release(&self, locked: u64, refs: u64) -> (u64, bool) {
        // ORDERING: Release publishes the owner's work to the next lock (pairs with `acquire`). Acquire, for the last
        // reference: the descriptor is destroyed after every call that used it. Models `one_owner_a_direction`,
        // `last_reference_destroys_once`.
        let ordering = match () {
            () if planted!("fd_mutex_unlock_is_relaxed") => Ordering::Relaxed,
            () if planted!("fd_mutex_last_does_not_acquire") => Ordering::Release,
            () => Ordering::AcqRel,
        };
        let word = self.word.fetch_sub(locked + refs, ordering);
        if word & locked != locked || word >> REFS_SHIFT < refs >> REFS_SHIFT {
            self.word.fetch_add(locked + refs, Ordering::Relaxed);
            inconsistent();
        }
        let after =
            if planted!("fd_mutex_last_seen_twice") { self.word.load(Ordering::SeqCst) } else { word - locked - refs };
        (word, refs != 0 && after & CLOSED != 0 && after >> REFS_SHIFT == 0)
    }

    /// Clears the waiters bit of a queue that has become empty; the caller holds the queues' lock.
    fn settle(&self, side: Side, queue: &Waiters) {
        if queue.is_empty() || planted!("fd_mutex_bit_cleared_early") {
            self.word.fetch_and(!side.waiters, Ordering::Relaxed);
        }
    }

    #[cold]
    fn wake_next(&self, direction: Direction) {
        let mut wakers = Wakers::new();
        {
            let mut queues = self.queues.lock();
            let Some(queues) = queues.as_deref_mut() else { return };
            let queue = queues.of(direction);
            queue.take_event(&mut wakers);
            self.settle(side(direction), queue);
        }
        wakers.wake_all();
    }

    #[cold]
    fn poll_lock_slow(
        &self,
        direction: Direction,
        with_ref: bool,
        cx: &mut Context<'_>,
        key: &mut Option<Key>,
    ) -> Poll<Result<(), LockError>> {
        let side = side(direction);
        let mut waker = if key.is_none() { Some(cx.waker().clone()) } else { None };
        let mut passed_on = Wakers::new();
        loop {
            let (outcome, discarded) = {
                let mut queues = self.queues.lock();
                let queue = queues.get_or_insert_with(new_queues).of(direction);
                self.try_or_queue(side, with_ref, queue, cx.waker(), &mut waker, key, &mut passed_on)
            };
            drop(discarded);
            passed_on.wake_all();
            match outcome {
                Some(outcome) => return outcome,
                None => waker = Some(cx.waker().clone()),
            }
        }
    }

    /// One critical section of [`poll_lock_slow`](FdMutex::poll_lock_slow). The outcome is none where a clone of the
    /// waker is needed; the second value is a waker to drop outside the lock.
    #[allow(clippy::too_many_arguments)]
    fn try_or_queue(
        &self,
        side: Side,
        with_ref: bool,
        queue: &mut Waiters,
        current: &Waker,
        waker: &mut Option<Waker>,
        key: &mut Option<Key>,
        passed_on: &mut Wakers,
    ) -> (Option<Poll<Result<(), LockError>>>, Option<Waker>) {
        let result = match self.acquire_or_announce(side, with_ref) {
            Ok(true) => Ok(()),
            Ok(false) if key.is_some_and(|key| queue.holds(key, current)) => return (Some(Poll::Pending), None),
            // Who was let in once is not refused when it comes back after a wake-up.
            Ok(false) if key.is_some() || queue.len() < WAITERS_MAX => match waker.take() {
                Some(waker) => {
                    let (new_key, replaced) = queue.insert(*key, Interest::Event, waker);
                    *key = Some(new_key);
                    return (Some(Poll::Pending), replaced);
                }
                None => return (None, None),
            },
            Ok(false) => Err(LockError::TooMany),
            Err(error) => Err(error),
        };
        let mut removed = None;
        if let Some(key) = key.take() {
            removed = queue.remove(key);
            if removed.is_none() && result == Err(LockError::TooMany) {
                // It was woken for a lock that it does not take.
                queue.take_event(passed_on);
            }
        }
        self.settle(side, queue);
        (Some(Poll::Ready(result)), removed)
    }

    #[cold]
    fn poll_lock_poll_slow(&self, direction: Direction, cx: &mut Context<'_>) -> Poll<Result<(), LockError>> {
        let side = side(direction);
        let mut waker = None;
        loop {
            {
                let mut queues = self.queues.lock();
                let queue = queues.get_or_insert_with(new_queues).of(direction);
                match self.acquire_or_announce(side, true) {
                    Ok(true) => return Poll::Ready(Ok(())),
                    Err(error) => return Poll::Ready(Err(error)),
                    Ok(false) if queue.holds_poll(cx.waker()) => return Poll::Pending,
                    Ok(false) if queue.len() >= WAITERS_MAX => return Poll::Ready(Err(LockError::TooMany)),
                    Ok(false) => {}
                }
                if let Some(waker) = waker.take() {
                    queue.insert_poll(waker);
                    return Poll::Pending;
                }
            }
            waker = Some(cx.waker().clone());
        }
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

#[cold]
fn new_queues() -> Box<Queues> {
    Box::new(Queues { read: Waiters::new(), write: Waiters::new() })
}

/// Somebody gave back what they did not have.
#[cold]
#[inline(never)]
fn inconsistent() -> ! {
    panic!("inconsistent FdMutex");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use futures_lite::future::block_on;

    const DIRECTIONS: [Direction; 2] = [Direction::Read, Direction::Write];

    /// A waker that counts.
    #[derive(Debug, Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Count>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn counter() -> (Arc<Count>, Waker) {
        let count = Arc::new(Count::default());
        (count.clone(), Waker::from(count))
    }

    fn woken(count: &Count) -> usize {
        count.0.load(Ordering::SeqCst)
    }

    /// Polls once for the lock with a reference.
    fn poll(
        mutex: &FdMutex,
        direction: Direction,
        waker: &Waker,
        key: &mut Option<Key>,
    ) -> Poll<Result<(), LockError>> {
        mutex.poll_lock(direction, true, &mut Context::from_waker(waker), key)
    }

    fn lock(mutex: &FdMutex, direction: Direction) -> Result<(), LockError> {
        let mut key = None;
        block_on(poll_fn(|cx| mutex.poll_lock(direction, true, cx, &mut key)))
    }

    fn waiters_bits(mutex: &FdMutex) -> u64 {
        mutex.word.load(Ordering::SeqCst) & (READ_WAITERS | WRITE_WAITERS)
    }

    /// G1.
    #[test]
    fn an_open_descriptor_grants_everything_and_is_never_the_last() {
        let mutex = FdMutex::new();
        mutex.incref().unwrap();
        assert!(!mutex.decref());
        for direction in DIRECTIONS {
            assert_eq!(mutex.try_lock_ref(direction), Ok(true));
            assert_eq!(mutex.try_lock_ref(direction), Ok(false));
            assert_eq!(mutex.try_lock(direction), Ok(false));
            assert!(!mutex.unlock_ref(direction));
            assert_eq!(mutex.try_lock(direction), Ok(true));
            mutex.unlock(direction);
        }
        assert_eq!(mutex.word.load(Ordering::SeqCst), 0);
    }

    /// G2.
    #[test]
    fn a_closed_descriptor_refuses_everything() {
        let mutex = FdMutex::new();
        assert_eq!(mutex.begin_close().unwrap().len(), 0);
        assert!(mutex.is_closed());
        assert_eq!(mutex.incref(), Err(LockError::Closed));
        for direction in DIRECTIONS {
            assert_eq!(mutex.try_lock(direction), Err(LockError::Closed));
            assert_eq!(lock(&mutex, direction), Err(LockError::Closed));
            let waker = Waker::noop();
            let poll = mutex.poll_lock_poll(direction, &mut Context::from_waker(waker));
            assert_eq!(poll, Poll::Ready(Err(LockError::Closed)));
        }
        assert!(mutex.begin_close().is_err());
        assert!(mutex.decref());
    }

    /// G3, invariant 1.
    #[test]
    fn closing_frees_the_queue_and_the_holder_is_the_last() {
        let mutex = Arc::new(FdMutex::new());
        assert_eq!(mutex.try_lock_ref(Direction::Read), Ok(true));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let mutex = mutex.clone();
                std::thread::spawn(move || lock(&mutex, Direction::Read))
            })
            .collect();
        let queued = || mutex.queues.lock().as_ref().map_or(0, |queues| queues.read.len());
        while queued() < 4 {
            std::thread::yield_now();
        }
        assert_eq!(mutex.begin_close().unwrap().wake_all(), 4);
        for thread in threads {
            assert_eq!(thread.join().unwrap(), Err(LockError::Closed));
        }
        assert!(!mutex.decref());
        assert!(mutex.unlock_ref(Direction::Read));
    }

    /// G4.
    #[test]
    fn giving_back_what_was_not_taken_panics_and_changes_nothing() {
        let mutex = FdMutex::new();
        let refused = |operation: &dyn Fn()| {
            let before = mutex.word.load(Ordering::SeqCst);
            let payload = catch_unwind(AssertUnwindSafe(operation)).unwrap_err();
            assert_eq!(payload.downcast_ref::<&str>(), Some(&"inconsistent FdMutex"));
            assert_eq!(mutex.word.load(Ordering::SeqCst), before);
        };
        for round in 0..2 {
            refused(&|| assert!(mutex.decref()));
            for direction in DIRECTIONS {
                refused(&|| mutex.unlock(direction));
                refused(&|| assert!(mutex.unlock_ref(direction)));
                // A lock that was taken without a reference does not give one back.
                assert_eq!(mutex.try_lock(direction), Ok(true));
                refused(&|| assert!(mutex.unlock_ref(direction)));
                mutex.unlock(direction);
            }
            mutex.incref().unwrap();
            assert!(!mutex.decref(), "round {round}: the mutex is as good as before");
        }
    }

    /// G5, as an error.
    #[test]
    fn too_many_references_are_an_error_and_the_closer_still_gets_one() {
        let mutex = FdMutex::new();
        mutex.word.store(REFS_MAX << REFS_SHIFT, Ordering::SeqCst);
        assert_eq!(mutex.incref(), Err(LockError::TooMany));
        assert_eq!(mutex.try_lock_ref(Direction::Read), Err(LockError::TooMany));
        assert_eq!(lock(&mutex, Direction::Write), Err(LockError::TooMany));
        assert_eq!(mutex.try_lock(Direction::Write), Ok(true));
        mutex.unlock(Direction::Write);
        assert_eq!(mutex.begin_close().unwrap().len(), 0);
        assert!(!mutex.decref());
        assert_eq!(mutex.word.load(Ordering::SeqCst), (REFS_MAX << REFS_SHIFT) | CLOSED);
    }

    /// Invariant 13.
    #[test]
    fn too_many_waiters_are_an_error() {
        let mutex = FdMutex::new();
        assert_eq!(mutex.try_lock(Direction::Write), Ok(true));
        let waker = Waker::noop();
        let mut last = None;
        for _ in 0..WAITERS_MAX {
            last = None;
            assert!(poll(&mutex, Direction::Write, waker, &mut last).is_pending());
        }
        let mut key = None;
        assert_eq!(poll(&mutex, Direction::Write, waker, &mut key), Poll::Ready(Err(LockError::TooMany)));
        assert_eq!(key, None);
        let polled = mutex.poll_lock_poll(Direction::Write, &mut Context::from_waker(waker));
        assert_eq!(polled, Poll::Ready(Err(LockError::TooMany)));
        // Who is in keeps its place, and a place given up is free for another.
        assert!(poll(&mutex, Direction::Write, waker, &mut last).is_pending());
        mutex.cancel(Direction::Write, last.unwrap());
        assert!(poll(&mutex, Direction::Write, waker, &mut key).is_pending());
        mutex.unlock(Direction::Write);
    }

    #[test]
    fn an_unlock_wakes_the_oldest_future_and_every_poll() {
        let mutex = FdMutex::new();
        for direction in DIRECTIONS {
            assert_eq!(mutex.try_lock(direction), Ok(true));
            let (first, first_waker) = counter();
            let (second, second_waker) = counter();
            let (polled, polled_waker) = counter();
            let (mut first_key, mut second_key) = (None, None);
            assert!(poll(&mutex, direction, &first_waker, &mut first_key).is_pending());
            assert!(poll(&mutex, direction, &second_waker, &mut second_key).is_pending());
            for _ in 0..3 {
                assert!(mutex.poll_lock_poll(direction, &mut Context::from_waker(&polled_waker)).is_pending());
            }
            mutex.unlock(direction);
            assert_eq!((woken(&first), woken(&second), woken(&polled)), (1, 0, 1));
            // A newcomer overtakes; the one that was woken queues again, behind the second.
            assert_eq!(mutex.try_lock_ref(direction), Ok(true));
            assert!(poll(&mutex, direction, &first_waker, &mut first_key).is_pending());
            assert!(!mutex.unlock_ref(direction));
            assert_eq!((woken(&first), woken(&second)), (1, 1));
            assert_eq!(poll(&mutex, direction, &second_waker, &mut second_key), Poll::Ready(Ok(())));
            assert_eq!(second_key, None);
            assert!(!mutex.unlock_ref(direction));
            assert_eq!(woken(&first), 2);
            assert_eq!(poll(&mutex, direction, &first_waker, &mut first_key), Poll::Ready(Ok(())));
            assert!(!mutex.unlock_ref(direction));
            assert_eq!(mutex.word.load(Ordering::SeqCst), 0);
        }
    }

    /// Invariant 5: a waiter that was woken and goes away passes the wake-up on; one that was not takes nothing.
    #[test]
    fn a_dropped_waiter_passes_its_wake_up_on() {
        let mutex = FdMutex::new();
        assert_eq!(mutex.try_lock_ref(Direction::Write), Ok(true));
        let (counts, wakers): (Vec<_>, Vec<_>) = (0..3).map(|_| counter()).unzip();
        let mut keys = [None; 3];
        for (waker, key) in wakers.iter().zip(&mut keys) {
            assert!(poll(&mutex, Direction::Write, waker, key).is_pending());
        }
        mutex.cancel(Direction::Write, keys[1].unwrap());
        assert_eq!(counts.iter().map(|count| woken(count)).sum::<usize>(), 0);
        assert!(!mutex.unlock_ref(Direction::Write));
        assert_eq!(woken(&counts[0]), 1);
        mutex.cancel(Direction::Write, keys[0].unwrap());
        assert_eq!(woken(&counts[2]), 1);
        assert_eq!(waiters_bits(&mutex), 0);
    }

    /// A waker that unlocks another socket, or this one again, must not find the queues locked.
    #[test]
    fn wakers_run_with_no_lock_held() {
        struct Reenter(Arc<FdMutex>, AtomicUsize);
        impl Wake for Reenter {
            fn wake(self: Arc<Reenter>) {
                self.0.cancel(Direction::Read, Key::MIN);
                self.1.fetch_add(1, Ordering::SeqCst);
            }
        }
        impl Drop for Reenter {
            fn drop(&mut self) {
                self.0.cancel(Direction::Read, Key::MIN);
            }
        }
        let mutex = Arc::new(FdMutex::new());
        for round in 0..4 {
            let task = Arc::new(Reenter(mutex.clone(), AtomicUsize::new(0)));
            let waker = Waker::from(task.clone());
            let mut key = None;
            if !mutex.is_closed() {
                assert_eq!(mutex.try_lock_ref(Direction::Read), Ok(true));
                assert!(poll(&mutex, Direction::Read, &waker, &mut key).is_pending());
                assert!(mutex.poll_lock_poll(Direction::Read, &mut Context::from_waker(&waker)).is_pending());
            }
            drop(waker);
            match round {
                0 => assert!(!mutex.unlock_ref(Direction::Read)),
                1 => {
                    mutex.cancel(Direction::Read, key.unwrap());
                    assert!(!mutex.unlock_ref(Direction::Read));
                }
                2 => {
                    // Replaced by another task's waker: the old one is dropped.
                    assert!(poll(&mutex, Direction::Read, Waker::noop(), &mut key).is_pending());
                    assert!(!mutex.unlock_ref(Direction::Read));
                }
                _ => assert_eq!(mutex.begin_close().unwrap().wake_all(), 2),
            }
            assert!(round == 1 || round == 2 || task.1.load(Ordering::SeqCst) >= 2);
        }
    }

    /// Two words that only the owner of a direction changes, one after the other: two owners tear them.
    #[derive(Debug, Default)]
    struct Torn([AtomicU64; 2]);

    impl Torn {
        fn touch(&self) {
            let first = self.0[0].fetch_add(1, Ordering::Relaxed);
            std::hint::spin_loop();
            let second = self.0[1].fetch_add(1, Ordering::Relaxed);
            assert_eq!(first, second, "two owners of one direction");
        }
    }

    /// G6: futures, polls and references from eight threads.
    #[test]
    fn stress_keeps_one_owner_a_direction() {
        const THREADS: u64 = 8;
        const ROUNDS: u64 = 20_000;
        let shared = Arc::new((FdMutex::new(), [Torn::default(), Torn::default()]));
        let threads: Vec<_> = (1..=THREADS)
            .map(|seed| {
                let shared = shared.clone();
                std::thread::spawn(move || {
                    let (mutex, torn) = &*shared;
                    let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
                    for _ in 0..ROUNDS {
                        random ^= random << 13;
                        random ^= random >> 7;
                        random ^= random << 17;
                        let at = usize::from(random & 1 != 0);
                        let direction = DIRECTIONS[at];
                        match (random >> 8) % 5 {
                            0 => {
                                mutex.incref().unwrap();
                                assert!(!mutex.decref());
                            }
                            1 => {
                                lock(mutex, direction).unwrap();
                                torn[at].touch();
                                assert!(!mutex.unlock_ref(direction));
                            }
                            2 => {
                                block_on(poll_fn(|cx| mutex.poll_lock_poll(direction, cx))).unwrap();
                                torn[at].touch();
                                assert!(!mutex.unlock_ref(direction));
                            }
                            3 => {
                                if mutex.try_lock(direction) == Ok(true) {
                                    torn[at].touch();
                                    mutex.unlock(direction);
                                }
                            }
                            _ => {
                                // A future that is dropped after one poll.
                                let mut key = None;
                                match poll(mutex, direction, Waker::noop(), &mut key) {
                                    Poll::Ready(result) => {
                                        result.unwrap();
                                        torn[at].touch();
                                        assert!(!mutex.unlock_ref(direction));
                                    }
                                    Poll::Pending => mutex.cancel(direction, key.unwrap()),
                                }
                            }
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let (mutex, _) = &*shared;
        assert_eq!(mutex.word.load(Ordering::SeqCst), 0);
        assert_eq!(mutex.begin_close().unwrap().len(), 0);
        assert!(mutex.decref());
    }
}

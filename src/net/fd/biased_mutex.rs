//! [`BiasedMutex`]: a mutex that one thread may enter without a read-modify-write, as long as no
//! other thread locks it.
//!
//! The gathered bytes of a socket are used many times per turn by the thread that runs the turn,
//! and almost never by another thread. Locking and unlocking a mutex takes two read-modify-writes,
//! which cost more than everything else that a gathered write does.
//!
//! # States
//! ```text
//!               own, by the holder of the lock                with_owned, by the owner
//!   unowned ───────────────────────────────→ owned ──→ busy ──→ owned ──→ …
//!      ↑                                       │          │
//!      └── lock, by any thread, which waits while busy ───┘
//! ```
//! Every access needs the inner mutex ([`lock`](BiasedMutex::lock)), except that the *owner*, a
//! thread, may use the value for a moment without it ([`with_owned`](BiasedMutex::with_owned)).
//! `lock` ends the ownership. If the owner is another thread, this is a *revocation*, which makes a
//! system call. So the next [`PAUSE`] attempts to become the owner are refused. Moreover, no thread
//! becomes the owner before the former owner has locked the mutex (invariant 2).
//!
//! # Invariants
//! 1. *One user.* While a thread holds the guard, `with_owned` does not use the value. The owner
//!    sets `is_busy` and then reads `owner`; `lock` clears `owner` and then reads `is_busy`.
//!    Asymmetric fences ([`membarrier`]) order both pairs like SeqCst fences, so the owner sees
//!    that it is no longer the owner, or `lock` sees that the owner is busy and waits (model
//!    `owner_and_lock_exclude_each_other`).
//! 2. *Only one thread writes `is_busy` at a time.* A thread whose ownership was revoked may not
//!    know it yet: between its two reads of `owner` it may still set `is_busy`, and then clear it.
//!    So no thread becomes the owner before the former one has locked the mutex itself, which it
//!    does not do between the two reads (model `former_owner_does_not_hide_the_next`).
//! 3. Only the thread itself stores its number in `owner`, while it holds the inner mutex.
//!
//! # Memory ordering
//! The owner clears `is_busy` with Release, and `lock` reads it with Acquire, so the holder of the
//! lock sees the owner's changes. The inner mutex orders everything else: a thread becomes the
//! owner while it holds the mutex, and its own later accesses follow in program order.
//!
//! # Without membarrier(2)
//! While the process is not registered (the system has no such call or refuses it, or no thread has
//! registered the process yet), no thread becomes the owner, and this is an ordinary mutex. If a
//! later refusal ends the registration, a thread that is already the owner remains the owner until
//! the next `lock`.
//!
//! # Fork
//! A child of fork(2) must not use the mutex, which another thread may have locked at the fork. It
//! may drop the mutex: a thread of the parent that was inside `with_owned` leaves the value valid,
//! because `f` does so at every step.
//!
//! # Cancellation
//! `with_owned` does not suspend. A panic in it would leave the mutex busy, and a `lock` by another
//! thread might then wait forever. The caller of `with_owned` guarantees that there is none.

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::panic::{RefUnwindSafe, UnwindSafe};

use crate::rt::thread_number;
use crate::sync::{AtomicBool, AtomicUsize, MODEL, Mutex, MutexGuard, Ordering, UnsafeCell, injected_bug};
use crate::sys::membarrier;

/// The number of refused attempts to become the owner after a revocation. A revocation takes a few
/// microseconds, and a use of the value as the owner saves about 10 ns.
const PAUSE: u32 = if MODEL { 0 } else { 1000 };

/// The value of `owner` if there is no owner. No thread has this number.
const NOBODY: usize = usize::MAX;

/// A mutex that one thread may enter without a read-modify-write; see the [module
/// documentation](self).
pub(crate) struct BiasedMutex<T> {
    /// The number of the owner, or [`NOBODY`].
    owner: AtomicUsize,
    /// Whether the owner is using the value.
    is_busy: AtomicBool,
    /// The inner mutex.
    revocation: Mutex<Revocation>,
    value: UnsafeCell<T>,
}

/// The state of the last revocation.
#[derive(Debug)]
struct Revocation {
    /// The former owner, if it has not locked the mutex since; otherwise [`NOBODY`].
    former: usize,
    /// The number of attempts to become the owner that are still refused.
    pause: u32,
}

// SAFETY: at most one thread uses the value at a time (invariant 1), and not always the same one.
unsafe impl<T: Send> Sync for BiasedMutex<T> {}
// SAFETY: the mutex owns the value, which can be sent.
unsafe impl<T: Send> Send for BiasedMutex<T> {}

// As for any mutex without poisoning, a panic does not expose a broken value: the users leave the
// value valid before they call code that may panic.
impl<T> RefUnwindSafe for BiasedMutex<T> {}
impl<T> UnwindSafe for BiasedMutex<T> {}

impl<T> BiasedMutex<T> {
    pub(crate) fn new(value: T) -> BiasedMutex<T> {
        BiasedMutex {
            owner: AtomicUsize::new(NOBODY),
            is_busy: AtomicBool::new(false),
            revocation: Mutex::new(Revocation { former: NOBODY, pause: 0 }),
            value: UnsafeCell::new(value),
        }
    }

    /// Locks the mutex, and ends the ownership.
    #[inline]
    pub(crate) fn lock(&self) -> BiasedGuard<'_, T> {
        let mut revocation = self.revocation.lock();
        // ORDERING: Relaxed, here and in `end_ownership`: `owner` is written under `revocation`
        // only.
        if self.owner.load(Ordering::Relaxed) != NOBODY || revocation.former != NOBODY {
            self.end_ownership(&mut revocation);
        }
        BiasedGuard { mutex: self, revocation, access: PhantomData }
    }

    /// Ends the ownership, and waits until [`with_owned`](BiasedMutex::with_owned) no longer uses
    /// the value.
    #[inline(never)]
    fn end_ownership(&self, revocation: &mut Revocation) {
        let current = thread_number::current();
        if revocation.former == current {
            revocation.former = NOBODY;
        }
        let owner = self.owner.load(Ordering::Relaxed);
        self.owner.store(NOBODY, Ordering::Relaxed);
        if owner == NOBODY || owner == current {
            return;
        }
        if !injected_bug!("biased_mutex_revokes_without_a_barrier") {
            membarrier::heavy();
        }
        let mut round = 0;
        // ORDERING: Acquire pairs with the Release in `with_owned`.
        while self.is_busy.load(Ordering::Acquire) && !injected_bug!("biased_mutex_does_not_wait") {
            membarrier::pause(round);
            round += 1;
        }
        *revocation = Revocation { former: owner, pause: PAUSE };
    }

    /// Calls `f` with the value and returns its result, if this thread is the owner. Otherwise
    /// returns false.
    ///
    /// # Safety
    /// `f` must not panic, must not use this mutex, and must leave the value valid at every step,
    /// because a fork(2) by another thread may copy it at any time.
    #[inline]
    pub(crate) unsafe fn with_owned(&self, f: impl FnOnce(&mut T) -> bool) -> bool {
        let current = thread_number::current();
        // No owner has the number NONE, so a thread without a number returns here.
        if self.owner.load(Ordering::Relaxed) != current {
            return false;
        }
        // ORDERING: Relaxed: the fence orders this store before the load.
        self.is_busy.store(true, Ordering::Relaxed);
        if !injected_bug!("biased_mutex_owner_without_a_fence") {
            membarrier::light();
        }
        let is_owner = self.owner.load(Ordering::Relaxed) == current || injected_bug!("biased_mutex_owner_looks_once");
        // SAFETY: the pointer is valid. No other thread uses the value, because this thread is the
        // owner and busy (invariant 1), and `f` does not use it in another way (the caller's
        // guarantee).
        let result = is_owner && self.value.with_mut(|value| f(unsafe { &mut *value }));
        // ORDERING: Release pairs with the Acquire in `end_ownership`.
        self.is_busy.store(false, Ordering::Release);
        result
    }
}

/// Exclusive access to the value of a locked [`BiasedMutex`].
pub(crate) struct BiasedGuard<'a, T> {
    mutex: &'a BiasedMutex<T>,
    revocation: MutexGuard<'a, Revocation>,
    /// A guard can be shared between threads only if the value can.
    access: PhantomData<&'a mut T>,
}

impl<T> BiasedGuard<'_, T> {
    /// Unlocks the mutex, and makes this thread its owner if possible.
    #[inline]
    pub(crate) fn own(mut self) {
        if self.revocation.pause > 0 {
            self.revocation.pause -= 1;
            return;
        }
        let may_own = self.revocation.former == NOBODY || injected_bug!("biased_mutex_has_an_owner_beside_the_former");
        if may_own && membarrier::is_registered() {
            let current = thread_number::assign();
            // ORDERING: Relaxed: `lock` reads it under the inner mutex, and `with_owned` compares
            // it with the number of its own thread.
            self.mutex.owner.store(if current == thread_number::NONE { NOBODY } else { current }, Ordering::Relaxed);
        }
    }
}

impl<T> Deref for BiasedGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the pointer is valid, and this guard has exclusive access (invariant 1).
        self.mutex.value.with(|value| unsafe { &*value })
    }
}

impl<T> DerefMut for BiasedGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the pointer is valid, and this guard has exclusive access (invariant 1).
        self.mutex.value.with_mut(|value| unsafe { &mut *value })
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Returns a mutex, and whether its threads can be owners.
    fn mutex() -> (BiasedMutex<u64>, bool) {
        membarrier::register();
        (BiasedMutex::new(0), membarrier::is_registered())
    }

    fn add_owned(mutex: &BiasedMutex<u64>) -> bool {
        // SAFETY: the closure neither panics nor uses the mutex.
        unsafe {
            mutex.with_owned(|count| {
                *count = count.wrapping_add(1);
                true
            })
        }
    }

    #[test]
    fn ownership_begins_with_own_and_ends_with_the_next_lock() {
        let (mutex, can_own) = mutex();
        assert!(!add_owned(&mutex), "a new mutex has no owner");
        mutex.lock().own();
        assert_eq!([add_owned(&mutex), add_owned(&mutex)], [can_own; 2]);
        thread::scope(|scope| scope.spawn(|| assert!(!add_owned(&mutex), "another thread")).join()).unwrap();
        assert_eq!(*mutex.lock(), if can_own { 2 } else { 0 });
        assert!(!add_owned(&mutex));
    }

    #[test]
    fn revocation_delays_the_next_ownership() {
        let (mutex, can_own) = mutex();
        mutex.lock().own();
        // Refused even after the pause, because the former owner has not locked the mutex since.
        thread::scope(|scope| {
            let other = scope.spawn(|| {
                for _ in 0..=PAUSE {
                    mutex.lock().own();
                }
                assert!(!add_owned(&mutex));
            });
            other.join().unwrap();
        });
        assert!(!add_owned(&mutex));
        mutex.lock().own();
        assert_eq!(add_owned(&mutex), can_own);
        thread::scope(|scope| scope.spawn(|| drop(mutex.lock())).join()).unwrap();
        mutex.lock().own();
        assert!(!add_owned(&mutex), "paused");
    }

    #[test]
    fn no_use_is_lost() {
        let (mutex, _) = mutex();
        let add = || {
            for round in 0..20_000 {
                if !add_owned(&mutex) {
                    let mut count = mutex.lock();
                    *count += 1;
                    // Without the pause, ownership is revoked more often.
                    count.revocation.pause = 0;
                    if round % 3 > 0 {
                        count.own();
                    }
                }
            }
        };
        thread::scope(|scope| [(); 3].map(|()| scope.spawn(add)).map(|thread| thread.join().unwrap()));
        assert_eq!(*mutex.lock(), 60_000);
    }
}

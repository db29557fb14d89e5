//! Asymmetric fences: [`light`] costs nothing, and [`heavy`] is a system call. Together they order
//! like two SeqCst fences.
//!
//! A thread that does something often and a thread that interferes rarely each write one location
//! and then read the other's. Usually both need a SeqCst fence between the two steps, so that at
//! least one of them sees the other's write. membarrier(2) moves the cost of both fences to the
//! rare thread: the kernel executes a memory barrier on every CPU that runs a thread of this
//! process, and every other thread passes one before it runs again. For the frequent thread it is
//! sufficient that the compiler keeps the order of its two steps.
//!
//! # Availability
//! The kernel requires a registration, once per process. The registration takes up to some tens of
//! milliseconds, so a thread that may wait makes it ([`register`]), and other threads check
//! [`is_registered`]. Without a registration, no thread may rely on [`light`]. The call is used on
//! Linux, from 4.14 on, and a sandbox may refuse the registration. If a sandbox that is entered
//! later refuses the barrier itself, [`heavy`] sleeps for 10 ms instead, and the registration ends.
//! The sleep is not proof that the stores are visible, but a CPU keeps a store from other CPUs for
//! microseconds at most.
//!
//! # Fork
//! A child inherits the registration, but must not rely on these fences: its parent's other
//! threads, which do not exist in the child, may have been between their two steps.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering, compiler_fence};
use std::thread;
use std::time::Duration;

/// Whether this process is registered.
static REGISTERED: AtomicBool = AtomicBool::new(false);

/// Returns whether [`heavy`] can be used.
#[inline]
pub(crate) fn is_registered() -> bool {
    // ORDERING: Acquire pairs with the Release in `register`: the registration precedes the use of
    // a barrier.
    REGISTERED.load(Ordering::Acquire)
}

/// Orders the earlier stores of this thread before its later loads, as seen by a thread that calls
/// [`heavy`].
#[inline]
pub(crate) fn light() {
    compiler_fence(Ordering::SeqCst);
}

#[cfg(target_os = "linux")]
mod system {
    use std::sync::Once;
    use std::sync::atomic::{Ordering, fence};
    use std::time::Duration;

    /// A time after which a store is visible to all CPUs.
    const DRAINED: Duration = Duration::from_millis(10);

    fn call(command: libc::c_int) -> bool {
        // SAFETY: the commands take no pointer.
        unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
    }

    /// Registers this process. Later calls have no effect.
    pub(crate) fn register() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let is_registered = call(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
            super::REGISTERED.store(is_registered, Ordering::Release);
        });
    }

    /// Orders the earlier stores of this thread before its later loads, as seen by all threads that
    /// call [`light`](super::light). The process must be registered.
    pub(crate) fn heavy() {
        fence(Ordering::SeqCst);
        if !call(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED) {
            refused();
        }
        fence(Ordering::SeqCst);
    }

    /// Waits in place of a barrier that was refused, and ends the registration.
    #[cold]
    fn refused() {
        super::REGISTERED.store(false, Ordering::Relaxed);
        std::thread::sleep(DRAINED);
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    /// Does nothing, because this crate uses the call only on Linux.
    pub(crate) fn register() {}

    /// Orders nothing. This function is not called, because the process is never registered.
    pub(crate) fn heavy() {
        debug_assert!(false, "not registered");
    }
}

pub(crate) use system::{heavy, register};

/// Lets another thread run, in round `round` of a loop that waits until that thread has passed a
/// few instructions.
#[cold]
pub(crate) fn pause(round: u32) {
    match round {
        0..100 => thread::yield_now(),
        // The other thread may have a lower priority.
        _ => thread::sleep(Duration::from_micros(50)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registered_process_can_use_the_barrier() {
        register();
        if is_registered() {
            heavy();
            assert!(is_registered());
        }
    }
}

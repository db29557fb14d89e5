//! fork(2): a child has the runtime's memory but none of its threads, and shares the epoll
//! instances with the parent.
//!
//! The child must not use the runtime. A handler of pthread_atfork(3) sets a flag in the child and
//! advances the epoch. So existing registrations become invalid, and new registrations, which check
//! the flag, fail. If the thread of the child is in `block_on`, it panics instead of waiting, and
//! does not poll the instances of the parent. If it is a worker, it ends after its turn, and leaks
//! the queued tasks, which are those of the parent. A child that only calls exec(2) is not
//! affected. [`watch`] installs the handlers, at the latest when the runtime first starts. A child
//! of an earlier fork(2) may use the runtime.
//!
//! A child that does not call exec(2) keeps duplicates of the parent's descriptors, so the epoll
//! registrations of these descriptors remain after the parent has closed them. Therefore a process
//! that has called fork(2) since [`watch`] removes every descriptor from epoll before it closes the
//! descriptor. posix_spawn(3), which `std::process::Command` prefers, runs no handlers; its child
//! calls exec(2) immediately.

use std::io;
use std::sync::{Once, OnceLock};

use crate::sync::{AtomicBool, Ordering};

/// Whether this process is a child of a fork(2) that was called after [`watch`].
static FORKED: AtomicBool = AtomicBool::new(false);

/// Whether this process has called fork(2) since [`watch`].
static FORKS: AtomicBool = AtomicBool::new(false);

#[allow(unsafe_code)]
unsafe extern "C" {
    // The `libc` crate does not declare pthread_atfork(3) for Linux.
    fn pthread_atfork(
        prepare: Option<unsafe extern "C" fn()>,
        parent: Option<unsafe extern "C" fn()>,
        child: Option<unsafe extern "C" fn()>,
    ) -> libc::c_int;
}

extern "C" fn before_fork() {
    FORKS.store(true, Ordering::Relaxed);
}

extern "C" fn in_child() {
    FORKED.store(true, Ordering::Relaxed);
    if let Some(disown) = DISOWN.get() {
        disown();
    }
}

/// The function that invalidates the inherited registrations in a child. It must be
/// async-signal-safe.
static DISOWN: OnceLock<fn()> = OnceLock::new();

/// Installs the handlers, once. A child calls `disown`, which must be async-signal-safe.
#[allow(unsafe_code)]
pub(crate) fn watch(disown: fn()) {
    static INSTALLED: Once = Once::new();
    DISOWN.get_or_init(|| disown);
    INSTALLED.call_once(|| {
        // If the handlers cannot be installed for lack of memory, forks are not detected. SAFETY:
        // the handlers only use atomic operations, which are async-signal-safe.
        let _ = unsafe { pthread_atfork(Some(before_fork), None, Some(in_child)) };
    });
}

/// Returns whether children may have duplicates of this process's descriptors.
#[inline]
pub(crate) fn has_forked() -> bool {
    FORKS.load(Ordering::Relaxed)
}

/// Checks that this process may use the runtime, for functions that cannot return an error.
///
/// # Panics
/// Panics in a child of fork(2) that did not call exec(2).
#[inline]
pub(crate) fn assert_not_child() {
    if let Err(error) = check() {
        panic!("{error}");
    }
}

/// Returns whether this is a child of fork(2) that did not call exec(2). Destructors in such a
/// child must not remove registrations or files that it shares with its parent.
#[inline]
pub(crate) fn is_child() -> bool {
    FORKED.load(Ordering::Relaxed)
}

/// Checks that this process may use the runtime.
///
/// # Errors
/// Returns `Other` in a child of fork(2) that did not call exec(2).
#[inline]
pub(crate) fn check() -> io::Result<()> {
    if is_child() {
        return Err(forked());
    }
    Ok(())
}

#[cold]
fn forked() -> io::Error {
    io::Error::other(
        "netpoll cannot be used in a forked child process: its threads stayed in the parent; call exec, or fork before first use",
    )
}

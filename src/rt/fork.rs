//! A child of fork(2) has the runtime's memory but none of its threads, and shares its epoll instance with the parent.
//!
//! Nothing good can come of going on, so the child is told: a handler of pthread_atfork(3) sets a flag and ends the epoch, so that
//! what was registered counts no more and whoever registers anew looks at the flag. A child that only calls exec(2) never looks.
//!
//! A child that does not call exec(2) keeps duplicates of its parent's descriptors, and with them their registrations. So a process that has
//! ever called fork(2) takes every descriptor out of epoll before it closes it. (posix_spawn(3), which `std::process::Command` prefers, runs
//! no handlers, and its child calls exec(2) at once.)

use std::io;
use std::sync::Once;

use crate::sync::{AtomicBool, Ordering};

/// This process is a child.
static FORKED: AtomicBool = AtomicBool::new(false);

/// This process has, or may have, children.
static FORKS: AtomicBool = AtomicBool::new(false);

#[allow(unsafe_code)]
unsafe extern "C" {
    // POSIX pthread_atfork(3); the `libc` crate does not declare it for Linux.
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
    super::runtime::runtime().disown();
}

/// Installs the handlers, once.
#[allow(unsafe_code)]
pub(crate) fn watch() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: the handlers are async-signal-safe, atomic operations. Without memory for them we only do not notice a fork.
        let _ = unsafe { pthread_atfork(Some(before_fork), None, Some(in_child)) };
    });
}

/// Whether children may have duplicates of the descriptors of this process.
#[inline]
pub(crate) fn has_forked() -> bool {
    FORKS.load(Ordering::Relaxed)
}

/// For what cannot return an error.
///
/// # Panics
/// In a child of fork(2) that did not call exec(2).
#[inline]
pub(crate) fn refuse() {
    if let Err(error) = check() {
        panic!("{error}");
    }
}

/// Whether this is a child of fork(2) that did not call exec(2). Its destructors must leave alone what it shares with its parent: the
/// registrations, and the names of files.
#[inline]
pub(crate) fn is_child() -> bool {
    FORKED.load(Ordering::Relaxed)
}

/// An error in a child of fork(2) that did not call exec(2).
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

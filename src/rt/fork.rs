//! A child of fork(2) has the runtime's memory but none of its threads, and shares its epoll instance with the parent.
//!
//! Nothing good can come of going on, so the child is told: a handler of pthread_atfork(3) sets a flag and ends the epoch, so that
//! what was registered counts no more and whoever registers anew looks at the flag. It costs the parent nothing, and a child
//! that only calls exec(2) never looks.

use std::io;
use std::sync::Once;

use crate::sync::{AtomicBool, Ordering};

static FORKED: AtomicBool = AtomicBool::new(false);

#[allow(unsafe_code)]
unsafe extern "C" {
    // POSIX pthread_atfork(3); the `libc` crate does not declare it for Linux.
    fn pthread_atfork(
        prepare: Option<unsafe extern "C" fn()>,
        parent: Option<unsafe extern "C" fn()>,
        child: Option<unsafe extern "C" fn()>,
    ) -> libc::c_int;
}

extern "C" fn in_child() {
    FORKED.store(true, Ordering::Relaxed);
    super::runtime::runtime().disown();
}

/// Installs the handler, once.
#[allow(unsafe_code)]
pub(crate) fn watch() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: the handler is async-signal-safe, two atomic operations. Without memory for it we only do not notice a fork.
        let _ = unsafe { pthread_atfork(None, None, Some(in_child)) };
    });
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

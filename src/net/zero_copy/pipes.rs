//! A pool of pipes for [`Splice`](super::splice::Splice).
//!
//! Creating a pipe costs as much as moving a few packets. The pool keeps at most [`KEPT_MAX`] pipes
//! and no more than there are active copies, except for [`KEPT_AT_REST`], so a process that has
//! stopped copying gives its descriptors back. Only empty pipes are kept: a pipe with bytes in it
//! (its copy failed or was dropped) is closed.
//!
//! # Compared with Go (internal/poll/splice_linux.go)
//! Go uses a `sync.Pool`, which the garbage collector empties.

use std::io;

use crate::rt::fork;
use crate::sync::{AtomicUsize, Mutex, Ordering};
use crate::sys::splice::Pipe;

/// 64 buffers, each of a page or a larger part of a packet. Not Go's 1 MiB: an unprivileged user
/// may have 64 MiB for all pipes by default, and beyond that gets pipes with two buffers.
pub(crate) const PIPE_BYTES: usize = 256 << 10;

/// Enough for one pipe per CPU on common machines. A pipe is in use while it has bytes, also while
/// its copy waits for room.
const KEPT_MAX: usize = 64;

const KEPT_AT_REST: usize = 4;

static KEPT: Mutex<Vec<Pipe>> = Mutex::new(Vec::new());
static COPIES: AtomicUsize = AtomicUsize::new(0);

/// Counts an active copy, which may ask for pipes.
#[derive(Debug)]
pub(crate) struct Copying(());

impl Copying {
    pub(crate) fn begin() -> Copying {
        COPIES.fetch_add(1, Ordering::Relaxed);
        Copying(())
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        COPIES.fetch_sub(1, Ordering::Relaxed);
        let surplus = {
            let mut kept = KEPT.lock();
            let room = room().min(kept.len());
            kept.split_off(room)
        };
        // Closed after the lock is released.
        drop(surplus);
    }
}

/// Returns how many pipes may be kept. If a copy begins or ends concurrently, this is off by one
/// until the next call.
fn room() -> usize {
    COPIES.load(Ordering::Relaxed).clamp(KEPT_AT_REST, KEPT_MAX)
}

/// Takes an empty pipe from the pool or creates one.
///
/// # Errors
/// Returns the error of pipe2(2), usually EMFILE; also an error in a forked child, which would
/// share the parent's pipes.
pub(crate) fn take() -> io::Result<Pipe> {
    fork::check()?;
    let kept = KEPT.lock().pop();
    kept.map_or_else(|| Pipe::new(PIPE_BYTES), Ok)
}

/// Returns an empty pipe to the pool.
pub(crate) fn give(pipe: Pipe) {
    let mut kept = KEPT.lock();
    if kept.len() < room() {
        kept.push(pipe);
    } else {
        // Closed outside the lock.
        drop(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fd::has_descriptors;

    /// Go: TestSplicePipePool. Other tests of this process also copy, so only bounds can be
    /// checked.
    #[test]
    fn pipes_are_kept_up_to_a_limit() {
        if !has_descriptors(4 * KEPT_MAX as u64 + 500) {
            return eprintln!("skipped: too few descriptors");
        }
        let copies: Vec<_> = (0..2 * KEPT_MAX).map(|_| Copying::begin()).collect();
        let pipes: Vec<_> = (0..2 * KEPT_MAX).map(|_| take().unwrap()).collect();
        pipes.into_iter().for_each(give);
        let kept = KEPT.lock().len();
        assert!(kept > KEPT_MAX / 2 && kept <= KEPT_MAX, "{kept}");
        drop(copies);
        let kept = KEPT.lock().len();
        assert!(kept <= KEPT_AT_REST.max(COPIES.load(Ordering::Relaxed)) + 8, "{kept}");
    }
}

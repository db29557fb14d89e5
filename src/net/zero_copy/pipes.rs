//! A pool of pipes for [`Splice`](super::splice::Splice).
//!
//! Creating a pipe costs as much as moving a few packets. The pool keeps at most one pipe per
//! active copy, except that the limit is at least [`KEPT_AT_REST`] and at most [`KEPT_MAX`]. So a
//! process that has stopped copying closes most of its pipes. Only empty pipes are kept: a pipe
//! with bytes in it, whose copy has failed or was dropped, is closed.
//!
//! # Compared with Go (internal/poll/splice_linux.go)
//! Go uses a `sync.Pool`, which the garbage collector empties.

use std::io;

use crate::rt::fork;
use crate::sync::{AtomicUsize, Mutex, Ordering};
use crate::sys::splice::Pipe;

/// The capacity of a pipe in bytes. With pages of 4 KiB, a pipe has 64 buffers, each for a page or
/// a larger fragment of a packet. The capacity is smaller than Go's 1 MiB, because by default an
/// unprivileged user may have 64 MiB for all pipes, and beyond that limit gets pipes with two
/// buffers.
pub(crate) const PIPE_BYTES: usize = 256 << 10;

/// The maximum number of pipes in the pool: enough for one pipe per CPU on common machines. Pipes
/// that have bytes are in use and do not count, even while their copies wait for the target.
const KEPT_MAX: usize = 64;

/// The number of pipes that the pool may keep without an active copy.
const KEPT_AT_REST: usize = 4;

static KEPT: Mutex<Vec<Pipe>> = Mutex::new(Vec::new());
static COPIES: AtomicUsize = AtomicUsize::new(0);

/// A value that counts as an active copy until it is dropped. Each active copy may use a pipe.
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
        // The pipes are closed after the lock is released.
        drop(surplus);
    }
}

/// Returns the maximum number of pipes that the pool may keep now. A copy that begins or ends
/// concurrently is counted or not.
fn room() -> usize {
    COPIES.load(Ordering::Relaxed).clamp(KEPT_AT_REST, KEPT_MAX)
}

/// Takes an empty pipe from the pool, or creates one.
///
/// # Errors
/// Returns the error of [`Pipe::new`], usually EMFILE, and on systems without splice(2) always
/// ENOSYS. Returns `Other` in a forked child, which would otherwise share the parent's pipes.
pub(crate) fn take() -> io::Result<Pipe> {
    fork::check()?;
    let kept = KEPT.lock().pop();
    kept.map_or_else(|| Pipe::new(PIPE_BYTES), Ok)
}

/// Returns an empty pipe to the pool, or closes it if the pool is full.
pub(crate) fn give(pipe: Pipe) {
    let mut kept = KEPT.lock();
    if kept.len() < room() {
        kept.push(pipe);
    } else {
        // The pipe is closed after the lock is released.
        drop(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fd::has_descriptors;

    /// Go: TestSplicePipePool. Concurrent tests also copy, so only bounds can be checked.
    #[test]
    fn pipes_are_kept_up_to_a_limit() {
        if !has_descriptors(4 * KEPT_MAX as u64 + 500) {
            return eprintln!("skipped: the limit of descriptors is too low");
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

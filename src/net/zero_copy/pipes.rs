//! The pipes that [`Splice`](super::splice::Splice) moves bytes through, kept for the next.
//!
//! Making one costs as much as moving a few packets. Kept are [`KEPT_MAX`] at most, and no more than there are copies under way, but for
//! [`KEPT_AT_REST`]; so a process that has stopped copying gives its descriptors back. Only empty pipes are kept: one with bytes
//! left in it (its copy failed or was dropped) is closed.
//!
//! # Compared with Go (internal/poll/splice_linux.go)
//! A `sync.Pool`, emptied by the garbage collector.

use std::io;

use crate::rt::fork;
use crate::sync::{AtomicUsize, Mutex, Ordering};
use crate::sys::splice::Pipe;

/// 64 buffers, each a page or a larger piece of a packet. An unprivileged user has 64 MiB for all pipes by default, and beyond that
/// gets them with two buffers; so not the 1 MiB that Go takes.
pub(crate) const PIPE_BYTES: usize = 256 << 10;

/// Enough for a processor each on any usual machine: a pipe is out while bytes are in it, and those who wait for room hold theirs.
const KEPT_MAX: usize = 64;

const KEPT_AT_REST: usize = 4;

static KEPT: Mutex<Vec<Pipe>> = Mutex::new(Vec::new());
static COPIES: AtomicUsize = AtomicUsize::new(0);

/// Counts a copy that may ask for pipes.
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
        // Closed without the lock.
        drop(surplus);
    }
}

/// How many pipes may be kept. A copy that begins or ends meanwhile makes it one too few or too many, until the next looks.
fn room() -> usize {
    COPIES.load(Ordering::Relaxed).clamp(KEPT_AT_REST, KEPT_MAX)
}

/// An empty pipe.
///
/// # Errors
/// Those of pipe2(2), no descriptors most of all; in a forked child, which would share the parent's.
pub(crate) fn take() -> io::Result<Pipe> {
    fork::check()?;
    let kept = KEPT.lock().pop();
    kept.map_or_else(|| Pipe::new(PIPE_BYTES), Ok)
}

/// Gives one back that is empty.
pub(crate) fn give(pipe: Pipe) {
    let mut kept = KEPT.lock();
    if kept.len() < room() {
        kept.push(pipe);
    } else {
        drop(kept);
        drop(pipe);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fd::has_descriptors;

    /// Go: TestSplicePipePool. Other tests of this process copy as well, so only bounds can be told.
    #[test]
    fn pipes_are_kept_within_bounds_and_closed_beyond() {
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

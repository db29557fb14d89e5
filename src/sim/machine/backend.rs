//! The poller's back end for the descriptors of a simulation: simulated ones, and the real ones of
//! a test in which only the clock is virtual.
//!
//! It has the contract of `rt/poll/backend.rs`: a descriptor is registered once, for both
//! directions and edge-triggered, and the first edge reports the current state. No other thread
//! waits in this back end: the run loop itself takes the edges, when no task can run.

use std::io;

use super::current;
use super::kernel::{FD_BASE, Kernel};

/// Returns whether a descriptor number belongs to a simulation.
#[inline]
pub(crate) fn is_simulated(fd: i32) -> bool {
    fd >= FD_BASE
}

/// Returns whether a descriptor is registered here instead of with the runtime's poller.
pub(crate) fn registers(fd: i32) -> bool {
    is_simulated(fd) || current::with(|machine| machine.is_some_and(|machine| machine.real.is_some()))
}

/// Registers a descriptor, whose edges then contain `index` and `generation`. With `is_first`,
/// fails with EEXIST if the descriptor is already registered; without it, replaces the
/// registration. Fails with EBADF if the descriptor is closed or does not belong to this thread's
/// simulation. For a real descriptor, returns the errors of epoll_ctl(2).
pub(crate) fn add(fd: i32, index: u32, generation: u32, is_first: bool) -> io::Result<()> {
    let data = u64::from(generation) << 32 | u64::from(index);
    if !is_simulated(fd) {
        let none = || io::Error::from_raw_os_error(libc::EBADF);
        return current::with(|machine| {
            machine.and_then(|machine| machine.real.as_ref()).ok_or_else(none)?.add(fd, data, is_first)
        });
    }
    let added = current::with(|machine| {
        let watch = |kernel: &mut Kernel| match is_first && kernel.is_watched(fd) {
            true => Err(libc::EEXIST),
            false => kernel.watch(fd, data),
        };
        machine.and_then(|machine| machine.try_kernel(watch)).unwrap_or(Err(libc::EBADF))
    });
    added.map_err(io::Error::from_raw_os_error)
}

/// Removes a descriptor from this back end.
pub(crate) fn delete(fd: i32) {
    if !is_simulated(fd) {
        return current::with(|machine| {
            machine.and_then(|machine| machine.real.as_ref()).into_iter().for_each(|real| real.delete(fd));
        });
    }
    let unwatch = |kernel: &mut Kernel| kernel.owns(fd) && kernel.unwatch(fd).is_ok();
    current::with(|machine| machine.and_then(|machine| machine.try_kernel(unwatch)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_of_no_simulation_cannot_be_registered() {
        assert!(is_simulated(FD_BASE) && !is_simulated(FD_BASE - 1) && !is_simulated(-1));
        assert_eq!(add(FD_BASE, 0, 0, true).unwrap_err().raw_os_error(), Some(libc::EBADF));
        delete(FD_BASE);
    }
}

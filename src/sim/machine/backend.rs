//! The poller's back end for simulated descriptors.
//!
//! The contract is that of `rt/poll`: a descriptor is registered once, for both directions and
//! edge-triggered, and the first edge reports the current state. There is no wait: the run loop
//! takes edges when no task can run.

use std::io;

use super::current;
use super::kernel::{FD_BASE, Kernel};

/// Returns whether a descriptor number belongs to a simulation.
#[inline]
pub(crate) fn is_simulated(fd: i32) -> bool {
    fd >= FD_BASE
}

/// Registers a simulated descriptor.
pub(crate) fn add(fd: i32, index: u32, generation: u32, is_first: bool) -> io::Result<()> {
    let data = u64::from(generation) << 32 | u64::from(index);
    let added = current::with(|machine| {
        let watch = |kernel: &mut Kernel| match is_first && kernel.is_watched(fd) {
            true => Err(libc::EEXIST),
            false => kernel.watch(fd, data),
        };
        machine.and_then(|machine| machine.try_kernel(watch)).unwrap_or(Err(libc::EBADF))
    });
    added.map_err(io::Error::from_raw_os_error)
}

/// Removes a simulated descriptor.
pub(crate) fn delete(fd: i32) {
    current::with(|machine| machine.and_then(|machine| machine.try_kernel(|kernel| kernel.unwatch(fd).is_ok())));
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

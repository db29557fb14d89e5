//! The poller's back end for simulated descriptors.
//!
//! The contract is that of `rt/poll`: a descriptor is registered once, for both directions and
//! edge-triggered, and the first edge reports the current state. There is no wait: the run loop
//! takes edges when no task can run.

use std::io;

use super::kernel::FD_BASE;
use super::world;
use crate::rt::poll::poll_desc::{ERROR, HANG_UP, PRIORITY};

/// The contents of one edge, in the terms of `rt/poll`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) index: u32,
    pub(super) generation: u32,
    pub(super) readable: bool,
    pub(super) writable: bool,
    pub(super) read_reasons: u64,
    pub(super) write_reasons: u64,
}

/// Decodes an edge from the poller's data and EPOLL bits.
pub(super) fn event(data: u64, bits: u32) -> Event {
    let has = |flags: i32| bits & flags as u32 != 0;
    let end = has(libc::EPOLLHUP | libc::EPOLLERR);
    let when = |condition: bool, reason: u64| if condition { reason } else { 0 };
    let error = when(has(libc::EPOLLERR), ERROR);
    Event {
        index: data as u32,
        generation: (data >> 32) as u32,
        readable: end || has(libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLPRI),
        writable: end || has(libc::EPOLLOUT),
        read_reasons: error
            | when(has(libc::EPOLLHUP | libc::EPOLLRDHUP), HANG_UP)
            | when(has(libc::EPOLLPRI), PRIORITY),
        write_reasons: error | when(has(libc::EPOLLHUP), HANG_UP),
    }
}

/// Returns whether a descriptor number belongs to a simulation.
#[inline]
pub(crate) fn is_simulated(fd: i32) -> bool {
    fd >= FD_BASE
}

/// Registers a simulated descriptor.
pub(crate) fn add(fd: i32, index: u32, generation: u32, is_first: bool) -> io::Result<()> {
    let data = u64::from(generation) << 32 | u64::from(index);
    let added = world::with(|world| {
        let watch = |kernel: &mut super::kernel::Kernel| match is_first && kernel.is_watched(fd) {
            true => Err(libc::EEXIST),
            false => kernel.watch(fd, data),
        };
        world.and_then(|world| world.try_kernel(watch)).unwrap_or(Err(libc::EBADF))
    });
    added.map_err(io::Error::from_raw_os_error)
}

/// Removes a simulated descriptor.
pub(crate) fn delete(fd: i32) {
    world::with(|world| world.and_then(|world| world.try_kernel(|kernel| kernel.unwatch(fd).is_ok())));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_say_what_the_bits_say() {
        let event = |bits: i32| super::event(7 << 32 | 9, bits as u32);
        let readable = event(libc::EPOLLIN);
        assert_eq!((readable.index, readable.generation), (9, 7));
        assert!(readable.readable && !readable.writable && readable.read_reasons == 0);
        let half = event(libc::EPOLLIN | libc::EPOLLRDHUP);
        assert_eq!((half.read_reasons, half.write_reasons), (HANG_UP, 0));
        let end = event(libc::EPOLLHUP | libc::EPOLLERR);
        assert!(end.readable && end.writable && end.write_reasons == HANG_UP | ERROR);
    }

    #[test]
    fn descriptors_of_no_simulation_cannot_be_registered() {
        assert!(is_simulated(FD_BASE) && !is_simulated(FD_BASE - 1) && !is_simulated(-1));
        assert_eq!(add(FD_BASE, 0, 0, true).unwrap_err().raw_os_error(), Some(libc::EBADF));
        delete(FD_BASE);
    }
}

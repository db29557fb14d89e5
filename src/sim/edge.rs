//! `Event`: the contents of one edge of a descriptor of a simulation, in the terms of `rt/poll`.

use crate::rt::poll::side::{ERROR, HANG_UP, PRIORITY};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_match_their_bits() {
        let event = |bits: i32| super::event(7 << 32 | 9, bits as u32);
        let readable = event(libc::EPOLLIN);
        assert_eq!((readable.index, readable.generation), (9, 7));
        assert!(readable.readable && !readable.writable && readable.read_reasons == 0);
        let half = event(libc::EPOLLIN | libc::EPOLLRDHUP);
        assert_eq!((half.read_reasons, half.write_reasons), (HANG_UP, 0));
        let end = event(libc::EPOLLHUP | libc::EPOLLERR);
        assert!(end.readable && end.writable && end.write_reasons == HANG_UP | ERROR);
    }
}

//! [`event`]: the contents of one edge of a descriptor of a simulation, in the terms of `rt/poll`.

use crate::rt::poll::backend::{Event, State, Token};

/// Decodes an edge from the poller's data and EPOLL bits.
pub(super) fn event(data: u64, bits: u32) -> Event {
    let has = |flag: i32| bits & flag as u32 != 0;
    let state = State {
        input: has(libc::EPOLLIN),
        output: has(libc::EPOLLOUT),
        priority: has(libc::EPOLLPRI),
        half_closed: has(libc::EPOLLRDHUP),
        hung_up: has(libc::EPOLLHUP),
        failed: has(libc::EPOLLERR),
    };
    Event::new(Token::unpack(data), state)
}

#[cfg(test)]
mod tests {
    use crate::rt::poll::side::{ERROR, HANG_UP};

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

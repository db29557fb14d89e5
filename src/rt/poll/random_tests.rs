//! A test that makes calls, closes and registrations in random orders, for each back end.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use super::*;

/// A socket of [`random_orders_lose_no_edge`], with its expected state.
struct Played {
    socket: UnixStream,
    peer: UnixStream,
    token: Token,
    /// Whether, in each direction, no edge has arrived since the first registration or since the
    /// last call that failed with EAGAIN.
    is_idle: [bool; 2],
}

impl Played {
    fn new<B: BackEnd>(waiting: &Waiting<B>, index: u32, generation: u32) -> Played {
        let (socket, peer) = pair();
        let token = token(index, generation);
        waiting.add(&socket, token);
        Played { socket, peer, token, is_idle: [true; 2] }
    }

    fn lacks_an_edge(&self) -> bool {
        let is_ready = |write| sys::socket::is_ready(self.socket.as_fd(), write).unwrap();
        self.is_idle[0] && is_ready(false) || self.is_idle[1] && is_ready(true)
    }

    /// Repeats the call until it fails or returns 0. After EAGAIN, arms the direction, as an
    /// operation that waits does.
    fn exhaust<B: BackEnd>(&mut self, waiting: &Waiting<B>, write: bool) {
        let mut buf = [0; 1 << 14];
        let end = loop {
            match if write { self.socket.write(&buf) } else { self.socket.read(&mut buf) } {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => break error.kind(),
            }
        };
        if end == io::ErrorKind::WouldBlock {
            self.is_idle[usize::from(write)] = true;
            waiting.it.arm(self.token, !write, write);
        }
    }
}

/// Makes calls, closes and registrations in random orders. After EAGAIN, each change of the state
/// must be reported as an edge, and events must have only tokens that are registered.
pub(super) fn random_orders_lose_no_edge<B: BackEnd>() {
    for seed in 1..=40_u64 {
        let mut state = seed;
        let mut random = move |most: u64| {
            // SplitMix64.
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mixed = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
            (mixed ^ mixed >> 31) % most
        };
        let mut waiting = Waiting::<B>::open();
        let mut all: Vec<_> = (0..3).map(|index| Played::new(&waiting, index, 0)).collect();
        for step in 1..60 {
            let at = random(3) as usize;
            let played = &mut all[at];
            match random(9) {
                0 => played.exhaust(&waiting, false),
                1 => played.exhaust(&waiting, true),
                2 => _ = played.peer.write(&[0; 100]),
                3 => while played.peer.read(&mut [0; 1 << 14]).is_ok_and(|count| count > 0) {},
                4 => {
                    played.token.generation = step;
                    add(&waiting.it, played.socket.as_fd(), played.token, false).unwrap();
                    waiting.it.arm(played.token, true, true);
                }
                5 => {
                    waiting.it.delete(played.socket.as_fd());
                    *played = Played::new(&waiting, at as u32, step);
                }
                6 => _ = played.peer.shutdown(std::net::Shutdown::Write),
                7 => waiting.it.wake(),
                _ => {}
            }
            let most = 1 + random(4) as usize;
            let mut events = waiting.now(most);
            let begun = Instant::now();
            loop {
                for event in &events {
                    let played = &mut all[event.index as usize];
                    assert_eq!(event.generation, played.token.generation, "{}: seed {seed}, step {step}", B::NAME);
                    played.is_idle[0] &= !event.readable;
                    played.is_idle[1] &= !event.writable;
                }
                if !all.iter().any(Played::lacks_an_edge) {
                    break;
                }
                assert!(begun.elapsed() < PATIENCE, "{}: seed {seed}, step {step}: an edge is lost", B::NAME);
                waiting.it.wait(&mut waiting.batch, most, Some(100_000_000));
                events = waiting.batch.events().collect();
            }
        }
    }
}

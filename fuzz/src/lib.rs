//! Fuzz targets. Each takes arbitrary bytes, performs the operations that they encode, and panics
//! if the crate differs from an oracle.
//!
//! [`codecs`] tests control messages, addresses and text, [`state`] timers and poll descriptors,
//! and [`sockets`] operations on a pair of sockets. `ci/fuzz.sh` searches for failing inputs, guided
//! by coverage (libFuzzer, feature `libfuzzer`). `cargo test -p netpoll-fuzz` replays `seeds/NAME/*`,
//! mutations of them, and random inputs. The random numbers are the same in every run, so failures
//! are reproducible.
//!
//! The operations of a target depend only on its input, not on time or chance. Source files whose items
//! the crate does not export are compiled here (`#[path]`), under the same module names.

// The crate itself runs the unit tests of the files that are compiled here.
#![cfg(not(test))]

// The crate lints these files; this package uses only parts of them.
#[allow(dead_code, unused_imports, unreachable_pub, missing_docs, clippy::all)]
#[path = "../../src/net/udp/ancillary.rs"]
mod ancillary;
#[allow(dead_code, unused_imports, unreachable_pub, clippy::all)]
mod rt;
#[allow(dead_code, unused_imports, unused_macros, clippy::all)]
#[path = "../../src/sync.rs"]
mod sync;
#[allow(dead_code, unused_imports, unreachable_pub, clippy::all)]
mod sys;

pub mod codecs;
pub mod sockets;
pub mod state;

/// Reads decisions from the input. After the end of the input, every decision is 0.
#[derive(Debug)]
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn number(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// Returns a number below `bound` and below 256, or 0 if `bound` is 0.
    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound.max(1)
    }

    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

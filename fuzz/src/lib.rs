//! Fuzz targets. Each takes arbitrary bytes, performs the operations that they encode, and panics
//! if the result of an operation differs from that of an oracle.
//!
//! [`codecs`] tests control messages, addresses and text, [`state`] timers and poll descriptors,
//! and [`sockets`] operations on a pair of sockets. `ci/fuzz.sh` searches for failing inputs,
//! guided by coverage (libFuzzer, feature `libfuzzer`). `cargo test -p netpoll-fuzz` replays the
//! files of `seeds`, mutations of them, and random inputs. The random numbers are the same in every
//! run, so failures are reproducible.
//!
//! The operations of a target depend only on its input, not on time or chance. Source files whose
//! items the crate does not export are compiled here (`#[path]`), under the module paths by which
//! they import each other.

// The crate itself runs the unit tests of the files that are compiled here.
#![cfg(not(test))]

// The crate itself lints these files. This package uses only parts of them.
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

/// Reads numbers from the input. After the end of the input, every number is 0.
#[derive(Debug)]
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes one byte.
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// Takes two bytes, as a little-endian number.
    fn number(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// Takes one byte, and returns its remainder modulo `bound`, or 0 if `bound` is 0.
    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound.max(1)
    }

    /// Takes `count` bytes, or all if there are fewer.
    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

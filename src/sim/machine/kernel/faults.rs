//! `Faults`: faults of system calls and edges, drawn by rate and seed. It also numbers and counts
//! these faults and those of links, and decides which of them take place.

use std::collections::BTreeSet;
use std::fmt;

use super::log::seconds;
use super::random::Random;

/// Rates of faults; see the [module documentation](self). Each rate is a probability per call or
/// per edge.
#[derive(Debug)]
pub(crate) struct Faults {
    random: Random,
    /// The rate at which calls that accept, receive or send fail with EINTR before they have an
    /// effect.
    pub(crate) interrupted: f64,
    /// The rate at which a read or write of a TCP stream, or a write to a Unix stream, transfers
    /// fewer bytes than possible.
    pub(crate) short: f64,
    /// The rate at which an accept or a receive on a ready socket, or a send on a TCP stream in any
    /// state, fails with EAGAIN. An edge follows.
    pub(crate) again: f64,
    /// The rate at which the creation of a descriptor fails with EMFILE.
    pub(crate) no_descriptors: f64,
    /// The rate at which sending a UDP datagram fails with ENOBUFS.
    pub(crate) no_buffers: f64,
    pub(crate) late_edges: f64,
    pub(crate) repeated_edges: f64,
    /// The number of the first fault that does not take place. Later faults and the faults in
    /// `skipped` do not take place either.
    pub(crate) most: u64,
    pub(crate) skipped: BTreeSet<u64>,
    drawn: u64,
    /// The numbers and descriptions of the first [`STRUCK_MAX`] faults that took place.
    pub(crate) struck: Vec<(u64, String)>,
    happened: u64,
}

/// The faults of an edge: the delays in nanoseconds until it is reported (`late`), or reported
/// again (`again`).
pub(crate) struct EdgeFaults {
    pub(crate) late: Option<u64>,
    pub(crate) again: Option<u64>,
}

/// The maximum number of faults whose descriptions are kept.
const STRUCK_MAX: usize = 1000;

/// The maximum delay of an edge, in nanoseconds.
const EDGE_DELAY: u64 = 2_000_000;

impl Faults {
    pub(crate) fn new(seed: u64) -> Faults {
        Faults {
            random: Random::new(seed, 2),
            interrupted: 0.0,
            short: 0.0,
            again: 0.0,
            no_descriptors: 0.0,
            no_buffers: 0.0,
            late_edges: 0.0,
            repeated_edges: 0.0,
            most: u64::MAX,
            skipped: BTreeSet::new(),
            drawn: 0,
            struck: Vec::new(),
            happened: 0,
        }
    }

    /// Draws a fault of this rate. Returns whether it takes place now.
    pub(crate) fn strikes(&mut self, rate: f64, at: u64, what: &str) -> bool {
        rate > 0.0 && self.random.chance(rate) && self.happens(at, &what)
    }

    /// Numbers a fault that was drawn. Returns whether the fault takes place.
    pub(crate) fn happens(&mut self, at: u64, what: &dyn fmt::Display) -> bool {
        let number = self.drawn;
        self.drawn += 1;
        let happens = number < self.most && !self.skipped.contains(&number);
        if happens {
            self.happened += 1;
            if self.struck.len() < STRUCK_MAX {
                self.struck.push((number, format!("{} s: {what}", seconds(at))));
            }
        }
        happens
    }

    /// Returns the number of faults that have taken place.
    pub(crate) fn count(&self) -> u64 {
        self.happened
    }

    /// Returns the number of bytes to transfer if `count` are possible. A fault reduces the number,
    /// but not below 1.
    pub(crate) fn shortened(&mut self, count: usize, at: u64) -> usize {
        if count > 1 && self.strikes(self.short, at, "short count") {
            1 + self.random.below(count as u64 - 1) as usize
        } else {
            count
        }
    }

    /// Draws the faults of an edge. At most one takes place: a late edge is not repeated.
    pub(crate) fn edge(&mut self, at: u64) -> EdgeFaults {
        let late = self.strikes(self.late_edges, at, "late edge").then(|| 1 + self.random.below(EDGE_DELAY));
        let delay = self.random.chance(self.repeated_edges).then(|| 1 + self.random.below(EDGE_DELAY));
        let again = delay.filter(|_| late.is_none() && self.happens(at, &"repeated edge"));
        EdgeFaults { late, again }
    }
}

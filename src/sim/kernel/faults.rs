//! `Faults`: what goes wrong at the calls themselves, by rate and seed.

use std::collections::BTreeSet;

use super::log::seconds;
use super::random::Random;

/// See the module's header. Each rate is a probability per call, or per edge.
#[derive(Debug)]
pub(crate) struct Faults {
    random: Random,
    /// EINTR before anything is done.
    pub(crate) interrupted: f64,
    /// Fewer bytes than could be moved.
    pub(crate) short: f64,
    /// EAGAIN although the socket is ready; an edge follows.
    pub(crate) again: f64,
    /// EMFILE where a descriptor is made.
    pub(crate) no_descriptors: f64,
    /// ENOBUFS where something is sent.
    pub(crate) no_buffers: f64,
    pub(crate) late_edges: f64,
    pub(crate) repeated_edges: f64,
    /// Faults from this number on do not happen, nor do those that are skipped.
    pub(crate) most: u64,
    pub(crate) skipped: BTreeSet<u64>,
    drawn: u64,
    /// What happened, by number: the first [`STRUCK_MAX`].
    pub(crate) struck: Vec<(u64, String)>,
    happened: u64,
}

/// What becomes of an edge: the nanoseconds after which it comes, or comes again.
pub(crate) struct Edge {
    pub(crate) late: Option<u64>,
    pub(crate) again: Option<u64>,
}

/// Faults that are kept by name.
const STRUCK_MAX: usize = 1000;

/// The longest delay of an edge.
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

    /// Whether a fault of this rate happens now.
    pub(crate) fn strikes(&mut self, rate: f64, at: u64, what: &str) -> bool {
        rate > 0.0 && self.random.chance(rate) && self.happens(at, what)
    }

    /// Whether a fault that was drawn happens.
    pub(crate) fn happens(&mut self, at: u64, what: &str) -> bool {
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

    /// Faults that have happened.
    pub(crate) fn count(&self) -> u64 {
        self.happened
    }

    /// How many of `count` bytes are moved, at least one.
    pub(crate) fn shortened(&mut self, count: usize, at: u64) -> usize {
        if count > 1 && self.strikes(self.short, at, "short count") {
            1 + self.random.below(count as u64 - 1) as usize
        } else {
            count
        }
    }

    pub(crate) fn edge(&mut self, at: u64) -> Edge {
        let late = self.strikes(self.late_edges, at, "late edge").then(|| 1 + self.random.below(EDGE_DELAY));
        let again = self.strikes(self.repeated_edges, at, "repeated edge").then(|| 1 + self.random.below(EDGE_DELAY));
        Edge { late, again }
    }
}

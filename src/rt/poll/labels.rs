//! Labels: data that only a few sockets have, for [`inspect`](crate::rt::inspect()).
//!
//! A label is the host name to which a connection was dialled, or the limits of a listener. The
//! table is keyed by the slot of the socket, and has no entry for a socket without a label. An
//! entry belongs to one generation of its slot, so the entry of a closed socket is ignored. Such
//! entries are removed whenever the table has doubled since the last removal, so the table has at
//! most 16 entries, or twice as many as the last removal has left, whichever is more. An entry
//! takes 41 bytes plus unused capacity of the table. Sockets of the same host share its name.
//!
//! # Invariants
//! * The table's lock is taken when a socket gets a label, and before a simulation starts. A
//!   snapshot and [`openmetrics`](crate::rt::openmetrics()) take it once and, if the table has
//!   entries, again for each socket that they read. Other operations do not take it. No user code
//!   runs while it is held.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// The limits of a listener, or of several listeners that share them.
pub(crate) trait Limits: fmt::Debug + Send + Sync {
    /// Returns the number of permits in use, or 0 if the number of connections is not limited.
    fn connections(&self) -> usize;
    /// Returns the maximum of [`connections`](Limits::connections), if there is one.
    fn most(&self) -> Option<usize>;
    /// Returns the number of connections that were refused for lack of descriptors.
    fn refused(&self) -> u64;
}

/// The label of a socket.
#[derive(Clone, Debug)]
pub(crate) enum Label {
    /// The host name to which the connection was dialled.
    Host(Arc<str>),
    /// The limits of the listener.
    Limits(Weak<dyn Limits>),
}

/// The labels of all sockets.
#[derive(Debug, Default)]
struct Labels {
    /// The generation and the label of each slot with a label, by the index of the slot.
    entries: HashMap<u32, (u32, Label)>,
    hosts: HashSet<Arc<str>>,
    /// The number of entries at which the entries of closed sockets are removed.
    prune_at: usize,
}

/// The minimum of [`Labels::prune_at`].
const PRUNE_MIN: usize = 16;

static LABELS: Mutex<Option<Labels>> = Mutex::new(None);

fn lock() -> MutexGuard<'static, Option<Labels>> {
    LABELS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Creates the table before a simulation starts. The table's hashers take random numbers from the
/// thread that creates it, and must not take random numbers of a simulation.
#[cfg(feature = "sim")]
pub(crate) fn prepare() {
    lock().get_or_insert_default();
}

/// Stores the host name of the socket `generation` of the slot `index`. `is_open` returns whether a
/// slot still belongs to a generation.
pub(crate) fn set_host(index: u32, generation: u32, host: &str, is_open: impl Fn(u32, u32) -> bool) {
    lock().get_or_insert_default().set_host(index, generation, host, is_open);
}

/// Stores the limits of the listener `generation` of the slot `index`. `is_open` is as for
/// [`set_host`].
pub(crate) fn set_limits(index: u32, generation: u32, limits: Weak<dyn Limits>, is_open: impl Fn(u32, u32) -> bool) {
    lock().get_or_insert_default().set(index, generation, Label::Limits(limits), is_open);
}

/// Returns whether the table has entries.
pub(crate) fn exist() -> bool {
    lock().as_ref().is_some_and(|labels| !labels.entries.is_empty())
}

/// Returns the label of the socket `generation` of the slot `index`, if it has one.
pub(crate) fn get(index: u32, generation: u32) -> Option<Label> {
    lock().as_ref()?.get(index, generation).cloned()
}

impl Labels {
    fn set_host(&mut self, index: u32, generation: u32, host: &str, is_open: impl Fn(u32, u32) -> bool) {
        let host = match self.hosts.get(host) {
            Some(host) => host.clone(),
            None => {
                let host: Arc<str> = host.into();
                self.hosts.insert(host.clone());
                host
            }
        };
        self.set(index, generation, Label::Host(host), is_open);
    }

    fn set(&mut self, index: u32, generation: u32, label: Label, is_open: impl Fn(u32, u32) -> bool) {
        self.entries.insert(index, (generation, label));
        if self.entries.len() >= self.prune_at.max(PRUNE_MIN) {
            self.entries.retain(|&index, &mut (generation, _)| is_open(index, generation));
            // A name without another reference is no longer used.
            self.hosts.retain(|host| Arc::strong_count(host) > 1);
            self.prune_at = self.entries.len() * 2;
        }
    }

    fn get(&self, index: u32, generation: u32) -> Option<&Label> {
        self.entries.get(&index).filter(|entry| entry.0 == generation).map(|entry| &entry.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(labels: &Labels, index: u32, generation: u32) -> Option<&str> {
        match labels.get(index, generation)? {
            Label::Host(host) => Some(host),
            Label::Limits(_) => None,
        }
    }

    #[test]
    fn label_belongs_to_one_generation_of_its_slot() {
        let mut labels = Labels::default();
        labels.set_host(7, 1, "one.example", |_, _| true);
        assert_eq!(host(&labels, 7, 1), Some("one.example"));
        assert_eq!((host(&labels, 7, 2), host(&labels, 8, 1)), (None, None));
        labels.set_host(7, 2, "two.example", |_, _| true);
        assert_eq!((host(&labels, 7, 1), host(&labels, 7, 2)), (None, Some("two.example")));
    }

    #[test]
    fn closed_sockets_do_not_accumulate() {
        let mut labels = Labels::default();
        for index in 0..10_000 {
            // The last four sockets are open.
            let is_open = |other, generation| generation == 3 && other + 4 > index;
            labels.set_host(index, 3, &format!("host-{index}.example"), is_open);
            assert!(labels.entries.len() <= PRUNE_MIN && labels.hosts.len() <= PRUNE_MIN, "{index}");
        }
        assert_eq!(host(&labels, 9999, 3), Some("host-9999.example"));
    }

    #[test]
    fn sockets_share_the_name_of_one_host() {
        let mut labels = Labels::default();
        for index in 0..100 {
            labels.set_host(index, 1, "db.example", |_, _| true);
        }
        assert_eq!((labels.entries.len(), labels.hosts.len()), (100, 1));
        assert_eq!(Arc::strong_count(labels.hosts.get("db.example").unwrap()), 101);
    }
}

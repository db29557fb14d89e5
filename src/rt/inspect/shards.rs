//! What the shards of the poller do: for snapshots and in the OpenMetrics format.

use std::fmt::Write as _;

use super::{PollerShard, SocketInfo};
use crate::rt::poll::poll_desc::{PollDesc, registration};
use crate::rt::runtime::runtime;
use crate::sync::Ordering;

/// Returns the shards with their numbers of `sockets`.
pub(super) fn shards(sockets: &[SocketInfo]) -> Vec<PollerShard> {
    let driver = &runtime().driver;
    let info = |shard| {
        let counts = driver.counts(shard);
        PollerShard { sockets: 0, waits: counts.waits.get(), events: counts.events.get() }
    };
    let mut shards: Vec<_> = (0..driver.roles.count()).map(info).collect();
    for socket in sockets {
        if let Some(shard) = socket.poller_shard().and_then(|shard| shards.get_mut(usize::from(shard))) {
            shard.sockets += 1;
        }
    }
    shards
}

/// Returns the shard of a descriptor, if there are several and it is registered.
pub(super) fn of(desc: &PollDesc) -> Option<u8> {
    if runtime().driver.roles.is_single() {
        return None;
    }
    // ORDERING: Relaxed; a value to show.
    let word = desc.registration.load(Ordering::Relaxed);
    let is_registered = registration::state(word) >= registration::ADDED && (word >> 32) as u32 == runtime().epoch();
    is_registered.then_some(registration::shard(word) as u8)
}

/// Writes the metrics of the shards, if there are several, in the OpenMetrics format.
pub(super) fn write_openmetrics(text: &mut String) {
    let shards = shards(&[]);
    if shards.len() < 2 {
        return;
    }
    type Value = fn(&PollerShard) -> u64;
    let metrics: [(&str, &str, Value); 2] = [
        ("waits", "Total number of calls that waited for events of the shard or checked for them", |shard| shard.waits),
        ("events", "Total number of events that these calls returned", |shard| shard.events),
    ];
    for (name, help, value) in metrics {
        // Writing to a string does not fail.
        let _ = writeln!(text, "# HELP netpoll_poller_shard_{name} {help}");
        let _ = writeln!(text, "# TYPE netpoll_poller_shard_{name} counter");
        for (number, shard) in shards.iter().enumerate() {
            let _ = writeln!(text, "netpoll_poller_shard_{name}_total{{shard=\"{number}\"}} {}", value(shard));
        }
    }
}

//! The poller's shards in snapshots and in the OpenMetrics format.

use std::fmt::Write as _;

use super::{PollerShard, SocketInfo};
use crate::rt::poll::poll_desc::{PollDesc, registration};
use crate::rt::runtime::runtime;
use crate::sync::Ordering;

/// Returns the shards, with the number of `sockets` registered in each.
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

/// Returns the shard of a descriptor, or `None` if there is only one shard or the descriptor is not
/// registered with the current runtime.
pub(super) fn of(desc: &PollDesc) -> Option<u8> {
    if runtime().driver.roles.is_single() {
        return None;
    }
    // ORDERING: Relaxed: the value is only displayed.
    let word = desc.registration.load(Ordering::Relaxed);
    let is_registered = registration::state(word) >= registration::ADDED && (word >> 32) as u32 == runtime().epoch();
    is_registered.then_some(registration::shard(word) as u8)
}

/// Writes the metrics of the shards in the OpenMetrics format, if there are several shards.
pub(super) fn write_openmetrics(text: &mut String) {
    let shards = shards(&[]);
    if shards.len() < 2 {
        return;
    }
    type Value = fn(&PollerShard) -> u64;
    let metrics: [(&str, &str, Value); 2] = [
        ("waits", "Total number of waiting and non-blocking polls of the shard", |shard| shard.waits),
        ("events", "Total number of events that the polls of the shard returned", |shard| shard.events),
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

//! [`Snapshot`]: a snapshot of a program, parsed from the JSON that netpoll's `Snapshot::to_json`
//! writes. All times are in seconds.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::Deserialize;

use crate::request::{LIMITS, ask};

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Snapshot {
    /// The time of the snapshot, since the Unix epoch.
    pub(crate) taken: f64,
    pub(crate) tasks: Vec<Task>,
    /// The number of tasks that are not in `tasks`, because their number is limited.
    #[serde(default)]
    pub(crate) more_tasks: u64,
    pub(crate) sockets: Vec<Socket>,
    pub(crate) workers: Vec<Worker>,
    #[serde(default)]
    pub(crate) metrics: Metrics,
    #[serde(default)]
    pub(crate) histograms: BTreeMap<String, Histogram>,
}

/// The metrics that the view shows.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Metrics {
    /// The number of tasks in the shared queues.
    pub(crate) tasks_injected: u64,
}

/// A histogram of values, such as the durations of polls in seconds.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Histogram {
    /// The total number of values.
    pub(crate) count: u64,
    /// The upper bounds, in ascending order, each with the number of values up to the bound.
    pub(crate) buckets: Vec<(f64, u64)>,
}

impl Histogram {
    /// Returns the number of values in each range. The last range has no upper bound.
    pub(crate) fn ranges(&self) -> Vec<(Option<f64>, u64)> {
        let mut below = 0;
        let bounded = self.buckets.iter().map(|&(bound, count)| (Some(bound), count));
        let all = bounded.chain([(None, self.count)]);
        all.map(|(bound, count)| (bound, count.saturating_sub(std::mem::replace(&mut below, count)))).collect()
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Task {
    pub(crate) id: u64,
    pub(crate) kind: String,
    /// The lane of the task, or `None` for the lane `Normal`.
    pub(crate) lane: Option<String>,
    pub(crate) state: String,
    pub(crate) name: Option<String>,
    pub(crate) spawned_at: Option<String>,
    pub(crate) age: f64,
    /// The time since the last poll.
    pub(crate) last_poll: f64,
    /// The CPU time used so far.
    pub(crate) cpu: f64,
    pub(crate) longest_poll: f64,
    pub(crate) polls: u64,
    pub(crate) waits_for_more: bool,
    pub(crate) waits_for: Option<WaitsFor>,
    pub(crate) woken_by: Option<WokenBy>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum WokenBy {
    Socket { fd: i32 },
    Timer,
    Task { id: u64 },
    Thread,
    Itself,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum WaitsFor {
    Time { left: f64 },
    Task { id: u64 },
    Socket { fd: i32, operation: String },
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Socket {
    pub(crate) fd: i32,
    pub(crate) kind: String,
    pub(crate) state: String,
    pub(crate) local: Option<String>,
    pub(crate) peer: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) reads: Option<u32>,
    pub(crate) writes: Option<u32>,
    pub(crate) bytes_received: Option<u64>,
    pub(crate) bytes_sent: Option<u64>,
    pub(crate) last_use: Option<f64>,
    pub(crate) errors: u8,
    pub(crate) last_errno: Option<i32>,
    pub(crate) limits: Option<Limits>,
    pub(crate) age: f64,
    pub(crate) readers: u64,
    pub(crate) writers: u64,
    pub(crate) waiting: Vec<Waiting>,
    pub(crate) read_deadline: Option<f64>,
    pub(crate) write_deadline: Option<f64>,
    pub(crate) tcp: Option<Tcp>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Limits {
    pub(crate) connections: u64,
    pub(crate) max_connections: Option<u64>,
    pub(crate) refused: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Waiting {
    pub(crate) task: u64,
    pub(crate) operation: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Tcp {
    pub(crate) state: String,
    pub(crate) rtt: f64,
    pub(crate) last_sent: f64,
    pub(crate) last_received: f64,
    pub(crate) congestion_window: u64,
    pub(crate) retransmits: u64,
    pub(crate) unsent: u64,
    #[serde(default)]
    pub(crate) segments_received: u32,
    #[serde(default)]
    pub(crate) segments_sent: u32,
    pub(crate) accept_queue: u64,
    pub(crate) accept_queue_max: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Worker {
    pub(crate) id: u64,
    pub(crate) owned: bool,
    pub(crate) stuck: bool,
    pub(crate) running: Option<u64>,
    pub(crate) running_for: Option<f64>,
    pub(crate) queued: u64,
    pub(crate) timers: u64,
    pub(crate) polls: u64,
    pub(crate) steals: u64,
}

impl Snapshot {
    /// Takes a snapshot of the program that serves snapshots at `path`.
    pub(crate) fn take(path: &Path) -> io::Result<Snapshot> {
        let json = ask(path, "json", LIMITS)?;
        serde_json::from_str(&json).map_err(|error| {
            let text = format!("the answer is not a snapshot of this version of netpoll: {error}");
            io::Error::new(io::ErrorKind::InvalidData, text)
        })
    }

    pub(crate) fn task(&self, id: u64) -> Option<&Task> {
        self.tasks.binary_search_by_key(&id, |task| task.id).ok().map(|index| &self.tasks[index])
    }

    pub(crate) fn socket(&self, fd: i32) -> Option<&Socket> {
        self.sockets.binary_search_by_key(&fd, |socket| socket.fd).ok().map(|index| &self.sockets[index])
    }
}

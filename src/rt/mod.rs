//! The runtime: settings, metrics, inspection and shutdown.
//!
//! A process has one runtime. It starts when it is first used and needs no set-up. [`Builder`]
//! changes its settings before it starts, [`metrics()`] returns its metrics, and [`shutdown()`]
//! ends it. Sockets and sleeps work under any executor, because the runtime's own threads poll for
//! them.
//!
//! [`inspect()`] returns the state of each task and socket.

// The internal parts:
// * `poll` reports which sockets are ready, `time` has the clock, the timer heap and sleeps,
//   `sched` runs tasks, and `runtime` connects them.
// * `config` has the settings. `start` and `shutdown` begin and end the runtime, `threads` lists
//   its threads, and `reapers` are the threads of a shutdown. `fork` detects children of fork(2).
// * `context`, `refusals` and `thread_number` have the state of a thread. `short_count` and
//   `unsent` have the state of its current turn.
// * `waiters`, `parker`, `slab`, `lazy_box`, `counter` and `histogram` are types that the other
//   parts use. `warn` prints messages.

mod builder;
mod config;
pub(crate) mod context;
mod counter;
pub(crate) mod fork;
mod histogram;
mod inspect;
pub(crate) mod lazy_box;
mod metrics;
pub(crate) mod parker;
pub(crate) mod poll;
mod reapers;
pub(crate) mod refusals;
pub(crate) mod runtime;
pub(crate) mod sched;
pub(crate) mod short_count;
mod shutdown;
pub(crate) mod slab;
mod start;
mod still_running;
pub(crate) mod thread_number;
mod threads;
pub(crate) mod time;
pub(crate) mod unsent;
pub(crate) mod waiters;
mod warn;

pub use builder::Builder;
pub(crate) use config::wraps_io_errors;
pub use config::{BlockedPolicy, BlockedTask};
pub use histogram::Histogram;
pub use inspect::{
    BlackBox, Inspect, InspectServer, ListenerLimits, PollerShard, Snapshot, SocketAddress, SocketId, SocketInfo,
    SocketState, SocketWait, TaskInfo, TaskKind, TaskState, TcpDetails, WaitsFor, WokenBy, WorkerEvent,
    WorkerEventKind, WorkerInfo, black_box, dump_on_panic, dump_on_sigusr1, inspect, openmetrics,
};
pub use metrics::{HistogramMetric, Metric, MetricKind, Metrics, metrics};
pub(crate) use metrics::{accept_queue, kernel_copies};
pub use sched::lanes::Lane;
pub use shutdown::shutdown;
pub use still_running::StillRunning;

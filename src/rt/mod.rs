//! The runtime: settings, counters, shutdown.
//!
//! There is one a process. It starts at its first use and needs no set-up; [`Builder`] changes the defaults before that, [`metrics`] shows
//! what it does, [`shutdown`] ends it. Sockets and sleeps work under any executor: the runtime's own threads poll for them.
//!
//! Inside: `poller` is what sockets wait through, over `poll_desc` in the slots of `poll_cache`; `driver` decides who polls, `epoll` is
//! the back end; `timer` and `sleep` are time; `sched` runs tasks; `runtime` ties them together.

mod builder;
pub(crate) mod clock;
mod closings;
pub(crate) mod context;
mod driver;
mod epoll;
pub(crate) mod fork;
pub(crate) mod lazy_box;
mod metrics;
pub(crate) mod parker;
pub(crate) mod poll_cache;
pub(crate) mod poll_desc;
pub(crate) mod poller;
mod reapers;
pub(crate) mod role;
pub(crate) mod runtime;
pub(crate) mod sched;
mod shutdown;
pub(crate) mod side;
pub(crate) mod sleep;
mod threads;
pub(crate) mod timer;
pub(crate) mod wait_slot;
pub(crate) mod waiters;
mod waiting;

pub use builder::{BlockedPolicy, Builder};
pub(crate) use metrics::kernel_copies;
pub use metrics::{Metrics, metrics};
pub use sched::sysmon::BlockedTask;
pub use shutdown::{StillRunning, shutdown};

//! The cases of the comparison. A case has a name, a kind, and settings of the server and the load.

use super::child::{LoadPlan, ServerPlan};
use crate::generator::Churn;
use crate::servers::{Hog, Mode};

/// The figures that a case measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// CPU time of the server per request, in lock-step.
    Cpu,
    /// System calls of the server per request, in lock-step.
    Calls,
    /// User instructions of the server per request, in lock-step.
    Instructions,
    /// Memory of the server per idle connection, and context switches of the server while all
    /// connections are idle.
    Idle,
    /// Requests per second, latencies, and CPU time of the server per request. Server and generator
    /// run on all CPUs.
    Free,
    /// Latencies and requests per second while hogs ([`Hog`]) run. Server and generator run on all
    /// CPUs.
    Hogs,
    /// Requests per second with one worker and with one worker per CPU, and the ratio of the two.
    Scale,
    /// Latencies, and CPU time of the server per request, in lock-step. The tasks of all
    /// connections are runnable at once.
    Burst,
}

/// A case of the comparison.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The name of the case on the command line and in the report.
    pub name: &'static str,
    /// The figures that are measured.
    pub kind: Kind,
    /// The number of concurrent connections.
    pub connections: usize,
    /// How the server handles a connection.
    pub mode: Mode,
    /// The side that closes a connection after one echo, or `None` if connections stay open.
    pub churn: Option<Churn>,
    /// Whether the future of `block_on`, not a spawned task, serves the connection.
    pub in_block_on: bool,
    /// Whether the server has one more thread, which does nothing.
    pub idle_thread: bool,
    /// The message size in bytes.
    pub size: usize,
    /// The behaviour of the hogs.
    pub hog: Hog,
    /// The user CPU time that the server spends on each request in addition to the echo, in
    /// microseconds.
    pub work_us: u64,
    /// Whether the quick run includes the case.
    pub quick: bool,
}

/// Returns a case of a plain echo that the quick run includes.
const fn case(name: &'static str, kind: Kind, connections: usize) -> Case {
    Case {
        name,
        kind,
        connections,
        mode: Mode::Echo,
        churn: None,
        in_block_on: false,
        idle_thread: false,
        size: 64,
        hog: Hog::Spin,
        work_us: 0,
        quick: true,
    }
}

const fn deadline(case: Case) -> Case {
    Case { mode: Mode::Deadline, ..case }
}

const fn timeout(case: Case) -> Case {
    Case { mode: Mode::Timeout, ..case }
}

const fn churn(case: Case, by: Churn) -> Case {
    let mode = match by {
        Churn::Server => Mode::Churn,
        Churn::Client => Mode::Echo,
    };
    Case { churn: Some(by), mode, ..case }
}

const fn in_block_on(case: Case) -> Case {
    Case { in_block_on: true, ..case }
}

const fn with_idle_thread(case: Case) -> Case {
    full_only(Case { idle_thread: true, ..case })
}

/// Excludes a case from the quick run.
const fn full_only(case: Case) -> Case {
    Case { quick: false, ..case }
}

const fn readable(case: Case) -> Case {
    Case { mode: Mode::Readable, ..case }
}

const fn hogs(case: Case, hog: Hog) -> Case {
    Case { hog, ..case }
}

/// Every case, in the order of the report.
pub const CASES: &[Case] = &[
    case("echo-1", Kind::Cpu, 1),
    in_block_on(case("block-on-1", Kind::Cpu, 1)),
    case("echo-64", Kind::Cpu, 64),
    full_only(case("echo-256", Kind::Cpu, 256)),
    case("echo-1000", Kind::Cpu, 1000),
    full_only(case("echo-4000", Kind::Cpu, 4000)),
    full_only(case("echo-8000", Kind::Cpu, 8000)),
    with_idle_thread(case("threads-1", Kind::Cpu, 1)),
    with_idle_thread(case("threads-64", Kind::Cpu, 64)),
    with_idle_thread(case("threads-1000", Kind::Cpu, 1000)),
    deadline(case("deadline-1", Kind::Cpu, 1)),
    deadline(case("deadline-64", Kind::Cpu, 64)),
    churn(case("churn-64", Kind::Cpu, 64), Churn::Server),
    full_only(churn(case("churn-client-64", Kind::Cpu, 64), Churn::Client)),
    case("calls-1", Kind::Calls, 1),
    in_block_on(case("calls-block-on-1", Kind::Calls, 1)),
    case("calls-64", Kind::Calls, 64),
    deadline(case("calls-deadline-64", Kind::Calls, 64)),
    churn(case("calls-churn-64", Kind::Calls, 64), Churn::Server),
    churn(case("calls-churn-client-64", Kind::Calls, 64), Churn::Client),
    case("instructions-echo", Kind::Instructions, 64),
    deadline(case("instructions-deadline", Kind::Instructions, 64)),
    timeout(case("instructions-timeout", Kind::Instructions, 64)),
    case("idle", Kind::Idle, 4000),
    readable(case("idle-readable", Kind::Idle, 4000)),
    full_only(case("idle-16000", Kind::Idle, 16_000)),
    case("free-64", Kind::Free, 64),
    case("free-1000", Kind::Free, 1000),
    full_only(case("free-255", Kind::Free, 255)),
    full_only(case("free-256", Kind::Free, 256)),
    full_only(case("free-257", Kind::Free, 257)),
    full_only(case("free-512", Kind::Free, 512)),
    full_only(case("free-8000", Kind::Free, 8000)),
    full_only(case("runnable-255", Kind::Burst, 255)),
    full_only(case("runnable-256", Kind::Burst, 256)),
    case("runnable-257", Kind::Burst, 257),
    full_only(case("runnable-512", Kind::Burst, 512)),
    full_only(Case { size: 65_536, ..case("stream-16", Kind::Free, 16) }),
    hogs(case("hogs-spin", Kind::Hogs, 8), Hog::Spin),
    full_only(hogs(case("hogs-yield", Kind::Hogs, 8), Hog::Yield)),
    full_only(hogs(case("hogs-sleep", Kind::Hogs, 8), Hog::Sleep)),
    full_only(case("work-none-64", Kind::Scale, 64)),
    full_only(Case { work_us: 20, ..case("work-64", Kind::Scale, 64) }),
    full_only(Case { work_us: 1000, ..case("work-8", Kind::Scale, 8) }),
];

impl Case {
    /// Returns the plan of this case's server on `runtime`.
    #[must_use]
    pub fn server(&self, runtime: &str, workers: usize, cpu: Option<usize>) -> ServerPlan {
        ServerPlan {
            mode: self.mode,
            workers,
            buffer: self.size.max(4096),
            in_block_on: self.in_block_on,
            idle_thread: self.idle_thread,
            hogs: if self.kind == Kind::Hogs { workers * 2 } else { 0 },
            hog: self.hog,
            work_us: self.work_us,
            cpu,
            ..ServerPlan::new(runtime)
        }
    }

    /// Returns the plan of this case's load.
    #[must_use]
    pub fn load(&self, lock_step: bool, cpu: Option<usize>) -> LoadPlan {
        let patience_seconds = if self.kind == Kind::Hogs { 3 } else { 10 };
        LoadPlan { connections: self.connections, size: self.size, churn: self.churn, cpu, lock_step, patience_seconds }
    }
}

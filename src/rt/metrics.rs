//! [`Metrics`]: the totals, current numbers and histograms of the runtime.

use std::fmt::Write as _;

use super::counter::Counter;
use super::histogram::{Histogram, Recorder, Unit};
use super::runtime::runtime;
use super::sched::processor::Processor;
use crate::sync::Ordering;

/// Declares the fields of [`Metrics`] with their kinds, so that [`Metrics::iter`] and
/// [`Metrics::histograms`] include all of them.
macro_rules! metrics {
    (
        $($(#[doc = $doc:literal])+ $kind:ident $name:ident: $type:ty,)+
        ; $($(#[doc = $about:literal])+ $unit:ident $histogram:ident,)+
    ) => {
        /// A snapshot of the runtime's metrics; returned by [`metrics`].
        ///
        /// Totals count from the start of the process and continue across a
        /// [`shutdown`](crate::rt::shutdown). The values are read one after the other, so they may
        /// be inconsistent with each other.
        ///
        /// In a simulation (feature `sim`), most values are those of the simulation.
        /// docs/SIMULATION.md, "Metrics", describes these values and lists the exceptions.
        ///
        /// [`iter`](Metrics::iter) and [`histograms`](Metrics::histograms) list the metrics with
        /// their descriptions. [`openmetrics`](Metrics::openmetrics) formats them for Prometheus
        /// and other collectors.
        #[cfg_attr(feature = "serde", derive(serde::Serialize))]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Metrics {
            $($(#[doc = $doc])+ pub $name: $type,)+
            $($(#[doc = $about])+ pub $histogram: Histogram,)+
        }

        impl Default for Metrics {
            fn default() -> Metrics {
                Metrics {
                    $($name: <$type>::default(),)+
                    $($histogram: Histogram::new(Unit::$unit),)+
                }
            }
        }

        impl Metrics {
            /// Returns all metrics except the histograms, each with its name, description and kind.
            ///
            /// # Examples
            /// ```
            /// for metric in netpoll::rt::metrics().iter() {
            ///     println!("{} = {} ({})", metric.name, metric.value, metric.help);
            /// }
            /// ```
            pub fn iter(&self) -> impl Iterator<Item = Metric> + use<> {
                [$(Metric {
                    name: stringify!($name),
                    help: first_sentence(concat!($($doc),+)),
                    kind: MetricKind::$kind,
                    value: self.$name as u64,
                },)+]
                .into_iter()
            }

            /// Returns all histograms, each with its name, description and unit.
            ///
            /// # Examples
            /// ```
            /// for metric in netpoll::rt::metrics().histograms() {
            ///     println!("{}: {} values ({})", metric.name, metric.histogram.count(), metric.help);
            /// }
            /// ```
            pub fn histograms(&self) -> impl Iterator<Item = HistogramMetric> + use<> {
                [$(HistogramMetric {
                    name: stringify!($histogram),
                    help: first_sentence(concat!($($about),+)),
                    unit: match Unit::$unit {
                        Unit::Seconds => "seconds",
                        Unit::Count => "",
                    },
                    histogram: self.$histogram,
                },)+]
                .into_iter()
            }
        }
    };
}

metrics! {
    /// Maximum number of threads that run tasks at the same time, as configured. Spare workers are
    /// not included.
    Gauge workers: usize,
    /// Current number of worker threads. A program's own thread inside `block_on` is not a worker
    /// thread.
    Gauge worker_threads: usize,
    /// Current number of threads for blocking calls, including name look-ups and closes that may
    /// wait.
    Gauge blocking_threads: usize,
    /// Current number of blocking calls, including name look-ups and closes, that wait for a
    /// thread.
    Gauge blocking_queued: usize,
    /// Current number of tasks that were spawned and have not ended. Blocking calls are included,
    /// and local tasks are not.
    Gauge tasks_alive: u64,
    /// Total number of spawned tasks. Blocking calls are included, and local tasks are not.
    Counter tasks_spawned: u64,
    /// Current number of tasks in the shared queues.
    Gauge tasks_injected: usize,
    /// Current number of tasks of the lane `Control`.
    Gauge control_tasks: usize,
    /// Total number of turns in which a task of the lane `Control` ran before others.
    Counter control_turns: u64,
    /// Total number of times that a task of the lane `Control` was queued behind others, because
    /// the lane had used up its share.
    Counter control_queued: u64,
    /// Total number of polls of tasks on workers. A thread in `block_on` that runs tasks counts as
    /// a worker, and its future as a task.
    Counter polls: u64,
    /// Total number of times that a thread took tasks from another thread's queue.
    Counter steals: u64,
    /// Total number of times that a thread had no work and stopped running tasks: a worker that
    /// parked or, if it runs tasks, a thread in `block_on`. A sleep in the poller does not count.
    Counter parks: u64,
    /// Number of shards of the poller.
    Gauge poller_shards: usize,
    /// Total number of waiting and non-blocking polls for events. A wait in several shards of the
    /// poller counts once per shard.
    Counter poller_waits: u64,
    /// Total number of events that the polls for events returned.
    Counter events: u64,
    /// Total number of events for descriptors that were already closed; such events have no effect.
    Counter stale_events: u64,
    /// Current number of operations that wait for a descriptor.
    Gauge waiters: usize,
    /// Total number of timers armed for sleeps, deadlines and timeouts. A timer that is moved to a
    /// later time counts again when it is re-armed.
    Counter timers_armed: u64,
    /// Total number of timer entries that came due, including entries of cancelled or moved timers.
    Counter timers_fired: u64,
    /// Current number of timer entries, including entries of cancelled or moved timers.
    Gauge timer_entries: usize,
    /// Total number of times that a task was found to block its thread. Blocked tasks are not
    /// counted with `BlockedPolicy::Off`, nor while a single-threaded runtime runs without further
    /// threads.
    Counter blocked_tasks: u64,
    /// Current number of waiting calls of `block_on` inside a task, a blocking call or another
    /// `block_on`. A call is counted from its first wait until it returns.
    Gauge nested_block_on: u32,
    /// Current number of open sockets of this crate, descriptors in an `AsyncFd` and ends of
    /// in-memory pipes.
    Gauge descriptors: usize,
    /// Total number of calls of splice(2) to a socket and of sendfile(2) that moved bytes: the
    /// copies that [`io::copy`](crate::io::copy()) and
    /// [`send_file`](crate::net::TcpStream::send_file) delegate to the kernel.
    Counter kernel_copies: u64,
    /// Total number of caught panics in the destructors of tasks, outputs and task-local values,
    /// and in wakers of other crates that await tasks.
    Counter contained_panics: u64,
    ;
    /// Duration of polls of tasks on the workers: a sample that consists of the first poll after
    /// some sleeps, and of each poll in a series of long ones.
    Seconds poll_seconds,
    /// Delay from an event to the poll of the task that it woke: a sample that consists of the
    /// delay of the last queued task, after every 32nd sleep of a worker and after polls for events
    /// by busy workers. The time that the event waited in the kernel is not included.
    Seconds wake_delay_seconds,
    /// Number of connections that waited to be accepted, including the accepted one: a sample of
    /// about one in 64 accepted TCP connections. Only Linux has it.
    Count accept_queue,
}

/// A histogram of [`Metrics`] with its name and description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistogramMetric {
    /// The name of the field of [`Metrics`].
    pub name: &'static str,
    /// A description of one sentence.
    pub help: &'static str,
    /// The unit, which is also the end of the name. Empty for a count.
    pub unit: &'static str,
    /// The values.
    pub histogram: Histogram,
}

/// A single number of [`Metrics`] with its name and description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// The name of the field of [`Metrics`].
    pub name: &'static str,
    /// A description of one sentence.
    pub help: &'static str,
    /// Whether the value is a total or a current number.
    pub kind: MetricKind,
    /// The value, which is a count without a unit.
    pub value: u64,
}

/// The kind of a [`Metric`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MetricKind {
    /// A total, which only grows.
    Counter,
    /// A current number, which may fall.
    Gauge,
}

impl Metrics {
    /// Returns all metrics and histograms in the OpenMetrics 1.0 text format, which ends with
    /// `# EOF`. [`rt::openmetrics`](super::openmetrics) adds the metrics of each listener.
    ///
    /// The names begin with `netpoll_`; those of totals end in `_total`. The content type is
    /// `application/openmetrics-text; version=1.0.0; charset=utf-8`.
    ///
    /// # Examples
    /// ```
    /// let text = netpoll::rt::metrics().openmetrics();
    /// assert!(text.contains("# TYPE netpoll_tasks_alive gauge\nnetpoll_tasks_alive 0\n"));
    /// assert!(text.ends_with("# EOF\n"));
    /// ```
    pub fn openmetrics(&self) -> String {
        let mut text = self.openmetrics_without_end();
        text.push_str("# EOF\n");
        text
    }

    /// Returns all metrics in the OpenMetrics format without the final `# EOF`, so that more
    /// metrics can follow.
    pub(super) fn openmetrics_without_end(&self) -> String {
        let mut text = String::new();
        for Metric { name, help, kind, value } in self.iter() {
            let (kind, suffix) = match kind {
                MetricKind::Counter => ("counter", "_total"),
                MetricKind::Gauge => ("gauge", ""),
            };
            // Writing to a string does not fail.
            let _ = writeln!(text, "# HELP netpoll_{name} {help}");
            let _ = writeln!(text, "# TYPE netpoll_{name} {kind}");
            let _ = writeln!(text, "netpoll_{name}{suffix} {value}");
        }
        for HistogramMetric { name, help, unit, histogram } in self.histograms() {
            let _ = writeln!(text, "# HELP netpoll_{name} {help}");
            let _ = writeln!(text, "# TYPE netpoll_{name} histogram");
            if !unit.is_empty() {
                let _ = writeln!(text, "# UNIT netpoll_{name} {unit}");
            }
            for (bound, count) in histogram.buckets() {
                let bound = if bound.is_finite() { format!("{bound:?}") } else { "+Inf".to_owned() };
                let _ = writeln!(text, "netpoll_{name}_bucket{{le=\"{bound}\"}} {count}");
            }
            let _ = writeln!(text, "netpoll_{name}_count {}", histogram.count());
            let _ = writeln!(text, "netpoll_{name}_sum {:?}", histogram.sum());
        }
        text
    }
}

/// Returns the first sentence of a field's documentation, or its part before a colon or a
/// semicolon.
fn first_sentence(doc: &'static str) -> &'static str {
    let end = [": ", "; ", ". "].iter().filter_map(|end| doc.find(end)).min().unwrap_or(doc.len());
    doc[..end].trim().trim_end_matches('.')
}

static KERNEL_COPIES: Counter = Counter::new();
static ACCEPT_QUEUE: Recorder = Recorder::new(Unit::Count);

/// Returns the recorder of accept queue lengths.
pub(crate) fn accept_queue() -> &'static Recorder {
    &ACCEPT_QUEUE
}

/// Returns the counter of calls that move bytes within the kernel.
pub(crate) fn kernel_copies() -> &'static Counter {
    &KERNEL_COPIES
}

/// Returns the current metrics of the runtime. Does not start the runtime.
///
/// # Examples
/// ```
/// use netpoll::{rt, task};
///
/// let before = rt::metrics().tasks_spawned;
/// task::block_on(async { task::spawn(async {}).await });
/// assert!(rt::metrics().tasks_spawned > before);
/// ```
pub fn metrics() -> Metrics {
    let sides = || runtime().cache.iter().flat_map(|desc| desc.sides());
    metrics_with(|| sides().map(|side| side.waiting()).sum())
}

/// Returns the current metrics, with the number of waiters that `waiters` returns.
pub(crate) fn metrics_with(waiters: impl FnOnce() -> usize) -> Metrics {
    let runtime = runtime();
    let sum = |counter: fn(&Processor) -> &Counter| runtime.processors().map(|p| counter(p).get()).sum::<u64>();
    let add = |recorder: fn(&Processor) -> &Recorder| {
        let mut histogram = Histogram::new(Unit::Seconds);
        runtime.processors().for_each(|processor| recorder(processor).add_to(&mut histogram));
        histogram
    };
    let pools = [&runtime.pool, &runtime.lookups, &runtime.closes];
    let mut accept_queue = Histogram::new(Unit::Count);
    ACCEPT_QUEUE.add_to(&mut accept_queue);
    let metrics = Metrics {
        workers: runtime.config().workers,
        worker_threads: runtime.worker_threads(),
        blocking_threads: pools.iter().map(|pool| pool.threads()).sum(),
        blocking_queued: pools.iter().map(|pool| pool.queued()).sum(),
        tasks_alive: runtime.tasks_alive(),
        tasks_spawned: runtime.spawned.get() + sum(|p| &p.spawned),
        tasks_injected: runtime.injected(),
        control_tasks: runtime.control.alive(),
        control_turns: sum(|p| &p.control_turns),
        control_queued: sum(|p| &p.control_queued),
        polls: runtime.processors().map(|p| p.turns.ended()).sum(),
        steals: sum(|p| &p.steals),
        parks: sum(|p| &p.parks),
        poller_shards: runtime.driver.roles.count(),
        poller_waits: runtime.driver.sum(|counts| &counts.waits),
        events: runtime.driver.sum(|counts| &counts.events),
        stale_events: runtime.driver.sum(|counts| &counts.stale),
        waiters: waiters(),
        timers_armed: runtime.timers_armed(),
        timers_fired: runtime.timers_fired.get(),
        timer_entries: runtime.processors().map(|p| p.timers.len()).sum::<usize>() + runtime.shared_timers.len(),
        blocked_tasks: runtime.sysmon.blocked.load(Ordering::Relaxed),
        nested_block_on: runtime.nested.load(Ordering::SeqCst),
        descriptors: runtime.descriptors.load(Ordering::Relaxed),
        kernel_copies: KERNEL_COPIES.get(),
        contained_panics: runtime.panics.get(),
        poll_seconds: add(|processor| &processor.poll_times),
        wake_delay_seconds: add(|processor| &processor.wake_delays),
        accept_queue,
    };
    #[cfg(feature = "sim")]
    let metrics = crate::sim::metrics(metrics);
    metrics
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::histogram::BUCKETS;

    /// The format is that of <https://prometheus.io/docs/specs/om/open_metrics_spec/>: HELP, TYPE
    /// and the sample of each metric, then EOF.
    #[test]
    fn openmetrics_has_help_type_and_value_of_each_metric() {
        let metrics = Metrics { workers: 3, polls: 7, ..Metrics::default() };
        let text = metrics.openmetrics();
        let lines: Vec<&str> = text.lines().collect();
        // Each histogram has HELP, TYPE, one bucket per range, count and sum. A histogram of
        // seconds also has UNIT.
        let of_histograms: usize =
            metrics.histograms().map(|metric| 4 + BUCKETS + usize::from(!metric.unit.is_empty())).sum();
        assert_eq!(lines.len(), 3 * metrics.iter().count() + of_histograms + 1);
        for line in [
            "# TYPE netpoll_poll_seconds histogram",
            "# UNIT netpoll_poll_seconds seconds",
            "netpoll_poll_seconds_bucket{le=\"1.024e-6\"} 0",
            "netpoll_poll_seconds_bucket{le=\"+Inf\"} 0",
            "netpoll_wake_delay_seconds_count 0",
            "netpoll_accept_queue_bucket{le=\"16.0\"} 0",
            "netpoll_accept_queue_sum 0.0",
        ] {
            assert!(lines.contains(&line), "{line} is not in\n{text}");
        }
        assert_eq!(
            lines[0],
            "# HELP netpoll_workers Maximum number of threads that run tasks at the same time, as configured"
        );
        assert_eq!(lines[1..3], ["# TYPE netpoll_workers gauge", "netpoll_workers 3"]);
        assert!(lines.contains(&"netpoll_polls_total 7") && lines.contains(&"# TYPE netpoll_polls counter"));
        assert_eq!(lines.last(), Some(&"# EOF"));
        for Metric { name, help, .. } in metrics.iter() {
            assert!(!help.is_empty() && !help.contains(['[', '\n', '\\']), "{name}: {help}");
            assert!(help.matches('`').count() % 2 == 0, "{name}: {help}");
            assert!(help.starts_with(char::is_uppercase), "{name}: {help}");
        }
        for HistogramMetric { name, help, unit, .. } in metrics.histograms() {
            assert!(help.starts_with(char::is_uppercase) && !help.contains(['[', '\n', '\\']), "{name}: {help}");
            assert!(name.ends_with(unit), "{name}: {unit}");
        }
    }

    #[test]
    fn totals_are_counters_and_current_numbers_are_gauges() {
        for Metric { name, help, kind, .. } in Metrics::default().iter() {
            assert_eq!(help.starts_with("Total"), kind == MetricKind::Counter, "{name}: {help}");
        }
    }
}

//! [`openmetrics`]: the metrics of the runtime and of each TCP listener in the OpenMetrics format.

use std::fmt::Write as _;

use super::shards;
use super::sockets::{Asking, Reader};
use super::{SocketInfo, TcpDetails};
use crate::rt::metrics::metrics;
use crate::rt::time::clock;
use crate::rt::time::ticks::Scale;

/// A metric of a listener: its name, kind and help text, and a function that returns the value, or
/// `None` if the listener does not have the metric.
type Metric = (&'static str, &'static str, &'static str, fn(&SocketInfo, &TcpDetails) -> Option<u64>);

const METRICS: [Metric; 7] = [
    ("accept_queue", "gauge", "Current number of connections that wait to be accepted", |_, tcp| {
        Some(u64::from(tcp.accept_queue))
    }),
    ("accept_queue_max", "gauge", "Maximum number of connections that may wait to be accepted", |_, tcp| {
        Some(u64::from(tcp.accept_queue_max))
    }),
    ("accepts", "gauge", "Current number of operations that wait for a connection", |socket, _| {
        Some(socket.readers() as u64)
    }),
    ("accepted", "counter", "Total number of accepted connections, modulo 2^32", |socket, _| {
        socket.reads().map(u64::from)
    }),
    ("connections", "gauge", "Current number of connections that hold a permit of the listener", |socket, _| {
        let limits = socket.limits()?;
        limits.max_connections.map(|_| limits.connections as u64)
    }),
    (
        "connections_max",
        "gauge",
        "Maximum number of connections that may hold a permit of the listener",
        |socket, _| socket.limits()?.max_connections.map(|most| most as u64),
    ),
    ("refused", "counter", "Total number of connections refused for lack of descriptors", |socket, _| {
        socket.limits().as_ref().map(|limits| limits.refused)
    }),
];

/// Returns the current metrics of the runtime and of each TCP listener in the OpenMetrics 1.0 text
/// format.
///
/// The metrics are those of [`Metrics::openmetrics`](crate::rt::Metrics::openmetrics), followed by
/// the metrics of listeners, with the labels `local` and `fd`. Listeners are included only on
/// Linux. Listeners of multipath TCP, those in an [`AsyncFd`](crate::io::AsyncFd) and simulated
/// ones are not included. The content type is
/// `application/openmetrics-text; version=1.0.0; charset=utf-8`.
///
/// | metric | listeners |
/// |---|---|
/// | `netpoll_listener_accept_queue`, `netpoll_listener_accept_queue_max`, `netpoll_listener_accepts`, `netpoll_listener_accepted_total` | all |
/// | `netpoll_listener_connections`, `netpoll_listener_connections_max` | those with [`max_connections`](crate::net::ListenConfig::max_connections) |
/// | `netpoll_listener_refused_total` | those with limits |
///
/// If the poller has several [shards](crate::rt::Builder::poller_shards), there are also
/// `netpoll_poller_shard_waits_total` and `netpoll_poller_shard_events_total`, with the label
/// `shard`.
///
/// The function makes one system call per listener, and up to three more per TCP socket whose
/// addresses are not known, such as an adopted socket that no earlier call or snapshot has seen.
///
/// # Examples
/// ```
/// use netpoll::{net::TcpListener, rt, task};
///
/// # fn main() -> std::io::Result<()> {
/// task::block_on(async {
///     let listener = TcpListener::bind("127.0.0.1:0").await?;
///     let text = rt::openmetrics();
///     let local = listener.local_addr()?;
///     assert!(text.contains(&format!("netpoll_listener_accept_queue{{local=\"{local}\",fd=\"")));
///     assert!(text.ends_with("# EOF\n"));
///     Ok(())
/// })
/// # }
/// ```
#[must_use]
pub fn openmetrics() -> String {
    let scale = Scale::new();
    let listeners = Reader::new(Asking::Always, false, clock::now(), &scale).listeners();
    let mut text = metrics().openmetrics_without_end();
    shards::write_openmetrics(&mut text);
    for (name, kind, help, value) in METRICS {
        // Writing to a string does not fail.
        let _ = writeln!(text, "# HELP netpoll_listener_{name} {help}");
        let _ = writeln!(text, "# TYPE netpoll_listener_{name} {kind}");
        let suffix = if kind == "counter" { "_total" } else { "" };
        for listener in &listeners {
            let (Some(local), Some(tcp)) = (listener.local(), listener.tcp()) else { continue };
            if let Some(value) = value(listener, tcp) {
                let fd = listener.fd();
                let _ = writeln!(text, "netpoll_listener_{name}{suffix}{{local=\"{local}\",fd=\"{fd}\"}} {value}");
            }
        }
    }
    text.push_str("# EOF\n");
    text
}

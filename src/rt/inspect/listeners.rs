//! Metrics in the OpenMetrics format, with those of each TCP listener.

use std::fmt::Write as _;

use super::{SocketInfo, TcpDetails, sockets};
use crate::rt::metrics::metrics;
use crate::rt::time::clock;
use crate::rt::time::ticks::Scale;

/// A metric of a listener: name, help and value.
type Gauge = (&'static str, &'static str, fn(&SocketInfo, &TcpDetails) -> u64);

const GAUGES: [Gauge; 3] = [
    ("accept_queue", "Current number of connections that wait to be accepted", |_, tcp| u64::from(tcp.accept_queue)),
    ("accept_queue_max", "Maximum number of connections that may wait to be accepted", |_, tcp| {
        u64::from(tcp.accept_queue_max)
    }),
    ("accepts", "Current number of operations that wait for a connection", |socket, _| socket.readers as u64),
];

/// Returns the current metrics of the runtime and of each TCP listener in the OpenMetrics 1.0 text
/// format.
///
/// It is the text of [`Metrics::openmetrics`](crate::rt::Metrics::openmetrics), with three gauges
/// per listener: `netpoll_listener_accept_queue`, `netpoll_listener_accept_queue_max` and
/// `netpoll_listener_accepts`, with the labels `local` and `fd`. The content type is
/// `application/openmetrics-text; version=1.0.0; charset=utf-8`.
///
/// The call takes two system calls per TCP socket that no earlier call or snapshot has seen, and
/// one per listener.
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
    let listeners = sockets::Reader::new(true, false, clock::now(), &scale).listeners();
    let mut text = metrics().openmetrics_without_end();
    for (name, help, value) in GAUGES {
        // Writing to a string does not fail.
        let _ = writeln!(text, "# HELP netpoll_listener_{name} {help}");
        let _ = writeln!(text, "# TYPE netpoll_listener_{name} gauge");
        for listener in &listeners {
            let (Some(local), Some(tcp)) = (&listener.local, &listener.tcp) else { continue };
            let (fd, value) = (listener.fd, value(listener, tcp));
            let _ = writeln!(text, "netpoll_listener_{name}{{local=\"{local}\",fd=\"{fd}\"}} {value}");
        }
    }
    text.push_str("# EOF\n");
    text
}

//! The functions used with the feature `tracing`.

use std::fmt::Display;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::panic::Location;
use std::time::{Duration, Instant};

use socket2::SockAddr;
use tracing::field::{self, Empty};
use tracing::{Instrument, Level, enabled};

use crate::sys::{option, socket};

/// Returns the text of an address, or `None` for an unnamed one.
fn text(address: Option<SockAddr>) -> Option<String> {
    let address = address?;
    if let Some(address) = address.as_socket() {
        return Some(address.to_string());
    }
    if let Some(path) = address.as_pathname() {
        return Some(path.display().to_string());
    }
    address.as_abstract_namespace().map(|name| format!("@{}", String::from_utf8_lossy(name)))
}

pub(crate) fn wants_accepts() -> bool {
    enabled!(target: "netpoll::accept", Level::DEBUG)
}

pub(crate) fn accepted(fd: i32, local: Option<&dyn Display>, peer: Option<&dyn Display>) {
    tracing::debug!(target: "netpoll::accept", fd, local = local.map(field::display), peer = peer.map(field::display), "accepted");
}

pub(crate) fn accept_backs_off(pause: Duration, error: &io::Error) {
    tracing::warn!(
        target: "netpoll::accept", pause_ms = pause.as_millis() as u64, error = %error,
        "accept backs off for lack of resources",
    );
}

pub(crate) fn deadline_expired(
    op: &'static str,
    network: &'static str,
    local: Option<&dyn Display>,
    peer: Option<&dyn Display>,
) {
    tracing::debug!(
        target: "netpoll::deadline", op, network, local = local.map(field::display), peer = peer.map(field::display),
        "deadline expired",
    );
}

pub(crate) fn closes(fd: BorrowedFd<'_>, was_asked: bool) {
    use std::os::fd::AsRawFd;
    if !enabled!(target: "netpoll::close", Level::DEBUG) {
        return;
    }
    // A descriptor that has no address, because it is not a socket, is not reported.
    let Ok(local) = socket::local_addr_any(fd) else { return };
    let peer = text(socket::peer_addr_any(fd).ok());
    let tcp = option::tcp_state(fd).ok();
    tracing::debug!(
        target: "netpoll::close",
        fd = fd.as_raw_fd(),
        local = text(Some(local)).map(field::display),
        peer = peer.map(field::display),
        reason = if was_asked { "close" } else { "drop" },
        tcp_state = tcp.map(|tcp| tcp.name()),
        bytes_sent = tcp.map(|tcp| tcp.bytes_sent),
        bytes_received = tcp.map(|tcp| tcp.bytes_received),
        retransmits = tcp.map(|tcp| tcp.retransmits),
        "closed",
    );
}

/// One connection attempt of a dial. Dropping it without calling `end` reports that the attempt was
/// abandoned.
#[derive(Debug)]
pub(crate) struct Attempt(Option<(SocketAddr, Instant)>);

impl Attempt {
    pub(crate) fn begin(addr: SocketAddr) -> Attempt {
        Attempt(enabled!(target: "netpoll::dial", Level::DEBUG).then(|| (addr, Instant::now())))
    }

    pub(crate) fn end<T>(mut self, result: &io::Result<T>) {
        let Some((addr, begin)) = self.0.take() else { return };
        let elapsed_us = begin.elapsed().as_micros() as u64;
        match result {
            Ok(_) => {
                tracing::debug!(target: "netpoll::dial", %addr, elapsed_us, outcome = "connected", "dial attempt ended");
            }
            Err(error) => tracing::debug!(
                target: "netpoll::dial", %addr, elapsed_us, outcome = "failed", error = %error, "dial attempt ended",
            ),
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some((addr, begin)) = self.0.take() {
            let elapsed_us = begin.elapsed().as_micros() as u64;
            tracing::debug!(target: "netpoll::dial", %addr, elapsed_us, outcome = "abandoned", "dial attempt ended");
        }
    }
}

pub(crate) fn task_blocks(task: u64, name: Option<&str>, blocked_for: Duration) {
    tracing::warn!(
        target: "netpoll::task", task, name, blocked_ms = blocked_for.as_millis() as u64,
        "task blocks its thread",
    );
}

pub(crate) fn spare_started(worker: usize) {
    tracing::info!(target: "netpoll::worker", worker, "spare worker started");
}

pub(crate) fn spare_ended(worker: usize) {
    tracing::info!(target: "netpoll::worker", worker, "spare worker ended");
}

pub(crate) fn shutdown_begins(timeout: Duration) {
    tracing::info!(target: "netpoll::shutdown", timeout_ms = timeout.as_millis() as u64, "shutdown begins");
}

pub(crate) fn shutdown_ended(threads: usize, tasks: u64) {
    tracing::info!(target: "netpoll::shutdown", threads, tasks, "shutdown ended");
}

/// Wraps a task's future in a span.
pub(crate) fn in_task<F: Future>(
    task: u64,
    name: Option<&str>,
    place: &'static Location<'static>,
    future: F,
) -> impl Future<Output = F::Output> + use<F> {
    let span = tracing::info_span!(
        target: "netpoll::task", "task", task, name = Empty, spawned_at = %format_args!("{}:{}", place.file(), place.line()),
    );
    // `&&str`, because `record` of tracing 0.1.35 requires a sized value.
    if let Some(name) = &name {
        span.record("name", name);
    }
    future.instrument(span)
}

/// Wraps a connection's future in a span.
pub(crate) fn in_connection<F: Future>(
    peer: Option<&dyn Display>,
    future: F,
) -> impl Future<Output = F::Output> + use<F> {
    let span = tracing::info_span!(target: "netpoll::connection", "connection", peer = peer.map(field::display));
    future.instrument(span)
}

//! Events that change nothing that a program can see: the traffic of idle connections.
//!
//! Keep-alive probes repeat forever while the peer answers, and so do probes of a closed window,
//! unless the socket is closed or has a user timeout. These events alone make no task run. So if no
//! other event and no timer of a program is pending when no task can run, the simulation stands
//! still. An event counts as *upkeep* if, as long as no task runs,
//!
//! * it is a timer that is no longer set, a timer of a connection that only sends probes that
//!   repeat forever, or the timer of a connection in TIME-WAIT, or
//! * it is a segment that changes nothing at its receiver: a probe, or a repeated acknowledgement.
//!
//! A peer answers if its host is up, it has the connection, and the links pass packets in both
//! directions in time. On links that lose packets, a series of probes may fail by chance. Such a
//! failure is treated as impossible if it is expected less than once in a million days.
//!
//! No other event is upkeep: each takes place only once or may change something.

use super::link::{Latency, LinkConfig};
use super::network::{Event, Kernel, Scheduled};
use super::packet::{Body, Segment};
use super::socket::{HostId, Role, Socket};
use super::tcp::{Connection, NEVER, RETRIES, RTO_MAX, State};

const DAY: f64 = 24.0 * 3600.0 * 1e9;

/// The expected number of failed series of probes per day from which a failure is treated as
/// possible.
const FAILURES_MIN: f64 = 1e-6;

/// Returns the length of a TCP packet without data.
fn length(is_v4: bool) -> u64 {
    if is_v4 { 40 } else { 60 }
}

/// Returns the maximum time that a packet of `length` bytes is assumed to take on an idle link, in
/// nanoseconds.
fn delay_max(config: &LinkConfig, length: u64) -> u64 {
    let latency = match config.latency {
        Latency::Uniform(ref range) => *range.end(),
        // Longer delays have a probability of e⁻³².
        Latency::Exponential { min, mean } => min.saturating_add(mean.saturating_sub(min).saturating_mul(32)),
    };
    let reorder = if config.reorder > 0.0 { config.reorder_by } else { 0 };
    let sends = (length * 8_000_000_000).checked_div(config.bandwidth).unwrap_or(0);
    latency.saturating_add(reorder).saturating_add(sends)
}

/// The path to a connection's peer and back.
struct Path<'a> {
    peer: &'a Connection,
    /// The probability that a probe or its answer is lost.
    loss: f64,
    /// The longest time from a probe to its answer, in nanoseconds.
    round_trip: u64,
}

impl Path<'_> {
    /// Returns whether the peer can be assumed to answer one of `count` successive probes within
    /// `limit` nanoseconds. A new series of probes begins every `period` nanoseconds.
    fn answers(&self, count: u32, limit: u64, period: u64) -> bool {
        let failures = self.loss.powf(f64::from(count)) * DAY / period.max(1) as f64;
        count > 0 && self.round_trip < limit && failures < FAILURES_MIN
    }
}

impl Connection {
    /// Returns whether an arriving segment contains no data, SYN, FIN or reset, acknowledges
    /// nothing new, and does not change the window.
    fn ignores(&self, segment: &Segment) -> bool {
        let is_empty = segment.data.is_empty() && !segment.syn && !segment.fin && !segment.rst;
        let acknowledges = segment.ack.is_none_or(|ack| ack > self.una);
        let position = (segment.seq, segment.ack.unwrap_or_default());
        let window_stays = segment.window == self.window || position < self.window_from;
        self.state == State::Established && is_empty && !acknowledges && window_stays
    }

    /// Returns whether the probes of the peer's window repeat forever, because the peer announces a
    /// closed window in each answer.
    fn probes_in_vain(&self, path: &Path<'_>) -> bool {
        let peer = path.peer;
        let is_closed = self.window == 0 && peer.rcv_nxt == self.una && peer.offer() == peer.rcv_nxt;
        self.is_probing()
            && !self.is_orphan
            && self.settings.user_timeout == 0
            && is_closed
            && path.answers(RETRIES, self.rto, RTO_MAX)
    }

    /// Returns whether the keep-alive repeats forever, because the peer answers in time.
    fn is_kept_alive(&self, path: &Path<'_>) -> bool {
        let settings = &self.settings;
        // With a user timeout, a single unanswered probe may end the connection.
        let count = if settings.user_timeout > 0 { settings.keep_count.min(1) } else { settings.keep_count };
        let limit = settings.keep_interval.saturating_mul(u64::from(count));
        path.answers(count, limit, settings.keep_idle)
    }
}

impl Kernel {
    /// Returns whether all pending events are upkeep; see the [module documentation](self).
    pub(crate) fn has_only_upkeep(&mut self) -> bool {
        // The event that was not upkeep in the last search is still pending.
        if self.now < self.counts_until {
            return false;
        }
        if self.events.peek().is_some_and(|next| !self.is_upkeep(&next.0)) {
            return false;
        }
        let counts = self.events.iter().find(|event| !self.is_upkeep(&event.0)).map(|event| event.0.at);
        self.counts_until = counts.unwrap_or_default();
        counts.is_none()
    }

    fn is_upkeep(&self, scheduled: &Scheduled) -> bool {
        match &scheduled.event {
            Event::Timer(id) => self.socket(*id).is_none_or(|socket| self.only_probes(socket)),
            Event::Arrive { to, packet, .. } => match &packet.body {
                Body::Tcp(segment) => {
                    let receiver = self.connections.get(&(*to, packet.dst, packet.src));
                    let receiver = receiver.and_then(|&id| self.socket(id));
                    matches!(receiver.map(|socket| &socket.role), Some(Role::Tcp(of)) if of.ignores(segment))
                }
                Body::Udp(..) | Body::Unreachable(..) => false,
            },
            Event::Edge(_) | Event::SecondEdge(_) => false,
        }
    }

    /// Returns whether the timers of a socket change nothing.
    fn only_probes(&self, socket: &Socket) -> bool {
        let Role::Tcp(connection) = &socket.role else { return true };
        if connection.ends_at != NEVER {
            return connection.state == State::TimeWait;
        }
        let (retransmits, keeps) = (connection.retransmit_at != NEVER, connection.keep_at != NEVER);
        if !retransmits && !keeps {
            return true;
        }
        let Some(path) = self.path(socket) else { return false };
        (!retransmits || connection.probes_in_vain(&path)) && (!keeps || connection.is_kept_alive(&path))
    }

    /// Returns the path to the peer of a connection, or `None` if the peer will not answer.
    fn path(&self, socket: &Socket) -> Option<Path<'_>> {
        let (local, remote) = (socket.local?, socket.remote?);
        let to = self.host_at(socket.host, remote)?;
        let comes_back = self.host_at(to, local)? == socket.host;
        let id = *self.connections.get(&(to, remote, local))?;
        let Role::Tcp(peer) = &self.socket(id)?.role else { return None };
        if !comes_back || peer.state != State::Established || !self.hosts[usize::from(to)].is_up {
            return None;
        }
        let length = length(local.is_ipv4());
        let there = self.passing(socket.host, to, length)?;
        let back = self.passing(to, socket.host, length)?;
        let loss = 1.0 - (1.0 - there.loss) * (1.0 - back.loss);
        Some(Path { peer, loss, round_trip: delay_max(there, length).saturating_add(delay_max(back, length)) })
    }

    /// Returns the properties of a link, or `None` if packets of `length` bytes cannot pass or none
    /// was ever sent.
    fn passing(&self, from: HostId, to: HostId, length: u64) -> Option<&LinkConfig> {
        let link = self.links.get(&(from, to))?;
        let passes = !link.is_partitioned && link.held.is_none() && length <= link.config.mtu;
        passes.then_some(&link.config)
    }
}

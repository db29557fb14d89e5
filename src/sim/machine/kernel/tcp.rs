//! `Connection`: one end of a TCP connection, independent of sockets, links and clocks.
//!
//! A connection receives segments with the current time, and emits segments. Its owner calls
//! [`timeout`](Connection::timeout) at the time that [`deadline`](Connection::deadline) returns. A
//! connection implements the parts of TCP (RFC 9293) that a program can observe: handshake,
//! windows, retransmission (RFC 6298), slow start and fast recovery (RFC 5681, RFC 6582),
//! half-close, reset, zero-window probes, keep-alive, user timeout and TIME-WAIT.
//!
//! # States
//! ```text
//! SynSent ──────→ Established ──→ TimeWait ──→ Closed
//! SynReceived ──↗      └──────────────────────↗
//! ```
//! An acceptable reset, an error and [`abort`](Connection::abort) change any state to *Closed*.
//! *Established* stands for all states of RFC 9293 between SYN-RECEIVED and TIME-WAIT or CLOSED.
//! The fields `fin`, `fin_acked`, `fin_received` and `closes_first` tell them apart.
//!
//! # Sequence numbers
//! Sequence numbers have 64 bits. In each direction they begin with 0, the number of the SYN. The
//! send buffer begins at `max(una, 1)`, and the FIN follows its last byte.
//!
//! # Limits
//! Acknowledgements are not delayed. There are no selective acknowledgements, urgent data,
//! simultaneous opens or path MTU discovery.

mod input;

use std::collections::{BTreeMap, VecDeque};

use super::packet::Segment;
use super::settings::Settings;

/// No deadline.
pub(crate) const NEVER: u64 = u64::MAX;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// The minimum retransmission timeout of Linux.
const RTO_MIN: u64 = 200 * MS;
/// The maximum retransmission timeout of Linux.
pub(super) const RTO_MAX: u64 = 120 * SECOND;
/// The initial retransmission timeout of Linux.
const RTO_FIRST: u64 = SECOND;
/// The maximum number of retransmissions of a SYN (tcp_syn_retries).
const SYN_RETRIES: u32 = 6;
/// The maximum number of retransmissions of a SYN-ACK (tcp_synack_retries).
const SYN_ACK_RETRIES: u32 = 5;
/// The maximum number of successive retransmissions on an established connection (tcp_retries2).
pub(super) const RETRIES: u32 = 15;
/// The maximum number of successive retransmissions of a closed socket (tcp_orphan_retries).
const ORPHAN_RETRIES: u32 = 8;
/// The time for which a connection stays in TIME-WAIT, and one whose socket is closed in
/// FIN-WAIT-2, in nanoseconds.
const FIN_TIMEOUT: u64 = 60 * SECOND;
/// The initial congestion window in segments (RFC 6928).
const FIRST_WINDOW: u64 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    SynSent,
    SynReceived,
    Established,
    TimeWait,
    Closed,
}

/// One end of a connection; see the [module documentation](self). Times are in nanoseconds.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) state: State,
    pub(crate) settings: Settings,
    /// The number of the connection, which both ends share. A connection that began later has a
    /// greater number.
    pub(crate) number: u64,
    /// The reason why the connection failed. The owner takes it.
    pub(crate) error: Option<i32>,
    /// Whether this end began the connection.
    pub(crate) is_client: bool,
    /// Whether the program has closed its socket.
    pub(crate) is_orphan: bool,
    /// Whether a write or a poll has found too little room in the send buffer, so that an edge must
    /// report when the socket becomes writable.
    pub(crate) wants_room: bool,

    send: VecDeque<u8>,
    pub(super) una: u64,
    nxt: u64,
    /// The sequence number after the last byte, SYN or FIN that was ever sent.
    sent: u64,
    pub(super) window: u64,
    /// The sequence and acknowledgement numbers of the segment that set `window`.
    pub(super) window_from: (u64, u64),
    /// Whether a FIN follows the data of `send`.
    pub(crate) fin: bool,
    fin_acked: bool,
    /// Whether this end shut down writing before it received the peer's FIN.
    closes_first: bool,

    congestion_window: u64,
    threshold: u64,
    duplicate_acks: u32,
    /// The sequence number at which fast recovery ends, or `None` outside fast recovery.
    recover: Option<u64>,
    /// The smoothed round-trip time and its variation.
    round_trip: Option<(u64, u64)>,
    pub(super) rto: u64,
    /// The sequence number whose acknowledgement is timed, and the time at which it was sent.
    timed: Option<(u64, u64)>,
    /// The number of successive retransmissions, or probes of the peer's window, that the peer has
    /// not answered. For a closed socket, `probe_answered` describes an exception.
    retries: u32,
    /// The time from which the user timeout counts: that of the last acknowledgement of new data,
    /// or of the first write since all data was acknowledged.
    unacked_since: u64,

    receive: VecDeque<u8>,
    pub(super) rcv_nxt: u64,
    /// Data that arrived before data that precedes it, by sequence number.
    early: BTreeMap<u64, Box<[u8]>>,
    /// The sequence number of the peer's FIN, if the FIN has arrived, even if data before it is
    /// missing.
    fin_at: Option<u64>,
    pub(crate) fin_received: bool,
    /// Whether the program has shut down reading. If so, reads return the end of the stream while
    /// no data is buffered.
    pub(crate) read_shut: bool,
    /// Whether the program has shut down writing. If so, writes fail, and a FIN follows the
    /// buffered data. If shutdown(2) was called before connect(2), no FIN is sent.
    pub(crate) write_shut: bool,
    /// The end of the window that was last announced to the peer.
    right: u64,
    needs_ack: bool,

    pub(super) retransmit_at: u64,
    pub(super) keep_at: u64,
    pub(super) ends_at: u64,
    /// The time at which the last segment arrived.
    heard_at: u64,
    /// The number of keep-alive probes since then.
    probes: u32,
}

impl Connection {
    fn new(state: State, settings: Settings, number: u64, now: u64) -> Connection {
        let congestion_window = FIRST_WINDOW * settings.mss;
        Connection {
            state,
            settings,
            number,
            error: None,
            is_client: state == State::SynSent,
            is_orphan: false,
            wants_room: false,
            send: VecDeque::new(),
            una: 0,
            nxt: 1,
            sent: 1,
            window: 0,
            window_from: (0, 0),
            fin: false,
            fin_acked: false,
            closes_first: false,
            congestion_window,
            threshold: u64::MAX,
            duplicate_acks: 0,
            recover: None,
            round_trip: None,
            rto: RTO_FIRST,
            timed: None,
            retries: 0,
            unacked_since: now,
            receive: VecDeque::new(),
            rcv_nxt: 0,
            early: BTreeMap::new(),
            fin_at: None,
            fin_received: false,
            read_shut: false,
            write_shut: false,
            right: 0,
            needs_ack: false,
            retransmit_at: NEVER,
            keep_at: NEVER,
            ends_at: NEVER,
            heard_at: 0,
            probes: 0,
        }
    }

    /// Creates the connection `number` and begins its handshake by sending a SYN.
    pub(crate) fn connect(settings: Settings, number: u64, now: u64, out: &mut Vec<Segment>) -> Connection {
        let mut this = Connection::new(State::SynSent, settings, number, now);
        this.send_syn(now, out);
        this
    }

    /// Creates a connection for an arriving SYN and answers the SYN.
    pub(crate) fn accept(settings: Settings, now: u64, syn: &Segment, out: &mut Vec<Segment>) -> Connection {
        let mut this = Connection::new(State::SynReceived, settings, syn.connection, now);
        (this.window, this.rcv_nxt, this.right) = (syn.window, syn.end(), syn.end());
        this.window_from = (syn.seq, 0);
        this.send_syn(now, out);
        this
    }

    // ---- the program's side ----

    /// Returns the number of bytes that can be read.
    pub(crate) fn readable(&self) -> usize {
        self.receive.len()
    }

    /// Returns the number of bytes that a write would accept.
    pub(crate) fn room(&self) -> usize {
        (self.settings.send_buffer as usize).saturating_sub(self.send.len())
    }

    /// Returns the number of written bytes that are not acknowledged yet.
    pub(crate) fn unacknowledged(&self) -> usize {
        self.send.len()
    }

    /// Accepts as many of `bytes` as fit into the send buffer, and sends the data that the windows
    /// permit. Returns the number of bytes accepted.
    pub(crate) fn write(&mut self, now: u64, bytes: &[u8], out: &mut Vec<Segment>) -> usize {
        let count = bytes.len().min(self.room());
        self.wants_room |= count < bytes.len();
        if self.una == self.data_end() {
            self.unacked_since = now;
        }
        self.send.extend(&bytes[..count]);
        self.transmit(now, out);
        count
    }

    /// Copies received bytes to `buf`, beginning after the first `skip` bytes. Returns the number
    /// of bytes copied.
    pub(crate) fn peek(&self, skip: usize, buf: &mut [u8]) -> usize {
        let count = self.receive.len().saturating_sub(skip).min(buf.len());
        let (front, back) = self.receive.as_slices();
        let first = front.get(skip..).unwrap_or_default();
        let first = &first[..first.len().min(count)];
        buf[..first.len()].copy_from_slice(first);
        let skip = skip.saturating_sub(front.len());
        buf[first.len()..count].copy_from_slice(&back[skip..skip + count - first.len()]);
        count
    }

    /// Removes `count` bytes that were read, and announces the larger window to the peer if the
    /// change is large enough and more data may arrive.
    pub(crate) fn consume(&mut self, count: usize, out: &mut Vec<Segment>) {
        self.receive.drain(..count);
        let worth = (self.settings.receive_buffer / 2).min(2 * self.settings.mss);
        if self.state == State::Established && !self.fin_received && self.offer() >= self.right + worth {
            self.send_ack(out);
        }
    }

    /// Ends writing: a FIN is sent after the buffered data.
    pub(crate) fn shut_write(&mut self, now: u64, out: &mut Vec<Segment>) {
        if self.fin || matches!(self.state, State::Closed | State::TimeWait) {
            return;
        }
        (self.write_shut, self.fin, self.closes_first) = (true, true, !self.fin_received);
        self.transmit(now, out);
    }

    /// Ends reading. As on Linux, nothing is sent to the peer.
    pub(crate) fn shut_read(&mut self) {
        self.read_shut = true;
    }

    /// Applies changed options.
    pub(crate) fn configure(&mut self, settings: Settings, now: u64, out: &mut Vec<Segment>) {
        let mss = self.settings.mss.min(settings.mss);
        let was_kept = self.settings.keep_alive;
        self.settings = Settings { mss, ..settings };
        if was_kept || self.settings.keep_alive {
            self.arm_keep_alive(now);
        }
        self.transmit(now, out);
    }

    /// Handles the close of the socket by the program. Unread data causes a reset (RFC 1122,
    /// 4.2.2.13), and so does `resets` (SO_LINGER with a time of 0).
    pub(crate) fn close(&mut self, now: u64, resets: bool, out: &mut Vec<Segment>) {
        self.is_orphan = true;
        if resets || !self.receive.is_empty() || self.state == State::SynSent {
            return self.abort(out);
        }
        self.shut_write(now, out);
        self.settle(now);
    }

    /// Ends the connection. Sends a reset in the states *SynReceived* and *Established*.
    pub(crate) fn abort(&mut self, out: &mut Vec<Segment>) {
        if matches!(self.state, State::SynReceived | State::Established) {
            let seq = self.sent;
            let reset = Segment { rst: true, ..self.segment(seq, Box::default()) };
            out.push(reset);
        }
        self.end();
    }

    /// Ends the connection with an error, without a segment.
    pub(crate) fn fail(&mut self, errno: i32) {
        self.error = Some(errno);
        self.end();
    }

    fn end(&mut self) {
        self.state = State::Closed;
        self.send.clear();
        self.early.clear();
        (self.retransmit_at, self.keep_at, self.ends_at) = (NEVER, NEVER, NEVER);
    }

    /// Separates a connection in TIME-WAIT from its socket. Returns a closed connection for the
    /// socket, with the data that was received and not read.
    pub(crate) fn leave_socket(&mut self) -> Connection {
        let mut of_socket = Connection::new(State::Closed, self.settings.clone(), self.number, self.heard_at);
        of_socket.receive = std::mem::take(&mut self.receive);
        (of_socket.rcv_nxt, of_socket.right) = (self.rcv_nxt, self.right);
        (of_socket.fin, of_socket.fin_received) = (true, true);
        (of_socket.read_shut, of_socket.write_shut) = (self.read_shut, true);
        (of_socket.is_client, self.is_orphan) = (self.is_client, true);
        of_socket
    }

    // ---- time ----

    /// Returns the time at which the owner must call [`timeout`](Connection::timeout), or
    /// [`NEVER`].
    pub(crate) fn deadline(&self) -> u64 {
        self.retransmit_at.min(self.keep_at).min(self.ends_at)
    }

    /// Processes the timers that are due. Returns whether the state that the program sees may have
    /// changed.
    pub(crate) fn timeout(&mut self, now: u64, out: &mut Vec<Segment>) -> bool {
        if now >= self.ends_at {
            self.end();
            return true;
        }
        (now >= self.retransmit_at && self.retransmit(now, out)) || (now >= self.keep_at && self.keep_alive(now, out))
    }

    fn retransmit(&mut self, now: u64, out: &mut Vec<Segment>) -> bool {
        let most = match self.state {
            State::SynSent => SYN_RETRIES,
            State::SynReceived => SYN_ACK_RETRIES,
            _ if self.is_orphan => ORPHAN_RETRIES,
            _ => RETRIES,
        };
        let waited = now.saturating_sub(self.unacked_since);
        let has_timed_out = self.settings.user_timeout > 0 && waited >= self.settings.user_timeout;
        if self.retries >= most || has_timed_out {
            self.fail(libc::ETIMEDOUT);
            return true;
        }
        self.retries += 1;
        self.rto = (self.rto * 2).min(RTO_MAX);
        self.timed = None;
        if matches!(self.state, State::SynSent | State::SynReceived) {
            self.send_syn(now, out);
            return false;
        }
        let flight = self.nxt - self.una;
        if flight > 0 {
            self.threshold = (flight / 2).max(2 * self.settings.mss);
            self.congestion_window = self.settings.mss;
        }
        (self.nxt, self.recover, self.duplicate_acks) = (self.una, None, 0);
        self.retransmit_at = NEVER;
        let before = out.len();
        self.transmit(now, out);
        if out.len() == before {
            self.send_probe(out);
        }
        self.arm(now);
        false
    }

    fn keep_alive(&mut self, now: u64, out: &mut Vec<Segment>) -> bool {
        let Settings { keep_idle, keep_interval, keep_count, user_timeout, .. } = self.settings;
        let idle = now - self.heard_at;
        if idle < keep_idle {
            self.keep_at = self.heard_at + keep_idle;
            return false;
        }
        if self.una < self.sent {
            // Retransmissions already show whether the peer answers.
            self.keep_at = now + keep_idle.max(1);
            return false;
        }
        // As on Linux, a user timeout replaces the number of probes.
        let has_failed = match user_timeout {
            0 => self.probes >= keep_count,
            _ => self.probes > 0 && idle >= user_timeout,
        };
        if has_failed {
            self.abort(out);
            self.error = Some(libc::ETIMEDOUT);
            return true;
        }
        self.probes += 1;
        self.keep_at = now + keep_interval.max(1);
        self.send_probe(out);
        false
    }

    /// Sets the keep-alive timer from the settings, or clears it if no keep-alive is needed.
    pub(crate) fn arm_keep_alive(&mut self, now: u64) {
        let is_kept = self.settings.keep_alive && self.state == State::Established && !self.is_orphan;
        self.keep_at = if is_kept { (self.heard_at + self.settings.keep_idle).max(now + 1) } else { NEVER };
    }

    fn arm(&mut self, now: u64) {
        let limit = match self.settings.user_timeout {
            0 => NEVER,
            nanos => self.unacked_since.saturating_add(nanos).max(now + 1),
        };
        self.retransmit_at = now.saturating_add(self.rto).min(limit);
    }

    // ---- segments out ----

    fn data_end(&self) -> u64 {
        self.una.max(1) + self.send.len() as u64 - u64::from(self.fin_acked)
    }

    /// Returns the end of the window that the receive buffer permits. It never decreases.
    pub(super) fn offer(&self) -> u64 {
        self.right.max(self.rcv_nxt + self.settings.receive_buffer.saturating_sub(self.receive.len() as u64))
    }

    fn segment(&mut self, seq: u64, data: Box<[u8]>) -> Segment {
        self.right = self.offer();
        let ack = (self.state != State::SynSent).then_some(self.rcv_nxt);
        self.needs_ack = false;
        let window = self.right - self.rcv_nxt;
        Segment { seq, ack, syn: false, fin: false, rst: false, window, data, connection: self.number }
    }

    fn send_syn(&mut self, now: u64, out: &mut Vec<Segment>) {
        let syn = Segment { syn: true, ..self.segment(0, Box::default()) };
        out.push(syn);
        self.arm(now);
    }

    fn send_ack(&mut self, out: &mut Vec<Segment>) {
        let seq = self.nxt.max(self.sent);
        let ack = self.segment(seq, Box::default());
        out.push(ack);
    }

    /// Sends an empty segment, which the peer answers with an acknowledgement.
    fn send_probe(&mut self, out: &mut Vec<Segment>) {
        let seq = self.una - 1;
        let probe = self.segment(seq, Box::default());
        out.push(probe);
    }

    fn copy(&self, from: u64, count: u64) -> Box<[u8]> {
        let start = (from - self.una.max(1)) as usize;
        let (front, back) = self.send.as_slices();
        let mut data = Vec::with_capacity(count as usize);
        let first = front.get(start..).unwrap_or_default();
        data.extend_from_slice(&first[..first.len().min(count as usize)]);
        let start = start.saturating_sub(front.len());
        data.extend_from_slice(&back[start..start + count as usize - data.len()]);
        data.into_boxed_slice()
    }

    /// Sends the data that the windows permit, and the FIN after it.
    fn transmit(&mut self, now: u64, out: &mut Vec<Segment>) {
        if self.state != State::Established {
            return;
        }
        let mss = self.settings.mss;
        loop {
            let (flight, end) = (self.nxt - self.una, self.data_end());
            let room = self.congestion_window.min(self.window).saturating_sub(flight);
            let unsent = end.saturating_sub(self.nxt);
            let count = unsent.min(room).min(mss);
            let fin = self.fin && count == unsent && self.nxt <= end && !self.fin_acked;
            // Small segments wait for the window to open, or, by Nagle's algorithm, for an
            // acknowledgement.
            let waits = count < unsent.min(mss) || (count < mss && !self.settings.no_delay && !self.fin);
            if (count == 0 && !fin) || (flight > 0 && waits) {
                break;
            }
            let (seq, data) = (self.nxt, self.copy(self.nxt, count));
            let segment = Segment { fin, ..self.segment(seq, data) };
            self.nxt = segment.end();
            if self.timed.is_none() && self.nxt > self.sent {
                self.timed = Some((self.nxt, now));
            }
            self.sent = self.sent.max(self.nxt);
            out.push(segment);
        }
        if self.retransmit_at == NEVER && (self.una < self.sent || self.data_end() > self.nxt) {
            self.arm(now);
        }
    }

    /// Retransmits the first unacknowledged segment, with the data after it that was sent before,
    /// as far as it fits.
    fn send_first_again(&mut self, out: &mut Vec<Segment>) {
        let count = (self.data_end().min(self.sent) - self.una.max(1)).min(self.settings.mss);
        let (seq, data) = (self.una, self.copy(self.una, count));
        let fin = self.fin && seq + count == self.data_end() && self.sent > seq + count;
        let segment = Segment { fin, ..self.segment(seq, data) };
        out.push(segment);
        self.timed = None;
    }
}

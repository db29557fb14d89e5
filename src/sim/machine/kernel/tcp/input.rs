//! The processing of segments that arrive at a connection.

use super::*;

impl Connection {
    /// Processes a segment. Returns whether the state that the program sees may have changed.
    pub(crate) fn input(&mut self, now: u64, segment: &Segment, out: &mut Vec<Segment>) -> bool {
        let opens = segment.syn && segment.ack.is_none();
        if segment.connection != self.number && !opens {
            self.refuse_old(segment, out);
            return false;
        }
        (self.heard_at, self.probes) = (now, 0);
        match self.state {
            State::Closed => return false,
            State::SynSent => return self.input_syn_sent(now, segment, out),
            _ => {}
        }
        if segment.rst {
            let is_acceptable = (self.rcv_nxt..=self.right).contains(&segment.seq);
            if is_acceptable {
                self.reset();
            }
            return is_acceptable;
        }
        if self.state == State::TimeWait || segment.syn {
            if self.state == State::SynReceived {
                self.send_syn(now, out);
            } else if segment.end() > segment.seq {
                // The peer may not have received the last acknowledgement.
                self.send_ack(out);
            }
            return false;
        }
        let Some(ack) = segment.ack else { return false };
        if ack > self.sent {
            self.send_ack(out);
            return false;
        }
        let mut changed = false;
        if self.state == State::SynReceived {
            if ack == 0 {
                return false;
            }
            self.establish(now, segment.window);
            if self.write_shut {
                // shutdown(2) was called on the listener's socket before it listened. That call
                // failed, but the connections of the listener begin shut down.
                self.shut_write(now, out);
            }
            changed = true;
        }
        if ack > self.una {
            changed |= self.acknowledged(now, ack, out);
        } else if ack == self.una
            && self.nxt > self.una
            && segment.end() == segment.seq
            && segment.window == self.window
        {
            self.duplicate_ack(out);
        }
        let is_probing = self.is_probing();
        if (segment.seq, ack) >= self.window_from {
            (self.window, self.window_from) = (segment.window, (segment.seq, ack));
        }
        if is_probing {
            self.probe_answered();
        }
        changed |= self.take(segment, out);
        self.transmit(now, out);
        if self.needs_ack && self.state == State::Established {
            self.send_ack(out);
        }
        self.settle(now);
        changed
    }

    /// Processes a segment of an older connection between the same addresses. It is ignored, except
    /// that the handshake of this connection resets a peer that still has the older one.
    fn refuse_old(&mut self, segment: &Segment, out: &mut Vec<Segment>) {
        if self.state == State::SynSent
            && !segment.rst
            && let Some(ack) = segment.ack
        {
            let (seq, connection) = (ack, segment.connection);
            out.push(Segment { ack: None, rst: true, connection, ..self.segment(seq, Box::default()) });
        }
    }

    fn input_syn_sent(&mut self, now: u64, segment: &Segment, out: &mut Vec<Segment>) -> bool {
        let Some(ack) = segment.ack else { return false };
        if segment.rst {
            let is_acceptable = ack == 1;
            if is_acceptable {
                self.fail(libc::ECONNREFUSED);
            }
            return is_acceptable;
        }
        if ack != 1 || !segment.syn {
            return false;
        }
        (self.rcv_nxt, self.right) = (segment.end(), segment.end());
        self.window_from = (segment.seq, 1);
        self.una = 1;
        self.establish(now, segment.window);
        self.send_ack(out);
        true
    }

    fn establish(&mut self, now: u64, window: u64) {
        self.state = State::Established;
        (self.una, self.window) = (1, window);
        if self.retries == 0 {
            // The handshake is the first sample of the round trip.
            self.measure(now - self.unacked_since);
        }
        (self.retransmit_at, self.retries, self.unacked_since) = (NEVER, 0, now);
        self.update_rto();
        self.arm_keep_alive(now);
    }

    fn reset(&mut self) {
        match self.state {
            State::SynReceived | State::TimeWait => self.end(),
            _ if self.fin_received && !self.fin => self.fail(libc::EPIPE),
            _ => self.fail(libc::ECONNRESET),
        }
    }

    /// Returns whether data waits for the peer's window to open, with none of it in flight.
    pub(in super::super) fn is_probing(&self) -> bool {
        self.state == State::Established && self.nxt == self.una && self.data_end() > self.una.max(1)
    }

    /// Handles the answer to a probe of the peer's closed window. The peer is alive, so the count
    /// of unanswered probes starts again. As on Linux, the count goes on for a closed socket while
    /// the window stays closed, so its probes end.
    fn probe_answered(&mut self) {
        if self.window > 0 {
            self.retransmit_at = NEVER;
            self.update_rto();
        }
        if self.window > 0 || !self.is_orphan {
            self.retries = 0;
        }
    }

    fn acknowledged(&mut self, now: u64, ack: u64, out: &mut Vec<Segment>) -> bool {
        let (end, bytes, mss) = (self.data_end(), ack - self.una, self.settings.mss);
        let start = self.una.max(1);
        self.send.drain(..(ack.min(end) - start) as usize);
        self.una = ack;
        self.nxt = self.nxt.max(ack);
        if ack > end {
            self.fin_acked = true;
        }
        if let Some((seq, at)) = self.timed
            && ack >= seq
        {
            self.timed = None;
            self.measure(now - at);
        }
        self.update_rto();
        (self.retries, self.duplicate_acks, self.unacked_since) = (0, 0, now);
        match self.recover {
            Some(recover) if ack < recover => {
                self.congestion_window = self.congestion_window.saturating_sub(bytes).max(mss) + mss;
                self.send_first_again(out);
            }
            Some(_) => (self.recover, self.congestion_window) = (None, self.threshold),
            None if self.congestion_window < self.threshold => self.congestion_window += bytes.min(mss),
            None => self.congestion_window += (mss * mss / self.congestion_window).max(1),
        }
        self.retransmit_at = NEVER;
        if self.una < self.sent {
            self.arm(now);
        }
        let has_room = self.wants_room && self.room() * 3 >= self.settings.send_buffer as usize;
        self.wants_room &= !has_room;
        has_room
    }

    /// Updates the smoothed round-trip time and its variation (RFC 6298).
    fn measure(&mut self, sample: u64) {
        self.round_trip = Some(match self.round_trip {
            None => (sample, sample / 2),
            Some((mean, spread)) => ((mean * 7 + sample) / 8, (spread * 3 + mean.abs_diff(sample)) / 4),
        });
    }

    fn update_rto(&mut self) {
        self.rto = self.round_trip.map_or(RTO_FIRST, |(mean, spread)| (mean + 4 * spread).clamp(RTO_MIN, RTO_MAX));
    }

    fn duplicate_ack(&mut self, out: &mut Vec<Segment>) {
        self.duplicate_acks += 1;
        let mss = self.settings.mss;
        if self.recover.is_some() {
            self.congestion_window += mss;
        } else if self.duplicate_acks == 3 {
            self.threshold = ((self.nxt - self.una) / 2).max(2 * mss);
            self.congestion_window = self.threshold + 3 * mss;
            self.recover = Some(self.sent);
            self.send_first_again(out);
        }
    }

    /// Processes data and FIN. Returns whether the program may have new data, the end of the stream
    /// or an error to read.
    fn take(&mut self, segment: &Segment, out: &mut Vec<Segment>) -> bool {
        let data = &segment.data[..];
        if data.is_empty() && !segment.fin {
            self.needs_ack |= segment.seq < self.rcv_nxt;
            return false;
        }
        let data_end = segment.seq + data.len() as u64;
        let is_refused = self.is_orphan || self.read_shut && self.fin;
        if is_refused && data_end > self.rcv_nxt {
            // The program will not read the data, so the connection is reset. As on Linux, this
            // requires that both directions are shut down.
            self.abort(out);
            self.error = Some(libc::ECONNRESET);
            return true;
        }
        self.needs_ack = true;
        let before = self.rcv_nxt;
        let skip = self.rcv_nxt.saturating_sub(segment.seq);
        if skip < data.len() as u64 {
            let from = segment.seq + skip;
            let fits = self.right.saturating_sub(from).min(data.len() as u64 - skip);
            let data = &data[skip as usize..(skip + fits) as usize];
            if from > self.rcv_nxt {
                if !data.is_empty() && self.early.get(&from).is_none_or(|held| held.len() < data.len()) {
                    self.early.insert(from, Box::from(data));
                }
            } else {
                self.append(data);
            }
        }
        if segment.fin {
            self.fin_at = Some(data_end);
        }
        if self.fin_at == Some(self.rcv_nxt) && !self.fin_received {
            self.fin_received = true;
            self.rcv_nxt += 1;
            self.right = self.right.max(self.rcv_nxt);
        }
        self.rcv_nxt > before
    }

    /// Appends data that is next in order, and early data that follows it.
    fn append(&mut self, data: &[u8]) {
        self.receive.extend(data);
        self.rcv_nxt += data.len() as u64;
        while let Some(entry) = self.early.first_entry() {
            if *entry.key() > self.rcv_nxt {
                break;
            }
            let (from, held) = entry.remove_entry();
            let skip = ((self.rcv_nxt - from) as usize).min(held.len());
            self.receive.extend(&held[skip..]);
            self.rcv_nxt += (held.len() - skip) as u64;
        }
    }

    /// Enters TIME-WAIT, or ends, when both directions are closed. Limits the time for which a
    /// closed socket waits for the peer's FIN.
    pub(super) fn settle(&mut self, now: u64) {
        if self.state != State::Established || !self.fin_acked {
            return;
        }
        if self.fin_received && self.closes_first {
            self.state = State::TimeWait;
            (self.retransmit_at, self.keep_at, self.ends_at) = (NEVER, NEVER, now + FIN_TIMEOUT);
        } else if self.fin_received {
            self.end();
        } else if self.is_orphan && self.ends_at == NEVER {
            self.ends_at = now + FIN_TIMEOUT;
        }
    }
}

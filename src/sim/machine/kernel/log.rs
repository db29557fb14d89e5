//! [`Log`]: a digest of packets, calls, notes and turns, and counters of packets, calls and turns.
//! On request, it also keeps the text of recent packets, calls and notes, and the packets sent.
//!
//! Two runs with the same seed have the same digest, unless something outside the simulation
//! affects them.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;

use super::link::Dropped;
use super::packet::{Body, Packet};

/// The maximum number of entries that are kept. Older entries remain only in the digest.
const KEPT: usize = 50_000;

/// The fate of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Sent,
    Held,
    Arrived,
    Dropped(Dropped),
}

/// Counts since the simulation began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) sent: u64,
    pub(crate) arrived: u64,
    pub(crate) lost: u64,
    pub(crate) bytes: u64,
    pub(crate) calls: u64,
    pub(crate) turns: u64,
}

/// A packet without its data.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    pub(crate) src: SocketAddr,
    pub(crate) dst: SocketAddr,
    pub(crate) text: Box<str>,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    Packet(Summary, Fate),
    /// A call on a socket, with its result or errno.
    Call(&'static str, i32, Result<i64, i32>),
    Text(Box<str>),
}

/// An entry of the log: an event on a host.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) at: u64,
    pub(crate) host: u16,
    pub(crate) what: What,
}

/// The log of a simulation; see the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Log {
    digest: u64,
    entries: VecDeque<Entry>,
    is_kept: bool,
    /// The packets sent and their times, if they are kept for a capture.
    pub(crate) capture: Option<Vec<(u64, Packet)>>,
    pub(crate) counters: Counters,
}

impl Log {
    pub(crate) fn new() -> Log {
        Log {
            digest: 0xcbf2_9ce4_8422_2325,
            entries: VecDeque::new(),
            is_kept: false,
            capture: None,
            counters: Counters::default(),
        }
    }

    /// Starts to keep entries, which slows the simulation down.
    pub(crate) fn keep(&mut self) {
        self.is_kept = true;
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Adds a number to the digest.
    pub(crate) fn mix(&mut self, value: u64) {
        let mixed = (self.digest.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.digest = mixed ^ (mixed >> 32);
    }

    fn mix_bytes(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            self.mix(u64::from_le_bytes(chunk.try_into().unwrap_or_default()));
        }
        for &byte in chunks.remainder() {
            self.mix(u64::from(byte));
        }
    }

    fn push(&mut self, entry: Entry) {
        if self.entries.len() == KEPT {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    pub(crate) fn packet(&mut self, at: u64, host: u16, packet: &Packet, fate: Fate) {
        self.mix(at);
        self.mix(u64::from(host) << 32 | u64::from(packet.src.port()) << 16 | u64::from(packet.dst.port()));
        match fate {
            Fate::Sent => {
                self.counters.sent += 1;
                self.counters.bytes += packet.len();
                match &packet.body {
                    Body::Tcp(segment) => {
                        self.mix(segment.seq ^ segment.ack.unwrap_or_default().rotate_left(32));
                        self.mix_bytes(&segment.data);
                    }
                    Body::Udp(data, _) => self.mix_bytes(data),
                    Body::Unreachable(..) => {}
                }
                if let Some(capture) = &mut self.capture {
                    capture.push((at, packet.clone()));
                }
            }
            Fate::Arrived => self.counters.arrived += 1,
            Fate::Dropped(_) => self.counters.lost += 1,
            Fate::Held => {}
        }
        if self.is_kept {
            let text = match fate {
                Fate::Dropped(why) => format!("{packet} ({why:?})"),
                _ => packet.to_string(),
            };
            let summary = Summary { src: packet.src, dst: packet.dst, text: text.into() };
            self.push(Entry { at, host, what: What::Packet(summary, fate) });
        }
    }

    pub(crate) fn call(&mut self, at: u64, host: u16, name: &'static str, fd: i32, result: Result<i64, i32>) {
        self.counters.calls += 1;
        self.mix(at ^ u64::from(host) << 48);
        self.mix_bytes(name.as_bytes());
        self.mix(result.map_or_else(|errno| u64::MAX - errno as u64, |value| value as u64));
        if self.is_kept {
            self.push(Entry { at, host, what: What::Call(name, fd, result) });
        }
    }

    pub(crate) fn text(&mut self, at: u64, host: u16, text: &str) {
        self.mix(at);
        self.mix_bytes(text.as_bytes());
        if self.is_kept {
            self.push(Entry { at, host, what: What::Text(text.into()) });
        }
    }
}

/// Formats a virtual time in nanoseconds as seconds with six decimals.
pub(crate) fn seconds(at: u64) -> impl fmt::Display {
    struct Seconds(u64);
    impl fmt::Display for Seconds {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{}.{:06}", self.0 / 1_000_000_000, self.0 % 1_000_000_000 / 1000)
        }
    }
    Seconds(at)
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Packet(summary, fate) => {
                let fate = match fate {
                    Fate::Sent => "send",
                    Fate::Held => "hold",
                    Fate::Arrived => "recv",
                    Fate::Dropped(_) => "drop",
                };
                write!(f, "{fate} {}", summary.text)
            }
            What::Call(name, fd, Ok(value)) => write!(f, "{name}({fd}) = {value}"),
            What::Call(name, fd, Err(errno)) => {
                write!(f, "{name}({fd}) failed: {}", std::io::Error::from_raw_os_error(*errno))
            }
            What::Text(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(data: &[u8]) -> Packet {
        let addr = "10.0.0.1:7".parse().unwrap();
        Packet { src: addr, dst: addr, body: Body::Udp(data.into(), super::super::packet::IpFields::default()) }
    }

    #[test]
    fn digest_depends_on_packets_calls_and_notes() {
        let digest = |note: &dyn Fn(&mut Log)| {
            let mut log = Log::new();
            note(&mut log);
            log.digest()
        };
        let notes: [&dyn Fn(&mut Log); 7] = [
            &|_| (),
            &|log| log.packet(1, 2, &packet(b"abc"), Fate::Sent),
            &|log| log.packet(1, 2, &packet(b"abd"), Fate::Sent),
            &|log| log.packet(2, 2, &packet(b"abc"), Fate::Sent),
            &|log| log.call(1, 2, "send", 3, Ok(4)),
            &|log| log.call(1, 2, "send", 3, Err(4)),
            &|log| log.text(1, 2, "crash"),
        ];
        let digests: std::collections::BTreeSet<_> = notes.iter().map(|note| digest(note)).collect();
        assert_eq!(digests.len(), notes.len());
        assert!(notes.iter().all(|note| digest(note) == digest(note)));
    }

    #[test]
    fn entries_are_kept_on_request_and_shown_as_text() {
        let mut log = Log::new();
        log.text(0, 0, "not kept");
        log.keep();
        log.packet(1_500_000, 1, &packet(b"abc"), Fate::Dropped(Dropped::Loss));
        log.call(0, 0, "bind", 7, Err(libc::EADDRINUSE));
        let texts: Vec<_> = log.entries().map(|entry| entry.what.to_string()).collect();
        assert_eq!(texts[0], "drop 10.0.0.1:7 > 10.0.0.1:7 UDP len 3 (Loss)");
        assert!(texts[1].starts_with("bind(7) failed: Address already in use"), "{}", texts[1]);
        assert_eq!(seconds(1_500_000).to_string(), "0.001500");
        assert_eq!((log.counters.lost, log.counters.calls), (1, 1));
    }
}

//! A program describes one simulation as data, drawn from its seed.

use std::time::Duration;

use netpoll::sim::{Sim, ms};

use crate::draw::Draw;

/// The properties of the network between hosts.
#[derive(Clone, Debug)]
pub struct Network {
    pub latency_us: (u64, u64),
    pub loss: f64,
    pub duplicate: f64,
    pub reorder: f64,
    pub bandwidth: Option<u64>,
    pub mtu: Option<u64>,
}

/// The rates of faults of system calls.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    pub short: f64,
    pub interrupted: f64,
    pub spurious: f64,
    pub late: f64,
    pub repeated: f64,
    pub no_descriptors: f64,
    pub no_buffers: f64,
}

/// The kind of disturbance during the sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    None,
    /// Partitions and held packets, short enough that connections survive them.
    Cuts,
    /// Crashes, kills and restarts of the server, and the disturbances of `Cuts`.
    Crashes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    UnixNamed,
    UnixPair,
}

/// The bytes of one direction.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Determines the values of the bytes.
    pub key: u64,
    /// The number of bytes.
    pub bytes: usize,
    /// The maximum number of bytes per write.
    pub chunk: usize,
    /// The number of concurrent readers.
    pub readers: usize,
}

/// The way in which a connection ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutHow {
    Close,
    Drop,
    Reset,
    CloseRead,
}

#[derive(Clone, Debug)]
pub struct Cut {
    pub by_client: bool,
    pub how: CutHow,
    pub after_us: u64,
}

/// A session. It uses only its own sockets and those on which the server serves all sessions, and
/// ends by itself.
#[derive(Clone, Debug)]
pub enum Session {
    /// Bytes in both directions of one connection.
    Exchange {
        transport: Transport,
        up: Flow,
        down: Flow,
        cut: Option<Cut>,
        narrow: bool,
    },
    /// Tasks that write records to clones of one connection.
    Shared {
        transport: Transport,
        writers: u64,
        records: u64,
        size: usize,
    },
    /// Operations that wait until a deadline, which is moved during the wait, or until a close.
    Idle {
        transport: Transport,
        waiters: u64,
        /// The times at which the deadline is set, and the time from there to the deadline, in
        /// microseconds. `None` clears the deadline.
        moves: Vec<(u64, Option<u64>)>,
        close_us: u64,
    },
    /// Connections that are opened, given time limits and closed, one after another.
    Churn {
        transport: Transport,
        rounds: u64,
    },
    Datagrams {
        count: u64,
        size: usize,
        is_connected: bool,
    },
    Dial {
        what: Dial,
        after_us: u64,
    },
    /// Tasks that accept, and a listener that is closed.
    Accept {
        acceptors: u64,
        dials: u64,
        after_us: u64,
    },
    Timers {
        tasks: u64,
    },
    Cancel {
        tasks: u64,
    },
    /// A loop over operations that are always ready, and another operation that must still get
    /// turns.
    Turns {
        greedy: Instantly,
        other: Instantly,
        count: u64,
        is_one_task: bool,
    },
    /// Polls with a new waker each time.
    Polls {
        count: u64,
    },
}

/// Operations that complete without waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instantly {
    Sleep,
    Until,
    Timeout,
    Peek,
    Readable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dial {
    Refused,
    UnknownName,
    Unreachable,
    /// A dial to a host that does not answer, with a timeout of the dialer.
    Dark,
    /// A dial to a host that does not answer. The dial is dropped.
    DarkDropped,
    DatagramRefused,
}

/// One simulation.
#[derive(Clone, Debug)]
pub struct Program {
    pub seed: u64,
    pub network: Network,
    pub rates: Rates,
    pub trouble: Trouble,
    pub clients: u64,
    /// The sessions, each with its start time in microseconds.
    pub sessions: Vec<(u64, Session)>,
    /// An operation that runs at the end, in long turns.
    pub long_turns: Option<Instantly>,
}

impl Network {
    fn draw(draw: &mut Draw) -> Network {
        let low = draw.magnitude(1, 20_000);
        let is_bad = draw.one_in(2);
        let rate = |draw: &mut Draw, most: f64| match draw.below(3) {
            0 if is_bad => most * draw.below(1000) as f64 / 1000.0,
            _ => 0.0,
        };
        Network {
            latency_us: (low, low + draw.magnitude(1, 50_000)),
            loss: rate(draw, 0.1),
            duplicate: rate(draw, 0.2),
            reorder: rate(draw, 0.3),
            bandwidth: draw.one_in(4).then(|| draw.magnitude(500_000, 1_000_000_000)),
            mtu: draw.one_in(4).then(|| draw.magnitude(600, 9000)),
        }
    }

    /// Returns whether packets may be lost without a fault of a host.
    pub fn is_lossy(&self) -> bool {
        // A queue in front of a narrow link may overflow.
        self.loss > 0.0 || self.bandwidth.is_some()
    }

    pub fn apply(&self, sim: &Sim) {
        let us = Duration::from_micros;
        let link = sim.link("*", "*").latency(us(self.latency_us.0)..=us(self.latency_us.1));
        let link = link.loss(self.loss).duplicate(self.duplicate).reorder(self.reorder, ms(20));
        let link = self.bandwidth.map_or(link.clone(), |bits| link.bandwidth(bits));
        if let Some(mtu) = self.mtu {
            link.mtu(mtu);
        }
    }
}

impl Rates {
    fn draw(draw: &mut Draw) -> Rates {
        if draw.one_in(2) {
            return Rates::default();
        }
        let rate = |draw: &mut Draw| if draw.one_in(2) { draw.below(300) as f64 / 1000.0 } else { 0.0 };
        Rates {
            short: rate(draw),
            interrupted: rate(draw),
            spurious: rate(draw),
            late: rate(draw),
            repeated: rate(draw),
            no_descriptors: if draw.one_in(6) { 0.1 } else { 0.0 },
            no_buffers: if draw.one_in(6) { 0.2 } else { 0.0 },
        }
    }

    pub fn apply(&self, sim: &Sim) {
        let faults = sim.faults().short(self.short).interrupted(self.interrupted).spurious(self.spurious);
        faults.late_edges(self.late).repeated_edges(self.repeated).no_buffers(self.no_buffers);
        faults.no_descriptors(self.no_descriptors);
    }
}

impl Flow {
    fn draw(draw: &mut Draw) -> Flow {
        let bytes = if draw.one_in(8) { 0 } else { draw.magnitude(1, 40_000) as usize };
        Flow {
            key: draw.next(),
            bytes,
            // Bounds the number of chunks, because many small chunks would only repeat the same
            // steps.
            chunk: (draw.magnitude(1, 20_000) as usize).max(bytes / 40),
            readers: if draw.one_in(4) { 2 } else { 1 },
        }
    }
}

fn transport(draw: &mut Draw) -> Transport {
    draw.pick(&[Transport::Tcp, Transport::Tcp, Transport::Tcp, Transport::UnixNamed, Transport::UnixPair])
}

fn session(draw: &mut Draw) -> Session {
    let after_us = draw.magnitude(1, 3_000_000);
    match draw.below(20) {
        0..=6 => {
            let cut = draw.one_in(3).then(|| Cut {
                by_client: draw.one_in(2),
                how: draw.pick(&[CutHow::Close, CutHow::Drop, CutHow::Reset, CutHow::CloseRead]),
                after_us: draw.magnitude(1, 400_000),
            });
            let (up, down) = (Flow::draw(draw), Flow::draw(draw));
            Session::Exchange { transport: transport(draw), up, down, cut, narrow: draw.one_in(4) }
        }
        7 | 8 => Session::Shared {
            transport: transport(draw),
            writers: 1 + draw.below(4),
            records: 1 + draw.below(12),
            size: draw.magnitude(1, 4000) as usize,
        },
        9 | 10 => {
            let (mut at, mut due) = (0, None);
            let moves = (0..draw.below(4)).map(|_| {
                at += draw.magnitude(10, 500_000);
                // A deadline that passes at the moment at which it is moved may fire before or
                // after the move.
                at += u64::from(due == Some(at));
                let after = (!draw.one_in(4)).then(|| draw.magnitude(1, 900_000));
                due = after.map(|after| at + after);
                (at, after)
            });
            let moves: Vec<_> = moves.collect();
            let close_us = moves.last().map_or(0, |&(at, _)| at) + draw.magnitude(1_000_000, 8_000_000);
            Session::Idle { transport: transport(draw), waiters: 1 + draw.below(4), moves, close_us }
        }
        11 | 12 => Session::Churn { transport: transport(draw), rounds: 1 + draw.below(6) },
        13 | 14 => Session::Datagrams {
            count: 1 + draw.below(20),
            size: draw.magnitude(1, 4000) as usize,
            is_connected: draw.one_in(2),
        },
        15 => {
            let what = draw.pick(&[
                Dial::Refused,
                Dial::UnknownName,
                Dial::Unreachable,
                Dial::Dark,
                Dial::DarkDropped,
                Dial::DatagramRefused,
            ]);
            Session::Dial { what, after_us }
        }
        16 => Session::Accept { acceptors: 1 + draw.below(3), dials: draw.below(5), after_us },
        17 | 18 => Session::Timers { tasks: 1 + draw.below(6) },
        _ => Session::Cancel { tasks: 1 + draw.below(6) },
    }
}

const INSTANTLY: [Instantly; 5] =
    [Instantly::Sleep, Instantly::Until, Instantly::Timeout, Instantly::Peek, Instantly::Readable];

fn session_of_turns(draw: &mut Draw) -> Session {
    if draw.one_in(16) {
        return Session::Polls { count: 3000 + draw.below(3000) };
    }
    let (greedy, other) = (draw.pick(&INSTANTLY), draw.pick(&INSTANTLY));
    Session::Turns { greedy, other, count: 1 + draw.below(8), is_one_task: draw.one_in(2) }
}

impl Program {
    /// Draws the program of a seed.
    pub fn new(seed: u64) -> Program {
        let mut draw = Draw::new(seed, 0);
        let network = Network::draw(&mut draw);
        let rates = Rates::draw(&mut draw);
        let trouble = draw.pick(&[Trouble::None, Trouble::None, Trouble::Cuts, Trouble::Crashes]);
        let clients = 1 + draw.below(3);
        let count = 1 + draw.below(5);
        let mut sessions: Vec<_> = (0..count).map(|_| (draw.magnitude(1, 200_000), session(&mut draw))).collect();
        // The sessions of turns are drawn from a separate source, so that the rest of a program
        // does not depend on them. The seeds that found defects before these sessions existed (209,
        // 223, 2104, 2122, 390405) draw none, so their programs are unchanged.
        let mut draw = Draw::new(seed, 4);
        let mut long_turns = None;
        if draw.one_in(3) {
            sessions.push((draw.magnitude(1, 200_000), session_of_turns(&mut draw)));
            long_turns = draw.one_in(4).then(|| draw.pick(&INSTANTLY));
        }
        Program { seed, network, rates, trouble, clients, sessions, long_turns }
    }
}

//! The load generator: each connection sends a message, waits for its echo and checks every byte.
//!
//! The generator has two modes:
//!
//! - **Lock-step**, with blocking sockets. The generator writes on all connections and then reads
//!   from all of them in order. If the generator and the server are on one CPU under SCHED_BATCH,
//!   neither preempts the other when it wakes up. So each usually handles whole batches, and the
//!   measured CPU time of a server varies little.
//! - **Free-running**, with one epoll loop, in which each connection has one message in flight.
//!   This mode has no churn (short connections).
//!
//! In both modes a run ends after a given number of messages or seconds. In lock-step, a read or
//! write that blocks for [`Plan::patience`] is an error. A free-running load has a time limit,
//! which is the given time or, if a number of messages is given, six times [`Plan::patience`].
//! After this time it sends no new messages, waits up to two seconds for the missing echoes, and
//! counts those that are still missing.
//!
//! The next run of a free-running generator sends no new message on a connection before the late
//! echo has arrived. It does not count a late echo as a request. If a late echo is still missing at
//! the end of that run, the run counts it as missing again.

use crate::histogram::Histogram;
use crate::sys::{self, Epoll, NO_EVENT};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// The default of [`Plan::patience`].
pub const PATIENCE: Duration = Duration::from_secs(10);
/// The maximum number of connections that [`Generator::new`] opens before it reads their first
/// echoes. It is less than the backlog of any server.
const CONNECT_BATCH: usize = 64;
/// The number of consecutive connections from one source address. It is less than the number of
/// ephemeral ports (28,232 by default), some of which are in TIME-WAIT.
const CONNECTIONS_PER_ADDRESS: u64 = 5_000;
/// The maximum time for which a free-running load waits for missing echoes at its end.
const GRACE: Duration = Duration::from_secs(2);

/// The side that closes a short connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Churn {
    /// The server closes the connection, after it has sent the answer.
    Server,
    /// The client closes the connection, after it has received the answer.
    Client,
}

impl FromStr for Churn {
    type Err = String;

    fn from_str(text: &str) -> Result<Churn, String> {
        match text {
            "server" => Ok(Churn::Server),
            "client" => Ok(Churn::Client),
            _ => Err("must be server or client".to_owned()),
        }
    }
}

/// The condition that ends a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Amount {
    /// The run ends after this many messages on every connection or, with churn, after this many
    /// rounds of short connections.
    Requests(u64),
    /// The run ends after this time.
    Time(Duration),
}

impl FromStr for Amount {
    type Err = String;

    /// Parses `500` as a number of messages per connection, and `1.5s` as a time.
    fn from_str(text: &str) -> Result<Amount, String> {
        let wrong = || format!("`{text}` is neither a number of requests nor a time such as 1.5s");
        match text.strip_suffix('s') {
            Some(seconds) => {
                let seconds = seconds.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                seconds.map(Amount::Time).ok_or_else(wrong)
            }
            None => text.parse().map(Amount::Requests).map_err(|_| wrong()),
        }
    }
}

/// The result of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Outcome {
    /// The number of correct echoes.
    pub requests: u64,
    /// The duration of the run, in nanoseconds.
    pub wall_ns: u64,
    /// The median latency of an echo, in nanoseconds.
    pub p50_ns: u64,
    /// The 99th percentile of the latency, in nanoseconds.
    pub p99_ns: u64,
    /// The 99.9th percentile of the latency, in nanoseconds.
    pub p999_ns: u64,
    /// The maximum latency, in nanoseconds.
    pub max_ns: u64,
    /// The number of messages whose echo was missing at the end. The latencies above include, for
    /// each of them, the time for which its echo had been awaited in this run.
    pub stuck: u64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "requests={} wall_ns={} p50_ns={} p99_ns={} p999_ns={} max_ns={} stuck={}",
            self.requests, self.wall_ns, self.p50_ns, self.p99_ns, self.p999_ns, self.max_ns, self.stuck
        )
    }
}

impl FromStr for Outcome {
    type Err = String;

    fn from_str(text: &str) -> Result<Outcome, String> {
        let mut outcome = Outcome::default();
        for word in text.split_whitespace() {
            let (name, value) =
                word.split_once('=').ok_or_else(|| format!("`{word}` is not of the form name=value"))?;
            let value = value.parse().map_err(|error| format!("{word}: {error}"))?;
            let field = match name {
                "requests" => &mut outcome.requests,
                "wall_ns" => &mut outcome.wall_ns,
                "p50_ns" => &mut outcome.p50_ns,
                "p99_ns" => &mut outcome.p99_ns,
                "p999_ns" => &mut outcome.p999_ns,
                "max_ns" => &mut outcome.max_ns,
                "stuck" => &mut outcome.stuck,
                _ => return Err(format!("unknown field {name}")),
            };
            *field = value;
        }
        Ok(outcome)
    }
}

/// The load to generate.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The server's port on 127.0.0.1.
    pub port: u16,
    /// The number of concurrent connections.
    pub connections: usize,
    /// The number of bytes per message.
    pub size: usize,
    /// The side that closes a connection after one echo, or `None` if connections stay open.
    pub churn: Option<Churn>,
    /// Whether the generator runs in lock-step rather than freely. With `churn`, it always runs in
    /// lock-step.
    pub lock_step: bool,
    /// The time limit for one blocking read or write. A free-running load with a number of messages
    /// has a time limit of six times this.
    pub patience: Duration,
}

/// A load generator and its open connections.
#[derive(Debug)]
pub struct Generator {
    plan: Plan,
    connections: Vec<Connection>,
    opened: u64,
    histogram: Histogram,
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    message: Vec<u8>,
    sequence: u64,
    sent: usize,
    received: usize,
    since: Instant,
    in_flight: bool,
    /// Whether an earlier run has sent the message in flight.
    is_late: bool,
}

impl Connection {
    /// Creates the next message. Its full 8-byte words differ from those of the previous message of
    /// the connection and of all messages of other connections. There are two exceptions: the first
    /// message of a free-running load is that of [`Generator::new`], and each round of short
    /// connections repeats the messages of the previous round.
    fn next_message(&mut self, index: usize) {
        self.sequence += 1;
        let word = ((index as u64) << 40 | self.sequence).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        for (position, byte) in self.message.iter_mut().enumerate() {
            *byte = word[position % 8];
        }
        self.sent = 0;
        self.received = 0;
        self.since = Instant::now();
        self.in_flight = true;
        self.is_late = false;
    }
}

fn wrong_echo(index: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("connection {index}: the echo differs from the message"))
}

fn ended(index: usize) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("connection {index}: the server closed it"))
}

impl Generator {
    /// Creates a generator. Unless [`Plan::churn`] is set, opens the connections and exchanges one
    /// message on each.
    ///
    /// # Errors
    /// Returns an error if the limit on descriptors cannot be raised, if the server refuses a
    /// connection, closes it or sends a wrong echo, or if a read or write blocks for
    /// [`Plan::patience`].
    pub fn new(plan: Plan) -> io::Result<Generator> {
        sys::raise_descriptor_limit()?;
        let mut generator = Generator {
            plan,
            connections: Vec::with_capacity(plan.connections),
            opened: 0,
            histogram: Histogram::default(),
            scratch: vec![0; plan.size.max(1)],
        };
        if plan.churn.is_none() {
            while generator.connections.len() < plan.connections {
                let first = generator.connections.len();
                for _ in first..plan.connections.min(first + CONNECT_BATCH) {
                    let connection = generator.open()?;
                    generator.connections.push(connection);
                }
                generator.exchange(first)?;
            }
            if !plan.lock_step {
                generator.connections.iter().try_for_each(|connection| connection.stream.set_nonblocking(true))?;
            }
        }
        Ok(generator)
    }

    fn open(&mut self) -> io::Result<Connection> {
        let network = (1 + self.opened / CONNECTIONS_PER_ADDRESS % 250) as u8;
        self.opened += 1;
        let stream = sys::connect(SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.plan.port), network)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.plan.patience))?;
        stream.set_write_timeout(Some(self.plan.patience))?;
        Ok(Connection {
            stream,
            message: vec![0; self.plan.size],
            sequence: 0,
            sent: 0,
            received: 0,
            since: Instant::now(),
            in_flight: false,
            is_late: false,
        })
    }

    /// Makes one round of blocking exchanges on the connections with index `first` and above.
    fn exchange(&mut self, first: usize) -> io::Result<()> {
        for (index, connection) in self.connections.iter_mut().enumerate().skip(first) {
            connection.next_message(index);
            connection.stream.write_all(&connection.message)?;
        }
        for (index, connection) in self.connections.iter_mut().enumerate().skip(first) {
            connection.stream.read_exact(&mut self.scratch).map_err(|error| match error.kind() {
                // The timeout of the socket has passed.
                io::ErrorKind::WouldBlock => {
                    let text = format!("connection {index}: no answer within {:?}", self.plan.patience);
                    io::Error::new(io::ErrorKind::TimedOut, text)
                }
                _ => error,
            })?;
            if self.scratch != connection.message {
                return Err(wrong_echo(index));
            }
            connection.in_flight = false;
            self.histogram.record(connection.since.elapsed().as_nanos() as u64);
        }
        Ok(())
    }

    /// Generates the load and measures it. Without churn, the connections stay open.
    ///
    /// # Errors
    /// Returns an error if the server closes a connection too early or sends a wrong echo, if a
    /// read or write blocks for [`Plan::patience`] in lock-step, if the server refuses a connection
    /// of a load with churn, or if a call of epoll fails.
    pub fn run(&mut self, amount: Amount) -> io::Result<Outcome> {
        self.histogram.clear();
        let start = Instant::now();
        let stuck = if self.plan.lock_step || self.plan.churn.is_some() {
            self.run_in_lock_step(amount, start)?;
            0
        } else {
            self.run_freely(amount, start)?
        };
        Ok(Outcome {
            requests: self.histogram.len() - stuck,
            wall_ns: start.elapsed().as_nanos() as u64,
            p50_ns: self.histogram.quantile(0.5),
            p99_ns: self.histogram.quantile(0.99),
            p999_ns: self.histogram.quantile(0.999),
            max_ns: self.histogram.largest(),
            stuck,
        })
    }

    fn run_in_lock_step(&mut self, amount: Amount, start: Instant) -> io::Result<()> {
        let mut rounds = 0;
        while match amount {
            Amount::Requests(wanted) => rounds < wanted,
            Amount::Time(limit) => start.elapsed() < limit,
        } {
            match self.plan.churn {
                None => self.exchange(0)?,
                Some(churn) => self.churn(churn)?,
            }
            rounds += 1;
        }
        Ok(())
    }

    /// Makes one round of short connections, which are open at the same time.
    fn churn(&mut self, churn: Churn) -> io::Result<()> {
        for _ in 0..self.plan.connections {
            let connection = self.open()?;
            self.connections.push(connection);
        }
        self.exchange(0)?;
        for (index, mut connection) in self.connections.drain(..).enumerate() {
            if churn == Churn::Server && connection.stream.read(&mut self.scratch)? != 0 {
                return Err(wrong_echo(index));
            }
        }
        Ok(())
    }

    /// Runs a free-running load. Returns the number of messages whose echo is missing at the end.
    fn run_freely(&mut self, amount: Amount, start: Instant) -> io::Result<u64> {
        let epoll = Epoll::new()?;
        let mut remaining = 0;
        for (index, connection) in self.connections.iter_mut().enumerate() {
            // The registration ends with the epoll instance, which exists only during this run.
            epoll.add(connection.stream.as_raw_fd(), libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLET, index as u64)?;
            connection.sequence = 0;
            if connection.in_flight {
                connection.since = Instant::now();
                connection.is_late = true;
            } else {
                connection.next_message(index);
            }
            push(connection, index)?;
            remaining += 1;
        }
        let (limit, wanted) = match amount {
            Amount::Requests(wanted) => (self.plan.patience * 6, wanted),
            Amount::Time(limit) => (limit, u64::MAX),
        };
        let mut events = vec![NO_EVENT; 1024];
        while remaining > 0 && start.elapsed() < limit + GRACE {
            let over = start.elapsed() >= limit;
            let count = epoll.wait(&mut events, 100)?;
            for event in &events[..count] {
                let index = event.u64 as usize;
                let connection = &mut self.connections[index];
                if !connection.in_flight {
                    continue;
                }
                push(connection, index)?;
                if !pull(connection, index, &mut self.scratch)? {
                    continue;
                }
                if !connection.is_late {
                    self.histogram.record(connection.since.elapsed().as_nanos() as u64);
                }
                if over || connection.sequence >= wanted {
                    connection.in_flight = false;
                    remaining -= 1;
                } else {
                    connection.next_message(index);
                    push(connection, index)?;
                }
            }
        }
        let stuck = self.connections.iter().filter(|connection| connection.in_flight);
        for connection in stuck {
            self.histogram.record(connection.since.elapsed().as_nanos() as u64);
        }
        Ok(remaining)
    }
}

/// Sends as much of the message as the socket accepts.
fn push(connection: &mut Connection, index: usize) -> io::Result<()> {
    while connection.sent < connection.message.len() {
        match (&connection.stream).write(&connection.message[connection.sent..]) {
            Ok(0) => return Err(ended(index)),
            Ok(count) => connection.sent += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads the available part of the echo. Returns whether the echo is complete.
fn pull(connection: &mut Connection, index: usize, scratch: &mut [u8]) -> io::Result<bool> {
    while connection.received < connection.message.len() {
        let wanted = connection.message.len() - connection.received;
        match (&connection.stream).read(&mut scratch[..wanted]) {
            Ok(0) => return Err(ended(index)),
            Ok(count) => {
                let expected = &connection.message[connection.received..connection.received + count];
                if scratch[..count] != *expected {
                    return Err(wrong_echo(index));
                }
                connection.received += count;
                // After a short read, the rest of the echo arrives with a further event.
                if count < wanted {
                    return Ok(false);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::{Amount, Churn, Generator, Outcome, PATIENCE, Plan};
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc;
    use std::time::Duration;

    /// Starts an echo server and returns its port. Each connection has a thread. If `once` is true,
    /// the server closes a connection after one echo. If `alter` is true, the server alters the
    /// first byte of each echo.
    fn echo(once: bool, alter: bool) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let mut buffer = vec![0; 1 << 16];
                    while let Ok(count @ 1..) = stream.read(&mut buffer) {
                        buffer[0] ^= u8::from(alter);
                        if stream.write_all(&buffer[..count]).is_err() || once {
                            break;
                        }
                    }
                });
            }
        });
        port
    }

    #[test]
    fn every_mode_makes_requested_number_of_requests() {
        for (lock_step, churn, size) in [
            (true, None, 64),
            (false, None, 64),
            (false, None, 300_000),
            (true, Some(Churn::Server), 64),
            (true, Some(Churn::Client), 64),
        ] {
            let port = echo(churn == Some(Churn::Server), false);
            let plan = Plan { port, connections: 5, size, churn, lock_step, patience: PATIENCE };
            let mut generator = Generator::new(plan).unwrap();
            for _ in 0..2 {
                let outcome = generator.run(Amount::Requests(20)).unwrap();
                assert_eq!((outcome.requests, outcome.stuck), (100, 0));
                assert!(outcome.p50_ns > 0 && outcome.p50_ns <= outcome.p99_ns && outcome.p99_ns <= outcome.max_ns);
            }
        }
    }

    #[test]
    fn timed_run_ends() {
        let plan = Plan {
            port: echo(false, false),
            connections: 2,
            size: 8,
            churn: None,
            lock_step: false,
            patience: PATIENCE,
        };
        let outcome = Generator::new(plan).unwrap().run(Amount::Time(Duration::from_millis(50))).unwrap();
        assert!(outcome.requests > 0);
        assert!(outcome.wall_ns >= 50_000_000);
    }

    #[test]
    fn wrong_echo_is_an_error() {
        let plan =
            Plan { port: echo(false, true), connections: 1, size: 8, churn: None, lock_step: true, patience: PATIENCE };
        assert_eq!(Generator::new(plan).unwrap_err().kind(), std::io::ErrorKind::InvalidData);
    }

    /// Regression test: the next run reported the late echo as a wrong one.
    #[test]
    fn late_echo_of_an_earlier_run_is_not_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (release, released) = mpsc::channel();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 8];
            for number in 0.. {
                if stream.read_exact(&mut buffer).is_err() {
                    return number;
                }
                if number == 1 {
                    released.recv().unwrap();
                }
                stream.write_all(&buffer).unwrap();
            }
            0
        });
        let plan = Plan { port, connections: 1, size: 8, churn: None, lock_step: false, patience: PATIENCE };
        let mut generator = Generator::new(plan).unwrap();
        let outcome = generator.run(Amount::Time(Duration::ZERO)).unwrap();
        assert_eq!((outcome.requests, outcome.stuck), (0, 1));
        release.send(()).unwrap();
        let outcome = generator.run(Amount::Requests(20)).unwrap();
        assert_eq!((outcome.requests, outcome.stuck), (20, 0));
        drop(generator);
        assert_eq!(server.join().unwrap(), 22);
    }

    #[test]
    fn outcomes_and_amounts_are_parsed() {
        let outcome = Outcome { requests: 1, wall_ns: 2, p50_ns: 3, p99_ns: 4, p999_ns: 5, max_ns: 6, stuck: 7 };
        assert_eq!(outcome.to_string().parse(), Ok(outcome));
        assert_eq!("7".parse(), Ok(Amount::Requests(7)));
        assert_eq!("0.5s".parse(), Ok(Amount::Time(Duration::from_millis(500))));
        assert!("-1s".parse::<Amount>().is_err());
    }
}

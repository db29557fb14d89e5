//! Row 8 of the tables in docs/RELIABILITY.md: timers are never early, and their lateness is
//! measured. Deadlines are set, moved and cleared while they expire and data arrives.

use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use netpoll::net::{TcpStream, is_timeout};
use netpoll::task;

use crate::common::by_hand::Wakes;
use crate::common::{pair, park_on, poll_with};
use crate::scale::*;

/// Measures the lateness of sleeps in a plain thread. Only the machine causes this lateness.
fn control(run: Duration) -> thread::JoinHandle<Vec<Duration>> {
    thread::spawn(move || {
        let end = Instant::now() + run;
        let mut late = Vec::new();
        while Instant::now() < end {
            let due = Instant::now() + Duration::from_millis(5);
            thread::sleep(due - Instant::now());
            late.push(due.elapsed());
        }
        late
    })
}

/// Prints the lateness of timers and of a plain thread's sleeps (`control`). In a full run, asserts
/// that the 99th percentile of the timers is at most 2 ms, unless that of the plain thread exceeds
/// 1 ms, which shows that the machine is busy.
fn judge(what: &str, late: &mut [Duration], control: &mut [Duration]) {
    figure("8", format_args!("{what}: 0 early, late {}; a bare thread's sleep: {}", spread(late), spread(control)));
    if percentile(control, 99.0) <= Duration::from_millis(1) {
        limit("p99 late", percentile(late, 99.0), Duration::from_millis(2));
    } else if is_full() {
        figure("8", "the machine is not idle: lateness is not judged");
    }
}

/// Half of the timers are sleeps and half are read deadlines.
#[test]
fn many_timers_are_never_early() {
    process("deadlines::many_timers_are_never_early", 60, 120, || {
        let count = size(2_000, 10_000);
        let span = size(500, 5_000) as u64;
        let mut late = park_on(async {
            let mut random = Random::new(8);
            let start = Instant::now() + Duration::from_millis(size(0, 500) as u64);
            let mut tasks = Vec::new();
            for n in 0..count {
                let due = start + Duration::from_millis(5) + Duration::from_micros(random.below(span * 1000));
                if n % 2 == 0 {
                    tasks.push(task::spawn(async move {
                        netpoll::time::Sleep::until(due).await;
                        let now = Instant::now();
                        assert!(now >= due, "{:?} early", due - now);
                        now - due
                    }));
                    continue;
                }
                let (client, server) = unix_pair();
                tasks.push(task::spawn(async move {
                    client.set_read_deadline(due).unwrap();
                    let error = client.read(&mut [0; 1]).await.unwrap_err();
                    let now = Instant::now();
                    assert!(is_timeout(&error), "{error}");
                    assert!(now >= due, "{:?} early", due - now);
                    drop(server);
                    now - due
                }));
            }
            let control = control(Duration::from_millis(span));
            let mut late = Vec::new();
            for task in tasks {
                late.push(task.await);
            }
            (late, control.join().unwrap())
        });
        assert_eq!(late.0.len(), count);
        judge(&format!("{count} timers due within {span} ms"), &mut late.0, &mut late.1);
    });
}

fn unix_pair() -> (netpoll::os::unix::net::UnixStream, netpoll::os::unix::net::UnixStream) {
    netpoll::os::unix::net::UnixStream::pair().unwrap()
}

/// Each timer is the only activity of its runtime. The kernel's slack grows with the length of the
/// sleep.
#[test]
fn single_timers_are_never_early() {
    const NAME: &str = "deadlines::single_timers_are_never_early";
    let seconds: &[u64] = if is_full() { &[1, 2, 3, 5, 10, 20, 30] } else { &[1] };
    process(NAME, 60, 60, || {
        if let Ok(seconds) = std::env::var("NETPOLL_SECONDS") {
            let due = Instant::now() + Duration::from_secs(seconds.parse().unwrap());
            task::block_on(netpoll::time::Sleep::until(due));
            let now = Instant::now();
            assert!(now >= due, "{:?} early", due - now);
            eprintln!("late {}", (now - due).as_nanos());
            return;
        }
        // Each timer runs in its own process. `NETPOLL_SECONDS` passes the length of the timer to
        // it.
        let control = control(Duration::from_secs(*seconds.last().unwrap()));
        let runs: Vec<_> = seconds
            .iter()
            .map(|seconds| {
                std::process::Command::new(std::env::current_exe().unwrap())
                    .args(["--exact", NAME, "--nocapture", "--test-threads=1"])
                    .env("NETPOLL_SECONDS", seconds.to_string())
                    .stdin(std::process::Stdio::null())
                    .stdout(std::process::Stdio::null())
                    .stderr(std::process::Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        let mut late: Vec<_> = runs
            .into_iter()
            .map(|run| {
                let output = run.wait_with_output().unwrap();
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(output.status.success(), "{text}");
                let nanos = text.lines().find_map(|line| line.strip_prefix("late ")).unwrap();
                Duration::from_nanos(nanos.parse().unwrap())
            })
            .collect();
        judge(&format!("single sleeps of {seconds:?} s"), &mut late, &mut control.join().unwrap());
    });
}

/// The expected state of one socket's reading side.
struct Oracle {
    /// The time from which a read may fail.
    deadline: Option<Instant>,
    /// Whether the deadline had passed when it was set, or has made a read fail. Every read must
    /// then fail until the deadline is moved.
    expired: bool,
    /// The number of bytes sent.
    sent: u64,
    /// The number of bytes received.
    received: u64,
}

/// Counts of events in a run.
#[derive(Debug, Default)]
struct Seen {
    /// Reads that returned data.
    data: usize,
    /// Reads that timed out.
    timeouts: usize,
    /// Reads that were dropped while they waited.
    left: usize,
    /// Wake-ups of reads that waited.
    woken: usize,
}

impl Oracle {
    /// Gives the socket and the oracle the same deadline: none, one that has passed, a far one, or
    /// one so near that it races with other operations.
    fn set(&mut self, reader: &TcpStream, random: &mut Random) {
        let now = Instant::now();
        (self.deadline, self.expired) = match random.below(8) {
            0 | 1 => (None, false),
            2 => (Some(now - Duration::from_micros(random.below(50))), true),
            3 => (Some(now + Duration::from_secs(3600)), false),
            _ => (Some(now + Duration::from_micros(20 + random.below(150))), false),
        };
        reader.set_read_deadline(self.deadline).unwrap();
    }

    fn send(&mut self, writer: &TcpStream, random: &mut Random) {
        let message: Vec<_> = (0..1 + random.below(16)).map(|n| ((self.sent + n) % 251) as u8).collect();
        park_on(writer.write_all(&message)).unwrap();
        self.sent += message.len() as u64;
    }

    /// Returns whether a waiting read must complete without further changes.
    fn must_end(&self) -> bool {
        self.sent > self.received || self.deadline.is_some_and(|at| at < Instant::now() + Duration::from_secs(60))
    }

    /// Checks the result of a read, and counts it.
    fn judge(&mut self, result: std::io::Result<usize>, buf: &[u8], seen: &mut Seen) {
        match result {
            Ok(count) => {
                assert!(!self.expired, "data after the deadline had expired");
                assert!(count > 0, "end of stream, but the writer is open");
                for &byte in &buf[..count] {
                    assert_eq!(byte, (self.received % 251) as u8, "byte {}", self.received);
                    self.received += 1;
                }
                assert!(self.received <= self.sent);
                seen.data += 1;
            }
            Err(error) => {
                assert!(is_timeout(&error), "{error}");
                let due = self.deadline.expect("a timeout without deadline");
                assert!(Instant::now() >= due, "a timeout before its deadline");
                self.expired = true;
                seen.timeouts += 1;
            }
        }
    }
}

/// Polls one socket by hand, with random deadlines and sends, and with reads that are polled, kept
/// or dropped.
fn against_the_oracle(stream: u64, operations: usize) -> Seen {
    let mut random = Random::new(stream);
    let (reader, writer) = park_on(pair());
    let mut oracle = Oracle { deadline: None, expired: false, sent: 0, received: 0 };
    let mut seen = Seen::default();
    let (wakes, waker) = Wakes::new();
    let mut done = 0;
    while done < operations {
        done += 1;
        match random.below(8) {
            0..=2 => oracle.set(&reader, &mut random),
            3 | 4 => oracle.send(&writer, &mut random),
            _ => {
                let mut buf = [0; 24];
                let mut read = reader.read(&mut buf);
                // The maximum number of changes while this read waits.
                let mut changes = random.below(4);
                let polled = loop {
                    let woken = wakes.count();
                    match poll_with(&mut read, &waker) {
                        Poll::Ready(result) => break Some(result),
                        Poll::Pending => assert!(!oracle.expired, "waits after the deadline had expired"),
                    }
                    if changes > 0 {
                        changes -= 1;
                        done += 1;
                        match random.below(2) {
                            0 => oracle.set(&reader, &mut random),
                            _ => oracle.send(&writer, &mut random),
                        }
                    }
                    if !oracle.must_end() {
                        break None;
                    }
                    // The read is polled only after a wake-up.
                    let start = Instant::now();
                    while wakes.count() == woken {
                        assert!(start.elapsed() < Duration::from_secs(120), "no wake-up: {:?}", oracle.deadline);
                        thread::yield_now();
                    }
                    seen.woken += 1;
                };
                drop(read);
                match polled {
                    Some(result) => oracle.judge(result, &buf, &mut seen),
                    None => seen.left += 1,
                }
            }
        }
    }
    // Checks that no data was lost.
    reader.set_read_deadline(None).unwrap();
    (oracle.deadline, oracle.expired) = (None, false);
    while oracle.received < oracle.sent {
        let mut buf = [0; 64];
        let result = park_on(reader.read(&mut buf));
        oracle.judge(result, &buf, &mut seen);
    }
    seen
}

#[test]
fn deadlines_match_oracle() {
    process("deadlines::deadlines_match_oracle", 120, 900, || {
        let threads = 2;
        let operations = size(100_000, 10_000_000) / threads;
        let start = Instant::now();
        let runs: Vec<_> =
            (0..threads).map(|n| thread::spawn(move || against_the_oracle(n as u64, operations))).collect();
        let seen: Vec<_> = runs.into_iter().map(|run| run.join().unwrap()).collect();
        let sum = |count: fn(&Seen) -> usize| seen.iter().map(count).sum::<usize>();
        let (data, timeouts) = (sum(|seen| seen.data), sum(|seen| seen.timeouts));
        let (left, woken) = (sum(|seen| seen.left), sum(|seen| seen.woken));
        assert!(data > 1000 && timeouts > 1000 && left > 1000 && woken > 1000, "{seen:?}");
        let total = operations * threads;
        let time = start.elapsed();
        figure(
            "8",
            format_args!(
                "{total} operations, 0 wrong: {data} reads got bytes, {timeouts} timed out, {left} left waiting, {woken} wake-ups; {time:.1?}"
            ),
        );
    });
}

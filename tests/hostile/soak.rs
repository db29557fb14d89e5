//! Row 13 of the tables in docs/RELIABILITY.md: a mixed load with faults, in rounds. After each
//! round everything is at rest. Memory and descriptors must not grow from round to round.
//!
//! `NETPOLL_SOAK` sets the duration in seconds (by default 6, and 7,200 at full size).
//! `NETPOLL_SEED` selects another random run (by default 1).

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use netpoll::net::{TcpListener, TcpStream, UdpSocket, is_closed, is_timeout};
use netpoll::os::unix::net::UnixStream;
use netpoll::{future, rt, task};

use crate::common::{IS_SANITIZED, echo, eventually, fd_count, park_on, ping, resident, set_nofile, thread_count};
use crate::scale::*;

/// Counts of events in the whole test.
#[derive(Debug, Default)]
struct Counts {
    opened: AtomicU64,
    closed: AtomicU64,
    accepted: AtomicU64,
    ended: AtomicU64,
    round_trips: AtomicU64,
    resets: AtomicU64,
    /// Reads that a close by this process has ended.
    evicted: AtomicU64,
    timeouts: AtomicU64,
    /// Reads that were dropped while they waited.
    abandoned: AtomicU64,
    datagrams: AtomicU64,
    panics: AtomicU64,
    /// Operations that failed with EMFILE.
    no_descriptor: AtomicU64,
}

fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Returns the value, or `None` for EMFILE, which the soak causes itself. Other errors fail the
/// test.
fn starved<T>(result: io::Result<T>, counts: &Counts) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            assert!(matches!(netpoll::net::raw_os_error(&error), Some(libc::EMFILE)), "{error}");
            bump(&counts.no_descriptor);
            None
        }
    }
}

/// Opens a connection, uses it, and ends it in one of several ways.
async fn visit(address: SocketAddr, random: &mut Random, counts: &Counts) {
    let Some(stream) = starved(TcpStream::connect(address).await, counts) else {
        task::sleep(Duration::from_millis(5)).await;
        return;
    };
    bump(&counts.opened);
    let message: Vec<_> = (0..1 + random.below(6000)).map(|n| n as u8).collect();
    for _ in 0..random.below(20) {
        // If the process has no free descriptor, the connection waits in the accept queue for a
        // while.
        ping(&stream, &message).await.expect("an echo");
        bump(&counts.round_trips);
    }
    match random.below(6) {
        0 => drop(stream.shutdown(Shutdown::Write)),
        1 => {
            stream.set_linger(Some(Duration::ZERO)).unwrap();
            bump(&counts.resets);
        }
        2 => {
            let waiter = stream.clone();
            let waiter = task::spawn(async move { waiter.read(&mut [0; 1]).await });
            task::yield_now().await;
            stream.force_close().await.unwrap();
            assert!(is_closed(&waiter.await.unwrap_err()));
            bump(&counts.evicted);
        }
        3 => {
            let due = Instant::now() + Duration::from_micros(random.below(3000));
            stream.set_deadline(due).unwrap();
            let error = stream.read(&mut [0; 1]).await.unwrap_err();
            assert!(is_timeout(&error) && Instant::now() >= due, "{error}");
            stream.set_deadline(None).unwrap();
            ping(&stream, b"still here").await.expect("an echo after a time-out");
            bump(&counts.timeouts);
        }
        4 => {
            // Dropping a future that waits loses nothing.
            let wait = Duration::from_micros(random.below(500));
            assert!(future::timeout(wait, stream.read(&mut [0; 1])).await.is_err());
            ping(&stream, b"still here").await.expect("an echo after a read that was dropped");
            bump(&counts.abandoned);
        }
        _ => {}
    }
    drop(stream);
    bump(&counts.closed);
}

/// Performs one operation of another kind: sends and receives datagrams, uses a Unix stream,
/// cancels a task, spawns a task that panics, makes a blocking call, or sleeps.
async fn sundries(random: &mut Random, counts: &Counts) {
    match random.below(6) {
        0 => {
            let Some(one) = starved(UdpSocket::bind("127.0.0.1:0").await, counts) else { return };
            let to = one.local_addr().unwrap();
            for n in 0..16 {
                one.send_to(&[n; 100], to).await.unwrap();
                let (count, _) = one.recv_from(&mut [0; 200]).await.unwrap();
                assert_eq!(count, 100);
                bump(&counts.datagrams);
            }
        }
        1 => {
            let Some((one, other)) = starved(UnixStream::pair(), counts) else { return };
            let wait = Duration::from_micros(random.below(300));
            assert!(future::timeout(wait, one.read(&mut [0; 1])).await.is_err());
            drop(other);
            assert_eq!(one.read(&mut [0; 1]).await.unwrap(), 0);
        }
        2 => {
            let sleeper = task::spawn(task::sleep(Duration::from_secs(3600)));
            task::yield_now().await;
            assert!(sleeper.cancel().await.is_none());
        }
        3 => {
            drop(task::spawn(async { panic!("a fault of the soak") }));
            bump(&counts.panics);
        }
        4 => {
            let n = random.next();
            assert_eq!(task::spawn_blocking(move || n ^ 1).await, n ^ 1);
        }
        _ => task::sleep(Duration::from_micros(random.below(2000))).await,
    }
}

/// Every 150 ms, lowers the limit on descriptors to the number of open ones for 20 ms, so that
/// almost none is free. If no operation has failed for lack of a descriptor by then, keeps the
/// limit until one fails, or until `end`. Otherwise the limit is `most`.
fn pressure(stop: &AtomicBool, end: Instant, counts: &Counts, most: u64) {
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(150));
        let failed = get(&counts.no_descriptor);
        set_nofile(fd_count() as u64);
        thread::sleep(Duration::from_millis(20));
        while get(&counts.no_descriptor) == failed && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
        set_nofile(most);
    }
}

/// Connects to the server, and checks that it answers.
async fn check_service(address: SocketAddr, counts: &Counts) {
    let stream = TcpStream::connect(address).await.expect("a connection with free descriptors");
    bump(&counts.opened);
    ping(&stream, b"with free descriptors").await.expect("an echo with free descriptors");
    drop(stream);
    bump(&counts.closed);
}

/// Runs one round of the load for `length`, and waits until its actors have ended. Then checks that
/// the server still accepts connections.
fn round(address: SocketAddr, length: Duration, seed: u64, counts: &Arc<Counts>) {
    let end = Instant::now() + length;
    let stop = Arc::new(AtomicBool::new(false));
    let (pressed, refused) = (stop.clone(), counts.clone());
    let press = thread::spawn(move || pressure(&pressed, end, &refused, 16_384));
    let actors: Vec<_> = (0..48)
        .map(|n| {
            let counts = counts.clone();
            task::spawn(async move {
                let mut random = Random::new(seed * 1000 + n);
                while Instant::now() < end {
                    if n < 32 {
                        visit(address, &mut random, &counts).await;
                    } else {
                        sundries(&mut random, &counts).await;
                    }
                }
            })
        })
        .collect();
    park_on(async {
        for actor in actors {
            actor.await;
        }
    });
    stop.store(true, Ordering::Relaxed);
    press.join().unwrap();
    park_on(check_service(address, counts));
}

/// Figures measured at rest.
#[derive(Clone, Copy, Debug)]
struct Rest {
    /// The time since the start, in seconds.
    at: f64,
    /// The allocated memory, in bytes.
    heap: f64,
    /// The resident memory, in KiB.
    resident: f64,
    descriptors: f64,
    threads: usize,
}

/// Returns the growth per hour, by least squares.
fn slope(rests: &[Rest], value: fn(&Rest) -> f64) -> f64 {
    let count = rests.len() as f64;
    let (x, y) = (rests.iter().map(|rest| rest.at).sum::<f64>() / count, rests.iter().map(value).sum::<f64>() / count);
    let (mut top, mut bottom) = (0.0, 0.0);
    for rest in rests {
        top += (rest.at - x) * (value(rest) - y);
        bottom += (rest.at - x).powi(2);
    }
    top / bottom * 3600.0
}

/// Makes all workers, spare workers and threads for blocking calls run at the same time, so that
/// each has allocated its memory.
fn start_threads(spares: usize, blocking: usize) {
    let workers = rt::metrics().workers + spares;
    let all = Arc::new(Barrier::new(workers));
    let calls = Arc::new(Barrier::new(blocking));
    let mut tasks = Vec::new();
    for _ in 0..workers {
        let all = all.clone();
        tasks.push(task::spawn(async move { _ = all.wait() }));
    }
    for _ in 0..blocking {
        let calls = calls.clone();
        tasks.push(task::spawn_blocking(move || _ = calls.wait()));
    }
    park_on(async {
        for task in tasks {
            task.await;
        }
    });
}

#[test]
fn soak_grows_nothing() {
    let seconds = setting("NETPOLL_SOAK", size(6, 7_200) as u64);
    process("soak::soak_grows_nothing", seconds + 90, seconds + 90, || {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if panic.payload().downcast_ref::<&str>() != Some(&"a fault of the soak") {
                report(panic);
            }
        }));
        // The runtime's threads inherit the namespace.
        own_network();
        // The memory of threads and processors grows with their number. By default, up to 64 spares
        // may start on a busy machine. Here the maximum is reached before the first round.
        let (spares, blocking) = (2, 4);
        rt::Builder::new().spare_workers(spares).blocking_threads(blocking).start().unwrap();
        start_threads(spares, blocking);
        set_nofile(16_384);
        let length = Duration::from_secs_f64((seconds as f64 / 24.0).clamp(0.25, 60.0));
        let counts = Arc::new(Counts::default());
        let listener = park_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let served = counts.clone();
        let service = task::spawn(async move {
            use netpoll::stream::StreamExt;
            let mut incoming = listener.incoming();
            while let Some(stream) = incoming.next().await {
                let Some(stream) = starved(stream, &served) else { continue };
                bump(&served.accepted);
                let served = served.clone();
                drop(task::spawn(async move {
                    // Resets are part of the load.
                    let _ = echo(&stream).await;
                    drop(stream);
                    bump(&served.ended);
                }));
            }
        });
        let begin = Instant::now();
        let mut rests = Vec::new();
        let mut number = 0;
        while begin.elapsed() < Duration::from_secs(seconds) {
            number += 1;
            round(address, length, number, &counts);
            // Only the listener and the task that accepts from it remain.
            eventually("everything is at rest", || {
                let metrics = rt::metrics();
                (metrics.descriptors, metrics.waiters, metrics.tasks_alive) == (1, 1, 1)
            });
            assert_eq!(get(&counts.opened), get(&counts.closed));
            assert_eq!(get(&counts.accepted), get(&counts.ended));
            assert!(get(&counts.accepted) >= get(&counts.opened));
            rests.push(Rest {
                at: begin.elapsed().as_secs_f64(),
                heap: live_bytes() as f64,
                resident: resident() as f64,
                descriptors: fd_count() as f64,
                threads: thread_count(),
            });
        }
        park_on(service.cancel());
        rt::shutdown(Duration::from_secs(120)).unwrap();
        // The first quarter covers one-time growth.
        let steady = &rests[rests.len() / 4..];
        let run = steady[steady.len() - 1].at - steady[0].at;
        let heap = slope(steady, |rest| rest.heap);
        let pages = slope(steady, |rest| rest.resident);
        let descriptors = slope(steady, |rest| rest.descriptors);
        figure(
            "13",
            format_args!(
                "{:.0} s in {number} rounds, {} threads: heap {:+.0} B, resident {:+.0} KiB, descriptors {:+} from the first quarter to the end \
                 (growth per hour: {heap:+.0} B, {pages:+.0} KiB, {descriptors:+.1}); {counts:?}",
                rests[rests.len() - 1].at,
                rests[rests.len() - 1].threads,
                steady[steady.len() - 1].heap - steady[0].heap,
                steady[steady.len() - 1].resident - steady[0].resident,
                steady[steady.len() - 1].descriptors - steady[0].descriptors,
            ),
        );
        assert_eq!(steady.iter().map(|rest| rest.descriptors as usize).max(), Some(steady[0].descriptors as usize));
        assert!(heap * run / 3600.0 < 64e3, "the heap grows: {rests:?}");
        assert!(pages * run / 3600.0 < 4096.0 || IS_SANITIZED, "the process grows: {rests:?}");
        let Counts { resets, evicted, timeouts, abandoned, panics, no_descriptor, .. } = &*counts;
        let faults = [resets, evicted, timeouts, abandoned, panics, no_descriptor];
        assert!(faults.iter().all(|count| get(count) > 0), "{counts:?}");
    });
}

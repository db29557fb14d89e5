//! Rows 9 (resets) and 10 (all but half-open) of the tables in docs/RELIABILITY.md: peers that are
//! silent, never read, reset, connect and disconnect in bursts, or use all the bandwidth.
//!
//! The peers are plain threads with std sockets, so the runtime's metrics count only the service.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{self, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use netpoll::net::{ListenConfig, TcpListener, TcpStream, is_timeout};
use netpoll::{rt, task};

use crate::common::{becomes, echo, eventually, fd_count, park_on, resident};
use crate::scale::*;

/// Counts of connections.
#[derive(Debug, Default)]
struct Served {
    accepted: AtomicUsize,
    ended: AtomicUsize,
    timed_out: AtomicUsize,
}

/// Serves every connection with `service`, each in its own task. Returns the address, the counts,
/// and the task that accepts.
fn serve<F>(
    listener: TcpListener,
    service: impl Fn(TcpStream) -> F + Send + 'static,
) -> (SocketAddr, Arc<Served>, task::JoinHandle<()>)
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let address = listener.local_addr().unwrap();
    let served = Arc::new(Served::default());
    let counts = served.clone();
    let accepts = task::spawn(async move {
        loop {
            // An error of accept(2) does not end the service.
            let Ok((stream, _)) = listener.accept().await else { continue };
            counts.accepted.fetch_add(1, Ordering::Relaxed);
            let (service, counts) = (service(stream), counts.clone());
            drop(task::spawn(async move {
                if service.await.is_err_and(|error| is_timeout(&error)) {
                    counts.timed_out.fetch_add(1, Ordering::Relaxed);
                }
                counts.ended.fetch_add(1, Ordering::Relaxed);
            }));
        }
    });
    (address, served, accepts)
}

fn listen(address: &str) -> TcpListener {
    park_on(ListenConfig::new().backlog(128).listen(address)).unwrap()
}

fn connect(address: SocketAddr) -> net::TcpStream {
    let stream = net::TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Closes the stream with a reset.
fn reset(stream: net::TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Sends a byte and waits for the answer. Returns the time taken.
fn round_trip(mut stream: &net::TcpStream) -> Duration {
    let begin = Instant::now();
    stream.write_all(b"\n").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    begin.elapsed()
}

/// Cancels `accepts`, waits until the service has released everything, and shuts the runtime down.
/// Then waits until `fds` descriptors are open.
fn end_service(fds: usize, accepts: task::JoinHandle<()>) {
    park_on(accepts.cancel());
    eventually("all resources are released", || {
        let metrics = rt::metrics();
        (metrics.descriptors, metrics.waiters, metrics.tasks_alive) == (0, 0, 0)
    });
    rt::shutdown(Duration::from_secs(120)).unwrap();
    eventually("the number of open descriptors is as before", || fd_count() == fds);
}

fn count(counter: &AtomicUsize) -> usize {
    counter.load(Ordering::Relaxed)
}

/// Answers each line. A line must arrive within `patience` of the previous answer, or of the start.
async fn lines(stream: TcpStream, patience: Duration) -> io::Result<()> {
    let mut buf = [0; 512];
    loop {
        stream.set_read_deadline(Instant::now() + patience)?;
        loop {
            let got = stream.read(&mut buf).await?;
            if got == 0 {
                return Ok(());
            }
            if buf[..got].contains(&b'\n') {
                break;
            }
        }
        stream.write_all(b".").await?;
    }
}

/// Half of the clients are silent, and half send a byte about every 100 ms. The read deadline for a
/// line disconnects the clients of both kinds. Until then, an honest client is served promptly.
#[test]
fn silent_clients_do_not_delay_others() {
    process("peers::silent_clients_do_not_delay_others", 90, 180, || {
        let (fds, silent) = (fd_count(), size(300, 2_000));
        let patience = Duration::from_secs(size(3, 20) as u64);
        let (address, served, accepts) = serve(listen("127.0.0.1:0"), move |stream| lines(stream, patience));
        let honest = connect(address);
        let mut alone: Vec<_> = (0..500).map(|_| round_trip(&honest)).collect();
        let (bytes, pages) = (live_bytes(), resident());
        // The honest client sends a line before each connect, because the deadline applies to it
        // too.
        let silent_client = |_| {
            round_trip(&honest);
            connect(address)
        };
        let crowd: Vec<_> = (0..silent).map(silent_client).collect();
        eventually("all clients are accepted", || {
            round_trip(&honest);
            count(&served.accepted) == silent + 1
        });
        let (bytes, pages) = (live_bytes() - bytes, resident() - pages);
        let begin = Instant::now();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let trickle = thread::spawn(move || {
            let mut sent = 0_usize;
            while !stopped.load(Ordering::Relaxed) {
                for mut stream in crowd.iter().step_by(2) {
                    // The write may fail, because the service closes the connection at the
                    // deadline.
                    sent += usize::from(stream.write(b"x").is_ok());
                }
                thread::sleep(Duration::from_millis(100));
            }
            (crowd, sent)
        });
        let mut among = Vec::new();
        while begin.elapsed() < patience * 9 / 10 {
            among.push(round_trip(&honest));
            thread::sleep(Duration::from_micros(500));
        }
        eventually("the silent clients are disconnected", || {
            round_trip(&honest);
            count(&served.timed_out) >= silent
        });
        stop.store(true, Ordering::Relaxed);
        let (crowd, sent) = trickle.join().unwrap();
        assert_eq!(count(&served.timed_out), silent);
        round_trip(&honest);
        let each = bytes / silent as i64;
        figure(
            "10",
            format_args!(
                "{silent} silent clients ({sent} bytes trickled), {} round trips of an honest client: {}; alone: {}; \
                 {each} B of heap and {:.1} KiB resident each",
                among.len(),
                spread(&mut among),
                spread(&mut alone),
                pages as f64 / silent as f64
            ),
        );
        // The figure includes the task with its buffer of 512 bytes, and the runtime's memory for a
        // socket.
        assert!(each < 4096, "{each} bytes per silent connection");
        limit("p99 of an honest client", percentile(&mut among, 99.0), Duration::from_millis(5));
        drop((crowd, honest));
        end_service(fds, accepts);
    });
}

/// The write deadline disconnects clients that never read. The service then holds no memory for
/// them.
#[test]
fn clients_that_never_read_are_disconnected() {
    process("peers::clients_that_never_read_are_disconnected", 90, 90, || {
        let (fds, crowd) = (fd_count(), size(50, 1_000));
        let answer: Arc<[u8]> = vec![7; 8 << 20].into();
        let patience = Duration::from_millis(700);
        let (address, served, accepts) = serve(listen("127.0.0.1:0"), move |stream| {
            let answer = answer.clone();
            async move {
                if stream.read(&mut [0; 1]).await? == 0 {
                    return Ok(());
                }
                // Fills the peer's receive buffer, so that its window is zero, and then the send
                // buffer.
                let due = Instant::now() + patience;
                stream.set_write_deadline(due)?;
                let result = stream.write_all(&answer).await;
                assert!(result.is_ok() || Instant::now() >= due);
                result
            }
        });
        let bytes = live_bytes();
        let begin = Instant::now();
        let streams: Vec<_> = (0..crowd)
            .map(|_| {
                let stream = connect(address);
                socket2::SockRef::from(&stream).set_recv_buffer_size(4096).unwrap();
                (&stream).write_all(b"?").unwrap();
                stream
            })
            .collect();
        let made = begin.elapsed();
        eventually("all clients are disconnected", || count(&served.ended) == crowd);
        let took = begin.elapsed();
        assert_eq!(count(&served.timed_out), crowd);
        let left = live_bytes() - bytes;
        let workers = rt::inspect().workers.len() as i64;
        figure(
            "10",
            format_args!(
                "zero window: {crowd} of {crowd} timed out, all disconnected {took:.1?} after the first connect (connecting took {made:.1?})"
            ),
        );
        // On a busy machine there may be many workers, each with its own black box.
        assert!(left < (1 << 20) + workers * (144 << 10), "{left} bytes are left, with {workers} workers");
        drop(streams);
        end_service(fds, accepts);
    });
}

/// Clients connect in bursts to a listener with a backlog of 128. A third of them close at
/// once, a third after one round trip, and a third with a reset.
#[test]
fn connection_bursts_leak_nothing() {
    process("peers::connection_bursts_leak_nothing", 120, 300, || {
        let own = own_network();
        let (fds, storm, threads) = (fd_count(), size(2_000, 50_000), 4);
        let (address, served, accepts) = serve(listen("0.0.0.0:0"), |stream| async move { echo(&stream).await });
        let begin = Instant::now();
        let crowds: Vec<_> = (0..threads)
            .map(|thread| {
                thread::spawn(move || {
                    for n in 0..storm / threads {
                        // Uses many destination addresses, because TIME_WAIT blocks reuse of a
                        // local port to the same destination for up to 60 s.
                        let to = SocketAddr::from(([127, 0, thread as u8 + 1, (n % 200) as u8 + 1], address.port()));
                        let stream = connect(to);
                        match n % 3 {
                            0 => drop(stream),
                            1 => drop(round_trip(&stream)),
                            _ => reset(stream),
                        }
                    }
                })
            })
            .collect();
        for crowd in crowds {
            crowd.join().unwrap();
        }
        eventually("all clients have disconnected", || count(&served.ended) == storm);
        let took = begin.elapsed();
        assert_eq!(count(&served.accepted), storm);
        let honest = connect(SocketAddr::from(([127, 0, 0, 1], address.port())));
        round_trip(&honest);
        drop(honest);
        let stale = rt::metrics().stale_events;
        figure(
            "10",
            format_args!(
                "burst: {storm} connections opened and closed in {took:.1?} ({:.0}/s), none lost, {stale} stale events dropped{}",
                storm as f64 / took.as_secs_f64(),
                if own { "" } else { " (loopback of the machine)" }
            ),
        );
        end_service(fds, accepts);
    });
}

/// One connection transfers as much as it can while many others send a request from time to time.
#[test]
fn greedy_connection_does_not_starve_others() {
    process("peers::greedy_connection_does_not_starve_others", 90, 180, || {
        let (fds, quiet, rounds) = (fd_count(), size(100, 1_000), size(2_000, 30_000));
        let (address, _, accepts) = serve(listen("127.0.0.1:0"), |stream| async move { echo(&stream).await });
        let crowd: Vec<_> = (0..quiet).map(|_| connect(address)).collect();
        let visit = |rounds: usize| -> Vec<Duration> {
            (0..rounds)
                .map(|n| {
                    // Pauses before every fourth request, so that the runtime can go to sleep.
                    if n % 4 == 0 {
                        thread::sleep(Duration::from_micros(100));
                    }
                    round_trip(&crowd[n % quiet])
                })
                .collect()
        };
        visit(quiet);
        let mut alone = visit(rounds);
        // A plain thread serves the same greedy load. This run measures the delay that the
        // machine's scheduler adds.
        let plain = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = plain.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = plain.accept().unwrap();
            let mut buf = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buf) {
                if stream.write_all(&buf[..count]).is_err() {
                    break;
                }
            }
        });
        let (mut control, _) = with_greed(to, || visit(rounds));
        server.join().unwrap();
        let (mut beside, rate) = with_greed(address, || visit(rounds));
        let [a, b, c] = [&mut alone, &mut beside, &mut control].map(|times| percentile(times, 99.0));
        figure(
            "10",
            format_args!(
                "fairness: {quiet} quiet connections alone {}; with a greedy connection that transfers {rate:.0} MB/s {}: p99 × {:.1}; \
                 with one that a plain thread serves {}: × {:.1}",
                spread(&mut alone),
                spread(&mut beside),
                b.as_secs_f64() / a.as_secs_f64(),
                spread(&mut control),
                c.as_secs_f64() / a.as_secs_f64()
            ),
        );
        // On a busy machine, or one with too few CPUs for both ends of a connection, quiet
        // connections are delayed about as much while the plain thread serves the greedy one.
        limit("p99 with a greedy connection", b, (a * 6).max(c * 2));
        drop(crowd);
        end_service(fds, accepts);
    });
}

/// Runs `visit` while two threads write to and read from a connection to `address` as fast as they
/// can. Returns the result of `visit`, and the rate of the bytes read in MB/s.
fn with_greed<T>(address: SocketAddr, visit: impl FnOnce() -> T) -> (T, f64) {
    let greedy = connect(address);
    let stop = Arc::new(AtomicBool::new(false));
    let taken = Arc::new(AtomicUsize::new(0));
    let ends = [true, false].map(|is_writer| {
        let (mut stream, stop, taken) = (greedy.try_clone().unwrap(), stop.clone(), taken.clone());
        thread::spawn(move || {
            let mut chunk = vec![1; 256 << 10];
            while !stop.load(Ordering::Relaxed) {
                match is_writer {
                    true => drop(stream.write(&chunk)),
                    false => drop(stream.read(&mut chunk).map(|count| taken.fetch_add(count, Ordering::Relaxed))),
                }
            }
        })
    });
    eventually("the connection is at full speed", || count(&taken) > 4 << 20);
    let (begin, before) = (Instant::now(), count(&taken));
    let result = visit();
    let rate = (count(&taken) - before) as f64 / begin.elapsed().as_secs_f64() / 1e6;
    stop.store(true, Ordering::Relaxed);
    let _ = greedy.shutdown(net::Shutdown::Both);
    ends.into_iter().for_each(|end| end.join().unwrap());
    (result, rate)
}

/// The number of results of each kind.
type Kinds = BTreeMap<String, usize>;

/// Counts a result by its kind of error.
fn note(kinds: &mut Kinds, what: &str, result: &io::Result<()>) {
    let text = match result {
        Ok(()) => format!("{what}: end"),
        Err(error) => format!("{what}: {:?}", error.kind()),
    };
    *kinds.entry(text).or_default() += 1;
}

/// Sends and receives until either fails, or until the end of the stream.
async fn until_reset(stream: TcpStream, random: u64) -> io::Result<()> {
    let chunk = vec![3; 1 + (random % 30_000) as usize];
    let send = async {
        loop {
            stream.write_all(&chunk).await?;
        }
    };
    let take = async {
        let mut buf = [0; 2048];
        while stream.read(&mut buf).await? > 0 {}
        Ok(())
    };
    // Either the reader or the writer gets the error first.
    match futures::future::select(std::pin::pin!(take), std::pin::pin!(send)).await {
        futures::future::Either::Left((result, _)) | futures::future::Either::Right((result, _)) => result,
    }
}

/// Makes up to three reads or writes of up to 4 KiB, waits up to 100 µs, and resets the connection.
fn spoil(mut stream: net::TcpStream, random: &mut Random) {
    let mut buf = [0; 4096];
    for _ in 0..random.below(4) {
        let _ = match random.below(2) {
            0 => stream.write(&buf),
            _ => stream.read(&mut buf),
        };
    }
    let until = Instant::now() + Duration::from_micros(random.below(100));
    while Instant::now() < until {
        std::hint::spin_loop();
    }
    reset(stream);
}

/// The service accepts half of the connections and dials the other half. The peers reset each
/// connection at a random moment.
#[test]
fn resets_are_reported_as_resets() {
    process("peers::resets_are_reported_as_resets", 120, 600, || {
        own_network();
        let (fds, half) = (fd_count(), size(1_000, 100_000) / 2);
        let begin = Instant::now();
        let listener = listen("127.0.0.1:0");
        let address = listener.local_addr().unwrap();
        let (told, tell) = std::sync::mpsc::channel();
        let ours = told.clone();
        let accepts = task::spawn(async move {
            for n in 0_u64.. {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let told = ours.clone();
                drop(task::spawn(async move { told.send(("accepted", until_reset(stream, n * 7919).await)) }));
            }
        });
        let clients: Vec<_> = (0..2)
            .map(|n| {
                thread::spawn(move || {
                    let mut random = Random::new(100 + n);
                    (0..half / 2).for_each(|_| spoil(connect(address), &mut random));
                })
            })
            .collect();
        let spoiler = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = spoiler.local_addr().unwrap();
        let servers = thread::spawn(move || {
            let mut random = Random::new(200);
            for _ in 0..half {
                spoil(spoiler.accept().unwrap().0, &mut random);
            }
        });
        let dials = task::spawn(async move {
            let under_way = Arc::new(AtomicUsize::new(0));
            for n in 0..half as u64 {
                // Keeps fewer connections under way than the backlog holds, because a SYN dropped
                // at a full queue is retransmitted only after a second.
                becomes("the queue has room", || count(&under_way) < 16).await;
                under_way.fetch_add(1, Ordering::Relaxed);
                let (told, under_way) = (told.clone(), under_way.clone());
                drop(task::spawn(async move {
                    let result = match TcpStream::connect(to).await {
                        Ok(stream) => ("dialled", until_reset(stream, n * 104_729).await),
                        Err(error) => ("dial", Err(error)),
                    };
                    under_way.fetch_sub(1, Ordering::Relaxed);
                    told.send(result)
                }));
            }
        });
        for client in clients {
            client.join().unwrap();
        }
        servers.join().unwrap();
        park_on(dials);
        let mut kinds = Kinds::new();
        for _ in 0..half * 2 {
            let (what, result) = tell.recv_timeout(Duration::from_secs(120)).expect("every connection reports its end");
            note(&mut kinds, what, &result);
        }
        figure("9", format_args!("{} resets in {:.1?}: {kinds:?}", half * 2, begin.elapsed()));
        // A reset is not an orderly end. A write after the reset was reported may fail with a
        // broken pipe.
        let known = ["ConnectionReset", "BrokenPipe"];
        assert!(kinds.keys().all(|kind| known.iter().any(|known| kind.ends_with(known))), "{kinds:?}");
        end_service(fds, accepts);
    });
}

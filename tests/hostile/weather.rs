//! Rows 9 (faults) and 10 (half-open) of the tables in docs/RELIABILITY.md: data through a network
//! that loses, delays, duplicates, reorders and damages packets, and peers whose network is cut.
//!
//! Kernels of small machines often lack netem, so the tests simulate the network: two
//! network namespaces, a TUN device in each, and a thread that carries packets between them and
//! keeps delayed packets in a heap. The kernel's TCP is at both ends. The tests need root,
//! `/dev/net/tun` and ip(8), and otherwise print that they are skipped.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use futures::future::join_all;
use netpoll::net::{TcpListener, TcpStream, is_timeout, raw_os_error};
use netpoll::{future, rt, task};

use crate::common::{echo, eventually, fd_count, park_on, ping};
use crate::scale::*;

/// The state of the network: the percentage of lost packets, the delay in each direction,
/// and disorder.
#[derive(Clone, Copy, Debug, Default)]
struct Weather {
    loss: u64,
    delay: Duration,
    /// Whether 5 % of the packets are duplicated, 5 % are up to 10 ms late, and 2 % have a flipped
    /// bit.
    disorder: bool,
}

/// Counts packets by outcome.
#[derive(Debug, Default)]
struct Packets {
    carried: AtomicU64,
    lost: AtomicU64,
    doubled: AtomicU64,
    late: AtomicU64,
    damaged: AtomicU64,
}

fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Creates a TUN device with an address, in the namespace of this thread.
fn tun(own: &str, peer: &str) -> io::Result<File> {
    let device = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    // SAFETY: all zeroes are a valid value of this plain structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"weather") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
    // SAFETY: the request is valid for the call.
    if unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if !ip(&format!("addr add {own} peer {peer} dev weather")) || !ip("link set weather up") {
        return Err(io::Error::other("ip(8) cannot set up a device"));
    }
    Ok(device)
}

/// A thread in its own network namespace, which runs the closures that are sent to it.
struct Place {
    jobs: mpsc::Sender<Box<dyn FnOnce() + Send>>,
}

impl Place {
    /// Starts the thread. Returns the place and the TUN device in its namespace. Prints the reason
    /// and returns `None` if the namespace or the device cannot be created.
    fn new(own: &'static str, peer: &'static str) -> Option<(Place, File)> {
        let (jobs, queue) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (ready, wait) = mpsc::channel();
        thread::spawn(move || {
            let _ = ready.send(if own_network() {
                tun(own, peer).map_err(|error| error.to_string())
            } else {
                Err("no namespace".into())
            });
            for job in queue {
                job();
            }
        });
        match wait.recv().unwrap() {
            Ok(device) => Some((Place { jobs }, device)),
            Err(why) => {
                figure("9 or 10", format_args!("skipped: {why}"));
                None
            }
        }
    }

    /// Runs `job` on the thread in the namespace. A socket belongs to the namespace of the thread
    /// that creates it.
    fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, wait) = mpsc::channel();
        self.jobs.send(Box::new(move || drop(done.send(job())))).unwrap();
        wait.recv().expect("the job did not panic")
    }
}

/// Two hosts and the network between them. The network exists until the value is dropped.
struct Link {
    here: Place,
    there: Place,
    packets: Arc<Packets>,
    cut: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    carrier: Option<thread::JoinHandle<()>>,
}

const THERE: &str = "10.77.0.2";

impl Link {
    fn new(weather: Weather, seed: u64) -> Option<Link> {
        let (here, first) = Place::new("10.77.0.1", THERE)?;
        let (there, second) = Place::new(THERE, "10.77.0.1")?;
        let packets = Arc::new(Packets::default());
        let [cut, stop] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let shared = (packets.clone(), cut.clone(), stop.clone());
        let carrier =
            thread::spawn(move || carry([first, second], weather, Random::new(seed), &shared.0, &shared.1, &shared.2));
        Some(Link { here, there, packets, cut, stop, carrier: Some(carrier) })
    }

    /// Returns a listener on the host `there`, and its address.
    fn listen(&self) -> (TcpListener, SocketAddr) {
        let listener = self.there.run(|| std::net::TcpListener::bind((THERE, 0)).unwrap());
        let address = listener.local_addr().unwrap();
        (TcpListener::from(listener), address)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.carrier.take().unwrap().join().unwrap();
    }
}

/// Packets in flight: the time of arrival, sequence number, direction and contents of each.
type UnderWay = BinaryHeap<Reverse<(Instant, u64, usize, Vec<u8>)>>;

/// Carries packets between the devices `ends` until `stop` is true. While `cut` is true, all
/// packets that the hosts send are lost.
fn carry(
    mut ends: [File; 2],
    weather: Weather,
    mut random: Random,
    packets: &Packets,
    cut: &AtomicBool,
    stop: &AtomicBool,
) {
    let mut under_way = UnderWay::new();
    let mut number = 0;
    let mut buf = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        while under_way.peek().is_some_and(|next| next.0.0 <= now) {
            let Reverse((_, _, to, packet)) = under_way.pop().unwrap();
            // If the queue is full or the kernel refuses the packet, it is lost.
            let _ = ends[to].write(&packet);
        }
        let wait =
            under_way.peek().map_or(20, |next| next.0.0.saturating_duration_since(now).as_millis().min(20) as i32);
        let mut polls = [0, 1].map(|end| libc::pollfd { fd: ends[end].as_raw_fd(), events: libc::POLLIN, revents: 0 });
        // SAFETY: both entries are valid for the call.
        unsafe { libc::poll(polls.as_mut_ptr(), 2, wait) };
        for from in [0, 1] {
            while let Ok(count) = ends[from].read(&mut buf) {
                if cut.load(Ordering::Relaxed) || random.below(100) < weather.loss {
                    bump(&packets.lost);
                    continue;
                }
                bump(&packets.carried);
                let mut packet = buf[..count].to_vec();
                let mut due = Instant::now() + weather.delay;
                let mut copies = 1;
                if weather.disorder {
                    if random.below(100) < 5 {
                        bump(&packets.late);
                        due += Duration::from_micros(random.below(10_000));
                    }
                    if random.below(100) < 5 {
                        bump(&packets.doubled);
                        copies = 2;
                    }
                    if random.below(100) < 2 {
                        bump(&packets.damaged);
                        // The checksums of IP and TCP detect every single flipped bit.
                        packet[random.below(count as u64) as usize] ^= 1 << random.below(8);
                    }
                }
                for _ in 0..copies {
                    number += 1;
                    under_way.push(Reverse((due, number, 1 - from, packet.clone())));
                }
            }
        }
    }
}

/// Returns the byte at offset `at` of a pattern. Each stream has a different pattern.
fn pattern(stream: u64, at: usize) -> u8 {
    ((at as u64).wrapping_mul(0x9e37_79b9).wrapping_add(stream.wrapping_mul(0x85eb_ca6b)) >> 11) as u8
}

/// Sends `total` bytes, and reads and checks the echo at the same time. Returns the number of bytes
/// read, and the error of the reads or else of the writes, if there was one.
async fn exchange(stream: &TcpStream, id: u64, total: usize) -> (usize, Option<io::Error>) {
    let send = async {
        let mut random = Random::new(id);
        let mut at = 0;
        while at < total {
            let count = (1 + random.below(8192) as usize).min(total - at);
            let part: Vec<_> = (at..at + count).map(|at| pattern(id, at)).collect();
            stream.write_all(&part).await?;
            at += count;
        }
        stream.close_write()
    };
    let receive = async {
        let mut buf = [0; 4096];
        let mut got = 0;
        loop {
            match stream.read(&mut buf).await {
                Ok(0) => return (got, None),
                Ok(count) => {
                    for &byte in &buf[..count] {
                        assert_eq!(byte, pattern(id, got), "byte {got} of stream {id}");
                        got += 1;
                    }
                }
                Err(error) => return (got, Some(error)),
            }
        }
    };
    let (sent, (got, error)) = futures::join!(send, receive);
    (got, error.or(sent.err()))
}

/// The result of the connections over one network.
#[derive(Debug, Default)]
struct Outcome {
    /// The number of connections that received all bytes.
    whole: usize,
    timed_out: usize,
    /// The number of bytes received.
    bytes: usize,
    /// The time of the connection that took longest.
    longest: Duration,
}

/// Runs `streams` connections over one network. Each connection completes, or its deadline ends it
/// after `most`. Returns `None` if the network cannot be created.
fn cell(weather: Weather, seed: u64, streams: usize, total: usize, most: Duration) -> Option<Outcome> {
    let link = Link::new(weather, seed)?;
    let (listener, address) = link.listen();
    let server = task::spawn(async move {
        let mut echoes = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            echoes.push(task::spawn(async move {
                stream.set_deadline(Instant::now() + most).unwrap();
                // The echo ends when the client ends its stream, or with an error, such as the
                // deadline's.
                let _ = echo(&stream).await;
            }));
        }
        echoes
    });
    let outcome = link.here.run(move || {
        let clients = (0..streams as u64).map(|id| async move {
            let begin = Instant::now();
            let stream = match TcpStream::connect_timeout(&address, most).await {
                Ok(stream) => stream,
                Err(error) => return (0, Some(error), begin.elapsed()),
            };
            stream.set_deadline(begin + most).unwrap();
            let (got, error) = exchange(&stream, seed * 1000 + id, total).await;
            (got, error, begin.elapsed())
        });
        let mut outcome = Outcome::default();
        for (got, error, took) in park_on(join_all(clients)) {
            outcome.bytes += got;
            outcome.longest = outcome.longest.max(took);
            match error {
                None => {
                    assert_eq!(got, total, "an end of the stream before all bytes");
                    outcome.whole += 1;
                }
                // The error is the client's timeout, or a reset, because the echo closes the
                // connection with unread bytes after its deadline.
                Some(error) => {
                    assert!(is_timeout(&error) || took + Duration::from_secs(1) >= most, "{error} after {took:?}");
                    assert!(took >= most || !is_timeout(&error), "early: {took:?}");
                    outcome.timed_out += 1;
                }
            }
        }
        outcome
    });
    park_on(server.cancel());
    limit("past the deadline", outcome.longest, most + Duration::from_secs(1));
    let p = &link.packets;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    figure(
        "9",
        format_args!(
            "loss {:2} %, delay {:3} ms, {}: {} of {streams} whole, {} bytes exact, {} timed out, longest {:.1?}; \
             packets {} carried, {} lost, {} twice, {} late, {} damaged",
            weather.loss,
            weather.delay.as_millis(),
            if weather.disorder { "disorder" } else { "in order" },
            outcome.whole,
            outcome.bytes,
            outcome.timed_out,
            outcome.longest,
            count(&p.carried),
            count(&p.lost),
            count(&p.doubled),
            count(&p.late),
            count(&p.damaged)
        ),
    );
    assert!(weather.loss == 0 || count(&p.lost) > 0);
    Some(outcome)
}

#[test]
fn data_is_intact_under_network_faults() {
    process("weather::data_is_intact_under_network_faults", 180, 1200, || {
        let fds = fd_count();
        let mut cells = Vec::new();
        for loss in [0, 1, 5, 10] {
            for delay in [0, 20, 100].map(Duration::from_millis) {
                for disorder in [false, true] {
                    cells.push(Weather { loss, delay, disorder });
                }
            }
        }
        assert_eq!(cells.len(), 24);
        if !is_full() {
            let ms = Duration::from_millis;
            cells.retain(|cell| {
                [(0, ms(100), false), (1, ms(0), true), (5, ms(20), true), (10, ms(0), false)].contains(&(
                    cell.loss,
                    cell.delay,
                    cell.disorder,
                ))
            });
            assert_eq!(cells.len(), 4);
        }
        let (streams, total) = (size(3, 8), size(24 << 10, 128 << 10));
        let most = Duration::from_secs(size(150, 120) as u64);
        let cells: Vec<_> = cells.into_iter().zip(90..).collect();
        let mut outcomes = Vec::new();
        for batch in cells.chunks(8) {
            let runs = batch
                .iter()
                .copied()
                .map(|(weather, seed)| thread::spawn(move || cell(weather, seed, streams, total, most)));
            outcomes.extend(runs.collect::<Vec<_>>().into_iter().filter_map(|run| run.join().unwrap()));
        }
        if outcomes.is_empty() {
            return;
        }
        assert_eq!(outcomes.len(), cells.len());
        let sum = |count: fn(&Outcome) -> usize| outcomes.iter().map(count).sum::<usize>();
        let (whole, bytes) = (sum(|cell| cell.whole), sum(|cell| cell.bytes));
        figure(
            "9",
            format_args!(
                "{} cells: {whole} of {} connections whole, {bytes} bytes exact",
                cells.len(),
                cells.len() * streams
            ),
        );
        assert!(whole * 10 >= cells.len() * streams * 9, "{outcomes:?}");
        eventually("all resources are released", || rt::metrics().descriptors == 0 && rt::metrics().waiters == 0);
        rt::shutdown(Duration::from_secs(120)).unwrap();
        eventually("the number of open descriptors is as before", || fd_count() == fds);
    });
}

/// The network is cut and later restored. While it is cut, deadlines and TCP_USER_TIMEOUT end waits
/// that would otherwise last for minutes or forever. After it is restored, writes on half-open
/// connections fail.
#[test]
fn deadlines_end_operations_behind_cut_network() {
    process("weather::deadlines_end_operations_behind_cut_network", 60, 60, || {
        let Some(link) = Link::new(Weather::default(), 77) else { return };
        let (listener, address) = link.listen();
        let (clients, servers): (Vec<_>, Vec<_>) = link.here.run(move || {
            park_on(async {
                let mut pairs = Vec::new();
                for _ in 0..8 {
                    let client = TcpStream::connect(address).await.unwrap();
                    pairs.push((client, listener.accept().await.unwrap().0));
                }
                // The listener stays open, so that only the cut network keeps later dials from
                // being answered.
                std::mem::forget(listener);
                pairs.into_iter().unzip()
            })
        });
        park_on(async {
            for (client, server) in clients.iter().zip(&servers) {
                let (pinged, ()) = futures::join!(ping(client, b"whole"), async {
                    let mut buf = [0; 5];
                    crate::common::read_exact(server, &mut buf).await.unwrap();
                    server.write_all(&buf).await.unwrap();
                });
                pinged.unwrap();
            }
        });
        link.cut.store(true, Ordering::Relaxed);
        let most = Duration::from_millis(600);
        let reads = park_on(join_all(servers.iter().map(|server| async move {
            let due = Instant::now() + most;
            server.set_read_deadline(due).unwrap();
            let error = server.read(&mut [0; 8]).await.unwrap_err();
            assert!(is_timeout(&error) && Instant::now() >= due, "{error}");
            due.elapsed()
        })));
        // Half of the clients write until the buffer is full and a write deadline ends the write.
        // The others get the kernel's error.
        let writes = park_on(join_all(clients.iter().enumerate().map(|(n, client)| async move {
            let begin = Instant::now();
            if n % 2 == 0 {
                client.set_write_deadline(begin + most).unwrap();
            } else {
                client.set_user_timeout(Some(most)).unwrap();
            }
            let chunk = vec![1; 64 << 10];
            let error = loop {
                if let Err(error) = client.write_all(&chunk).await {
                    break error;
                }
            };
            if n % 2 == 0 {
                assert!(is_timeout(&error) && begin.elapsed() >= most, "{error}");
            } else {
                assert_eq!(raw_os_error(&error), Some(libc::ETIMEDOUT), "{error}");
            }
            begin.elapsed()
        })));
        let dial = link.here.run(move || {
            let begin = Instant::now();
            let error = park_on(TcpStream::connect_timeout(&address, most)).unwrap_err();
            assert!(is_timeout(&error) && begin.elapsed() >= most, "{error}");
            begin.elapsed() - most
        });
        // All packets of the clients are lost, so the servers' ends are half-open.
        drop(clients);
        task::block_on(task::sleep(Duration::from_millis(50)));
        link.cut.store(false, Ordering::Relaxed);
        let told = park_on(join_all(servers.iter().map(|server| async move {
            server.set_read_deadline(None).unwrap();
            let write = async {
                let mut result = Ok(());
                while result.is_ok() {
                    result = server.write_all(b"are you there?").await;
                    task::sleep(Duration::from_millis(5)).await;
                }
                result
            };
            // The error is a reset, or the kernel's timeout for unacknowledged data. If the orderly
            // end of the stream comes before the reset, the error is a broken pipe.
            let error = future::timeout(Duration::from_secs(120), write).await.expect("an error in time").unwrap_err();
            matches!(error.raw_os_error(), Some(libc::ECONNRESET | libc::EPIPE | libc::ETIMEDOUT))
        })));
        assert!(told.iter().all(|&told| told), "{told:?}");
        let late = reads.into_iter().max().unwrap();
        limit("a read's deadline behind a cut network", late, Duration::from_secs(1));
        limit("a dial's deadline behind a cut network", dial, Duration::from_secs(1));
        let longest = writes.into_iter().max().unwrap();
        figure(
            "10",
            format_args!(
                "half-open: {} reads at most {late:.1?} late, writes ended after {longest:.1?} at most, \
                 dial {dial:.1?} late, writes after the cut fail",
                servers.len()
            ),
        );
    });
}

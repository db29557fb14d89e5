//! An echo server and a thousand clients in one process, on loopback: first at full speed, then at
//! 10,000 requests per second.
//!
//! Run it with `cargo run --release --example quickstart`; append ` -- 200 1` for 200 clients and 1
//! second per phase. At full speed every client queues behind all others, so the latency is the
//! number of clients divided by the throughput. The second phase shows the latency of a request by
//! itself.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use netpoll::net::{TcpListener, TcpStream};
use netpoll::{io, prelude::*, rt, task, time::Sleep};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const PHASES: [&str; 2] = ["full speed", "10,000 per second"];
/// An index of `PHASES`; after the last phase the clients end.
static PHASE: AtomicUsize = AtomicUsize::new(0);
static CONNECTED: AtomicU64 = AtomicU64::new(0);
static REQUESTS: AtomicU64 = AtomicU64::new(0);

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1).map_while(|arg| arg.parse::<u64>().ok());
    let clients = limit(args.next().unwrap_or(1000).clamp(1, 1_000_000));
    task::block_on(run(clients, Duration::from_secs(args.next().unwrap_or(3))))
}

async fn run(clients: u64, length: Duration) -> io::Result<()> {
    println!("{clients} clients, 64 bytes each way, {} workers", rt::metrics().workers);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    drop(task::spawn(serve(listener)));
    let clients: Vec<_> = (0..clients).map(|_| task::spawn(client(addr, clients))).collect();
    let rates = [watch(0, length).await, watch(1, length).await];
    let mut requests = Vec::new();
    for client in clients {
        requests.append(&mut client.await?);
    }
    requests.sort_unstable();
    println!("\n{:16}{:>12}{:>12}{:>12}{:>12}", "", "requests/s", "p50", "p99", "p99.9");
    for requests in requests.chunk_by(|a, b| a.0 == b.0) {
        let (name, rate) = (PHASES[requests[0].0], rates[requests[0].0]);
        let [p50, p99, p999] = [500, 990, 999].map(|rank| requests[requests.len() * rank / 1000].1);
        println!("{name:16}{rate:>12.0}{p50:>12.1?}{p99:>12.1?}{p999:>12.1?}");
    }
    Ok(())
}

async fn serve(listener: TcpListener) {
    let mut incoming = listener.incoming();
    while let Some(Ok(stream)) = incoming.next().await {
        drop(task::spawn(async move {
            let mut buf = [0; 4096];
            loop {
                // Idle clients are dropped after a minute. Moving a deadline later costs one atomic
                // swap.
                stream.set_read_deadline(Instant::now() + Duration::from_secs(60))?;
                match stream.read(&mut buf).await? {
                    0 => return io::Result::Ok(()),
                    count => stream.write_all(&buf[..count]).await?,
                }
            }
        }));
    }
}

/// Sends requests until the phases are over. Returns the phase and the latency of each.
async fn client(addr: SocketAddr, clients: u64) -> io::Result<Vec<(usize, Duration)>> {
    let stream = TcpStream::connect(addr).await?;
    let number = CONNECTED.fetch_add(1, Relaxed);
    // In the second phase the clients are spread evenly over a common period.
    let (pause, mut next) = (Duration::from_micros(100 * clients), None);
    let (mut requests, mut buf) = (Vec::new(), [0; 64]);
    while let phase @ 0..=1 = PHASE.load(Relaxed) {
        if phase == 1 {
            let next = next.get_or_insert_with(|| Instant::now() + Duration::from_micros(100 * number));
            Sleep::until(*next).await;
            *next += pause;
        }
        let begin = Instant::now();
        stream.write_all(&buf).await?;
        (&stream).read_exact(&mut buf).await?;
        requests.push((phase, begin.elapsed()));
        REQUESTS.fetch_add(1, Relaxed);
    }
    Ok(requests)
}

/// Shows the progress of a phase: on one line of a terminal, otherwise one line per second. Returns
/// the requests per second.
async fn watch(phase: usize, length: Duration) -> f64 {
    let live = std::io::stdout().is_terminal();
    let pause = length.min(Duration::from_millis(if live { 100 } else { 1000 }));
    let (begin, before) = (Instant::now(), REQUESTS.load(Relaxed));
    loop {
        task::sleep(pause).await;
        let (seconds, connected) = (begin.elapsed().as_secs_f64(), CONNECTED.load(Relaxed));
        let rate = (REQUESTS.load(Relaxed) - before) as f64 / seconds;
        let over = seconds >= length.as_secs_f64();
        let end = if live && !over { '\r' } else { '\n' };
        print!("{:16}{seconds:>5.1} s{connected:>7} connected{rate:>12.0} requests/s{end}", PHASES[phase]);
        let _ = std::io::stdout().flush();
        if over {
            PHASE.store(phase + 1, Relaxed);
            return rate;
        }
    }
}

/// Each client needs two descriptors. Raises the limit of open files accordingly, or returns a
/// smaller number of clients.
fn limit(clients: u64) -> u64 {
    let (needed, limit) = (2 * clients + 64, getrlimit(Resource::Nofile));
    let allowed = limit.maximum.map_or(needed, |most| most.min(needed));
    if limit.current.is_some_and(|current| current < allowed) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), ..limit }).expect("up to the maximum is allowed");
    }
    let fewer = clients.min(allowed.saturating_sub(64) / 2).max(1);
    if fewer < clients {
        println!("{allowed} open files (ulimit -Hn) are too few for {clients} clients");
    }
    fewer
}

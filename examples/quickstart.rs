//! An echo server and a thousand clients in one process, on loopback: first as fast as they can, then at 10,000 requests a second.
//!
//! ```text
//! cargo run --release --example quickstart
//! cargo run --release --example quickstart -- 200 1     # clients, seconds a phase
//! ```
//!
//! At full speed every client queues behind all others, so a request takes the number of clients over the throughput. The second
//! phase shows what one takes while the machine keeps up.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use netpoll::net::{TcpListener, TcpStream};
use netpoll::prelude::*;
use netpoll::{io, rt, task};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const MESSAGE_BYTES: usize = 64;
const PACED_PER_SECOND: u64 = 10_000;
const PHASES: [&str; 2] = ["full speed", "10,000 a second"];

/// What the clients share.
#[derive(Default)]
struct Shared {
    /// An index of `PHASES`; beyond them the clients end.
    phase: AtomicU8,
    connected: AtomicU64,
    requests: AtomicU64,
}

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1).map_while(|arg| arg.parse::<u64>().ok());
    let clients = limit(args.next().unwrap_or(1000).max(1));
    let length = Duration::from_secs(args.next().unwrap_or(3));
    task::block_on(run(clients, length))
}

async fn run(clients: u64, length: Duration) -> io::Result<()> {
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").await?);
    let addr = listener.local_addr()?;
    let server = task::spawn(serve(listener.clone()));
    let shared = Arc::new(Shared::default());
    println!("{clients} clients, {MESSAGE_BYTES} bytes each way, {} workers", rt::metrics().workers);
    let clients: Vec<_> = (0..clients).map(|_| task::spawn(client(addr, clients, shared.clone()))).collect();

    let mut rates = Vec::new();
    for phase in PHASES {
        rates.push(watch(phase, &shared, length).await);
        shared.phase.fetch_add(1, Relaxed);
    }
    let mut latencies = [Vec::new(), Vec::new()];
    for client in clients {
        for (all, one) in latencies.iter_mut().zip(client.await?) {
            all.extend(one);
        }
    }
    listener.close().await?;
    server.await;

    println!("\n{:16}{:>12}{:>12}{:>12}{:>12}", "", "requests/s", "p50", "p99", "p99.9");
    for ((phase, rate), latencies) in PHASES.iter().zip(rates).zip(&mut latencies) {
        latencies.sort_unstable();
        let rank = |share: f64| latencies.get((latencies.len() as f64 * share) as usize).copied().unwrap_or_default();
        println!("{phase:16}{rate:>12.0}{:>12.1?}{:>12.1?}{:>12.1?}", rank(0.5), rank(0.99), rank(0.999));
    }
    Ok(())
}

/// Serves every connection until the listener is closed.
async fn serve(listener: Arc<TcpListener>) {
    let mut incoming = listener.incoming();
    while let Some(Ok(stream)) = incoming.next().await {
        drop(task::spawn(async move {
            let mut buf = [0; 4096];
            loop {
                // An idle client is dropped after a minute. To move a deadline costs one atomic swap.
                stream.set_read_deadline(Instant::now() + Duration::from_secs(60))?;
                match stream.read(&mut buf).await? {
                    0 => return io::Result::Ok(()),
                    count => stream.write_all(&buf[..count]).await?,
                }
            }
        }));
    }
}

/// Sends requests until the phases are over. Returns how long each took, by phase.
async fn client(addr: SocketAddr, clients: u64, shared: Arc<Shared>) -> io::Result<[Vec<Duration>; 2]> {
    let stream = TcpStream::connect(addr).await?;
    let number = shared.connected.fetch_add(1, Relaxed);
    let pause = Duration::from_nanos(1_000_000_000 * clients / PACED_PER_SECOND);
    let mut next = None;
    let mut latencies = [Vec::new(), Vec::new()];
    let mut buf = [0; MESSAGE_BYTES];
    loop {
        let phase = shared.phase.load(Relaxed) as usize;
        if phase == PHASES.len() {
            return Ok(latencies);
        }
        if phase == 1 {
            // Evenly spread: each client has its own moment in the common pause.
            let at =
                next.map_or_else(|| Instant::now() + pause.mul_f64(number as f64 / clients as f64), |at| at + pause);
            next = Some(at);
            netpoll::time::Sleep::until(at).await;
        }
        let begin = Instant::now();
        stream.write_all(&buf).await?;
        (&stream).read_exact(&mut buf).await?;
        latencies[phase].push(begin.elapsed());
        shared.requests.fetch_add(1, Relaxed);
    }
}

/// Shows the progress of a phase: on one line of a terminal, else a line a second. Returns the requests a second.
async fn watch(phase: &str, shared: &Shared, length: Duration) -> f64 {
    let live = std::io::stdout().is_terminal();
    let (begin, before) = (Instant::now(), shared.requests.load(Relaxed));
    loop {
        task::sleep(if live { length.min(Duration::from_millis(100)) } else { length.min(Duration::from_secs(1)) })
            .await;
        let (elapsed, connected) = (begin.elapsed(), shared.connected.load(Relaxed));
        let rate = (shared.requests.load(Relaxed) - before) as f64 / elapsed.as_secs_f64();
        let line = format!("{phase:16}{:>5.1} s{connected:>7} connected{rate:>12.0} requests/s", elapsed.as_secs_f64());
        print!("{}{line}{}", if live { "\r" } else { "" }, if live { "" } else { "\n" });
        // A reader of the output that has gone is no reason to stop.
        let _ = std::io::stdout().flush();
        if elapsed >= length {
            if live {
                println!();
            }
            return rate;
        }
    }
}

/// Each client takes two descriptors, its own and the server's: raises the limit of open files to what is needed, or lowers the number of
/// clients to what is allowed.
fn limit(clients: u64) -> u64 {
    const OTHERS: u64 = 64;
    let (needed, limit) = (2 * clients + OTHERS, getrlimit(Resource::Nofile));
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= needed);
    if enough(limit.current) {
        return clients;
    }
    let wanted = if enough(limit.maximum) { Some(needed) } else { limit.maximum };
    let raised = setrlimit(Resource::Nofile, Rlimit { current: wanted, maximum: limit.maximum });
    let allowed = if raised.is_ok() { wanted } else { limit.current }.unwrap_or(u64::MAX);
    let fewer = clients.min(allowed.saturating_sub(OTHERS) / 2).max(1);
    if fewer < clients {
        println!("the limit of {allowed} open files (ulimit -Hn) leaves room for {fewer} clients of {clients}");
    }
    fewer
}

//! An echo server and a thousand clients in one process, on loopback. In the first phase the
//! clients send 10,000 requests per second in total, and in the second phase as many as possible.
//!
//! ```text
//! cargo run --release --example quickstart             # 1,000 clients, 3 seconds per phase
//! cargo run --release --example quickstart -- 200 1    # 200 clients, 1 second per phase
//! ```
//!
//! The first phase shows the latency of a request. In the second phase every client sends its next
//! request as soon as it has the response to the previous one. A request then waits behind those of
//! all other clients, so the mean latency is the number of clients divided by the throughput. If
//! necessary, the program raises its soft limit of open files.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use netpoll::net::{TcpListener, TcpStream};
use netpoll::{io, prelude::*, rt, task, time::Sleep};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const PHASES: [&str; 2] = ["10,000 per second", "full speed"];
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
    let connecting: Vec<_> = (0..clients).map(|_| task::spawn(TcpStream::connect(addr))).collect();
    let mut streams = Vec::new();
    for stream in connecting {
        streams.push(stream.await?);
    }
    println!("{} connected", streams.len());
    let start = Instant::now();
    let ends = [start + length, start + 2 * length];
    let clients: Vec<_> = (0..).zip(streams).map(|(number, s)| task::spawn(client(s, number, clients, ends))).collect();
    let rates = [watch(0, ends[0]).await, watch(1, ends[1]).await];
    let mut requests = Vec::new();
    for client in clients {
        requests.append(&mut client.await?);
    }
    requests.sort_unstable();
    println!("\n{:18}{:>12}{:>12}{:>12}{:>12}", "", "requests/s", "p50", "p99", "p99.9");
    for requests in requests.chunk_by(|a, b| a.0 == b.0) {
        let (name, rate) = (PHASES[requests[0].0], rates[requests[0].0]);
        let [p50, p99, p999] = [500, 990, 999].map(|rank| requests[requests.len() * rank / 1000].1);
        println!("{name:18}{rate:>12.0}{p50:>12.1?}{p99:>12.1?}{p999:>12.1?}");
    }
    Ok(())
}

async fn serve(listener: TcpListener) {
    let mut incoming = listener.incoming();
    while let Some(Ok(stream)) = incoming.next().await {
        drop(task::spawn(async move {
            let mut buf = [0; 4096];
            loop {
                // Drops a client that is idle for a minute. Moving the deadline to a later time
                // costs one atomic swap.
                stream.set_read_deadline(Instant::now() + Duration::from_secs(60))?;
                match stream.read(&mut buf).await? {
                    0 => return io::Result::Ok(()),
                    count => stream.write_all(&buf[..count]).await?,
                }
            }
        }));
    }
}

/// Sends requests until both phases are over. Returns the phase and the duration of each request.
async fn client(
    stream: TcpStream,
    number: u64,
    clients: u64,
    ends: [Instant; 2],
) -> io::Result<Vec<(usize, Duration)>> {
    // In the first phase all clients have the same period, and each has its own offset.
    let period = Duration::from_micros(100 * clients);
    let mut next = Instant::now() + Duration::from_micros(100 * number);
    let (mut requests, mut buf) = (Vec::new(), [0; 64]);
    loop {
        let mut begin = Instant::now();
        if begin >= ends[1] {
            return Ok(requests);
        }
        let phase = usize::from(begin >= ends[0]);
        if phase == 0 {
            Sleep::until(next.min(ends[0])).await;
            if next >= ends[0] {
                continue;
            }
            // The duration of a request that is sent late is counted from its scheduled time.
            begin = next;
            next += period;
        }
        stream.write_all(&buf).await?;
        (&stream).read_exact(&mut buf).await?;
        requests.push((phase, begin.elapsed()));
        REQUESTS.fetch_add(1, Relaxed);
    }
}

/// Shows the progress of a phase: on one line if the output is a terminal, otherwise with one line
/// per second. Returns the requests per second.
async fn watch(phase: usize, end: Instant) -> f64 {
    let live = std::io::stdout().is_terminal();
    let pause = Duration::from_millis(if live { 100 } else { 1000 });
    let (begin, before) = (Instant::now(), REQUESTS.load(Relaxed));
    loop {
        Sleep::until(end.min(Instant::now() + pause)).await;
        let seconds = begin.elapsed().as_secs_f64();
        let rate = (REQUESTS.load(Relaxed) - before) as f64 / seconds;
        let over = Instant::now() >= end;
        let line_end = if live && !over { '\r' } else { '\n' };
        print!("{:18}{seconds:>5.1} s{rate:>12.0} requests/s{line_end}", PHASES[phase]);
        let _ = std::io::stdout().flush();
        if over {
            return rate;
        }
    }
}

/// Raises the soft limit of open files to two per client and 64 more, but not above the hard limit.
/// Returns the number of clients for which the limit is sufficient, at most `clients`. Returns 1 if
/// the limit is not sufficient for one client.
fn limit(clients: u64) -> u64 {
    let (needed, limit) = (2 * clients + 64, getrlimit(Resource::Nofile));
    let allowed = limit.maximum.map_or(needed, |most| most.min(needed));
    if limit.current.is_some_and(|current| current < allowed) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), ..limit }).expect("at most the hard limit");
    }
    let fewer = clients.min(allowed.saturating_sub(64) / 2).max(1);
    if fewer < clients {
        println!("{allowed} open files (ulimit -Hn) are too few for {clients} clients");
    }
    fewer
}

//! Snapshots of many sockets and tasks, beside an echo: `inspect [--sockets 16000] [--tasks 0] [--seconds 3]`.
//!
//! `--tasks N` adds N tasks that are always pending, and prints the time and memory that snapshots of them and their JSON take, limited
//! as the server's answers are, and without a limit.
//! Half of the sockets are clients and half were accepted; a task waits to read from each. Prints the CPU time of the first snapshot
//! and of later ones, with and without addresses, and how long an echo takes while another thread takes snapshots in a loop and while none
//! does. The client of the echo is a thread with a socket of the standard library.

use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use netpoll::net::{TcpListener, TcpStream};
use netpoll::{rt, task};
use netpoll_bench::arguments::Arguments;
use netpoll_bench::histogram::Histogram;
use netpoll_bench::{procfs, sys};

/// Opens `count` sockets, each with a task that waits to read.
async fn open(count: usize) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    for _ in 0..count / 2 {
        let client = TcpStream::connect(address).await?;
        let (server, _) = listener.accept().await?;
        for stream in [client, server] {
            drop(task::spawn(async move { stream.read(&mut [0; 8]).await }));
        }
    }
    // Keeps the listener.
    drop(task::spawn(async move { listener.accept().await.map(drop) }));
    Ok(())
}

/// An echo server; returns its address.
async fn echo() -> io::Result<std::net::SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    drop(task::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(task::spawn(async move {
                let mut buf = [0; 64];
                while let Ok(count @ 1..) = stream.read(&mut buf).await {
                    if stream.write_all(&buf[..count]).await.is_err() {
                        break;
                    }
                }
            }));
        }
    }));
    Ok(address)
}

/// Sends requests one after the other for as long as `time`, one every 200 us, and records how long each took.
fn load(address: std::net::SocketAddr, time: Duration) -> io::Result<Histogram> {
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let (mut histogram, mut buf) = (Histogram::default(), [7; 64]);
    let begin = Instant::now();
    while begin.elapsed() < time {
        let sent = Instant::now();
        stream.write_all(&buf)?;
        stream.read_exact(&mut buf)?;
        histogram.record(sent.elapsed().as_nanos() as u64);
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(histogram)
}

fn print(title: &str, histogram: &Histogram) {
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|quantile| histogram.quantile(quantile) as f64 / 1e6);
    println!(
        "{title}: {} requests, p50 {p50:.3} ms, p99 {p99:.3} ms, p99.9 {p999:.3} ms, largest {:.3} ms",
        histogram.len(),
        histogram.largest() as f64 / 1e6
    );
}

/// Prints what a snapshot with `tasks` more tasks takes.
fn many(tasks: usize) {
    // A task that nothing can wake lives as long as its handle.
    let _handles: Vec<_> = (0..tasks).map(|_| task::spawn(std::future::pending::<()>())).collect();
    let resident = || procfs::snapshot(std::process::id()).map_or(0, |process| process.rss_anon_bytes >> 20);
    let limited = |after: Option<&rt::Snapshot>| {
        let (before, begin) = (resident(), Instant::now());
        let settings = rt::Inspect::new().tcp(true).max_tasks(100_000);
        let snapshot = after.map_or(settings, |after| settings.after(after)).take();
        let taken = begin.elapsed();
        let json = snapshot.to_json();
        println!(
            "{} tasks of {} as the server takes them: {} ms, with JSON of {} MiB {} ms and {} MiB",
            snapshot.tasks.len(),
            snapshot.tasks.len() + snapshot.more_tasks,
            taken.as_millis(),
            json.len() >> 20,
            begin.elapsed().as_millis(),
            resident().saturating_sub(before)
        );
        snapshot
    };
    let first = limited(None);
    drop(limited(Some(&first)));
    let (before, begin) = (resident(), Instant::now());
    let snapshot = rt::inspect();
    let taken = begin.elapsed();
    let with_snapshot = resident();
    let json = snapshot.to_json();
    println!(
        "{} tasks: snapshot in {} ms and {} MiB; JSON of {} MiB in {} ms",
        snapshot.tasks.len(),
        taken.as_millis(),
        with_snapshot.saturating_sub(before),
        json.len() >> 20,
        (begin.elapsed() - taken).as_millis()
    );
}

fn run(sockets: usize, tasks: usize, seconds: u64) -> io::Result<()> {
    sys::raise_descriptor_limit()?;
    task::block_on(open(sockets))?;
    let address = task::block_on(echo())?;
    let timed = |settings: rt::Inspect| {
        let begin = sys::thread_cpu_ns().unwrap_or(0);
        let snapshot = settings.take();
        ((sys::thread_cpu_ns().unwrap_or(0) - begin) as f64 / 1e6, snapshot)
    };
    let without = timed(rt::Inspect::new().addresses(false)).0;
    let (first, snapshot) = timed(rt::Inspect::new());
    println!("{} tasks, {} sockets", snapshot.tasks.len(), snapshot.sockets.len());
    println!("CPU of the first snapshot: {without:.1} ms without addresses, {first:.1} ms with them");
    let mut later: Vec<f64> = (0..21).map(|_| timed(rt::Inspect::new()).0).collect();
    later.sort_by(f64::total_cmp);
    println!("CPU of later ones: median {:.1} ms, least {:.1}, most {:.1}", later[10], later[0], later[20]);
    let time = Duration::from_secs(seconds);
    print("echo alone", &load(address, time)?);
    let stop = Arc::new(AtomicBool::new(false));
    let looks = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                drop(rt::inspect());
                count += 1;
            }
            count
        }
    });
    print("echo beside snapshots", &load(address, time)?);
    stop.store(true, Ordering::Relaxed);
    println!("{} snapshots", looks.join().unwrap_or(0));
    // The same load on the processor, without snapshots: what the machine adds.
    let stop = Arc::new(AtomicBool::new(false));
    let spins = std::thread::spawn({
        let stop = stop.clone();
        move || while !stop.load(Ordering::Relaxed) {}
    });
    print("echo beside a busy thread", &load(address, time)?);
    stop.store(true, Ordering::Relaxed);
    drop(spins.join());
    if tasks > 0 {
        many(tasks);
    }
    Ok(())
}

fn try_main() -> Result<(), String> {
    let mut arguments = Arguments::from_env(&[])?;
    let (sockets, seconds) = (arguments.value("sockets", 16_000)?, arguments.value("seconds", 3)?);
    let tasks = arguments.value("tasks", 0)?;
    arguments.finish()?;
    run(sockets, tasks, seconds).map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    match try_main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("inspect: {error}");
            ExitCode::FAILURE
        }
    }
}

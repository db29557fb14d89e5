//! Measures the delay of health checks with and without the control lane.
//!
//! ```text
//! lanes [--rounds 10] [--checks 300] [--connections 1000] [--hogs 4] [--turn-us 300] [--workers 1]
//! ```
//!
//! The process has `--connections` saturating connections. For each, a task writes to one end of a
//! pair of Unix sockets and reads from the other end in a loop, so that the task uses up each of
//! its turns. `--hogs` further tasks have turns of `--turn-us` microseconds. The runtime has
//! `--workers` workers.
//!
//! The main thread makes health checks over TCP, with a pause of 1 ms before each. Every second
//! check uses a new connection. A round consists of three periods: one of `--checks` milliseconds
//! without checks, one with `--checks` checks that tasks of the lane `Normal` serve, and one with
//! as many checks that tasks of the lane `Control` serve.
//!
//! The program prints a Markdown table with the delay of the checks and the throughput of the
//! saturating connections for each kind of period, and the number of turns of control tasks. If it
//! fails, it prints the error to standard error and exits with status 1.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream as Blocking};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use netpoll::net::{self, TcpListener, TcpStream};
use netpoll::os::unix::net::UnixStream;
use netpoll::rt::{self, Lane};
use netpoll::task;
use netpoll_bench::arguments::Arguments;
use netpoll_bench::histogram::Histogram;
use netpoll_bench::sys;

/// The number of bytes that a saturating connection writes at a time.
const MESSAGE: usize = 1024;

fn main() -> ExitCode {
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The delays of the checks in one kind of period, and the number of messages of the saturating
/// connections in these periods.
#[derive(Default)]
struct Kind {
    delays: Histogram,
    messages: u64,
    seconds: f64,
}

impl Kind {
    /// Prints a row of the table.
    fn print(&self, name: &str) {
        let rate = self.messages as f64 / self.seconds / 1e3;
        let ms = |quantile| self.delays.quantile(quantile) as f64 / 1e6;
        if self.delays.is_empty() {
            println!("| {name} | – | – | – | {rate:.0} |");
        } else {
            let largest = self.delays.largest() as f64 / 1e6;
            println!("| {name} | {:.3} | {:.3} | {largest:.3} | {rate:.0} |", ms(0.5), ms(0.99));
        }
    }
}

fn measure() -> Result<(), String> {
    let mut arguments = Arguments::from_env(&[])?;
    let rounds: usize = arguments.value("rounds", 10)?;
    let checks: usize = arguments.value("checks", 300)?;
    let connections: usize = arguments.value("connections", 1000)?;
    let hogs: usize = arguments.value("hogs", 4)?;
    let turn = Duration::from_micros(arguments.value("turn-us", 300)?);
    let workers: usize = arguments.value("workers", 1)?;
    arguments.finish()?;
    let text = |error: io::Error| error.to_string();
    sys::raise_descriptor_limit().map_err(text)?;
    rt::Builder::new().workers(workers).spare_workers(0).start().map_err(text)?;
    let carried = Arc::new(AtomicU64::new(0));
    for _ in 0..connections {
        drop(task::spawn(saturate(carried.clone())));
    }
    for _ in 0..hogs {
        drop(task::spawn(async move {
            loop {
                let begun = Instant::now();
                while begun.elapsed() < turn {}
                task::yield_now().await;
            }
        }));
    }
    thread::sleep(Duration::from_millis(200));
    let mut kinds = [Kind::default(), Kind::default(), Kind::default()];
    for _ in 0..rounds {
        let [none, normal, control] = &mut kinds;
        observe(none, &carried, |_| {
            thread::sleep(Duration::from_millis(checks as u64));
            Ok(())
        })
        .map_err(text)?;
        for (kind, lane) in [(normal, Lane::Normal), (control, Lane::Control)] {
            let (address, server) = serve(lane).map_err(text)?;
            observe(kind, &carried, |delays| visit(address, checks, delays)).map_err(text)?;
            task::block_on(server.cancel());
        }
    }
    println!(
        "{workers} workers, {connections} saturating connections, {hogs} hogs of {turn:?}, {rounds} rounds of {checks} checks"
    );
    println!("| checks | p50 ms | p99 ms | max ms | saturating, 1,000 messages/s |\n|---|---:|---:|---:|---:|");
    for (kind, name) in kinds.iter().zip(["none", "lane Normal", "lane Control"]) {
        kind.print(name);
    }
    let metrics = rt::metrics();
    println!(
        "{} turns of control tasks before other tasks, {} control tasks queued with the others",
        metrics.control_turns, metrics.control_queued
    );
    Ok(())
}

/// Runs a saturating connection, and counts its messages in `carried`.
async fn saturate(carried: Arc<AtomicU64>) -> io::Result<()> {
    let (one, other) = UnixStream::pair()?;
    let (message, mut buffer) = ([7; MESSAGE], [0; MESSAGE]);
    loop {
        one.write_all(&message).await?;
        let mut count = 0;
        while count < MESSAGE {
            count += other.read(&mut buffer).await?;
        }
        carried.fetch_add(1, Ordering::Relaxed);
    }
}

/// Starts a server of health checks in `lane`. Returns its address and its task.
fn serve(lane: Lane) -> io::Result<(SocketAddr, task::JoinHandle<()>)> {
    let listener = task::block_on(TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    let server = task::Builder::new().lane(lane).spawn(async move {
        let answered = net::serve(listener, |stream: TcpStream| async move {
            let mut request = [0; 64];
            while stream.read(&mut request).await.is_ok_and(|count| count > 0) {
                if stream.write_all(b"ok").await.is_err() {
                    break;
                }
            }
        });
        drop(answered.await);
    })?;
    Ok((address, server))
}

/// Calls `checks` and adds the period that it takes to `kind`.
fn observe(
    kind: &mut Kind,
    carried: &AtomicU64,
    checks: impl FnOnce(&mut Histogram) -> io::Result<()>,
) -> io::Result<()> {
    let (begun, before) = (Instant::now(), carried.load(Ordering::Relaxed));
    checks(&mut kind.delays)?;
    kind.messages += carried.load(Ordering::Relaxed) - before;
    kind.seconds += begun.elapsed().as_secs_f64();
    Ok(())
}

/// Makes `checks` checks, every second one over a new connection, and records their delays.
fn visit(address: SocketAddr, checks: usize, delays: &mut Histogram) -> io::Result<()> {
    let mut kept = Blocking::connect(address)?;
    kept.set_nodelay(true)?;
    ask(&mut kept)?;
    for check in 0..checks {
        thread::sleep(Duration::from_millis(1));
        let begun = Instant::now();
        if check % 2 == 0 {
            ask(&mut kept)?;
        } else {
            ask(&mut Blocking::connect(address)?)?;
        }
        delays.record(begun.elapsed().as_nanos() as u64);
    }
    Ok(())
}

/// Makes one check.
fn ask(stream: &mut Blocking) -> io::Result<()> {
    stream.write_all(b"health?")?;
    stream.read_exact(&mut [0; 2])
}

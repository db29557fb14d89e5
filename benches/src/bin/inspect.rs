//! Measures snapshots of many sockets and tasks (`rt::inspect`), and their effect on an echo.
//!
//! ```text
//! inspect [--sockets 16000] [--tasks 0] [--seconds 3]
//! ```
//!
//! Half of the sockets are clients and half were accepted. For each, a task waits to read. The
//! program prints the CPU time and the page faults of the first snapshot, and the CPU time of later
//! ones.
//!
//! It then prints the durations of echoes while another thread takes snapshots in a loop, only
//! computes, or sleeps. Each case takes `--seconds` in total. The three cases alternate every
//! 100 ms, so that the machine's load is the same for each. The client of the echo is the main
//! thread, with a socket of the standard library. Each echo has two durations: by the clock, and
//! without the time for which a thread of the process was runnable but had no CPU (schedstat),
//! because other processes cause such waits too.
//!
//! With `--tasks N`, the program finally adds N tasks that are always pending, and prints the time
//! and the memory that snapshots of them take together with their conversion to JSON. These are
//! snapshots of at most 100,000 tasks, as the inspection server takes them, and one of all tasks.
//!
//! If the program fails, it prints the error to standard error and exits with status 1.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use netpoll::net::{TcpListener, TcpStream};
use netpoll::{rt, task};
use netpoll_bench::arguments::Arguments;
use netpoll_bench::histogram::Histogram;
use netpoll_bench::{procfs, sys};

/// Opens a listener and `count` sockets, each with a task that waits to read. An odd `count` is
/// rounded down.
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
    // The task keeps the listener open.
    drop(task::spawn(async move { listener.accept().await.map(drop) }));
    Ok(())
}

/// Starts an echo server. Returns its address.
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

/// The schedstat files of the threads of this process, which contain the time for which a thread
/// was runnable but had no CPU.
struct Waiting(Vec<File>);

impl Waiting {
    /// Opens the files of the threads that exist now.
    fn new() -> io::Result<Waiting> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir("/proc/self/task")? {
            files.push(File::open(entry?.path().join("schedstat"))?);
        }
        Ok(Waiting(files))
    }

    /// Returns the sum of the times for which the threads have waited for a CPU, in nanoseconds.
    fn nanos(&self) -> u64 {
        let of = |file: &File| {
            let mut buf = [0; 96];
            let count = file.read_at(&mut buf, 0).ok()?;
            std::str::from_utf8(&buf[..count]).ok()?.split(' ').nth(1)?.parse::<u64>().ok()
        };
        self.0.iter().filter_map(of).sum()
    }
}

/// The durations of echoes.
#[derive(Default)]
struct Times {
    /// The durations by the clock.
    clock: Histogram,
    /// The durations without the time for which a thread waited for a CPU.
    own: Histogram,
    /// The number of durations in `own` above 1 ms.
    late: u64,
}

/// Sends requests for `time`, with a pause of 200 µs after each echo, and records the duration of
/// each echo.
fn load(stream: &mut std::net::TcpStream, waiting: &Waiting, time: Duration, times: &mut Times) -> io::Result<()> {
    let mut buf = [7; 64];
    let begin = Instant::now();
    while begin.elapsed() < time {
        let waited = waiting.nanos();
        let sent = Instant::now();
        stream.write_all(&buf)?;
        stream.read_exact(&mut buf)?;
        let nanos = sent.elapsed().as_nanos() as u64;
        // If a thread has ended, the sum no longer contains its time, and may be less than before.
        let own = nanos.saturating_sub(waiting.nanos().saturating_sub(waited));
        times.clock.record(nanos);
        times.own.record(own);
        times.late += u64::from(own > 1_000_000);
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

fn print(title: &str, times: &Times) {
    let figures = |histogram: &Histogram| {
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|quantile| histogram.quantile(quantile) as f64 / 1e6);
        format!("p50 {p50:.3} ms, p99 {p99:.3}, p99.9 {p999:.3}, largest {:.3}", histogram.largest() as f64 / 1e6)
    };
    println!("{title}: {} requests; {}", times.clock.len(), figures(&times.clock));
    println!("    without the waits for a CPU: {}; {} over 1 ms", figures(&times.own), times.late);
}

/// The cases in which echoes are measured, each named after the activity of the other thread.
const BESIDE: [&str; 3] = ["snapshots", "a busy thread", "nothing"];

/// Measures echoes in the cases of [`BESIDE`], for `time` in each.
fn echoes(address: std::net::SocketAddr, time: Duration) -> io::Result<()> {
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let waiting = Waiting::new()?;
    let (turn, stop, taken) = (AtomicUsize::new(2), AtomicBool::new(false), AtomicU64::new(0));
    let mut times = [Times::default(), Times::default(), Times::default()];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                match turn.load(Ordering::Relaxed) {
                    0 => {
                        drop(rt::inspect());
                        taken.fetch_add(1, Ordering::Relaxed);
                    }
                    1 => {}
                    _ => std::thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        let result = (0..3 * time.as_millis().div_ceil(100)).try_for_each(|round| {
            let kind = (round % 3) as usize;
            turn.store(kind, Ordering::Relaxed);
            load(&mut stream, &waiting, Duration::from_millis(100), &mut times[kind])
        });
        stop.store(true, Ordering::Relaxed);
        result
    })?;
    for (beside, times) in BESIDE.iter().zip(&times) {
        print(&format!("echo beside {beside}"), times);
    }
    println!("{} snapshots beside echoes", taken.load(Ordering::Relaxed));
    Ok(())
}

/// Prints the cost of snapshots with `tasks` additional tasks.
fn many(tasks: usize) {
    let _handles: Vec<_> = (0..tasks).map(|_| task::spawn(std::future::pending::<()>())).collect();
    let resident = || procfs::snapshot(std::process::id()).map_or(0, |process| process.rss_anon_bytes >> 20);
    let limited = |after: Option<&rt::Snapshot>| {
        let (before, begin) = (resident(), Instant::now());
        let settings = rt::Inspect::new().tcp(true).max_tasks(100_000);
        let snapshot = after.map_or(settings, |after| settings.after(after)).take();
        let taken = begin.elapsed();
        let json = snapshot.to_json();
        println!(
            "{} of {} tasks, as the inspection server takes them: snapshot in {} ms; with JSON of {} MiB, {} ms and {} MiB of memory",
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
        let (begin, faults) = (sys::thread_cpu_ns().unwrap_or(0), sys::thread_faults());
        let snapshot = settings.take();
        let cpu = (sys::thread_cpu_ns().unwrap_or(0) - begin) as f64 / 1e6;
        (cpu, sys::thread_faults() - faults, snapshot)
    };
    let (cpu, faults, snapshot) = timed(rt::Inspect::new());
    println!("{} tasks, {} sockets", snapshot.tasks.len(), snapshot.sockets.len());
    let count = |has: fn(&rt::SocketInfo) -> bool| snapshot.sockets.iter().filter(|socket| has(socket)).count();
    let (locals, peers) = (count(|socket| socket.local().is_some()), count(|socket| socket.peer().is_some()));
    println!("CPU of the first snapshot: {cpu:.1} ms, {faults} page faults; {locals} local and {peers} peer addresses");
    let mut later: Vec<f64> = (0..21).map(|_| timed(rt::Inspect::new()).0).collect();
    later.sort_by(f64::total_cmp);
    println!("CPU of later snapshots: median {:.1} ms, least {:.1}, most {:.1}", later[10], later[0], later[20]);
    drop(snapshot);
    echoes(address, Duration::from_secs(seconds))?;
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

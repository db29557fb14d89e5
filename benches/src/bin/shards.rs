//! Measures registrations with the poller while another process reads /proc/PID/fdinfo.
//!
//! ```text
//! shards [--shards 1,2,4] [--sockets 50000] [--seconds 3]
//! ```
//!
//! When the fdinfo of an epoll instance is read, the kernel holds the lock of the instance while it
//! lists the registered descriptors. epoll_ctl(2) and the close of a registered descriptor wait for
//! this lock. With several shards there are several instances, each with a part of the descriptors.
//!
//! The program makes a measurement for each number in `--shards`, in separate processes if there
//! are several numbers. The measuring process has two workers. It opens `--sockets` Unix sockets,
//! or 256 fewer than the hard limit RLIMIT_NOFILE if that is less, and registers them. They stay
//! idle. The process then times the first wait on a new socket, which registers the socket,
//! together with the close of the socket. There are three cases: without other activity, while
//! another process reads the fdinfo of one instance in a loop, and while it reads those of all
//! instances in turn. The cases alternate every 100 ms, and each takes `--seconds` in total. The
//! time for which the registering thread was runnable but had no CPU (schedstat) is subtracted.
//!
//! If the program fails, it prints the error to standard error and exits with status 1.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::pin::pin;
use std::process::{Child, Command, ExitCode, Stdio};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use netpoll::os::unix::net::UnixStream;
use netpoll::{rt, task};
use netpoll_bench::arguments::Arguments;
use netpoll_bench::histogram::Histogram;
use netpoll_bench::sys;

/// Polls a read once. The first poll of a read of a socket registers the socket.
fn wait_once(stream: &UnixStream) -> io::Result<()> {
    let mut buf = [0; 8];
    match pin!(stream.read(&mut buf)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => Ok(()),
        Poll::Ready(result) => Err(result.err().unwrap_or_else(|| io::Error::other("the socket is not idle"))),
    }
}

/// Returns the paths of the fdinfo of this process's epoll instances.
fn instances() -> io::Result<Vec<String>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        if std::fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == "anon_inode:[eventpoll]") {
            paths.push(format!("/proc/{}/fdinfo/{}", std::process::id(), entry.file_name().to_string_lossy()));
        }
    }
    paths.sort();
    Ok(paths)
}

/// Reads a file to its end. Returns the number of bytes.
fn read(path: &str) -> io::Result<usize> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)
}

/// Runs the reading process (`shards --reader`). It reads the files whose paths are in the latest
/// line of its input in a loop, until the input ends. It prints `ready` for each line.
fn reader() -> io::Result<()> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in io::stdin().lines() {
            let Ok(line) = line else { return };
            let paths: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            if sender.send(paths).is_err() {
                return;
            }
        }
    });
    let mut paths: Vec<String> = Vec::new();
    loop {
        let next = if paths.is_empty() {
            receiver.recv().map_err(|_| std::sync::mpsc::TryRecvError::Disconnected)
        } else {
            receiver.try_recv()
        };
        match next {
            Ok(next) => {
                paths = next;
                println!("ready");
            }
            Err(std::sync::mpsc::TryRecvError::Empty) => {}
            Err(std::sync::mpsc::TryRecvError::Disconnected) => return Ok(()),
        }
        for path in &paths {
            read(path)?;
        }
    }
}

/// A reading process, which ends when the value is dropped.
struct Reader(Child, BufReader<std::process::ChildStdout>);

impl Reader {
    fn start() -> io::Result<Reader> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg("--reader").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().ok_or_else(|| io::Error::other("no output"))?;
        Ok(Reader(child, BufReader::new(output)))
    }

    /// Makes the process read `paths` in a loop. Returns when the process is about to begin.
    fn set(&mut self, paths: &[String]) -> io::Result<()> {
        let input = self.0.stdin.as_mut().ok_or_else(|| io::Error::other("no input"))?;
        writeln!(input, "{}", paths.join(" "))?;
        self.1.read_line(&mut String::new()).map(drop)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // The process ends when its input ends.
        let _ = self.0.wait();
    }
}

/// Registers and closes sockets for `time`, with a pause of 200 µs after each, and records the
/// durations.
fn register(time: Duration, schedstat: &File, times: &mut Histogram) -> io::Result<()> {
    let waited = || -> io::Result<u64> {
        let mut buf = [0; 96];
        let count = schedstat.read_at(&mut buf, 0)?;
        let text = std::str::from_utf8(&buf[..count]).unwrap_or("");
        text.split(' ').nth(1).and_then(|text| text.parse().ok()).ok_or_else(|| io::Error::other("no schedstat"))
    };
    let begin = Instant::now();
    while begin.elapsed() < time {
        let (stream, _peer) = UnixStream::pair()?;
        let (before, start) = (waited()?, Instant::now());
        wait_once(&stream)?;
        drop(stream);
        let nanos = start.elapsed().as_nanos() as u64;
        times.record(nanos.saturating_sub(waited()? - before));
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// Makes the measurement for a number of shards, in this process.
fn measure(shards: usize, sockets: usize, seconds: u64) -> io::Result<()> {
    let limit = sys::raise_descriptor_limit()?;
    let sockets = sockets.min(usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(256));
    rt::Builder::new().workers(2).poller_shards(shards).start()?;
    let schedstat = File::open("/proc/thread-self/schedstat")?;
    task::block_on(async {
        let mut streams = Vec::with_capacity(sockets);
        for _ in 0..sockets / 2 {
            let (one, other) = UnixStream::pair()?;
            for stream in [one, other] {
                wait_once(&stream)?;
                streams.push(stream);
            }
        }
        let instances = instances()?;
        let mut reader = Reader::start()?;
        let length = |path: &String| -> io::Result<f64> {
            let begin = Instant::now();
            read(path)?;
            Ok(begin.elapsed().as_secs_f64() * 1e3)
        };
        let lengths = instances.iter().map(length).collect::<io::Result<Vec<f64>>>()?;
        let lengths: Vec<String> = lengths.iter().map(|millis| format!("{millis:.1}")).collect();
        println!("{shards} shards, {sockets} sockets; a read of each fdinfo: {} ms", lengths.join(", "));
        let beside =
            [("nothing", &[][..]), ("a reader of one instance", &instances[..1]), ("a reader of all", &instances[..])];
        let mut times = [Histogram::default(), Histogram::default(), Histogram::default()];
        for round in 0..30 * seconds as usize {
            let kind = round % beside.len();
            reader.set(beside[kind].1)?;
            register(Duration::from_millis(100), &schedstat, &mut times[kind])?;
        }
        for ((beside, _), times) in beside.iter().zip(&times) {
            let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|quantile| times.quantile(quantile) as f64 / 1e3);
            let (count, largest) = (times.len(), times.largest() as f64 / 1e3);
            print!("  beside {beside}: {count} registrations; p50 {p50:.1} µs, p90 {p90:.1}, p99 {p99:.1}, ");
            println!("largest {largest:.1}");
        }
        Ok(())
    })
}

fn try_main() -> Result<(), String> {
    let mut arguments = Arguments::from_env(&["reader"])?;
    if arguments.flag("reader") {
        return reader().map_err(|error| error.to_string());
    }
    let mut shards: Vec<usize> = arguments.list("shards")?;
    let (sockets, seconds) = (arguments.value("sockets", 50_000)?, arguments.value("seconds", 3)?);
    arguments.finish()?;
    if let [shards] = shards[..] {
        return measure(shards, sockets, seconds).map_err(|error| error.to_string());
    }
    if shards.is_empty() {
        shards = vec![1, 2, 4];
    }
    for shards in shards {
        // A process has one runtime, so each number of shards needs a separate process.
        let mut command = Command::new(std::env::current_exe().map_err(|error| error.to_string())?);
        for (name, value) in [("--shards", shards), ("--sockets", sockets), ("--seconds", seconds as usize)] {
            command.args([name, &value.to_string()]);
        }
        let status = command.status().map_err(|error| error.to_string())?;
        if !status.success() {
            return Err(format!("{shards} shards: {status}"));
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    match try_main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shards: {error}");
            ExitCode::FAILURE
        }
    }
}

//! Measures the savings from splice(2) and sendfile(2).
//!
//! ```text
//! proxy [--mib 1024] [--rounds 5]
//! ```
//!
//! A child process forwards a stream from this process back to this process, or sends a file to
//! this process. It uses either `io::copy`, which leaves the bytes in the kernel, or a loop over a
//! buffer of 64 KiB. This process uses blocking sockets and compares every byte that it receives.
//!
//! `--rounds` sets the number of rounds, at least 1. Each round makes a copy in either way, one
//! after the other. Each copy moves `--mib` MiB. The program creates a file of this size in the
//! directory for temporary files, and removes it at its end.
//!
//! The program prints a Markdown table with the median CPU time of the child (user and system), the
//! ratio of the medians, and the largest number of calls in a round that moved bytes to a socket
//! within the kernel. If it fails, it prints the error to standard error and exits with status 1.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, ExitCode, Stdio};
use std::sync::OnceLock;
use std::{env, fs, io, thread};

use netpoll_bench::arguments::Arguments;

/// The cases, each with its name, the child's way in the kernel, and the child's way by a loop.
const CASES: [(&str, &str, &str); 2] = [("stream", "splice", "stream-loop"), ("file", "sendfile", "file-loop")];
/// The size of the buffer of a loop.
const LOOP_BYTES: usize = 64 << 10;

fn main() -> ExitCode {
    let served = env::args().nth(1).filter(|first| first == "serve");
    match if served.is_some() { serve() } else { measure() } {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the block that a stream or file repeats. Its length is a prime number, so that a lost or
/// duplicated piece is detected.
fn block() -> &'static [u8] {
    static BLOCK: OnceLock<Vec<u8>> = OnceLock::new();
    BLOCK.get_or_init(|| (0..1_048_573u32).map(|at| (at ^ at >> 7 ^ at >> 13) as u8).collect())
}

/// Writes `bytes` bytes of repeated blocks.
fn write_pattern(to: &mut impl Write, mut bytes: u64) -> io::Result<()> {
    while bytes > 0 {
        let part = block().len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
        to.write_all(&block()[..part])?;
        bytes -= part as u64;
    }
    Ok(())
}

/// Reads repeated blocks up to the end of the stream and checks all bytes. Returns the number of
/// bytes.
fn check_pattern(from: &mut impl Read) -> io::Result<u64> {
    let (mut buf, mut total) = (vec![0; 1 << 20], 0);
    loop {
        let count = from.read(&mut buf)?;
        if count == 0 {
            return Ok(total);
        }
        let mut read = &buf[..count];
        while !read.is_empty() {
            let at = (total % block().len() as u64) as usize;
            let part = read.len().min(block().len() - at);
            if read[..part] != block()[at..at + part] {
                return Err(io::Error::other(format!("wrong bytes after {total}")));
            }
            total += part as u64;
            read = &read[part..];
        }
    }
}

// ---- the child: `serve WAY TARGET [FILE]` ----

fn serve() -> Result<(), String> {
    let mut args = env::args().skip(2);
    let (way, target) = (args.next().ok_or("a way is required")?, args.next().ok_or("a target is required")?);
    let file = args.next();
    netpoll::task::block_on(carry(&way, &target, file)).map_err(|error| error.to_string())
}

/// Copies a stream or a file to `target`. Prints the address for the sender of a stream, and at the
/// end the CPU time and the number of calls in the kernel.
async fn carry(way: &str, target: &str, file: Option<String>) -> io::Result<()> {
    use netpoll::io::AssertAsync;
    let target: SocketAddr = target.parse().map_err(io::Error::other)?;
    let mut to = netpoll::net::TcpStream::connect(target).await?;
    let (mut source, mut file) = match file {
        Some(path) => (None, Some(fs::File::open(path)?)),
        None => {
            let listener = netpoll::net::TcpListener::bind("127.0.0.1:0").await?;
            println!("{}", listener.local_addr()?);
            (Some(listener.accept().await?.0), None)
        }
    };
    let before = cpu_seconds()?;
    let mut buf = vec![0; LOOP_BYTES];
    match (way, &mut source, &mut file) {
        ("splice", Some(from), _) => drop(netpoll::io::copy(from, &mut to).await?),
        ("sendfile", _, Some(file)) => drop(netpoll::io::copy(&mut AssertAsync::new(file), &mut to).await?),
        ("stream-loop", Some(from), _) => loop {
            match from.read(&mut buf).await? {
                0 => break,
                count => to.write_all(&buf[..count]).await?,
            }
        },
        ("file-loop", _, Some(file)) => loop {
            match file.read(&mut buf)? {
                0 => break,
                count => to.write_all(&buf[..count]).await?,
            }
        },
        _ => return Err(io::Error::other("unknown way")),
    }
    println!("{} {}", cpu_seconds()? - before, netpoll::rt::metrics().kernel_copies);
    Ok(())
}

/// Returns the user and system CPU time of this process in seconds.
fn cpu_seconds() -> io::Result<f64> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` is valid for the call.
    if unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all bits zero is a valid rusage, and the call has filled it in.
    let usage = unsafe { usage.assume_init() };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Ok(seconds(usage.ru_utime) + seconds(usage.ru_stime))
}

// ---- the parent ----

fn measure() -> Result<(), String> {
    let mut arguments = Arguments::from_env(&[])?;
    let bytes = arguments.value("mib", 1024u64)? << 20;
    let rounds = arguments.value("rounds", 5usize)?.max(1);
    arguments.finish()?;
    let text = |error: io::Error| error.to_string();
    let path = env::temp_dir().join(format!("netpoll-proxy-{}", std::process::id()));
    let mut file = fs::File::create_new(&path).map_err(text)?;
    let measured = write_pattern(&mut file, bytes).map_err(text).and_then(|()| {
        // The file was just written. Unless memory is scarce, it is in the page cache, so neither
        // way waits for the disk.
        rounds_of(bytes, rounds, &path.to_string_lossy()).map_err(text)
    });
    fs::remove_file(path).map_err(text)?;
    measured
}

/// Runs all rounds of all cases, and prints the table.
fn rounds_of(bytes: u64, rounds: usize, file: &str) -> io::Result<()> {
    println!(
        "CPU seconds of a process that copies {} MiB (in brackets: GiB per CPU second), as medians over {rounds} rounds. \
         The receiver compares every byte. `calls` is the number of calls that moved bytes within the kernel, the \
         largest of all rounds.\n\n\
         | | in the kernel | calls | loop of {} KiB | speed-up |\n|---|---:|---:|---:|---:|",
        bytes >> 20,
        LOOP_BYTES >> 10
    );
    for (name, kernel, by_loop) in CASES {
        let file = (name == "file").then_some(file);
        let (mut seconds, mut copies) = ([Vec::new(), Vec::new()], 0);
        for _ in 0..rounds {
            for (way, seconds) in [kernel, by_loop].into_iter().zip(&mut seconds) {
                let (cpu, calls) = once(way, bytes, file)?;
                seconds.push(cpu);
                copies = copies.max(calls);
            }
        }
        let [fast, slow] = seconds.map(|mut seconds| {
            seconds.sort_by(f64::total_cmp);
            seconds[seconds.len() / 2]
        });
        let rate = |seconds: f64| bytes as f64 / seconds / f64::from(1 << 30);
        println!(
            "| {name}, {kernel} | {fast:.3} ({:.1}) | {copies} | {slow:.3} ({:.1}) | {:.2} |",
            rate(fast),
            rate(slow),
            slow / fast
        );
    }
    Ok(())
}

/// Makes one copy in a child process. Returns the CPU time of the child in seconds, and the number
/// of calls that moved bytes to a socket within the kernel.
fn once(way: &str, bytes: u64, file: Option<&str>) -> io::Result<(f64, u64)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let target = listener.local_addr()?.to_string();
    let mut child = Command::new(env::current_exe()?)
        .args(["serve", way, &target])
        .args(file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or_else(|| io::Error::other("no output"))?).lines();
    let receiver = thread::spawn(move || check_pattern(&mut listener.accept()?.0));
    let mut line = || lines.next().unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()));
    if file.is_none() {
        let mut to = TcpStream::connect(line()?)?;
        write_pattern(&mut to, bytes)?;
        to.shutdown(Shutdown::Write)?;
    }
    let result = line()?;
    child.wait()?;
    let received = receiver.join().map_err(|_| io::Error::other("the receiver panicked"))??;
    let parsed = result.split_once(' ').and_then(|(cpu, calls)| Some((cpu.parse().ok()?, calls.parse().ok()?)));
    parsed
        .filter(|_| received == bytes)
        .ok_or_else(|| io::Error::other(format!("{way}: {received} of {bytes} bytes, {result}")))
}

//! Measures the savings from gathered writes.
//!
//! ```text
//! cork [--rounds 5] [--batches 3000] [--members 1000]
//! ```
//!
//! There are two kinds of cases. In a pipeline, 8 connections each have a number of requests in
//! flight, which is the depth. A request has 6 bytes and an answer 7. In a chat, one connection
//! sends batches of ten lines, and the server sends each line to all members; a "request" is one
//! line for one member.
//!
//! The server is a child process, and writes in one of three ways:
//!
//! - `plain`: one `write_all` per answer or line.
//! - `corked`: the same with the option `auto_cork`, which gathers the writes.
//! - `by hand` (only in pipelines): one `write_all` per read, of all answers together.
//!
//! Both processes are pinned to the last CPU that this program may use, under SCHED_BATCH, so the
//! server runs while the generator waits. The generator checks every answer. Each round runs all
//! ways of a case.
//!
//! `--rounds` sets the number of rounds, at least 1. `--batches` sets the number of batches per
//! connection that are measured in a round at depths 1 and 10. Half as many are measured at depth
//! 100, and one 200th as many in the chat. `--members` sets the number of members of the chat, at
//! least 1.
//!
//! The program prints a Markdown table with the sends per request, the requests per second, the
//! server's CPU time per request, and the ratios of the last two to `plain`. The ratios are medians
//! of those within the rounds. perf counts the sends in separate runs; without it, the number is
//! `?`. If the program fails, it prints the error to standard error and exits with status 1.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{env, io};

use netpoll::net::{ListenConfig, TcpListener};
use netpoll::{rt, task};
use netpoll_bench::arguments::Arguments;
use netpoll_bench::sys;

const REQUEST: &[u8] = b"PING\r\n";
const ANSWER: &[u8] = b"+PONG\r\n";
/// The number of bytes per line of the chat.
const LINE: usize = 32;
/// The number of lines per batch of the chat.
const LINES: usize = 10;
/// The number of connections of a pipeline.
const CONNECTIONS: usize = 8;
/// The numbers of requests that each connection of a pipeline has in flight.
const DEPTHS: [usize; 3] = [1, 10, 100];
/// The minimum time for which a pipeline runs before it is measured. A process that gathers writes
/// for the first time makes a system call that takes up to some tens of milliseconds. Writes take a
/// lock until this call has returned.
const WARM: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let mut words = env::args().skip(1);
    let ended =
        if words.next().is_some_and(|word| word == "serve") { serve(&words.collect::<Vec<_>>()) } else { measure() };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failed: {error}");
            ExitCode::FAILURE
        }
    }
}

// ---- the child: `serve WAY MEMBERS`, with 0 members for a pipeline ----

fn serve(words: &[String]) -> Result<(), String> {
    let [way, members] = words else { return Err("a way and a number are required".to_owned()) };
    let members: usize = members.parse().map_err(|_| "a number is required")?;
    let ways = ["plain", "corked", "by hand"];
    let way = *ways.iter().find(|known| *known == way).ok_or("unknown way")?;
    let text = |error: io::Error| error.to_string();
    sys::raise_descriptor_limit().map_err(text)?;
    sys::place(Some(cpu()?), true).map_err(text)?;
    rt::Builder::new().workers(1).start().map_err(text)?;
    task::block_on(listen(way, members)).map_err(text)
}

async fn listen(way: &'static str, members: usize) -> io::Result<()> {
    let listener = ListenConfig::new().auto_cork(way == "corked").listen("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    if members > 0 {
        return task::spawn(chat(listener, members)).await;
    }
    loop {
        let (stream, _) = listener.accept().await?;
        drop(task::spawn(answer(stream, way)));
    }
}

/// Answers the requests on a connection of a pipeline.
async fn answer(stream: netpoll::net::TcpStream, way: &str) -> io::Result<()> {
    let (mut buf, mut rest, mut answers) = (vec![0; 16 << 10], 0, Vec::new());
    loop {
        let count = stream.read(&mut buf[rest..]).await?;
        if count == 0 {
            return Ok(());
        }
        let all = rest + count;
        let mut at = 0;
        while all - at >= REQUEST.len() {
            if &buf[at..at + REQUEST.len()] != REQUEST {
                return Err(io::ErrorKind::InvalidData.into());
            }
            at += REQUEST.len();
            if way == "by hand" {
                answers.extend_from_slice(ANSWER);
            } else {
                stream.write_all(ANSWER).await?;
            }
        }
        if !answers.is_empty() {
            stream.write_all(&answers).await?;
            answers.clear();
        }
        buf.copy_within(at..all, 0);
        rest = all - at;
    }
}

/// Accepts the connections of a chat, and sends every line that arrives on the first one to all
/// others.
async fn chat(listener: TcpListener, members: usize) -> io::Result<()> {
    let (speaker, _) = listener.accept().await?;
    let mut all = Vec::new();
    while all.len() < members {
        all.push(listener.accept().await?.0);
    }
    let mut buf = vec![0; LINE * LINES];
    loop {
        let mut got = 0;
        while got < buf.len() {
            match speaker.read(&mut buf[got..]).await? {
                0 => return Ok(()),
                count => got += count,
            }
        }
        for line in buf.chunks(LINE) {
            for member in &all {
                member.write_all(line).await?;
            }
        }
    }
}

// ---- the parent ----

/// Returns the last CPU on which this thread may run. The child inherits the CPU of its parent, so
/// this is the same CPU in both.
fn cpu() -> Result<usize, String> {
    sys::allowed_cpus().map_err(|error| error.to_string())?.pop().ok_or_else(|| "no CPU".to_owned())
}

/// The child process, which ends when the value is dropped.
struct Server {
    child: Child,
    _output: BufReader<ChildStdout>,
    port: u16,
}

impl Server {
    fn start(way: &str, members: usize) -> Result<Server, String> {
        let program = env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.args(["serve", way, &members.to_string()]).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let mut output = BufReader::new(child.stdout.take().ok_or("no output")?);
        let mut line = String::new();
        output.read_line(&mut line).map_err(|error| error.to_string())?;
        let port = line.trim().parse().map_err(|_| format!("no port: {line}"))?;
        Ok(Server { child, _output: output, port })
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let stream = sys::connect(SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.port), 1)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Returns the CPU time of the server in nanoseconds.
    fn cpu(&self) -> io::Result<f64> {
        Ok(sys::process_cpu_ns(self.child.id())? as f64)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The figures of one run: requests per second, and the server's CPU time per request in ns.
#[derive(Clone, Copy)]
struct Figures {
    rate: f64,
    cpu: f64,
}

/// Reads as many bytes as `expected` has, into `buf`, and checks them.
fn read_all(stream: &mut TcpStream, expected: &[u8], buf: &mut [u8]) -> io::Result<()> {
    let buf = &mut buf[..expected.len()];
    stream.read_exact(buf)?;
    if buf == expected { Ok(()) } else { Err(io::Error::other("wrong answers")) }
}

/// Measures a pipeline. Sends at least 50 batches of `depth` requests on each connection, and more
/// until the time `warm` has passed. Then measures `batches` further batches.
fn pipeline(server: &Server, depth: usize, batches: usize, warm: Duration) -> io::Result<Figures> {
    let mut streams = (0..CONNECTIONS).map(|_| server.connect()).collect::<io::Result<Vec<_>>>()?;
    let (requests, answers) = (REQUEST.repeat(depth), ANSWER.repeat(depth));
    let mut buf = vec![0; answers.len()];
    let mut round = || -> io::Result<()> {
        streams.iter_mut().try_for_each(|stream| stream.write_all(&requests))?;
        streams.iter_mut().try_for_each(|stream| read_all(stream, &answers, &mut buf))
    };
    let begun = Instant::now();
    (0..50).try_for_each(|_| round())?;
    while begun.elapsed() < warm {
        round()?;
    }
    let (cpu, start) = (server.cpu()?, Instant::now());
    (0..batches).try_for_each(|_| round())?;
    let requests = (batches * depth * CONNECTIONS) as f64;
    let rate = requests / start.elapsed().as_secs_f64();
    Ok(Figures { rate, cpu: (server.cpu()? - cpu) / requests })
}

/// Measures a chat. Sends 3 batches of lines, and then measures `batches` further batches. A
/// request is one line for one member.
fn fan_out(server: &Server, members: usize, batches: usize) -> io::Result<Figures> {
    let mut speaker = server.connect()?;
    let mut streams = (0..members).map(|_| server.connect()).collect::<io::Result<Vec<_>>>()?;
    let lines: Vec<u8> = (0..LINE * LINES).map(|at| b'a' + (at / LINE) as u8).collect();
    let mut buf = vec![0; lines.len()];
    let mut round = || -> io::Result<()> {
        speaker.write_all(&lines)?;
        streams.iter_mut().try_for_each(|stream| read_all(stream, &lines, &mut buf))
    };
    (0..3).try_for_each(|_| round())?;
    let (cpu, start) = (server.cpu()?, Instant::now());
    (0..batches).try_for_each(|_| round())?;
    let lines = (batches * LINES * members) as f64;
    let rate = lines / start.elapsed().as_secs_f64();
    Ok(Figures { rate, cpu: (server.cpu()? - cpu) / lines })
}

/// Measures a chat if there are `members`, or else a pipeline.
fn run(server: &Server, depth: usize, members: usize, batches: usize, warm: Duration) -> io::Result<Figures> {
    if members > 0 { fan_out(server, members, batches) } else { pipeline(server, depth, batches, warm) }
}

/// Returns the number of sends per request, or `None` if perf does not work.
fn sends(way: &str, depth: usize, members: usize, batches: usize) -> Result<Option<f64>, String> {
    let server = Server::start(way, members)?;
    let text = |error: io::Error| error.to_string();
    let count = |batches: usize| -> Result<Option<f64>, String> {
        let mut perf = Command::new("perf");
        perf.args(["stat", "-x,", "-e", "syscalls:sys_enter_sendto,syscalls:sys_enter_sendmsg", "-p"]);
        perf.arg(server.child.id().to_string()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let Ok(perf) = perf.spawn() else { return Ok(None) };
        std::thread::sleep(Duration::from_millis(500));
        run(&server, depth, members, batches, Duration::ZERO).map_err(text)?;
        sys::interrupt(perf.id());
        let output = perf.wait_with_output().map_err(text)?;
        let output = String::from_utf8_lossy(&output.stderr).into_owned();
        let counts = output.lines().filter(|line| line.contains("sys_enter_send"));
        let counts: Vec<f64> = counts.filter_map(|line| line.split(',').next()?.parse().ok()).collect();
        Ok((counts.len() == 2).then(|| counts.iter().sum()))
    };
    if members > 0 {
        // The count includes the first 3 batches of the chat, which `fan_out` does not measure.
        return Ok(count(batches)?.map(|sends| sends / ((batches + 3) * LINES * members) as f64));
    }
    let (Some(short), Some(long)) = (count(10)?, count(10 + batches)?) else { return Ok(None) };
    Ok(Some((long - short) / (batches * depth * CONNECTIONS) as f64))
}

/// Returns the median, or the upper of the two middle values if their number is even.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn measure() -> Result<(), String> {
    let mut arguments = Arguments::from_env(&[])?;
    let rounds = arguments.value("rounds", 5usize)?.max(1);
    let batches = arguments.value("batches", 3000usize)?.max(1);
    let members = arguments.value("members", 1000usize)?.max(1);
    arguments.finish()?;
    let text = |error: io::Error| error.to_string();
    sys::raise_descriptor_limit().map_err(text)?;
    sys::place(Some(cpu()?), true).map_err(text)?;
    println!("| case | way | sends/request | requests/s | server CPU, ns/request | throughput | CPU |");
    println!("|---|---|---|---|---|---|---|");
    let cases = DEPTHS.map(|depth| (format!("depth {depth}"), depth, 0, &["plain", "corked", "by hand"][..]));
    let chat = (format!("chat of {members}"), 0, members, &["plain", "corked"][..]);
    for (name, depth, members, ways) in cases.into_iter().chain([chat]) {
        let batches = if members > 0 { batches.div_ceil(200) } else { batches.div_ceil(depth.div_ceil(50)) };
        let mut all = vec![Vec::new(); ways.len()];
        for _ in 0..rounds {
            for (way, figures) in ways.iter().zip(&mut all) {
                let server = Server::start(way, members)?;
                figures.push(run(&server, depth, members, batches, WARM).map_err(text)?);
            }
        }
        for (index, way) in ways.iter().enumerate() {
            let of = |value: fn(&Figures) -> f64| median(all[index].iter().map(value).collect());
            let ratio = |value: fn(&Figures) -> f64| {
                median(all[index].iter().zip(&all[0]).map(|(one, plain)| value(one) / value(plain)).collect())
            };
            let sends = sends(way, depth, members, batches.min(300))?;
            let sends = sends.map_or("?".to_owned(), |sends| format!("{sends:.3}"));
            println!(
                "| {name} | {way} | {sends} | {:.0} | {:.0} | {:.2} × | {:.2} × |",
                of(|figures| figures.rate),
                of(|figures| figures.cpu),
                ratio(|figures| figures.rate),
                ratio(|figures| figures.cpu),
            );
        }
    }
    Ok(())
}

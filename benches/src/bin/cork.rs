//! Measures the savings from gathered writes: `cork [--rounds 5] [--batches 3000] [--members 1000]`.
//!
//! A child process answers requests of 6 bytes ("PING") with 7 bytes each, on 8 connections that have a number of requests (the depth) in
//! flight. It answers in one of three ways: with one `write_all` per answer (plain), with one `write_all` per answer and `set_auto_cork`,
//! or with one `write_all` per read, gathered by hand. It also sends each of ten lines per read to all members of a chat, plain and
//! gathered. Both processes are pinned to one CPU under SCHED_BATCH, so the server runs while the generator waits. Every answer is
//! checked. The ways alternate within a round. The output is the number of sends (`perf stat`, in separate runs), the requests per second
//! and the server's CPU time, the last two also as ratios to the plain way.

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
const LINE: usize = 32;
const LINES: usize = 10;
const CONNECTIONS: usize = 8;
const DEPTHS: [usize; 3] = [1, 10, 100];
/// The minimum time for which a pipeline runs before it is measured. A process that gathers writes for the first time makes a system call that
/// takes up to some tens of milliseconds, after which writes take no lock.
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

// ---- the child: serve WAY MEMBERS ----

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

/// Sends every line of the first connection to all others.
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

/// Returns the last CPU on which this thread may run. The child inherits the affinity of its parent, so both get the same CPU.
fn cpu() -> Result<usize, String> {
    sys::allowed_cpus().map_err(|error| error.to_string())?.pop().ok_or_else(|| "no CPU".to_owned())
}

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

fn read_all(stream: &mut TcpStream, expected: &[u8], buf: &mut [u8]) -> io::Result<()> {
    let buf = &mut buf[..expected.len()];
    stream.read_exact(buf)?;
    if buf == expected { Ok(()) } else { Err(io::Error::other("wrong answers")) }
}

/// Sends `batches` batches of `depth` requests on each connection, after at least 50 batches and the time `warm`, and checks the
/// answers.
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

/// Sends `batches` batches of lines to all members, after 3 batches that are not measured. The figures are per line and member.
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

fn run(server: &Server, depth: usize, members: usize, batches: usize, warm: Duration) -> io::Result<Figures> {
    if members > 0 { fan_out(server, members, batches) } else { pipeline(server, depth, batches, warm) }
}

/// Returns the number of sends per request, counted by `perf stat` in separate runs, or `None` if perf does not work.
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
        // The count covers the whole run of a chat, which includes its 3 warm-up batches.
        return Ok(count(batches)?.map(|sends| sends / ((batches + 3) * LINES * members) as f64));
    }
    let (Some(short), Some(long)) = (count(10)?, count(10 + batches)?) else { return Ok(None) };
    Ok(Some((long - short) / (batches * depth * CONNECTIONS) as f64))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn measure() -> Result<(), String> {
    let mut arguments = Arguments::from_env(&[])?;
    let rounds = arguments.value("rounds", 5usize)?;
    let batches = arguments.value("batches", 3000usize)?;
    let members = arguments.value("members", 1000usize)?;
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

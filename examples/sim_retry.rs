//! Simulates clients that reconnect with backoff and a deadline, and shows a thundering herd.
//!
//! ```text
//! cargo run --release --features sim --example sim_retry
//! ```
//!
//! A hundred clients are connected to a server that crashes and restarts. Each client reconnects
//! with exponential backoff. Without jitter all clients connect at the same times, so the server
//! gets a hundred connections within milliseconds. With jitter the attempts are spread out. The
//! program runs three seeds, each without and with jitter, and prints the largest number of
//! connections within 10 ms. A run of less than a minute of virtual time takes a fraction of a
//! second, and the same seed repeats a run exactly.

use std::io;
use std::time::{Duration, Instant};

use netpoll::net::{TcpListener, TcpStream};
use netpoll::sim::{Builder, Sim, ms};
use netpoll::{future, task};

const CLIENTS: usize = 100;
/// The time between the crash and the restart of the server.
const OUTAGE: Duration = Duration::from_secs(20);

/// Connects to `addr`, with at most one second per attempt. Retries until `deadline`. The pauses
/// between the attempts double from 100 ms to 10 s, and each is multiplied by the result of
/// `jitter`.
async fn connect_with_retries(addr: &str, deadline: Instant, jitter: impl Fn() -> f64) -> io::Result<TcpStream> {
    let mut backoff = ms(100);
    loop {
        let error = match future::timeout(ms(1000), TcpStream::connect(addr)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        let pause = backoff.mul_f64(jitter());
        if Instant::now() + pause > deadline {
            return Err(error);
        }
        task::sleep(pause).await;
        backoff = (backoff * 2).min(ms(10_000));
    }
}

/// Accepts connections, and keeps each open until its client closes it.
async fn serve(sim: Sim) -> io::Result<()> {
    let listener = TcpListener::bind("0.0.0.0:80").await?;
    loop {
        let (stream, _) = listener.accept().await?;
        sim.note("accepted");
        task::spawn(async move { stream.read(&mut [0; 1]).await });
    }
}

/// Returns the largest number of connections that the restarted server accepted within 10 ms.
async fn herd(sim: Sim, with_jitter: bool) -> usize {
    sim.keep_log();
    let server = sim.host("server");
    server.spawn(move || serve(sim));
    sim.link("*", "*").latency(ms(1)..ms(3));
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let jitter = move || if with_jitter { 0.5 + (sim.random() % 1000) as f64 / 1000.0 } else { 1.0 };
        let client = async move {
            let deadline = Instant::now() + Duration::from_secs(120);
            let stream = connect_with_retries("server:80", deadline, jitter).await?;
            // A real client would detect the crash by its next request, by keep-alive, or by the
            // reset after the restart.
            while sim.host("server").is_up() {
                task::sleep(ms(1000)).await;
            }
            drop(stream);
            connect_with_retries("server:80", deadline, jitter).await
        };
        clients.push(sim.host(&format!("client{number}")).spawn_task(client));
    }
    task::sleep(ms(5500)).await;
    server.crash();
    task::sleep(OUTAGE).await;
    server.restart();
    for client in clients {
        client.await.expect("a connection before the deadline");
    }
    let times: Vec<f64> = sim.log().lines().filter(|line| line.ends_with("accepted")).map(seconds).collect();
    let after: Vec<f64> = times.into_iter().filter(|&time| time > 20.0).collect();
    let within = |&begin: &f64| after.iter().filter(|&&time| (begin..begin + 0.01).contains(&time)).count();
    after.iter().map(within).max().unwrap_or_default()
}

fn seconds(line: &str) -> f64 {
    line.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn main() {
    for seed in 0..3 {
        let peak = |with_jitter| Builder::new().seed(seed).run(move |sim| herd(sim, with_jitter)).output;
        let (without, with) = (peak(false), peak(true));
        println!("seed {seed}: connections within 10 ms: {without} without jitter, {with} with jitter");
        assert!(without > 2 * with, "jitter must spread the connections");
    }
}

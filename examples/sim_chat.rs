//! Runs the chat server of `chat.rs`, unchanged, in simulations with losses and a partition.
//!
//! ```text
//! cargo run --release --features sim --example sim_chat           # a thousand seeds
//! cargo run --release --features sim --example sim_chat -- 17     # one seed
//! cargo run --release --features sim --example sim_chat -- 17 chat.svg
//! ```
//!
//! Each simulation has a server and three clients. The network loses packets. Two clients send
//! lines, and the third client is cut off for some time. Afterwards the third client receives the
//! lines of the others, unless its connection fails. It never receives part of a line, nor a line
//! twice. With a seed as the argument, the program runs only this seed and prints a diagram of the
//! packets. With a second argument, it writes the diagram to this file, as SVG, instead.

#[path = "chat.rs"]
mod chat;

use std::io;
use std::time::Instant;

use netpoll::io::BufReader;
use netpoll::net::{TcpListener, TcpStream};
use netpoll::prelude::*;
use netpoll::sim::{Builder, Run, Sim, ms};
use netpoll::{future, task};

const LINES: usize = 20;

/// Sends lines to the server, one every 100 ms.
async fn talk(name: &'static str) -> io::Result<()> {
    let stream = TcpStream::connect("server:7000").await?;
    for number in 0..LINES {
        stream.write_all(format!("{name} {number}\n").as_bytes()).await?;
        task::sleep(ms(100)).await;
    }
    Ok(())
}

/// Receives lines until the connection ends, fails, or is silent for a minute. Returns the lines
/// without the addresses of their senders.
async fn listen() -> Vec<String> {
    let mut heard = Vec::new();
    let Ok(stream) = TcpStream::connect("server:7000").await else { return heard };
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(Ok(line))) = future::timeout(ms(60_000), lines.next()).await {
        heard.extend(line.split_once(": ").map(|(_, said)| said.to_owned()));
    }
    heard
}

async fn chat(sim: Sim) -> usize {
    sim.host("server")
        .spawn(|| async { chat::serve(TcpListener::bind("0.0.0.0:7000").await?, std::future::pending::<()>()).await });
    sim.link("*", "server").latency(ms(1)..ms(20)).loss(0.01);
    let listener = sim.host("listener").spawn_task(listen());
    task::sleep(ms(500)).await;
    let talkers = [sim.host("ann").spawn_task(talk("ann")), sim.host("bob").spawn_task(talk("bob"))];
    task::sleep(ms(500)).await;
    sim.partition("listener", "server");
    task::sleep(ms(sim.random() % 2000)).await;
    sim.heal("listener", "server");
    for talker in talkers {
        talker.await.expect("the talkers are not cut off");
    }
    let heard = listener.await;
    for name in ["ann", "bob"] {
        let lines: Vec<_> =
            heard.iter().filter_map(|line| line.strip_prefix(name)?.trim().parse::<usize>().ok()).collect();
        let first = lines.first().copied().unwrap_or_default();
        assert!(
            lines.iter().copied().eq(first..first + lines.len()),
            "whole lines, none twice, none left out: {lines:?}"
        );
    }
    heard.len()
}

fn main() {
    let only = std::env::args().nth(1).map(|seed| seed.parse().expect("a seed is a number"));
    if let Some(seed) = only {
        let picture = Builder::new().seed(seed).run(async |sim: Sim| {
            sim.keep_log();
            let heard = chat(sim).await;
            (heard, sim.diagram(), sim.diagram_svg())
        });
        let (heard, diagram, svg) = picture.output;
        match std::env::args().nth(2) {
            Some(file) => std::fs::write(file, svg).expect("the file can be written"),
            None => println!("{diagram}"),
        }
        return println!("{heard} lines were heard");
    }
    let begin = Instant::now();
    let (mut heard, mut packets) = (0, 0);
    for seed in 0..1000 {
        let run: Run<usize> = Builder::new().seed(seed).run(chat);
        (heard, packets) = (heard + run.output, packets + run.counters.packets_sent);
    }
    println!("1000 seeds in {:?}: {packets} packets, {heard} lines heard", begin.elapsed());
}

//! Answers health checks quickly while other tasks saturate the worker.
//!
//! ```text
//! cargo run --release --example health                # 500 busy tasks, 100 checks per lane
//! cargo run --release --example health -- 1000 300    # 1,000 busy tasks, 300 checks per lane
//! ```
//!
//! The example shows `rt::Lane::Control`. A task of this lane serves the listener of the health
//! checks, and the tasks of the connections inherit the lane. The checks are served first by tasks
//! of the lane `Normal`, and then by tasks of the lane `Control`. The output shows how long the
//! checks take.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use netpoll::net::{self, TcpListener, TcpStream};
use netpoll::prelude::*;
use netpoll::rt::{self, Lane};
use netpoll::{io, task};

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let mut number = |default| args.next().map_or(Ok(default), |number| number.parse()).map_err(io::Error::other);
    let (busy, checks) = (number(500)?, number(100)?);
    // There is one worker, so that all tasks compete for it.
    rt::Builder::new().workers(1).start()?;
    for _ in 0..busy {
        // A busy task stands for a connection with endless requests, each of which takes 50 µs.
        task::spawn(async {
            loop {
                let begun = Instant::now();
                while begun.elapsed() < Duration::from_micros(50) {}
                task::yield_now().await;
            }
        });
    }
    println!("{checks} health checks beside {busy} busy tasks");
    for lane in [Lane::Normal, Lane::Control] {
        let times = task::block_on(check(lane, checks))?;
        let percentile = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
        println!("lane {lane:?}: p50 {:.1?}, p99 {:.1?}", percentile(50), percentile(99));
    }
    let metrics = rt::metrics();
    println!("{} turns in which a control task ran before others", metrics.control_turns);
    Ok(())
}

/// Serves health checks in `lane`, and makes `checks` of them, at least one. Returns how long each
/// took, in ascending order.
async fn check(lane: Lane, checks: usize) -> io::Result<Vec<Duration>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let server = task::Builder::new().name("health".into()).lane(lane).spawn(async {
        net::serve(listener, |stream: TcpStream| async move { stream.write_all(b"ok").await }).await
    })?;
    // The client runs on the thread of `block_on`, so it does not compete for the worker.
    let mut times = Vec::new();
    for _ in 0..checks.max(1) {
        times.push(visit(addr).await?);
        task::sleep(Duration::from_millis(1)).await;
    }
    server.cancel().await;
    times.sort();
    Ok(times)
}

async fn visit(addr: SocketAddr) -> io::Result<Duration> {
    let begun = Instant::now();
    let mut answer = String::new();
    TcpStream::connect(addr).await?.read_to_string(&mut answer).await?;
    if answer != "ok" {
        return Err(io::Error::other(format!("not healthy: {answer}")));
    }
    Ok(begun.elapsed())
}

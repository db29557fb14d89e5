//! Finds the open TCP ports of a host, with a bounded number of concurrent dials, a timeout per
//! dial and a progress bar.
//!
//! ```text
//! cargo run --release --example port_scan                      # ports around one that it opens
//! cargo run --release --example port_scan -- localhost         # all ports of a host
//! cargo run --release --example port_scan -- localhost 1-1024  # a range of ports, or one port
//! cargo run --release --example port_scan -- localhost 1-1024 100 0.2    # 100 dials, 0.2 s each
//! ```
//!
//! Scan only your own hosts. If the host has several addresses, the program scans the first one. By
//! default it makes 64 dials at a time, each with a timeout of 0.5 s. The example shows how to
//! limit concurrency: a fixed number of tasks share a `Dialer`, and each takes its next port from a
//! counter. The dialer does not set the socket options that a scan does not need.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use netpoll::io::{self, ErrorKind};
use netpoll::net::{Dialer, TcpListener, is_timeout, lookup_host};
use netpoll::task;

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let at_a_time = args.get(2).map_or(Ok(64), |count| count.parse()).map_err(io::Error::other)?;
    let seconds = args.get(3).map_or(Ok(0.5), |seconds| seconds.parse()).map_err(io::Error::other)?;
    let timeout = Duration::try_from_secs_f64(seconds).map_err(io::Error::other)?;
    task::block_on(async {
        // A run without arguments finds this open port.
        let own = TcpListener::bind("127.0.0.1:0").await?;
        let port = own.local_addr()?.port();
        let (host, ports) = match &args[..] {
            [] => ("127.0.0.1", (port.saturating_sub(100), port.saturating_add(100))),
            [host] => (&host[..], (1, u16::MAX)),
            [host, ports, ..] => (&host[..], range(ports)?),
        };
        let ip = lookup_host(host).await?[0];
        scan(ip, ports, at_a_time, timeout).await
    })
}

fn range(text: &str) -> io::Result<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().map_err(io::Error::other)?, last.parse().map_err(io::Error::other)?);
    if first > last {
        return Err(io::Error::new(ErrorKind::InvalidInput, format!("the range {text} has no ports")));
    }
    Ok((first, last))
}

pub(crate) async fn scan(ip: IpAddr, (first, last): (u16, u16), at_a_time: usize, timeout: Duration) -> io::Result<()> {
    let start = Instant::now();
    let count = u32::from(last.saturating_sub(first)) + 1;
    let (next, done) = (Arc::new(AtomicU32::new(first.into())), Arc::new(AtomicU32::new(0)));
    let dialer = Dialer::new().timeout(timeout).defaults(false);
    let workers: Vec<_> = (0..at_a_time.clamp(1, count as usize))
        .map(|_| {
            let (dialer, next, done) = (dialer.clone(), next.clone(), done.clone());
            task::spawn(async move {
                let (mut open, mut silent) = (Vec::new(), 0);
                while let Ok(port) = u16::try_from(next.fetch_add(1, Ordering::Relaxed)) {
                    if port > last {
                        break;
                    }
                    match dialer.dial((ip, port)).await {
                        Ok(_) => open.push(port),
                        Err(error) if is_timeout(&error) => silent += 1,
                        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                        Err(error) => return Err(error),
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Ok((open, silent))
            })
        })
        .collect();
    let bar = task::spawn(async move {
        loop {
            draw(done.load(Ordering::Relaxed), count);
            task::sleep(Duration::from_millis(100)).await;
        }
    });
    let (mut open, mut silent) = (Vec::new(), 0);
    for worker in workers {
        let (ports, without_answer) = worker.await?;
        open.extend(ports);
        silent += without_answer;
    }
    bar.cancel().await;
    draw(count, count);
    eprintln!();
    open.sort_unstable();
    for port in &open {
        println!("{port} is open");
    }
    println!("{} of {count} ports are open, {silent} silent, {:.2?}", open.len(), start.elapsed());
    Ok(())
}

/// Draws the progress bar on standard error, so that standard output has only the results.
fn draw(done: u32, count: u32) {
    const WIDTH: usize = 40;
    let filled = (u64::from(done) * WIDTH as u64 / u64::from(count)) as usize;
    eprint!("\r[{}{}] {done}/{count}", "#".repeat(filled), " ".repeat(WIDTH - filled));
}

//! A server that stops on SIGTERM or Ctrl-C, and loses no request that it can answer within a time
//! limit.
//!
//! ```text
//! cargo run --release --example graceful                          # 127.0.0.1:7000, 5 seconds
//! cargo run --release --example graceful -- 127.0.0.1:8000 0.5    # half a second
//! printf '100\n' | nc -q9 127.0.0.1 7000                          # a response after 100 ms
//! ```
//!
//! The example shows `net::serve` with `signal::termination`. A request is a number of
//! milliseconds, after which the server responds. After the signal the server accepts the
//! connections in the listener's queue (at most 4,096) and no others. After `close_read`, each
//! handler reads the requests that have already arrived, and then end of stream. After the time
//! limit the remaining connections are closed by force, and the report lists them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use netpoll::io::{self, BufReader};
use netpoll::net::{self, TcpListener, TcpStream};
use netpoll::prelude::*;
use netpoll::{signal, task};

/// The maximum length of a request in bytes, including the line terminator. Without a limit, a
/// client could exhaust the memory.
const REQUEST_BYTES_MAX: usize = 32;

/// The numbers of requests read and of responses written.
#[derive(Default)]
struct Count {
    requests: AtomicU64,
    answers: AtomicU64,
}

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let addr = args.next().unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let seconds = args.next().map_or(Ok(5.0), |seconds| seconds.parse()).map_err(io::Error::other)?;
    let drain = Duration::try_from_secs_f64(seconds).map_err(io::Error::other)?;
    task::block_on(run(&addr, drain))
}

async fn run(addr: &str, drain: Duration) -> io::Result<()> {
    let listener = TcpListener::bind(addr).await?;
    let terminated = signal::termination()?;
    println!("listening on {}", listener.local_addr()?);
    let count = Arc::new(Count::default());
    let handler = {
        let count = count.clone();
        move |stream: TcpStream| {
            let count = count.clone();
            async move {
                if let Err(error) = answer(&stream, &count).await {
                    eprintln!("{stream:?}: {error}");
                }
            }
        }
    };
    let stop = async {
        match terminated.await {
            Ok(signal) => println!("{signal}: stopping"),
            Err(error) => eprintln!("no signals: {error}"),
        }
    };
    let server = net::serve(listener, handler).until(stop).drain(drain);
    let report = server.when_stopping(|stream| drop(stream.close_read())).await?;
    println!("{report}");
    let (requests, answers) = (count.requests.load(Ordering::Relaxed), count.answers.load(Ordering::Relaxed));
    println!("{answers} of {requests} requests answered");
    Ok(())
}

async fn answer(stream: &TcpStream, count: &Count) -> io::Result<()> {
    let mut lines = BufReader::new(stream).lines_bounded(REQUEST_BYTES_MAX);
    while let Some(line) = lines.next().await {
        let ms = line?.trim().parse().map_err(io::Error::other)?;
        count.requests.fetch_add(1, Ordering::Relaxed);
        task::sleep(Duration::from_millis(ms)).await;
        stream.write_all(format!("{ms} ms later\n").as_bytes()).await?;
        count.answers.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

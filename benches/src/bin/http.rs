//! Serves HTTP/1 with hyper on netpoll, tokio or smol, or generates the load for such a server.
//! `http.sh` compares the servers.
//!
//! ```text
//! http RUNTIME [BYTES] [timer]
//! http load PORT CONNECTIONS BYTES
//! ```
//!
//! The server listens on a free port of 127.0.0.1, prints `ready PORT`, and serves until it is
//! killed. RUNTIME is `netpoll`, `netpoll-server` (`netpoll_hyper::Server`), `tokio` (its
//! multi-threaded runtime), `tokio-local` (its current-thread runtime) or `smol`. Each has one
//! worker and the same service, whose responses have bodies of BYTES bytes (13 by default). `timer`
//! limits the time for the head of a request to 30 s, by the runtime's timer.
//!
//! `load` is the client, which runs in lock-step for the reason in `src/generator.rs`. It makes one
//! request on each connection and prints `warm`. The bodies of all responses must have BYTES bytes.
//! Then it reads amounts from its input, one per line: a number of rounds, such as `500`, or a
//! time, such as `0.8s`. In each round, it sends a request on all connections and then reads all
//! responses. It prints the number of responses per amount, and exits at the end of its input.
//!
//! If the program fails, it prints the error to standard error and exits with status 1.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::io::{BufRead, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::rt::{Read, Timer, Write};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use netpoll_bench::generator::{Amount, PATIENCE};
use netpoll_bench::sys;

type Answer = Response<Full<Bytes>>;

/// The address that a server binds.
const LOCAL: &str = "127.0.0.1:0";

/// Returns the service that all servers have.
fn service(
    bytes: usize,
) -> impl Service<Request<Incoming>, Response = Answer, Error = Infallible, Future: Send> + Clone + Send {
    let body = Bytes::from(vec![b'x'; bytes]);
    service_fn(move |_: Request<Incoming>| {
        let body = body.clone();
        async move { Ok(Response::new(Full::new(body))) }
    })
}

/// Serves a connection with hyper, on any runtime.
fn connection(
    io: impl Read + Write + Unpin + Send + 'static,
    timer: Option<impl Timer + Send + Sync + 'static>,
    bytes: usize,
) -> impl Future<Output = ()> + Send {
    let mut http1 = http1::Builder::new();
    if let Some(timer) = timer {
        http1.timer(timer).header_read_timeout(Duration::from_secs(30));
    }
    let connection = http1.serve_connection(io, service(bytes));
    async move {
        // The error is ignored, because clients close their connections.
        let _ = connection.await;
    }
}

/// Prints `ready` and the port of `addr`.
fn ready(addr: std::io::Result<std::net::SocketAddr>) -> std::io::Result<()> {
    println!("ready {}", addr?.port());
    Ok(())
}

/// Sends a request.
fn ask(mut stream: &TcpStream) -> std::io::Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// Sends a request and returns the response, which consists of a head and a body of `bytes` bytes.
/// All responses have the same length.
fn first_answer(mut stream: &TcpStream, bytes: usize) -> Result<Vec<u8>, Box<dyn Error>> {
    ask(stream)?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        answer.push(byte[0]);
    }
    let head = answer.len();
    answer.resize(head + bytes, 0);
    stream.read_exact(&mut answer[head..])?;
    Ok(answer)
}

/// Runs the client.
fn load(port: u16, connections: usize, bytes: usize) -> Result<(), Box<dyn Error>> {
    sys::raise_descriptor_limit()?;
    let mut streams = Vec::with_capacity(connections);
    let mut answer = Vec::new();
    for _ in 0..connections {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        answer = first_answer(&stream, bytes)?;
        streams.push(stream);
    }
    println!("warm");
    for line in std::io::stdin().lock().lines() {
        let amount = line?.parse()?;
        let (start, mut rounds) = (Instant::now(), 0);
        while match amount {
            Amount::Requests(wanted) => rounds < wanted,
            Amount::Time(limit) => start.elapsed() < limit,
        } {
            streams.iter().try_for_each(ask)?;
            for mut stream in &streams {
                stream.read_exact(&mut answer)?;
                if !answer.starts_with(b"HTTP/1.1 200 OK\r\n") {
                    return Err(
                        "the status of a response is not 200, or its length is not that of the first response".into()
                    );
                }
            }
            rounds += 1;
        }
        println!("{}", rounds * connections as u64);
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    if let ["load", port, connections, bytes] = args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        return load(port.parse()?, connections.parse()?, bytes.parse()?);
    }
    let bytes = args.get(1).map_or(Ok(13), |bytes| bytes.parse())?;
    let timer = args.get(2).is_some_and(|arg| arg == "timer");
    match args.first().map(String::as_str) {
        Some("netpoll") => {
            netpoll::rt::Builder::new().workers(1).start()?;
            netpoll::task::block_on(async {
                let listener = netpoll::net::TcpListener::bind(LOCAL).await?;
                ready(listener.local_addr())?;
                loop {
                    let (stream, _) = listener.accept().await?;
                    drop(netpoll::task::spawn(connection(
                        netpoll_hyper::Socket::new(stream),
                        timer.then_some(netpoll_hyper::Timer),
                        bytes,
                    )));
                }
            })
        }
        Some("netpoll-server") => {
            netpoll::rt::Builder::new().workers(1).start()?;
            netpoll::task::block_on(async {
                let listener = netpoll::net::TcpListener::bind(LOCAL).await?;
                ready(listener.local_addr())?;
                let mut server = netpoll_hyper::Server::new();
                if !timer {
                    server.header_read_timeout(None);
                }
                Ok(server.serve(listener, service(bytes)).await?)
            })
        }
        Some(name @ ("tokio" | "tokio-local")) => {
            let mut builder = match name {
                "tokio" => tokio::runtime::Builder::new_multi_thread(),
                _ => tokio::runtime::Builder::new_current_thread(),
            };
            builder.worker_threads(1).enable_all().build()?.block_on(async {
                let listener = tokio::net::TcpListener::bind(LOCAL).await?;
                ready(listener.local_addr())?;
                let accept = async move {
                    loop {
                        let (stream, _) = listener.accept().await?;
                        stream.set_nodelay(true)?;
                        let timer = timer.then(hyper_util::rt::TokioTimer::new);
                        tokio::spawn(connection(hyper_util::rt::TokioIo::new(stream), timer, bytes));
                    }
                };
                let accepted: std::io::Result<()> = tokio::spawn(accept).await?;
                Ok(accepted?)
            })
        }
        Some("smol") => {
            let executor = smol::Executor::new();
            smol::block_on(executor.run(async {
                let listener = smol::net::TcpListener::bind(LOCAL).await?;
                ready(listener.local_addr())?;
                loop {
                    let (stream, _) = listener.accept().await?;
                    stream.set_nodelay(true)?;
                    let timer = timer.then(smol_hyper::rt::SmolTimer::new);
                    executor.spawn(connection(smol_hyper::rt::FuturesIo::new(stream), timer, bytes)).detach();
                }
            }))
        }
        _ => {
            Err("usage: http RUNTIME [BYTES] [timer], or http load PORT CONNECTIONS BYTES (see src/bin/http.rs)".into())
        }
    }
}

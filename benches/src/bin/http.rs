//! hyper's HTTP/1 server on netpoll, tokio or smol: the same accept loop and service, one worker. `http.sh` compares them.
//!
//! ```text
//! http RUNTIME [BYTES] [timer]
//! http load PORT CONNECTIONS BYTES
//! ```
//!
//! RUNTIME is `netpoll`, `netpoll-server` (`netpoll_hyper::Server`), `tokio` (its multi-threaded runtime), `tokio-local` (its current-thread
//! runtime) or `smol`. `timer` gives hyper the runtime's timer, and so a limit of 30 s for the head of a request.
//!
//! `load` is the client, in lock-step (src/generator.rs says why): it sends on all connections and then reads from all. It prints `warm`,
//! reads amounts from its input (`500` rounds, or `0.8s`), one per line, and prints the number of answered requests.

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

const LOCAL: &str = "127.0.0.1:0";

fn service(
    bytes: usize,
) -> impl Service<Request<Incoming>, Response = Answer, Error = Infallible, Future: Send> + Clone + Send {
    let body = Bytes::from(vec![b'x'; bytes]);
    service_fn(move |_: Request<Incoming>| {
        let body = body.clone();
        async move { Ok(Response::new(Full::new(body))) }
    })
}

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

fn ready(addr: std::io::Result<std::net::SocketAddr>) -> std::io::Result<()> {
    println!("ready {}", addr?.port());
    Ok(())
}

fn ask(mut stream: &TcpStream) -> std::io::Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// Returns the first answer on a connection: its head and `bytes` bytes of body. All answers have the same length.
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
                    return Err("the status of an answer is not 200, or an answer is not as long as the first".into());
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
        _ => Err("http RUNTIME [BYTES] [timer], or http load PORT CONNECTIONS BYTES: see src/bin/http.rs".into()),
    }
}

//! hyper's HTTP/1 server on netpoll, tokio or smol: the same accept loop and service, one worker. `http.sh` compares them.
//!
//! ```text
//! http RUNTIME [BYTES] [timer]
//! ```
//!
//! RUNTIME is `netpoll`, `netpoll-server` (its own `Server`), `tokio` (its multi-threaded runtime), `tokio-local` (the current-thread one) or
//! `smol`. `timer` gives hyper the runtime's timer, and so its 30 s for the head of a request.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::rt::{Read, Timer, Write};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};

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
        // A client that goes away is no news.
        let _ = connection.await;
    }
}

fn ready(addr: std::io::Result<std::net::SocketAddr>) -> std::io::Result<()> {
    println!("ready {}", addr?.port());
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
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
                    drop(netpoll::task::spawn(connection(stream, timer.then_some(netpoll::hyper::Timer), bytes)));
                }
            })
        }
        Some("netpoll-server") => {
            netpoll::rt::Builder::new().workers(1).start()?;
            netpoll::task::block_on(async {
                let listener = netpoll::net::TcpListener::bind(LOCAL).await?;
                ready(listener.local_addr())?;
                let mut server = netpoll::hyper::Server::new();
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
        _ => Err("http netpoll|netpoll-server|tokio|tokio-local|smol [BYTES] [timer]".into()),
    }
}

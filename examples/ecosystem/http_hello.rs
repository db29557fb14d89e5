//! An HTTP/1 and HTTP/2 server that responds with a greeting.
//!
//! ```text
//! cargo run --release -p netpoll-ecosystem --example http_hello    # 127.0.0.1:8080
//! cargo run --release -p netpoll-ecosystem --example http_hello -- -w 2 127.0.0.1:9090
//! curl http://127.0.0.1:8080/
//! curl --http2-prior-knowledge http://127.0.0.1:8080/
//! wrk -t1 -c64 -d5 http://127.0.0.1:8080/
//! h2load -c64 -m10 -n100000 http://127.0.0.1:8080/
//! ```
//!
//! The example shows `netpoll_hyper::Server` and its graceful shutdown. After Ctrl-C or SIGTERM the
//! server stops accepting connections, and the requests in progress have ten seconds to finish.

use std::convert::Infallible;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use netpoll::net::TcpListener;
use netpoll::{io, rt, signal, task};
use netpoll_hyper::Server;

async fn hello(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from("Hello, World!")))
}

fn main() -> io::Result<()> {
    let mut addr = "127.0.0.1:8080".to_owned();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if arg == "-w" {
            let workers = args.next().unwrap_or_default().parse().map_err(io::Error::other)?;
            rt::Builder::new().workers(workers).start()?;
        } else {
            addr = arg;
        }
    }
    task::block_on(async {
        let listener = TcpListener::bind(addr).await?;
        let stop = signal::termination()?;
        println!("listening on {}", listener.local_addr()?);
        Server::new().serve_until(listener, service_fn(hello), stop).await
    })
}

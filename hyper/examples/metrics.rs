//! Serves the metrics of the program's own runtime over HTTP, for Prometheus.
//!
//! ```text
//! cargo run --release -p netpoll-hyper --example metrics -- [ADDRESS]    # default: 127.0.0.1:9464
//! curl http://127.0.0.1:9464/metrics
//! ```
//!
//! The example shows `rt::openmetrics` and this crate's HTTP server. The program also runs an echo
//! server on a free port of 127.0.0.1, so that clients can create traffic to measure. It prints the
//! addresses of both servers. SIGTERM or Ctrl-C stops the program. `ci/prometheus.sh` collects the
//! metrics with Prometheus.

use std::convert::Infallible;

use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use netpoll::net::{TcpListener, TcpStream};
use netpoll::{io, rt, signal, task};
use netpoll_hyper::Server;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

async fn answer(request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    let mut response = Response::new(String::new());
    if request.uri().path() == "/metrics" {
        response.headers_mut().insert(CONTENT_TYPE, OPENMETRICS.parse().expect("a valid header"));
        *response.body_mut() = rt::openmetrics();
    } else {
        *response.status_mut() = StatusCode::NOT_FOUND;
        *response.body_mut() = "not found: the metrics are at /metrics\n".to_owned();
    }
    Ok(response)
}

async fn echo(stream: TcpStream) -> io::Result<()> {
    io::copy(&mut &stream, &mut &stream).await.map(drop)
}

fn main() -> io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9464".to_owned());
    task::block_on(async {
        let listener = TcpListener::bind(addr).await?;
        let stop = signal::termination()?;
        println!("listening on {}", listener.local_addr()?);
        let echoes = TcpListener::bind("127.0.0.1:0").await?;
        println!("echo on {}", echoes.local_addr()?);
        task::spawn(async move {
            while let Ok((stream, _)) = echoes.accept().await {
                task::spawn(echo(stream));
            }
        });
        Server::new().serve_until(listener, service_fn(answer), stop).await
    })
}

//! Code shared by the tests of `netpoll_hyper` in this directory and in `ecosystem`: a service, a
//! server in a task, handwritten requests, and requests with curl.
#![allow(dead_code, unreachable_pub)]

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use netpoll::net::{TcpListener, TcpStream};
use netpoll::task::{self, JoinHandle};
use netpoll_hyper::{Server, Socket};

use crate::common::{self, read_exact};

/// The length of the response to `/huge`, which is larger than the buffers of a socket.
pub const HUGE: usize = 32 << 20;

/// State shared by the service and the tests.
#[derive(Debug, Default)]
pub struct Seen {
    /// The number of requests that have begun to wait in `/wait`.
    pub waiting: AtomicUsize,
    /// The number of requests to `/wait` that are released.
    pub released: AtomicUsize,
    /// The number of connections for which the closure `connect` was called.
    pub connections: AtomicUsize,
}

pub type Answer = Response<Either<Full<Bytes>, Incoming>>;

/// Responds to a request according to its path.
pub async fn answer(seen: Arc<Seen>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let text = match (request.method(), request.uri().path()) {
        (&Method::POST, "/echo") => return Ok(Response::new(Either::Right(request.into_body()))),
        (_, "/hello") => "hello".to_owned(),
        (_, "/version") => format!("{:?}", request.version()),
        (_, "/large") => "x".repeat(300_000),
        (_, "/huge") => "x".repeat(HUGE),
        (_, "/panic") => panic!("the request is for /panic"),
        (_, "/wait") => {
            let number = seen.waiting.fetch_add(1, Ordering::SeqCst);
            while seen.released.load(Ordering::SeqCst) <= number {
                task::sleep(Duration::from_millis(1)).await;
            }
            "waited".to_owned()
        }
        _ => {
            let mut response = Response::new(Either::Left(Full::default()));
            *response.status_mut() = StatusCode::NOT_FOUND;
            return Ok(response);
        }
    };
    Ok(Response::new(Either::Left(Full::from(text))))
}

/// A server in a task.
pub struct Running {
    pub listener: Arc<TcpListener>,
    pub addr: SocketAddr,
    pub seen: Arc<Seen>,
    /// The handle of the server's task.
    pub end: JoinHandle<io::Result<()>>,
}

/// Starts a server whose service is [`answer`], on a free port of 127.0.0.1.
pub async fn start(server: &mut Server) -> Running {
    let listener = Arc::new(common::listener().await);
    let seen = Arc::new(Seen::default());
    let (server, shared, ours) = (server.clone(), Arc::clone(&seen), Arc::clone(&listener));
    let end = task::spawn(async move {
        let connect = |stream: Socket<TcpStream>| {
            let seen = Arc::clone(&shared);
            async move {
                seen.connections.fetch_add(1, Ordering::SeqCst);
                Ok((stream, service_fn(move |request| answer(Arc::clone(&seen), request))))
            }
        };
        server.serve_with(ours, connect, std::future::pending::<()>()).await
    });
    Running { addr: listener.local_addr().unwrap(), listener, seen, end }
}

impl Running {
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    /// Closes the listener and returns the server's result.
    pub async fn stop(self) -> io::Result<()> {
        self.listener.close().await.unwrap();
        self.end.await
    }
}

/// Calls `attempt` with increasing limits until it returns `Some`, because on a busy machine a
/// request may not arrive within a small limit.
pub async fn with_some_limit(mut attempt: impl AsyncFnMut(Duration) -> Option<()>) {
    let mut limit = Duration::from_millis(100);
    while attempt(limit).await.is_none() {
        assert!(limit < common::BOUND);
        limit *= 2;
    }
}

/// Sends a GET request without a body.
pub async fn send(stream: &TcpStream, path: &str) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n").as_bytes()).await.unwrap();
}

/// Receives one response on a keep-alive connection. Returns its head and its body.
pub async fn receive(stream: &TcpStream) -> io::Result<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        read_exact(stream, &mut byte).await?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    let mut body = vec![0; length.parse().unwrap()];
    read_exact(stream, &mut body).await?;
    Ok((head, body))
}

/// Sends a GET request and receives the response. Returns its head and its body.
pub async fn get(stream: &TcpStream, path: &str) -> io::Result<(String, Vec<u8>)> {
    send(stream, path).await;
    receive(stream).await
}

/// Sends a GET request and returns the body of the response.
pub async fn get_body(stream: &TcpStream, path: &str) -> Vec<u8> {
    get(stream, path).await.unwrap().1
}

/// Asserts that a server responds to each request with the address of the peer.
pub async fn assert_peers_are_known(addr: SocketAddr) {
    for _ in 0..3 {
        let stream = TcpStream::connect(addr).await.unwrap();
        let own = stream.local_addr().unwrap().to_string();
        assert_eq!(get_body(&stream, "/").await, own.as_bytes());
        assert_eq!(get_body(&stream, "/").await, own.as_bytes());
    }
    if let Some(output) = curl(vec![format!("http://{addr}/")]).await {
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.parse::<SocketAddr>().is_ok_and(|peer| peer.ip() == addr.ip()), "{text}");
    }
}

/// Asserts that the server responds to `/hello`.
pub async fn assert_hello(stream: &TcpStream) {
    let (head, body) = get(stream, "/hello").await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert_eq!(body, b"hello");
}

/// Runs curl with `args`. Returns `None` if curl is not installed.
pub async fn curl(args: Vec<String>) -> Option<Output> {
    let output = task::spawn_blocking(move || {
        let mut command = Command::new("curl");
        common::output(command.args(["--silent", "--show-error", "--max-time", "60"]).args(args))
    });
    match output.await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            eprintln!("skipped: curl is not installed");
            None
        }
        output => Some(output.unwrap()),
    }
}

//! Tests of tower services on `netpoll_hyper::Server`: an axum `Router` over HTTP/1, HTTP/2 and
//! Unix sockets, one service per connection, services that are not ready immediately, and errors.

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../hyper/tests/serving/mod.rs"]
mod serving;

use std::convert::Infallible;
use std::future::{Ready, pending, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::{Extension, Path, State};
use axum::routing::{get, post};
use axum::{Router, body::Body};
use common::{becomes, run};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use netpoll::net::TcpStream;
use netpoll::prelude::*;
use netpoll::unix::{UnixListener, UnixStream};
use netpoll::{io, task};
use netpoll_hyper::{Executor, Server, Socket, Tower, serve_tower};
use serving::{assert_peers_are_known, get_body, receive, send};
use tower_service::Service;

async fn hello(Path(name): Path<String>) -> String {
    task::sleep(Duration::from_millis(1)).await;
    format!("Hello, {name}!")
}

async fn shout(State(mark): State<&'static str>, text: String) -> String {
    format!("{}{mark}", text.to_uppercase())
}

fn app() -> Router {
    Router::new().route("/hello/{name}", get(hello)).route("/shout", post(shout)).with_state("!")
}

#[test]
fn axum_router_is_served_over_http1_and_http2() {
    run(async {
        let listener = Arc::new(common::listener().await);
        let addr = listener.local_addr().unwrap();
        let server = task::spawn(serve_tower(Arc::clone(&listener), app()));
        let stream = TcpStream::connect(addr).await.unwrap();
        for _ in 0..10 {
            assert_eq!(get_body(&stream, "/hello/you").await, b"Hello, you!");
        }
        stream.write_all(b"POST /shout HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\ntext").await.unwrap();
        assert_eq!(receive(&stream).await.unwrap().1, b"TEXT!");
        send(&stream, "/nowhere").await;
        assert!(receive(&stream).await.unwrap().0.starts_with("HTTP/1.1 404"));

        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(Executor, Socket::new(TcpStream::connect(addr).await.unwrap()))
                .await
                .unwrap();
        let connection = task::spawn(connection);
        for (path, body, answer) in [("hello/h2", "", "Hello, h2!"), ("shout", "text", "TEXT!")] {
            let request = Request::builder().uri(format!("http://h/{path}"));
            let request = request.method(if body.is_empty() { "GET" } else { "POST" });
            let response = sender.send_request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), answer);
        }
        listener.close().await.unwrap();
        server.await.unwrap();
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
        drop(sender);
        connection.await.unwrap();
    });
}

#[test]
fn axum_router_is_served_over_unix_sockets_with_settings() {
    run(async {
        let path = std::env::temp_dir().join(format!("netpoll-tower-{}.sock", std::process::id()));
        let listener = Arc::new(UnixListener::bind(&path).await.unwrap());
        let mut settings = Server::new();
        settings.max_connections(2).http1().keep_alive(false);
        let server = task::spawn({
            let listener = Arc::clone(&listener);
            async move { settings.serve_tower(listener, app()).await }
        });
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(b"GET /hello/unix HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK") && text.ends_with("Hello, unix!"), "{text}");
        listener.close().await.unwrap();
        server.await.unwrap();
    });
}

/// A make service: returns a service for each connection, as axum's
/// `IntoMakeServiceWithConnectInfo` does.
#[derive(Clone)]
struct WithPeer(Router);

impl Service<SocketAddr> for WithPeer {
    type Response = Router;
    type Error = Infallible;
    type Future = Ready<Result<Router, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, peer: SocketAddr) -> Self::Future {
        ready(Ok(self.0.clone().layer(Extension(peer))))
    }
}

#[test]
fn make_service_gets_the_peer_of_each_connection() {
    run(async {
        let listener = common::listener().await;
        let addr = listener.local_addr().unwrap();
        let whoami = async |Extension(peer): Extension<SocketAddr>| peer.to_string();
        let app = WithPeer(Router::new().route("/", get(whoami)));
        Server::new().serve_make_tower(listener, app, assert_peers_are_known(addr)).await.unwrap();
    });
}

/// The hook is called with the error of a make service that fails, of a malformed request, and of a
/// request head that is not complete in time.
#[test]
fn hook_is_called_with_errors_of_connections() {
    #[derive(Clone)]
    struct Refusing;
    impl Service<SocketAddr> for Refusing {
        type Response = Router;
        type Error = io::Error;
        type Future = Ready<io::Result<Router>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, _: SocketAddr) -> Self::Future {
            ready(Err(io::Error::other("not you")))
        }
    }
    run(async {
        let (failed, failures) = std::sync::mpsc::channel();
        let mut server = Server::new();
        server.on_error(move |error| {
            let _ = failed.send(error.to_string());
        });

        let listener = common::listener().await;
        let addr = listener.local_addr().unwrap();
        let stop = async {
            let stream = TcpStream::connect(addr).await.unwrap();
            assert!(!matches!(stream.read(&mut [0; 1]).await, Ok(1..)));
        };
        server.serve_make_tower(listener, Refusing, stop).await.unwrap();
        assert_eq!(failures.try_recv().unwrap(), "not you");

        let listener = common::listener().await;
        let addr = listener.local_addr().unwrap();
        let stop = async {
            let mut stream = TcpStream::connect(addr).await.unwrap();
            stream.write_all(b"GET\r\n\r\n").await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
            // A client that closes its connection between requests causes no error.
            let stream = TcpStream::connect(addr).await.unwrap();
            assert_eq!(get_body(&stream, "/hello/you").await, b"Hello, you!");
            drop(stream);
        };
        server.serve_tower_until(listener, app(), stop).await.unwrap();
        let texts: Vec<_> = failures.try_iter().collect();
        assert!(texts.len() == 1 && texts[0].contains("invalid HTTP"), "{texts:?}");

        server.header_read_timeout(Duration::from_millis(20));
        let listener = common::listener().await;
        let addr = listener.local_addr().unwrap();
        let stop = async {
            let mut stream = TcpStream::connect(addr).await.unwrap();
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: ").await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        };
        server.serve_tower_until(listener, app(), stop).await.unwrap();
        let texts: Vec<_> = failures.try_iter().collect();
        assert!(texts.len() == 1 && texts[0].contains("time"), "{texts:?}");
    });
}

/// A handler gets the peer's address from an extension that the closure `connect` adds.
#[test]
fn axum_handler_gets_the_peer_of_its_connection() {
    run(async {
        let listener = common::listener().await;
        let addr = listener.local_addr().unwrap();
        let whoami = async |Extension(peer): Extension<SocketAddr>| peer.to_string();
        let app = Router::new().route("/", get(whoami));
        let connect = |stream: Socket<TcpStream>| {
            let app = app.clone();
            async move {
                let peer = stream.peer_addr()?;
                io::Result::Ok((stream, Tower::new(app.layer(Extension(peer)))))
            }
        };
        let stop = async {
            for _ in 0..3 {
                let stream = TcpStream::connect(addr).await.unwrap();
                let own = stream.local_addr().unwrap().to_string();
                assert_eq!(get_body(&stream, "/").await, own.as_bytes());
            }
        };
        Server::new().serve_with(listener, connect, stop).await.unwrap();
    });
}

/// A service whose clones become ready at the third `poll_ready`. `call` asserts that the clone is
/// ready.
#[derive(Debug, Default)]
struct Lazy {
    polls: usize,
    calls: Arc<AtomicUsize>,
}

impl Clone for Lazy {
    fn clone(&self) -> Lazy {
        Lazy { polls: 0, calls: Arc::clone(&self.calls) }
    }
}

impl Service<Request<Incoming>> for Lazy {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.polls += 1;
        if self.polls < 3 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Incoming>) -> Self::Future {
        assert_eq!(self.polls, 3, "the service was not ready");
        self.calls.fetch_add(1, Ordering::SeqCst);
        ready(Ok(Response::new(Body::from("lazy"))))
    }
}

#[test]
fn tower_service_is_called_when_it_is_ready() {
    run(async {
        let listener = Arc::new(common::listener().await);
        let addr = listener.local_addr().unwrap();
        let lazy = Lazy::default();
        let calls = Arc::clone(&lazy.calls);
        let server = task::spawn(serve_tower(Arc::clone(&listener), lazy));
        let stream = TcpStream::connect(addr).await.unwrap();
        for count in 1..=3 {
            assert_eq!(get_body(&stream, "/").await, b"lazy");
            assert_eq!(calls.load(Ordering::SeqCst), count);
        }
        listener.close().await.unwrap();
        server.await.unwrap();
    });
}

/// A service whose `poll_ready` fails or never completes. If it fails, the connection ends.
/// Otherwise the connection is cut off after the grace period.
#[derive(Clone, Debug)]
struct Failing {
    fails: bool,
    asked: Arc<AtomicUsize>,
}

impl Service<Request<Incoming>> for Failing {
    type Response = Response<Body>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Response<Body>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.fails { Poll::Ready(Err(io::ErrorKind::ResourceBusy.into())) } else { Poll::Pending }
    }

    fn call(&mut self, _: Request<Incoming>) -> Self::Future {
        Box::pin(pending())
    }
}

#[test]
fn connection_ends_if_tower_service_fails_or_never_becomes_ready() {
    run(async {
        for fails in [true, false] {
            let listener = Arc::new(common::listener().await);
            let addr = listener.local_addr().unwrap();
            let mut settings = Server::new();
            settings.grace(Duration::from_millis(10));
            let asked = Arc::new(AtomicUsize::new(0));
            let service = Failing { fails, asked: Arc::clone(&asked) };
            let server = task::spawn({
                let listener = Arc::clone(&listener);
                async move { settings.serve_tower(listener, service).await }
            });
            let stream = TcpStream::connect(addr).await.unwrap();
            send(&stream, "/").await;
            becomes("the service is polled", || asked.load(Ordering::SeqCst) > 0).await;
            if fails {
                while stream.read(&mut [0; 512]).await.is_ok_and(|count| count > 0) {}
            }
            listener.close().await.unwrap();
            let end = server.await;
            assert_eq!(end.is_ok(), fails, "{end:?}");
        }
    });
}

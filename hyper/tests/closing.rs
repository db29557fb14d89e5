//! Tests of how connections of `netpoll_hyper::Server` end: after a half-close or a reset by the
//! client, a forced close, an early response or an upgrade, when the server stops, and without a
//! request. Also tests that the closure `connect` may convert a stream.
//!
//! Where the grace period must not end the server, it is one hour. If a connection then keeps the
//! server from ending, the test hangs until its watchdog aborts the process.

mod common;
mod serving;

use std::convert::Infallible;
use std::fs::File;
use std::future::{Future, pending, poll_fn, ready};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use common::{becomes, read_exact, run};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::rt::Write as _;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Method, Request, Response, StatusCode};
use netpoll::net::{ListenConfig, TcpListener, TcpStream};
use netpoll::prelude::*;
use netpoll::task;
use netpoll::unix::{UnixListener, UnixStream};
use netpoll_hyper::{Executor, Io, Server, Socket};
use serving::{Seen, answer, assert_hello, receive, send, start, with_some_limit};

/// A grace period that does not end within a test.
const HOUR: Duration = Duration::from_secs(3600);

const GET: &[u8] = b"GET /hello HTTP/1.1\r\nhost: h\r\n\r\n";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";

/// Returns all data up to end of stream. An error means that the peer reset the connection.
async fn read_to_end<S: netpoll::io::Read + Unpin>(mut stream: S) -> io::Result<String> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

/// Waits until the peer has closed the connection, with a FIN or a reset, and discards all data.
async fn assert_ends(stream: &TcpStream) {
    let mut bytes = [0; 512];
    while stream.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
}

#[test]
fn request_followed_by_fin_is_answered() {
    run(async {
        let server = start(Server::new().grace(HOUR)).await;
        // The handler waits until it is released, so the FIN arrives before the response is
        // written.
        let slow = server.connect().await;
        send(&slow, "/wait").await;
        slow.close_write().unwrap();
        becomes("the handler waits", || server.seen.waiting.load(Ordering::SeqCst) == 1).await;
        task::sleep(Duration::from_millis(20)).await;
        server.seen.released.store(1, Ordering::SeqCst);
        let text = read_to_end(&slow).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK") && text.ends_with("waited"), "{text}");
        // The requests have a body, or there are several. Some responses are larger than a socket's
        // buffer.
        let body = "b".repeat(100_000);
        let echo = format!("POST /echo HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let large = "GET /large HTTP/1.1\r\nhost: h\r\n\r\n".repeat(20);
        let hello = str::from_utf8(GET).unwrap();
        let chunked = "POST /echo HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        for (request, answers) in [(echo.as_str(), 1), (large.as_str(), 20), (chunked, 1), (&hello.repeat(3), 3)] {
            let stream = server.connect().await;
            stream.write_all(request.as_bytes()).await.unwrap();
            stream.close_write().unwrap();
            let text = read_to_end(&stream).await.unwrap();
            assert_eq!(count(&text, "HTTP/1.1 200 OK"), answers, "{}", &text[..text.len().min(400)]);
            assert_eq!(
                count(&text, &body[..100_000]) + count(&text, "hello") + count(&text, &"x".repeat(300_000)),
                answers
            );
        }
        // An incomplete request does not keep its connection open.
        for part in ["GET /hello HTTP/1.1\r\nho", "POST /echo HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\nhalf"] {
            let stream = server.connect().await;
            stream.write_all(part.as_bytes()).await.unwrap();
            stream.close_write().unwrap();
            assert_ends(&stream).await;
        }
        server.stop().await.unwrap();
    });
}

#[test]
fn request_followed_by_fin_is_answered_over_unix_sockets() {
    run(async {
        let path = std::env::temp_dir().join(format!("netpoll-hyper-fin-{}.sock", std::process::id()));
        let listener = Arc::new(UnixListener::bind(&path).await.unwrap());
        let seen = Arc::new(Seen::default());
        let service = service_fn({
            let seen = Arc::clone(&seen);
            move |request| answer(Arc::clone(&seen), request)
        });
        let server = task::spawn({
            let listener = Arc::clone(&listener);
            async move { Server::new().grace(HOUR).serve(listener, service).await }
        });
        let stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(b"GET /wait HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        stream.close_write().unwrap();
        becomes("the handler waits", || seen.waiting.load(Ordering::SeqCst) == 1).await;
        task::sleep(Duration::from_millis(20)).await;
        seen.released.store(1, Ordering::SeqCst);
        assert!(read_to_end(&stream).await.unwrap().ends_with("waited"));
        listener.close().await.unwrap();
        server.await.unwrap();
    });
}

/// A guard that counts the handlers that are alive.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Alive {
        count.fetch_add(1, Ordering::SeqCst);
        Alive(Arc::clone(count))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn take(stream: &Mutex<Option<TcpStream>>) -> TcpStream {
    stream.lock().unwrap().take().unwrap()
}

#[test]
fn reset_and_force_close_drop_the_handler() {
    run(async {
        let listener = Arc::new(common::listener().await);
        let addr = listener.local_addr().unwrap();
        let alive = Arc::new(AtomicUsize::new(0));
        let ours = Arc::new(Mutex::new(None));
        let server = task::spawn({
            let (listener, alive, ours) = (Arc::clone(&listener), Arc::clone(&alive), Arc::clone(&ours));
            async move {
                let connect = |stream: Socket<TcpStream>| {
                    *ours.lock().unwrap() = Some(stream.clone().into_inner());
                    let alive = Arc::clone(&alive);
                    let service = service_fn(move |_: Request<Incoming>| {
                        let alive = Alive::new(&alive);
                        async move {
                            let _alive = alive;
                            pending::<Result<Response<String>, Infallible>>().await
                        }
                    });
                    ready(Ok((stream, service)))
                };
                Server::new().grace(HOUR).serve_with(listener, connect, pending::<()>()).await
            }
        });
        for force_close in [false, true] {
            let stream = TcpStream::connect(addr).await.unwrap();
            send(&stream, "/").await;
            becomes("a handler", || alive.load(Ordering::SeqCst) == 1).await;
            let ours = take(&ours);
            if force_close {
                ours.force_close().await.unwrap();
            } else {
                drop(ours);
                stream.set_linger(Some(Duration::ZERO)).unwrap();
                stream.force_close().await.unwrap();
            }
            becomes("no handler", || alive.load(Ordering::SeqCst) == 0).await;
        }
        // A write timeout does not affect the handler.
        let stream = TcpStream::connect(addr).await.unwrap();
        becomes("a connection", || ours.lock().unwrap().is_some()).await;
        let ours = take(&ours);
        ours.set_write_timeout(Some(Duration::from_millis(1))).unwrap();
        send(&stream, "/").await;
        becomes("a handler", || alive.load(Ordering::SeqCst) == 1).await;
        task::sleep(Duration::from_millis(50)).await;
        assert_eq!(alive.load(Ordering::SeqCst), 1);
        ours.force_close().await.unwrap();
        listener.close().await.unwrap();
        server.await.unwrap();
    });
}

/// The clients have sent nothing, part of their first head, part of a later head, part of HTTP/2's
/// preface, or the preface but no complete request.
#[test]
fn incomplete_head_does_not_delay_a_stopping_server() {
    run(async {
        let server = start(Server::new().grace(HOUR)).await;
        let mut streams = Vec::new();
        for part in [&b""[..], b"G", b"GET /hello HTTP/1.1\r\nhost: h\r\n", &PREFACE[..8], PREFACE] {
            let stream = server.connect().await;
            stream.write_all(part).await.unwrap();
            streams.push(stream);
        }
        let settings = server.connect().await;
        settings.write_all(&[PREFACE, SETTINGS].concat()).await.unwrap();
        // A HEADERS frame without the flag END_HEADERS does not complete a request.
        let headers = server.connect().await;
        headers.write_all(&[PREFACE, SETTINGS, b"\0\0\x01\x01\0\0\0\0\x01\x82"].concat()).await.unwrap();
        streams.extend([settings, headers]);
        for part in [&b""[..], b"GET /hello HTTP/1.1\r\nho"] {
            let stream = server.connect().await;
            assert_hello(&stream).await;
            stream.write_all(part).await.unwrap();
            streams.push(stream);
        }
        becomes("all are accepted", || server.seen.connections.load(Ordering::SeqCst) == streams.len()).await;
        server.stop().await.unwrap();
        for stream in streams {
            assert_ends(&stream).await;
        }
    });
}

/// Waits until `flag` is set. Registers no waker, so the caller must poll the future again.
async fn until(flag: &AtomicBool) {
    poll_fn(|_| if flag.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// The server stops after it has accepted the connection, whose task may not have run yet.
#[test]
fn request_on_a_connection_accepted_as_the_server_stops_is_answered() {
    run(async {
        let listener = common::listener().await;
        let addr = listener.local_addr().unwrap();
        let body = "b".repeat(5000);
        let post = format!("POST /echo HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let header = format!("GET /hello HTTP/1.1\r\nhost: h\r\nx: {}\r\n\r\n", "x".repeat(3000));
        for round in 0..150 {
            let request = [GET, post.as_bytes(), header.as_bytes()][round % 3];
            let client = TcpStream::connect(addr).await.unwrap();
            client.write_all(request).await.unwrap();
            let accepted = AtomicBool::new(false);
            let connect = |stream: Socket<TcpStream>| {
                accepted.store(true, Ordering::SeqCst);
                let seen = Arc::new(Seen::default());
                ready(Ok((stream, service_fn(move |request| answer(Arc::clone(&seen), request)))))
            };
            let end = task::spawn(async move { read_to_end(&client).await });
            Server::new().grace(HOUR).serve_with(&listener, connect, until(&accepted)).await.unwrap();
            let text = end.await.unwrap();
            assert!(text.starts_with("HTTP/1.1 200 OK"), "round {round}: {text}");
            assert!(text.contains("connection: close"), "round {round}: {text}");
            assert!(text.ends_with("hello") || text.ends_with(&body), "round {round}: {text}");
        }
    });
}

#[test]
fn requests_in_the_queue_of_a_listener_are_answered_when_the_server_stops() {
    run(async {
        let listener = TcpListener::bind(common::own_address()).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut clients = Vec::new();
        for _ in 0..100 {
            let client = TcpStream::connect(addr).await.unwrap();
            client.write_all(GET).await.unwrap();
            clients.push(client);
        }
        let seen = Arc::new(Seen::default());
        let service = move |request| answer(Arc::clone(&seen), request);
        let connect = |stream| ready(Ok((stream, service_fn(service.clone()))));
        Server::new().grace(HOUR).serve_with(listener, connect, ready(())).await.unwrap();
        for client in clients {
            let text = read_to_end(&client).await.unwrap();
            assert!(text.contains("connection: close") && text.ends_with("hello"), "{text}");
        }
        TcpStream::connect(addr).await.unwrap_err();
    });
}

/// Runs a server whose listener has a limit of one connection. Stops the server when one connection
/// has a request in progress and another one is in the queue. Calls `then` with both connections
/// and the handlers' state. Returns the server's result.
async fn stop_at_limit_of_listener(
    grace: Duration,
    then: impl AsyncFnOnce(&TcpStream, &TcpStream, &Seen),
) -> io::Result<()> {
    let listener = ListenConfig::new().max_connections(1).listen("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (seen, stop) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
    let service = service_fn({
        let seen = Arc::clone(&seen);
        move |request| answer(Arc::clone(&seen), request)
    });
    let server = task::spawn({
        let stop = Arc::clone(&stop);
        async move {
            let stop = becomes("a stop", || stop.load(Ordering::SeqCst));
            Server::new().grace(grace).serve_until(listener, service, stop).await
        }
    });
    let first = TcpStream::connect(addr).await.unwrap();
    send(&first, "/wait").await;
    becomes("the handler waits", || seen.waiting.load(Ordering::SeqCst) == 1).await;
    let queued = TcpStream::connect(addr).await.unwrap();
    queued.write_all(GET).await.unwrap();
    stop.store(true, Ordering::SeqCst);
    then(&first, &queued, &seen).await;
    server.await
}

/// Regression test: the grace period began only when the queue was empty, so a request that did not
/// end could delay the beginning of the period without limit.
#[test]
fn grace_ends_a_server_whose_listener_is_at_its_limit() {
    run(async {
        let ended = stop_at_limit_of_listener(Duration::from_millis(50), async |first, queued, _| {
            assert_ends(first).await;
            assert_ends(queued).await;
        });
        assert_eq!(ended.await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    });
}

#[test]
fn queued_request_is_answered_if_it_is_accepted_within_the_grace_period() {
    run(async {
        let ended = stop_at_limit_of_listener(HOUR, async |first, queued, seen| {
            seen.released.store(1, Ordering::SeqCst);
            assert!(read_to_end(first).await.unwrap().ends_with("waited"));
            let text = read_to_end(queued).await.unwrap();
            assert!(text.contains("connection: close") && text.ends_with("hello"), "{text}");
        });
        ended.await.unwrap();
    });
}

/// Regression test: the server waited until descriptors were available and, after a first
/// correction, until the end of the grace period.
#[test]
fn server_without_descriptors_and_connections_ends_at_its_stop() {
    common::child("server_without_descriptors_and_connections_ends_at_its_stop", || {
        task::block_on(async {
            let listener = common::listener().await;
            let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            client.write_all(GET).await.unwrap();
            // A first wait makes the poller open its descriptors.
            assert!(common::poll_once(&mut Box::pin(client.read(&mut [0; 1]))).await.is_pending());
            common::set_nofile(64);
            let files: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
            assert!(!files.is_empty());
            let service = service_fn(|request| answer(Arc::new(Seen::default()), request));
            Server::new().grace(HOUR).serve_until(listener, service, ready(())).await.unwrap();
            assert_ends(&client).await;
        });
    });
}

#[test]
fn request_on_an_idle_connection_is_answered_as_the_server_stops() {
    run(async {
        for round in 0..30 {
            let server = start(Server::new().grace(HOUR)).await;
            let (first, second) = (server.connect().await, server.connect().await);
            assert_hello(&first).await;
            assert_hello(&second).await;
            // The requests are in the receive buffers when the server stops.
            first.write_all(GET).await.unwrap();
            second.write_all(&GET.repeat(2)).await.unwrap();
            let (one, two) = (task::spawn(read_all(first)), task::spawn(read_all(second)));
            server.stop().await.unwrap();
            let (one, two) = (one.await.unwrap(), two.await.unwrap());
            assert_eq!(count(&one, "hello"), 1, "round {round}: {one}");
            // If the first response has `connection: close`, the second request is not answered.
            assert!(count(&two, "hello") == 2 || two.contains("connection: close"), "round {round}: {two}");
        }
    });
}

async fn read_all(stream: TcpStream) -> io::Result<String> {
    read_to_end(&stream).await
}

/// Reads the response to an HTTP/2 request and replies to PINGs. Returns the body. Uses no client
/// library, because a library chooses which frames it sends and when.
async fn http2_exchange(client: TcpStream) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    let mut head = [0; 9];
    loop {
        let count = client.read(&mut head).await?;
        if count == 0 {
            return Ok(body);
        }
        read_exact(&client, &mut head[count..]).await?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        read_exact(&client, &mut payload).await?;
        match (head[3], head[4]) {
            (0, _) => body.extend(payload),
            // The frame is a PING and needs a reply.
            (6, 0) => client.write_all(&[b"\0\0\x08\x06\x01\0\0\0\0", payload.as_slice()].concat()).await?,
            _ => {}
        }
    }
}

#[test]
fn http2_request_is_answered_as_the_server_stops() {
    // This HEADERS frame on stream 1 contains the request GET http://h/hello.
    let request = b"\0\0\x0d\x01\x05\0\0\0\x01\x82\x86\x41\x01h\x44\x06/hello";
    run(async {
        let listener = common::listener().await;
        let addr = listener.local_addr().unwrap();
        for _ in 0..20 {
            let client = TcpStream::connect(addr).await.unwrap();
            client.write_all(&[PREFACE, SETTINGS, request].concat()).await.unwrap();
            let body = task::spawn(http2_exchange(client));
            let accepted = AtomicBool::new(false);
            let connect = |stream: Socket<TcpStream>| {
                accepted.store(true, Ordering::SeqCst);
                let seen = Arc::new(Seen::default());
                ready(Ok((stream, service_fn(move |request| answer(Arc::clone(&seen), request)))))
            };
            Server::new().grace(HOUR).serve_with(&listener, connect, until(&accepted)).await.unwrap();
            assert_eq!(body.await.unwrap(), b"hello");
        }
    });
}

/// Reads an HTTP/2 frame and returns its type.
async fn frame(client: &TcpStream) -> u8 {
    let mut head = [0; 9];
    read_exact(client, &mut head).await.unwrap();
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    read_exact(client, &mut payload).await.unwrap();
    head[3]
}

/// The error of the connection is reported only if a request is in progress.
#[test]
fn reset_after_goaway_of_a_stopping_server_is_not_an_error() {
    // This HEADERS frame on stream 1 contains the request GET http://h/wait.
    let request = b"\0\0\x0c\x01\x05\0\0\0\x01\x82\x86\x41\x01h\x44\x05/wait";
    run(async {
        for (request, errors) in [(&b""[..], 0), (request, 1)] {
            let reported = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&reported);
            let mut server = Server::new();
            server.grace(HOUR).on_error(move |_| {
                counted.fetch_add(1, Ordering::SeqCst);
            });
            let server = start(&mut server).await;
            let client = server.connect().await;
            client.write_all(&[PREFACE, SETTINGS, request].concat()).await.unwrap();
            assert_eq!(frame(&client).await, 4, "SETTINGS");
            becomes("the request has arrived", || server.seen.waiting.load(Ordering::SeqCst) == errors).await;
            server.listener.close().await.unwrap();
            // A frame of type 7 is GOAWAY.
            while frame(&client).await != 7 {}
            client.set_linger(Some(Duration::ZERO)).unwrap();
            drop(client);
            server.stop().await.unwrap();
            assert_eq!(reported.load(Ordering::SeqCst), errors);
        }
    });
}

/// `Io` takes the place of a TLS stream, which the server also reads only through futures-io's
/// traits.
#[test]
fn request_over_a_futures_io_stream_is_answered_as_the_server_stops() {
    run(async {
        let listener = common::listener().await;
        let addr = listener.local_addr().unwrap();
        for _ in 0..20 {
            let client = TcpStream::connect(addr).await.unwrap();
            client.write_all(GET).await.unwrap();
            let seen = Arc::new(Seen::default());
            let service = move |request| answer(Arc::clone(&seen), request);
            let connect =
                |stream: Socket<TcpStream>| ready(Ok((Io::new(stream.into_inner()), service_fn(service.clone()))));
            Server::new().grace(HOUR).serve_with(&listener, connect, ready(())).await.unwrap();
            let text = read_to_end(&client).await.unwrap();
            assert!(text.contains("connection: close") && text.ends_with("hello"), "{text}");
        }
    });
}

/// The service responds before it has read the body. If the server closed the socket immediately,
/// close(2) with unread bytes would send a reset, after which the client may discard the response.
#[test]
fn early_answer_to_an_upload_arrives() {
    run(async {
        let listener = Arc::new(common::listener().await);
        let addr = listener.local_addr().unwrap();
        let refuse = service_fn(|_: Request<Incoming>| async {
            let mut response = Response::new("too much".to_owned());
            *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            Ok::<_, Infallible>(response)
        });
        let server = task::spawn({
            let listener = Arc::clone(&listener);
            async move { Server::new().grace(HOUR).serve(listener, refuse).await }
        });
        let exchange = async || {
            let client = TcpStream::connect(addr).await?;
            let upload = task::spawn({
                let client = client.clone();
                async move {
                    let head = "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5000000\r\n\r\n";
                    client.write_all(head.as_bytes()).await?;
                    client.write_all(&vec![b'u'; 5_000_000]).await
                }
            });
            upload.await?;
            read_to_end(&client).await
        };
        let (begin, mut answered) = (Instant::now(), 0);
        while answered < 30 {
            let start = Instant::now();
            match exchange().await {
                Ok(text) => {
                    assert!(text.starts_with("HTTP/1.1 413") && text.ends_with("too much"), "{text}");
                    answered += 1;
                }
                // The server closes the socket after half a second without a byte. On a busy
                // machine, the client may send nothing for that long.
                Err(error) => {
                    assert!(start.elapsed() >= Duration::from_millis(500), "{error}");
                    assert!(begin.elapsed() < common::BOUND, "{error}, and {answered} answers");
                }
            }
        }
        listener.close().await.unwrap();
        server.await.unwrap();
    });
}

#[test]
fn http2_connection_without_requests_is_closed() {
    run(async {
        let limit = Duration::from_millis(100);
        let server = start(Server::new().header_read_timeout(limit).grace(HOUR)).await;
        let silent = server.connect().await;
        silent.write_all(PREFACE).await.unwrap();
        let settings = server.connect().await;
        settings.write_all(&[PREFACE, SETTINGS].concat()).await.unwrap();
        // A HEADERS frame without the flag END_HEADERS is not a request.
        let headers = server.connect().await;
        headers.write_all(&[PREFACE, SETTINGS, b"\0\0\x01\x01\0\0\0\0\x01\x82"].concat()).await.unwrap();
        for stream in [silent, settings, headers] {
            assert_ends(&stream).await;
        }
        // Nor is a frame of an unknown type of which a byte arrives in each interval.
        let slow = server.connect().await;
        slow.write_all(&[PREFACE, SETTINGS, b"\0\x3f\xff\x2a\0\0\0\0\0"].concat()).await.unwrap();
        let writer = slow.clone();
        task::spawn(async move {
            while writer.write_all(b"x").await.is_ok() {
                task::sleep(limit / 4).await;
            }
        });
        assert_ends(&slow).await;
        // The connection of an HTTP/2 client library ends too.
        let (_sender, connection) = handshake(server.addr).await;
        let _ = task::spawn(connection).await;
        server.stop().await.unwrap();
    });
}

type Client = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

async fn handshake(addr: SocketAddr) -> (Client, impl Future<Output = hyper::Result<()>> + Send) {
    let stream = Socket::new(TcpStream::connect(addr).await.unwrap());
    hyper::client::conn::http2::handshake(Executor, stream).await.unwrap()
}

#[test]
fn http2_request_may_take_longer_than_the_head_limit() {
    run(with_some_limit(async |limit| {
        let server = start(Server::new().header_read_timeout(limit).grace(HOUR)).await;
        let (mut sender, connection) = handshake(server.addr).await;
        let connection = task::spawn(connection);
        let request = Request::get("http://h/wait").body(Full::<Bytes>::default()).unwrap();
        let seen = Arc::clone(&server.seen);
        let late = task::spawn(async move {
            task::sleep(limit * 4).await;
            seen.released.store(1, Ordering::SeqCst);
        });
        let response = sender.send_request(request).await;
        if server.seen.waiting.load(Ordering::SeqCst) == 0 {
            return None;
        }
        assert_eq!(response.unwrap().into_body().collect().await.unwrap().to_bytes(), "waited");
        late.await;
        let _ = connection.await;
        server.stop().await.unwrap();
        Some(())
    }));
}

/// Regression test: hyper drops a body when it has the last chunk, even if the chunk is larger than
/// the peer's flow-control window. The request then counted as answered, and the connection was
/// closed although the peer had not received the rest of the chunk.
#[test]
fn http2_client_may_pause_within_a_response_for_longer_than_the_head_limit() {
    run(with_some_limit(async |limit| {
        let server = start(Server::new().header_read_timeout(limit).grace(HOUR)).await;
        let mut client = hyper::client::conn::http2::Builder::new(Executor);
        client.initial_stream_window_size(16_384);
        let (mut sender, connection) = client.handshake(Socket::new(server.connect().await)).await.unwrap();
        let connection = task::spawn(connection);
        let request = Request::get("http://h/large").body(Full::<Bytes>::default()).unwrap();
        // The server may close the connection before the request arrives.
        let response = sender.send_request(request).await.ok()?;
        task::sleep(limit * 6).await;
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), 300_000);
        drop(sender);
        let _ = connection.await;
        server.stop().await.unwrap();
        Some(())
    }));
}

/// A tunnel has no further requests after the CONNECT request.
#[test]
fn http2_tunnel_outlives_the_head_limit() {
    run(with_some_limit(async |limit| {
        let listener = Arc::new(common::listener().await);
        let addr = listener.local_addr().unwrap();
        let tunnel = service_fn(|mut request: Request<Incoming>| async move {
            assert_eq!(request.method(), Method::CONNECT);
            let upgrade = hyper::upgrade::on(&mut request);
            drop(task::spawn(async move {
                let mut stream = Io::new(upgrade.await.unwrap());
                let mut bytes = [0; 4];
                while stream.read_exact(&mut bytes).await.is_ok() {
                    stream.write_all(&bytes).await.unwrap();
                    stream.flush().await.unwrap();
                }
            }));
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        });
        let server = task::spawn({
            let listener = Arc::clone(&listener);
            async move { Server::new().header_read_timeout(limit).grace(limit).serve(listener, tunnel).await }
        });
        let (mut sender, connection) = handshake(addr).await;
        let connection = task::spawn(connection);
        let request = Request::connect("h:1").body(Full::<Bytes>::default()).unwrap();
        let response = sender.send_request(request).await.ok()?;
        let mut stream = Io::new(hyper::upgrade::on(response).await.unwrap());
        for _ in 0..3 {
            task::sleep(limit * 3).await;
            stream.write_all(b"ping").await.unwrap();
            stream.flush().await.unwrap();
            let mut bytes = [0; 4];
            stream.read_exact(&mut bytes).await.unwrap();
            assert_eq!(&bytes, b"ping");
        }
        drop((stream, sender));
        listener.close().await.unwrap();
        let _ = server.await;
        let _ = connection.await;
        Some(())
    }));
}

/// Returns the response that accepts an upgrade to the protocol "own".
fn switch_to_own() -> Response<String> {
    let mut response = Response::new(String::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert("upgrade", "own".parse().unwrap());
    response.headers_mut().insert("connection", "upgrade".parse().unwrap());
    response
}

/// An upgraded stream belongs to the service, so shutting it down must not discard bytes that the
/// peer sends.
#[test]
fn upgraded_stream_can_be_read_after_its_shutdown() {
    run(async {
        let listener = Arc::new(common::listener().await);
        let addr = listener.local_addr().unwrap();
        let upgrade = service_fn(|mut request: Request<Incoming>| async move {
            let upgrade = hyper::upgrade::on(&mut request);
            drop(task::spawn(async move {
                let mut stream = Io::new(upgrade.await.unwrap());
                stream.write_all(b"bye").await.unwrap();
                stream.close().await.unwrap();
                let mut text = String::new();
                stream.read_to_string(&mut text).await.unwrap();
                assert_eq!(text, "late");
            }));
            Ok::<_, Infallible>(switch_to_own())
        });
        let server = task::spawn({
            let listener = Arc::clone(&listener);
            async move { Server::new().grace(HOUR).serve(listener, upgrade).await }
        });
        let client = TcpStream::connect(addr).await.unwrap();
        let head = "GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: own\r\n\r\n";
        client.write_all(head.as_bytes()).await.unwrap();
        let text = read_to_end(&client).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 101") && text.ends_with("bye"), "{text}");
        client.write_all(b"late").await.unwrap();
        client.close_write().unwrap();
        listener.close().await.unwrap();
        server.await.unwrap();
    });
}

/// The new owner may shut an upgraded stream down before the connection's task continues. In this
/// test, the waker that hyper calls when it passes the stream on shuts the stream down.
#[test]
fn upgraded_stream_can_be_shut_down_immediately() {
    /// The upgrade, and the result of the shutdown.
    #[derive(Default)]
    struct Owner(Mutex<Option<OnUpgrade>>, Mutex<Option<(Upgraded, bool)>>);

    impl Wake for Owner {
        fn wake(self: Arc<Owner>) {
            let Some(mut upgrade) = self.0.lock().unwrap().take() else { return };
            let cx = &mut Context::from_waker(Waker::noop());
            let Poll::Ready(Ok(mut stream)) = Pin::new(&mut upgrade).poll(cx) else { return };
            let is_shut = Pin::new(&mut stream).poll_shutdown(cx).is_ready();
            *self.1.lock().unwrap() = Some((stream, is_shut));
        }
    }

    run(async {
        let (listener, owner) = (Arc::new(common::listener().await), Arc::new(Owner::default()));
        let addr = listener.local_addr().unwrap();
        let service = service_fn({
            let owner = Arc::clone(&owner);
            move |mut request: Request<Incoming>| {
                let owner = Arc::clone(&owner);
                async move {
                    let mut upgrade = hyper::upgrade::on(&mut request);
                    request.collect().await.unwrap();
                    let waker = Waker::from(Arc::clone(&owner));
                    assert!(Pin::new(&mut upgrade).poll(&mut Context::from_waker(&waker)).is_pending());
                    *owner.0.lock().unwrap() = Some(upgrade);
                    Ok::<_, Infallible>(switch_to_own())
                }
            }
        });
        let server = task::spawn({
            let listener = Arc::clone(&listener);
            async move { Server::new().grace(HOUR).serve(listener, service).await }
        });
        let client = TcpStream::connect(addr).await.unwrap();
        // Because of the body, a connection that is not upgraded would be read after its shutdown.
        let head = "GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: own\r\ncontent-length: 1\r\n\r\nx";
        client.write_all(head.as_bytes()).await.unwrap();
        let text = read_to_end(&client).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 101"), "{text}");
        becomes("the stream is passed on", || owner.1.lock().unwrap().is_some()).await;
        client.write_all(b"late").await.unwrap();
        client.close_write().unwrap();
        let (stream, is_shut) = owner.1.lock().unwrap().take().unwrap();
        assert!(is_shut, "the shutdown waits for the peer");
        assert_eq!(read_to_end(Io::new(stream)).await.unwrap(), "late");
        listener.close().await.unwrap();
        server.await.unwrap();
    });
}

/// While `connect` owns the stream, the server has no handle of it, so the stream can be converted.
#[test]
fn connect_may_convert_the_stream() {
    run(async {
        let listener = common::listener().await;
        let addr = listener.local_addr().unwrap();
        let connect = |stream: Socket<TcpStream>| async move {
            let stream = std::net::TcpStream::try_from(stream.into_inner())?;
            let seen = Arc::new(Seen::default());
            Ok((Socket::new(TcpStream::from(stream)), service_fn(move |request| answer(Arc::clone(&seen), request))))
        };
        let stop = async { assert_hello(&TcpStream::connect(addr).await.unwrap()).await };
        Server::new().grace(HOUR).serve_with(listener, connect, stop).await.unwrap();
    });
}

/// Bodies that are being transferred when the server stops are not truncated.
#[test]
fn stopping_server_lets_bodies_finish() {
    run(async {
        let server = start(Server::new().grace(HOUR)).await;
        let (up, down) = (server.connect().await, server.connect().await);
        up.write_all(b"POST /echo HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\nabc").await.unwrap();
        let mut head = [0; 15];
        read_exact(&up, &mut head).await.unwrap();
        send(&down, "/large").await;
        becomes("both are accepted", || server.seen.connections.load(Ordering::SeqCst) == 2).await;
        let mut end = Box::pin(server.stop());
        assert!(common::poll_once(&mut end).await.is_pending());
        task::sleep(Duration::from_millis(100)).await;
        assert!(common::poll_once(&mut end).await.is_pending());
        up.write_all(b"defghij").await.unwrap();
        assert!(read_to_end(&up).await.unwrap().ends_with("abcdefghij"));
        assert_eq!(receive(&down).await.unwrap().1.len(), 300_000);
        end.await.unwrap();
    });
}

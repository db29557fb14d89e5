//! Tests of hyper on netpoll's streams: both HTTP versions with curl, with hyper's client and with
//! handwritten requests, Unix sockets, the I/O traits, the timer, limits, deadlines, panics, and
//! the ways to end a server.

mod common;
mod serving;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use common::{becomes, pair, poll_once, read_exact, run};
use futures::future::{Either, select};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Timer as _, Write};
use hyper::service::service_fn;
use hyper::{Request, Response};
use netpoll::net::{TcpStream, is_closed, is_timeout};
use netpoll::task;
use netpoll_hyper::{Executor, Server, Socket, Timer};
use serving::{HUGE, Seen, answer, assert_hello, curl, get, receive, send, start, with_some_limit};

#[test]
fn http1_keeps_alive_and_pipelines() {
    run(async {
        let server = start(&mut Server::new()).await;
        let stream = server.connect().await;
        for _ in 0..100 {
            assert_hello(&stream).await;
        }
        for _ in 0..10 {
            send(&stream, "/hello").await;
        }
        for _ in 0..10 {
            assert_eq!(receive(&stream).await.unwrap().1, b"hello");
        }
        assert!(get(&stream, "/large").await.unwrap().1.iter().all(|byte| *byte == b'x'));
        assert!(get(&stream, "/nowhere").await.unwrap().0.starts_with("HTTP/1.1 404"));
        assert_eq!(server.seen.connections.load(Ordering::SeqCst), 1);
        server.stop().await.unwrap();
    });
}

#[test]
fn curl_speaks_both_versions() {
    /// A file that is removed however the test ends.
    struct Upload(std::path::PathBuf);
    impl Drop for Upload {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }
    run(async {
        let server = start(&mut Server::new()).await;
        let file = Upload(std::env::temp_dir().join(format!("netpoll-hyper-{}", std::process::id())));
        let upload: Vec<u8> = (0..1_000_000_u32).map(|n| (n / 7) as u8).collect();
        std::fs::write(&file.0, &upload).unwrap();
        for (option, version) in [("--http1.1", "HTTP/1.1"), ("--http2-prior-knowledge", "HTTP/2.0")] {
            let url = |path: &str| format!("http://{}{path}", server.addr);
            let mut text = String::new();
            // With HTTP/1, one command sends several requests on one connection. With HTTP/2, curl
            // 7.88 fails on the second request of a command, with any server.
            let paths = ["/version", "/hello", "/large"].map(url);
            for urls in paths.chunks(if option == "--http1.1" { 3 } else { 1 }) {
                let Some(output) = curl([&[option.to_owned()], urls].concat()).await else { return };
                assert!(output.status.success(), "{output:?}");
                text += std::str::from_utf8(&output.stdout).unwrap();
            }
            assert!(text.starts_with(&format!("{version}hellox")), "{}", &text[..20]);
            assert_eq!(text.len(), version.len() + 5 + 300_000);
            let data = format!("@{}", file.0.display());
            let output = curl(vec![option.into(), "--data-binary".into(), data, url("/echo")]).await.unwrap();
            assert!(output.status.success() && output.stdout == upload, "{option}: {}", output.stdout.len());
        }
        server.stop().await.unwrap();
    });
}

/// The HTTP version is detected even if the first request arrives byte by byte or begins like the
/// preface.
#[test]
fn version_is_detected_from_the_first_bytes() {
    run(async {
        let server = start(&mut Server::new()).await;
        let http2 = server.connect().await;
        http2.set_nodelay(true).unwrap();
        for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0" {
            http2.write_all(&[*byte]).await.unwrap();
            task::sleep(Duration::from_micros(200)).await;
        }
        let mut frame = [0; 9];
        read_exact(&http2, &mut frame).await.unwrap();
        assert_eq!(frame[3], 4, "SETTINGS comes first: {frame:?}");
        drop(http2);
        // A request that begins like the preface is served as HTTP/1.
        let http1 = server.connect().await;
        for byte in b"PRIX /hello HTTP/1.1\r\nhost: h\r\n\r\n" {
            http1.write_all(&[*byte]).await.unwrap();
            task::sleep(Duration::from_micros(200)).await;
        }
        assert_eq!(receive(&http1).await.unwrap().1, b"hello");
        // A connection whose stream ends within the preface is closed.
        let ended = server.connect().await;
        ended.write_all(b"PRI * HT").await.unwrap();
        ended.close_write().unwrap();
        let mut rest = [0; 512];
        while ended.read(&mut rest).await.is_ok_and(|count| count > 0) {}
        server.stop().await.unwrap();
    });
}

#[test]
fn http2_carries_many_streams() {
    run(async {
        let server = start(&mut Server::new()).await;
        let (sender, connection) =
            hyper::client::conn::http2::handshake(Executor, Socket::new(server.connect().await)).await.unwrap();
        let connection = task::spawn(connection);
        let tasks: Vec<_> = (0..100)
            .map(|n: usize| {
                let mut sender = sender.clone();
                task::spawn(async move {
                    let body = Bytes::from(vec![n as u8; n * 1000]);
                    let request = Request::post("http://h/echo").body(Full::new(body.clone())).unwrap();
                    let response = sender.send_request(request).await.unwrap();
                    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), body);
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
        drop(sender);
        connection.await.unwrap();
        server.stop().await.unwrap();
    });
}

/// Bytes of the buffer that are not filled keep their value, because the buffer is not zeroed.
#[test]
fn read_does_not_zero_the_buffer() {
    run(async {
        let (client, server) = pair().await;
        let mut server = Socket::new(server);
        client.write_all(b"abc").await.unwrap();
        let mut memory = [MaybeUninit::new(0xAA); 64];
        let mut buf = ReadBuf::uninit(&mut memory);
        poll_fn(|cx| Read::poll_read(Pin::new(&mut server), cx, buf.unfilled())).await.unwrap();
        assert_eq!(buf.filled(), b"abc");
        // SAFETY: every byte of `memory` was initialised above, and the read has written only
        // initialised bytes.
        assert!(memory[3..].iter().all(|byte| unsafe { byte.assume_init() } == 0xAA));
        // A read at end of stream, through a reference to the stream, fills nothing.
        drop(client);
        let mut buf = ReadBuf::uninit(&mut memory);
        poll_fn(|cx| Read::poll_read(Pin::new(&mut Socket::new(&*server)), cx, buf.unfilled())).await.unwrap();
        assert_eq!(buf.filled(), b"");
    });
}

/// A stream that counts its vectored writes and its plain writes.
struct Counted {
    stream: Socket<TcpStream>,
    vectored: Arc<AtomicUsize>,
    plain: Arc<AtomicUsize>,
}

impl Read for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl Write for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.plain.fetch_add(1, Ordering::SeqCst);
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Write::poll_flush(Pin::new(&mut self.stream), cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Write::poll_shutdown(Pin::new(&mut self.stream), cx)
    }
    fn is_write_vectored(&self) -> bool {
        Write::is_write_vectored(&self.stream)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.vectored.fetch_add(1, Ordering::SeqCst);
        Write::poll_write_vectored(Pin::new(&mut self.stream), cx, bufs)
    }
}

#[test]
fn head_and_body_are_sent_in_one_vectored_write() {
    run(async {
        let (client, server) = pair().await;
        let (vectored, plain) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let io = Counted { stream: Socket::new(server), vectored: Arc::clone(&vectored), plain: Arc::clone(&plain) };
        let seen = Arc::new(Seen::default());
        let service = service_fn(move |request| answer(Arc::clone(&seen), request));
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(io, service);
        let server = task::spawn(connection);
        for _ in 0..20 {
            assert_hello(&client).await;
        }
        drop(client);
        server.await.unwrap();
        // hyper makes only vectored writes on such a stream. Another write would follow a partial
        // one, but these responses are small enough for complete writes.
        assert_eq!((vectored.load(Ordering::SeqCst), plain.load(Ordering::SeqCst)), (20, 0));
    });
}

#[test]
fn timer_resets_sleeps_in_place() {
    run(async {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut sleep = Timer.sleep(Duration::from_secs(3600));
        let place = std::ptr::from_ref(&*sleep).cast::<()>();
        assert!(poll_once(&mut sleep).await.is_pending());
        // The armed sleep is reset to an earlier time, and then twice to a later time.
        Timer.reset(&mut sleep, at(5));
        assert!(poll_once(&mut sleep).await.is_pending() || start.elapsed() >= Duration::from_millis(5));
        Timer.reset(&mut sleep, at(10));
        Timer.reset(&mut sleep, at(30));
        sleep.as_mut().await;
        assert!(start.elapsed() >= Duration::from_millis(30));
        // The sleep is reset after it has completed.
        Timer.reset(&mut sleep, at(40));
        sleep.as_mut().await;
        assert!(start.elapsed() >= Duration::from_millis(40));
        assert_eq!(std::ptr::from_ref(&*sleep).cast::<()>(), place, "the sleep was moved to another allocation");
        Timer.sleep_until(start).await;
        // A sleep of another type is replaced.
        struct Other;
        impl Future for Other {
            type Output = ();
            fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
                Poll::Pending
            }
        }
        impl hyper::rt::Sleep for Other {}
        let mut other: Pin<Box<dyn hyper::rt::Sleep>> = Box::pin(Other);
        Timer.reset(&mut other, Instant::now());
        other.await;
    });
}

#[test]
fn closing_listener_lets_requests_finish() {
    run(async {
        let server = start(&mut Server::new()).await;
        let (idle, silent, busy) = (server.connect().await, server.connect().await, server.connect().await);
        assert_hello(&idle).await;
        send(&busy, "/wait").await;
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(Executor, Socket::new(server.connect().await)).await.unwrap();
        drop(task::spawn(connection));
        let request = Request::get("http://h/wait").body(Full::<Bytes>::default()).unwrap();
        let busy2 = task::spawn(async move { sender.send_request(request).await });
        becomes("both handlers wait", || server.seen.waiting.load(Ordering::SeqCst) == 2).await;
        let (addr, seen) = (server.addr, Arc::clone(&server.seen));
        let no_forks = common::no_forks();
        let mut end = Box::pin(server.stop());
        assert!(poll_once(&mut end).await.is_pending());
        // Idle connections are closed immediately, including a connection without any request.
        for stream in [&idle, &silent] {
            assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
        }
        assert_eq!(TcpStream::connect(addr).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        drop(no_forks);
        assert!(poll_once(&mut end).await.is_pending());
        seen.released.store(2, Ordering::SeqCst);
        let (head, body) = receive(&busy).await.unwrap();
        assert!(head.contains("connection: close"), "{head}");
        assert_eq!(body, b"waited");
        assert_eq!(busy.read(&mut [0; 1]).await.unwrap(), 0);
        assert_eq!(busy2.await.unwrap().into_body().collect().await.unwrap().to_bytes(), "waited");
        end.await.unwrap();
    });
}

#[test]
fn connections_that_remain_after_the_grace_period_are_cut_off() {
    run(async {
        let server = start(Server::new().grace(Duration::from_millis(20))).await;
        let stuck = server.connect().await;
        send(&stuck, "/wait").await;
        becomes("the handler waits", || server.seen.waiting.load(Ordering::SeqCst) == 1).await;
        let seen = Arc::clone(&server.seen);
        let error = server.stop().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // The connection is closed and its service is dropped.
        assert_eq!(stuck.read(&mut [0; 1]).await.map_or(0, |count| count), 0);
        becomes("the service is gone", || Arc::strong_count(&seen) == 1).await;
    });
}

/// A value of a handler whose drop takes a while, and then sets the flag.
struct SlowDrop(Arc<AtomicBool>);

impl Drop for SlowDrop {
    fn drop(&mut self) {
        std::thread::sleep(Duration::from_millis(20));
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Regression test: the server returned before the handlers of HTTP/2 requests, which run in their
/// own tasks, had been dropped.
#[test]
fn http2_handler_that_is_cut_off_is_dropped_before_the_server_returns() {
    run(async {
        let listener = common::listener().await;
        let client = Socket::new(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(Executor, client).await.unwrap();
        drop(task::spawn(connection));
        let request = Request::get("http://h/").body(Full::default()).unwrap();
        let response = task::spawn(async move { sender.send_request(request).await });
        let (stop, stopped) = futures::channel::oneshot::channel::<()>();
        let (stop, dropped) = (Arc::new(Mutex::new(Some(stop))), Arc::new(AtomicBool::new(false)));
        let flag = Arc::clone(&dropped);
        let service = service_fn(move |_: Request<Incoming>| {
            let (stop, slow) = (Arc::clone(&stop), SlowDrop(Arc::clone(&flag)));
            async move {
                drop(stop.lock().unwrap().take());
                std::future::pending::<()>().await;
                drop(slow);
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
            }
        });
        let mut server = Server::new();
        let error = server.grace(Duration::from_millis(20)).serve_until(listener, service, stopped).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(dropped.load(Ordering::SeqCst), "the handler is still there");
        assert!(response.await.is_err());
    });
}

/// Regression test: the server waited until the handler returned.
#[test]
fn handler_that_blocks_its_thread_does_not_prolong_the_grace_period() {
    run(async {
        let listener = common::listener().await;
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stop, stopped) = futures::channel::oneshot::channel::<()>();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let blocked = Arc::new(Mutex::new((Some(stop), released)));
        let service = service_fn(move |_: Request<Incoming>| {
            let blocked = Arc::clone(&blocked);
            async move {
                let mut blocked = blocked.lock().unwrap();
                drop(blocked.0.take());
                let _ = blocked.1.recv();
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
            }
        });
        send(&client, "/").await;
        let mut server = Server::new();
        let error = server.grace(Duration::from_millis(20)).serve_until(listener, service, stopped).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(release);
        assert_eq!(client.read(&mut [0; 1]).await.map_or(0, |count| count), 0, "the response is not sent");
    });
}

#[test]
fn stop_future_stops_server_and_drop_cuts_off_connections() {
    run(async {
        let listener = common::listener().await;
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let connect = |stream: Socket<TcpStream>| {
            let seen = Arc::clone(&seen);
            std::future::ready(Ok((stream, service_fn(move |request| answer(Arc::clone(&seen), request)))))
        };
        let client = async {
            let stream = TcpStream::connect(addr).await.unwrap();
            assert_hello(&stream).await;
            stream
        };
        let (kept, server) = (std::cell::Cell::new(None), Server::new());
        server.serve_with(&listener, connect, async { kept.set(Some(client.await)) }).await.unwrap();
        assert_eq!(kept.take().unwrap().read(&mut [0; 1]).await.unwrap(), 0);
        // The server only borrowed the listener, which still works.
        let client = async {
            let stream = TcpStream::connect(addr).await.unwrap();
            assert_hello(&stream).await;
            send(&stream, "/wait").await;
            becomes("the handler waits", || seen.waiting.load(Ordering::SeqCst) == 1).await;
            stream
        };
        let unstopped = server.serve_with(&listener, connect, std::future::pending::<()>());
        let stream = match futures::future::select(std::pin::pin!(unstopped), std::pin::pin!(client)).await {
            futures::future::Either::Right((stream, _)) => stream,
            futures::future::Either::Left((result, _)) => panic!("the server has ended: {result:?}"),
        };
        assert_eq!(stream.read(&mut [0; 1]).await.map_or(0, |count| count), 0);
    });
}

#[test]
fn connections_are_limited() {
    run(async {
        let server = start(Server::new().max_connections(2)).await;
        let (first, second) = (server.connect().await, server.connect().await);
        assert_hello(&first).await;
        assert_hello(&second).await;
        let third = server.connect().await;
        send(&third, "/hello").await;
        third.set_read_deadline(Instant::now() + Duration::from_millis(30)).unwrap();
        assert!(is_timeout(&third.read(&mut [0; 1]).await.unwrap_err()), "a connection beyond the limit was served");
        assert_eq!(server.seen.connections.load(Ordering::SeqCst), 2);
        drop(first);
        third.set_read_deadline(None).unwrap();
        assert_eq!(receive(&third).await.unwrap().1, b"hello");
        // At the limit again, the server still notices that the listener is closed.
        assert_hello(&second).await;
        server.stop().await.unwrap();
        assert_eq!(second.read(&mut [0; 1]).await.unwrap(), 0);
    });
}

#[test]
fn missing_request_head_ends_connection() {
    async fn ends(stream: &TcpStream) {
        let mut rest = [0; 512];
        while stream.read(&mut rest).await.is_ok_and(|count| count > 0) {}
    }
    run(with_some_limit(async |limit| {
        let server = start(Server::new().header_read_timeout(limit)).await;
        let (silent, half, second) = (server.connect().await, server.connect().await, server.connect().await);
        half.write_all(b"GET /hello HTTP/1.1\r\nhos").await.ok()?;
        assert_eq!(get(&second, "/hello").await.ok()?.1, b"hello");
        second.write_all(b"GET /hello HTTP/1.1\r\nhos").await.ok()?;
        for stream in [silent, half, second] {
            ends(&stream).await;
        }
        // A service may take longer than the limit.
        let slow = server.connect().await;
        send(&slow, "/wait").await;
        let waits = becomes("the handler waits", || server.seen.waiting.load(Ordering::SeqCst) == 1);
        if let Either::Right(_) = select(pin!(waits), pin!(ends(&slow))).await {
            return None;
        }
        task::sleep(limit * 3 / 2).await;
        server.seen.released.store(1, Ordering::SeqCst);
        assert_eq!(receive(&slow).await.unwrap().1, b"waited");
        server.stop().await.unwrap();
        Some(())
    }));
}

/// Regression test: if a request's body ends after hyper has taken the whole response, hyper waits
/// for the next head while the response is being sent. The limit then cut the response off.
#[test]
fn head_limit_does_not_cut_off_a_response_that_is_being_sent() {
    run(with_some_limit(async |limit| {
        let server = start(Server::new().header_read_timeout(limit)).await;
        let stream = server.connect().await;
        let request = b"POST /huge HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
        stream.write_all(request).await.ok()?;
        stream.peek(&mut [0; 1]).await.ok().filter(|&count| count == 1)?;
        task::sleep(limit * 3).await;
        assert_eq!(receive(&stream).await.unwrap().1.len(), HUGE);
        server.stop().await.unwrap();
        Some(())
    }));
}

/// Regression test: hyper adds the limit to the current time, so each HTTP/1 connection ended with
/// a panic.
#[test]
fn longest_head_limit_does_not_overflow() {
    run(async {
        let server = start(Server::new().header_read_timeout(Duration::MAX)).await;
        let stream = server.connect().await;
        assert_hello(&stream).await;
        assert_hello(&stream).await;
        server.stop().await.unwrap();
    });
}

/// The head of every request has a time limit, but few requests arm a timer, because the sleep of
/// the connection is reset to a later time.
#[test]
fn header_timeout_costs_no_timer_per_request() {
    common::child("header_timeout_costs_no_timer_per_request", || {
        task::block_on(async {
            let server = start(&mut Server::new()).await;
            let stream = server.connect().await;
            assert_hello(&stream).await;
            let before = netpoll::rt::metrics().timers_armed;
            for _ in 0..200 {
                assert_hello(&stream).await;
            }
            let armed = netpoll::rt::metrics().timers_armed - before;
            assert!(armed < 20, "{armed} timers for 200 requests");
            server.stop().await.unwrap();
        });
    });
}

#[test]
fn service_panic_ends_only_its_connection() {
    run(async {
        let server = start(&mut Server::new()).await;
        let (bystander, victim) = (server.connect().await, server.connect().await);
        assert_hello(&bystander).await;
        send(&victim, "/panic").await;
        assert_eq!(victim.read(&mut [0; 1]).await.map_or(0, |count| count), 0);
        assert_hello(&bystander).await;
        // The server ends, so it no longer counts the connection.
        server.stop().await.unwrap();
    });
}

/// Regression test: the panic ended the server.
#[test]
fn panic_of_connect_ends_only_its_connection() {
    run(async {
        let listener = common::listener().await;
        let addr = listener.local_addr().unwrap();
        let (seen, calls) = (Arc::new(Seen::default()), AtomicUsize::new(0));
        let connect = |stream: Socket<TcpStream>| {
            assert_ne!(calls.fetch_add(1, Ordering::SeqCst), 1, "the second connection");
            let seen = Arc::clone(&seen);
            std::future::ready(Ok((stream, service_fn(move |request| answer(Arc::clone(&seen), request)))))
        };
        let clients = async {
            let bystander = TcpStream::connect(addr).await.unwrap();
            assert_hello(&bystander).await;
            let victim = TcpStream::connect(addr).await.unwrap();
            assert_eq!(victim.read(&mut [0; 1]).await.map_or(0, |count| count), 0);
            assert_hello(&bystander).await;
            assert_hello(&TcpStream::connect(addr).await.unwrap()).await;
        };
        // The server ends, so it no longer counts the connection.
        Server::new().max_connections(3).serve_with(&listener, connect, clients).await.unwrap();
        assert_eq!(calls.load(Ordering::SeqCst), 3);
    });
}

/// Regression test: a panic of `stop` cut off all connections.
#[test]
fn panic_of_stop_lets_requests_finish() {
    run(async {
        let listener = common::listener().await;
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let service = service_fn({
            let seen = Arc::clone(&seen);
            move |request| answer(Arc::clone(&seen), request)
        });
        let client = TcpStream::connect(addr).await.unwrap();
        send(&client, "/wait").await;
        let stop = async {
            becomes("the handler waits", || seen.waiting.load(Ordering::SeqCst) == 1).await;
            seen.released.store(1, Ordering::SeqCst);
            panic!("on purpose");
        };
        Server::new().grace(common::BOUND).serve_until(listener, service, stop).await.unwrap();
        let mut text = String::new();
        netpoll::io::ReadExt::read_to_string(&mut &client, &mut text).await.unwrap();
        assert!(text.ends_with("waited"), "{text}");
    });
}

/// A clone of the stream can end hyper's wait for the rest of a request's body.
#[test]
fn deadlines_and_close_apply_through_hyper() {
    run(async {
        for close in [false, true] {
            let (client, server) = pair().await;
            let ours = server.clone();
            let (begun, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let service = service_fn({
                let (begun, failed) = (Arc::clone(&begun), Arc::clone(&failed));
                move |request: Request<Incoming>| {
                    let (begun, failed) = (Arc::clone(&begun), Arc::clone(&failed));
                    async move {
                        begun.fetch_add(1, Ordering::SeqCst);
                        let error = request.into_body().collect().await.unwrap_err();
                        let cause =
                            std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<io::Error>());
                        assert!(cause.is_some_and(if close { is_closed } else { is_timeout }), "{error:?}");
                        failed.fetch_add(1, Ordering::SeqCst);
                        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
                    }
                }
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(Socket::new(server), service);
            let connection = task::spawn(connection);
            client.write_all(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\nabc").await.unwrap();
            becomes("the service waits", || begun.load(Ordering::SeqCst) == 1).await;
            if close {
                ours.force_close().await.unwrap();
            } else {
                ours.set_read_deadline(Instant::now()).unwrap();
            }
            becomes("the service has failed", || failed.load(Ordering::SeqCst) == 1).await;
            // The response is sent if the socket is still open.
            assert_eq!(connection.await.is_err(), close);
        }
    });
}

/// The server runs on a Unix socket, whose path is an argument of curl.
#[test]
fn http_is_served_over_unix_sockets() {
    run(async {
        let path = std::env::temp_dir().join(format!("netpoll-hyper-{}.sock", std::process::id()));
        let listener = Arc::new(netpoll::unix::UnixListener::bind(&path).await.unwrap());
        let seen = Arc::new(Seen::default());
        let service = service_fn(move |request| answer(Arc::clone(&seen), request));
        let server = task::spawn({
            let listener = Arc::clone(&listener);
            async move { Server::new().max_connections(1).serve(listener, service).await }
        });
        let path = path.to_str().unwrap().to_owned();
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let url = "http://localhost/hello".to_owned();
            let Some(output) = curl(vec![version.into(), "--unix-socket".into(), path.clone(), url]).await else {
                return;
            };
            assert!(output.status.success() && output.stdout == b"hello", "{output:?}");
        }
        // At its connection limit, the server still notices that the listener is closed.
        let stream = netpoll::unix::UnixStream::connect(&path).await.unwrap();
        stream.write_all(b"GET /hello HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        assert!(stream.read(&mut [0; 512]).await.unwrap() > 0);
        listener.close().await.unwrap();
        server.await.unwrap();
    });
}

#[test]
fn accept_error_ends_server() {
    run(async {
        // The second server is at its limit with one connection.
        for server in [&mut Server::new(), Server::new().max_connections(1)] {
            let server = start(server).await;
            let stream = server.connect().await;
            assert_hello(&stream).await;
            server.listener.set_deadline(Instant::now()).unwrap();
            assert!(is_timeout(&server.end.await.unwrap_err()));
            assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
        }
    });
}

/// Another owner of the listening socket shuts the socket down. The server returns the error of
/// accept(2), even at its connection limit.
#[test]
fn listener_shut_down_by_another_owner_ends_server() {
    run(async {
        for server in [&mut Server::new(), Server::new().max_connections(1)] {
            let server = start(server).await;
            let stream = server.connect().await;
            assert_hello(&stream).await;
            let duplicate = std::net::TcpStream::from(server.listener.as_fd().try_clone_to_owned().unwrap());
            duplicate.shutdown(std::net::Shutdown::Both).unwrap();
            assert_eq!(server.end.await.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
        }
    });
}

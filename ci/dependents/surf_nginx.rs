//! Tests that ci/dependents.sh adds to those of surf: surf and async-h1 are clients of nginx, and
//! tide is the server behind nginx, on a Unix socket. nginx.conf is the configuration of nginx.

use std::collections::HashSet;
use std::convert::TryInto;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use std::{env, fs, thread};

use async_std::io::{BufReader, Read, ReadExt, WriteExt};
use async_std::net::{Shutdown, TcpStream};
use async_std::task;
use surf::http::{Method, Request, Url};
use surf::{Body, Client, Config, StatusCode};
use tide::listener::Listener;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn variable(name: &str) -> String {
    env::var(name).expect("ci/dependents.sh sets the variable")
}

fn url(path: &str) -> String {
    format!("http://{}/{path}", variable("NGINX_ADDR"))
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|index| (index * 7 + index / 251) as u8).collect()
}

/// Writes a file of `count` bytes for nginx. Returns its contents.
fn file(name: &str, count: usize) -> Vec<u8> {
    let contents = bytes(count);
    fs::write(Path::new(&variable("NGINX_FILES")).join(name), &contents).expect("the file is written");
    contents
}

fn client(keep: bool, timeout: Option<Duration>) -> Client {
    Config::new().set_http_keep_alive(keep).set_timeout(timeout).try_into().expect("the configuration is valid")
}

/// Returns nginx's number of the connection on which the response arrived, and the number of the
/// request on this connection.
fn connection(response: &surf::Response) -> (String, u32) {
    let value = response["X-Connection"].as_str().to_owned();
    let (connection, request) = value.split_once(' ').expect("nginx.conf has two variables");
    (connection.to_owned(), request.parse().expect("the second variable is a number"))
}

/// A body of [`ALL`](Pieces::ALL) bytes. Each call of [`permit`](Pieces::permit) makes one more
/// byte available.
#[derive(Clone, Default)]
struct Pieces(Arc<Mutex<(usize, usize, Option<Waker>)>>);

impl Pieces {
    const ALL: usize = 8;

    fn permit(&self) {
        let mut state = self.0.lock().unwrap();
        state.0 += 1;
        let waker = state.2.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Read for Pieces {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<std::io::Result<usize>> {
        let mut state = self.0.lock().unwrap();
        if state.1 == Self::ALL {
            return Poll::Ready(Ok(0));
        }
        if state.1 == state.0 {
            state.2 = Some(cx.waker().clone());
            return Poll::Pending;
        }
        buf[0] = b'a' + state.1 as u8;
        state.1 += 1;
        Poll::Ready(Ok(1))
    }
}

/// Starts the tide server behind nginx, at the first call. Returns the body of the path `/pieces`.
fn upstream() -> &'static Pieces {
    static PIECES: OnceLock<Pieces> = OnceLock::new();
    PIECES.get_or_init(|| {
        let pieces = Pieces::default();
        let mut app = tide::with_state(pieces.clone());
        app.at("/echo").post(|mut request: tide::Request<Pieces>| async move {
            let length = request.len();
            let body = request.body_bytes().await?;
            let forwarded = request.header("X-Forwarded-For").map(|value| value.as_str().to_owned());
            Ok(tide::Response::builder(200)
                .header("X-Length", format!("{length:?}"))
                .header("X-From", forwarded.unwrap_or_default())
                .body(body)
                .build())
        });
        app.at("/chunked/:count").get(|request: tide::Request<Pieces>| async move {
            let body = BufReader::new(async_std::io::Cursor::new(bytes(request.param("count")?.parse()?)));
            Ok(tide::Response::builder(200).body(tide::Body::from_reader(body, None)).build())
        });
        app.at("/pieces").get(|request: tide::Request<Pieces>| async move {
            let body = BufReader::new(request.state().clone());
            Ok(tide::Response::builder(200).body(tide::Body::from_reader(body, None)).build())
        });
        app.at("/never").get(|_| std::future::pending::<tide::Result<&str>>());
        // The server starts on another thread, because this thread is in `block_on` already.
        let started = thread::spawn(|| {
            task::block_on(async move {
                let mut listener =
                    tide::listener::ToListener::to_listener(format!("http+unix://{}", variable("NGINX_UPSTREAM")))?;
                listener.bind(app).await?;
                task::spawn(async move { listener.accept().await });
                std::io::Result::Ok(())
            })
        });
        started.join().expect("the server starts").expect("the server listens");
        pieces
    })
}

#[async_std::test]
async fn files_arrive_whole() -> Result {
    let client = client(true, None);
    for count in [0, 1, 4095, 65536, 3_000_001] {
        let name = format!("whole-{count}");
        let contents = file(&name, count);
        let mut response = client.get(url(&format!("files/{name}"))).await?;
        assert_eq!(response.status(), StatusCode::Ok);
        assert!(response.body_bytes().await? == contents, "{count} bytes");
    }
    Ok(())
}

#[async_std::test]
async fn requests_in_sequence_share_a_connection() -> Result {
    let contents = file("sequence", 10_000);
    let client = client(true, None);
    let mut connections = HashSet::new();
    for number in 1..=50 {
        let mut response = client.get(url("files/sequence")).await?;
        assert!(response.body_bytes().await? == contents);
        let (connection, request) = connection(&response);
        connections.insert(connection);
        assert_eq!(request, number);
    }
    assert_eq!(connections.len(), 1);
    Ok(())
}

#[async_std::test]
async fn concurrent_requests_do_not_mix() -> Result {
    let client = client(true, None);
    let mut tasks = Vec::new();
    for number in 0..32 {
        let client = client.clone();
        tasks.push(task::spawn(async move {
            let name = format!("concurrent-{number}");
            let contents = file(&name, 1000 + 4099 * number);
            for _ in 0..20 {
                let mut response = client.get(url(&format!("files/{name}"))).await?;
                assert!(response.body_bytes().await? == contents);
            }
            Result::Ok(())
        }));
    }
    for task in tasks {
        task.await?;
    }
    Ok(())
}

#[async_std::test]
async fn each_request_has_a_connection_without_keep_alive() -> Result {
    let contents = file("alone", 5000);
    let client = client(false, None);
    for _ in 0..30 {
        let mut response = client.get(url("files/alone")).await?;
        assert!(response.body_bytes().await? == contents);
        assert_eq!(connection(&response).1, 1);
    }
    Ok(())
}

#[async_std::test]
async fn end_of_stream_follows_last_answer() -> Result {
    let contents = file("short", 70_000);
    let address = variable("NGINX_ADDR");
    for _ in 0..10 {
        let mut stream = TcpStream::connect(&address).await?;
        for expected in [None, Some("close")] {
            let request = Request::new(Method::Get, Url::parse(&url("short-lived/short"))?);
            let mut response = async_h1::connect(stream.clone(), request).await?;
            assert!(response.body_bytes().await? == contents);
            let ends = response.header("Connection").map(|value| value.as_str()).filter(|value| *value == "close");
            assert_eq!(ends, expected);
        }
        assert_eq!(stream.read(&mut [0; 16]).await?, 0);
    }
    Ok(())
}

#[async_std::test]
async fn half_closed_connection_gets_the_answer() -> Result {
    let contents = file("half", 1_000_000);
    let mut stream = TcpStream::connect(variable("NGINX_ADDR")).await?;
    stream.write_all(b"GET /files/half HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    assert!(answer.ends_with(&contents));
    Ok(())
}

#[async_std::test]
async fn dropped_responses_do_not_affect_other_requests() -> Result {
    let contents = file("abandoned", 4_000_000);
    let client = client(true, None);
    for _ in 0..10 {
        let stream = TcpStream::connect(variable("NGINX_ADDR")).await?;
        let request = Request::new(Method::Get, Url::parse(&url("files/abandoned"))?);
        let mut response = async_h1::connect(stream, request).await?;
        let mut start = [0; 1000];
        response.read_exact(&mut start).await?;
        assert!(start == contents[..1000]);
        drop(response);
        let mut response = client.get(url("files/abandoned")).await?;
        assert!(response.body_bytes().await? == contents);
    }
    Ok(())
}

#[async_std::test]
async fn statuses_ranges_and_redirects_are_handled() -> Result {
    let contents = file("small", 2000);
    let client = client(true, None);
    let mut response = client.get(url("files/absent")).await?;
    assert_eq!(response.status(), StatusCode::NotFound);
    response.body_bytes().await?;
    let mut response = client.get(url("files/small")).header("Range", "bytes=100-299").await?;
    assert_eq!(response.status(), StatusCode::PartialContent);
    assert!(response.body_bytes().await? == contents[100..300]);
    let redirecting = surf::client().with(surf::middleware::Redirect::new(3));
    let mut response = redirecting.get(url("moved")).await?;
    assert_eq!(response.status(), StatusCode::Ok);
    assert!(response.body_bytes().await? == contents);
    Ok(())
}

#[async_std::test]
async fn bodies_pass_to_the_upstream_and_back() -> Result {
    upstream();
    let client = client(true, None);
    for path in ["upstream/echo", "buffered/echo"] {
        for count in [0, 1, 10_000, 2_000_000] {
            let contents = bytes(count);
            let mut response = client.post(url(path)).body(Body::from_bytes(contents.clone())).await?;
            assert_eq!(response.status(), StatusCode::Ok);
            assert!(response.body_bytes().await? == contents, "{path}, {count} bytes");
            // This body is sent in chunks, because its length is unknown.
            let reader = BufReader::new(async_std::io::Cursor::new(contents.clone()));
            let mut response = client.post(url(path)).body(Body::from_reader(reader, None)).await?;
            assert_eq!(response.status(), StatusCode::Ok);
            assert!(response.body_bytes().await? == contents, "{path}, {count} bytes, chunked");
            assert_eq!(response["X-From"].as_str(), if path.starts_with('u') { "127.0.0.1" } else { "" });
            // If nginx has received a whole short body together with the head, it forwards its
            // length.
            if path.starts_with('b') {
                assert_eq!(response["X-Length"].as_str(), format!("Some({count})"));
            } else if count == 2_000_000 {
                assert_eq!(response["X-Length"].as_str(), "None");
            }
        }
    }
    Ok(())
}

#[async_std::test]
async fn chunked_answers_pass_through() -> Result {
    upstream();
    let mut tasks = Vec::new();
    for number in 0..16 {
        tasks.push(task::spawn(async move {
            let client = client(true, None);
            for path in ["upstream", "buffered"] {
                let count = 100_003 * number;
                let mut response = client.get(url(&format!("{path}/chunked/{count}"))).await?;
                assert_eq!(response.len(), None);
                assert!(response.body_bytes().await? == bytes(count));
            }
            Result::Ok(())
        }));
    }
    for task in tasks {
        task.await?;
    }
    Ok(())
}

#[async_std::test]
async fn each_piece_of_an_answer_arrives_before_the_next_is_made() -> Result {
    let pieces = upstream();
    pieces.permit();
    let mut response = client(true, None).get(url("upstream/pieces")).await?;
    for number in 0..Pieces::ALL {
        let mut piece = [0];
        response.read_exact(&mut piece).await?;
        assert_eq!(piece[0], b'a' + number as u8);
        pieces.permit();
    }
    assert_eq!(response.read(&mut [0]).await?, 0);
    Ok(())
}

#[async_std::test]
async fn requests_without_an_answer_time_out() -> Result {
    upstream();
    let client = client(false, Some(Duration::from_millis(100)));
    for _ in 0..5 {
        assert!(client.get(url("upstream/never")).await.is_err());
    }
    let contents = file("after", 5000);
    let mut response = self::client(false, None).get(url("files/after")).await?;
    assert!(response.body_bytes().await? == contents);
    Ok(())
}

//! Small parts of the API that few other tests use: the I/O traits of handles and of references to
//! them, streams of accepted connections, stream adapters against iterator adapters, the length of
//! batches, and debug output, which must not panic or block (see RUSTSEC-2026-0204).

mod common;

use std::fmt::Debug;
use std::io::{IoSlice, IoSliceMut};
use std::os::unix::net::UnixStream as StdStream;

use common::{pair, run};
use netpoll::future::poll_fn;
use netpoll::io::{self, AsyncFd, BufWriter, Read, Write};
use netpoll::net::{self, RecvBatch, SendBatch, TcpListener, UdpSocket, pipe};
use netpoll::os::unix::net::{UnixListener, UnixStream};
use netpoll::prelude::*;
use netpoll::{rt, stream, task};
use std::pin::Pin;
use std::time::Duration;

/// Transfers two slices, flushes and closes, using only the traits.
async fn two_slices<W: Write + Unpin, R: Read + Unpin>(mut to: W, mut from: R) {
    let out = [IoSlice::new(b"one"), IoSlice::new(b"two")];
    let mut sent = poll_fn(|cx| Pin::new(&mut to).poll_write_vectored(cx, &out)).await.unwrap();
    while sent < 6 {
        sent += poll_fn(|cx| Pin::new(&mut to).poll_write(cx, &b"onetwo"[sent..])).await.unwrap();
    }
    poll_fn(|cx| Pin::new(&mut to).poll_flush(cx)).await.unwrap();
    let (mut first, mut rest) = ([0; 2], [0; 6]);
    let mut bufs = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut rest)];
    let mut got = poll_fn(|cx| Pin::new(&mut from).poll_read_vectored(cx, &mut bufs)).await.unwrap();
    let mut text = [first.as_slice(), &rest].concat();
    while got < 6 {
        got += poll_fn(|cx| Pin::new(&mut from).poll_read(cx, &mut text[got..])).await.unwrap();
    }
    assert_eq!(&text[..6], b"onetwo");
    poll_fn(|cx| Pin::new(&mut to).poll_close(cx)).await.unwrap();
}

fn wrapped() -> (AsyncFd<StdStream>, AsyncFd<StdStream>) {
    let (one, other) = StdStream::pair().unwrap();
    let wrap = |stream: StdStream| {
        stream.set_nonblocking(true).unwrap();
        AsyncFd::new(stream).unwrap()
    };
    (wrap(one), wrap(other))
}

#[test]
fn handles_and_references_read_and_write() {
    run(async {
        let (one, other) = pair().await;
        two_slices(&one, &other).await;
        let (one, other) = pair().await;
        two_slices(one, other).await;
        let (one, other) = UnixStream::pair().unwrap();
        two_slices(one, other).await;
        let (one, other) = wrapped();
        two_slices(&one, &other).await;
        let (one, other) = wrapped();
        two_slices(one, other).await;
    });
}

#[test]
fn memory_pipe_implements_io_traits() {
    run(async {
        let (mut one, mut other) = pipe().unwrap();
        let writes = task::spawn(async move {
            one.write_all(b"over").await.unwrap();
            poll_fn(|cx| Pin::new(&mut one).poll_flush(cx)).await.unwrap();
            poll_fn(|cx| Pin::new(&mut one).poll_close(cx)).await.unwrap();
        });
        let mut text = String::new();
        other.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "over");
        writes.await;
    });
}

#[test]
fn unix_incoming_is_a_stream() {
    run(async {
        let name = format!("\0netpoll-surface-{}", std::process::id());
        let listener = UnixListener::bind(&name).await.unwrap();
        assert!(listener.take_error().unwrap().is_none());
        let client = UnixStream::connect(&name).await.unwrap();
        client.write_all(b"x").await.unwrap();
        let mut incoming = listener.into_incoming();
        assert!(format!("{incoming:?}").contains("listener"));
        let server = incoming.next().await.unwrap().unwrap();
        assert_eq!(server.read(&mut [0; 4]).await.unwrap(), 1);
    });
}

#[test]
fn stream_adapters_match_iterator_adapters() {
    async fn all<T>(stream: impl Stream<Item = T>) -> Vec<T> {
        stream.collect().await
    }
    let numbers = || stream::from_iter(0..20);
    run(async {
        assert_eq!(all(numbers().filter(|n| n % 3 == 0)).await, (0..20).filter(|n| n % 3 == 0).collect::<Vec<_>>());
        assert_eq!(all(numbers().skip(7)).await, (7..20).collect::<Vec<_>>());
        assert_eq!(all(numbers().skip_while(|n| *n < 5)).await, (5..20).collect::<Vec<_>>());
        assert_eq!(all(numbers().step_by(6)).await, [0, 6, 12, 18]);
        assert_eq!(all(numbers().map_while(|n| (n < 3).then_some(n * 2))).await, [0, 2, 4]);
        assert_eq!(all(numbers().take(3).map(|n| stream::repeat(n).take(n)).flatten()).await, [1, 2, 2]);
        let sums = |sum: &mut i32, n: i32| {
            *sum += n;
            (*sum < 20).then_some(*sum)
        };
        assert_eq!(all(stream::from_iter(0..20).scan(0, sums)).await, (0..20).scan(0, sums).collect::<Vec<_>>());
    });
}

/// Asserts that the debug output is one line that begins with the name of the type.
#[track_caller]
fn shows(value: &dyn Debug, name: &str) {
    let text = format!("{value:?}");
    assert!(text.starts_with(name) && !text.contains('\n'), "{text}");
}

#[test]
fn debug_output_names_the_type() {
    run(async {
        let (one, _other) = pair().await;
        shows(&one, "TcpStream");
        shows(&one.read(&mut [0; 1]), "Read");
        let (left, right) = pipe().unwrap();
        shows(&left, "Pipe");
        shows(&right.read(&mut [0; 1]), "PipeRead");
        shows(&left.write(b"x"), "PipeWrite");
        let (wrapped, _other) = wrapped();
        shows(&wrapped, "AsyncFd");
        shows(&wrapped.readable(), "AsyncFdReadable");
        shows(&wrapped.writable().await.unwrap(), "AsyncFdReadyGuard");
        shows(&BufWriter::new(io::sink()), "BufWriter");
        shows(&rt::Builder::new(), "Builder");
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        shows(&socket, "UdpSocket");
        shows(&task::spawn(async {}), "JoinHandle");
        let name = format!("\0netpoll-surface-debug-{}", std::process::id());
        let listener = UnixListener::bind(&name).await.unwrap();
        shows(&listener, "UnixListener");
        shows(&listener.incoming(), "Incoming");
    });
}

#[test]
fn batches_report_their_length() {
    run(async {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (mut came, mut goes) = (RecvBatch::new(4, 100), SendBatch::default());
        assert_eq!((came.capacity(), came.len(), came.is_empty()), (4, 0, true));
        goes.push(b"one", socket.local_addr().unwrap());
        assert_eq!((goes.len(), goes.is_empty()), (1, false));
        assert_eq!(socket.send_many(&mut goes).await.unwrap(), 1);
        assert_eq!((goes.len(), goes.is_empty()), (0, true));
        assert_eq!(socket.recv_many(&mut came).await.unwrap(), 1);
        assert_eq!((came.capacity(), came.len(), came.is_empty()), (4, 1, false));
        goes.push(b"two", socket.local_addr().unwrap());
        came.clear();
        goes.clear();
        assert_eq!((came.len(), goes.len()), (0, 0));
    });
}

/// `main` uses `Debug` to print the error that it returns.
#[test]
fn error_debug_shows_display_text() {
    fn assert_plain(error: impl std::error::Error) {
        assert_eq!(format!("{error:?}"), error.to_string());
    }
    run(async {
        let listener = common::listener().await;
        let addr = listener.local_addr().unwrap();
        let taken = TcpListener::bind(addr).await.unwrap_err();
        let text = format!("listen tcp {addr}: bind: address already in use");
        assert_eq!(format!("{taken:?}"), format!("Custom {{ kind: AddrInUse, error: {text} }}"));
        assert_plain(taken.get_ref().unwrap());
        assert_plain(TcpListener::bind("127.0.0.1").await.unwrap_err().get_ref().unwrap());
        assert_plain(net::lookup_port("tcp", "no-such-service").await.unwrap_err().get_ref().unwrap());
        let never = std::future::pending::<()>();
        assert_plain(netpoll::future::timeout(Duration::ZERO, never).await.unwrap_err());
        let mut never = Box::pin(stream::pending::<()>().timeout(Duration::ZERO));
        assert_plain(never.next().await.unwrap().unwrap_err());
        assert_plain(rt::shutdown(Duration::ZERO).unwrap_err());
        let text = io::Cursor::new([0xFF]).read_to_string(&mut String::new()).await.unwrap_err();
        assert_plain(text.get_ref().unwrap());
    });
}

//! Counts the calls of recv(2) of a task that answers requests. The task makes one call per
//! request, because after a short read the next read waits without a call that would find no data.
//! An adapter that polls a further read before it writes the answer, as hyper does, also makes one
//! call per request. Whether the first wait on a new connection needs a call depends on the earlier
//! connections of the listener.
//!
//! A function of this binary replaces recv(2), so the binary has one test.
#![cfg(target_os = "linux")] // Elsewhere, data may follow a short read.
#![allow(unsafe_code)]

mod common;

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::future::poll_fn;
use std::io::{Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use common::run;
use netpoll::io::{Read, Write};
use netpoll::net::{TcpListener, TcpStream};
use netpoll::{rt, task};

static CALLS: AtomicUsize = AtomicUsize::new(0);

/// # Safety
/// Same as recv(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn recv(fd: c_int, buf: *mut c_void, len: usize, flags: c_int) -> isize {
    CALLS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the caller keeps the contract of recv(2). recvfrom(2) has the same contract if both
    // addresses are null.
    unsafe { libc::recvfrom(fd, buf, len, flags, std::ptr::null_mut(), std::ptr::null_mut()) }
}

/// The number of requests, or of connections, before the first one that is counted. After these
/// requests, a short read replaces the next call.
const FIRST: usize = 50;
/// The number of requests, or of connections, whose calls are counted.
const COUNTED: usize = 200;

/// How the server reads.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Future,
    Trait,
    /// Polls a further read before it writes the answer.
    Adapter,
}

/// Answers the requests of one connection. Returns the number of calls for the last [`COUNTED`]
/// requests.
async fn calls(listener: &TcpListener, way: Way) -> usize {
    let addr = listener.local_addr().unwrap();
    let client = std::thread::spawn(move || {
        // A file reads with read(2), which is not counted.
        let mut client = File::from(OwnedFd::from(std::net::TcpStream::connect(addr).unwrap()));
        for _ in 0..FIRST + COUNTED {
            // During this pause, the server begins to read the next request.
            std::thread::sleep(Duration::from_micros(200));
            client.write_all(b"ping").unwrap();
            client.read_exact(&mut [0; 4]).unwrap();
        }
    });
    let (stream, _) = listener.accept().await.unwrap();
    let mut before = 0;
    for answered in 0..FIRST + COUNTED {
        if answered == FIRST {
            before = CALLS.load(Ordering::Relaxed);
        }
        let mut buf = [0; 64];
        match way {
            Way::Future => assert_eq!(stream.read(&mut buf).await.unwrap(), 4),
            Way::Trait => assert_eq!(poll_fn(|cx| Pin::new(&mut &stream).poll_read(cx, &mut buf)).await.unwrap(), 4),
            Way::Adapter => {
                serve(&stream, &mut before).await;
                break;
            }
        }
        stream.write_all(b"pong").await.unwrap();
    }
    client.join().unwrap();
    CALLS.load(Ordering::Relaxed) - before
}

/// Answers the requests as hyper does: reads until a read must wait, and then writes, usually in
/// the same turn. After the first [`FIRST`] answers, stores the number of calls in `before`.
async fn serve(stream: &TcpStream, before: &mut usize) {
    let (mut answered, mut is_asked, mut buf) = (0, false, [MaybeUninit::uninit(); 64]);
    poll_fn(|cx| {
        while let Poll::Ready(count) = stream.poll_read_uninit(cx, &mut buf) {
            assert_eq!(count.unwrap(), 4);
            is_asked = true;
        }
        // On a busy machine, the turn may have to end before the write.
        if is_asked && let Poll::Ready(count) = Pin::new(&mut &*stream).poll_write(cx, b"pong") {
            assert_eq!(count.unwrap(), 4);
            (answered, is_asked) = (answered + 1, false);
            if answered == FIRST {
                *before = CALLS.load(Ordering::Relaxed);
            }
        }
        if answered == FIRST + COUNTED { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Answers one request on each connection, and the client then closes the connection. Returns the
/// number of calls for the last [`COUNTED`] connections.
async fn calls_of_connections() -> usize {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut before = 0;
    for served in 0..FIRST + COUNTED {
        if served == FIRST {
            before = CALLS.load(Ordering::Relaxed);
        }
        let mut client = File::from(OwnedFd::from(std::net::TcpStream::connect(addr).unwrap()));
        // The server finds the request at its first read.
        client.write_all(b"ping").unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let server = task::spawn(async move {
            let mut buf = [0; 64];
            while stream.read(&mut buf).await.unwrap() != 0 {
                stream.write_all(b"pong").await.unwrap();
            }
        });
        client.read_exact(&mut [0; 4]).unwrap();
        // During this pause, the server begins its second read.
        std::thread::sleep(Duration::from_micros(200));
        drop(client);
        server.await;
    }
    CALLS.load(Ordering::Relaxed) - before
}

#[test]
fn reader_of_requests_makes_one_call_per_request() {
    // On a back end that must be armed before each wait, the reads also make the call that finds no
    // data.
    if std::env::var("NETPOLL_BACKEND").is_ok_and(|name| !name.is_empty() && name != "epoll") {
        return;
    }
    rt::Builder::new().workers(1).start().unwrap();
    // On each connection, one call reads the request, and one the end of the stream.
    let counted = run(calls_of_connections());
    assert!((2 * COUNTED..2 * COUNTED + COUNTED / 2).contains(&counted), "{counted} calls for {COUNTED} connections");
    for way in [Way::Future, Way::Trait, Way::Adapter] {
        let calls = run(task::spawn(async move { calls(&TcpListener::bind("127.0.0.1:0").await.unwrap(), way).await }));
        // On a busy machine, some requests are read before the runtime has received their event,
        // and others in a new turn, because the last turn has used up its time.
        assert!((COUNTED..COUNTED + COUNTED / 2).contains(&calls), "{calls} calls for {COUNTED} requests, {way:?}");
    }
}

//! A conformance suite for connections: the properties that every implementation of
//! [`netpoll::net::Conn`] must have.
//!
//! Each property is an async function that takes the two ends of a new connection. If the property
//! does not hold, the function panics or never completes. In both cases, [`run`] panics. Dropping
//! the future of the function detaches the tasks that it has spawned. [`conn_suite!`] declares a
//! module with one test per property.
//!
//! ```
//! use netpoll::net::{self, Pipe};
//!
//! async fn pair() -> (Pipe, Pipe) {
//!     net::pipe().unwrap()
//! }
//!
//! netpoll_nettest::conn_suite!(my_conn, super::pair);
//! # fn main() {}
//! ```
//!
//! The properties are those that `nettest.TestConn` of golang.org/x/net/nettest checks.
#![forbid(unsafe_code)]

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use netpoll::future::timeout;
use netpoll::net::{Conn, is_closed, is_timeout};
use netpoll::task;

/// The time limit of a property, which takes far less time even on a busy machine.
const BOUND: Duration = Duration::from_secs(120);

/// Runs a property to completion.
///
/// # Panics
/// Panics if the property panics, or does not complete within two minutes.
pub fn run(property: impl Future<Output = ()>) {
    let ended = task::block_on(timeout(BOUND, property));
    assert!(ended.is_ok(), "the property did not complete within {BOUND:?}");
}

/// Returns a deadline that has passed.
fn past() -> Option<Instant> {
    Some(Instant::now())
}

/// Returns a deadline `millis` milliseconds from now.
fn soon(millis: u64) -> Option<Instant> {
    Some(Instant::now() + Duration::from_millis(millis))
}

#[track_caller]
fn assert_timeout<T: std::fmt::Debug>(result: io::Result<T>) {
    let error = result.expect_err("must time out");
    assert!(is_timeout(&error), "{error}");
}

/// Writes until a write fails. At some point a write has to wait, however much the connection
/// buffers.
async fn write_until_failure<C: Conn + Clone>(conn: &C) -> io::Error {
    write_and_count(conn).await.1
}

/// Writes until a write fails. Returns the number of bytes written and the error.
async fn write_and_count<C: Conn + Clone>(conn: &C) -> (usize, io::Error) {
    let chunk = [7; 16 << 10];
    let mut total = 0;
    loop {
        match conn.write(&chunk).await {
            Ok(count) => {
                assert_ne!(count, 0);
                total += count;
            }
            Err(error) => return (total, error),
        }
    }
}

/// Reads until the end of the stream or an error. Returns the number of bytes read.
async fn drain<C: Conn + Clone>(conn: &C) -> usize {
    let mut buf = [0; 16 << 10];
    let mut total = 0;
    while let Ok(count @ 1..) = conn.read(&mut buf).await {
        total += count;
    }
    total
}

async fn read_exact<C: Conn + Clone>(conn: &C, buf: &mut [u8]) -> io::Result<()> {
    let mut got = 0;
    while got < buf.len() {
        match conn.read(&mut buf[got..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => got += count,
        }
    }
    Ok(())
}

/// Checks that bytes arrive in both directions.
async fn round_trip<C: Conn + Clone>(one: &C, other: &C) {
    for (from, to) in [(one, other), (other, one)] {
        let writer = task::spawn({
            let from = from.clone();
            async move { from.write_all(b"there and back").await }
        });
        let mut buf = [0; 14];
        read_exact(to, &mut buf).await.unwrap();
        assert_eq!(&buf, b"there and back");
        writer.await.unwrap();
    }
}

/// Checks that 1 MiB, written in pieces of one size, arrives if it is read in pieces of another
/// size, that it can be sent back, and that the peer of a closed end reads end of stream.
///
/// # Panics
/// Panics, or never completes, if the property does not hold.
pub async fn basic_io<C: Conn + Clone>(one: C, other: C) {
    let data: Vec<u8> = (0..1 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let (sent, length) = (data.clone(), data.len());
    let writer = task::spawn(async move {
        for piece in sent.chunks(1024) {
            one.write_all(piece).await.unwrap();
        }
        let mut back = vec![0; length];
        read_exact(&one, &mut back).await.unwrap();
        one.force_close().await.unwrap();
        back
    });
    let mut there = Vec::new();
    let mut buf = [0; 1500];
    while there.len() < length {
        let count = other.read(&mut buf).await.unwrap();
        assert_ne!(count, 0);
        there.extend_from_slice(&buf[..count]);
    }
    assert!(there == data);
    for piece in there.chunks(777) {
        other.write_all(piece).await.unwrap();
    }
    assert!(writer.await == data);
    assert_eq!(other.read(&mut buf).await.unwrap(), 0, "end of stream");
    assert_eq!(other.read(&mut buf).await.unwrap(), 0, "and again");
}

/// Checks that a counter can be sent 500 times, by the two ends in turn, and that a close then ends
/// the peer's read.
///
/// # Panics
/// Panics, or never completes, if the property does not hold.
pub async fn ping_pong<C: Conn + Clone>(one: C, other: C) {
    async fn player<C: Conn + Clone>(conn: C) {
        let mut buf = [0; 8];
        loop {
            if read_exact(&conn, &mut buf).await.is_err() {
                return;
            }
            let number = u64::from_le_bytes(buf) + 1;
            if number >= 500 {
                conn.force_close().await.unwrap();
                return;
            }
            conn.write_all(&number.to_le_bytes()).await.unwrap();
        }
    }
    let second = task::spawn(player(other));
    one.write_all(&0u64.to_le_bytes()).await.unwrap();
    player(one).await;
    second.await;
}

/// Checks that, while data arrives, each read of ten tasks with short deadlines returns data or
/// times out, that at least one read returns data, and that a close of the other end ends its
/// writes with a closed error.
///
/// # Panics
/// Panics, or never completes, if the property does not hold.
pub async fn racy_read<C: Conn + Clone>(one: C, other: C) {
    let writer = task::spawn({
        let other = other.clone();
        async move { write_until_failure(&other).await }
    });
    one.set_read_deadline(soon(1)).unwrap();
    let readers: Vec<_> = (0..10)
        .map(|_| {
            let one = one.clone();
            task::spawn(async move {
                let (mut buf, mut ok) = ([0; 1024], 0);
                for _ in 0..30 {
                    match one.read(&mut buf).await {
                        Ok(count) => {
                            assert!(count > 0, "the stream ended before the close");
                            assert!(buf[..count].iter().all(|&byte| byte == 7));
                            ok += 1;
                        }
                        Err(error) => {
                            assert!(is_timeout(&error), "{error}");
                            one.set_read_deadline(soon(1)).unwrap();
                        }
                    }
                    buf.fill(0);
                }
                ok
            })
        })
        .collect();
    let mut ok = 0;
    for reader in readers {
        ok += reader.await;
    }
    assert_ne!(ok, 0);
    other.force_close().await.unwrap();
    assert!(is_closed(&writer.await));
}

/// Checks that each write of ten tasks with short deadlines writes data or times out, that at least
/// one writes data, and that the peer reads as many bytes as were written.
///
/// # Panics
/// Panics, or never completes, if the property does not hold.
pub async fn racy_write<C: Conn + Clone>(one: C, other: C) {
    let reader = task::spawn({
        let other = other.clone();
        async move { drain(&other).await }
    });
    one.set_write_deadline(soon(1)).unwrap();
    let writers: Vec<_> = (0..10)
        .map(|_| {
            let one = one.clone();
            task::spawn(async move {
                let mut sent = 0;
                for _ in 0..30 {
                    match one.write(&[7; 1024]).await {
                        Ok(count) => sent += count,
                        Err(error) => {
                            assert!(is_timeout(&error), "{error}");
                            one.set_write_deadline(soon(1)).unwrap();
                        }
                    }
                }
                sent
            })
        })
        .collect();
    let mut sent = 0;
    for writer in writers {
        sent += writer.await;
    }
    assert_ne!(sent, 0);
    one.force_close().await.unwrap();
    assert_eq!(reader.await, sent, "bytes written and bytes read differ");
}

/// Checks that an expired read deadline fails reads and does not affect writes.
///
/// # Panics
/// Panics, or never completes, if the property does not hold.
pub async fn read_timeout<C: Conn + Clone>(one: C, other: C) {
    let reader = task::spawn({
        let other = other.clone();
        async move { drain(&other).await }
    });
    one.set_read_deadline(past()).unwrap();
    assert_timeout(one.read(&mut [0; 16]).await);
    one.write_all(&[1; 1024]).await.unwrap();
    one.force_close().await.unwrap();
    assert_eq!(reader.await, 1024);
}

/// Checks that an expired write deadline fails writes and does not affect reads.
///
/// # Panics
/// Panics, or never completes, if the property does not hold.
pub async fn write_timeout<C: Conn + Clone>(one: C, other: C) {
    let writer = task::spawn({
        let other = other.clone();
        async move { other.write_all(&[1; 1024]).await }
    });
    one.set_write_deadline(past()).unwrap();
    assert_timeout(one.write(&[0; 16]).await);
    let mut buf = [0; 1024];
    read_exact(&one, &mut buf).await.unwrap();
    writer.await.unwrap();
}

/// Checks that a deadline in the past fails reads and writes immediately, and that the connection
/// is usable once the deadline is cleared.
///
/// # Panics
/// Panics, or never completes, if the property does not hold.
pub async fn past_timeout<C: Conn + Clone>(one: C, other: C) {
    one.set_deadline(past()).unwrap();
    for _ in 0..3 {
        assert_timeout(one.write(&[0; 1024]).await);
        assert_timeout(one.read(&mut [0; 1024]).await);
    }
    one.set_deadline(None).unwrap();
    round_trip(&one, &other).await;
}

/// Checks that setting a deadline that has passed ends a waiting read and a waiting write.
///
/// # Panics
/// Panics, or never completes, if the property does not hold.
pub async fn present_timeout<C: Conn + Clone>(one: C, _other: C) {
    let set = Arc::new(AtomicBool::new(false));
    let reader = task::spawn({
        let (one, set) = (one.clone(), set.clone());
        async move {
            let result = one.read(&mut [0; 1024]).await;
            assert!(set.load(Ordering::SeqCst), "ended before the deadline was set: {result:?}");
            assert_timeout(result);
        }
    });
    let writer = task::spawn({
        let (one, set) = (one.clone(), set.clone());
        async move {
            let error = write_until_failure(&one).await;
            assert!(set.load(Ordering::SeqCst), "ended before the deadline was set: {error}");
            assert_timeout::<()>(Err(error));
        }
    });
    task::sleep(Duration::from_millis(20)).await;
    set.store(true, Ordering::SeqCst);
    one.set_deadline(past()).unwrap();
    reader.await;
    writer.await;
}

/// Checks that a future deadline ends a waiting read and a waiting write when it expires and not
/// earlier, and that the connection is usable once the deadline is cleared.
///
/// # Panics
/// Panics, or never completes, if the property does not hold.
pub async fn future_timeout<C: Conn + Clone>(one: C, other: C) {
    let deadline = Instant::now() + Duration::from_millis(50);
    one.set_deadline(Some(deadline)).unwrap();
    let reader = task::spawn({
        let one = one.clone();
        async move {
            assert_timeout(one.read(&mut [0; 1024]).await);
            Instant::now()
        }
    });
    let (written, error) = write_and_count(&one).await;
    assert_timeout::<()>(Err(error));
    assert!(Instant::now() >= deadline && reader.await >= deadline);
    // The bytes written before the timeout are read first.
    one.set_deadline(None).unwrap();
    let mut got = 0;
    while got < written {
        let count = other.read(&mut [0; 16 << 10]).await.unwrap();
        assert!(count > 0, "end of stream after {got} of {written} bytes");
        got += count;
    }
    assert_eq!(got, written);
    round_trip(&one, &other).await;
}

/// Checks that a close ends a waiting read and a waiting write with a closed error long before
/// their deadline, that setting a deadline then fails with a closed error, and that a second close
/// succeeds.
///
/// # Panics
/// Panics, or never completes, if the property does not hold.
pub async fn close_timeout<C: Conn + Clone>(one: C, _other: C) {
    one.set_deadline(soon(3_600_000)).unwrap();
    let reader = task::spawn({
        let one = one.clone();
        async move { one.read(&mut [0; 1024]).await }
    });
    let writer = task::spawn({
        let one = one.clone();
        async move { write_until_failure(&one).await }
    });
    task::sleep(Duration::from_millis(20)).await;
    one.force_close().await.unwrap();
    assert!(is_closed(&reader.await.unwrap_err()));
    assert!(is_closed(&writer.await));
    assert!(is_closed(&one.set_deadline(None).unwrap_err()));
    one.force_close().await.unwrap();
}

/// Checks that a hundred tasks can concurrently read, write and set deadlines, and that each call
/// returns.
///
/// # Panics
/// Panics, or never completes, if the property does not hold.
pub async fn concurrent_methods<C: Conn + Clone>(one: C, other: C) {
    let echo = task::spawn(async move {
        let mut buf = [0; 1024];
        while let Ok(count @ 1..) = other.read(&mut buf).await {
            if other.write_all(&buf[..count]).await.is_err() {
                break;
            }
        }
    });
    let tasks: Vec<_> = (0..100)
        .map(|at| {
            let one = one.clone();
            task::spawn(async move {
                match at % 5 {
                    0 => drop(one.read(&mut [0; 256]).await),
                    1 => drop(one.write(&[0; 256]).await),
                    2 => one.set_deadline(soon(10)).unwrap(),
                    3 => one.set_read_deadline(soon(10)).unwrap(),
                    _ => one.set_write_deadline(soon(10)).unwrap(),
                }
            })
        })
        .collect();
    for task in tasks {
        task.await;
    }
    one.force_close().await.unwrap();
    echo.await;
}

/// Declares a module with one test per property. `$pair` is the path, from inside the module, of an
/// async function that returns the two ends of a new connection.
#[macro_export]
macro_rules! conn_suite {
    ($module:ident, $pair:path) => {
        $crate::conn_suite!(
            $module, $pair: basic_io ping_pong racy_read racy_write read_timeout write_timeout past_timeout
            present_timeout future_timeout close_timeout concurrent_methods
        );
    };
    ($module:ident, $pair:path: $($name:ident)*) => {
        mod $module {
            $(#[test]
            fn $name() {
                $crate::run(async {
                    let (one, other) = $pair().await;
                    $crate::$name(one, other).await;
                });
            })*
        }
    };
}

//! What must hold of any connection: the list of Go's golang.org/x/net/nettest, in our own words. `conn_suite!` runs all of it over one
//! kind of connection.
#![allow(dead_code, unreachable_pub)]

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use netpoll::net::{Pipe, TcpStream, is_closed, is_timeout};
use netpoll::task;

/// What the suite needs of a connection. Clones are one end.
pub trait Conn: Clone + Send + Sync + 'static {
    fn read(&self, buf: &mut [u8]) -> impl Future<Output = io::Result<usize>> + Send;
    fn write(&self, buf: &[u8]) -> impl Future<Output = io::Result<usize>> + Send;
    fn write_all(&self, buf: &[u8]) -> impl Future<Output = io::Result<()>> + Send;
    fn set_deadline(&self, deadline: Option<Instant>) -> io::Result<()>;
    fn set_read_deadline(&self, deadline: Option<Instant>) -> io::Result<()>;
    fn set_write_deadline(&self, deadline: Option<Instant>) -> io::Result<()>;
    fn close(&self) -> impl Future<Output = io::Result<()>> + Send;
}

macro_rules! conn {
    ($($type:ty),*) => {$(
        impl Conn for $type {
            async fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
                self.read(buf).await
            }

            async fn write(&self, buf: &[u8]) -> io::Result<usize> {
                self.write(buf).await
            }

            async fn write_all(&self, buf: &[u8]) -> io::Result<()> {
                self.write_all(buf).await
            }

            fn set_deadline(&self, deadline: Option<Instant>) -> io::Result<()> {
                self.set_deadline(deadline)
            }

            fn set_read_deadline(&self, deadline: Option<Instant>) -> io::Result<()> {
                self.set_read_deadline(deadline)
            }

            fn set_write_deadline(&self, deadline: Option<Instant>) -> io::Result<()> {
                self.set_write_deadline(deadline)
            }

            async fn close(&self) -> io::Result<()> {
                self.force_close().await
            }
        }
    )*};
}

conn!(TcpStream, Pipe);

fn past() -> Option<Instant> {
    Some(Instant::now())
}

fn soon(millis: u64) -> Option<Instant> {
    Some(Instant::now() + Duration::from_millis(millis))
}

#[track_caller]
fn assert_timeout<T: std::fmt::Debug>(result: io::Result<T>) {
    let error = result.expect_err("must time out");
    assert!(is_timeout(&error), "{error}");
}

/// Writes until it fails, for who wants a write that waits whatever the connection buffers.
async fn write_until_failure<C: Conn>(conn: &C) -> io::Error {
    let chunk = [7; 16 << 10];
    loop {
        match conn.write(&chunk).await {
            Ok(count) => assert_ne!(count, 0),
            Err(error) => return error,
        }
    }
}

/// Reads until the end or a failure: how much.
async fn drain<C: Conn>(conn: &C) -> usize {
    let mut buf = [0; 16 << 10];
    let mut total = 0;
    while let Ok(count @ 1..) = conn.read(&mut buf).await {
        total += count;
    }
    total
}

async fn read_exact<C: Conn>(conn: &C, buf: &mut [u8]) -> io::Result<()> {
    let mut got = 0;
    while got < buf.len() {
        match conn.read(&mut buf[got..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => got += count,
        }
    }
    Ok(())
}

/// Bytes go both ways.
async fn round_trip<C: Conn>(one: &C, other: &C) {
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

/// A megabyte crosses whole, in pieces of another size than it was written in, and comes back.
pub async fn basic_io<C: Conn>(one: C, other: C) {
    let data: Vec<u8> = (0..1 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let (sent, length) = (data.clone(), data.len());
    let writer = task::spawn(async move {
        for piece in sent.chunks(1024) {
            one.write_all(piece).await.unwrap();
        }
        let mut back = vec![0; length];
        read_exact(&one, &mut back).await.unwrap();
        one.close().await.unwrap();
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
    assert_eq!(other.read(&mut buf).await.unwrap(), 0, "the end of the stream");
    assert_eq!(other.read(&mut buf).await.unwrap(), 0, "and again");
}

/// A number goes to and fro, one more each time.
pub async fn ping_pong<C: Conn>(one: C, other: C) {
    async fn player<C: Conn>(conn: C) {
        let mut buf = [0; 8];
        loop {
            if read_exact(&conn, &mut buf).await.is_err() {
                return;
            }
            let number = u64::from_le_bytes(buf) + 1;
            if number >= 500 {
                conn.close().await.unwrap();
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

/// Reads with short deadlines race with data: each reads or times out.
pub async fn racy_read<C: Conn>(one: C, other: C) {
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
    other.close().await.unwrap();
    assert!(is_closed(&writer.await));
}

/// The same for writes.
pub async fn racy_write<C: Conn>(one: C, other: C) {
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
    one.close().await.unwrap();
    assert_eq!(reader.await, sent, "what writes counted is what was read");
}

/// A read deadline is none of the writes' business.
pub async fn read_timeout<C: Conn>(one: C, other: C) {
    let reader = task::spawn({
        let other = other.clone();
        async move { drain(&other).await }
    });
    one.set_read_deadline(past()).unwrap();
    assert_timeout(one.read(&mut [0; 16]).await);
    one.write_all(&[1; 1024]).await.unwrap();
    one.close().await.unwrap();
    assert_eq!(reader.await, 1024);
}

/// Nor the other way round.
pub async fn write_timeout<C: Conn>(one: C, other: C) {
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

/// A deadline in the past fails both ways at once, and leaves the connection whole.
pub async fn past_timeout<C: Conn>(one: C, other: C) {
    one.set_deadline(past()).unwrap();
    for _ in 0..3 {
        assert_timeout(one.write(&[0; 1024]).await);
        assert_timeout(one.read(&mut [0; 1024]).await);
    }
    one.set_deadline(None).unwrap();
    round_trip(&one, &other).await;
}

/// Both ways wait when the deadline is set to now.
pub async fn present_timeout<C: Conn>(one: C, _other: C) {
    let set = Arc::new(AtomicBool::new(false));
    let reader = task::spawn({
        let (one, set) = (one.clone(), set.clone());
        async move {
            let result = one.read(&mut [0; 1024]).await;
            assert!(set.load(Ordering::SeqCst), "not before: {result:?}");
            assert_timeout(result);
        }
    });
    let writer = task::spawn({
        let (one, set) = (one.clone(), set.clone());
        async move {
            let error = write_until_failure(&one).await;
            assert!(set.load(Ordering::SeqCst), "not before: {error}");
            assert_timeout::<()>(Err(error));
        }
    });
    task::sleep(Duration::from_millis(20)).await;
    set.store(true, Ordering::SeqCst);
    one.set_deadline(past()).unwrap();
    reader.await;
    writer.await;
}

/// A deadline to come ends both ways when it comes; then the connection serves again.
pub async fn future_timeout<C: Conn>(one: C, other: C) {
    let deadline = Instant::now() + Duration::from_millis(50);
    one.set_deadline(Some(deadline)).unwrap();
    let reader = task::spawn({
        let one = one.clone();
        async move {
            assert_timeout(one.read(&mut [0; 1024]).await);
            Instant::now()
        }
    });
    assert_timeout::<()>(Err(write_until_failure(&one).await));
    assert!(Instant::now() >= deadline && reader.await >= deadline);
    // What was written before is read first.
    one.set_deadline(None).unwrap();
    loop {
        // As long as something comes: the kernel may be late with it.
        other.set_read_deadline(soon(300)).unwrap();
        if drain(&other).await == 0 {
            break;
        }
    }
    other.set_read_deadline(None).unwrap();
    round_trip(&one, &other).await;
}

/// A close ends both, however far the deadline.
pub async fn close_timeout<C: Conn>(one: C, _other: C) {
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
    one.close().await.unwrap();
    assert!(is_closed(&reader.await.unwrap_err()));
    assert!(is_closed(&writer.await));
    assert!(is_closed(&one.set_deadline(None).unwrap_err()));
    one.close().await.unwrap();
}

/// All methods from many tasks at once: nothing hangs or breaks.
pub async fn concurrent_methods<C: Conn>(one: C, other: C) {
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
    one.close().await.unwrap();
    echo.await;
}

/// Runs the suite over what `$pair` (an async function) connects.
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
                $crate::common::run(async {
                    let (one, other) = $pair().await;
                    $crate::nettest::$name(one, other).await;
                });
            })*
        }
    };
}

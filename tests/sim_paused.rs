//! Tests `#[netpoll::test(paused)]`, which combines a virtual clock with real sockets (feature
//! `sim`).

use std::io::{self, Read as _, Write as _};
use std::panic::catch_unwind;
use std::time::{Duration, Instant, SystemTime};

use netpoll::io::{AsyncFd, NotPollable, Read as AsyncRead, Write as AsyncWrite};
use netpoll::net::{Dialer, TcpListener, TcpStream, UdpSocket, is_timeout};
use netpoll::prelude::*;
use netpoll::unix::UnixStream;
use netpoll::{future, sim, stream, task};

const HOUR: Duration = Duration::from_secs(3600);

async fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let client = TcpStream::connect(listener.local_addr()?).await?;
    Ok((client, listener.accept().await?.0))
}

#[netpoll::test(paused)]
async fn read_timeout_and_deadline_take_no_real_time() -> io::Result<()> {
    let (client, server) = pair().await?;
    server.set_read_timeout(Some(24 * HOUR))?;
    let (begin, wall) = (Instant::now(), SystemTime::now());
    assert!(is_timeout(&server.read(&mut [0; 1]).await.unwrap_err()));
    assert_eq!(begin.elapsed(), 24 * HOUR);
    assert_eq!(wall.elapsed().unwrap(), 24 * HOUR);
    client.set_read_deadline(Instant::now() + HOUR)?;
    assert!(is_timeout(&client.read(&mut [0; 1]).await.unwrap_err()));
    assert_eq!(begin.elapsed(), 25 * HOUR);
    Ok(())
}

#[netpoll::test(paused)]
async fn timers_fire_in_order_at_their_times() {
    let begin = Instant::now();
    let sleeps: Vec<_> = [3, 1, 2]
        .map(|hours| {
            task::spawn(async move {
                task::sleep(hours * HOUR).await;
                begin.elapsed()
            })
        })
        .into();
    for (hours, sleep) in [3, 1, 2].into_iter().zip(sleeps) {
        assert_eq!(sleep.await, hours * HOUR);
    }
    let mut ticks = stream::interval(HOUR);
    ticks.next().await;
    assert!(future::timeout(HOUR / 2, ticks.next()).await.is_err());
    assert_eq!(begin.elapsed(), 4 * HOUR + HOUR / 2);
    std::thread::sleep(HOUR / 2);
    assert_eq!(begin.elapsed(), 5 * HOUR, "a thread that sleeps moves the clock");
}

/// Transfers 6.4 MB while a timer is always armed. Returns the number of bytes read.
async fn transfer(mut writer: impl AsyncWrite + Unpin + Send + 'static, mut reader: impl AsyncRead + Unpin) -> usize {
    let writes = task::spawn(async move {
        for _ in 0..64 {
            writer.write_all(&[7; 100_000]).await.unwrap();
        }
    });
    let ticks = task::spawn(async {
        loop {
            task::sleep(Duration::from_nanos(1)).await;
        }
    });
    let mut count = 0;
    let mut buf = vec![0; 50_000];
    loop {
        match reader.read(&mut buf).await.unwrap() {
            0 => break,
            got => count += got,
        }
    }
    writes.await;
    ticks.cancel().await;
    count
}

#[netpoll::test(paused)]
async fn clock_stands_still_while_bytes_are_in_flight() -> io::Result<()> {
    let begin = Instant::now();
    let (client, server) = pair().await?;
    let guard = future::timeout(Duration::from_millis(1), async {
        let writes = task::spawn(async move {
            for _ in 0..64 {
                client.write_all(&[7; 100_000]).await.unwrap();
            }
        });
        let mut all = Vec::new();
        netpoll::io::ReadExt::read_to_end(&mut &server, &mut all).await.unwrap();
        writes.await;
        all.len()
    });
    assert_eq!(guard.await.expect("no time passes while bytes are in flight"), 6_400_000);
    assert_eq!(begin.elapsed(), Duration::ZERO);
    Ok(())
}

#[netpoll::test(paused)]
async fn transfers_complete_while_timers_are_always_due() -> io::Result<()> {
    let (client, server) = pair().await?;
    assert_eq!(transfer(client, server).await, 6_400_000);
    let (one, other) = UnixStream::pair()?;
    assert_eq!(transfer(one, other).await, 6_400_000);
    Ok(())
}

#[netpoll::test(paused)]
async fn all_events_are_taken_before_the_clock_advances() -> io::Result<()> {
    let (mut ends, mut readers) = (Vec::new(), Vec::new());
    for _ in 0..300 {
        let (one, other) = UnixStream::pair()?;
        ends.push(other);
        readers.push(task::spawn(async move { one.read(&mut [0; 1]).await }));
    }
    let hour = task::spawn(task::sleep(HOUR));
    // Each reader registers its socket, whose first event is that it is writable. These events wake
    // no task, and one wait takes only 64 of them.
    task::yield_now().await;
    let begin = Instant::now();
    ends[299].write_all(b"x").await?;
    assert_eq!(readers.pop().expect("300 readers").await?, 1);
    assert_eq!((begin.elapsed(), hour.is_finished()), (Duration::ZERO, false));
    Ok(())
}

#[netpoll::test(paused)]
async fn datagrams_arrive_before_the_deadline() -> io::Result<()> {
    let (one, other) = (UdpSocket::bind("127.0.0.1:0").await?, UdpSocket::bind("127.0.0.1:0").await?);
    for number in 0..100 {
        one.send_to(&[number], other.local_addr()?).await?;
        other.set_read_deadline(Instant::now() + Duration::from_millis(1))?;
        let mut buf = [0; 4];
        assert_eq!((other.recv_from(&mut buf).await?.0, buf[0]), (1, number));
    }
    other.set_read_deadline(Instant::now() + HOUR)?;
    assert!(is_timeout(&other.recv_from(&mut [0; 4]).await.unwrap_err()));
    Ok(())
}

#[netpoll::test(paused)]
async fn refused_dial_fails_and_unanswered_dial_times_out() -> io::Result<()> {
    // A socket that is bound and does not listen refuses connections, and keeps its port.
    let bound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    bound.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    let addr = bound.local_addr()?.as_socket().expect("an IP address");
    assert_eq!(TcpStream::connect(addr).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    // A listener with a full backlog does not answer.
    let full = netpoll::net::ListenConfig::new().backlog(1).listen("127.0.0.1:0").await?;
    let dialer = Dialer::new().timeout(HOUR);
    let mut open = Vec::new();
    let begin = Instant::now();
    let error = loop {
        match dialer.dial(full.local_addr()?).await {
            Ok(stream) => open.push(stream),
            Err(error) => break error,
        }
        assert!(open.len() < 100, "the backlog is not full after 100 dials");
    };
    assert!(is_timeout(&error), "{error}");
    assert_eq!(begin.elapsed(), HOUR);
    Ok(())
}

/// If no timer is armed, a paused test waits for other threads.
#[netpoll::test(paused)]
async fn paused_test_waits_for_other_threads() -> io::Result<()> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    let echo = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        let mut buf = [0; 5];
        stream.read_exact(&mut buf)?;
        stream.write_all(&buf)
    });
    let stream = TcpStream::connect(addr).await?;
    stream.write_all(b"hello").await?;
    let mut all = Vec::new();
    netpoll::io::ReadExt::read_to_end(&mut &stream, &mut all).await?;
    assert_eq!(all, b"hello");
    echo.join().expect("no panic")?;
    assert_eq!(task::spawn_blocking(|| 7).await, 7);
    Ok(())
}

#[netpoll::test(paused)]
async fn regular_file_is_not_pollable() -> io::Result<()> {
    let error = AsyncFd::new(std::fs::File::open("/proc/self/exe")?).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    assert!(error.get_ref().is_some_and(|inner| inner.is::<NotPollable>()), "{error}");
    Ok(())
}

fn message(payload: Box<dyn std::any::Any + Send>) -> String {
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

#[test]
fn misuse_of_a_paused_clock_is_reported() {
    let nested = catch_unwind(|| sim::paused(async || sim::paused(async || ())));
    assert!(message(nested.unwrap_err()).contains("cannot run inside another"));
    let blocking = catch_unwind(|| sim::paused(async || task::block_on(async {})));
    assert!(message(blocking.unwrap_err()).contains("`block_on` inside a simulation"));
    let inside = catch_unwind(|| task::block_on(async { sim::paused(async || 1) }));
    assert!(message(inside.unwrap_err()).contains("inside a runtime"));
}

/// After a paused test, its thread uses the real clock again.
#[test]
fn clock_is_real_after_a_paused_run() {
    let before = Instant::now();
    sim::paused(async || task::sleep(HOUR).await);
    assert!(before.elapsed() < HOUR);
    task::block_on(async {
        let (client, server) = pair().await.unwrap();
        client.write_all(b"real").await.unwrap();
        let mut buf = [0; 8];
        assert_eq!(server.read(&mut buf).await.unwrap(), 4);
    });
}

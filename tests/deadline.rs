//! Deadlines (invariant 9): an expired deadline takes precedence over data, every deadline wakes
//! the right waiters and fires on time, and a deadline can be moved at any time. Also std's
//! relative timeouts and the timeouts of connects. Most tests follow Go's timeout_test.go and
//! nettest.
//!
//! No deadline may fire early. Only `read_ends_at_its_deadline` and `write_ends_at_its_deadline`
//! assert that a deadline is not late: the operation ends within 110 % of its timeout. As in Go,
//! the timeout grows until this holds, because a busy machine is sometimes late.

#[path = "common/black_hole.rs"]
mod black_hole;
mod common;

use std::io;
use std::pin::pin;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use black_hole::BlackHole;
use common::by_hand::{
    Wakes, assert_closed, assert_timeout, between, both, connect_to, drive, fresh_pair, in_ms, narrow_pair, past,
    round_trip, trait_read, trait_write, trait_write_all,
};
use common::{fill, poll_now, poll_with, read_exact, run, within_a_timeout};
use netpoll::net::{TcpListener, TcpStream, is_timeout};
use netpoll::prelude::*;
use netpoll::{future, task};

/// Returns deadlines in the far future, the last of which is beyond the range of a clock in
/// nanoseconds.
fn far_deadlines() -> Vec<Instant> {
    let now = Instant::now();
    let mut deadlines = vec![now + Duration::from_secs(100 * 365 * 86_400)];
    // The last moment that an `Instant` can represent is beyond 2^64 ns. A clock in nanoseconds
    // must not wrap.
    let mut step = Duration::from_secs(1 << 62);
    let mut last = now;
    while step > Duration::from_nanos(1) {
        match last.checked_add(step) {
            Some(later) => last = later,
            None => step /= 2,
        }
    }
    deadlines.push(last);
    deadlines
}

// ---- connecting ----

/// Go: TestDialTimeout.
#[test]
fn connect_times_out_but_not_early() {
    run(async {
        let hole = BlackHole::new();
        let addr = hole.addr;
        for nanos in [1, 1_000, 1_000_000, 20_000_000] {
            let timeout = Duration::from_nanos(nanos);
            let start = Instant::now();
            let error = TcpStream::connect_timeout(&addr, timeout).await.unwrap_err();
            assert!(start.elapsed() >= timeout);
            assert!(is_timeout(&error));
            assert_eq!(error.to_string(), format!("dial tcp {addr}: i/o timeout"));
        }
        let error = TcpStream::connect_timeout(&addr, Duration::ZERO).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        // An outer timeout also ends a connect.
        assert!(future::timeout(Duration::from_millis(5), TcpStream::connect(addr)).await.is_err());
    });
}

/// Go: TestDialTimeoutMaxDuration.
#[test]
fn longest_connect_timeout_does_not_overflow() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seconds = Duration::from_secs(u64::MAX / 2);
        for timeout in [Duration::MAX, seconds, Duration::from_nanos(u64::MAX), Duration::from_nanos(i64::MAX as u64)] {
            let client = TcpStream::connect_timeout(&addr, timeout).await.unwrap();
            let (server, _) = listener.accept().await.unwrap();
            round_trip(&client, &server).await;
        }
    });
}

#[test]
fn connect_timeout_does_not_outlive_connect() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let connect = async |timeout| TcpStream::connect_timeout(&addr, timeout).await;
        let (client, timeout) = within_a_timeout(connect).await;
        task::sleep(timeout).await;
        // Connections of dials that timed out may precede this one in the queue.
        let server = loop {
            let (server, peer) = listener.accept().await.unwrap();
            if peer == client.local_addr().unwrap() {
                break server;
            }
        };
        round_trip(&client, &server).await;
    });
}

// ---- accepting ----

/// Go: TestAcceptTimeout.
#[test]
fn expired_deadline_precedes_queued_connection() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let _queued = std::net::TcpStream::connect(addr).unwrap();
        for deadline in [past(), Instant::now().checked_sub(Duration::from_secs(3600)).unwrap_or_else(past)] {
            listener.set_deadline(deadline).unwrap();
            for _ in 0..2 {
                let error = assert_timeout(listener.accept().await);
                assert_eq!(error.to_string(), format!("accept tcp {addr}: i/o timeout"));
            }
            assert_timeout(listener.incoming().next().await.unwrap());
        }
        listener.set_deadline(None).unwrap();
        listener.accept().await.unwrap();
        let deadline = in_ms(10);
        listener.set_deadline(deadline).unwrap();
        assert_timeout(listener.accept().await);
        assert!(Instant::now() >= deadline);
    });
}

/// Go: TestAcceptTimeoutMustReturn.
#[test]
fn deadline_set_later_ends_waiting_accept() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.set_deadline(None).unwrap();
        let deadline = in_ms(10);
        listener.set_deadline(deadline).unwrap();
        assert_timeout(listener.accept().await);
        assert!(Instant::now() >= deadline);
        // The deadline also ends an accept that already waits.
        listener.set_deadline(None).unwrap();
        let (wakes, waker) = Wakes::new();
        let mut accept = listener.accept();
        assert!(poll_with(&mut accept, &waker).is_pending());
        let deadline = in_ms(10);
        listener.set_deadline(deadline).unwrap();
        assert_timeout(drive(&mut accept, &wakes, &waker).await);
        assert!(Instant::now() >= deadline);
    });
}

/// Go: TestAcceptTimeoutMustNotReturn.
#[test]
fn accept_waits_after_deadline_is_cleared() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.set_deadline(past()).unwrap();
        listener.set_deadline(None).unwrap();
        let mut accept = listener.accept();
        assert!(future::timeout(Duration::from_millis(100), &mut accept).await.is_err());
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        accept.await.unwrap();
    });
}

// ---- reading and writing ----

/// Go: TestReadTimeout.
#[test]
fn expired_read_deadline_precedes_data() {
    run(async {
        let (client, server) = fresh_pair().await;
        let (local, peer) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        server.write_all(b"READ TIMEOUT TEST").await.unwrap();
        client.readable().await.unwrap();
        client.set_read_deadline(past()).unwrap();
        let mut buf = [0; 64];
        for _ in 0..2 {
            let error = assert_timeout(client.read(&mut buf).await);
            assert_eq!(error.to_string(), between("read", local, peer, "i/o timeout"));
        }
        assert_eq!(buf, [0; 64], "nothing was read");
        // Reads return the data. The next read waits until the deadline passes, and fails.
        let deadline = in_ms(50);
        client.set_read_deadline(deadline).unwrap();
        loop {
            match client.read(&mut buf[..4]).await {
                Ok(count) => assert!(count > 0),
                result => {
                    assert_timeout(result);
                    break;
                }
            }
        }
        assert!(Instant::now() >= deadline);
    });
}

/// Go: TestReadTimeoutMustNotReturn.
#[test]
fn read_waits_until_close_after_deadline_is_cleared() {
    run(async {
        let (client, _server) = fresh_pair().await;
        client.set_deadline(past()).unwrap();
        client.set_write_deadline(past()).unwrap();
        client.set_read_deadline(None).unwrap();
        let mut buf = [0; 1];
        let mut read = client.read(&mut buf);
        assert!(future::timeout(Duration::from_millis(100), &mut read).await.is_err());
        drop(client.force_close());
        assert_closed(read.await);
    });
}

/// Go: TestWriteTimeout.
#[test]
fn expired_write_deadline_precedes_buffer_space() {
    run(async {
        let (client, server) = fresh_pair().await;
        let (local, peer) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        client.set_write_deadline(past()).unwrap();
        for _ in 0..2 {
            let error = assert_timeout(client.write(b"WRITE TIMEOUT TEST").await);
            assert_eq!(error.to_string(), between("write", local, peer, "i/o timeout"));
        }
        assert_timeout(client.write_all(b"x").await);
        assert_timeout(client.write_vectored(&[io::IoSlice::new(b"x")]).await);
        assert_timeout(client.writable().await);
        let deadline = in_ms(10);
        client.set_write_deadline(deadline).unwrap();
        let mut sent = 0;
        loop {
            match client.write(&[7; 4096]).await {
                Ok(count) => sent += count,
                result => {
                    assert_timeout(result);
                    break;
                }
            }
        }
        assert!(Instant::now() >= deadline);
        // The data reported as written arrives, and nothing else.
        client.close_write().unwrap();
        let (mut got, mut buf) = (0, vec![0; 65536]);
        loop {
            match server.read(&mut buf).await.unwrap() {
                0 => break,
                count => got += count,
            }
        }
        assert_eq!(got, sent);
    });
}

/// Go: TestWriteTimeoutMustNotReturn.
#[test]
fn write_waits_until_close_after_deadline_is_cleared() {
    run(async {
        let (client, _server) = narrow_pair().await;
        client.set_deadline(past()).unwrap();
        client.set_read_deadline(past()).unwrap();
        client.set_write_deadline(None).unwrap();
        fill(&client).await;
        let big = vec![0; 1 << 20];
        let mut write = client.write_all(&big);
        assert!(future::timeout(Duration::from_millis(100), &mut write).await.is_err());
        drop(client.force_close());
        assert_closed(write.await);
    });
}

/// Checks, as Go does, that `operation` never fails before its deadline, and that for some timeout
/// from 1 ms to 4 s it fails within 110 % of the timeout.
async fn assert_ends_on_time(mut operation: impl AsyncFnMut(Instant)) {
    let mut timeout = Duration::from_millis(1);
    loop {
        let start = Instant::now();
        operation(start + timeout).await;
        let took = start.elapsed();
        assert!(took >= timeout, "{took:?} is before the deadline at {timeout:?}");
        if took <= timeout * 11 / 10 {
            return;
        }
        timeout = timeout * 5 / 4;
        assert!(timeout <= Duration::from_secs(4), "every wait took more than 110 % of its timeout, the last {took:?}");
    }
}

/// Go: TestReadTimeoutFluctuation.
#[test]
fn read_ends_at_its_deadline() {
    run(async {
        let (client, _server) = fresh_pair().await;
        assert_ends_on_time(async |deadline| {
            client.set_read_deadline(deadline).unwrap();
            assert_timeout(client.read(&mut [0; 256]).await);
        })
        .await;
    });
}

/// Go: TestWriteTimeoutFluctuation.
#[test]
fn write_ends_at_its_deadline() {
    run(async {
        let (client, _server) = narrow_pair().await;
        let buf = vec![0; 64 * 1024];
        assert_ends_on_time(async |deadline| {
            client.set_write_deadline(deadline).unwrap();
            loop {
                match client.write(&buf).await {
                    Ok(_) => {}
                    result => {
                        assert_timeout(result);
                        return;
                    }
                }
            }
        })
        .await;
    });
}

/// The timeouts of Go's test, in nanoseconds.
const VARIOUS: [u64; 19] = [
    1,
    2,
    5,
    50,
    100,
    200,
    500,
    750,
    1_000,
    5_000,
    25_000,
    250_000,
    500_000,
    5_000_000,
    25_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
];

/// Go: TestVariousDeadlines.
#[test]
fn various_deadlines_expire_but_not_early() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut handles = Vec::new();
        for nanos in VARIOUS {
            let (client, server) = connect_to(&listener).await;
            // The peer writes during the read, so that data and deadline compete.
            drop(task::spawn(async move { while server.write(&[0; 4096]).await.is_ok() {} }));
            handles.push(task::spawn(async move {
                let mut buf = vec![0; 32 * 1024];
                for _ in 0..3 {
                    let start = Instant::now();
                    client.set_read_deadline(start + Duration::from_nanos(nanos)).unwrap();
                    let error = loop {
                        match client.read(&mut buf).await {
                            Ok(count) => assert!(count > 0, "the stream has not ended"),
                            Err(error) => break error,
                        }
                    };
                    assert!(is_timeout(&error), "{error}");
                    assert!(start.elapsed() >= Duration::from_nanos(nanos));
                }
            }));
        }
        for handle in handles {
            handle.await;
        }
    });
}

/// Go: TestVariousDeadlines1Proc, TestVariousDeadlines4Proc.
#[test]
fn various_deadlines_expire_but_not_early_with_one_and_four_workers() {
    for workers in ["1", "4"] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "various_deadlines_expire_but_not_early", "--test-threads=1"]);
        let output = common::output(command.env("NETPOLL_THREADS", workers)).unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{workers} workers: {text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains("1 passed"), "{text}");
    }
}

/// Go: TestReadWriteProlongedTimeout.
#[test]
fn extended_deadlines_never_fire() {
    run(async {
        let (client, server) = fresh_pair().await;
        let reader = task::spawn(async move {
            let mut buf = [0; 1024];
            loop {
                client.set_read_deadline(Instant::now() + Duration::from_secs(60)).unwrap();
                if client.read(&mut buf).await.unwrap() == 0 {
                    return;
                }
            }
        });
        for _ in 0..1000 {
            server.set_write_deadline(Instant::now() + Duration::from_secs(60)).unwrap();
            server.write_all(&[0; 256]).await.unwrap();
        }
        server.close_write().unwrap();
        reader.await;
    });
}

/// Go: TestReadWriteProlongedTimeout.
#[test]
fn last_moment_extension_counts() {
    run(async {
        let (client, _server) = fresh_pair().await;
        let (wakes, waker) = Wakes::new();
        let mut buf = [0; 1];
        let mut read = client.read(&mut buf);
        client.set_read_deadline(in_ms(30_000)).unwrap();
        assert!(poll_with(&mut read, &waker).is_pending());
        // Each deadline is moved before it passes. A timer that fires too early must check the
        // deadline again.
        let mut last = in_ms(50);
        for _ in 0..20 {
            client.set_read_deadline(last).unwrap();
            task::sleep(Duration::from_millis(2)).await;
            if let Poll::Ready(result) = poll_with(&mut read, &waker) {
                // The machine was busy for the whole timeout.
                assert_timeout(result);
                return assert!(Instant::now() >= last);
            }
            last = in_ms(50);
        }
        client.set_read_deadline(last).unwrap();
        assert_timeout(drive(&mut read, &wakes, &waker).await);
        assert!(Instant::now() >= last);
    });
}

/// Go: TestReadWriteDeadlineRace.
#[test]
fn reads_and_writes_that_race_with_deadlines_succeed_or_time_out() {
    run(async {
        let (client, server) = fresh_pair().await;
        let stop = Arc::new(AtomicBool::new(false));
        let mover = task::spawn({
            let (client, stop) = (client.clone(), stop.clone());
            async move {
                while !stop.load(Ordering::Relaxed) {
                    client.set_deadline(Instant::now() + Duration::from_micros(2)).unwrap();
                    task::yield_now().await;
                }
            }
        });
        let echo = task::spawn(async move {
            let mut buf = [0; 1024];
            while let Ok(count @ 1..) = server.read(&mut buf).await {
                if server.write_all(&buf[..count]).await.is_err() {
                    break;
                }
            }
        });
        let reader = task::spawn({
            let client = client.clone();
            async move {
                let mut buf = [0; 1024];
                for _ in 0..1000 {
                    match client.read(&mut buf).await {
                        Ok(count) => assert!(count > 0),
                        result => drop(assert_timeout(result)),
                    }
                }
            }
        });
        for _ in 0..1000 {
            match client.write(&[0; 16]).await {
                Ok(count) => assert!(count > 0),
                result => drop(assert_timeout(result)),
            }
        }
        reader.await;
        stop.store(true, Ordering::Relaxed);
        mover.await;
        client.force_close().await.unwrap();
        echo.await;
    });
}

/// Go: TestConcurrentSetDeadline.
#[test]
fn concurrent_earlier_deadlines_keep_heap_valid() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut pairs = Vec::new();
        for _ in 0..10 {
            pairs.push(connect_to(&listener).await);
        }
        let streams: Arc<Vec<TcpStream>> = Arc::new(pairs.iter().map(|pair| pair.0.clone()).collect());
        let start = in_ms(10_000);
        let handles: Vec<_> = (0..8)
            .map(|_| {
                let streams = streams.clone();
                task::spawn(async move {
                    for step in 0..100 {
                        for stream in streams.iter() {
                            stream.set_read_deadline(start - Duration::from_millis(step)).unwrap();
                        }
                        task::yield_now().await;
                    }
                })
            })
            .collect();
        for handle in handles {
            handle.await;
        }
        for stream in streams.iter() {
            stream.set_read_deadline(in_ms(5)).unwrap();
        }
        for stream in streams.iter() {
            assert_timeout(stream.read(&mut [0; 1]).await);
        }
    });
}

/// Go: TestReadTimeoutUnblocksRead.
#[test]
fn past_deadline_wakes_waiting_read() {
    run(async {
        let (client, _server) = fresh_pair().await;
        let (wakes, waker) = Wakes::new();
        let mut buf = [0; 1];
        let mut read = client.read(&mut buf);
        assert!(poll_with(&mut read, &waker).is_pending());
        client.set_read_deadline(past()).unwrap();
        assert_eq!(wakes.count(), 1, "immediately, not at the next poll");
        assert_timeout(drive(&mut read, &wakes, &waker).await);
    });
}

// ---- state after a failed operation ----

/// Go: TestRacyRead.
#[test]
fn timed_out_read_leaves_buffer_untouched() {
    run(async {
        let (client, server) = fresh_pair().await;
        let writer = task::spawn(async move { while server.write(&[0xaa; 512]).await.is_ok() {} });
        let handles: Vec<_> = (0..10_u8)
            .map(|id| {
                let client = client.clone();
                task::spawn(async move {
                    let mut buf = [id; 1024];
                    for _ in 0..100 {
                        client.set_read_deadline(in_ms(1)).unwrap();
                        match client.read(&mut buf).await {
                            Ok(count) => {
                                assert!(buf[..count].iter().all(|&byte| byte == 0xaa));
                                assert!(
                                    buf[count..].iter().all(|&byte| byte == id),
                                    "the buffer was written beyond the count"
                                );
                            }
                            result => drop(assert_timeout(result)),
                        }
                        buf.fill(id);
                        task::yield_now().await;
                        assert_eq!(buf, [id; 1024], "the buffer was written after the read had ended");
                    }
                })
            })
            .collect();
        for handle in handles {
            handle.await;
        }
        client.force_close().await.unwrap();
        writer.await;
    });
}

/// Go: TestRacyWrite.
#[test]
fn timed_out_write_is_not_sent_later() {
    run(async {
        let (client, server) = fresh_pair().await;
        let reader = task::spawn(async move {
            let (mut buf, mut total) = (vec![0; 4096], 0);
            loop {
                match server.read(&mut buf).await.unwrap() {
                    0 => return total,
                    count => {
                        assert!(
                            buf[..count].iter().all(|&byte| byte == 0xaa),
                            "the buffer was read after the write had ended"
                        );
                        total += count;
                    }
                }
            }
        });
        let handles: Vec<_> = (0..10)
            .map(|_| {
                let client = client.clone();
                task::spawn(async move {
                    let (mut buf, mut total) = ([0; 1024], 0);
                    for _ in 0..100 {
                        buf.fill(0xaa);
                        client.set_write_deadline(in_ms(1)).unwrap();
                        match client.write(&buf).await {
                            Ok(count) => total += count,
                            result => drop(assert_timeout(result)),
                        }
                        buf.fill(0x55);
                        task::yield_now().await;
                    }
                    total
                })
            })
            .collect();
        let mut sent = 0;
        for handle in handles {
            sent += handle.await;
        }
        client.set_write_deadline(None).unwrap();
        client.close_write().unwrap();
        assert_eq!(reader.await, sent);
    });
}

/// Go: nettest ReadTimeout, WriteTimeout.
#[test]
fn read_and_write_deadlines_are_independent() {
    run(async {
        let (client, server) = fresh_pair().await;
        client.set_read_deadline(past()).unwrap();
        client.write_all(b"a").await.unwrap();
        read_exact(&server, &mut [0; 1]).await.unwrap();
        assert_timeout(client.read(&mut [0; 1]).await);
        client.set_read_deadline(None).unwrap();
        client.set_write_deadline(past()).unwrap();
        server.write_all(b"b").await.unwrap();
        read_exact(&client, &mut [0; 1]).await.unwrap();
        assert_timeout(client.write(b"c").await);
        client.set_write_deadline(None).unwrap();
        round_trip(&client, &server).await;
    });
}

/// Go: nettest PastTimeout.
#[test]
fn past_deadline_fails_both_directions_until_moved() {
    run(async {
        let (client, server) = fresh_pair().await;
        client.set_deadline(past()).unwrap();
        assert_timeout(client.write(&[0; 1024]).await);
        assert_timeout(client.read(&mut [0; 1024]).await);
        client.set_deadline(in_ms(60_000)).unwrap();
        round_trip(&client, &server).await;
        client.set_deadline(past()).unwrap();
        assert_timeout(client.write(&[0; 1024]).await);
        assert_timeout(client.read(&mut [0; 1024]).await);
        client.set_deadline(None).unwrap();
        round_trip(&client, &server).await;
    });
}

/// Go: nettest PresentTimeout.
#[test]
fn past_deadline_ends_waits_in_both_directions() {
    run(async {
        let (client, _server) = narrow_pair().await;
        fill(&client).await;
        let [(read_wakes, read_waker), (write_wakes, write_waker)] = [Wakes::new(), Wakes::new()];
        let (mut buf, bytes) = ([0; 1024], vec![0; 1 << 20]);
        let (mut read, mut write) = (client.read(&mut buf), client.write_all(&bytes));
        assert!(poll_with(&mut read, &read_waker).is_pending() && poll_with(&mut write, &write_waker).is_pending());
        client.set_read_deadline(past()).unwrap();
        client.set_write_deadline(past()).unwrap();
        assert!(read_wakes.count() > 0 && write_wakes.count() > 0, "immediately, not at the next poll");
        assert_timeout(drive(&mut read, &read_wakes, &read_waker).await);
        assert_timeout(drive(&mut write, &write_wakes, &write_waker).await);
    });
}

/// Go: nettest FutureTimeout.
#[test]
fn future_deadline_ends_waits_and_connection_survives() {
    run(async {
        let (client, server) = narrow_pair().await;
        let deadline = in_ms(100);
        client.set_deadline(deadline).unwrap();
        let writes = async {
            let mut sent = 0;
            loop {
                match client.write(&[0; 1024]).await {
                    Ok(count) => sent += count,
                    result => {
                        assert_timeout(result);
                        return sent;
                    }
                }
            }
        };
        let (read, sent) = both(async { client.read(&mut [0; 1024]).await }, writes).await;
        assert_timeout(read);
        assert!(Instant::now() >= deadline);
        client.set_deadline(None).unwrap();
        let mut junk = vec![0; sent];
        read_exact(&server, &mut junk).await.unwrap();
        round_trip(&client, &server).await;
    });
}

/// Go: nettest ConcurrentMethods.
#[test]
fn all_methods_run_concurrently() {
    run(async {
        let (client, server) = fresh_pair().await;
        let mut handles = Vec::new();
        for _ in 0..100 {
            let each: [fn(TcpStream) -> task::JoinHandle<()>; 7] = [
                |stream| task::spawn(async move { drop(stream.read(&mut [0; 1024]).await) }),
                |stream| task::spawn(async move { drop(stream.write(&[0; 1024]).await) }),
                |stream| task::spawn(async move { stream.set_deadline(in_ms(10)).unwrap() }),
                |stream| task::spawn(async move { stream.set_read_deadline(in_ms(10)).unwrap() }),
                |stream| task::spawn(async move { stream.set_write_deadline(in_ms(10)).unwrap() }),
                |stream| task::spawn(async move { assert!(stream.local_addr().is_ok()) }),
                |stream| task::spawn(async move { assert!(stream.peer_addr().is_ok()) }),
            ];
            handles.extend(each.map(|method| method(client.clone())));
        }
        for handle in handles {
            handle.await;
        }
        client.set_deadline(None).unwrap();
        // The stream may contain data of the writes, so it is read to its end.
        client.close_write().unwrap();
        let mut buf = [0; 4096];
        while server.read(&mut buf).await.unwrap() > 0 {}
        server.write_all(b"still here").await.unwrap();
        read_exact(&client, &mut [0; 10]).await.unwrap();
    });
}

// ---- invariant 9 ----

/// Invariant 9.
#[test]
fn expiry_ends_every_kind_of_waiting_operation() {
    run(async {
        let (client, _server) = narrow_pair().await;
        fill(&client).await;
        let (mut one, mut two) = ([0; 1], [0; 1]);
        let mut slices = [io::IoSliceMut::new(&mut two)];
        let (mut read, mut vectored) = (client.read(&mut one), client.read_vectored(&mut slices));
        let mut three = [0; 1];
        let (mut peek, mut readable, mut peer) = (client.peek(&mut three), client.readable(), client.peer_closed());
        assert!(poll_now(&mut read).is_pending() && poll_now(&mut vectored).is_pending());
        assert!(poll_now(&mut peek).is_pending() && poll_now(&mut readable).is_pending());
        assert!(poll_now(&mut peer).is_pending());
        // `write_all` holds the write lock, so that the other writes wait for the lock and not for
        // buffer space.
        let gather = [io::IoSlice::new(b"x")];
        let (mut all, mut write, mut gathered) =
            (client.write_all(&[0; 65536]), client.write(b"x"), client.write_vectored(&gather));
        let mut writable = client.writable();
        assert!(poll_now(&mut all).is_pending() && poll_now(&mut write).is_pending());
        assert!(poll_now(&mut gathered).is_pending() && poll_now(&mut writable).is_pending());
        let deadline = in_ms(20);
        client.set_deadline(deadline).unwrap();
        assert_timeout(read.await);
        assert_timeout(vectored.await);
        assert_timeout(peek.await);
        assert_timeout(readable.await);
        assert_timeout(peer.await);
        assert_timeout(write.await);
        assert_timeout(gathered.await);
        assert_timeout(writable.await);
        assert_timeout(all.await);
        assert!(Instant::now() >= deadline);
    });
}

/// Invariant 9.
#[test]
fn expiry_ends_trait_operations() {
    run(async {
        let (client, server) = narrow_pair().await;
        fill(&client).await;
        client.set_deadline(in_ms(20)).unwrap();
        let mut buf = [0; 1];
        let (read, wrote) = both(trait_read(&client, &mut buf), trait_write_all(&client, &[0; 65536])).await;
        assert_timeout(read);
        assert_timeout(wrote);
        // An expired deadline stays in force.
        assert_timeout(trait_read(&client, &mut [0; 1]).await);
        assert_timeout(trait_write(&client, &[0; 1]).await);
        // The deadline can be cleared.
        client.set_deadline(None).unwrap();
        server.write_all(b"x").await.unwrap();
        assert_eq!(trait_read(&client, &mut [0; 1]).await.unwrap(), 1);
    });
}

/// Invariant 9.
#[test]
fn expired_deadline_loses_no_data() {
    run(async {
        let (client, server) = fresh_pair().await;
        server.write_all(b"kept").await.unwrap();
        client.readable().await.unwrap();
        client.set_read_deadline(past()).unwrap();
        let mut buf = [0; 8];
        assert_timeout(client.read(&mut buf).await);
        assert_timeout(client.peek(&mut buf).await);
        assert_timeout(client.readable().await);
        client.set_read_deadline(None).unwrap();
        assert_eq!(client.peek(&mut buf).await.unwrap(), 4);
        assert_eq!(client.read(&mut buf).await.unwrap(), 4);
        assert_eq!(&buf[..4], b"kept");
        // Data that arrives while the deadline is expired is not lost either.
        client.set_read_deadline(past()).unwrap();
        assert_timeout(client.read(&mut buf).await);
        server.write_all(b"more").await.unwrap();
        client.set_read_deadline(None).unwrap();
        assert_eq!(client.read(&mut buf).await.unwrap(), 4);
        assert_eq!(&buf[..4], b"more");
    });
}

#[test]
fn expired_deadline_fails_empty_writes_but_not_empty_reads() {
    run(async {
        let (client, _server) = fresh_pair().await;
        client.set_deadline(past()).unwrap();
        // As in Go, an empty read makes no system call, whereas an empty write does.
        assert_eq!(client.read(&mut []).await.unwrap(), 0);
        assert_timeout(client.write(&[]).await);
    });
}

#[test]
fn farthest_deadlines_do_not_overflow() {
    run(async {
        let (client, server) = fresh_pair().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for deadline in far_deadlines() {
            client.set_deadline(deadline).unwrap();
            listener.set_deadline(deadline).unwrap();
            assert!(future::timeout(Duration::from_millis(5), client.read(&mut [0; 1])).await.is_err());
            assert!(future::timeout(Duration::from_millis(5), listener.accept()).await.is_err());
            round_trip(&client, &server).await;
            // The deadline is moved back to the near future.
            client.set_read_deadline(in_ms(1)).unwrap();
            assert_timeout(client.read(&mut [0; 1]).await);
        }
    });
}

// ---- relative timeouts ----

#[test]
fn read_timeout_restarts_for_each_read() {
    run(async {
        let (client, server) = fresh_pair().await;
        let timeout = Duration::from_millis(20);
        client.set_read_timeout(Some(timeout)).unwrap();
        assert_eq!(client.read_timeout().unwrap(), Some(timeout));
        let mut buf = [0; 8];
        for _ in 0..3 {
            let start = Instant::now();
            assert_timeout(client.read(&mut buf).await);
            assert!(start.elapsed() >= timeout);
        }
        for round in 0..3 {
            let start = Instant::now();
            match round {
                0 => drop(assert_timeout(client.peek(&mut buf).await)),
                1 => drop(assert_timeout(client.readable().await)),
                _ => drop(assert_timeout(client.read_vectored(&mut [io::IoSliceMut::new(&mut buf)]).await)),
            }
            assert!(start.elapsed() >= timeout);
        }
        // A timeout ends one operation only. A later read receives data.
        server.write_all(b"x").await.unwrap();
        client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        assert_eq!(client.read(&mut buf).await.unwrap(), 1);
        client.set_read_timeout(None).unwrap();
        assert_eq!(client.read_timeout().unwrap(), None);
        assert!(future::timeout(timeout * 2, client.read(&mut buf)).await.is_err());
    });
}

#[test]
fn read_timeout_applies_to_traits() {
    run(async {
        let (client, server) = fresh_pair().await;
        let timeout = Duration::from_millis(20);
        client.set_read_timeout(Some(timeout)).unwrap();
        let mut buf = [0; 8];
        for _ in 0..3 {
            let start = Instant::now();
            assert_timeout(trait_read(&client, &mut buf).await);
            assert!(start.elapsed() >= timeout);
        }
        client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        for _ in 0..100 {
            let (read, wrote) = both(trait_read(&client, &mut buf), server.write_all(b"x")).await;
            wrote.unwrap();
            assert_eq!(read.unwrap(), 1);
        }
        // The timeout of a dropped read does not end a later read.
        let timeout = Duration::from_millis(300);
        client.set_read_timeout(Some(timeout)).unwrap();
        let start = Instant::now();
        let given_up = future::timeout(Duration::from_millis(5), trait_read(&client, &mut buf)).await;
        assert!(given_up.is_err() || start.elapsed() >= timeout);
        server.write_all(b"y").await.unwrap();
        assert_eq!(trait_read(&client, &mut buf).await.unwrap(), 1);
        let begun = Instant::now();
        assert_timeout(trait_read(&client, &mut buf).await);
        assert!(begun.elapsed() >= timeout, "{:?} after the start of the dropped read", start.elapsed());
    });
}

#[test]
fn write_timeout_applies_to_futures_and_traits() {
    run(async {
        let (client, _server) = narrow_pair().await;
        fill(&client).await;
        let timeout = Duration::from_millis(20);
        client.set_write_timeout(Some(timeout)).unwrap();
        assert_eq!(client.write_timeout().unwrap(), Some(timeout));
        let big = vec![0; 1 << 20];
        let start = Instant::now();
        assert_timeout(client.write_all(&big).await);
        assert!(start.elapsed() >= timeout);
        let start = Instant::now();
        assert_timeout(trait_write_all(&client, &big).await);
        assert!(start.elapsed() >= timeout);
    });
}

#[test]
fn write_timeout_runs_while_waiting_for_lock() {
    run(async {
        let (client, _server) = narrow_pair().await;
        fill(&client).await;
        let big = vec![0; 1 << 20];
        // `all` waits without a timeout and holds the write lock.
        let mut all = client.write_all(&big);
        assert!(poll_now(&mut all).is_pending());
        let timeout = Duration::from_millis(20);
        client.set_write_timeout(Some(timeout)).unwrap();
        let start = Instant::now();
        assert_timeout(client.write(b"x").await);
        assert!(start.elapsed() >= timeout);
        let start = Instant::now();
        assert_timeout(client.write_all(b"x").await);
        assert!(start.elapsed() >= timeout);
        let start = Instant::now();
        assert_timeout(trait_write(&client, b"x").await);
        assert!(start.elapsed() >= timeout);
    });
}

#[test]
fn earlier_of_deadline_and_timeout_wins() {
    run(async {
        let (client, _server) = fresh_pair().await;
        let mut buf = [0; 1];
        let deadline = in_ms(20);
        client.set_read_deadline(deadline).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(3600))).unwrap();
        assert_timeout(client.read(&mut buf).await);
        assert!(Instant::now() >= deadline);
        client.set_read_deadline(in_ms(3_600_000)).unwrap();
        client.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let start = Instant::now();
        assert_timeout(client.read(&mut buf).await);
        assert!(start.elapsed() >= Duration::from_millis(20));
        // Two operations with different timeouts each end at their own time.
        client.set_read_deadline(None).unwrap();
        let mut other = [0; 1];
        let mut long = client.read(&mut other);
        client.set_read_timeout(Some(Duration::from_millis(60))).unwrap();
        let start = Instant::now();
        assert!(poll_now(&mut long).is_pending());
        client.set_read_timeout(Some(Duration::from_millis(15))).unwrap();
        assert_timeout(client.read(&mut buf).await);
        assert!(start.elapsed() >= Duration::from_millis(15));
        assert_timeout(pin!(long).await);
        assert!(start.elapsed() >= Duration::from_millis(60));
    });
}

#[test]
fn zero_timeout_is_rejected_and_longest_never_fires() {
    run(async {
        let (client, server) = fresh_pair().await;
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(client.set_read_timeout(Some(Duration::ZERO)).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(client.set_write_timeout(Some(Duration::ZERO)).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(client.read_timeout().unwrap(), Some(Duration::from_secs(5)), "a rejected timeout changes nothing");
        client.set_read_timeout(Some(Duration::MAX)).unwrap();
        client.set_write_timeout(Some(Duration::MAX)).unwrap();
        assert!(future::timeout(Duration::from_millis(5), client.read(&mut [0; 1])).await.is_err());
        round_trip(&client, &server).await;
    });
}

/// A timer may fire before the poll that armed it returns.
#[test]
fn shortest_timeouts_fire() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut handles = Vec::new();
        for id in 0..8_u64 {
            let (client, server) = connect_to(&listener).await;
            handles.push(task::spawn(async move {
                for round in 0..1000 {
                    client.set_read_timeout(Some(Duration::from_nanos(1 + 997 * id * (round % 16)))).unwrap();
                    let result = if round % 2 == 0 {
                        client.read(&mut [0; 1]).await
                    } else {
                        trait_read(&client, &mut [0; 1]).await
                    };
                    assert_timeout(result);
                }
                drop(server);
            }));
        }
        for handle in handles {
            handle.await;
        }
    });
}

/// Invariant 9. The timer of the old deadline is due, but may not have run yet, because this thread
/// has not waited since. The new deadline has passed too.
#[test]
fn deadline_moved_within_the_past_has_expired() {
    run(async {
        let (one, other) = fresh_pair().await;
        other.write_all(b"data").await.unwrap();
        one.readable().await.unwrap();
        for _ in 0..100 {
            let soon = Instant::now() + Duration::from_micros(200);
            one.set_read_deadline(soon).unwrap();
            while Instant::now() <= soon {
                std::hint::spin_loop();
            }
            one.set_read_deadline(Instant::now()).unwrap();
            assert_timeout(one.read(&mut [0; 1]).await);
            one.set_read_deadline(None).unwrap();
        }
    });
}

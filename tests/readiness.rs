//! `readable`, `writable` and `peer_closed` report the state of the socket and consume no data.
//! Several tasks can wait with them at the same time while other tasks read and write.

mod common;

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use common::by_hand::{Wakes, assert_closed, assert_timeout, drive, fresh_pair, in_ms, narrow_pair};
use common::{becomes, fill, in_flight, poll_now, poll_with, read_exact, run};
use netpoll::net::{TcpStream, is_timeout};
use netpoll::os::unix::net::UnixStream;
use netpoll::{future, rt, task};

#[test]
fn readable_reports_data_without_consuming_it() {
    run(async {
        let (client, server) = fresh_pair().await;
        let (wakes, waker) = Wakes::new();
        let mut readable = client.readable();
        assert!(poll_with(&mut readable, &waker).is_pending());
        server.write_all(b"data").await.unwrap();
        drive(&mut readable, &wakes, &waker).await.unwrap();
        // `readable` completes immediately each time, until the data is read.
        for _ in 0..3 {
            assert!(poll_now(&mut client.readable()).is_ready());
        }
        let mut buf = [0; 4];
        read_exact(&client, &mut buf).await.unwrap();
        assert_eq!(&buf, b"data");
        // A read that fills its buffer leaves the direction marked as ready. `readable` still
        // detects that there is no data.
        assert!(poll_now(&mut client.readable()).is_pending());
    });
}

#[test]
fn poll_readable_reports_data_and_deadline() {
    run(async {
        let (client, server) = fresh_pair().await;
        let (one, other) = UnixStream::pair().unwrap();
        let (wakes, waker) = Wakes::new();
        let mut cx = Context::from_waker(&waker);
        assert!(client.poll_writable(&mut cx).is_ready() && one.poll_writable(&mut cx).is_ready());
        assert!(client.poll_readable(&mut cx).is_pending() && one.poll_readable(&mut cx).is_pending());
        server.write_all(b"data").await.unwrap();
        other.write_all(b"data").await.unwrap();
        becomes("both waiters are woken", || wakes.count() >= 2).await;
        poll_fn(|cx| client.poll_readable(cx)).await.unwrap();
        poll_fn(|cx| one.poll_readable(cx)).await.unwrap();
        client.set_read_deadline(Instant::now()).unwrap();
        assert!(is_timeout(&poll_fn(|cx| client.poll_readable(cx)).await.unwrap_err()));
    });
}

#[test]
fn readable_waits_without_data_and_reports_eof_and_errors() {
    run(async {
        let (client, server) = fresh_pair().await;
        assert!(future::timeout(Duration::from_millis(20), client.readable()).await.is_err(), "there is no data");
        drop(server);
        client.readable().await.unwrap();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
        client.readable().await.unwrap();

        let (client, server) = fresh_pair().await;
        server.set_linger(Some(Duration::ZERO)).unwrap();
        server.force_close().await.unwrap();
        client.readable().await.unwrap();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn all_readable_waiters_are_woken() {
    run(async {
        let (client, server) = fresh_pair().await;
        let mut waits: Vec<_> = (0..8).map(|_| (client.readable(), Wakes::new())).collect();
        for (wait, (_, waker)) in &mut waits {
            assert!(poll_with(wait, waker).is_pending());
        }
        server.write_all(b"data").await.unwrap();
        // A waiter that was woken wakes the next one when it is polled.
        while !waits.is_empty() {
            becomes("a further waiter is woken", || waits.iter().any(|(_, (wakes, _))| wakes.count() > 0)).await;
            waits.retain_mut(|(wait, (wakes, _))| {
                let is_woken = wakes.count() > 0;
                assert!(!is_woken || matches!(poll_now(wait), Poll::Ready(Ok(()))));
                !is_woken
            });
        }
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 4);
    });
}

#[test]
fn reader_among_readable_waiters_reads() {
    run(async {
        let (client, server) = fresh_pair().await;
        let mut watchers: Vec<_> = (0..3)
            .map(|_| {
                let client = client.clone();
                task::spawn(async move { client.readable().await })
            })
            .collect();
        let reader = task::spawn({
            let client = client.clone();
            async move { client.read(&mut [0; 8]).await }
        });
        watchers.extend((0..3).map(|_| {
            let client = client.clone();
            task::spawn(async move { client.readable().await })
        }));
        let ids: Vec<_> = watchers.iter().map(|watcher| watcher.task().id()).chain([reader.task().id()]).collect();
        becomes("all tasks wait", || {
            let tasks = rt::inspect().tasks;
            tasks.iter().filter(|task| ids.contains(&task.id()) && task.polls() > 0).count() == ids.len()
        })
        .await;
        server.write_all(b"data").await.unwrap();
        assert_eq!(reader.await.unwrap(), 4);
        // Waiters that were not woken before the data was read are woken by the next data.
        server.write_all(b"more").await.unwrap();
        for watcher in watchers {
            watcher.await.unwrap();
        }
    });
}

/// After a read of exactly the available data, `readable` waits, although no short read showed that
/// the socket is empty. A second read waits at the same time, and is dropped after the first.
#[test]
fn readable_waits_after_reader_drained_socket() {
    run(async {
        let (client, server) = fresh_pair().await;
        for _ in 0..10 {
            let (wakes, waker) = Wakes::new();
            let (mut buf, mut other) = ([0; 4], [0; 4]);
            let mut read = client.read(&mut buf);
            let mut behind = client.read(&mut other);
            assert!(poll_with(&mut read, &waker).is_pending());
            assert!(poll_now(&mut behind).is_pending());
            server.write_all(b"data").await.unwrap();
            assert_eq!(drive(&mut read, &wakes, &waker).await.unwrap(), 4);
            drop(behind);
            let mut readable = client.readable();
            assert!(poll_now(&mut readable).is_pending(), "there is nothing to read");
            server.write_all(b"x").await.unwrap();
            readable.await.unwrap();
            assert_eq!(client.read(&mut [0; 4]).await.unwrap(), 1);
        }
    });
}

#[test]
fn writable_reports_buffer_space() {
    run(async {
        let (client, server) = narrow_pair().await;
        client.writable().await.unwrap();
        fill(&client).await;
        let (wakes, waker) = Wakes::new();
        let mut writable = client.writable();
        assert!(poll_with(&mut writable, &waker).is_pending());
        let handles: Vec<_> = (0..4)
            .map(|_| {
                let client = client.clone();
                task::spawn(async move { client.writable().await })
            })
            .collect();
        let drain = task::spawn(async move {
            let mut buf = vec![0; 65536];
            while server.read(&mut buf).await.unwrap() > 0 {}
        });
        drive(&mut writable, &wakes, &waker).await.unwrap();
        for handle in handles {
            handle.await.unwrap();
        }
        let Ok(wrote) = future::timeout(Duration::from_secs(60), client.write(b"x")).await else { panic!("no room") };
        assert_eq!(wrote.unwrap(), 1);
        client.close_write().unwrap();
        drain.await;
    });
}

#[test]
fn writable_reports_reset() {
    run(async {
        let (client, server) = narrow_pair().await;
        fill(&client).await;
        let (wakes, waker) = Wakes::new();
        let mut writable = client.writable();
        assert!(poll_with(&mut writable, &waker).is_pending());
        server.set_linger(Some(Duration::ZERO)).unwrap();
        server.force_close().await.unwrap();
        drive(&mut writable, &wakes, &waker).await.unwrap();
        assert!(client.write(b"x").await.is_err());
    });
}

#[test]
fn peer_closed_ignores_data() {
    run(async {
        let (client, server) = fresh_pair().await;
        let (wakes, waker) = Wakes::new();
        let mut closed = client.peer_closed();
        assert!(poll_with(&mut closed, &waker).is_pending());
        for _ in 0..3 {
            server.write_all(b"data").await.unwrap();
            client.readable().await.unwrap();
            assert!(poll_with(&mut closed, &waker).is_pending());
            assert!(!client.is_peer_closed());
        }
        assert_eq!(wakes.count(), 0, "data does not wake `peer_closed`");
        server.close_write().unwrap();
        drive(&mut closed, &wakes, &waker).await.unwrap();
        assert!(client.is_peer_closed());
        client.peer_closed().await.unwrap();
        // Data that the peer sent before the end of its stream can still be read and answered.
        let mut buf = [0; 12];
        read_exact(&client, &mut buf).await.unwrap();
        assert_eq!(client.read(&mut buf).await.unwrap(), 0);
        client.write_all(b"answer").await.unwrap();
        read_exact(&server, &mut buf[..6]).await.unwrap();
    });
}

#[test]
fn peer_closed_waits_while_reader_and_writer_run() {
    run(async {
        let (client, server) = fresh_pair().await;
        let watchers: Vec<_> = (0..3)
            .map(|_| {
                let client = client.clone();
                task::spawn(async move { client.peer_closed().await })
            })
            .collect();
        let reader = task::spawn({
            let client = client.clone();
            async move {
                let (mut buf, mut total) = ([0; 1000], 0);
                loop {
                    match client.read(&mut buf).await.unwrap() {
                        0 => return total,
                        count => total += count,
                    }
                }
            }
        });
        for _ in 0..100 {
            server.write_all(&[0; 1000]).await.unwrap();
            client.write_all(&[0; 10]).await.unwrap();
        }
        read_exact(&server, &mut [0; 1000]).await.unwrap();
        assert!(watchers.iter().all(|watcher| !watcher.is_finished()));
        drop(server);
        for watcher in watchers {
            watcher.await.unwrap();
        }
        assert_eq!(reader.await, 100_000);
    });
}

#[test]
fn peer_closed_reports_earlier_reset_and_eof() {
    run(async {
        for reset in [false, true] {
            let (client, server) = fresh_pair().await;
            if reset {
                server.set_linger(Some(Duration::ZERO)).unwrap();
            }
            server.force_close().await.unwrap();
            client.readable().await.unwrap();
            client.peer_closed().await.unwrap();
            assert!(client.is_peer_closed());
        }
    });
}

#[test]
fn close_ends_readiness_waits() {
    run(async {
        let (client, _server) = narrow_pair().await;
        fill(&client).await;
        let (mut readable, mut writable, mut closed) = (client.readable(), client.writable(), client.peer_closed());
        assert!(poll_now(&mut readable).is_pending() && poll_now(&mut writable).is_pending());
        assert!(poll_now(&mut closed).is_pending());
        client.force_close().await.unwrap();
        assert_closed(readable.await);
        assert_closed(writable.await);
        assert_closed(closed.await);
    });
}

#[test]
fn deadline_ends_readiness_waits() {
    run(async {
        let (client, _server) = narrow_pair().await;
        fill(&client).await;
        let (mut readable, mut writable, mut closed) = (client.readable(), client.writable(), client.peer_closed());
        assert!(poll_now(&mut readable).is_pending() && poll_now(&mut writable).is_pending());
        assert!(poll_now(&mut closed).is_pending());
        let deadline = in_ms(10);
        client.set_deadline(deadline).unwrap();
        assert_timeout(readable.await);
        assert_timeout(writable.await);
        assert_timeout(closed.await);
        assert!(Instant::now() >= deadline);
        client.set_deadline(None).unwrap();
        assert!(future::timeout(Duration::from_millis(5), client.readable()).await.is_err());
        assert!(future::timeout(Duration::from_millis(5), client.peer_closed()).await.is_err());
    });
}

/// Fills the send buffer with send(2) directly, so that the crate does not learn that it is full.
/// Waits like `common::fill` until no bytes are in flight.
async fn fill_directly(stream: &TcpStream) {
    let chunk = [7_u8; 4096];
    let mut idle = 0;
    while idle < 20 || idle < 1000 && in_flight(stream.as_fd()) > 0 {
        // SAFETY: the descriptor is open, and the chunk is readable.
        let sent = unsafe {
            libc::send(stream.as_raw_fd(), chunk.as_ptr().cast(), chunk.len(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
        };
        idle = if sent < 0 { idle + 1 } else { 0 };
        if idle > 0 {
            task::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Reads `reads` bytes from a socket with a full send buffer, and polls its `writable` twice, with
/// a yield in between. Returns whether the polls were ready.
async fn writable_after(reads: usize) -> (bool, bool) {
    let (client, server) = narrow_pair().await;
    client.write_all(&[1; 64]).await.unwrap();
    server.readable().await.unwrap();
    fill_directly(&server).await;
    task::spawn(async move {
        task::yield_now().await;
        for _ in 0..reads {
            server.read(&mut [0; 1]).await.unwrap();
        }
        let mut writable = pin!(server.writable());
        let first = poll_fn(|cx| Poll::Ready(writable.as_mut().poll(cx).is_ready())).await;
        task::yield_now().await;
        let second = poll_fn(|cx| Poll::Ready(writable.as_mut().poll(cx).is_ready())).await;
        drop(client);
        (first, second)
    })
    .await
}

/// Each run uses up a different part of the task's budget with reads. In one of the runs, the
/// budget ends between the call that finds the buffer full and the wait. The next poll must not
/// conclude from the previous poll that an event has occurred.
#[test]
fn writable_is_not_reported_after_a_yield_with_full_buffer() {
    run(async {
        let runs: Vec<_> = (0..=40).map(|reads| task::spawn(writable_after(reads))).collect();
        for (reads, run) in runs.into_iter().enumerate() {
            assert_eq!(run.await, (false, false), "after {reads} reads");
        }
    });
}

//! `write_all` and its write lock: queueing, hand-over, and dropped futures. Invariants 5 and 6.

mod common;

use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use common::by_hand::{Wakes, assert_closed, assert_timeout, drive, fresh_pair, narrow_pair, past, trait_write};
use common::{becomes, fill, poll_now, poll_with, read_exact, run};
use netpoll::io::Write;
use netpoll::net::TcpStream;
use netpoll::task;

/// Spawns a task that reads to the end of the stream and returns the bytes.
fn drain(stream: TcpStream) -> task::JoinHandle<Vec<u8>> {
    task::spawn(async move {
        let (mut all, mut buf) = (Vec::new(), vec![0; 65536]);
        loop {
            match stream.read(&mut buf).await.expect("read") {
                0 => return all,
                count => all.extend_from_slice(&buf[..count]),
            }
        }
    })
}

fn poll_write(stream: &TcpStream, waker: &Waker, buf: &[u8]) -> Poll<std::io::Result<usize>> {
    Pin::new(&mut &*stream).poll_write(&mut Context::from_waker(waker), buf)
}

// ---- bytes ----

/// Go: nettest BasicIO, PingPong.
#[test]
fn one_mebibyte_in_chunks_is_echoed_intact() {
    run(async {
        let (client, server) = fresh_pair().await;
        let want: Vec<u8> = (0..1_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let echo = task::spawn(async move {
            let mut buf = vec![0; 1024];
            loop {
                match server.read(&mut buf).await.unwrap() {
                    0 => return server.close_write().unwrap(),
                    count => server.write_all(&buf[..count]).await.unwrap(),
                }
            }
        });
        let got = drain(client.clone());
        for chunk in want.chunks(1024) {
            client.write_all(chunk).await.unwrap();
        }
        client.close_write().unwrap();
        echo.await;
        assert!(got.await == want, "not the bytes that were sent");
    });
}

/// Go: nettest BasicIO, PingPong.
#[test]
fn thousand_ping_pongs_complete() {
    run(async {
        let (client, server) = fresh_pair().await;
        let pong = task::spawn(async move {
            let mut buf = [0; 8];
            for round in 0..1000_u64 {
                read_exact(&server, &mut buf).await.unwrap();
                assert_eq!(u64::from_le_bytes(buf), 2 * round);
                server.write_all(&(2 * round + 1).to_le_bytes()).await.unwrap();
            }
        });
        let mut buf = [0; 8];
        for round in 0..1000_u64 {
            client.write_all(&(2 * round).to_le_bytes()).await.unwrap();
            read_exact(&client, &mut buf).await.unwrap();
            assert_eq!(u64::from_le_bytes(buf), 2 * round + 1);
        }
        pong.await;
    });
}

#[test]
fn vectored_writes_and_reads_keep_order() {
    run(async {
        let (client, server) = fresh_pair().await;
        let parts: Vec<Vec<u8>> = (0..1500_u32).map(|n| vec![n as u8; (n % 7) as usize]).collect();
        let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut rest = &slices[..];
        let mut sent = 0;
        while !rest.is_empty() {
            // Leading empty buffers are skipped, because they take no entry of a call.
            let empty = rest.iter().take_while(|slice| slice.is_empty()).count();
            rest = &rest[empty..];
            let most: usize = rest.iter().take(1024).map(|slice| slice.len()).sum();
            let count = client.write_vectored(rest).await.unwrap();
            assert_eq!(count, most, "a call takes as many buffers as the kernel permits, and there is room");
            sent += count;
            rest = &rest[rest.len().min(1024)..];
        }
        let want = parts.concat();
        let (mut one, mut two, mut got) = ([0; 100], [0; 333], Vec::new());
        while got.len() < sent {
            let mut bufs = [std::io::IoSliceMut::new(&mut one), std::io::IoSliceMut::new(&mut two)];
            let count = server.read_vectored(&mut bufs).await.unwrap();
            got.extend_from_slice(&one[..count.min(100)]);
            got.extend_from_slice(&two[..count.saturating_sub(100)]);
        }
        assert_eq!(got, want);
    });
}

// ---- invariant 6 ----

/// Invariant 6.
#[test]
fn write_all_of_many_tasks_does_not_interleave() {
    run(async {
        const LENGTH: usize = 20_000;
        let (client, server) = narrow_pair().await;
        let reader = drain(server);
        let handles: Vec<_> = (0..8_u8)
            .map(|id| {
                let client = client.clone();
                task::spawn(async move {
                    for round in 0..20_u8 {
                        let mut message = vec![id; LENGTH];
                        message[0] = round;
                        client.write_all(&message).await.unwrap();
                    }
                })
            })
            .collect();
        for handle in handles {
            handle.await;
        }
        client.close_write().unwrap();
        let all = reader.await;
        assert_eq!(all.len(), 8 * 20 * LENGTH);
        let mut next = [0; 8];
        for message in all.chunks(LENGTH) {
            let id = message[1];
            assert!(message[1..].iter().all(|&byte| byte == id), "two messages are mixed");
            assert_eq!(message[0], next[usize::from(id)], "messages of one task keep their order");
            next[usize::from(id)] += 1;
        }
    });
}

/// Invariant 6. Single writes, plain and vectored, appear between the messages of `write_all` and
/// not inside them.
#[test]
fn single_write_waits_for_write_all_to_finish() {
    run(async {
        const LENGTH: usize = 10_000;
        let (client, server) = narrow_pair().await;
        let reader = drain(server);
        let whole = task::spawn({
            let client = client.clone();
            async move {
                for _ in 0..50 {
                    client.write_all(&[1; LENGTH]).await.unwrap();
                }
            }
        });
        let single = task::spawn({
            let client = client.clone();
            async move {
                for round in 0..200 {
                    let count = match round % 3 {
                        0 => client.write(&[2]).await,
                        1 => trait_write(&client, &[2]).await,
                        _ => client.write_vectored(&[IoSlice::new(&[2])]).await,
                    };
                    assert_eq!(count.unwrap(), 1);
                }
            }
        });
        whole.await;
        single.await;
        client.close_write().unwrap();
        let all = reader.await;
        assert_eq!(all.len(), 50 * LENGTH + 200);
        for run in all.split(|&byte| byte == 2) {
            assert_eq!(run.len() % LENGTH, 0, "a byte was written into a message");
        }
    });
}

// ---- invariant 5 ----

/// Invariant 5. The edge wakes the first waiter, which needs the lock of an operation that waits
/// for the same edge. The holder of the lock must be woken too.
#[test]
fn edge_reaches_write_lock_holder() {
    run(async {
        for vectored in [false, true] {
            let (client, server) = narrow_pair().await;
            fill(&client).await;
            let (slices, big) = ([IoSlice::new(b"x")], vec![7; 1 << 20]);
            let (mut single, mut gathered) = (client.write(b"x"), client.write_vectored(&slices));
            let (first, first_waker) = Wakes::new();
            let polled = match vectored {
                false => poll_with(&mut single, &first_waker),
                true => poll_with(&mut gathered, &first_waker),
            };
            assert!(polled.is_pending());
            let mut all = client.write_all(&big);
            let (second, second_waker) = Wakes::new();
            assert!(poll_with(&mut all, &second_waker).is_pending());
            let reader = drain(server);
            becomes("the first waiter is woken", || first.count() == 1).await;
            let polled = match vectored {
                false => poll_with(&mut single, &first_waker),
                true => poll_with(&mut gathered, &first_waker),
            };
            assert!(polled.is_pending(), "the lock is held");
            drive(&mut all, &second, &second_waker).await.unwrap();
            let written = match vectored {
                false => drive(&mut single, &first, &first_waker).await,
                true => drive(&mut gathered, &first, &first_waker).await,
            };
            assert_eq!(written.unwrap(), 1);
            client.close_write().unwrap();
            assert!(reader.await.ends_with(&[7, b'x']));
        }
    });
}

/// Invariant 5.
#[test]
fn dropped_write_all_unlocks_waiting_writers() {
    run(async {
        let (client, server) = narrow_pair().await;
        let filled = fill(&client).await;
        let big = vec![7; 1 << 20];
        let mut all = client.write_all(&big);
        assert!(poll_now(&mut all).is_pending());
        let (wakes, waker) = Wakes::new();
        let mut next = client.write_all(b"whole");
        assert!(poll_with(&mut next, &waker).is_pending());
        assert_eq!(wakes.count(), 0);
        drop(all);
        assert_eq!(wakes.count(), 1, "the lock is free");
        let reader = drain(server);
        drive(&mut next, &wakes, &waker).await.unwrap();
        client.close_write().unwrap();
        let got = reader.await;
        assert!(got.len() >= filled + 5 && got.ends_with(b"whole"));
    });
}

/// Invariant 5.
#[test]
fn dropped_lock_waiter_passes_lock_on() {
    run(async {
        let (client, server) = narrow_pair().await;
        fill(&client).await;
        let big = vec![7; 1 << 20];
        let mut all = client.write_all(&big);
        assert!(poll_now(&mut all).is_pending());
        let wakers: Vec<_> = (0..4).map(|_| Wakes::new()).collect();
        let counts = || wakers.iter().map(|(wakes, _)| wakes.count()).collect::<Vec<_>>();
        let slices = [IoSlice::new(b"c")];
        let (mut a, mut b, mut c, mut d) =
            (client.write_all(b"a"), client.write(b"b"), client.write_vectored(&slices), client.write_all(b"d"));
        assert!(poll_with(&mut a, &wakers[0].1).is_pending());
        assert!(poll_with(&mut b, &wakers[1].1).is_pending());
        assert!(poll_with(&mut c, &wakers[2].1).is_pending());
        assert!(poll_with(&mut d, &wakers[3].1).is_pending());
        drop(all);
        assert_eq!(counts(), [1, 0, 0, 0], "one at a time, in order");
        // `a` was woken and is never polled again.
        drop(a);
        assert_eq!(counts(), [1, 1, 0, 0]);
        // `c` has not been woken yet, so dropping it removes it from the queue.
        drop(c);
        drop(b);
        assert_eq!(counts(), [1, 1, 0, 1]);
        let reader = drain(server);
        drive(&mut d, &wakers[3].0, &wakers[3].1).await.unwrap();
        client.close_write().unwrap();
        assert!(reader.await.ends_with(b"d"));
    });
}

/// Invariant 5.
#[test]
fn unlock_wakes_every_poll_waker_and_one_future() {
    run(async {
        let (client, server) = narrow_pair().await;
        fill(&client).await;
        let big = vec![7; 1 << 20];
        let wakers: Vec<_> = (0..5).map(|_| Wakes::new()).collect();
        let (first, first_waker) = Wakes::new();
        let (second, second_waker) = Wakes::new();
        for round in 1..=3 {
            let mut all = client.write_all(&big);
            assert!(poll_now(&mut all).is_pending());
            for (_, waker) in &wakers {
                assert!(poll_write(&client, waker, b"x").is_pending());
                // Polls again with the same waker.
                assert!(poll_write(&client, waker, b"x").is_pending());
            }
            let (mut one, mut two) = (client.write(b"x"), client.write(b"x"));
            assert!(poll_with(&mut one, &first_waker).is_pending());
            assert!(poll_with(&mut two, &second_waker).is_pending());
            let before: Vec<_> = wakers.iter().map(|(wakes, _)| wakes.count()).collect();
            drop(all);
            for ((wakes, _), before) in wakers.iter().zip(before) {
                assert!(wakes.count() > before, "round {round}: a poll's waker was not called");
            }
            assert_eq!((first.count(), second.count()), (round, round - 1), "one of the futures is woken");
            drop(one);
            assert_eq!(second.count(), round);
        }
        // No waiter is left, and the socket works as before.
        let reader = drain(server);
        client.write_all(b"end").await.unwrap();
        client.close_write().unwrap();
        assert!(reader.await.ends_with(b"end"));
    });
}

/// Invariant 5.
#[test]
fn abandoned_poll_does_not_block_lock() {
    run(async {
        let (client, server) = narrow_pair().await;
        fill(&client).await;
        let big = vec![7; 1 << 20];
        let mut all = client.write_all(&big);
        assert!(poll_now(&mut all).is_pending());
        // The unlock calls this poll's waker, and the poll is never repeated.
        assert!(poll_write(&client, Waker::noop(), b"x").is_pending());
        let (wakes, waker) = Wakes::new();
        let mut next = client.write(b"end");
        assert!(poll_with(&mut next, &waker).is_pending());
        drop(all);
        assert_eq!(wakes.count(), 1);
        let reader = drain(server);
        assert_eq!(drive(&mut next, &wakes, &waker).await.unwrap(), 3);
        client.close_write().unwrap();
        assert!(reader.await.ends_with(b"end"));
    });
}

/// Invariant 5.
#[test]
fn expiry_and_close_wake_lock_queue() {
    run(async {
        for closes in [false, true] {
            let (client, _server) = narrow_pair().await;
            fill(&client).await;
            let big = vec![7; 1 << 20];
            let mut all = client.write_all(&big);
            assert!(poll_now(&mut all).is_pending());
            let wakers: Vec<_> = (0..3).map(|_| Wakes::new()).collect();
            let (mut one, mut two) = (client.write(b"x"), client.write_all(b"x"));
            assert!(poll_with(&mut one, &wakers[0].1).is_pending());
            assert!(poll_with(&mut two, &wakers[1].1).is_pending());
            assert!(poll_write(&client, &wakers[2].1, b"x").is_pending());
            if closes {
                client.force_close().await.unwrap();
            } else {
                client.set_write_deadline(past()).unwrap();
            }
            // The holder was not polled and still has the lock.
            for (wakes, _) in &wakers {
                assert!(wakes.count() >= 1);
            }
            // The next turn has a whole budget, so that no poll returns Pending for lack of one.
            task::yield_now().await;
            let Poll::Ready(third) = poll_write(&client, &wakers[2].1, b"x") else { panic!("a writer still waits") };
            let (Poll::Ready(first), Poll::Ready(second)) = (poll_now(&mut one), poll_now(&mut two)) else {
                panic!("a writer still waits")
            };
            if closes {
                assert_closed(first);
                assert_closed(second);
                assert_closed(third);
                assert_closed(all.await);
            } else {
                assert_timeout(first);
                assert_timeout(second);
                assert_timeout(third);
                assert_timeout(all.await);
            }
        }
    });
}

/// Invariant 5. Writes are dropped after different times, in the middle of messages and in the
/// queue. The other writes finish.
#[test]
fn randomly_dropped_writers_never_stall_others() {
    run(async {
        let (client, server) = narrow_pair().await;
        let reader = drain(server);
        let client = Arc::new(client);
        let handles: Vec<_> = (0..8_u64)
            .map(|id| {
                let client = client.clone();
                task::spawn(async move {
                    for round in 0..100_u64 {
                        let message = vec![id as u8; 3000];
                        if (id + round) % 2 == 0 {
                            client.write_all(&message).await.unwrap();
                        } else {
                            let time = Duration::from_micros(37 * (round * 7 + id) % 1000);
                            let _ = netpoll::future::timeout(time, client.write_all(&message)).await;
                        }
                    }
                })
            })
            .collect();
        for handle in handles {
            handle.await;
        }
        client.write_all(b"end").await.unwrap();
        client.close_write().unwrap();
        let all = reader.await;
        assert!(all.len() >= 8 * 50 * 3000 && all.ends_with(b"end"));
    });
}

//! TCP streams: concurrent operations lose no data and no wake-up, and closed streams affect no
//! later streams.

mod common;

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::by_hand::Wakes;
use common::{becomes, child, echo, listener, op_error, pair, ping, poll_once, poll_with, read_exact, run};
use futures::io::{AsyncReadExt, AsyncWriteExt};
use netpoll::net::{TcpListener, TcpStream, is_closed, is_timeout};
use netpoll::{rt, task};

#[test]
fn ten_thousand_messages_are_echoed() {
    run(async {
        let (client, server) = pair().await;
        let echoed = task::spawn(async move { echo(&server).await });
        for round in 0..10_000_u32 {
            ping(&client, &[round as u8; 64]).await.unwrap();
        }
        client.close_write().unwrap();
        echoed.await.unwrap();
    });
}

#[test]
fn two_hundred_connections_echo_concurrently() {
    if !common::has_descriptors(1000) {
        return;
    }
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = task::spawn(async move {
            for _ in 0..200 {
                let (stream, _) = listener.accept().await.unwrap();
                drop(task::spawn(async move { echo(&stream).await }));
            }
        });
        let clients: Vec<_> = (0..200)
            .map(|id: u32| {
                task::spawn(async move {
                    let stream = TcpStream::connect(addr).await.unwrap();
                    for round in 0..50_u32 {
                        ping(&stream, &[(id + round) as u8; 100]).await.unwrap();
                    }
                })
            })
            .collect();
        for client in clients {
            client.await;
        }
        server.await;
    });
}

#[test]
fn read_deadline_and_timeout_end_reads() {
    run(async {
        let (client, _server) = pair().await;
        let mut buf = [0; 1];
        let start = Instant::now();
        client.set_read_deadline(start + Duration::from_millis(30)).unwrap();
        let error = client.read(&mut buf).await.unwrap_err();
        assert!(is_timeout(&error), "{error}");
        assert!(start.elapsed() >= Duration::from_millis(30));
        client.set_read_deadline(None).unwrap();
        client.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        assert!(is_timeout(&client.read(&mut buf).await.unwrap_err()));
    });
}

#[test]
fn close_wakes_a_waiting_read() {
    run(async {
        let (client, _server) = pair().await;
        let (wakes, waker) = Wakes::new();
        let mut buf = [0; 1];
        let mut read = client.read(&mut buf);
        assert!(poll_with(&mut read, &waker).is_pending());
        client.force_close().await.unwrap();
        becomes("the read is woken", || wakes.count() > 0).await;
        assert!(is_closed(&read.await.unwrap_err()));
    });
}

/// Go: TestTCPStress.
#[test]
fn ten_thousand_round_trips_on_two_connections() {
    run(async {
        let streams: Vec<_> = (0..2_u8)
            .map(|n| {
                task::spawn(async move {
                    let (client, server) = pair().await;
                    let server = task::spawn(async move { echo(&server).await });
                    let message = [n; 512];
                    for _ in 0..10_000 {
                        ping(&client, &message).await.unwrap();
                    }
                    client.close_write().unwrap();
                    server.await.unwrap();
                })
            })
            .collect();
        for stream in streams {
            stream.await;
        }
    });
}

/// Go: TestConnAndListener.
#[test]
fn streams_and_errors_have_both_addresses() {
    run(async {
        let listener = listener().await;
        let addr = listener.local_addr().unwrap();
        let client = TcpStream::connect(addr).await.unwrap();
        let (server, peer) = listener.accept().await.unwrap();
        assert_eq!(client.peer_addr().unwrap(), addr);
        assert_eq!(server.local_addr().unwrap(), addr);
        assert_eq!((server.peer_addr().unwrap(), client.local_addr().unwrap()), (peer, peer));
        send_both_ways(&client, &server).await;
        let network = |error: std::io::Error| {
            let op = op_error(&error);
            (op.network().to_owned(), op.source_addr().map(ToString::to_string), op.addr().map(ToString::to_string))
        };
        client.set_read_deadline(Instant::now()).unwrap();
        let error = client.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(network(error), ("tcp".to_owned(), Some(peer.to_string()), Some(addr.to_string())));
    });
}

async fn send_both_ways(client: &TcpStream, server: &TcpStream) {
    for (from, to) in [(client, server), (server, client)] {
        from.write_all(b"SERVER AND CLIENT").await.unwrap();
        let mut buf = [0; 17];
        read_exact(to, &mut buf).await.unwrap();
        assert_eq!(&buf, b"SERVER AND CLIENT");
    }
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Invariant 2. Every byte reaches a reader. The readers are of five kinds, and the futures of some
/// are dropped repeatedly. The writer waits until each byte is taken. A lost wake-up makes the test
/// hang.
#[test]
fn no_wakeup_is_lost_between_readers() {
    const ROUNDS: usize = 3000;
    run(async {
        let pairs: Vec<_> = (0..4_u64)
            .map(|seed| {
                task::spawn(async move {
                    let (client, server) = pair().await;
                    let taken = Arc::new(AtomicUsize::new(0));
                    let readers: Vec<_> = (0..5_u64)
                        .map(|kind| {
                            let (server, taken) = (server.clone(), taken.clone());
                            let mut state = 0x9e37_79b9 * (seed + 1) + kind;
                            task::spawn(async move {
                                loop {
                                    let mut buf = [0; 1];
                                    let patience = Duration::from_micros(random(&mut state) % 200);
                                    let read = match kind {
                                        0 => server.read(&mut buf).await,
                                        1 => AsyncReadExt::read(&mut &server, &mut buf).await,
                                        2 => netpoll::io::timeout(patience, server.read(&mut buf)).await,
                                        3 => match netpoll::io::timeout(patience, server.readable()).await {
                                            Ok(()) => netpoll::io::timeout(patience, server.read(&mut buf)).await,
                                            Err(error) => Err(error),
                                        },
                                        // Polls the read once and drops it in any state.
                                        _ => {
                                            let mut read = server.read(&mut buf);
                                            let polled = poll_once(&mut read).await;
                                            task::sleep(patience).await;
                                            drop(read);
                                            match polled {
                                                std::task::Poll::Ready(read) => read,
                                                std::task::Poll::Pending => Ok(2),
                                            }
                                        }
                                    };
                                    match read {
                                        Ok(0) => return,
                                        Ok(1) => drop(taken.fetch_add(1, Ordering::SeqCst)),
                                        Ok(_) => task::yield_now().await,
                                        Err(error) => assert!(is_timeout(&error), "{error}"),
                                    }
                                }
                            })
                        })
                        .collect();
                    for round in 1..=ROUNDS {
                        client.write_all(b"x").await.unwrap();
                        while taken.load(Ordering::SeqCst) < round {
                            task::yield_now().await;
                        }
                    }
                    drop(client);
                    for reader in readers {
                        reader.await;
                    }
                    assert_eq!(taken.load(Ordering::SeqCst), ROUNDS);
                })
            })
            .collect();
        for pair in pairs {
            pair.await;
        }
    });
}

/// Invariant 2. Freed buffer space wakes a writer that waits for it. The writers use `write_all`,
/// the traits, vectored writes, and writes that are dropped after 50 µs. The reader takes at most
/// 50,000 bytes at a time.
#[test]
fn no_wakeup_is_lost_between_writers() {
    const MESSAGES: usize = 300;
    run(async {
        let (client, server) = pair().await;
        let writers: Vec<_> = (0..6_u8)
            .map(|kind| {
                let client = client.clone();
                task::spawn(async move {
                    let message = vec![kind; 10_000];
                    for _ in 0..MESSAGES {
                        match kind {
                            0..=2 => client.write_all(&message).await.unwrap(),
                            3 => AsyncWriteExt::write_all(&mut &client, &message).await.unwrap(),
                            4 => {
                                let mut left = &message[..];
                                while !left.is_empty() {
                                    let halves =
                                        [IoSlice::new(&left[..left.len() / 2]), IoSlice::new(&left[left.len() / 2..])];
                                    let count = client.write_vectored(&halves).await.unwrap();
                                    left = &left[count..];
                                }
                            }
                            _ => {
                                let mut left = &message[..];
                                while !left.is_empty() {
                                    let limit = Duration::from_micros(50);
                                    match netpoll::io::timeout(limit, client.write(left)).await {
                                        Ok(count) => left = &left[count..],
                                        Err(error) => assert!(is_timeout(&error), "{error}"),
                                    }
                                }
                            }
                        }
                    }
                })
            })
            .collect();
        let reader = task::spawn(async move {
            let (mut counts, mut buf, mut state) = ([0; 6], vec![0; 50_000], 1);
            loop {
                let most = 1 + random(&mut state) as usize % buf.len();
                match server.read(&mut buf[..most]).await.unwrap() {
                    0 => return counts,
                    count => buf[..count].iter().for_each(|&kind| counts[kind as usize] += 1),
                }
            }
        });
        for writer in writers {
            writer.await;
        }
        drop(client);
        assert_eq!(reader.await, [MESSAGES * 10_000; 6]);
    });
}

/// Invariant 3. Connections are closed, and new ones get their descriptor numbers and slots, while
/// events, timers and wake-ups of the closed connections are in flight.
#[test]
fn stale_events_reach_no_new_socket() {
    run(async {
        let listener = Arc::new(listener().await);
        let addr = listener.local_addr().unwrap();
        let tasks: Vec<_> = (0..8_u64)
            .map(|seed| {
                let listener = listener.clone();
                task::spawn(async move {
                    let mut state = seed + 1;
                    for round in 0..200_u32 {
                        let (client, accepted) =
                            futures::future::join(TcpStream::connect(addr), listener.accept()).await;
                        // Another task may have accepted this client's connection, so `client` and
                        // `server` may be ends of two connections.
                        let (client, server) = (client.unwrap(), accepted.unwrap().0);
                        let waiting = task::spawn({
                            let server = server.clone();
                            async move { server.read(&mut [0; 16]).await }
                        });
                        let deadline = Instant::now() + Duration::from_micros(random(&mut state) % 300);
                        server.set_read_deadline(deadline).unwrap();
                        match random(&mut state) % 4 {
                            0 => client.write_all(&round.to_ne_bytes()).await.unwrap(),
                            1 => drop(client.set_linger(Some(Duration::ZERO))),
                            2 => drop(server.force_close().await),
                            _ => {}
                        }
                        drop((client, server));
                        if random(&mut state).is_multiple_of(2) {
                            // The wait ends in any case: with data, the end of the stream, a reset,
                            // a deadline or the closed error.
                            let _ = waiting.await;
                        } else {
                            waiting.cancel().await;
                        }
                    }
                })
            })
            .collect();
        // No event of the connections above reaches this connection.
        let (quiet, peer) = pair().await;
        let mut buf = [0; 8];
        let mut read = quiet.read(&mut buf);
        assert!(poll_once(&mut read).await.is_pending());
        for task in tasks {
            task.await;
        }
        assert!(poll_once(&mut read).await.is_pending(), "no event of a closed connection ends the read");
        assert!(!quiet.is_peer_closed());
        peer.write_all(b"x").await.unwrap();
        assert_eq!(read.await.unwrap(), 1);
    });
}

/// Invariant 3. Go: TestNonPollable. Sockets fail one after the other in the same slot, and do not
/// affect later sockets in the slot.
#[test]
fn socket_errors_do_not_leak_into_reused_slot() {
    child("socket_errors_do_not_leak_into_reused_slot", || {
        run(async {
            let (client, server) = pair().await;
            let echoed = task::spawn(async move { echo(&server).await });
            for round in 0..20_000 {
                let (left, right) = std::os::unix::net::UnixStream::pair().unwrap();
                let stream = TcpStream::from(OwnedFd::from(left));
                let mut buf = [0; 1];
                let mut read = stream.read(&mut buf);
                assert!(poll_once(&mut read).await.is_pending());
                // Closing one end with unread data resets the pair, so the events include EPOLLERR
                // and EPOLLHUP.
                drop(read);
                stream.write_all(b"unread").await.unwrap();
                drop(right);
                if round % 2 == 0 {
                    let _ = stream.read(&mut [0; 1]).await;
                }
                drop(stream);
                if round % 1000 == 0 {
                    ping(&client, b"alive").await.unwrap();
                    let (fresh, _peer) = pair().await;
                    assert!(!fresh.is_peer_closed() && fresh.take_error().unwrap().is_none());
                    assert!(poll_once(&mut fresh.read(&mut [0; 1])).await.is_pending());
                }
            }
            drop(client);
            echoed.await.unwrap();
        });
    });
}

/// Invariant 1: a waiting operation holds no reference to the descriptor, so the number is free as
/// soon as the stream is closed.
#[test]
fn forgotten_futures_hold_no_descriptor() {
    child("forgotten_futures_hold_no_descriptor", || {
        run(async {
            common::warm_up().await;
            for _ in 0..50 {
                let (client, server) = pair().await;
                let before = common::fd_count();
                let number = common::number(&server);
                // Polls the future once, and never again.
                let buf = Box::leak(Box::new([0; 1]));
                let leaked: &'static TcpStream = Box::leak(Box::new(server.clone()));
                let mut read = Box::pin(leaked.read(buf));
                assert!(poll_once(&mut read).await.is_pending());
                std::mem::forget(read);
                server.force_close().await.unwrap();
                assert_eq!(common::fd_count(), before - 1);
                // Creates the next owner of the descriptor number.
                let files: Vec<_> = (0..3).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
                assert!(files.iter().any(|file| file.as_raw_fd() == number), "{number} is among the lowest free ones");
                // The old stream does not touch the new owner of its number.
                assert!(is_closed(&leaked.read(&mut [0; 1]).await.unwrap_err()));
                assert!(is_closed(&leaked.write(b"x").await.unwrap_err()));
                assert!(is_closed(&leaked.set_nodelay(true).unwrap_err()));
                assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
            }
        });
    });
}

/// Invariant 6: messages of many tasks on one stream arrive whole.
#[test]
fn concurrent_write_alls_do_not_interleave() {
    run(async {
        let (client, server) = pair().await;
        let writers: Vec<_> = (0..8_u8)
            .map(|n| {
                let client = client.clone();
                task::spawn(async move {
                    for round in 0..50_usize {
                        let message = vec![n; 1 + (round * 7919) % 100_000];
                        client
                            .write_all(
                                &(message.len() as u32)
                                    .to_ne_bytes()
                                    .iter()
                                    .chain(&message)
                                    .copied()
                                    .collect::<Vec<_>>(),
                            )
                            .await
                            .unwrap();
                    }
                })
            })
            .collect();
        let reader = task::spawn(async move {
            for _ in 0..8 * 50 {
                let mut len = [0; 4];
                read_exact(&server, &mut len).await.unwrap();
                let mut message = vec![0; u32::from_ne_bytes(len) as usize];
                read_exact(&server, &mut message).await.unwrap();
                assert!(message.iter().all(|&byte| byte == message[0]), "two messages are mixed");
            }
        });
        for writer in writers {
            writer.await;
        }
        reader.await;
    });
}

/// Invariant 4: timers of cleared deadlines and of closed sockets have no effect.
#[test]
fn stale_timers_expire_no_new_deadline() {
    run(async {
        for round in 0..200_u64 {
            let (client, server) = pair().await;
            let soon = Instant::now() + Duration::from_micros(round * 10);
            client.set_read_deadline(soon).unwrap();
            // The deadline is cleared, or the socket is closed, before or at about the time at
            // which the deadline expires.
            if round % 3 == 0 {
                drop(client);
                let (client, _server) = pair().await;
                assert!(poll_once(&mut client.read(&mut [0; 1])).await.is_pending());
                task::sleep(Duration::from_micros(round * 10)).await;
                assert!(poll_once(&mut client.read(&mut [0; 1])).await.is_pending());
                continue;
            }
            task::sleep(Duration::from_micros(round * 10).saturating_sub(Duration::from_micros(60))).await;
            client.set_read_deadline(None).unwrap();
            let mut buf = [0; 1];
            let mut read = client.read(&mut buf);
            assert!(poll_once(&mut read).await.is_pending());
            server.write_all(b"x").await.unwrap();
            assert_eq!(read.await.unwrap(), 1);
        }
    });
}

/// Invariant 9.
#[test]
fn expired_deadline_precedes_data_and_keeps_it() {
    run(async {
        let (client, server) = pair().await;
        server.write_all(b"kept").await.unwrap();
        client.readable().await.unwrap();
        client.set_read_deadline(Instant::now()).unwrap();
        for _ in 0..3 {
            assert!(is_timeout(&client.read(&mut [0; 4]).await.unwrap_err()));
            assert!(is_timeout(&client.readable().await.unwrap_err()));
        }
        client.set_read_deadline(None).unwrap();
        let mut buf = [0; 8];
        assert_eq!(client.read(&mut buf).await.unwrap(), 4);
        assert_eq!(&buf[..4], b"kept");
    });
}

/// Invariant 5: dropping a future releases its lock.
#[test]
fn dropped_write_all_releases_write_lock() {
    run(async {
        for _ in 0..20 {
            let (client, server) = pair().await;
            common::fill(&client).await;
            let mut holder = client.write_all(b"never sent");
            assert!(poll_once(&mut holder).await.is_pending());
            let next = task::spawn({
                let client = client.clone();
                async move { client.write_all(b"next").await }
            });
            let queued = task::spawn({
                let client = client.clone();
                async move { AsyncWriteExt::write_all(&mut &client, b"poll").await }
            });
            // During this yield, the two writers usually begin to wait for the lock.
            task::yield_now().await;
            drop(holder);
            let reader = task::spawn(async move {
                let (mut all, mut buf) = (Vec::new(), vec![0; 1 << 16]);
                loop {
                    match server.read(&mut buf).await.unwrap() {
                        0 => return all,
                        count => all.extend_from_slice(&buf[..count]),
                    }
                }
            });
            next.await.unwrap();
            queued.await.unwrap();
            drop(client);
            let all = reader.await;
            let tail = &all[all.len() - 8..];
            assert!(tail == b"nextpoll" || tail == b"pollnext", "{tail:?}");
        }
    });
}

#[test]
fn listener_serves_thousand_connections() {
    if !common::has_descriptors(4000) {
        return;
    }
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = task::spawn(async move {
            for _ in 0..1000 {
                let (stream, _) = listener.accept().await.unwrap();
                drop(task::spawn(async move { echo(&stream).await }));
            }
        });
        let clients: Vec<_> = (0..1000_u32)
            .map(|n| {
                task::spawn(async move {
                    let stream = TcpStream::connect(addr).await.unwrap();
                    ping(&stream, &n.to_ne_bytes()).await.unwrap();
                    task::sleep(Duration::from_millis(1)).await;
                    ping(&stream, &n.to_ne_bytes()).await.unwrap();
                })
            })
            .collect();
        for client in clients {
            client.await;
        }
        server.await;
        becomes("most connections are closed", || rt::metrics().descriptors < 900).await;
    });
}

/// Invariant 2. An edge wakes one waiter. If this waiter needs the lock of another operation that
/// waits for the same edge, the other operation must be woken too.
#[test]
fn edge_reaches_lock_holder() {
    run(async {
        let (client, server) = pair().await;
        let chunk = vec![1; 1 << 20];
        common::fill(&client).await;
        // The first waiter holds no lock. The second holds the write lock.
        let mut first = client.write(&chunk);
        assert!(poll_once(&mut first).await.is_pending());
        let mut second = client.write_all(b"second");
        assert!(poll_once(&mut second).await.is_pending());
        let reader = task::spawn(async move {
            let mut buf = vec![0; 1 << 16];
            while server.read(&mut buf).await.unwrap() > 0 {}
        });
        // `FuturesUnordered` gives the second operation its own waker, so that it is polled only
        // when it is woken itself.
        let second = futures::stream::FuturesUnordered::from_iter([second]);
        let second = futures::StreamExt::collect::<Vec<_>>(second);
        let (first, second) = futures::future::join(first, second).await;
        assert!(first.unwrap() > 0 && second.iter().all(Result::is_ok));
        drop(client);
        reader.await;
    });
}

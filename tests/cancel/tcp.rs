//! Drops futures of TCP streams and listeners, tasks, sleeps and closes.

use std::cell::RefCell;
use std::future::Future;
use std::io::{IoSlice, IoSliceMut};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::by_hand::{
    Wakes, assert_closed, both, connect_to, drive, fresh_pair, narrow_pair, round_trip, trait_read, trait_write,
};
use crate::common::{becomes, fill, own_address, poll_now, poll_with, read_exact, run};
use crate::sweep::{At, alone, drop_at, no_operation_waits, sweep};
use netpoll::net::{TcpListener, TcpStream};
use netpoll::prelude::*;
use netpoll::{future, io, rt, task};

// ---- connecting and accepting ----

#[test]
fn dropped_connects_are_closed() {
    let _alone = alone();
    run(async {
        for with_timeout in [false, true] {
            sweep("connect", async |at| {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let addr = listener.local_addr().unwrap();
                let connect: Pin<Box<dyn Future<Output = _>>> = match with_timeout {
                    false => Box::pin(TcpStream::connect(addr)),
                    true => Box::pin(TcpStream::connect_timeout(&addr, Duration::from_secs(60))),
                };
                let outcome = drop_at(at, connect, async || {}).await;
                no_operation_waits("connect", at).await;
                let stream = match outcome.output {
                    Some(stream) => stream.unwrap(),
                    None => {
                        // The connection of the dropped connect may be in the queue. It is closed.
                        let stream = TcpStream::connect(addr).await.unwrap();
                        let own = stream.local_addr().unwrap();
                        loop {
                            let (other, peer) = listener.accept().await.unwrap();
                            if peer == own {
                                round_trip(&stream, &other).await;
                                return false;
                            }
                            assert_eq!(other.read(&mut [0; 1]).await.unwrap_or(0), 0, "a dropped connection is closed");
                        }
                    }
                };
                let (other, _) = listener.accept().await.unwrap();
                round_trip(&stream, &other).await;
                true
            })
            .await;
        }
    });
}

#[test]
fn dropped_connects_and_binds_by_name_leak_nothing() {
    let _alone = alone();
    run(async {
        sweep("bind", async |at| {
            let outcome = drop_at(at, TcpListener::bind("localhost:0"), async || {}).await;
            no_operation_waits("bind", at).await;
            match outcome.output {
                Some(listener) => {
                    connect_to(&listener.unwrap()).await;
                    true
                }
                None => false,
            }
        })
        .await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let name = format!("localhost:{}", listener.local_addr().unwrap().port());
        sweep("connect by name", async |at| {
            let outcome = drop_at(at, TcpStream::connect(name.as_str()), async || {}).await;
            no_operation_waits("connect by name", at).await;
            match outcome.output {
                Some(stream) => stream.unwrap().local_addr().is_ok(),
                None => false,
            }
        })
        .await;
    });
}

#[test]
fn dropped_accepts_lose_no_connection() {
    let _alone = alone();
    run(async {
        for streams in [false, true] {
            sweep("accept", async |at| {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let addr = listener.local_addr().unwrap();
                let client = RefCell::new(None);
                let connect = async || {
                    client.replace(Some(TcpStream::from(std::net::TcpStream::connect(addr).unwrap())));
                };
                let outcome = if streams {
                    let mut incoming = listener.incoming();
                    drop_at(at, async { incoming.next().await.unwrap() }, &connect).await
                } else {
                    drop_at(at, async { listener.accept().await.map(|(stream, _)| stream) }, &connect).await
                };
                no_operation_waits("accept", at).await;
                if !outcome.stirred {
                    connect().await;
                }
                let completed = outcome.output.is_some();
                let server = match outcome.output {
                    Some(stream) => stream.unwrap(),
                    None => listener.accept().await.unwrap().0,
                };
                let client = client.take().unwrap();
                round_trip(&client, &server).await;
                completed
            })
            .await;
        }
    });
}

// ---- reading ----

#[test]
fn dropped_reads_lose_no_data() {
    let _alone = alone();
    run(async {
        for kind in ["read", "vectored", "peek", "readable", "traits", "timeout"] {
            sweep(kind, async |at| {
                let (client, server) = fresh_pair().await;
                let (mut one, mut two) = ([0; 3], [0; 5]);
                let mut slices = [IoSliceMut::new(&mut one), IoSliceMut::new(&mut two)];
                let mut buf = [0; 8];
                let write = async || server.write_all(b"data").await.unwrap();
                let consumed = {
                    let read: Pin<Box<dyn Future<Output = usize> + '_>> = match kind {
                        "read" => Box::pin(async { client.read(&mut buf).await.unwrap() }),
                        "vectored" => Box::pin(async { client.read_vectored(&mut slices).await.unwrap() }),
                        "peek" => Box::pin(async { client.peek(&mut buf).await.unwrap() - 4 }),
                        "readable" => Box::pin(async { client.readable().await.map(|()| 0).unwrap() }),
                        "traits" => Box::pin(async { trait_read(&client, &mut buf).await.unwrap() }),
                        _ => Box::pin(async {
                            let read = future::timeout(Duration::from_secs(60), client.read(&mut buf));
                            io::timeout(Duration::from_secs(60), async { Ok(read.await.unwrap()) })
                                .await
                                .unwrap()
                                .unwrap()
                        }),
                    };
                    let outcome = drop_at(at, read, &write).await;
                    if kind != "traits" {
                        // The waker of a `poll_read` stays until the next event, because the call
                        // has no future whose drop would remove it.
                        no_operation_waits(kind, at).await;
                    }
                    if !outcome.stirred {
                        write().await;
                    }
                    outcome.output
                };
                let mut rest = [0; 4];
                match consumed {
                    Some(0) | None => read_exact(&client, &mut rest).await.unwrap(),
                    Some(count) => {
                        assert_eq!(count, 4);
                        rest = match kind {
                            "vectored" => [one[0], one[1], one[2], two[0]],
                            _ => buf[..4].try_into().unwrap(),
                        };
                    }
                }
                assert_eq!(&rest, b"data", "{kind} dropped {at:?}");
                round_trip(&client, &server).await;
                consumed.is_some()
            })
            .await;
        }
    });
}

/// Another read waits behind the dropped operation, which is a read or `readable`.
#[test]
fn dropped_read_passes_wakeup_to_next_read() {
    let _alone = alone();
    run(async {
        for readable in [false, true] {
            sweep("a read before another", async |at| {
                let (client, server) = fresh_pair().await;
                let (mut one, mut two) = ([0; 8], [0; 8]);
                let mut behind = client.read(&mut two);
                let (wakes, waker) = Wakes::new();
                let first: Pin<Box<dyn Future<Output = usize> + '_>> = match readable {
                    false => Box::pin(async { client.read(&mut one).await.unwrap() }),
                    true => Box::pin(async { client.readable().await.map(|()| 0).unwrap() }),
                };
                let write = async || server.write_all(b"data").await.unwrap();
                let outcome = drop_at(at, first, async || {
                    assert!(poll_with(&mut behind, &waker).is_pending());
                    write().await;
                })
                .await;
                if !outcome.stirred {
                    assert!(poll_with(&mut behind, &waker).is_pending());
                    write().await;
                } else if outcome.output == Some(4) {
                    write().await;
                }
                // A poll would read even if the wake-up were not passed on.
                becomes("the read behind is woken", || wakes.count() > 0).await;
                assert_eq!(drive(&mut behind, &wakes, &waker).await.unwrap(), 4);
                no_operation_waits("a read before another", at).await;
                round_trip(&client, &server).await;
                outcome.output.is_some()
            })
            .await;
        }
    });
}

#[test]
fn dropped_peer_closed_leaves_the_stream_usable() {
    let _alone = alone();
    run(async {
        sweep("peer_closed", async |at| {
            let (client, server) = fresh_pair().await;
            server.write_all(b"data").await.unwrap();
            let close = async || server.close_write().unwrap();
            let outcome = drop_at(at, async { client.peer_closed().await.unwrap() }, &close).await;
            no_operation_waits("peer_closed", at).await;
            if !outcome.stirred {
                close().await;
            }
            client.peer_closed().await.unwrap();
            let mut buf = [0; 4];
            read_exact(&client, &mut buf).await.unwrap();
            assert_eq!((&buf, client.read(&mut [0; 1]).await.unwrap()), (b"data", 0));
            client.write_all(b"back").await.unwrap();
            read_exact(&server, &mut buf).await.unwrap();
            outcome.output.is_some()
        })
        .await;
    });
}

// ---- writing ----

/// Reads until the end of the stream and returns the bytes.
async fn rest_of(server: &TcpStream) -> Vec<u8> {
    let (mut all, mut buf) = (Vec::new(), vec![0; 65536]);
    loop {
        match server.read(&mut buf).await.unwrap() {
            0 => return all,
            count => all.extend_from_slice(&buf[..count]),
        }
    }
}

/// Returns the write operation named `kind`.
fn start<'a>(
    kind: &str,
    client: &'a TcpStream,
    payload: &'a [u8],
    slices: &'a [IoSlice<'a>],
) -> Pin<Box<dyn Future<Output = usize> + 'a>> {
    match kind {
        "write" => Box::pin(async { client.write(payload).await.unwrap() }),
        "vectored" => Box::pin(async { client.write_vectored(slices).await.unwrap() }),
        "writable" => Box::pin(async { client.writable().await.map(|()| 0).unwrap() }),
        "traits" => Box::pin(async { trait_write(client, payload).await.unwrap() }),
        _ => Box::pin(async { client.write_all(payload).await.map(|()| payload.len()).unwrap() }),
    }
}

/// Writes an end mark, reads to the end of the stream, and checks the data before the end mark. An
/// operation that reported a number of bytes has written this number. A dropped `write_all` has
/// written up to `most` bytes, and any other dropped operation none. Then checks that the other
/// direction is usable.
async fn check_written(
    kind: &str,
    at: At,
    client: &TcpStream,
    server: &TcpStream,
    reported: Option<usize>,
    most: usize,
) {
    let finish = async {
        client.write_all(b"end").await.unwrap();
        client.close_write().unwrap();
    };
    let ((), got) = both(finish, rest_of(server)).await;
    let Some(payload) = got.strip_suffix(b"end") else { panic!("{kind} dropped {at:?}: the end is missing") };
    assert!(payload.iter().all(|&byte| byte == 7));
    match (reported, kind) {
        (Some(count), _) => assert_eq!(payload.len(), count, "{kind} dropped {at:?}"),
        (None, "write_all") => assert!(payload.len() <= most),
        (None, _) => assert_eq!(payload.len(), 0, "{kind} dropped {at:?}: nothing was written"),
    }
    server.write_all(b"back").await.unwrap();
    read_exact(client, &mut [0; 4]).await.unwrap();
}

#[test]
fn dropped_writes_leave_the_stream_usable() {
    let _alone = alone();
    run(async {
        for kind in ["write", "vectored", "write_all", "writable", "traits"] {
            sweep(kind, async |at| {
                let (client, server) = narrow_pair().await;
                let filled = fill(&client).await;
                let payload = vec![7; 10_000];
                let slices = [IoSlice::new(&payload[..100]), IoSlice::new(&payload[100..])];
                let drain = async || {
                    let mut junk = vec![0; filled];
                    read_exact(&server, &mut junk).await.unwrap();
                };
                let outcome = drop_at(at, start(kind, &client, &payload, &slices), &drain).await;
                if kind != "traits" {
                    no_operation_waits(kind, at).await;
                }
                if !outcome.stirred {
                    drain().await;
                }
                if outcome.output.is_none() && kind == "write_all" && outcome.stirred {
                    // `write_all` may have written a part, and would have continued when the peer
                    // had read it. Further polls repeat this case.
                    check_written(kind, at, &client, &server, None, payload.len()).await;
                    return at.polls >= 3;
                }
                check_written(kind, at, &client, &server, outcome.output, payload.len()).await;
                outcome.output.is_some()
            })
            .await;
        }
    });
}

/// Another operation holds the lock, and the event that the write waits for is the drop of that
/// operation.
#[test]
fn writes_dropped_behind_the_lock_write_nothing() {
    let _alone = alone();
    run(async {
        for kind in ["write", "vectored", "write_all", "traits"] {
            sweep(kind, async |at| {
                let (client, server) = narrow_pair().await;
                let filled = fill(&client).await;
                let payload = vec![7; 100];
                let slices = [IoSlice::new(&payload)];
                let mut holder = client.write_all(&[1; 65536]);
                assert!(poll_now(&mut holder).is_pending());
                let holder = RefCell::new(Some(holder));
                let release = async || drop(holder.borrow_mut().take());
                let outcome = drop_at(at, start(kind, &client, &payload, &slices), &release).await;
                if !outcome.stirred {
                    release().await;
                }
                if kind != "traits" {
                    no_operation_waits(kind, at).await;
                }
                let mut junk = vec![0; filled];
                read_exact(&server, &mut junk).await.unwrap();
                if outcome.output.is_none() && at.polls >= 2 {
                    // The second poll found the lock free and waited for room.
                    // `dropped_writes_leave_the_stream_usable` covers this wait.
                    check_written(kind, at, &client, &server, None, 0).await;
                    return true;
                }
                check_written(kind, at, &client, &server, outcome.output, 0).await;
                outcome.output.is_some()
            })
            .await;
        }
    });
}

// ---- closing ----

#[test]
fn dropped_close_still_closes() {
    let _alone = alone();
    run(async {
        for lingers in [false, true] {
            sweep("force_close", async |at| {
                let (client, server) = narrow_pair().await;
                let filled = fill(&client).await;
                if lingers {
                    client.set_linger(Some(Duration::from_secs(60))).unwrap();
                }
                let mut buf = [0; 1];
                let mut read = client.read(&mut buf);
                assert!(poll_now(&mut read).is_pending());
                let mut junk = vec![0; filled];
                let mut drained = false;
                let outcome = drop_at(at, client.force_close(), async || {
                    read_exact(&server, &mut junk).await.unwrap();
                    drained = true;
                })
                .await;
                // The call itself began the close, even if its future was dropped.
                assert_closed(read.await);
                if !drained {
                    read_exact(&server, &mut junk).await.unwrap();
                }
                assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 0);
                client.force_close().await.unwrap();
                outcome.output.is_some()
            })
            .await;
        }
        sweep("close", async |at| {
            let listener = TcpListener::bind(own_address()).await.unwrap();
            let addr = listener.local_addr().unwrap();
            let outcome = drop_at(at, listener.close(), async || {}).await;
            assert_closed(listener.accept().await);
            listener.close().await.unwrap();
            TcpListener::bind(addr).await.unwrap();
            outcome.output.is_some()
        })
        .await;
        sweep("close of the traits", async |at| {
            let (client, server) = fresh_pair().await;
            let mut stream = &client;
            let outcome = drop_at(at, io::WriteExt::close(&mut stream), async || {}).await;
            // This future closes the stream only when it is polled. After a drop, another call must
            // still be able to close it.
            io::WriteExt::close(&mut &client).await.unwrap();
            assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 0);
            outcome.output.is_some()
        })
        .await;
    });
}

// ---- tasks and time ----

#[test]
fn dropped_sleeps_timeouts_and_yields_do_not_disturb_later_ones() {
    let _alone = alone();
    run(async {
        sweep("sleep", async |at| {
            let sleep = drop_at(at, task::sleep(Duration::from_millis(1)), async || {}).await;
            // Another sleep may use the slot of the first sleep.
            task::sleep(Duration::from_millis(1)).await;
            sleep.output.is_some()
        })
        .await;
        sweep("timeout", async |at| {
            let (client, _server) = fresh_pair().await;
            let timeout = future::timeout(Duration::from_millis(2), client.readable());
            let outcome = drop_at(at, timeout, async || {}).await;
            no_operation_waits("timeout", at).await;
            if let Some(output) = &outcome.output {
                assert!(output.is_err());
            }
            outcome.output.is_some()
        })
        .await;
        sweep("yield_now", async |at| drop_at(at, task::yield_now(), async || {}).await.output.is_some()).await;
    });
}

#[test]
fn task_with_a_dropped_handle_continues_to_run() {
    let _alone = alone();
    run(async {
        for blocking in [false, true] {
            sweep("JoinHandle", async |at| {
                let done = Arc::new(AtomicBool::new(false));
                let handle = {
                    let done = done.clone();
                    match blocking {
                        true => task::spawn_blocking(move || {
                            std::thread::sleep(Duration::from_millis(2));
                            done.store(true, Ordering::SeqCst);
                            5
                        }),
                        false => task::spawn(async move {
                            task::sleep(Duration::from_millis(2)).await;
                            done.store(true, Ordering::SeqCst);
                            5
                        }),
                    }
                };
                let outcome = drop_at(at, handle, async || {}).await;
                becomes("the task has ended", || done.load(Ordering::SeqCst)).await;
                outcome.output.is_some_and(|output| output == 5)
            })
            .await;
        }
    });
}

#[test]
fn dropped_cancellation_still_drops_the_task() {
    let _alone = alone();
    run(async {
        sweep("cancel", async |at| {
            /// Reports that the task's future is dropped.
            struct Gone(Arc<AtomicBool>);
            impl Drop for Gone {
                fn drop(&mut self) {
                    self.0.store(true, Ordering::SeqCst);
                }
            }
            let (client, server) = fresh_pair().await;
            let gone = Arc::new(AtomicBool::new(false));
            let handle = task::spawn({
                let (client, gone) = (client.clone(), Gone(gone.clone()));
                async move {
                    let _gone = gone;
                    client.read(&mut [0; 1]).await
                }
            });
            becomes("the task waits", || rt::metrics().waiters == 1).await;
            let outcome = drop_at(at, handle.cancel(), async || {}).await;
            if at.polls == 0 {
                // The future of `cancel` was never polled, so dropping it only dropped the handle.
                assert!(!gone.load(Ordering::SeqCst));
                server.write_all(b"x").await.unwrap();
            }
            becomes("the task's future is dropped", || gone.load(Ordering::SeqCst)).await;
            no_operation_waits("cancel", at).await;
            round_trip(&client, &server).await;
            if let Some(output) = &outcome.output {
                assert!(output.is_none(), "the task had not ended");
                assert!(gone.load(Ordering::SeqCst), "the cancellation is complete, so the future is dropped");
            }
            outcome.output.is_some()
        })
        .await;
    });
}

/// Many operations run on one connection concurrently. Each has a timeout of less than 200 µs, at
/// which it is dropped. None may leave a waiter.
#[test]
fn operations_dropped_at_various_times_leave_no_waiter() {
    let _alone = alone();
    run(async {
        let baseline = rt::metrics().descriptors;
        {
            let (client, server) = fresh_pair().await;
            let echo = task::spawn(async move {
                let mut buf = [0; 256];
                while let Ok(count @ 1..) = server.read(&mut buf).await {
                    if server.write_all(&buf[..count]).await.is_err() {
                        break;
                    }
                }
            });
            let handles: Vec<_> = (0..12_u64)
                .map(|id| {
                    let client = client.clone();
                    task::spawn(async move {
                        let mut buf = [0; 16];
                        for round in 0..200_u64 {
                            let time = Duration::from_micros((id * 31 + round * 17) % 200);
                            let operation: Pin<Box<dyn Future<Output = ()> + Send + '_>> = match (id + round) % 6 {
                                0 => Box::pin(async { drop(client.read(&mut buf).await) }),
                                1 => Box::pin(async { drop(client.readable().await) }),
                                2 => Box::pin(async { drop(client.peek(&mut buf).await) }),
                                3 => Box::pin(async { drop(client.write(&[1; 16]).await) }),
                                4 => Box::pin(async { drop(client.writable().await) }),
                                _ => Box::pin(async { drop(client.peer_closed().await) }),
                            };
                            let _ = future::timeout(time, operation).await;
                        }
                    })
                })
                .collect();
            for handle in handles {
                handle.await;
            }
            becomes("no waiter is left except that of the echo task", || rt::metrics().waiters <= 1).await;
            client.force_close().await.unwrap();
            echo.await;
        }
        becomes("the descriptors are closed", || rt::metrics().descriptors == baseline).await;
        becomes("no waiter is left", || rt::metrics().waiters == 0).await;
    });
}

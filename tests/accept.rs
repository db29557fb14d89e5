//! Listeners: how many waiting accepts a connection wakes, the effects of a close, `incoming`, the
//! kind and text of errors, and the default options of streams.
//!
//! `src/net/seam_tests.rs` and `errno.rs` test faults of accept4, and `limits.rs` and
//! `admission.rs` test the lack of descriptors.

mod common;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use common::by_hand::{Wakes, woken_by};
use common::{becomes, echo, listener, op_error, own_address, ping, poll_once, poll_with, run};
use netpoll::net::{KeepAlive, TcpListener, TcpStream, is_closed, is_timeout};
use netpoll::prelude::*;
use netpoll::task;

/// Go: TestClosingListener.
#[test]
fn close_ends_a_waiting_accept_and_frees_the_port() {
    run(async {
        for _ in 0..20 {
            let listener = TcpListener::bind(own_address()).await.unwrap();
            let addr = listener.local_addr().unwrap();
            let close = async || {
                listener.close().await.unwrap();
                let again = TcpListener::bind(addr).await.unwrap();
                assert_eq!(again.local_addr().unwrap(), addr);
            };
            let error = woken_by(listener.accept(), close).await.unwrap_err();
            assert!(is_closed(&error));
            assert_eq!(error.to_string(), format!("accept tcp {addr}: use of closed network connection"));
        }
    });
}

/// Go: TestTCPListenAfterClose.
#[test]
fn nothing_is_accepted_after_close() {
    run(async {
        for _ in 0..50 {
            let listener = TcpListener::bind(own_address()).await.unwrap();
            let addr = listener.local_addr().unwrap();
            // This connection is dialled before the close, and waits in the queue.
            let queued = TcpStream::connect(addr).await.unwrap();
            let dial = task::spawn(TcpStream::connect(addr));
            listener.close().await.unwrap();
            assert!(is_closed(&listener.accept().await.unwrap_err()));
            let _ = dial.await;
            assert!(is_closed(&listener.accept().await.unwrap_err()));
            // The kernel resets connections in the queue.
            assert_eq!(queued.read(&mut [0; 1]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
    });
}

/// Go: TestTCPConcurrentAccept.
#[test]
fn many_acceptors_share_a_listener() {
    const DIALS: usize = 100;
    run(async {
        let listener = Arc::new(listener().await);
        let addr = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let acceptors: Vec<_> = (0..10)
            .map(|_| {
                let (listener, accepted) = (listener.clone(), accepted.clone());
                task::spawn(async move {
                    loop {
                        match listener.accept().await {
                            Ok((stream, peer)) => {
                                assert_eq!(stream.peer_addr().unwrap(), peer);
                                accepted.fetch_add(1, Ordering::SeqCst);
                            }
                            Err(error) => return assert!(is_closed(&error), "{error}"),
                        }
                    }
                })
            })
            .collect();
        let dials: Vec<_> = (0..DIALS).map(|_| task::spawn(TcpStream::connect(addr))).collect();
        for dial in dials {
            dial.await.unwrap();
        }
        becomes("all connections are accepted", || accepted.load(Ordering::SeqCst) == DIALS).await;
        listener.close().await.unwrap();
        for acceptor in acceptors {
            acceptor.await;
        }
    });
}

/// Invariant 7: a connection wakes one acceptor, not all.
#[test]
fn one_connection_wakes_one_acceptor() {
    run(async {
        let listener = listener().await;
        let wakers: Vec<_> = (0..16).map(|_| Wakes::new()).collect();
        let mut accepts: Vec<_> = wakers.iter().map(|_| Some(listener.accept())).collect();
        // The number of wake-ups of each acceptor at its last poll.
        let mut seen = vec![0; wakers.len()];
        for (accept, (_, waker)) in accepts.iter_mut().zip(&wakers) {
            assert!(poll_with(accept.as_mut().unwrap(), waker).is_pending());
        }
        let wakeups = || wakers.iter().map(|(wakes, _)| wakes.count()).sum::<usize>();
        // Polls each acceptor that was woken, as an executor does. Returns the number of
        // connections accepted.
        let mut poll_woken = || {
            let mut accepted = 0;
            while let Some(index) = (0..wakers.len()).find(|&index| wakers[index].0.count() > seen[index]) {
                seen[index] = wakers[index].0.count();
                let Some(accept) = &mut accepts[index] else { continue };
                if let Poll::Ready(stream) = poll_with(accept, &wakers[index].1) {
                    stream.unwrap();
                    accepts[index] = None;
                    accepted += 1;
                }
            }
            accepted
        };
        // The registration may cause an edge without a connection.
        task::sleep(Duration::from_millis(20)).await;
        assert_eq!(poll_woken(), 0);
        for _ in 0..3 {
            let before = wakeups();
            let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            becomes("an acceptor is woken", || wakeups() > before).await;
            // A second wake-up would usually occur within this pause.
            task::sleep(Duration::from_millis(20)).await;
            assert_eq!(wakeups(), before + 1, "one connection, one wake-up");
            assert_eq!(poll_woken(), 1, "the connection is accepted");
        }
    });
}

/// Invariant 7: an accept that was woken for a connection and is dropped passes the wake-up on.
#[test]
fn dropped_accept_passes_wakeup_on() {
    run(async {
        for _ in 0..50 {
            let listener = listener().await;
            let addr = listener.local_addr().unwrap();
            let (mut first, mut second) = (listener.accept(), listener.accept());
            let [(wakes, waker), (next_wakes, next_waker)] = [Wakes::new(), Wakes::new()];
            assert!(poll_with(&mut first, &waker).is_pending());
            assert!(poll_with(&mut second, &next_waker).is_pending());
            let _client = TcpStream::connect(addr).await.unwrap();
            becomes("the first accept is woken", || wakes.count() > 0).await;
            assert_eq!(next_wakes.count(), 0);
            drop(first);
            becomes("the second accept is woken", || next_wakes.count() > 0).await;
            second.await.unwrap();
        }
    });
}

/// Go: TestAcceptError.
#[test]
fn accept_errors_name_operation_and_address() {
    run(async {
        let listener = listener().await;
        let addr = listener.local_addr().unwrap();
        for _ in 0..5 {
            listener.set_deadline(Instant::now() + Duration::from_millis(5)).unwrap();
            let error = listener.accept().await.unwrap_err();
            assert!(is_timeout(&error));
            let op = op_error(&error);
            assert_eq!((op.op(), op.network(), op.is_deadline()), ("accept", "tcp", true));
            assert_eq!(error.to_string(), format!("accept tcp {addr}: i/o timeout"));
        }
        listener.set_deadline(None).unwrap();
        listener.close().await.unwrap();
        listener.close().await.unwrap();
        for _ in 0..3 {
            let error = listener.accept().await.unwrap_err();
            let op = op_error(&error);
            assert_eq!((op.op(), op.is_closed(), op.raw_os_error()), ("accept", true, None));
        }
        assert!(is_closed(&listener.set_deadline(None).unwrap_err()));
        assert!(is_closed(&listener.local_addr().unwrap_err()));
    });
}

#[test]
fn incoming_yields_connections_then_one_error_then_none() {
    run(async {
        let listener = Arc::new(listener().await);
        let addr = listener.local_addr().unwrap();
        let server = task::spawn({
            let listener = listener.clone();
            async move {
                let mut incoming = listener.incoming();
                let mut count = 0;
                while let Some(stream) = incoming.next().await {
                    match stream {
                        Ok(stream) => {
                            count += 1;
                            drop(task::spawn(async move { echo(&stream).await }));
                        }
                        Err(error) => {
                            assert!(is_closed(&error), "{error}");
                            assert!(incoming.next().await.is_none() && incoming.next().await.is_none());
                            return count;
                        }
                    }
                }
                panic!("the stream ended without an error");
            }
        });
        for _ in 0..10 {
            ping(&TcpStream::connect(addr).await.unwrap(), b"hello").await.unwrap();
        }
        listener.close().await.unwrap();
        assert_eq!(server.await, 10);
    });
}

#[test]
fn into_incoming_survives_expired_deadline() {
    run(async {
        let mut incoming = TcpListener::bind(own_address()).await.unwrap().into_incoming();
        let addr = incoming.listener().local_addr().unwrap();
        incoming.listener().set_deadline(Instant::now()).unwrap();
        for _ in 0..3 {
            assert!(is_timeout(&incoming.next().await.unwrap().unwrap_err()));
        }
        incoming.listener().set_deadline(None).unwrap();
        let client = TcpStream::connect(addr).await.unwrap();
        let stream = incoming.next().await.unwrap().unwrap();
        assert_eq!(stream.peer_addr().unwrap(), client.local_addr().unwrap());
        // Dropping the stream closes the listener, so the port is free.
        drop(incoming);
        TcpListener::bind(addr).await.unwrap();
    });
}

/// A listener accepts all connections in its queue. The next accept waits.
#[test]
fn all_queued_connections_are_accepted() {
    run(async {
        let listener = listener().await;
        let addr: SocketAddr = listener.local_addr().unwrap();
        let mut accept = listener.accept();
        assert!(poll_once(&mut accept).await.is_pending());
        let mut clients = Vec::new();
        for _ in 0..50 {
            clients.push(TcpStream::connect(addr).await.unwrap());
        }
        accept.await.unwrap();
        for _ in 1..50 {
            listener.accept().await.unwrap();
        }
        assert!(poll_once(&mut listener.accept()).await.is_pending());
    });
}

#[test]
fn dialled_and_accepted_streams_have_go_defaults() {
    run(async {
        let (client, server) = common::pair().await;
        for stream in [&client, &server] {
            assert!(stream.nodelay().unwrap());
            let seconds = Duration::from_secs(15);
            let keepalive = KeepAlive::unchanged().with_idle(seconds).with_interval(seconds).with_count(9);
            assert_eq!(stream.keepalive().unwrap(), Some(keepalive));
            assert!(stream.linger().unwrap().is_none());
        }
    });
}

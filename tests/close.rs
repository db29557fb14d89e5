//! Closing a socket: which waiters the close wakes, which errors they get, and when the descriptor
//! is closed (invariant 1).
//!
//! A second close succeeds. In Go it is an error.

mod common;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::pin::Pin;
use std::process::Command;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Poll, Wake, Waker};
use std::time::{Duration, Instant};

use common::by_hand::{
    Wakes, assert_closed, between, both, connect_to, drive, fresh_pair, in_ms, narrow_pair, past, round_trip,
    trait_read, trait_write,
};
use common::{BOUND, becomes, child, fill, no_forks, number, own_address, pair, poll_now, poll_with, read_exact, run};
use netpoll::net::{Shutdown, TcpListener, TcpStream};
use netpoll::prelude::*;
use netpoll::{rt, task};
use socket2::SockRef;

/// Returns the file to which the descriptor with this number refers, or `None` if it is not open.
fn target(number: i32) -> Option<std::path::PathBuf> {
    fs::read_link(format!("/proc/self/fd/{number}")).ok()
}

/// Returns whether a socket listens on the address. (std sets SO_REUSEADDR, so old connections do
/// not count.)
fn is_taken(addr: SocketAddr) -> bool {
    match std::net::TcpListener::bind(addr) {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            true
        }
    }
}

/// When [`spawn`](common::spawn) returns, the child has closed its copies of the close-on-exec
/// descriptors. Tests that hold [`no_forks`] rely on this. (`Command::spawn` may return earlier.)
#[test]
fn spawned_child_holds_no_inherited_fds() {
    for _ in 0..100 {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut process = common::spawn(&mut Command::new("true")).unwrap();
        rustix::io::ioctl_fionbio(&reader, true).unwrap();
        let _no_forks = no_forks();
        drop(writer);
        assert_eq!(io::Read::read(&mut reader, &mut [0]).unwrap(), 0);
        process.wait().unwrap();
    }
}

// ---- waiters are woken ----

/// Go: nettest CloseTimeout.
#[test]
fn close_ends_waiting_reads_and_writes_despite_far_deadline() {
    run(async {
        let (client, _server) = narrow_pair().await;
        fill(&client).await;
        client.set_deadline(in_ms(3_600_000)).unwrap();
        let [(read_wakes, read_waker), (write_wakes, write_waker)] = [Wakes::new(), Wakes::new()];
        let (mut buf, bytes) = ([0; 1024], vec![0; 1 << 20]);
        let (mut read, mut write) = (client.read(&mut buf), client.write_all(&bytes));
        assert!(poll_with(&mut read, &read_waker).is_pending() && poll_with(&mut write, &write_waker).is_pending());
        client.force_close().await.unwrap();
        assert!(read_wakes.count() > 0 && write_wakes.count() > 0, "the waiters are woken before the close completes");
        assert_closed(drive(&mut read, &read_wakes, &read_waker).await);
        assert_closed(drive(&mut write, &write_wakes, &write_waker).await);
    });
}

/// Go: TestConnClose.
#[test]
fn operations_after_close_fail_as_closed() {
    run(async {
        let (client, server) = fresh_pair().await;
        server.write_all(b"unread").await.unwrap();
        let (local, peer) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        client.force_close().await.unwrap();
        let reason = "use of closed network connection";
        let mut buf = [0; 8];
        let text = |result: io::Result<usize>| assert_closed(result).to_string();
        assert_eq!(text(client.read(&mut buf).await), between("read", local, peer, reason));
        assert_eq!(text(client.peek(&mut buf).await), between("read", local, peer, reason));
        assert_eq!(text(client.read(&mut []).await), between("read", local, peer, reason));
        assert_eq!(text(trait_read(&client, &mut buf).await), between("read", local, peer, reason));
        assert_eq!(text(client.write(b"x").await), between("write", local, peer, reason));
        assert_eq!(text(trait_write(&client, b"x").await), between("write", local, peer, reason));
        assert_closed(client.read_vectored(&mut [io::IoSliceMut::new(&mut buf)]).await);
        assert_closed(client.write_vectored(&[io::IoSlice::new(b"x")]).await);
        assert_eq!(assert_closed(client.write_all(b"x").await).to_string(), between("write", local, peer, reason));
        assert_closed(client.readable().await);
        assert_closed(client.writable().await);
        assert_closed(client.peer_closed().await);
        let set = assert_closed(client.set_deadline(in_ms(10))).to_string();
        assert_eq!(set, format!("set tcp {local}: {reason}"));
        assert_closed(client.set_read_deadline(None));
        assert_closed(client.set_write_deadline(past()));
        assert_eq!(assert_closed(client.set_nodelay(true)).to_string(), format!("set tcp {local}: {reason}"));
        assert_closed(client.nodelay());
        assert_closed(client.ttl());
        assert_closed(client.linger());
        assert_closed(client.take_error());
        assert_closed(client.local_addr());
        assert_closed(client.peer_addr());
        assert!(format!("{client:?}").starts_with("TcpStream"));
    });
}

/// Go: TestListenerClose.
#[test]
fn accept_after_close_fails_and_incoming_ends() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        // As in Go's TestTCPListenAfterClose, a connection dialled before the close is not accepted
        // after it.
        let _queued = std::net::TcpStream::connect(addr).unwrap();
        let mut incoming = listener.incoming();
        listener.close().await.unwrap();
        let error = assert_closed(listener.accept().await);
        assert_eq!(error.to_string(), format!("accept tcp {addr}: use of closed network connection"));
        assert_closed(incoming.next().await.expect("one error"));
        assert!(incoming.next().await.is_none());
        assert!(incoming.next().await.is_none());
        assert_closed(listener.set_deadline(past()));
        assert_closed(listener.local_addr());
        drop(incoming);
        let mut owned = listener.into_incoming();
        assert_closed(owned.next().await.expect("one error"));
        assert!(owned.next().await.is_none());
    });
}

/// Go: TestCloseUnblocksRead.
#[test]
fn peer_close_ends_waiting_read() {
    run(async {
        let (client, server) = fresh_pair().await;
        let (wakes, waker) = Wakes::new();
        let mut buf = [0; 1];
        let mut read = client.read(&mut buf);
        assert!(poll_with(&mut read, &waker).is_pending());
        drop(server);
        assert_eq!(drive(&mut read, &wakes, &waker).await.unwrap(), 0);
    });
}

/// Go: TestClosingListener.
#[test]
fn close_frees_address_despite_waiting_accepts() {
    run(async {
        let mut addr = own_address();
        for _ in 0..20 {
            let listener = Arc::new(TcpListener::bind(addr).await.unwrap());
            addr = listener.local_addr().unwrap();
            let acceptors: Vec<_> = (0..3)
                .map(|_| {
                    let listener = listener.clone();
                    task::spawn(async move { listener.accept().await })
                })
                .collect();
            becomes("the accepts wait", || rt::metrics().waiters >= 3).await;
            let no_forks = no_forks();
            listener.close().await.unwrap();
            let again = TcpListener::bind(addr).await.expect("the address is free as soon as the close has ended");
            again.close().await.unwrap();
            drop(no_forks);
            for acceptor in acceptors {
                assert_closed(acceptor.await);
            }
        }
    });
}

/// Go: TestClosedPipeRaceRead, TestClosedPipeRaceWrite. A close races with reads and writes of the
/// same socket that begin to wait.
#[test]
fn reads_and_writes_that_race_with_a_close_fail_as_closed() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for round in 0..200_u32 {
            let (client, server) = connect_to(&listener).await;
            let handles: Vec<_> = (0..4)
                .map(|id| {
                    let client = client.clone();
                    task::spawn(async move {
                        let mut buf = [0; 64];
                        if id % 2 == 0 {
                            client.read(&mut buf).await
                        } else {
                            loop {
                                client.write_all(&[0; 4096]).await?;
                            }
                        }
                    })
                })
                .collect();
            for _ in 0..round % 4 {
                task::yield_now().await;
            }
            let closer = client.clone();
            if round % 2 == 0 {
                task::spawn_blocking(move || task::block_on(closer.force_close())).await.unwrap();
            } else {
                closer.force_close().await.unwrap();
            }
            for handle in handles {
                assert_closed(handle.await);
            }
            drop(server);
        }
    });
}

/// Go: TestFileCloseRace. A conversion to std's type races with a close.
#[test]
fn conversion_that_races_with_a_close_returns_an_open_descriptor_or_fails() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for round in 0..100 {
            let (client, server) = connect_to(&listener).await;
            let (closer, other) = (client.clone(), client.clone());
            let close = task::spawn(async move { closer.force_close().await });
            let number = task::spawn_blocking(move || number(&other)).await;
            assert!(number >= 0);
            if round % 3 == 0 {
                task::yield_now().await;
            }
            // The conversion fails with `ResourceBusy` while clones exist, and with `NotConnected`
            // if the socket is already closed.
            match std::net::TcpStream::try_from(client) {
                Ok(stream) => assert!(stream.local_addr().is_ok(), "the converted descriptor is open"),
                Err(error) => {
                    assert!(
                        matches!(error.kind(), io::ErrorKind::NotConnected | io::ErrorKind::ResourceBusy),
                        "{error}"
                    );
                }
            }
            close.await.unwrap();
            assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 0);
        }
    });
}

#[test]
fn duplicate_outlives_close() {
    run(async {
        let (client, server) = fresh_pair().await;
        // The socket is registered with epoll before `as_fd` exposes it. If `as_fd` did not mark it
        // as exposed, the duplicate would keep the registration alive after the close.
        assert!(poll_now(&mut client.read(&mut [0; 1])).is_pending());
        let duplicate: OwnedFd = client.as_fd().try_clone_to_owned().unwrap();
        client.force_close().await.unwrap();
        let alive = TcpStream::from(duplicate);
        round_trip(&alive, &server).await;
        // While a clone exists, the conversion to `OwnedFd` returns a duplicate.
        let clone = alive.clone();
        let given: OwnedFd = alive.into();
        round_trip(&clone, &server).await;
        clone.force_close().await.unwrap();
        let again = TcpStream::from(given);
        round_trip(&again, &server).await;
        // The only handle releases its own descriptor, not a duplicate. A stream can be built from
        // it again.
        let before = number(&again);
        let raw = again.into_raw_fd();
        assert_eq!(raw, before);
        // SAFETY: `into_raw_fd` just transferred ownership of `raw`.
        let back = unsafe { <TcpStream as std::os::fd::FromRawFd>::from_raw_fd(raw) };
        assert_eq!(back.as_raw_fd(), before);
        round_trip(&back, &server).await;
        let std = std::net::TcpStream::try_from(back).unwrap();
        round_trip(&TcpStream::from(std), &server).await;
    });
}

/// Go: TestNotTemporaryRead.
#[test]
fn reset_is_an_error_not_eof() {
    run(async {
        for waits in [true, false] {
            let (client, server) = fresh_pair().await;
            let (wakes, waker) = Wakes::new();
            let mut buf = [0; 1];
            let mut read = client.read(&mut buf);
            if waits {
                assert!(poll_with(&mut read, &waker).is_pending());
            }
            server.set_linger(Some(Duration::ZERO)).unwrap();
            server.force_close().await.unwrap();
            let error = drive(&mut read, &wakes, &waker).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET), "the OS error was wrapped");
            assert!(!netpoll::net::is_timeout(&error));
            assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0, "the error is reported once");
            assert_eq!(client.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        }
    });
}

/// Go: TestCloseError.
#[test]
fn second_close_succeeds() {
    run(async {
        let (client, _server) = fresh_pair().await;
        for _ in 0..3 {
            client.force_close().await.unwrap();
            // The traits' `close` also succeeds after the socket was closed.
            (&client).close().await.unwrap();
            // Shutting down a closed socket is an error, as in Go.
            assert_closed(client.close_read());
            let error = assert_closed(client.close_write());
            assert!(error.to_string().starts_with("close tcp 127.0.0.1:"), "{error}");
            assert_closed(client.shutdown(Shutdown::Both));
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for _ in 0..3 {
            listener.close().await.unwrap();
        }
        // Concurrent closes all complete.
        let (client, _server) = fresh_pair().await;
        let (one, two) = (client.force_close(), client.force_close());
        let (one, two) = both(one, two).await;
        one.unwrap();
        two.unwrap();
    });
}

// ---- invariant 1 ----

/// Invariant 1.
#[test]
fn close_completes_despite_unpolled_read() {
    run(async {
        let (client, server) = narrow_pair().await;
        fill(&client).await;
        let mut one = [0; 1];
        let (mut read, mut write) = (client.read(&mut one), client.write_all(&[0; 65536]));
        let (mut readable, mut peer) = (client.readable(), client.peer_closed());
        assert!(poll_now(&mut read).is_pending() && poll_now(&mut write).is_pending());
        assert!(poll_now(&mut readable).is_pending() && poll_now(&mut peer).is_pending());
        let number = number(&client);
        let socket = target(number).expect("open");
        client.force_close().await.unwrap();
        assert_ne!(target(number), Some(socket), "the close has ended but the descriptor is open");
        // The futures have not been polled since the close. The next poll returns the error.
        assert_closed(read.await);
        assert_closed(write.await);
        assert_closed(readable.await);
        assert_closed(peer.await);
        while server.read(&mut [0; 65536]).await.unwrap() > 0 {}
    });
}

/// Invariant 1.
#[test]
fn unpolled_accept_does_not_hold_port() {
    run(async {
        let listener = TcpListener::bind(own_address()).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut accept = listener.accept();
        assert!(poll_now(&mut accept).is_pending());
        let mut incoming = listener.incoming();
        let mut next = incoming.next();
        assert!(poll_now(&mut next).is_pending());
        assert!(is_taken(addr));
        let _no_forks = no_forks();
        listener.close().await.unwrap();
        assert!(!is_taken(addr));
        assert_closed(accept.await);
        assert_closed(next.await.unwrap());
    });
}

/// Invariant 1.
#[test]
fn leaked_future_does_not_hold_port() {
    run(async {
        let listener = TcpListener::bind(own_address()).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut accept = listener.accept();
        assert!(poll_now(&mut accept).is_pending());
        std::mem::forget(accept);
        let _no_forks = no_forks();
        listener.close().await.unwrap();
        assert!(!is_taken(addr));
        // A listener that is dropped instead of closed also frees its port.
        let listener = TcpListener::bind(addr).await.unwrap();
        let mut accept = listener.accept();
        assert!(poll_now(&mut accept).is_pending());
        std::mem::forget(accept);
        drop(listener);
        assert!(!is_taken(addr));
    });
}

/// Invariant 1.
#[test]
fn close_from_another_thread_or_task_wakes_the_waiter() {
    run(async {
        for from_thread in [true, false] {
            let (client, server) = fresh_pair().await;
            let (wakes, waker) = Wakes::new();
            let mut buf = [0; 1];
            let mut read = client.read(&mut buf);
            assert!(poll_with(&mut read, &waker).is_pending());
            let number = number(&client);
            let socket = target(number).expect("open");
            let closer = client.clone();
            if from_thread {
                // This thread does not belong to the runtime.
                std::thread::spawn(move || futures_lite::future::block_on(closer.force_close()))
                    .join()
                    .unwrap()
                    .unwrap();
            } else {
                task::spawn(async move { closer.force_close().await }).await.unwrap();
            }
            assert_ne!(target(number), Some(socket));
            assert_eq!(wakes.count(), 1, "the waiter is woken before the close completes");
            assert_closed(drive(&mut read, &wakes, &waker).await);
            assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 0);
        }
    });
}

/// Invariant 1.
#[test]
fn dropped_close_future_still_closes() {
    run(async {
        let (client, server) = fresh_pair().await;
        let mut buf = [0; 1];
        let mut read = client.read(&mut buf);
        assert!(poll_now(&mut read).is_pending());
        drop(client.force_close());
        assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 0);
        assert_closed(read.await);
    });
}

/// Invariant 1.
#[test]
fn lingering_close_completes_when_fd_is_closed() {
    run(async {
        let (client, server) = narrow_pair().await;
        client.set_linger(Some(Duration::from_secs(30))).unwrap();
        let sent = fill(&client).await;
        let number = number(&client);
        let socket = target(number).expect("open");
        let mut close = client.force_close();
        assert!(poll_now(&mut close).is_pending(), "the close waits for unsent data");
        let mut buf = vec![0; 65536];
        let mut got = 0;
        let reading = async {
            loop {
                match server.read(&mut buf).await.unwrap() {
                    0 => break,
                    count => got += count,
                }
            }
        };
        let (closed, ()) = both(&mut close, reading).await;
        closed.unwrap();
        assert_ne!(target(number), Some(socket));
        assert_eq!(got, sent, "a close loses no written data");
    });
}

/// Regression: while all threads for blocking calls were in use, the peer did not receive EOF.
#[test]
fn lingering_close_does_not_wait_for_blocking_calls() {
    child("lingering_close_does_not_wait_for_blocking_calls", || {
        rt::Builder::new().blocking_threads(1).start().unwrap();
        let (release, held) = mpsc::channel::<()>();
        let call = task::spawn_blocking(move || held.recv().is_err());
        task::block_on(async {
            let (client, server) = pair().await;
            client.set_linger(Some(BOUND)).unwrap();
            client.write_all(b"x").await.unwrap();
            let closed = client.force_close();
            let mut all = Vec::new();
            (&server).read_to_end(&mut all).await.unwrap();
            assert_eq!(all, b"x");
            closed.await.unwrap();
            drop(release);
            assert!(call.await);
        });
    });
}

/// Invariant 1. Operations of a closed socket must not affect a new socket that has the same
/// descriptor number.
#[test]
fn stale_operation_does_not_touch_reused_fd() {
    run(async {
        let mut reused = 0;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for round in 0..200 {
            let (client, server) = connect_to(&listener).await;
            let (wakes, waker) = Wakes::new();
            let mut buf = [0; 8];
            let mut read = client.read(&mut buf);
            assert!(poll_with(&mut read, &waker).is_pending());
            if round % 2 == 0 {
                let _exposed = client.as_fd();
            }
            let old = number(&client);
            client.force_close().await.unwrap();
            let seen = wakes.count();
            let (one, other) = connect_to(&listener).await;
            reused += usize::from(number(&one) == old || number(&other) == old);
            one.write_all(b"to other").await.unwrap();
            other.write_all(b"to one..").await.unwrap();
            one.readable().await.unwrap();
            other.readable().await.unwrap();
            assert_eq!(wakes.count(), seen, "the waiter was woken by an event of another socket");
            assert_closed(drive(&mut read, &wakes, &waker).await);
            drop(read);
            assert_eq!(buf, [0; 8]);
            let (mut a, mut b) = ([0; 8], [0; 8]);
            read_exact(&one, &mut a).await.unwrap();
            read_exact(&other, &mut b).await.unwrap();
            assert_eq!((&a, &b), (b"to one..", b"to other"), "another reader took the bytes");
            drop(server);
        }
        assert!(reused > 0, "the number was never reused, so this run tested nothing");
    });
}

/// Invariant 1. Wakers of `poll_*` calls belong to no operation. A close wakes all of them.
#[test]
fn close_wakes_poll_callers() {
    run(async {
        use netpoll::io::{Read, Write};
        let (client, _server) = narrow_pair().await;
        fill(&client).await;
        let wakers: Vec<_> = (0..5).map(|_| Wakes::new()).collect();
        let mut buf = [0; 1];
        for (at, (_, waker)) in wakers.iter().enumerate() {
            let mut cx = std::task::Context::from_waker(waker);
            let pending = match at % 2 {
                0 => Pin::new(&mut &client).poll_read(&mut cx, &mut buf).is_pending(),
                _ => Pin::new(&mut &client).poll_write(&mut cx, &[0; 65536]).is_pending(),
            };
            assert!(pending);
        }
        client.force_close().await.unwrap();
        for (wakes, _) in &wakers {
            assert!(wakes.count() >= 1);
        }
        task::yield_now().await;
        let mut cx = std::task::Context::from_waker(Waker::noop());
        let Poll::Ready(result) = Pin::new(&mut &client).poll_read(&mut cx, &mut buf) else { panic!("closed") };
        assert_closed(result);
        let Poll::Ready(result) = Pin::new(&mut &client).poll_write(&mut cx, &[0; 1]) else { panic!("closed") };
        assert_closed(result);
    });
}

/// A waker that waits until the descriptor is closed, for up to 20 s, and records whether it is
/// still open.
struct WaitsForClose(i32, Mutex<Vec<bool>>);

impl Wake for WaitsForClose {
    fn wake(self: Arc<Self>) {
        // SAFETY: only the socket of the test has the number, until it is closed, and then the call
        // fails.
        let fd = unsafe { BorrowedFd::borrow_raw(self.0) };
        let is_open = || SockRef::from(&fd).r#type().is_ok();
        let begin = Instant::now();
        while is_open() && begin.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.1.lock().unwrap().push(is_open());
    }
}

/// Regression: the wakers in the lock's queue were called before the descriptor was closed. A waker
/// that blocked kept the descriptor open and the other waiters asleep.
#[test]
fn wakers_are_called_after_fd_is_closed() {
    child("wakers_are_called_after_fd_is_closed", || {
        let (one, other) = task::block_on(pair());
        task::block_on(fill(&one));
        let closed = Arc::new(WaitsForClose(number(&one), Mutex::default()));
        let waker = Waker::from(closed.clone());
        // Each operation waits through a clone of the stream: the writes for the write lock or for
        // room in the send buffer, the read for data.
        let mut writes =
            [one.clone(), one.clone()].map(|one| Box::pin(async move { one.write_all(&[0; 1 << 20]).await }));
        let reader = one.clone();
        let mut read = Box::pin(async move { reader.read(&mut [0; 1]).await });
        assert!(writes.iter_mut().all(|write| poll_with(write, &waker).is_pending()));
        assert!(poll_with(&mut read, &waker).is_pending());
        drop(one.force_close());
        let were_open = closed.1.lock().unwrap();
        assert!(were_open.len() >= 3 && !were_open.contains(&true), "{were_open:?}");
        drop(other);
    });
}

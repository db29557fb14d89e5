//! Tests of faults that the kernel does not produce on demand, with scripted results of accept4,
//! connect, SO_ERROR, getpeername and close, and with lent memory that is released late.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_core::Stream;

use super::fd::closing::Loans;
use crate::net::{OpError, TcpListener, TcpStream, is_timeout, raw_os_error};
use crate::sys::seam::{self, Call, Outcome, Script};
use crate::sys::socket;
use crate::task;

/// Runs `block_on` with a time limit.
fn run<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || drop(send.send(task::block_on(future))));
    receive.recv_timeout(Duration::from_secs(180)).expect("the test panicked or timed out")
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("a bound listener has an address");
    (listener, addr)
}

fn fail(script: &Script, call: Call, errnos: &[i32]) {
    for &errno in errnos {
        script.then(call, Outcome::Fail(errno));
    }
}

async fn next(incoming: &mut crate::net::Incoming<'_>) -> Option<io::Result<TcpStream>> {
    std::future::poll_fn(|cx| Pin::new(&mut *incoming).poll_next(cx)).await
}

/// Go: TestAcceptIgnoreAbortedConnRequest. The test covers every error of a connection that has
/// died in the queue.
#[test]
fn accept_skips_connections_that_died() {
    const DEAD: [i32; 10] = [
        libc::ECONNABORTED,
        libc::EPROTO,
        libc::ENOPROTOOPT,
        libc::ENETDOWN,
        libc::ENETUNREACH,
        libc::EHOSTDOWN,
        libc::EHOSTUNREACH,
        crate::sys::os::ENONET,
        libc::EOPNOTSUPP,
        libc::EPERM,
    ];
    run(async {
        for errno in DEAD {
            let (listener, addr) = listener().await;
            let script = seam::descriptor(listener.as_fd());
            fail(&script, Call::Accept4, &[errno]);
            let client = TcpStream::connect(addr).await.unwrap();
            let (_, peer) = listener.accept().await.unwrap_or_else(|error| panic!("{errno}: {error}"));
            assert_eq!(peer, client.local_addr().unwrap());
            assert_eq!(script.calls(Call::Accept4), 2);
        }
        let (listener, addr) = listener().await;
        let script = seam::descriptor(listener.as_fd());
        fail(&script, Call::Accept4, &DEAD);
        fail(&script, Call::Accept4, &[libc::EINTR, libc::ECONNABORTED, libc::EINTR]);
        let _client = TcpStream::connect(addr).await.unwrap();
        listener.accept().await.unwrap();
        // There are more errors in a row than an accept skips, as if the listener itself were at
        // fault, so the error is returned.
        fail(&script, Call::Accept4, &[libc::EOPNOTSUPP; 100]);
        assert_eq!(listener.accept().await.unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
    });
}

#[test]
fn interrupted_and_empty_accepts_are_retried() {
    run(async {
        let (listener, addr) = listener().await;
        let script = seam::descriptor(listener.as_fd());
        fail(&script, Call::Accept4, &[libc::EINTR, libc::EINTR, libc::EAGAIN]);
        let accept = task::spawn(async move { listener.accept().await.map(|accepted| accepted.1) });
        let client = TcpStream::connect(addr).await.unwrap();
        assert_eq!(accept.await.unwrap(), client.local_addr().unwrap());
        assert!(script.calls(Call::Accept4) >= 4);
    });
}

#[test]
fn accept_returns_resource_errors_and_loses_no_connection() {
    const ERRNOS: [i32; 4] = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    run(async {
        let (listener, addr) = listener().await;
        let script = seam::descriptor(listener.as_fd());
        let client = TcpStream::connect(addr).await.unwrap();
        fail(&script, Call::Accept4, &ERRNOS);
        for errno in ERRNOS {
            assert_eq!(listener.accept().await.unwrap_err().raw_os_error(), Some(errno));
        }
        // The connection is still in the queue, although no new edge has arrived.
        assert_eq!(listener.accept().await.unwrap().1, client.local_addr().unwrap());
    });
}

#[test]
fn incoming_pauses_after_lack_of_resources_and_returns_other_errors() {
    run(async {
        let (listener, addr) = listener().await;
        let script = seam::descriptor(listener.as_fd());
        let _clients = (TcpStream::connect(addr).await.unwrap(), TcpStream::connect(addr).await.unwrap());
        let mut incoming = listener.incoming();
        // Sockets that concurrent tests close may end a pause early, so only an upper bound is
        // checked.
        let errnos = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::ENOSPC];
        fail(&script, Call::Accept4, &errnos);
        let start = Instant::now();
        next(&mut incoming).await.unwrap().unwrap();
        assert_eq!(script.calls(Call::Accept4), 6, "one call before each pause, and one after the last");
        assert!(start.elapsed() < Duration::from_secs(60), "{:?} for 5 + 10 + 20 + 40 + 80 ms", start.elapsed());
        // Other errors are returned immediately.
        fail(&script, Call::Accept4, &[libc::EBADF]);
        assert_eq!(next(&mut incoming).await.unwrap().unwrap_err().raw_os_error(), Some(libc::EBADF));
        next(&mut incoming).await.unwrap().unwrap();
    });
}

/// Invariant 12: a waker that panics does not prevent other wake-ups.
#[test]
fn panicking_waker_at_close_does_not_stop_other_wakeups() {
    use std::sync::Arc;
    use std::task::Wake;

    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("in a waker, on purpose");
        }
        fn wake_by_ref(self: &Arc<Self>) {}
    }

    run(async {
        let (bad, _) = listener().await;
        let (good, addr) = listener().await;
        let scripts = [seam::descriptor(bad.as_fd()), seam::descriptor(good.as_fd())];
        let _client = TcpStream::connect(addr).await.unwrap();
        for script in &scripts {
            fail(script, Call::Accept4, &[libc::EMFILE; 16]);
        }
        // Both streams back off. Closing a descriptor ends their pauses. The waker of the first
        // stream panics.
        let waker = Waker::from(Arc::new(Panics));
        let mut first = bad.incoming();
        let polled = Pin::new(&mut first).poll_next(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        let accepted = task::spawn(async move {
            let mut incoming = good.incoming();
            next(&mut incoming).await.unwrap().map(drop)
        });
        let start = Instant::now();
        while !accepted.is_finished() {
            drop(TcpListener::bind("127.0.0.1:0").await.unwrap());
            task::yield_now().await;
        }
        accepted.await.unwrap();
        // Sixteen pauses on the timer alone would take 9.3 s.
        assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    });
}

// ---- dialling ----

/// Returns a script in which the first connect(2) reports EINPROGRESS and is not made.
fn under_way(addr: SocketAddr) -> Script {
    let script = seam::destination(addr);
    script.then(Call::Connect, Outcome::Fail(libc::EINPROGRESS));
    script
}

#[test]
fn so_error_decides_the_outcome_of_a_dial() {
    for errno in [libc::ECONNREFUSED, libc::ETIMEDOUT, libc::EHOSTUNREACH, libc::ENETUNREACH, libc::ECONNRESET] {
        run(async move {
            let (_listener, addr) = listener().await;
            let script = seam::destination(addr);
            script.then(Call::Connect, Outcome::Fail(libc::EINPROGRESS)).then(Call::TakeError, Outcome::Pending(errno));
            let error = TcpStream::connect(addr).await.unwrap_err();
            assert_eq!(raw_os_error(&error), Some(errno));
            let op = error.get_ref().and_then(|inner| inner.downcast_ref::<OpError>()).unwrap();
            assert_eq!((op.op(), script.calls(Call::Connect)), ("dial", 1));
            assert!(error.to_string().starts_with(&format!("dial tcp {addr}: connect: ")), "{error}");
            assert_eq!(script.calls(Call::Close), 1, "the socket must be closed once");
        });
    }
}

#[test]
fn dial_waits_after_in_progress_codes() {
    for errno in [libc::EINPROGRESS, libc::EALREADY, libc::EINTR] {
        run(async move {
            let (listener, addr) = listener().await;
            let script = seam::destination(addr);
            // The kernel connects, but the script reports once that the connect is in progress. The
            // dial continues to wait, and the peer's data causes the next edge.
            script.then(Call::Connect, Outcome::Real).then(Call::TakeError, Outcome::Pending(errno));
            fail(&script, Call::PeerAddr, &[libc::ENOTCONN]);
            drop(task::spawn(async move {
                let (peer, _) = listener.accept().await?;
                loop {
                    peer.write_all(b"x").await?;
                    task::sleep(Duration::from_millis(1)).await;
                }
                #[allow(unreachable_code)]
                io::Result::Ok(())
            }));
            TcpStream::connect_timeout(&addr, Duration::from_secs(180)).await.unwrap();
        });
    }
}

#[test]
fn eisconn_means_connected() {
    run(async {
        let (_listener, addr) = listener().await;
        let script = seam::destination(addr);
        script.then(Call::Connect, Outcome::Real).then(Call::TakeError, Outcome::Pending(libc::EISCONN));
        fail(&script, Call::PeerAddr, &[libc::ENOTCONN]);
        let stream = TcpStream::connect(addr).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), addr);
    });
}

/// The socket never connects. An edge without an error does not mean that the socket is connected
/// (Go issues 14548 and 19289).
#[test]
fn spurious_wake_up_does_not_end_a_dial() {
    run(async {
        let (_listener, addr) = listener().await;
        let script = under_way(addr);
        let error = TcpStream::connect_timeout(&addr, Duration::from_millis(50)).await.unwrap_err();
        assert!(is_timeout(&error), "{error}");
        assert_eq!(script.calls(Call::Connect), 1);
        assert!(script.calls(Call::TakeError) <= 3, "the dial polls instead of waiting");
    });
}

#[test]
fn dial_continues_after_getpeername_fails() {
    run(async {
        let (_listener, addr) = listener().await;
        let script = seam::destination(addr);
        script.then(Call::Connect, Outcome::Real);
        fail(&script, Call::PeerAddr, &[libc::ENOTCONN]);
        // The failure means that the outcome is not known, so the dial waits. The connection is
        // established, but an edge need not follow.
        let dial = TcpStream::connect_timeout(&addr, Duration::from_millis(50)).await;
        if let Err(error) = dial {
            assert!(is_timeout(&error), "{error}");
        }
        assert!(script.calls(Call::PeerAddr) >= 1);
    });
}

#[test]
fn eaddrnotavail_is_retried_twice() {
    run(async {
        let (_listener, addr) = listener().await;
        let script = seam::destination(addr);
        fail(&script, Call::Connect, &[libc::EADDRNOTAVAIL; 2]);
        let _stream = TcpStream::connect(addr).await.unwrap();
        assert_eq!((script.calls(Call::Connect), script.calls(Call::Close)), (3, 2));
        drop(script);
        let script = seam::destination(addr);
        fail(&script, Call::Connect, &[libc::EADDRNOTAVAIL; 5]);
        let error = TcpStream::connect(addr).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
        assert_eq!((script.calls(Call::Connect), script.calls(Call::Close)), (3, 3));
        // Another error is final.
        drop(script);
        let script = seam::destination(addr);
        fail(&script, Call::Connect, &[libc::EACCES]);
        assert_eq!(raw_os_error(&TcpStream::connect(addr).await.unwrap_err()), Some(libc::EACCES));
        assert_eq!(script.calls(Call::Connect), 1);
    });
}

/// The socket of a dial to an unused port of this host sometimes gets that port as its local port
/// and connects to itself. The dial then tries again. (tests/dialer.rs forces this.)
#[test]
fn dial_never_connects_to_itself() {
    run(async {
        let (listener, addr) = listener().await;
        drop(listener);
        for _ in 0..2000 {
            if let Ok(stream) = TcpStream::connect(addr).await {
                assert_ne!(stream.local_addr().ok(), stream.peer_addr().ok());
            }
        }
    });
}

#[test]
fn error_of_close_is_ignored_and_the_port_is_free() {
    run(async {
        for errno in [libc::EINTR, libc::EIO] {
            // No other test uses this address, so no other test takes the port.
            let listener = TcpListener::bind((Ipv4Addr::new(127, 77, 2, 1), 0)).await.unwrap();
            let addr = listener.local_addr().unwrap();
            let script = seam::descriptor(listener.as_fd());
            fail(&script, Call::Close, &[errno]);
            listener.close().await.unwrap();
            listener.close().await.unwrap();
            assert_eq!(script.calls(Call::Close), 1, "close was repeated, but the number may have been reused");
            // A process that another test starts may briefly hold a duplicate of the listener.
            let start = Instant::now();
            while let Err(error) = TcpListener::bind(addr).await {
                assert!(error.kind() == ErrorKind::AddrInUse && start.elapsed() < Duration::from_secs(60), "{error}");
                task::sleep(Duration::from_millis(1)).await;
            }
        }
    });
}

/// Dropping a dial in progress closes its socket once.
#[test]
fn dropped_dial_closes_once() {
    run(async {
        let (_listener, addr) = listener().await;
        for _ in 0..20 {
            let script = under_way(addr);
            let mut dial = Box::pin(TcpStream::connect(addr));
            let polled: Poll<_> = std::future::poll_fn(|cx| Poll::Ready(dial.as_mut().poll(cx))).await;
            assert!(polled.is_pending());
            drop(dial);
            assert_eq!(script.calls(Call::Close), 1);
        }
    });
}

/// Simulates a kernel that still reads the buffers after the recall.
#[derive(Debug, Default)]
struct Slow {
    recalls: Mutex<Vec<bool>>,
    waited: AtomicUsize,
}

impl Loans for Slow {
    fn end(&self) {}

    fn recall(&self, fd: BorrowedFd<'_>, may_be_shared: bool) -> bool {
        socket::local_addr(fd).expect("the descriptor is closed");
        self.recalls.lock().unwrap().push(may_be_shared);
        true
    }

    fn wait(&self, fd: BorrowedFd<'_>) {
        socket::local_addr(fd).expect("the descriptor is closed");
        self.waited.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn close_recalls_lent_memory_once_and_waits_for_it() {
    run(async {
        for (exposes, explicit) in [(false, false), (false, true), (true, false), (true, true)] {
            let (listener, addr) = listener().await;
            let client = TcpStream::connect(addr).await.unwrap();
            let (server, _) = listener.accept().await.unwrap();
            let loans = Arc::<Slow>::default();
            client.fd.fd.set_loans(loans.clone());
            if exposes {
                let _ = client.as_fd();
            }
            if explicit {
                client.force_close().await.unwrap();
                assert_eq!(loans.waited.load(Ordering::SeqCst), 1);
            }
            drop(client);
            // The peer sees end of stream when the descriptor is closed.
            assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 0);
            assert_eq!(loans.waited.load(Ordering::SeqCst), 1);
            assert_eq!(*loans.recalls.lock().unwrap(), [exposes]);
        }
    });
}

//! `control`, `read_with` and `write_with` of sockets, as in Go's rawconn_test.go, and panics in
//! their closures.

mod common;

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use common::by_hand::Wakes;
use common::*;
use netpoll::net::{TcpStream, UdpSocket, is_closed, is_timeout};
use netpoll::task;
use socket2::SockRef;

fn recv(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    (&*SockRef::from(&fd)).read(buf)
}

fn send(fd: BorrowedFd<'_>, buf: &[u8]) -> io::Result<usize> {
    (&*SockRef::from(&fd)).write(buf)
}

#[test]
fn raw_reads_and_writes_transfer_data() {
    run(async {
        let (one, other) = pair().await;
        let mut buf = [0; 16];
        let mut read = other.read_with(|fd| recv(fd, &mut buf));
        assert!(poll_once(&mut read).await.is_pending());
        assert_eq!(one.write_with(|fd| send(fd, b"raw")).await.unwrap(), 3);
        let count = read.await.unwrap();
        assert_eq!(&buf[..count], b"raw");
    });
}

#[test]
fn each_poll_of_a_raw_read_makes_one_call() {
    run(async {
        let (one, other) = pair().await;
        let mut calls = 0;
        let mut buf = [0; 16];
        let mut read = one.read_with(|fd| {
            calls += 1;
            recv(fd, &mut buf)
        });
        for _ in 0..5 {
            assert!(poll_once(&mut read).await.is_pending());
        }
        other.write_all(b"x").await.unwrap();
        assert_eq!(read.await.unwrap(), 1);
        // `poll_once` polls twice. The last await polls once, or a second time after an edge.
        assert!((11..=12).contains(&calls), "{calls} calls in ten polls and an await");
    });
}

#[test]
fn raw_write_waits_for_buffer_space() {
    run(async {
        let (one, other) = pair().await;
        let filled = fill(&one).await;
        let mut write = one.write_with(|fd| send(fd, b"last"));
        assert!(poll_once(&mut write).await.is_pending());
        let mut rest = vec![0; filled];
        read_exact(&other, &mut rest).await.unwrap();
        assert_eq!(write.await.unwrap(), 4);
    });
}

#[test]
fn deadlines_end_raw_operations() {
    run(async {
        let (one, _other) = pair().await;
        one.set_read_deadline(Instant::now() + Duration::from_millis(5)).unwrap();
        let error = one.read_with(|fd| recv(fd, &mut [0; 1])).await.unwrap_err();
        assert!(is_timeout(&error));
        assert!(error.to_string().starts_with("raw-read tcp 127.0.0.1:"), "{error}");
        one.set_deadline(Instant::now()).unwrap();
        let called = AtomicBool::new(false);
        let call = |_: BorrowedFd<'_>| {
            called.store(true, Ordering::Relaxed);
            Ok(())
        };
        assert!(is_timeout(&one.read_with(call).await.unwrap_err()));
        assert!(is_timeout(&one.write_with(call).await.unwrap_err()));
        assert!(!called.load(Ordering::Relaxed));
        // `control` belongs to neither direction, so a deadline does not end it.
        one.control(call).unwrap();
        assert!(called.load(Ordering::Relaxed));
        one.set_deadline(None).unwrap();
        one.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        assert!(is_timeout(&one.read_with(|fd| recv(fd, &mut [0; 1])).await.unwrap_err()));
    });
}

#[test]
fn control_works_until_close() {
    run(async {
        let listener = listener().await;
        assert!(listener.control(|fd| SockRef::from(&fd).reuse_address()).unwrap());
        let (one, _other) = pair().await;
        one.control(|fd| SockRef::from(&fd).set_tcp_nodelay(false)).unwrap();
        assert!(!one.nodelay().unwrap());
        let refused = one.control(|_| Err::<(), _>(io::Error::from_raw_os_error(libc::EPERM))).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM), "the call's error, unchanged");

        let (addr, local) = (listener.local_addr().unwrap(), one.local_addr().unwrap());
        listener.close().await.unwrap();
        one.force_close().await.unwrap();
        let error = listener.control(|_| Ok(())).unwrap_err();
        assert!(is_closed(&error));
        assert_eq!(error.to_string(), format!("raw-control tcp {addr}: use of closed network connection"));
        let error = one.control(|_| Ok(())).unwrap_err();
        assert_eq!(error.to_string(), format!("raw-control tcp {local}: use of closed network connection"));
        assert!(is_closed(&one.read_with(|_| Ok(())).await.unwrap_err()));
        assert!(is_closed(&one.write_with(|_| Ok(())).await.unwrap_err()));
    });
}

#[test]
fn close_wakes_raw_waiters() {
    run(async {
        let (one, _other) = pair().await;
        let mut read = one.read_with(|fd| recv(fd, &mut [0; 1]));
        assert!(poll_once(&mut read).await.is_pending());
        one.force_close().await.unwrap();
        assert!(is_closed(&read.await.unwrap_err()));
    });
}

/// A close completes after the closure has returned. Until then the descriptor stays open.
#[test]
fn close_waits_for_running_closure() {
    run(async {
        let (one, _other) = pair().await;
        let inside = Arc::new(AtomicBool::new(false));
        let leave = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (one, inside, leave) = (one.clone(), inside.clone(), leave.clone());
            move || {
                one.control(|fd| {
                    inside.store(true, Ordering::SeqCst);
                    eventually("the test to continue", || leave.load(Ordering::SeqCst));
                    // SAFETY: the command takes no argument.
                    assert!(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) } >= 0, "still open");
                    Ok(())
                })
            }
        });
        becomes("the closure to run", || inside.load(Ordering::SeqCst)).await;
        let mut closed = one.force_close();
        for _ in 0..20 {
            assert!(poll_once(&mut closed).await.is_pending());
            task::yield_now().await;
        }
        leave.store(true, Ordering::SeqCst);
        closed.await.unwrap();
        thread.join().unwrap().unwrap();
    });
}

#[test]
fn panic_in_closure_releases_lock_and_reference() {
    run(async {
        let (one, other) = pair().await;
        let poll = |stream: &TcpStream| {
            let mut read = stream.read_with(|_| -> io::Result<()> { panic!("in the closure") });
            let _ = Pin::new(&mut read).poll(&mut Context::from_waker(Waker::noop()));
        };
        assert!(catch_unwind(AssertUnwindSafe(|| poll(&one))).is_err());
        let control =
            catch_unwind(AssertUnwindSafe(|| one.control(|_| -> io::Result<()> { panic!("in the closure") })));
        assert!(control.is_err());
        other.write_all(b"x").await.unwrap();
        assert_eq!(one.read(&mut [0; 1]).await.unwrap(), 1, "the lock is free");
        one.force_close().await.unwrap();
        assert_eq!(other.read(&mut [0; 1]).await.unwrap(), 0, "the reference is released");
    });
}

/// Regression: a panic in the closure of `try_read_io` or a similar method leaked the reference, so
/// the socket was never closed.
#[test]
fn panic_in_closure_of_a_datagram_socket_releases_reference() {
    run(async {
        fn panics(_: BorrowedFd<'_>) -> io::Result<()> {
            panic!("in the closure")
        }
        type Call = fn(&UdpSocket);
        let calls: [Call; 5] = [
            |socket| socket.try_read_io(panics).unwrap(),
            |socket| socket.try_write_io(panics).unwrap(),
            |socket| drop(socket.poll_read_io(&mut Context::from_waker(Waker::noop()), panics)),
            |socket| drop(poll_now(&mut socket.read_with(panics))),
            |socket| drop(poll_now(&mut socket.write_with(panics))),
        ];
        for call in calls {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let addr = socket.local_addr().unwrap();
            assert!(catch_unwind(AssertUnwindSafe(|| call(&socket))).is_err());
            socket.send_to(b"x", addr).await.unwrap();
            assert_eq!(socket.recv(&mut [0; 1]).await.unwrap(), 1);
            socket.close().await.unwrap();
        }
    });
}

/// Raw reads of one stream run one at a time, like all reads of a stream.
#[test]
fn concurrent_raw_reads_lose_nothing() {
    run(async {
        let (one, other) = pair().await;
        let total = Arc::new(AtomicUsize::new(0));
        let readers: Vec<_> = (0..8)
            .map(|_| {
                let (one, total) = (one.clone(), total.clone());
                task::spawn(async move {
                    let mut buf = [0; 7];
                    while let count @ 1.. = one.read_with(|fd| recv(fd, &mut buf)).await.unwrap() {
                        total.fetch_add(count, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for _ in 0..500 {
            other.write_all(&[1; 100]).await.unwrap();
        }
        drop(other);
        for reader in readers {
            reader.await;
        }
        assert_eq!(total.load(Ordering::Relaxed), 50_000);
    });
}

#[test]
fn dropped_raw_read_passes_wakeup_on() {
    run(async {
        let (one, other) = pair().await;
        for polls in 0..3 {
            let (wakes, waker) = Wakes::new();
            let mut dropped = one.read_with(|fd| recv(fd, &mut [0; 1]));
            for _ in 0..polls {
                assert!(poll_with(&mut dropped, &waker).is_pending());
            }
            let mut beside = one.read_with(|fd| recv(fd, &mut [0; 1]));
            assert!(poll_with(&mut beside, &waker).is_pending());
            other.write_all(b"x").await.unwrap();
            becomes("the first of the waiting reads is woken", || wakes.count() > 0).await;
            drop(dropped);
            assert_eq!(beside.await.unwrap(), 1);
        }
    });
}

#[test]
fn datagram_sockets_support_raw_access() {
    run(async {
        let one = netpoll::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let other = netpoll::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = other.local_addr().unwrap().into();
        let mut buf = [0; 8];
        let mut read = other.read_with(|fd| recv(fd, &mut buf));
        assert!(poll_once(&mut read).await.is_pending());
        assert_eq!(one.write_with(|fd| SockRef::from(&fd).send_to(b"raw", &to)).await.unwrap(), 3);
        assert_eq!(read.await.unwrap(), 3);
        assert!(!one.control(|fd| SockRef::from(&fd).broadcast()).unwrap());
    });
}

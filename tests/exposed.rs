//! Sockets whose descriptor has other users, in this process or another. The other users keep the
//! socket open after this crate has closed it, use a borrowed descriptor after the close, set
//! SO_LINGER, and clear O_NONBLOCK.
#![cfg(not(target_os = "macos"))] // SOCK_SEQPACKET

mod common;

use std::fmt::Debug;
use std::future::Future;
use std::io::{IoSlice, IoSliceMut, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::{Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use netpoll::io::AsyncFd;
use netpoll::net::{Dialer, ListenConfig, RecvBatch, TcpListener, TcpStream, UdpSocket};
use netpoll::os::unix::net::{UnixDatagram, UnixListener, UnixSeqpacket, UnixSeqpacketListener, UnixStream};
use netpoll::prelude::*;
use netpoll::{io, rt, task};
use socket2::SockRef;

// ---- closing ----

/// The linger time in these tests.
const LINGER: Duration = Duration::from_secs(60);

fn set_linger(fd: BorrowedFd<'_>) -> std::io::Result<()> {
    SockRef::from(&fd).set_linger(Some(LINGER))
}

/// Returns a connected pair of std streams. The first has SO_LINGER set if `lingers`.
fn std_pair(lingers: bool) -> (std::net::TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    if lingers {
        set_linger(client.as_fd()).unwrap();
    }
    (client, listener.accept().unwrap().0)
}

/// Returns a connection accepted by `listener`, and its peer.
async fn accepted(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (listener.accept().await.unwrap().0, client)
}

/// How a test closes a stream.
#[derive(Clone, Copy)]
enum By {
    Drop,
    ForceClose,
}

/// Fills the buffers, while the peer reads nothing, and closes the stream. The close must not wait
/// for the peer. `duplicate` is closed before the stream, so that the close of the stream is the
/// last.
async fn assert_closes_at_once(what: &str, by: By, ends: (TcpStream, TcpStream), duplicate: Option<OwnedFd>) {
    let (stream, peer) = ends;
    fill(&stream).await;
    drop(duplicate);
    let start = Instant::now();
    if matches!(by, By::ForceClose) {
        drop(stream.force_close());
    }
    drop(stream);
    assert!(start.elapsed() < LINGER / 2, "{what}: the close blocked for {:?}", start.elapsed());
    drop(peer);
}

/// Regression: the close was moved to another thread only if the stream's `set_linger` had set the
/// option.
#[test]
fn close_does_not_block_whichever_code_has_set_so_linger() {
    run(async {
        let (client, server) = std_pair(true);
        assert_closes_at_once("set before the adoption", By::Drop, (client.into(), server.into()), None).await;

        let (client, server) = std_pair(false);
        let duplicate = client.try_clone().unwrap();
        let stream = TcpStream::from(client);
        set_linger(duplicate.as_fd()).unwrap();
        assert_closes_at_once("set by a duplicate", By::ForceClose, (stream, server.into()), Some(duplicate.into()))
            .await;

        let (stream, peer) = pair().await;
        stream.control(set_linger).unwrap();
        assert_closes_at_once("set by control", By::ForceClose, (stream, peer), None).await;

        let (stream, peer) = pair().await;
        set_linger(stream.as_fd()).unwrap();
        assert_closes_at_once("set through as_fd", By::Drop, (stream, peer), None).await;

        let (stream, peer) = pair().await;
        // SAFETY: the descriptor is open as long as the stream is.
        set_linger(unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) }).unwrap();
        assert_closes_at_once("set through the number", By::ForceClose, (stream, peer), None).await;

        let (stream, peer) = pair().await;
        stream.write_with(set_linger).await.unwrap();
        assert_closes_at_once("set by write_with", By::Drop, (stream, peer), None).await;

        let (stream, peer) = pair().await;
        let duplicate = OwnedFd::from(stream.clone());
        set_linger(duplicate.as_fd()).unwrap();
        assert_closes_at_once("set through OwnedFd::from", By::ForceClose, (stream, peer), Some(duplicate)).await;

        let (stream, peer) = pair().await;
        stream.set_linger(Some(LINGER)).unwrap();
        stream.set_linger(None).unwrap();
        set_linger(stream.as_fd()).unwrap();
        assert_closes_at_once("set, unset and set", By::ForceClose, (stream, peer), None).await;

        let listener = listener().await;
        let stream = Dialer::new().control(|_, _, fd| set_linger(fd)).dial(listener.local_addr().unwrap()).await;
        let peer = listener.accept().await.unwrap().0;
        assert_closes_at_once("set by a dialer's hook", By::ForceClose, (stream.unwrap(), peer), None).await;
    });
}

#[test]
fn close_does_not_block_when_so_linger_is_inherited() {
    run(async {
        let std = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        set_linger(std.as_fd()).unwrap();
        let adopted = TcpListener::from(std);
        assert_closes_at_once("from an adopted listener", By::ForceClose, accepted(&adopted).await, None).await;

        let listener = listener().await;
        listener.control(set_linger).unwrap();
        assert_closes_at_once("from a listener", By::Drop, accepted(&listener).await, None).await;
        let stream = accepted(&listener).await;
        assert_eq!(stream.0.linger().unwrap(), Some(LINGER));
        assert_closes_at_once("from a listener, explicitly", By::ForceClose, stream, None).await;

        for config in [ListenConfig::new(), ListenConfig::new().max_connections(5)] {
            let hooked = config.control(|_, _, fd| set_linger(fd)).listen("127.0.0.1:0").await.unwrap();
            assert_closes_at_once("from a hook's listener", By::ForceClose, accepted(&hooked).await, None).await;
            let addr = hooked.local_addr().unwrap();
            let mut incoming = hooked.into_incoming();
            let client = TcpStream::connect(addr).await.unwrap();
            let stream = incoming.next().await.unwrap().unwrap();
            assert_closes_at_once("from incoming", By::Drop, (stream, client), None).await;
        }
    });
}

/// One close waits on the only thread of the pool for closes, and another one is queued behind it.
/// The shutdown waits for neither.
#[test]
fn shutdown_does_not_wait_for_lingering_close() {
    child("shutdown_does_not_wait_for_lingering_close", || {
        rt::Builder::new().blocking_threads(1).start().unwrap();
        let closed = [(); 2].map(|()| {
            let (stream, peer) = park_on(pair());
            let sent = park_on(fill(&stream));
            stream.set_linger(Some(LINGER)).unwrap();
            drop(stream);
            (peer, sent)
        });
        let start = Instant::now();
        assert!(rt::shutdown(Duration::ZERO).is_err());
        assert!(start.elapsed() < LINGER / 2, "the shutdown blocked for {:?}", start.elapsed());
        // Data that was sent before the shutdown still arrives.
        for (peer, sent) in closed {
            let (mut total, mut buf) = (0, vec![0; 1 << 20]);
            while let count @ 1.. = park_on(peer.read(&mut buf)).unwrap() {
                total += count;
            }
            assert_eq!(total, sent);
        }
    });
}

/// Calls `wait`, which registers `socket`, and closes `socket` while a duplicate of it is open.
/// Asserts that the poller then receives no event that `event` causes.
async fn assert_unregistered<T>(what: &str, socket: T, wait: impl AsyncFnOnce(&T) -> bool, mut event: impl FnMut()) {
    assert!(wait(&socket).await, "{what}: the operation must wait");
    drop(socket);
    let (one, other) = pair().await;
    let echo = task::spawn(async move { echo(&other).await });
    common::assert_no_stale_events(what, async || {
        event();
        // If the duplicate were still in epoll, its event would be received before the event of the
        // later data.
        ping(&one, b"after").await.unwrap();
    })
    .await;
    drop(one);
    echo.await.unwrap();
}

async fn is_pending<F: Future + Unpin>(mut future: F) -> bool {
    poll_once(&mut future).await.is_pending()
}

/// Regression: a registration belongs to the open file description, which a duplicate keeps open.
/// After a hot restart, each connection of the successor woke the process that had closed its
/// listener.
#[test]
fn adopted_socket_with_a_duplicate_leaves_epoll_when_it_is_closed() {
    child("adopted_socket_with_a_duplicate_leaves_epoll_when_it_is_closed", || {
        run(async {
            let folder = Folder::new();
            let path = |name: &str| folder.join(name);

            let std = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let (addr, duplicate) = (std.local_addr().unwrap(), std.try_clone().unwrap());
            assert_unregistered(
                "tcp listener",
                TcpListener::from(std),
                async |it| is_pending(it.accept()).await,
                || {
                    drop(std::net::TcpStream::connect(addr).unwrap());
                },
            )
            .await;
            drop(duplicate);

            let (std, mut peer) = std_pair(false);
            let duplicate = std.try_clone().unwrap();
            let wait = async |it: &TcpStream| is_pending(it.readable()).await;
            assert_unregistered("tcp stream", TcpStream::from(std), wait, || peer.write_all(b"x").unwrap()).await;
            drop(duplicate);

            let (std, mut peer) = std_pair(false);
            let duplicate = std.try_clone().unwrap();
            let wait = async |it: &TcpStream| {
                let waits = is_pending(it.readable()).await;
                it.force_close().await.unwrap();
                waits
            };
            let what = "tcp stream, explicitly";
            assert_unregistered(what, TcpStream::from(std), wait, || peer.write_all(b"x").unwrap()).await;
            drop(duplicate);

            let std = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            let (addr, duplicate) = (std.local_addr().unwrap(), std.try_clone().unwrap());
            assert_unregistered(
                "udp",
                UdpSocket::from(std),
                async |it| is_pending(it.recv_from(&mut [0])).await,
                || {
                    assert_eq!(duplicate.send_to(b"x", addr).unwrap(), 1);
                },
            )
            .await;

            let duplicates = Mutex::new(Vec::new());
            let duplicate = |fd: BorrowedFd<'_>| {
                duplicates.lock().unwrap().push(fd.try_clone_to_owned()?);
                io::Result::<()>::Ok(())
            };
            type Call<'a> = &'a dyn Fn(&UdpSocket);
            let calls: [(&str, Call<'_>); 3] = [
                ("try_read_io", &|it| it.try_read_io(duplicate).unwrap()),
                ("try_write_io", &|it| it.try_write_io(duplicate).unwrap()),
                ("poll_read_io", &|it| {
                    assert!(it.poll_read_io(&mut Context::from_waker(Waker::noop()), duplicate).is_ready())
                }),
            ];
            for (what, call) in calls {
                let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                let addr = socket.local_addr().unwrap();
                let wait = async |it: &UdpSocket| {
                    call(it);
                    is_pending(it.recv_from(&mut [0])).await
                };
                assert_unregistered(what, socket, wait, || {
                    assert_eq!(std::net::UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", addr).unwrap(), 1);
                })
                .await;
            }

            let (std, mut peer) = std::os::unix::net::UnixStream::pair().unwrap();
            let duplicate = std.try_clone().unwrap();
            let wait = async |it: &UnixStream| is_pending(it.readable()).await;
            assert_unregistered("unix stream", UnixStream::from(std), wait, || peer.write_all(b"x").unwrap()).await;
            drop(duplicate);

            let (std, peer) = std::os::unix::net::UnixDatagram::pair().unwrap();
            let duplicate = std.try_clone().unwrap();
            let wait = async |it: &UnixDatagram| is_pending(it.recv(&mut [0])).await;
            assert_unregistered("unix datagrams", UnixDatagram::from(std), wait, || {
                assert_eq!(peer.send(b"x").unwrap(), 1)
            })
            .await;
            drop(duplicate);

            let std = std::os::unix::net::UnixListener::bind(path("listener")).unwrap();
            let duplicate = std.try_clone().unwrap();
            let wait = async |it: &UnixListener| is_pending(it.accept()).await;
            assert_unregistered("unix listener", UnixListener::from(std), wait, || {
                drop(std::os::unix::net::UnixStream::connect(path("listener")).unwrap());
            })
            .await;
            drop(duplicate);

            let socket = || socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::SEQPACKET, None).unwrap();
            let listening = socket();
            let addr = socket2::SockAddr::unix(path("packets")).unwrap();
            listening.bind(&addr).unwrap();
            listening.listen(8).unwrap();
            let duplicate = listening.try_clone().unwrap();
            let listener = UnixSeqpacketListener::from(OwnedFd::from(listening));
            let wait = async |it: &UnixSeqpacketListener| is_pending(it.accept()).await;
            let event = || socket().connect(&addr).unwrap();
            assert_unregistered("packet listener", listener, wait, event).await;
            drop(duplicate);

            let (one, peer) = socket2::Socket::pair(socket2::Domain::UNIX, socket2::Type::SEQPACKET, None).unwrap();
            let duplicate = one.try_clone().unwrap();
            let wait = async |it: &UnixSeqpacket| is_pending(it.recv(&mut [0])).await;
            let event = || assert_eq!(peer.send(b"x").unwrap(), 1);
            assert_unregistered("packets", UnixSeqpacket::from(OwnedFd::from(one)), wait, event).await;
            drop(duplicate);
        });
    });
}

/// Regression: a duplicate with the number of a closed socket was mistaken for that socket
/// ("already registered").
#[test]
fn async_fd_takes_a_duplicate_under_the_number_of_a_closed_socket() {
    child("async_fd_takes_a_duplicate_under_the_number_of_a_closed_socket", || {
        run(async {
            for explicit in [false, true] {
                let (std, mut peer) = std::os::unix::net::UnixStream::pair().unwrap();
                let duplicate = std.try_clone().unwrap();
                let number = std.as_raw_fd();
                let socket = UnixStream::from(std);
                assert!(is_pending(socket.readable()).await);
                if explicit {
                    socket.force_close().await.unwrap();
                }
                drop(socket);
                // SAFETY: the argument is a number. The call returns the lowest free descriptor
                // from this number on.
                let again = unsafe { libc::fcntl(duplicate.as_raw_fd(), libc::F_DUPFD_CLOEXEC, number) };
                assert_eq!(again, number);
                // SAFETY: the descriptor was just created and has no other owner.
                let again = AsyncFd::new(unsafe { OwnedFd::from_raw_fd(again) }).unwrap();
                assert!(is_pending(again.readable()).await);
                peer.write_all(b"x").unwrap();
                again.readable().await.unwrap().retain_ready();
            }
        });
    });
}

// ---- a borrowed descriptor after the close ----
//
// If the descriptor was handed out (`as_fd`), an explicit close replaces it with a duplicate of the
// placeholder, on which calls fail. The first hand-out in a process opens the placeholder.

/// Asserts that a call on the descriptor fails with EBADF.
#[cfg(target_os = "linux")]
fn assert_closed(what: &str, fd: BorrowedFd<'_>) {
    let error = SockRef::from(&fd).local_addr().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBADF), "{what}");
}

/// Opens files, which get the lowest free numbers.
#[cfg(target_os = "linux")]
fn take_numbers() -> Vec<std::fs::File> {
    (0..16).map(|_| std::fs::File::open("/dev/null").unwrap()).collect()
}

/// Regression: after an explicit close, a borrowed descriptor referred to the next file with its
/// number.
#[test]
#[cfg(target_os = "linux")]
fn borrowed_descriptor_refers_to_no_other_file_after_the_close() {
    child("borrowed_descriptor_refers_to_no_other_file_after_the_close", || {
        run(async {
            warm_up().await;
            for is_borrowed_before in [true, false] {
                let (stream, peer) = pair().await;
                let clone = stream.clone();
                let number = stream.as_fd().as_raw_fd();
                let before = is_borrowed_before.then(|| stream.as_fd());
                clone.force_close().await.unwrap();
                let others = take_numbers();
                before.into_iter().for_each(|fd| assert_closed("borrowed before the close", fd));
                assert_closed("borrowed after the close", stream.as_fd());
                assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
                drop((stream, others));
                assert!(take_numbers().iter().all(|file| file.as_raw_fd() != number), "the clone still exists");
                drop(clone);
                assert!(take_numbers().iter().any(|file| file.as_raw_fd() == number), "no handle exists");
            }
            // A descriptor that was never borrowed is free after the close.
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let count = fd_count();
            listener.close().await.unwrap();
            assert_eq!(fd_count(), count - 1);
            let _others = take_numbers();
            assert_closed("listener", listener.as_fd());
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let fd = socket.as_fd();
            socket.close().await.unwrap();
            let _more = take_numbers();
            assert_closed("UDP socket", fd);
        });
    });
}

/// The close needs no free descriptor, because the first borrow has opened the placeholder. A
/// duplicate of the placeholder keeps the number in use until the drop.
#[test]
fn close_of_a_borrowed_socket_without_a_free_descriptor_reaches_the_peer() {
    child("close_of_a_borrowed_socket_without_a_free_descriptor_reaches_the_peer", || {
        set_nofile(64);
        run(async {
            let (stream, peer) = pair().await;
            let fd = stream.as_fd();
            warm_up().await;
            let held = exhaust_descriptors();
            stream.force_close().await.unwrap();
            assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
            assert!(SockRef::from(&fd).send(b"x").is_err());
            assert_eq!(exhaust_descriptors().len(), 0);
            drop(stream);
            assert_eq!(exhaust_descriptors().len(), 1);
            drop(held);
        });
    });
}

/// Regression: after an explicit close, `as_fd` returned another number than before.
#[test]
fn number_of_a_borrowed_socket_stays_the_same_after_the_close() {
    run(async {
        let (stream, _peer) = pair().await;
        let number = stream.as_fd().as_raw_fd();
        stream.force_close().await.unwrap();
        assert_eq!(stream.as_raw_fd(), number);
    });
}

/// Regression: the close kept the number of each exposed socket until the last handle was dropped.
#[test]
#[cfg(target_os = "linux")]
fn number_of_a_socket_that_was_never_borrowed_is_free_after_the_close() {
    child("number_of_a_socket_that_was_never_borrowed_is_free_after_the_close", || {
        run(async {
            warm_up().await;
            let adopted = TcpListener::from(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
            let controlled = listener().await;
            controlled.control(|_| Ok(())).unwrap();
            for listener in [adopted, controlled] {
                let count = fd_count();
                listener.close().await.unwrap();
                assert_eq!(fd_count(), count - 1);
            }
        });
    });
}

/// Regression: while no descriptor was free, the close shut down a socket that another owner still
/// used, and a datagram socket kept its port.
#[test]
fn close_without_a_free_descriptor_does_not_shut_down_a_borrowed_socket() {
    child("close_without_a_free_descriptor_does_not_shut_down_a_borrowed_socket", || {
        set_nofile(64);
        run(async {
            let (stream, peer) = pair().await;
            let duplicate = std::net::TcpStream::from(stream.as_fd().try_clone_to_owned().unwrap());
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let (addr, fd) = (socket.local_addr().unwrap(), socket.as_fd());
            warm_up().await;
            let mut held = exhaust_descriptors();
            stream.force_close().await.unwrap();
            socket.close().await.unwrap();
            (&duplicate).write_all(b"x").unwrap();
            assert_eq!(peer.read(&mut [0; 4]).await.unwrap(), 1);
            held.pop();
            drop(UdpSocket::bind(addr).await.unwrap());
            assert!(SockRef::from(&fd).local_addr().is_err());
        });
    });
}

/// If no descriptor is free at any borrow, the placeholder cannot be opened, so the close only
/// shuts down the connection.
///
/// Regression: with a linger time of zero, this close sent FIN instead of a reset, and with a
/// longer one, the drop that followed blocked. A borrow of a closed socket had a negative number,
/// with which socket2 panics.
#[test]
#[cfg(target_os = "linux")]
fn close_without_a_placeholder_obeys_so_linger() {
    child("close_without_a_placeholder_obeys_so_linger", || {
        set_nofile(64);
        run(async {
            warm_up().await;
            let (reset, reset_peer) = pair().await;
            let (lingers, lingers_peer) = pair().await;
            let chunk = vec![7; 64 << 10];
            while poll_once(&mut lingers.write(&chunk)).await.is_ready() {}
            let (closed, _peer) = pair().await;
            closed.force_close().await.unwrap();
            let held = exhaust_descriptors();
            assert_closed("borrowed after the close", closed.as_fd());
            SockRef::from(&reset).set_linger(Some(Duration::ZERO)).unwrap();
            reset.force_close().await.unwrap();
            let error = reset_peer.read(&mut [0]).await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            set_linger(lingers.as_fd()).unwrap();
            lingers.force_close().await.unwrap();
            let start = Instant::now();
            drop(lingers);
            assert!(start.elapsed() < LINGER / 2, "the drop blocked for {:?}", start.elapsed());
            drop((held, lingers_peer));
        });
    });
}

/// A borrow that races with the close gets the socket, or a descriptor on which calls fail with
/// EBADF, and never another file.
#[test]
#[cfg(target_os = "linux")]
fn borrow_during_the_close_gets_no_other_file() {
    child("borrow_during_the_close_gets_no_other_file", || {
        run(async {
            for _ in 0..200 {
                let (stream, _peer) = pair().await;
                let clone = stream.clone();
                let borrows = thread::spawn(move || {
                    for _ in 0..50 {
                        if let Err(error) = SockRef::from(&clone.as_fd()).local_addr() {
                            assert_eq!(error.raw_os_error(), Some(libc::EBADF));
                        }
                    }
                });
                let files = thread::spawn(take_numbers);
                stream.force_close().await.unwrap();
                files.join().unwrap();
                borrows.join().unwrap();
            }
        });
    });
}

// ---- O_NONBLOCK ----

/// Calls `poll`, which polls an operation that cannot complete, on another thread. The poll must
/// return Pending and not block the thread. The limit is below that of the [`Watchdog`], so that a
/// failure names the operation.
fn assert_waits<T: Debug + Send + 'static>(what: &'static str, poll: impl AsyncFnOnce() -> Poll<T> + Send + 'static) {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || send.send(park_on(poll())));
    match receive.recv_timeout(BOUND / 6) {
        Ok(polled) => assert!(polled.is_pending(), "{what}: {polled:?}"),
        Err(_) => panic!("{what} blocks its thread"),
    }
}

/// Clears O_NONBLOCK through a duplicate, as another process would.
fn make_blocking(fd: &impl AsFd) {
    let duplicate = fd.as_fd().try_clone_to_owned().unwrap();
    SockRef::from(&duplicate).set_nonblocking(false).unwrap();
}

/// For each operation, creates a socket with `$make`, makes it blocking as another user would, and
/// asserts that the operation waits.
macro_rules! assert_each_waits {
    ($make:expr, $($what:literal: |$socket:ident| $poll:expr;)*) => {
        $({
            let made = $make;
            make_blocking(&made.0);
            assert_waits($what, async move || {
                let $socket = &made.0;
                $poll
            });
        })*
    };
}

#[test]
fn blocking_mode_set_by_another_user_blocks_no_receive() {
    let _watchdog = Watchdog::new();
    assert_each_waits! { park_on(pair()),
        "read": |it| poll_once(&mut it.read(&mut [0; 4])).await;
        "peek": |it| poll_once(&mut it.peek(&mut [0; 4])).await;
        "read_vectored": |it| {
            let (mut one, mut other) = ([0; 2], [0; 2]);
            let mut bufs = [IoSliceMut::new(&mut one), IoSliceMut::new(&mut other)];
            poll_once(&mut it.read_vectored(&mut bufs)).await
        };
        "read_with": |it| poll_once(&mut it.read_with(|fd| rustix::io::read(fd, &mut [0; 4]).map_err(Into::into))).await;
        "copy": |it| {
            let (sink, _other) = pair().await;
            let (mut source, mut sink) = (it, &sink);
            poll_once(&mut Box::pin(io::copy(&mut source, &mut sink))).await
        };
    }
    assert_each_waits! { UnixStream::pair().unwrap(),
        "unix read": |it| poll_once(&mut it.read(&mut [0; 4])).await;
        "recv_with_fds": |it| poll_once(&mut it.recv_with_fds(&mut [0; 4], &mut Vec::new())).await;
        "unix copy": |it| {
            let (sink, _other) = UnixStream::pair().unwrap();
            let (mut source, mut sink) = (it, &sink);
            poll_once(&mut Box::pin(io::copy(&mut source, &mut sink))).await
        };
    }
    assert_each_waits! { (park_on(UdpSocket::bind("127.0.0.1:0")).unwrap(), ()),
        "recv_from": |it| poll_once(&mut it.recv_from(&mut [0; 4])).await;
        "recv": |it| poll_once(&mut it.recv(&mut [0; 4])).await;
        "recv_msg": |it| poll_once(&mut it.recv_msg(&mut [IoSliceMut::new(&mut [0; 4])])).await.map(|_| ());
        "recv_many": |it| poll_once(&mut it.recv_many(&mut RecvBatch::new(4, 4))).await;
    }
    assert_each_waits! { UnixDatagram::pair().unwrap(),
        "datagram": |it| poll_once(&mut it.recv(&mut [0; 4])).await;
        "datagram and sender": |it| poll_once(&mut it.recv_from(&mut [0; 4])).await;
    }
    assert_each_waits! { UnixSeqpacket::pair().unwrap(),
        "packet": |it| poll_once(&mut it.recv(&mut [0; 4])).await;
    }
}

#[test]
fn blocking_mode_set_by_another_user_blocks_no_accept() {
    let _watchdog = Watchdog::new();
    let folder = Folder::new();
    assert_each_waits! { (park_on(listener()), ()),
        "accept": |it| poll_once(&mut it.accept()).await;
        "incoming": |it| poll_once(&mut it.incoming().next()).await;
    }
    assert_each_waits! {
        (park_on(ListenConfig::new().max_connections(3).reserve_descriptors(1).listen("127.0.0.1:0")).unwrap(), ()),
        "accept within limits": |it| poll_once(&mut it.accept()).await;
    }
    assert_each_waits! { (park_on(UnixListener::bind(folder.join("stream"))).unwrap(), ()),
        "unix accept": |it| poll_once(&mut it.accept()).await;
    }
    assert_each_waits! { (park_on(UnixSeqpacketListener::bind(folder.join("packet"))).unwrap(), ()),
        "packet accept": |it| poll_once(&mut it.accept()).await;
    }
}

/// Returns a stream with a full send buffer, and its peer. A duplicate fills the buffer, so the
/// stream itself still counts as ready for writing.
fn full() -> (TcpStream, TcpStream) {
    let (stream, peer) = park_on(pair());
    park_on(fill(&OwnedFd::from(stream.clone()).into()));
    (stream, peer)
}

#[test]
fn blocking_mode_set_by_another_user_blocks_no_send() {
    const MUCH: usize = 64 << 20;
    let file = || std::fs::File::open("/proc/self/exe").unwrap();
    let _watchdog = Watchdog::new();
    assert_each_waits! { full(),
        "write": |it| until_it_waits(async || poll_once(&mut it.write(&[1; 1000])).await).await;
        "write_vectored": |it| {
            let bufs = [IoSlice::new(&[1; 10]), IoSlice::new(&[2; 10])];
            until_it_waits(async || poll_once(&mut it.write_vectored(&bufs)).await).await
        };
        "send_zerocopy": |it| until_it_waits(async || poll_once(&mut it.send_zerocopy([1; 1000])).await).await;
        "write_with": |it| {
            let write = |fd: BorrowedFd<'_>| rustix::io::write(fd, &[1; 1000]).map_err(Into::into);
            until_it_waits(async || poll_once(&mut it.write_with(write)).await).await
        };
        "send_file": |it| until_it_waits(async || poll_once(&mut it.send_file(&file(), 0, 100_000)).await).await;
        "copy of a file": |it| {
            until_it_waits(async || {
                let (mut file, mut sink) = (io::AssertAsync::new(file()), it);
                poll_once(&mut Box::pin(io::copy(&mut file, &mut sink))).await
            })
            .await
        };
        "copy to a full socket": |it| {
            let (source, other) = pair().await;
            other.write_all(&vec![1; MUCH / 128]).await.unwrap();
            let (mut source, mut sink) = (&source, it);
            poll_once(&mut Box::pin(io::copy(&mut source, &mut sink))).await
        };
    }
    // These sockets have room for only a part of the data.
    assert_each_waits! { park_on(pair()),
        "write_all": |it| poll_once(&mut it.write_all(&vec![1; MUCH])).await;
    }
    assert_each_waits! { UnixStream::pair().unwrap(),
        "unix write_all": |it| poll_once(&mut it.write_all(&vec![1; MUCH])).await;
    }
    assert_each_waits! { UnixDatagram::pair().unwrap(),
        "datagrams": |it| until_it_waits(async || poll_once(&mut it.send(&[1; 1000])).await).await;
    }
    assert_each_waits! { UnixSeqpacket::pair().unwrap(),
        "packets": |it| until_it_waits(async || poll_once(&mut it.send(&[1; 1000])).await).await;
    }
}

/// Sends until a send waits.
async fn until_it_waits<T>(mut send: impl AsyncFnMut() -> Poll<T>) -> Poll<()> {
    while send().await.is_ready() {}
    Poll::Pending
}

#[test]
fn blocking_mode_set_by_another_user_blocks_no_call_on_an_async_fd() {
    let _watchdog = Watchdog::new();
    assert_each_waits! { {
            let (reader, writer) = std::io::pipe().unwrap();
            (AsyncFd::new(reader).unwrap(), writer)
        },
        "async_fd read": |it| {
            let mut it = it;
            poll_once(&mut it.read(&mut [0; 4])).await
        };
        "async_fd read_with": |it| poll_once(&mut it.read_with(|fd| rustix::io::read(fd, &mut [0; 4]).map_err(Into::into))).await;
    }
    assert_waits("try_io", async || {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let reader = AsyncFd::new(reader).unwrap();
        writer.write_all(b"x").unwrap();
        let mut guard = reader.readable().await.unwrap();
        rustix::io::read(&reader, &mut [0; 4]).unwrap();
        make_blocking(&reader);
        match guard.try_io(|fd| rustix::io::read(fd, &mut [0; 4]).map_err(Into::into)) {
            Ok(read) => Poll::Ready(format!("{read:?}")),
            Err(_would_block) => Poll::Pending,
        }
    });
}

//! Unix streams, seqpacket sockets and their listeners: bytes and messages, end of stream,
//! deadlines, peers, accepting, conversions.
#![cfg(target_os = "linux")] // abstract names, and seqpacket sockets

mod common;

use std::fs;
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net as std_net;
use std::process::{Command, Stdio};
use std::task::Poll;
use std::time::{Duration, Instant};

use common::by_hand::{Wakes, are_woken};
use common::{Folder, becomes, child, exhaust_descriptors, park_on, poll_once, poll_with, run, set_nofile, warm_up};
use netpoll::io::{self, ReadExt, WriteExt};
use netpoll::net::{is_closed, is_timeout, raw_os_error};
use netpoll::os::unix::net::{
    SocketAddr, UnixDatagram, UnixListener, UnixSeqpacket, UnixSeqpacketListener, UnixStream,
};
use netpoll::prelude::*;
use netpoll::task;

fn abstract_addr(name: &str) -> SocketAddr {
    SocketAddr::from_abstract_name(format!("netpoll-{name}-{}", std::process::id())).unwrap()
}

async fn connected(listener: &UnixListener) -> (UnixStream, UnixStream) {
    let client = UnixStream::connect_addr(&listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

async fn read_to_end(stream: &UnixStream) -> Vec<u8> {
    let mut all = Vec::new();
    let mut stream = stream;
    stream.read_to_end(&mut all).await.unwrap();
    all
}

fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> Option<i32> {
    raw_os_error(&result.unwrap_err())
}

// ---- round trips ----

/// Go: TestConnAndListener, TestUnixAndUnixpacketServer. Connects by path, by abstract name, and by
/// a name that the kernel chose.
#[test]
fn unix_streams_transfer_both_ways() {
    run(async {
        let folder = Folder::new();
        let names = [
            UnixListener::bind(folder.join("s")).await.unwrap(),
            UnixListener::bind_addr(&abstract_addr("stream")).await.unwrap(),
            UnixListener::bind(format!("\0netpoll-nul-{}", std::process::id())).await.unwrap(),
            UnixListener::bind("").await.unwrap(),
        ];
        for listener in names {
            let (client, server) = connected(&listener).await;
            client.write_all(b"ping").await.unwrap();
            let mut buf = [0; 16];
            assert_eq!(server.read(&mut buf).await.unwrap(), 4);
            server.write_all(b"pong!").await.unwrap();
            assert_eq!(client.peek(&mut buf).await.unwrap(), 5);
            assert_eq!(client.read(&mut buf).await.unwrap(), 5);
            assert_eq!(&buf[..5], b"pong!");
            client.close_write().unwrap();
            assert_eq!(server.read(&mut buf).await.unwrap(), 0);
        }
    });
}

/// Sends much more than the socket holds, so that both sides wait in turn.
#[test]
fn stream_larger_than_buffers_arrives_intact() {
    run(async {
        let (one, other) = UnixStream::pair().unwrap();
        let bytes: Vec<u8> = (0..4 << 20).map(|n: u32| (n % 251) as u8).collect();
        let sent = bytes.clone();
        let writer = task::spawn(async move {
            one.write_all(&sent).await.unwrap();
            one.close_write().unwrap();
        });
        assert_eq!(read_to_end(&other).await, bytes);
        writer.await;
    });
}

/// async-std's Unix streams have no vectored operations.
#[test]
fn vectored_reads_and_writes_move_all_buffers_with_one_call() {
    run(async {
        let (one, other) = UnixStream::pair().unwrap();
        let bufs = [IoSlice::new(b"one "), IoSlice::new(b""), IoSlice::new(b"two "), IoSlice::new(b"three")];
        let (mut first, mut second) = ([0; 6], [0; 20]);
        assert_eq!(one.write_vectored(&bufs).await.unwrap(), 13);
        let mut into = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
        assert_eq!(other.read_vectored(&mut into).await.unwrap(), 13);
        assert_eq!((&first, &second[..7]), (b"one tw", &b"o three"[..]));
        // The traits' methods, called on a value and on a reference, do the same.
        let mut owned = one.clone();
        assert_eq!(WriteExt::write_vectored(&mut owned, &bufs).await.unwrap(), 13);
        let mut into = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
        assert_eq!(ReadExt::read_vectored(&mut &other, &mut into).await.unwrap(), 13);
        assert_eq!((&first, &second[..7]), (b"one tw", &b"o three"[..]));
    });
}

/// Go: TestUnixAndUnixpacketServer. Messages, including empty ones, keep their boundaries.
#[test]
fn seqpacket_keeps_message_boundaries() {
    run(async {
        let folder = Folder::new();
        let path = folder.join("p");
        for listener in [UnixSeqpacket::bind(&path).await.unwrap(), UnixSeqpacketListener::bind("").await.unwrap()] {
            let client = UnixSeqpacket::connect_addr(&listener.local_addr().unwrap()).await.unwrap();
            let (server, peer) = listener.accept().await.unwrap();
            assert!(peer.is_unnamed());
            for message in [&b"first"[..], b"", b"the third"] {
                assert_eq!(client.send(message).await.unwrap(), message.len());
            }
            let mut buf = [0; 6];
            assert_eq!(server.peek(&mut buf).await.unwrap(), 5);
            assert_eq!(server.recv(&mut buf).await.unwrap(), 5);
            assert_eq!(server.recv(&mut buf).await.unwrap(), 0, "an empty message");
            assert_eq!((server.recv(&mut buf).await.unwrap(), &buf), (6, b"the th"), "the rest of the message is lost");
            server.send(b"echo").await.unwrap();
            assert_eq!(client.recv(&mut buf).await.unwrap(), 4);
            drop(client);
            assert_eq!(server.recv(&mut buf).await.unwrap(), 0, "the end of the stream");
            server.peer_closed().await.unwrap();
            assert!(server.is_peer_closed());
        }
        assert!(!path.exists());
    });
}

/// Clones share the socket. The messages of many senders are not mixed.
#[test]
fn packets_of_many_senders_stay_intact() {
    run(async {
        let (one, other) = UnixSeqpacket::pair().unwrap();
        let senders: Vec<_> = (1..=8_u8)
            .map(|number| {
                let one = one.clone();
                task::spawn(async move {
                    for _ in 0..200 {
                        one.send(&vec![number; 100 * number as usize]).await.unwrap();
                    }
                })
            })
            .collect();
        let mut counts = [0; 9];
        let mut buf = [0; 1000];
        for _ in 0..8 * 200 {
            let count = other.recv(&mut buf).await.unwrap();
            assert_eq!(count, 100 * buf[0] as usize);
            assert!(buf[..count].iter().all(|byte| *byte == buf[0]));
            counts[buf[0] as usize] += 1;
        }
        assert_eq!(counts, [0, 200, 200, 200, 200, 200, 200, 200, 200]);
        for sender in senders {
            sender.await;
        }
    });
}

#[test]
fn unix_sockets_work_under_another_executor() {
    let folder = Folder::new();
    park_on(async {
        let listener = UnixListener::bind(folder.join("s")).await.unwrap();
        let (client, server) = connected(&listener).await;
        let mut buf = [0; 1];
        let mut read = server.read(&mut buf);
        assert!(poll_once(&mut read).await.is_pending());
        client.write_all(b"x").await.unwrap();
        assert_eq!(read.await.unwrap(), 1);
    });
}

// ---- the end of a connection ----

/// SIGPIPE has its default disposition, as in a program that is not written in Rust.
#[test]
fn closed_peer_is_an_error_without_sigpipe() {
    child("closed_peer_is_an_error_without_sigpipe", || {
        // SAFETY: SIG_DFL is a valid disposition, and no other test runs in this process.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        task::block_on(async {
            let (one, other) = UnixStream::pair().unwrap();
            drop(other);
            let null = fs::File::open("/dev/null").unwrap();
            let fds = [null.as_fd()];
            let kinds = [
                one.write(b"x").await.unwrap_err().kind(),
                one.write_all(b"x").await.unwrap_err().kind(),
                one.write_vectored(&[IoSlice::new(b"x")]).await.unwrap_err().kind(),
                one.send_with_fds(b"x", &fds).await.unwrap_err().kind(),
                WriteExt::write(&mut &one, b"x").await.unwrap_err().kind(),
            ];
            assert_eq!(kinds, [ErrorKind::BrokenPipe; 5]);
            let (one, other) = UnixSeqpacket::pair().unwrap();
            drop(other);
            assert_eq!(one.send(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
            assert_eq!(one.send_with_fds(b"x", &fds).await.unwrap_err().kind(), ErrorKind::BrokenPipe);
            let (one, other) = UnixDatagram::pair().unwrap();
            one.shutdown(Shutdown::Write).unwrap();
            assert_eq!(one.send(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
            drop(other);
            let named = UnixDatagram::bind("").await.unwrap();
            named.shutdown(Shutdown::Read).unwrap();
            let sent = UnixDatagram::unbound().unwrap();
            let sent = sent.send_to_addr(b"x", &named.local_addr().unwrap()).await;
            assert_eq!(sent.unwrap_err().kind(), ErrorKind::BrokenPipe);
        });
    });
}

/// Go: TestCloseRead, TestZeroByteRead, TestUnixConnReadEOF.
#[test]
fn unix_stream_eof_is_not_an_error() {
    run(async {
        let (one, other) = UnixStream::pair().unwrap();
        let (packet, peer) = UnixSeqpacket::pair().unwrap();
        assert_eq!(one.read(&mut []).await.unwrap(), 0, "a read into an empty buffer does not wait");
        one.write_all(b"last").await.unwrap();
        one.close_write().unwrap();
        let mut fds = Vec::new();
        let mut buf = [0; 8];
        assert_eq!(other.recv_with_fds(&mut buf, &mut fds).await.unwrap(), 4);
        assert_eq!(other.recv_with_fds(&mut buf, &mut fds).await.unwrap(), 0);
        assert_eq!(other.read(&mut buf).await.unwrap(), 0);
        // The other direction stays open.
        other.write_all(b"still").await.unwrap();
        assert_eq!(one.read(&mut buf).await.unwrap(), 5);
        other.close_read().unwrap();
        assert_eq!(other.read(&mut buf).await.unwrap(), 0);
        packet.shutdown(Shutdown::Write).unwrap();
        assert_eq!(peer.recv(&mut buf).await.unwrap(), 0);
        assert_eq!(peer.recv_with_fds(&mut buf, &mut fds).await.unwrap(), 0);
        assert!(fds.is_empty());
        // The traits' `close` sends the end of the stream. It may be called again.
        let (one, other) = UnixStream::pair().unwrap();
        for _ in 0..2 {
            (&one).close().await.unwrap();
        }
        assert_eq!(other.read(&mut buf).await.unwrap(), 0);
    });
}

/// The kernel reports a reset if the peer closes with unread bytes.
#[test]
fn peer_close_with_unread_data_resets() {
    run(async {
        let (one, other) = UnixStream::pair().unwrap();
        one.write_all(b"unread").await.unwrap();
        drop(other);
        assert_eq!(one.read(&mut [0; 1]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn peer_close_wakes_unix_waiters() {
    run(async {
        let (one, other) = UnixStream::pair().unwrap();
        assert!(!one.is_peer_closed());
        let wakers = [(); 3].map(|()| Wakes::new());
        let mut buf = [0; 1];
        let (mut closed, mut read, mut readable) = (one.peer_closed(), one.read(&mut buf), one.readable());
        assert!(poll_with(&mut closed, &wakers[0].1).is_pending());
        assert!(poll_with(&mut read, &wakers[1].1).is_pending());
        assert!(poll_with(&mut readable, &wakers[2].1).is_pending());
        other.force_close().await.unwrap();
        are_woken(&wakers).await;
        closed.await.unwrap();
        assert_eq!(read.await.unwrap(), 0);
        readable.await.unwrap();
        assert!(one.is_peer_closed());
    });
}

/// A close wakes all waiters, and later operations fail with Go's texts.
#[test]
fn close_ends_all_unix_waiters() {
    run(async {
        let folder = Folder::new();
        let path = folder.join("s");
        let listener = UnixListener::bind(&path).await.unwrap();
        let (client, server) = connected(&listener).await;
        let wakers = [(); 4].map(|()| Wakes::new());
        let mut accepting = listener.accept();
        assert!(poll_with(&mut accepting, &wakers[3].1).is_pending());
        let mut bufs = [[0; 1]; 3];
        let mut readers: Vec<_> = bufs.iter_mut().map(|buf| server.read(buf)).collect();
        for (reader, (_, waker)) in readers.iter_mut().zip(&wakers) {
            assert!(poll_with(reader, waker).is_pending());
        }
        server.force_close().await.unwrap();
        listener.close().await.unwrap();
        are_woken(&wakers).await;
        let at = path.display();
        for reader in readers {
            let error = reader.await.unwrap_err();
            assert!(is_closed(&error));
            assert_eq!(error.to_string(), format!("read unix {at}->@: use of closed network connection"));
        }
        let error = accepting.await.unwrap_err();
        assert_eq!(error.to_string(), format!("accept unix {at}: use of closed network connection"));
        assert!(is_closed(&server.write_all(b"x").await.unwrap_err()));
        assert!(is_closed(&server.local_addr().unwrap_err()));
        assert!(is_closed(&server.peer_cred().unwrap_err()));
        assert!(is_closed(&listener.set_deadline(None).unwrap_err()));
        assert!(listener.incoming().next().await.unwrap().is_err());
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
        let (packet, _peer) = UnixSeqpacket::pair().unwrap();
        packet.force_close().await.unwrap();
        let error = packet.send(b"x").await.unwrap_err();
        assert_eq!(error.to_string(), "write unixpacket @->@: use of closed network connection");
    });
}

// ---- deadlines ----

#[test]
fn unix_deadlines_end_waits_and_lose_nothing() {
    run(async {
        let folder = Folder::new();
        let path = folder.join("s");
        let listener = UnixListener::bind(&path).await.unwrap();
        listener.set_deadline(Instant::now() + Duration::from_millis(5)).unwrap();
        let error = listener.accept().await.unwrap_err();
        assert!(is_timeout(&error));
        assert_eq!(error.to_string(), format!("accept unix {}: i/o timeout", path.display()));
        listener.set_deadline(None).unwrap();
        let (client, server) = connected(&listener).await;
        client.set_read_deadline(Instant::now() + Duration::from_millis(5)).unwrap();
        let error = client.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.to_string(), format!("read unix @->{}: i/o timeout", path.display()));
        server.write_all(b"kept").await.unwrap();
        let mut buf = [0; 4];
        assert!(is_timeout(&client.read(&mut buf).await.unwrap_err()), "an expired deadline precedes available data");
        client.set_deadline(None).unwrap();
        assert_eq!(client.read(&mut buf).await.unwrap(), 4);
        client.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        assert!(is_timeout(&client.readable().await.unwrap_err()));
        assert!(is_timeout(&client.recv_with_fds(&mut buf, &mut Vec::new()).await.unwrap_err()));
        assert_eq!(client.read_timeout().unwrap(), Some(Duration::from_millis(5)));
        assert!(client.set_write_timeout(Some(Duration::ZERO)).is_err() && client.write_timeout().unwrap().is_none());
        // The peer does not read.
        client.set_write_deadline(Instant::now() + Duration::from_millis(20)).unwrap();
        assert!(is_timeout(&client.write_all(&vec![0; 16 << 20]).await.unwrap_err()));
        let (packet, _peer) = UnixSeqpacket::pair().unwrap();
        packet.set_deadline(Instant::now() + Duration::from_millis(5)).unwrap();
        assert!(is_timeout(&packet.recv(&mut buf).await.unwrap_err()));
        assert!(is_timeout(&packet.peer_closed().await.unwrap_err()));
    });
}

// ---- the peer ----

#[test]
fn peer_credentials_are_reported() {
    run(async {
        // SAFETY: the calls take no arguments and cannot fail.
        let (uid, gid) = (unsafe { libc::geteuid() }, unsafe { libc::getegid() });
        let (stream, _other) = UnixStream::pair().unwrap();
        let (packet, _peer) = UnixSeqpacket::pair().unwrap();
        for cred in [stream.peer_cred().unwrap(), packet.peer_cred().unwrap()] {
            assert_eq!((cred.pid(), cred.uid(), cred.gid()), (Some(std::process::id()), uid, gid));
        }
        let unconnected = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        let unconnected = UnixStream::from(OwnedFd::from(unconnected));
        assert_eq!(errno(unconnected.peer_cred()), Some(libc::ENOTCONN));
    });
}

/// Exchanges data with OpenBSD's nc, a program that does not use this crate, if it is installed.
#[test]
fn nc_exchanges_data_with_unix_listener() {
    run(async {
        let folder = Folder::new();
        let path = folder.join("s");
        let listener = UnixListener::bind(&path).await.unwrap();
        let mut command = Command::new("nc");
        command.arg("-UN").arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let Ok(mut nc) = common::spawn(&mut command) else {
            println!("skipped: nc is not installed");
            return;
        };
        let mut stdin = nc.stdin.take().unwrap();
        stdin.write_all(b"hello\n").unwrap();
        drop(stdin);
        listener.set_deadline(Instant::now() + common::BOUND / 2).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        assert_eq!(stream.peer_cred().unwrap().pid(), Some(nc.id()));
        assert_eq!(read_to_end(&stream).await, b"hello\n");
        stream.write_all(b"bye\n").await.unwrap();
        drop(stream);
        let mut answer = String::new();
        nc.stdout.take().unwrap().read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "bye\n");
        assert!(nc.wait().unwrap().success());
    });
}

#[test]
fn connected_stream_is_writable_and_has_no_error() {
    run(async {
        let (one, _other) = UnixStream::pair().unwrap();
        assert!(one.take_error().unwrap().is_none());
        let mut write = one.writable();
        assert!(matches!(poll_once(&mut write).await, Poll::Ready(Ok(()))));
        assert!(!one.is_peer_closed());
    });
}

// ---- accepting ----

#[test]
fn unix_incoming_waits_without_descriptors() {
    child("unix_incoming_waits_without_descriptors", || {
        let folder = Folder::new();
        let path = folder.join("s");
        task::block_on(async {
            let listener = UnixListener::bind(&path).await.unwrap();
            warm_up().await;
            let client = std_net::UnixStream::connect(&path).unwrap();
            set_nofile(64);
            let held = exhaust_descriptors();
            assert_eq!(errno(listener.accept().await), Some(libc::EMFILE));
            let mut incoming = listener.incoming();
            let mut next = incoming.next();
            assert!(poll_once(&mut next).await.is_pending());
            drop(held);
            let stream = next.await.unwrap().unwrap();
            (&client).write_all(b"x").unwrap();
            assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 1);
        });
    });
}

#[test]
fn many_tasks_accept_many_clients() {
    run(async {
        let folder = Folder::new();
        let path = folder.join("s");
        let listener = std::sync::Arc::new(UnixListener::bind(&path).await.unwrap());
        let servers: Vec<_> = (0..4)
            .map(|_| {
                let listener = listener.clone();
                task::spawn(async move {
                    let mut count = 0;
                    while let Ok((stream, _)) = listener.accept().await {
                        count += 1;
                        drop(task::spawn(async move { io::copy(&mut &stream, &mut &stream).await }));
                    }
                    count
                })
            })
            .collect();
        let clients: Vec<_> = (0..64_u8)
            .map(|number| {
                let path = path.clone();
                task::spawn(async move {
                    let stream = UnixStream::connect(path).await.unwrap();
                    stream.write_all(&[number; 3]).await.unwrap();
                    stream.close_write().unwrap();
                    assert_eq!(read_to_end(&stream).await, [number; 3]);
                })
            })
            .collect();
        for client in clients {
            client.await;
        }
        listener.close().await.unwrap();
        let mut accepted = 0;
        for server in servers {
            accepted += server.await;
        }
        assert_eq!(accepted, 64);
    });
}

/// A dropped accept or read takes no connection and no data, and passes its wake-up on.
#[test]
fn dropped_unix_futures_lose_nothing() {
    run(async {
        let listener = UnixListener::bind("").await.unwrap();
        let addr = listener.local_addr().unwrap();
        for _ in 0..20 {
            let (wakes, waker) = Wakes::new();
            let (mut first, mut second) = (listener.accept(), listener.accept());
            assert!(poll_with(&mut first, &waker).is_pending() && poll_once(&mut second).await.is_pending());
            let client = UnixStream::connect_addr(&addr).await.unwrap();
            // The first operation, which has the wake-up, is dropped.
            becomes("the first accept is woken", || wakes.count() >= 1).await;
            drop(first);
            let (server, _) = second.await.unwrap();
            let (mut one, mut two) = ([0; 1], [0; 1]);
            let (mut first, mut second) = (server.read(&mut one), server.read(&mut two));
            assert!(poll_with(&mut first, &waker).is_pending() && poll_once(&mut second).await.is_pending());
            client.write_all(b"x").await.unwrap();
            becomes("the first read is woken", || wakes.count() >= 2).await;
            drop(first);
            assert_eq!(second.await.unwrap(), 1);
        }
    });
}

/// The kernel answers EAGAIN to accept(2) on a listener that was shut down through another
/// descriptor, as for an empty queue. The crate's accept fails nevertheless, once it has returned
/// the connections in the queue.
#[test]
fn accept_on_shut_down_listener_fails() {
    run(async {
        for has_waited in [false, true] {
            for queued in [false, true] {
                let listener = UnixListener::bind("").await.unwrap();
                let packets = UnixSeqpacketListener::bind("").await.unwrap();
                let mut accept = listener.accept();
                let mut waiting = packets.accept();
                if has_waited {
                    assert!(poll_once(&mut accept).await.is_pending());
                    assert!(poll_once(&mut waiting).await.is_pending());
                }
                let addr = listener.local_addr().unwrap();
                let client = queued.then(|| std_net::UnixStream::connect_addr(&addr).unwrap());
                for duplicate in [listener.as_fd().try_clone_to_owned(), packets.as_fd().try_clone_to_owned()] {
                    std_net::UnixStream::from(duplicate.unwrap()).shutdown(Shutdown::Read).unwrap();
                }
                if client.is_some() {
                    let accepted = poll_once(&mut accept).await;
                    assert!(matches!(accepted, Poll::Ready(Ok(_))), "{accepted:?}");
                    accept = listener.accept();
                }
                let end = poll_once(&mut accept).await.map(|accepted| errno(accepted.map(drop)));
                assert_eq!(end, Poll::Ready(Some(libc::EINVAL)));
                let end = poll_once(&mut waiting).await.map(|accepted| errno(accepted.map(drop)));
                assert_eq!(end, Poll::Ready(Some(libc::EINVAL)));
            }
        }
    });
}

// ---- conversions and auto traits ----

#[test]
fn std_unix_types_convert_both_ways() {
    run(async {
        let (one, mut other) = std_net::UnixStream::pair().unwrap();
        let number = one.as_raw_fd();
        let stream = UnixStream::from(one);
        assert_eq!(stream.as_raw_fd(), number);
        other.write_all(b"std").unwrap();
        let mut buf = [0; 8];
        assert_eq!(stream.read(&mut buf).await.unwrap(), 3);
        // The read waits, because the socket is non-blocking. The socket is then registered, and
        // the waiter is dropped.
        assert!(poll_once(&mut stream.read(&mut buf)).await.is_pending());
        let clone = stream.clone();
        let busy = std_net::UnixStream::try_from(stream).unwrap_err();
        assert_eq!(busy.kind(), ErrorKind::ResourceBusy);
        let back = std_net::UnixStream::try_from(clone).unwrap();
        assert_eq!(back.as_raw_fd(), number);
        back.set_nonblocking(false).unwrap();
        (&back).write_all(b"out").unwrap();
        let mut text = [0; 3];
        other.read_exact(&mut text).unwrap();
        // SAFETY: `into_raw_fd` just transferred ownership of the number.
        let again = unsafe { UnixStream::from_raw_fd(back.into_raw_fd()) };
        other.write_all(b"again").unwrap();
        assert_eq!(again.read(&mut buf).await.unwrap(), 5);
        let duplicate = OwnedFd::from(again.clone());
        assert_ne!(duplicate.as_raw_fd(), again.as_raw_fd());
        again.force_close().await.unwrap();
        assert!(is_closed(&std_net::UnixStream::try_from(again).unwrap_err()));

        let (one, other) = std_net::UnixDatagram::pair().unwrap();
        let datagram = UnixDatagram::from(one);
        other.send(b"x").unwrap();
        assert_eq!(datagram.recv(&mut buf).await.unwrap(), 1);
        let back = std_net::UnixDatagram::try_from(datagram).unwrap();
        back.send(b"y").unwrap();

        let (one, other) = UnixSeqpacket::pair().unwrap();
        let one = UnixSeqpacket::from(OwnedFd::from(one));
        one.send(b"packet").await.unwrap();
        assert_eq!(other.recv(&mut buf).await.unwrap(), 6);
        let listener = UnixSeqpacket::bind("").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let listener = UnixSeqpacketListener::from(OwnedFd::from(listener));
        let _client = UnixSeqpacket::connect_addr(&addr).await.unwrap();
        assert!(matches!(poll_once(&mut listener.accept()).await, Poll::Ready(Ok(_))));
    });
}

#[test]
fn unix_types_are_send_sync_and_unpin() {
    fn check<T: Send + Sync + Unpin>() {}
    check::<UnixStream>();
    check::<UnixListener>();
    check::<UnixDatagram>();
    check::<UnixSeqpacket>();
    check::<UnixSeqpacketListener>();
    check::<netpoll::os::unix::net::Incoming<'_>>();
    check::<netpoll::os::unix::net::IntoIncoming>();
    check::<netpoll::os::unix::net::futures::Accept<'_>>();
    check::<netpoll::os::unix::net::futures::SendTo<'_>>();
    check::<netpoll::os::unix::net::futures::SendWithFds<'_>>();
    check::<netpoll::os::unix::net::futures::RecvWithFds<'_>>();
}

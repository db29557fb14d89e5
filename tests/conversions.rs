//! Conversions of TCP streams and listeners from and to std's types, owned descriptors and raw
//! descriptors, operations on descriptors of the wrong kind, and the `Debug` output.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::by_hand::Wakes;
use common::{becomes, child, echo, fd_count, listener, pair, ping, run};
use netpoll::net::{ListenConfig, TcpListener, TcpStream, is_closed, is_timeout};
use netpoll::task;

/// Returns two ends of a blocking std connection.
fn std_pair() -> (std::net::TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

#[test]
fn std_streams_convert_both_ways() {
    run(async {
        let (client, server) = std_pair();
        let (client, server) = (TcpStream::from(client), TcpStream::from(server));
        let echoed = task::spawn({
            let server = server.clone();
            async move { echo(&server).await }
        });
        for _ in 0..10 {
            ping(&client, b"converted").await.unwrap();
        }
        // The options are unchanged.
        assert!(!client.nodelay().unwrap() && client.keepalive().unwrap().is_none());
        drop(client);
        echoed.await.unwrap();
        // The stream is the only handle, because the task has dropped its clone.
        let mut std = std::net::TcpStream::try_from(server).unwrap();
        std.set_nonblocking(false).unwrap();
        assert_eq!(std.read(&mut [0; 1]).unwrap(), 0);
    });
}

#[test]
fn converted_stream_can_be_adopted_again() {
    run(async {
        let (client, mut server) = pair().await;
        for round in 0..20_u8 {
            // The socket is registered, with a waiter that was dropped.
            let late = netpoll::io::timeout(Duration::from_micros(100), server.read(&mut [0; 1])).await;
            assert!(is_timeout(&late.unwrap_err()));
            let number = server.as_raw_fd();
            let std = std::net::TcpStream::try_from(server).unwrap();
            assert_eq!(std.as_raw_fd(), number, "the same descriptor");
            // Data that arrives while the descriptor belongs to std is read after the conversion.
            client.write_all(&[round]).await.unwrap();
            server = TcpStream::from(std);
            let mut buf = [0; 2];
            assert_eq!(server.read(&mut buf).await.unwrap(), 1);
            assert_eq!(buf[0], round);
        }
    });
}

#[test]
fn fallible_conversion_rejects_clones_and_infallible_one_duplicates() {
    run(async {
        let (client, server) = pair().await;
        let clone = client.clone();
        let error = std::net::TcpStream::try_from(client).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceBusy);
        // The infallible conversion duplicates the descriptor.
        let number = clone.as_raw_fd();
        let other = clone.clone();
        let duplicate = OwnedFd::from(clone);
        assert_ne!(duplicate.as_raw_fd(), number);
        let mut duplicate = std::net::TcpStream::from(duplicate);
        duplicate.write_all(b"dup").unwrap();
        let mut buf = [0; 3];
        common::read_exact(&server, &mut buf).await.unwrap();
        assert_eq!(&buf, b"dup");
        // The original still works after the duplicate has been dropped.
        drop(duplicate);
        other.write_all(b"own").await.unwrap();
        common::read_exact(&server, &mut buf).await.unwrap();
        assert_eq!(&buf, b"own");
        // The last handle returns the descriptor itself.
        assert_eq!(OwnedFd::from(other).as_raw_fd(), number);
    });
}

/// A registration in epoll ends when the open file description is closed, not when the descriptor
/// is closed. So the close of a socket whose descriptor was borrowed removes the registration.
#[test]
fn duplicate_outliving_stream_causes_no_events() {
    child("duplicate_outliving_stream_causes_no_events", || {
        run(async {
            let (one, echoes) = pair().await;
            let echo = task::spawn(async move { echo(&echoes).await });
            for round in 0..100 {
                common::assert_no_stale_events("the duplicate", async || {
                    let (client, server) = pair().await;
                    assert!(common::poll_once(&mut server.read(&mut [0; 1])).await.is_pending());
                    let duplicate = server.as_fd().try_clone_to_owned().unwrap();
                    drop(server);
                    // The new sockets may reuse the slot.
                    let (other, peer) = pair().await;
                    let (wakes, waker) = Wakes::new();
                    let mut buf = [0; 1];
                    let mut waits = peer.read(&mut buf);
                    assert!(common::poll_with(&mut waits, &waker).is_pending());
                    client.write_all(b"edge").await.unwrap();
                    // If the write causes an event, the poller reports it before the answer to this
                    // message.
                    ping(&one, b"ping").await.unwrap();
                    assert_eq!(wakes.count(), 0, "round {round}: an event of another socket");
                    other.write_all(b"x").await.unwrap();
                    assert_eq!(waits.await.unwrap(), 1);
                    drop(duplicate);
                })
                .await;
            }
            drop(one);
            echo.await.unwrap();
        });
    });
}

/// Regression: if a conversion had duplicated a socket's descriptor, the socket's registration
/// stayed in epoll after its close, and events of the duplicate woke the poller spuriously.
#[test]
fn converted_duplicate_leaves_no_registration() {
    child("converted_duplicate_leaves_no_registration", || {
        run(async {
            let (one, other) = pair().await;
            let echo = task::spawn(async move { echo(&other).await });
            let (client, server) = pair().await;
            assert!(common::poll_once(&mut server.readable()).await.is_pending());
            let _duplicate = OwnedFd::from(server.clone());
            drop(server);
            // A control function may make a duplicate.
            let kept = Arc::new(Mutex::new(None));
            let keeps = kept.clone();
            let config = ListenConfig::new().control(move |_, _, fd| {
                *keeps.lock().unwrap() = Some(fd.try_clone_to_owned()?);
                Ok(())
            });
            let listener = config.listen("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            assert!(common::poll_once(&mut listener.accept()).await.is_pending());
            drop(listener);
            ping(&one, b"before").await.unwrap();
            common::assert_no_stale_events("duplicates", async || {
                client.write_all(b"x").await.unwrap();
                drop(std::net::TcpStream::connect(addr).unwrap());
                ping(&one, b"after").await.unwrap();
            })
            .await;
            drop(one);
            echo.await.unwrap();
        });
    });
}

#[test]
fn closed_socket_cannot_be_converted() {
    run(async {
        let (client, server) = pair().await;
        client.force_close().await.unwrap();
        let error = std::net::TcpStream::try_from(client).unwrap_err();
        assert!(is_closed(&error) && error.to_string().starts_with("file tcp 127.0.0.1:"), "{error}");
        server.force_close().await.unwrap();
        assert!(catch_unwind(AssertUnwindSafe(|| OwnedFd::from(server))).is_err());
        let listener = listener().await;
        listener.close().await.unwrap();
        assert!(is_closed(&std::net::TcpListener::try_from(listener).unwrap_err()));
    });
}

#[test]
fn std_listeners_convert_both_ways() {
    run(async {
        let std = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = std.local_addr().unwrap();
        let mut listener = TcpListener::from(std);
        for _ in 0..5 {
            let dial = task::spawn(TcpStream::connect(addr));
            let (server, _) = listener.accept().await.unwrap();
            // An adopted listener keeps its options, and its connections inherit them.
            assert!(server.keepalive().unwrap().is_none());
            dial.await.unwrap();
            let std = std::net::TcpListener::try_from(listener).unwrap();
            assert_eq!(std.local_addr().unwrap(), addr);
            listener = TcpListener::from(OwnedFd::from(std));
        }
        // SAFETY: the number was just released by its owner and has no other owner.
        let listener = unsafe { TcpListener::from_raw_fd(listener.into_raw_fd()) };
        assert_eq!(listener.local_addr().unwrap(), addr);
        let dial = task::spawn(TcpStream::connect(addr));
        listener.accept().await.unwrap();
        dial.await.unwrap();
    });
}

#[test]
fn raw_descriptors_round_trip() {
    child("raw_descriptors_round_trip", || {
        run(async {
            let (client, server) = pair().await;
            let before = fd_count();
            let number = client.as_raw_fd();
            assert_eq!(client.as_fd().as_raw_fd(), number);
            let number = client.into_raw_fd();
            assert_eq!(fd_count(), before, "no descriptor is closed or duplicated");
            // SAFETY: `into_raw_fd` has just transferred the ownership of `number`.
            let client = unsafe { TcpStream::from_raw_fd(number) };
            client.write_all(b"x").await.unwrap();
            assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 1);
            drop(client);
            assert_eq!(fd_count(), before - 1);
            assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 0);
        });
    });
}

/// Operations that a descriptor does not support return errors. They neither panic nor hang.
#[test]
fn wrong_descriptor_kinds_return_errors() {
    run(async {
        let file = || OwnedFd::from(std::fs::File::open("/proc/self/status").unwrap());
        let stream = TcpStream::from(file());
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
        assert_eq!(stream.write(b"x").await.unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
        assert!(stream.peer_addr().is_err() && stream.local_addr().is_err() && stream.nodelay().is_err());
        assert!(format!("{stream:?}").contains("fd"));
        assert!(stream.peer_closed().await.unwrap_err().to_string().contains("not pollable"));
        let listener = TcpListener::from(file());
        assert_eq!(listener.accept().await.unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
        // `accept` fails on a socket that does not listen.
        let (client, _server) = std_pair();
        let listener = TcpListener::from(OwnedFd::from(client));
        assert_eq!(listener.accept().await.unwrap_err().raw_os_error(), Some(libc::EINVAL));
        // `read` fails on a socket that is not connected.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let stream = TcpStream::from(OwnedFd::from(socket));
        let error = stream.read(&mut [0; 1]).await.unwrap_err();
        assert!(error.raw_os_error() == Some(libc::ENOTCONN) && !is_closed(&error), "{error}");
        // An end of a Unix socket pair works as a `TcpStream`.
        let (left, right) = std::os::unix::net::UnixStream::pair().unwrap();
        let (left, right) = (TcpStream::from(OwnedFd::from(left)), TcpStream::from(OwnedFd::from(right)));
        let echoed = task::spawn(async move { echo(&right).await });
        ping(&left, b"unix").await.unwrap();
        assert!(left.peer_addr().is_err());
        drop(left);
        echoed.await.unwrap();
    });
}

#[test]
fn conversion_does_not_end_the_wait_of_a_clone() {
    run(async {
        for _ in 0..20 {
            let (client, server) = pair().await;
            let reader = task::spawn({
                let server = server.clone();
                async move { server.read(&mut [0; 8]).await }
            });
            becomes("the reader waits", || netpoll::rt::metrics().waiters >= 1).await;
            // While another handle exists, a conversion makes a duplicate, so the reader continues
            // to wait on the original.
            let duplicate = TcpStream::from(OwnedFd::from(server));
            client.write_all(b"x").await.unwrap();
            assert_eq!(reader.await.unwrap(), 1);
            client.write_all(b"y").await.unwrap();
            assert_eq!(duplicate.read(&mut [0; 8]).await.unwrap(), 1);
        }
    });
}

#[test]
fn debug_shows_addresses() {
    run(async {
        let (client, server) = pair().await;
        let (own, peer) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        let text = format!("{client:?}");
        assert!(text.contains(&own.to_string()) && text.contains(&peer.to_string()), "{text}");
        client.force_close().await.unwrap();
        assert!(format!("{client:?}").starts_with("TcpStream"));
        drop(server);
    });
}

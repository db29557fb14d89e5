//! Half-closed connections, the end of the stream, empty buffers, the `close` of the I/O traits,
//! shutdown during waiting operations, and urgent data.

mod common;

use std::io;
use std::task::Poll;

use common::by_hand::{
    Wakes, are_woken, connect_to, drive, fresh_pair, narrow_pair, round_trip, trait_read, trait_write,
};
use common::{becomes, fill, poll_now, poll_with, read_exact, run};
use netpoll::net::{Shutdown, TcpListener};
use netpoll::os::unix::net::{UnixDatagram, UnixStream};
use netpoll::{rt, task};

/// Go: TestCloseRead.
#[test]
fn read_after_shutdown_read_returns_buffered_data_then_eof() {
    run(async {
        let (client, server) = fresh_pair().await;
        client.close_read().unwrap();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
        assert_eq!(trait_read(&client, &mut [0; 1]).await.unwrap(), 0);
        // The other direction stays open.
        client.write_all(b"x").await.unwrap();
        read_exact(&server, &mut [0; 1]).await.unwrap();

        let (client, server) = fresh_pair().await;
        server.write_all(b"before").await.unwrap();
        client.readable().await.unwrap();
        client.close_read().unwrap();
        let mut buf = [0; 6];
        read_exact(&client, &mut buf).await.unwrap();
        assert_eq!(&buf, b"before");
        assert_eq!(client.read(&mut buf).await.unwrap(), 0);
    });
}

/// Go: TestCloseRead.
#[test]
fn shutdown_read_ends_waiting_read() {
    run(async {
        let (client, _server) = fresh_pair().await;
        let (wakes, waker) = Wakes::new();
        let mut buf = [0; 1];
        let mut read = client.read(&mut buf);
        assert!(poll_with(&mut read, &waker).is_pending());
        client.close_read().unwrap();
        becomes("the read is woken", || wakes.count() > 0).await;
        assert_eq!(drive(&mut read, &wakes, &waker).await.unwrap(), 0);
    });
}

/// Go: TestCloseWrite.
#[test]
fn shutdown_write_on_both_sides_gives_eof_on_both() {
    run(async {
        let (client, server) = fresh_pair().await;
        for (one, other) in [(&client, &server), (&server, &client)] {
            one.write_all(b"the last").await.unwrap();
            one.close_write().unwrap();
            let mut buf = [0; 8];
            read_exact(other, &mut buf).await.unwrap();
            assert_eq!(&buf, b"the last");
            for _ in 0..2 {
                assert_eq!(other.read(&mut buf).await.unwrap(), 0);
            }
        }
        for stream in [&client, &server] {
            let error = stream.write(b"x").await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
            assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
            assert_eq!(stream.write_all(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
            assert_eq!(trait_write(stream, b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        }
    });
}

/// Go: TestCloseWrite.
#[test]
fn shutdown_write_ends_waiting_write() {
    run(async {
        let (client, _server) = narrow_pair().await;
        fill(&client).await;
        let big = vec![0; 1 << 20];
        let (wakes, waker) = Wakes::new();
        let mut write = client.write_all(&big);
        assert!(poll_with(&mut write, &waker).is_pending());
        client.close_write().unwrap();
        becomes("the write is woken", || wakes.count() > 0).await;
        assert_eq!(drive(&mut write, &wakes, &waker).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    });
}

#[track_caller]
fn assert_broken_pipe<T: std::fmt::Debug>(result: io::Result<T>) {
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

/// Checks that a shutdown ends the sends of a full socket that preserves message boundaries.
macro_rules! shutdown_ends_waiting_sends {
    ($socket:expr, $how:expr) => {
        while poll_now(&mut $socket.send(&[7; 4096])).is_ready() {}
        let wakers = [(); 2].map(|()| Wakes::new());
        let (mut send, mut other) = ($socket.send(b"x"), $socket.send(b"x"));
        assert!(poll_with(&mut send, &wakers[0].1).is_pending());
        assert!(poll_with(&mut other, &wakers[1].1).is_pending());
        $socket.shutdown($how).unwrap();
        are_woken(&wakers).await;
        assert_broken_pipe(send.await);
        assert_broken_pipe(other.await);
    };
}

/// The kernel reports no event when only the writing side of a Unix socket without room is shut
/// down.
#[test]
fn shutdown_write_ends_waiting_writes_of_unix_sockets() {
    run(async {
        for how in [Shutdown::Write, Shutdown::Both] {
            let chunk = [7; 4096];
            let (stream, _peer) = UnixStream::pair().unwrap();
            while poll_now(&mut stream.write(&chunk)).is_ready() {}
            let wakers = [(); 4].map(|()| Wakes::new());
            let (mut write, mut other) = (stream.write(b"x"), stream.write(b"x"));
            let (mut all, mut writable) = (stream.write_all(b"x"), stream.writable());
            assert!(poll_with(&mut write, &wakers[0].1).is_pending());
            assert!(poll_with(&mut other, &wakers[1].1).is_pending());
            assert!(poll_with(&mut all, &wakers[2].1).is_pending());
            assert!(poll_with(&mut writable, &wakers[3].1).is_pending());
            stream.shutdown(how).unwrap();
            are_woken(&wakers).await;
            // `all` has the write lock, so it must end before the writes.
            assert_broken_pipe(all.await);
            assert_broken_pipe(write.await);
            assert_broken_pipe(other.await);
            writable.await.unwrap();
            assert!(poll_now(&mut stream.writable()).is_ready(), "a write does not wait");
            assert_broken_pipe(stream.write(b"x").await);

            let (datagrams, _peer) = UnixDatagram::pair().unwrap();
            shutdown_ends_waiting_sends!(datagrams, how);
        }
    });
}

#[cfg(not(target_os = "macos"))] // seqpacket sockets
#[test]
fn shutdown_write_ends_waiting_sends_of_packet_sockets() {
    run(async {
        let (packets, _peer) = netpoll::os::unix::net::UnixSeqpacket::pair().unwrap();
        shutdown_ends_waiting_sends!(packets, Shutdown::Write);
    });
}

#[test]
fn trait_close_sends_data_and_fin_and_is_repeatable() {
    run(async {
        let (client, server) = fresh_pair().await;
        let reader = client.clone();
        client.write_all(b"request").await.unwrap();
        for _ in 0..3 {
            netpoll::io::WriteExt::close(&mut &client).await.unwrap();
        }
        let mut buf = [0; 7];
        read_exact(&server, &mut buf).await.unwrap();
        assert_eq!(server.read(&mut buf).await.unwrap(), 0);
        // Clones continue to read.
        server.write_all(b"answer!").await.unwrap();
        read_exact(&reader, &mut buf).await.unwrap();
        assert_eq!(&buf, b"answer!");
        assert_eq!(client.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        // Closing a connection that the peer has reset is not an error either.
        server.set_linger(Some(std::time::Duration::ZERO)).unwrap();
        server.force_close().await.unwrap();
        client.peer_closed().await.unwrap();
        netpoll::io::WriteExt::close(&mut &client).await.unwrap();
    });
}

#[test]
fn shutdown_both_ends_waiting_operations_and_keeps_fd_open() {
    run(async {
        let (client, server) = narrow_pair().await;
        fill(&client).await;
        let reader = task::spawn({
            let client = client.clone();
            async move { client.read(&mut [0; 1]).await }
        });
        let writer = task::spawn({
            let client = client.clone();
            async move { client.write_all(&vec![0; 1 << 20]).await }
        });
        let ids = [reader.task().id(), writer.task().id()];
        becomes("both operations wait", || {
            let snapshot = rt::inspect();
            ids.iter().all(|&id| snapshot.task(id).is_some_and(|task| task.waits_for().is_some()))
        })
        .await;
        client.shutdown(Shutdown::Both).unwrap();
        assert_eq!(reader.await.unwrap(), 0);
        assert_eq!(writer.await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert!(client.local_addr().is_ok(), "the shutdown does not close the descriptor");
        let mut buf = vec![0; 65536];
        while server.read(&mut buf).await.unwrap() > 0 {}
    });
}

/// Go: TestZeroByteRead.
#[test]
fn read_into_empty_buffer_returns_zero() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for with_data in [false, true] {
            let (client, server) = connect_to(&listener).await;
            if with_data {
                server.write_all(b"data").await.unwrap();
                client.readable().await.unwrap();
            }
            task::yield_now().await;
            let Poll::Ready(read) = poll_now(&mut client.read(&mut [])) else { panic!("there is nothing to wait for") };
            assert_eq!(read.unwrap(), 0);
            assert_eq!(trait_read(&client, &mut []).await.unwrap(), 0);
            assert_eq!(client.peek(&mut []).await.unwrap(), 0);
            assert_eq!(client.read_vectored(&mut []).await.unwrap(), 0);
            assert_eq!(client.read_vectored(&mut [io::IoSliceMut::new(&mut [])]).await.unwrap(), 0);
            assert_eq!(client.write(&[]).await.unwrap(), 0);
            client.write_all(&[]).await.unwrap();
            assert_eq!(client.write_vectored(&[]).await.unwrap(), 0);
            if with_data {
                let mut buf = [0; 4];
                read_exact(&client, &mut buf).await.unwrap();
                assert_eq!(&buf, b"data", "nothing was consumed");
            }
            round_trip(&client, &server).await;
        }
    });
}

/// After a read that fills its buffer, and after a short read, the next read must return the end of
/// the stream.
#[test]
fn eof_is_seen_after_full_and_short_reads() {
    run(async {
        for length in [4, 8] {
            for waits in [false, true] {
                let (client, server) = fresh_pair().await;
                let (wakes, waker) = Wakes::new();
                let mut buf = [0; 8];
                let mut read = client.read(&mut buf[..length]);
                if waits {
                    assert!(poll_with(&mut read, &waker).is_pending());
                }
                server.write_all(b"four").await.unwrap();
                drop(server);
                assert_eq!(drive(&mut read, &wakes, &waker).await.unwrap(), 4);
                drop(read);
                assert_eq!(client.read(&mut buf[..length]).await.unwrap(), 0);
            }
        }
    });
}

#[test]
fn urgent_data_does_not_hide_following_data() {
    run(async {
        let (client, server) = fresh_pair().await;
        let (wakes, waker) = Wakes::new();
        let mut buf = [0; 64];
        let mut read = client.read(&mut buf);
        assert!(poll_with(&mut read, &waker).is_pending());
        server.write_all(b"before").await.unwrap();
        socket2::SockRef::from(&server).send_out_of_band(b"!").unwrap();
        server.write_all(b"behind").await.unwrap();
        let mut got = drive(&mut read, &wakes, &waker).await.unwrap();
        drop(read);
        // The urgent byte cuts reads short, but is not part of the stream.
        while got < 12 {
            got += client.read(&mut buf[got..]).await.unwrap();
        }
        assert_eq!(&buf[..got], b"beforebehind");
        round_trip(&client, &server).await;
    });
}

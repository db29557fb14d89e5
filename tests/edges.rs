//! End of stream, waiting writers, and the address of a wildcard listener.

mod common;

use std::future::Future;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use common::{becomes, child, pair, run};
use netpoll::io::ReadExt;
use netpoll::net::{Dialer, TcpListener, TcpStream};
use netpoll::{rt, task};

/// Go: TestEOFError. Zero bytes into a non-empty buffer mean end of stream; errors are returned unchanged.
#[test]
fn only_zero_bytes_into_nonempty_buffer_is_eof() {
    run(async {
        let (client, server) = pair().await;
        client.write_all(b"ab").await.unwrap();
        assert_eq!(server.read(&mut []).await.unwrap(), 0, "no room: says nothing");
        assert_eq!(server.peek(&mut [0; 4]).await.unwrap(), 2);
        assert_eq!(server.read(&mut [0; 4]).await.unwrap(), 2);
        client.close_write().unwrap();
        for _ in 0..2 {
            assert_eq!(server.read(&mut [0; 4]).await.unwrap(), 0, "the end, each time");
            assert_eq!(server.peek(&mut [0; 4]).await.unwrap(), 0);
        }
        let mut all = Vec::new();
        let mut reader: &TcpStream = &server;
        assert_eq!(reader.read_to_end(&mut all).await.unwrap(), 0);
        // An error beside it is not the end: the peer resets.
        let (client, server) = pair().await;
        client.set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        assert_eq!(server.read(&mut [0; 4]).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        assert_eq!(server.read(&mut []).await.unwrap(), 0);
    });
}

/// Go: TestEndlessWrite. A writer whose peer does not read waits for an event instead of retrying.
#[test]
fn blocked_writer_does_not_retry() {
    child("blocked_writer_does_not_retry", || {
        run(async {
            let (client, server) = pair().await;
            let writer = task::spawn(async move {
                let written = client.write_all(&vec![7; 64 << 20]).await;
                drop(client);
                written
            });
            // It fills the buffers and then waits.
            becomes("the writer waits", || rt::metrics().waiters == 1).await;
            // For as long as the kernel still moves bytes to the peer, there is room now and then.
            let start = Instant::now();
            loop {
                let before = rt::metrics().polls;
                task::sleep(Duration::from_millis(300)).await;
                let after = rt::metrics();
                if after.polls - before <= 20 && after.waiters == 1 {
                    break;
                }
                assert!(start.elapsed() < common::BOUND / 2, "{} polls in 300 ms", after.polls - before);
            }
            let (mut total, mut buf) = (0, vec![0; 1 << 20]);
            loop {
                match server.read(&mut buf).await.unwrap() {
                    0 => break,
                    count => total += count,
                }
            }
            writer.await.unwrap();
            assert_eq!(total, 64 << 20);
        });
    });
}

/// Go: TestDialListenerAddr. The address that a wildcard listener gives can be dialled: it means this host.
#[test]
fn wildcard_listener_address_can_be_dialled() {
    run(async {
        let v4: SocketAddr = (Ipv4Addr::UNSPECIFIED, 0).into();
        let v6: SocketAddr = (Ipv6Addr::UNSPECIFIED, 0).into();
        for wildcard in [v4, v6] {
            let Ok(listener) = TcpListener::bind(wildcard).await else {
                eprintln!("{wildcard}: this host has no such family");
                continue;
            };
            let addr = listener.local_addr().unwrap();
            for dialled in [TcpStream::connect(addr).await.unwrap(), Dialer::new().dial(addr).await.unwrap()] {
                let (accepted, peer) = listener.accept().await.unwrap();
                assert_eq!(dialled.local_addr().unwrap(), peer);
                assert_eq!(accepted.local_addr().unwrap().port(), addr.port());
            }
            // Both families reach a dual-stack wildcard.
            let dialled = TcpStream::connect((Ipv4Addr::LOCALHOST, addr.port())).await.unwrap();
            let (_, peer) = listener.accept().await.unwrap();
            assert_eq!(dialled.local_addr().unwrap().port(), peer.port());
        }
    });
}

/// A task that saturates its connection gives way after 2 MiB or so, whatever it moves at a time.
#[test]
fn one_turn_moves_a_bounded_number_of_bytes() {
    const TOTAL: usize = 128 << 20;
    run(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let writer = std::thread::spawn(move || {
            let mut peer = std::net::TcpStream::connect(addr).unwrap();
            std::io::Write::write_all(&mut peer, &vec![1; TOTAL]).unwrap();
        });
        let (stream, _) = listener.accept().await.unwrap();
        let reader = task::spawn(async move {
            let (mut total, mut most, mut buf) = (0, 0, vec![0; 256 << 10]);
            while total < TOTAL {
                stream.readable().await.unwrap();
                // As long as it is let, in one turn.
                let mut turn = 0;
                std::future::poll_fn(|cx| {
                    while let Poll::Ready(count) = Pin::new(&mut stream.read(&mut buf)).poll(cx) {
                        match count.unwrap() {
                            0 => break,
                            count => turn += count,
                        }
                    }
                    Poll::Ready(())
                })
                .await;
                total += turn;
                most = most.max(turn);
            }
            (total, most)
        });
        let (total, most) = reader.await;
        assert_eq!(total, TOTAL);
        assert!(most <= (2 << 20) + (256 << 10), "{most} bytes in one turn");
        writer.join().unwrap();
    });
}

//! Dialling with `TcpStream::connect`: addresses, names, errors, and dropped dials.
//!
//! `src/net/seam_tests.rs` tests spurious wake-ups, self-connections and SO_ERROR, `deadline.rs`
//! tests timeouts, and `dialer.rs` tests `Dialer`.

#[path = "common/black_hole.rs"]
mod black_hole;
mod common;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use black_hole::{BlackHole, refusing};
use common::{fd_count, listener, op_error, poll_once, run};
use netpoll::net::{TcpListener, TcpStream, raw_os_error};
use netpoll::task;

/// Go: TestTCPSpuriousConnSetupCompletion.
#[test]
fn connected_stream_has_peer() {
    const TASKS: usize = 50;
    const DIALS: usize = 100;
    run(async {
        let listener = listener().await;
        let addr = listener.local_addr().unwrap();
        let server = task::spawn(async move {
            for _ in 0..TASKS * DIALS / 2 {
                match listener.accept().await {
                    Ok((stream, _)) => drop(stream),
                    Err(error) => panic!("{error}"),
                }
            }
            // From here on, dials are refused, and connections in the queue are reset.
            drop(listener);
        });
        let dialers: Vec<_> = (0..TASKS)
            .map(|_| {
                task::spawn(async move {
                    for _ in 0..DIALS {
                        let Ok(stream) = TcpStream::connect_timeout(&addr, Duration::from_millis(50)).await else {
                            continue;
                        };
                        if let Err(error) = stream.write(b"x").await {
                            let errno = error.raw_os_error();
                            assert_ne!(errno, Some(libc::ENOTCONN), "a stream that is not connected");
                            assert!(matches!(errno, Some(libc::EPIPE | libc::ECONNRESET)), "{error}");
                        }
                    }
                })
            })
            .collect();
        for dialer in dialers {
            dialer.await;
        }
        server.cancel().await;
    });
}

#[test]
fn refused_dial_names_operation_and_address() {
    run(async {
        let (_socket, addr) = refusing();
        let error = TcpStream::connect(addr).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(raw_os_error(&error), Some(libc::ECONNREFUSED));
        assert_eq!(error.to_string(), format!("dial tcp {addr}: connect: connection refused"));
        let op = op_error(&error);
        assert_eq!((op.op(), op.addr().unwrap().to_string()), ("dial", addr.to_string()));
    });
}

#[test]
fn every_address_is_tried_and_the_last_error_returned() {
    run(async {
        let (first, second) = (refusing(), refusing());
        let listener = listener().await;
        let good = listener.local_addr().unwrap();
        let stream = TcpStream::connect(&[first.1, second.1, good][..]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        let error = TcpStream::connect(&[first.1, second.1][..]).await.unwrap_err();
        assert_eq!(error.to_string(), format!("dial tcp {}: connect: connection refused", second.1));
    });
}

#[test]
fn names_are_resolved() {
    run(async {
        let listener = listener().await;
        let port = listener.local_addr().unwrap().port();
        for form in [format!("localhost:{port}"), format!("127.0.0.1:{port}")] {
            let stream = TcpStream::connect(&form[..]).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap().port(), port);
        }
        TcpStream::connect(("localhost", port)).await.unwrap();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    });
}

#[test]
fn invalid_addresses_are_rejected() {
    run(async {
        let none: &[SocketAddr] = &[];
        let error = TcpStream::connect(none).await.unwrap_err();
        assert_eq!(error.to_string(), "dial tcp: missing address");
        for form in ["", ":", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:-1", "::1:80", "[::1]"] {
            let error = TcpStream::connect(form).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{form:?}: {error}");
            assert!(error.to_string().starts_with("dial tcp: "), "{form:?}: {error}");
            let error = TcpListener::bind(form).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{form:?}: {error}");
            assert!(error.to_string().starts_with("listen tcp: "), "{form:?}: {error}");
        }
        assert_eq!(TcpStream::connect("a b:80").await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(TcpListener::bind("a b:80").await.unwrap_err().kind(), ErrorKind::NotFound);
        let error = TcpStream::connect("no-such-host.invalid:80").await.unwrap_err();
        // The error contains the host and the cause.
        assert!(error.to_string().starts_with("dial tcp: lookup no-such-host.invalid: "), "{error}");
        let op = op_error(&error);
        assert!(op.io_error().and_then(std::io::Error::get_ref).unwrap().is::<netpoll::net::LookupError>());
        // A stream cannot connect to port 0 or to a multicast address.
        assert!(TcpStream::connect("127.0.0.1:0").await.is_err());
        assert!(TcpStream::connect("224.0.0.1:9").await.is_err());
    });
}

#[test]
fn dropped_dial_closes_its_socket() {
    common::child("dropped_dial_closes_its_socket", || {
        let hole = BlackHole::new();
        run(async {
            common::warm_up().await;
            let before = fd_count();
            for _ in 0..20 {
                let mut dial = Box::pin(TcpStream::connect(hole.addr));
                assert!(poll_once(&mut dial).await.is_pending());
                assert_eq!(fd_count(), before + 1);
                drop(dial);
                assert_eq!(fd_count(), before);
            }
        });
    });
}

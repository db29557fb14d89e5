//! Options of `Dialer` that only Linux has.
#![cfg(target_os = "linux")]

mod common;

use std::time::Duration;

use common::{child, listener, run};
use netpoll::net::Dialer;
use socket2::SockRef;

#[test]
fn fast_open_and_multipath_connect_even_if_the_kernel_lacks_them() {
    run(async {
        let listener = listener().await;
        let addr = listener.local_addr().unwrap();
        for dialer in [Dialer::new().fast_open(true), Dialer::new().multipath(true)] {
            let stream = dialer.dial(addr).await.unwrap();
            stream.write_all(b"ping").await.unwrap();
            let (peer, _) = listener.accept().await.unwrap();
            assert_eq!(peer.read(&mut [0; 9]).await.unwrap(), 4);
            peer.write_all(b"pong!").await.unwrap();
            assert_eq!(stream.read(&mut [0; 9]).await.unwrap(), 5);
            assert!(stream.nodelay().unwrap());
        }
        // Checks whether this process can open MPTCP sockets.
        let multipath = socket2::Protocol::MPTCP;
        let has = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, Some(multipath)).is_ok();
        let stream = Dialer::new().multipath(true).dial(addr).await.unwrap();
        let protocol = SockRef::from(&stream).protocol().unwrap();
        assert_eq!(protocol, Some(if has { multipath } else { socket2::Protocol::TCP }));
    });
}

#[test]
fn user_timeout_is_set() {
    run(async {
        let listener = listener().await;
        let dialer = Dialer::new().user_timeout(Duration::from_millis(1500));
        let stream = dialer.dial(listener.local_addr().unwrap()).await.unwrap();
        assert_eq!(stream.user_timeout().unwrap(), Some(Duration::from_millis(1500)));
    });
}

/// Regression: if the host did not permit Fast Open, the dial failed because of the option.
#[test]
fn fast_open_that_the_host_does_not_permit_is_not_an_error() {
    child("fast_open_that_the_host_does_not_permit_is_not_an_error", || {
        // Moves this thread to a new network namespace.
        // SAFETY: no memory is passed; only this thread's view of the network changes, in a
        // separate process.
        let alone = unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0;
        if !alone || std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", "0").is_err() {
            return println!("skipped: this process cannot disable Fast Open");
        }
        let error = run(Dialer::new().fast_open(true).dial("127.0.0.1:1")).unwrap_err();
        // The loopback device of the new namespace is down.
        assert!(error.to_string().starts_with("dial tcp 127.0.0.1:1: connect: "), "{error}");
    });
}

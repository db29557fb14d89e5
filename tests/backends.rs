//! The selection of the poller's back end by `NETPOLL_BACKEND`: an unknown name, poll(2), and the
//! limit of poll(2) on descriptors.
//!
//! `src/rt/poll/back_ends_tests.rs` tests the contract of back ends. `ci/backends.sh` runs the
//! other tests on poll(2).

mod common;

use std::io::ErrorKind;
use std::time::Duration;

use common::{child_with, pair, ping_pong, poll_once, run};
use netpoll::io::AsyncFd;
use netpoll::net::{TcpListener, UdpSocket};
use netpoll::task;

#[test]
fn unknown_back_end_is_an_error_that_names_the_known_ones() {
    const NAME: &str = "unknown_back_end_is_an_error_that_names_the_known_ones";
    child_with(NAME, &[("NETPOLL_BACKEND", "io_ring")], || {
        run(async {
            for error in [
                TcpListener::bind("127.0.0.1:0").await.unwrap_err(),
                UdpSocket::bind("127.0.0.1:0").await.unwrap_err(),
                // Regression: the text said that epoll does not accept the file.
                AsyncFd::new(std::io::pipe().unwrap().0).unwrap_err(),
            ] {
                assert_eq!(error.kind(), ErrorKind::InvalidInput);
                let text = error.to_string();
                for part in ["NETPOLL_BACKEND", "\"io_ring\"", "poll"] {
                    assert!(text.contains(part), "{text}");
                }
            }
            // Tasks and timers need no back end.
            task::spawn(task::sleep(Duration::from_millis(1))).await;
        });
    });
}

#[test]
fn poll_serves_sockets() {
    child_with("poll_serves_sockets", &[("NETPOLL_BACKEND", "poll")], || {
        run(async {
            let (client, server) = pair().await;
            for _ in 0..3 {
                ping_pong(&client, &server).await;
            }
            // On Linux, no epoll instance is open.
            for entry in std::fs::read_dir("/proc/self/fd").into_iter().flatten() {
                let target = std::fs::read_link(entry.unwrap().path()).unwrap_or_default();
                assert!(!target.to_string_lossy().contains("eventpoll"), "{target:?}");
            }
        });
    });
}

#[test]
fn descriptor_above_the_limit_of_poll_is_an_error() {
    child_with("descriptor_above_the_limit_of_poll_is_an_error", &[("NETPOLL_BACKEND", "poll")], || {
        run(async {
            let (client, server) = pair().await;
            assert!(poll_once(&mut client.read(&mut [0])).await.is_pending());
            let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
            let set = |current| {
                let limit = rustix::process::Rlimit { current, ..limit };
                rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
            };
            // With this limit, poll(2) accepts only two descriptors: the poller's pipe and the
            // client.
            set(Some(2));
            let error = server.read(&mut [0]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::QuotaExceeded);
            let text = error.to_string();
            assert!(text.contains("poll(2)") && text.contains("RLIMIT_NOFILE"), "{text}");
            // Registered descriptors continue to work. Other descriptors work after the limit is
            // raised.
            server.write_all(b"x").await.unwrap();
            assert_eq!(client.read(&mut [0]).await.unwrap(), 1);
            set(limit.current);
            ping_pong(&client, &server).await;
        });
    });
}

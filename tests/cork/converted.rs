//! Conversions to other types: the gathered bytes precede the bytes that the new owner writes.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net as std_net;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use netpoll::net::TcpStream;
use netpoll::os::unix::net::UnixStream;
use netpoll::rt;

use super::common::{self, run};
use super::{fill_unix, pair, read_to_end};

/// Returns a full Unix stream with gathered bytes, a blocking peer, and the number of bytes
/// accepted.
async fn full_unix() -> (UnixStream, std_net::UnixStream, usize) {
    let (ours, peer) = UnixStream::pair().unwrap();
    let peer = std_net::UnixStream::try_from(peer).unwrap();
    peer.set_nonblocking(false).unwrap();
    let (total, _) = fill_unix(&ours).await;
    (ours, peer, total)
}

/// Reads until the end of the stream, on another thread.
fn read_on_thread(mut peer: std_net::UnixStream) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        all
    })
}

/// Checks that `all` consists of `total` times `a` and then `last` times `b`.
fn assert_order(all: &[u8], total: usize, last: usize) {
    assert_eq!(all.len(), total + last);
    assert!(all[..total].iter().all(|byte| *byte == b'a') && all[total..].iter().all(|byte| *byte == b'b'));
}

#[test]
fn linger_time_of_zero_discards_nothing_of_a_converted_stream() {
    run(async {
        let (ours, peer) = pair().await;
        ours.set_linger(Some(Duration::ZERO)).unwrap();
        ours.write_all(b"hello ").await.unwrap();
        let mut std = std::net::TcpStream::try_from(ours).unwrap();
        std.write_all(b"world").unwrap();
        let mut buf = [0; 11];
        common::read_exact(&peer, &mut buf).await.unwrap();
        assert_eq!(&buf, b"hello world");
    });
}

/// The crate's task that sends the remaining bytes holds a handle while it is polled. This handle
/// does not prevent the conversion.
#[test]
fn new_owner_of_a_full_stream_writes_after_the_gathered_bytes() {
    run(async {
        for round in 0..40 {
            let (ours, peer, total) = full_unix().await;
            let reader = read_on_thread(peer);
            if round % 2 == 0 {
                let mut std = std_net::UnixStream::try_from(ours).unwrap();
                std.set_nonblocking(false).unwrap();
                std.write_all(&[b'b'; 50_000]).unwrap();
            } else {
                let mut std = std_net::UnixStream::from(OwnedFd::from(ours));
                std.set_nonblocking(false).unwrap();
                std.write_all(&[b'b'; 50_000]).unwrap();
            }
            assert_order(&reader.join().unwrap(), total, 50_000);
        }
    });
}

#[test]
fn duplicate_of_a_full_stream_writes_after_the_gathered_bytes() {
    run(async {
        for _ in 0..20 {
            let (ours, peer, total) = full_unix().await;
            let reader = read_on_thread(peer);
            let kept = ours.clone();
            let mut std = std_net::UnixStream::from(OwnedFd::from(ours));
            std.set_nonblocking(false).unwrap();
            std.write_all(&[b'b'; 50_000]).unwrap();
            drop((std, kept));
            assert_order(&reader.join().unwrap(), total, 50_000);
        }
    });
}

#[test]
fn conversion_fails_if_the_peer_takes_nothing_and_loses_no_byte() {
    run(async {
        let (ours, peer, total) = full_unix().await;
        let error = std_net::UnixStream::try_from(ours).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert_order(&read_on_thread(peer).join().unwrap(), total, 0);
    });
}

/// The conversion cannot return an error, and the new owner must not write after a gap.
#[cfg(target_os = "linux")]
#[test]
fn infallible_conversion_resets_the_connection_if_the_peer_takes_nothing() {
    run(async {
        let (ours, peer) = super::narrow_pair().await;
        super::ends::fill_and_gather(&ours).await;
        let mut std = std::net::TcpStream::from(OwnedFd::from(ours));
        assert!(std.write(b"late").is_err());
        assert_eq!(read_to_end(&peer).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn only_handle_can_be_converted_during_snapshots() {
    run(async {
        let ends = Arc::new(AtomicBool::new(false));
        let end = ends.clone();
        let inspector = thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                std::hint::black_box(rt::inspect());
            }
        });
        let mut failed = None;
        for _ in 0..1000 {
            let (ours, _peer) = UnixStream::pair().unwrap();
            ours.set_auto_cork(true).unwrap();
            ours.write_all(b"x").await.unwrap();
            failed = failed.or(std_net::UnixStream::try_from(ours).err());
        }
        ends.store(true, Ordering::Relaxed);
        inspector.join().unwrap();
        assert!(failed.is_none(), "{failed:?}");
    });
}

#[test]
fn stream_with_clones_is_busy() {
    run(async {
        let (ours, peer) = pair().await;
        ours.write_all(b"gathered").await.unwrap();
        let kept = ours.clone();
        let error = std::net::TcpStream::try_from(ours).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceBusy);
        let std = std::net::TcpStream::try_from(kept).unwrap();
        drop(TcpStream::from(std));
        assert_eq!(read_to_end(&peer).await.unwrap(), b"gathered");
    });
}

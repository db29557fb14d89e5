//! Shutdowns, closes and conversions send the gathered bytes first, except in a child of fork(2). A
//! close with a linger time of zero discards them.

use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use netpoll::io::{ReadExt, WriteExt};
use netpoll::net::{TcpStream, is_closed};
use netpoll::task;

use super::common::{becomes, child, poll_once, read_exact, run};
use super::{Counted, assert_ends, info, narrow_pair, pair, pattern, read_to_end, sends, some_round_is_undisturbed};

/// Writes to a stream of a narrow pair until the socket is full and bytes are gathered. Returns the
/// number of bytes accepted.
pub(super) async fn fill_and_gather(ours: &TcpStream) -> usize {
    let (mut at, mut number) = (0, 0);
    while number < 2000 {
        match poll_once(&mut ours.write(&pattern(at, 1000))).await {
            std::task::Poll::Ready(count) => at += count.unwrap(),
            std::task::Poll::Pending => task::sleep(Duration::from_millis(1)).await,
        }
        number += 1;
        if number > 50 && gathered_of(ours).is_some_and(|gathered| gathered > 0) {
            return at;
        }
    }
    panic!("the socket does not fill");
}

/// Returns the number of gathered bytes of the socket with the local address of `ours`, or `None`
/// if a snapshot has no such socket. Does not expose the descriptor, which would send the bytes.
fn gathered_of(ours: &TcpStream) -> Option<usize> {
    let local = ours.local_addr().unwrap();
    let snapshot = netpoll::rt::inspect();
    let socket = snapshot
        .sockets
        .iter()
        .find(|socket| matches!(socket.local(), Some(netpoll::rt::SocketAddress::Ip(addr)) if addr == local))?;
    Some(socket.gathered())
}

#[test]
fn drop_in_the_turn_sends_and_ends() {
    run(async {
        let (ours, peer) = pair().await;
        task::spawn(async move {
            let clone = ours.clone();
            ours.write_all(b"last ").await.unwrap();
            drop(ours);
            clone.write_all(b"words").await.unwrap();
            drop(clone);
        })
        .await;
        assert_eq!(read_to_end(&peer).await.unwrap(), b"last words");
    });
}

#[test]
fn drop_with_a_full_socket_delivers_everything() {
    run(async {
        let (ours, peer) = narrow_pair().await;
        let total = fill_and_gather(&ours).await;
        drop(ours);
        assert!(read_to_end(&peer).await.unwrap() == pattern(0, total));
    });
}

#[test]
fn explicit_close_with_a_full_socket_delivers_everything() {
    run(async {
        let (ours, peer) = narrow_pair().await;
        let total = fill_and_gather(&ours).await;
        ours.force_close().await.unwrap();
        assert!(is_closed(&ours.write(b"x").await.unwrap_err()));
        assert!(is_closed(&ours.set_auto_cork(true).unwrap_err()));
        assert!(is_closed(&ours.flush().await.unwrap_err()));
        assert!(read_to_end(&peer).await.unwrap() == pattern(0, total));
    });
}

#[test]
fn shutdown_with_a_full_socket_sends_the_end_after_the_last_byte() {
    run(async {
        for how in [Shutdown::Write, Shutdown::Both] {
            let (ours, peer) = narrow_pair().await;
            let total = fill_and_gather(&ours).await;
            ours.shutdown(how).unwrap();
            assert!(ours.write(b"x").await.is_err());
            if how == Shutdown::Both {
                assert_eq!(ours.read(&mut [0; 1]).await.unwrap(), 0);
            }
            assert!(read_to_end(&peer).await.unwrap() == pattern(0, total));
        }
    });
}

#[test]
fn shutdown_sends_first_and_ends_gathering() {
    run(async {
        let (ours, peer) = pair().await;
        ours.write_all(b"abc").await.unwrap();
        ours.close_write().unwrap();
        assert_eq!(ours.write(b"x").await.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
        assert_eq!(read_to_end(&peer).await.unwrap(), b"abc");
        peer.write_all(b"answer").await.unwrap();
        read_exact(&ours, &mut [0; 6]).await.unwrap();
    });
}

#[test]
fn close_of_the_traits_waits_until_everything_is_sent() {
    run(async {
        let (ours, peer) = narrow_pair().await;
        let total = fill_and_gather(&ours).await;
        let mut closer = &ours;
        let mut close = closer.close();
        assert!(poll_once(&mut close).await.is_pending());
        let reader = task::spawn(async move { read_to_end(&peer).await.unwrap() });
        close.await.unwrap();
        assert_eq!(gathered_of(&ours), Some(0));
        assert!(reader.await == pattern(0, total));
    });
}

#[test]
fn abort_sends_nothing() {
    run(async {
        let (ours, peer) = pair().await;
        ours.set_linger(Some(Duration::ZERO)).unwrap();
        task::spawn(async move {
            ours.write_all(b"never").await.unwrap();
            drop(ours);
        })
        .await;
        let error = peer.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn conversion_sends_gathered_bytes_first() {
    run(async {
        let (ours, peer) = pair().await;
        ours.write_all(b"ours ").await.unwrap();
        let std: std::net::TcpStream = ours.try_into().unwrap();
        std::io::Write::write_all(&mut &std, b"theirs").unwrap();
        drop(std);
        assert_eq!(read_to_end(&peer).await.unwrap(), b"ours theirs");

        let (ours, peer) = pair().await;
        ours.write_all(b"ours ").await.unwrap();
        let kept = ours.clone();
        let fd = OwnedFd::from(ours);
        rustix::io::write(&fd, b"theirs ").unwrap();
        kept.write_all(b"kept").await.unwrap();
        drop((fd, kept));
        assert_eq!(read_to_end(&peer).await.unwrap(), b"ours theirs kept");
    });
}

#[test]
fn gathered_bytes_outlive_the_clone_that_wrote_them() {
    run(some_round_is_undisturbed(async || {
        let Counted { ours, peer, number } = Counted::new().await;
        let clone = ours.clone();
        clone.write_all(b"abc").await.unwrap();
        drop(clone);
        let is_kept = (sends(number), info(number).gathered()) == (0, 3);
        drop(ours);
        let mut all = Vec::new();
        netpoll::io::ReadExt::read_to_end(&mut &peer, &mut all).await.unwrap();
        assert_eq!(all, b"abc");
        is_kept
    }));
}

/// After fork(2), the gathered bytes are in the memory of both processes. Only the parent sends
/// them.
#[test]
fn forked_child_does_not_send() {
    let name = "ends::forked_child_does_not_send";
    child(name, || {
        let Counted { ours, peer, .. } = task::block_on(Counted::new());
        task::block_on(async {
            ours.write_all(b"once").await.unwrap();
            // SAFETY: the child only drops the stream and ends.
            match unsafe { libc::fork() } {
                0 => {
                    drop(ours);
                    // SAFETY: _exit(2) ends the child without running destructors.
                    unsafe { libc::_exit(0) }
                }
                pid => assert_ends(pid),
            }
            drop(ours);
            let mut all = Vec::new();
            netpoll::io::ReadExt::read_to_end(&mut &peer, &mut all).await.unwrap();
            assert_eq!(all, b"once");
        });
    });
}

/// The child discards its copy of the bytes that its parent has gathered, and sends its own at
/// once.
#[test]
fn write_of_a_forked_child_is_not_gathered() {
    let name = "ends::write_of_a_forked_child_is_not_gathered";
    child(name, || {
        let Counted { ours, peer, .. } = task::block_on(Counted::new());
        task::block_on(async {
            ours.write_all(b"parent").await.unwrap();
            // SAFETY: the child only writes, which does not wait, and ends.
            match unsafe { libc::fork() } {
                0 => {
                    let written = poll_once(&mut ours.write(b"child ")).await;
                    let code = i32::from(!matches!(written, std::task::Poll::Ready(Ok(6))));
                    // SAFETY: _exit(2) ends the child without running destructors.
                    unsafe { libc::_exit(code) }
                }
                pid => assert_ends(pid),
            }
            drop(ours);
            let mut all = Vec::new();
            netpoll::io::ReadExt::read_to_end(&mut &peer, &mut all).await.unwrap();
            assert_eq!(all, b"child parent");
        });
    });
}

/// Forks while the worker sends the gathered bytes under their lock, which then stays locked in the
/// child. Regression: the drop in the child waited for that lock forever.
#[test]
fn drop_in_a_forked_child_does_not_wait_for_a_send_of_the_parent() {
    let name = "ends::drop_in_a_forked_child_does_not_wait_for_a_send_of_the_parent";
    child(name, || {
        for _ in 0..300 {
            let (ours, peer) = task::block_on(pair());
            let (given, taken) = std::sync::mpsc::channel();
            drop(task::spawn(async move {
                for at in 0..16 {
                    ours.write_all(&pattern(at * 3000, 3000)).await.unwrap();
                }
                // The worker sends the bytes at the end of this turn.
                given.send(ours).unwrap();
            }));
            let ours = taken.recv().unwrap();
            // SAFETY: the child only drops the stream and ends.
            match unsafe { libc::fork() } {
                0 => {
                    // SAFETY: alarm(2) has no preconditions. The signal ends the child.
                    unsafe { libc::alarm(20) };
                    drop(ours);
                    // SAFETY: _exit(2) ends the child without running destructors.
                    unsafe { libc::_exit(0) }
                }
                pid => assert_ends(pid),
            }
            drop(ours);
            let all = task::block_on(read_to_end(&peer)).unwrap();
            assert!(all == pattern(0, 48_000));
        }
    });
}

#[test]
fn shutdown_of_the_runtime_loses_no_byte_of_an_open_socket() {
    let name = "ends::shutdown_of_the_runtime_loses_no_byte_of_an_open_socket";
    child(name, || {
        let (ours, peer, total) = task::block_on(async {
            let (ours, peer) = narrow_pair().await;
            let total = fill_and_gather(&ours).await;
            (ours, peer, total)
        });
        netpoll::rt::shutdown(Duration::from_secs(10)).unwrap();
        task::block_on(async move {
            let number = ours.as_raw_fd();
            assert!(info(number).gathered() > 0);
            let reader = task::spawn(async move { read_to_end(&peer).await.unwrap() });
            ours.write_all(&pattern(total, 10)).await.unwrap();
            becomes("the gathered bytes are sent", || info(number).gathered() == 0).await;
            drop(ours);
            assert!(reader.await == pattern(0, total + 10));
        });
    });
}

#[test]
fn task_that_the_shutdown_drops_ends_its_stream() {
    let name = "ends::task_that_the_shutdown_drops_ends_its_stream";
    child(name, || {
        let (ours, peer) = task::block_on(pair());
        drop(task::spawn(async move {
            ours.write_all(b"abc").await.unwrap();
            task::sleep(Duration::from_secs(1000)).await;
        }));
        let mut buf = [0; 3];
        task::block_on(read_exact(&peer, &mut buf)).unwrap();
        let _ = netpoll::rt::shutdown(Duration::from_millis(10));
        assert_eq!(task::block_on(read_to_end(&peer)).unwrap(), b"");
    });
}

/// `close_write` sends the bytes of each concurrent write that succeeds.
#[test]
fn shutdown_during_writes_loses_no_byte() {
    run(async {
        for round in 0..400 {
            let (ours, peer) = pair().await;
            let begin = Arc::new(Barrier::new(2));
            let (stream, begins) = (ours.clone(), begin.clone());
            let writer = task::spawn(async move {
                let mut written = 0;
                begins.wait();
                for _ in 0..40 {
                    match stream.write(b"x").await {
                        Ok(count) => written += count,
                        Err(_) => break,
                    }
                }
                written
            });
            let closer = std::thread::spawn(move || {
                begin.wait();
                for _ in 0..(round % 200) * 4 {
                    std::hint::spin_loop();
                }
                ours.close_write()
            });
            let written = writer.await;
            closer.join().unwrap().unwrap();
            let mut received = Vec::new();
            (&peer).read_to_end(&mut received).await.unwrap();
            assert_eq!(received.len(), written, "round {round}");
        }
    });
}

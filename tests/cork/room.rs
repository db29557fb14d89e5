//! Full sockets, deadlines, flushes after a close, and other calls that write. If a socket is full,
//! a task sends the gathered bytes when there is room, and writes wait as they do without the
//! option. The bytes of the other calls follow the gathered bytes.

use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd};
use std::task::Poll;

use netpoll::io::{ReadExt, WriteExt};
use netpoll::net::TcpStream;
use netpoll::task;

use super::common::by_hand::{Wakes, are_woken, assert_timeout, in_ms, past};
use super::common::{self, becomes, poll_once, poll_with, read_exact, run};
use super::{info, narrow_pair, pattern, read_to_end};

/// Fills the socket and gathers 100 bytes, which the kernel does not accept. Returns the total
/// number of bytes written.
async fn block(ours: &TcpStream, number: i32) -> usize {
    let filled = fill(ours).await;
    filled + gather(ours, number).await
}

/// Fills the socket. Returns the number of bytes written.
async fn fill(ours: &TcpStream) -> usize {
    ours.set_auto_cork(false).unwrap();
    let filled = common::fill(ours).await;
    ours.set_auto_cork(true).unwrap();
    filled
}

/// Gathers 100 bytes, which the kernel does not accept, because the socket is full. Returns 100.
async fn gather(ours: &TcpStream, number: i32) -> usize {
    ours.write_all(&[8; 100]).await.unwrap();
    // The end of the turn tries to send the bytes.
    task::yield_now().await;
    assert_eq!(info(number).gathered(), 100, "the full socket accepts no bytes");
    100
}

#[test]
fn rest_is_sent_when_there_is_room() {
    run(async {
        let (ours, peer) = common::by_hand::narrow_pair().await;
        let number = ours.as_raw_fd();
        let total = block(&ours, number).await;
        let mut buf = vec![0; total];
        read_exact(&peer, &mut buf).await.unwrap();
        assert!(buf[..total - 100].iter().all(|byte| *byte == 7) && buf[total - 100..] == [8; 100]);
        becomes("the gathered bytes are sent", || info(number).gathered() == 0).await;
        ours.write_all(b"x").await.unwrap();
        read_exact(&peer, &mut [0; 1]).await.unwrap();
    });
}

#[test]
fn write_behind_gathered_bytes_waits_while_the_socket_is_full() {
    run(async {
        let (ours, peer) = common::by_hand::narrow_pair().await;
        let number = ours.as_raw_fd();
        let total = block(&ours, number).await;
        let mut write = ours.write(b"waits");
        assert!(poll_once(&mut write).await.is_pending());
        assert_eq!(info(number).gathered(), 100);
        // A write that is dropped while it waits has written nothing.
        let mut dropped = ours.write(b"dropped");
        assert!(poll_once(&mut dropped).await.is_pending());
        drop(dropped);
        let reader = task::spawn(async move {
            let mut buf = vec![0; total + 5];
            read_exact(&peer, &mut buf).await.unwrap();
            (peer, buf)
        });
        assert_eq!(write.await.unwrap(), 5);
        let (peer, buf) = reader.await;
        assert_eq!(&buf[total - 1..], b"\x08waits");
        drop(ours);
        assert_eq!(peer.read(&mut [0; 1]).await.unwrap(), 0);
    });
}

#[test]
fn deadline_ends_writes_and_flushes_and_loses_no_byte() {
    run(async {
        let (ours, peer) = common::by_hand::narrow_pair().await;
        let number = ours.as_raw_fd();
        let total = block(&ours, number).await;
        ours.set_write_deadline(in_ms(20)).unwrap();
        assert_timeout(ours.flush().await);
        assert_timeout(ours.write_all(b"late").await);
        assert_timeout(WriteExt::flush(&mut &ours).await);
        assert_eq!(info(number).gathered(), 100);
        // The deadline stays expired, but the gathered bytes are sent regardless.
        let mut buf = vec![0; total];
        read_exact(&peer, &mut buf).await.unwrap();
        assert_eq!(buf[total - 100..], [8; 100]);
        becomes("the gathered bytes are sent", || info(number).gathered() == 0).await;
        ours.set_write_deadline(None).unwrap();
        ours.flush().await.unwrap();
        ours.write_all(b"x").await.unwrap();
        read_exact(&peer, &mut buf[..1]).await.unwrap();
        assert_eq!(buf[0], b'x');
    });
}

#[test]
fn timeout_of_writes_does_not_end_the_sending() {
    run(async {
        let (ours, peer) = common::by_hand::narrow_pair().await;
        let number = ours.as_raw_fd();
        let filled = fill(&ours).await;
        ours.set_write_timeout(Some(std::time::Duration::from_millis(10))).unwrap();
        let total = filled + gather(&ours, number).await;
        assert_timeout(ours.flush().await);
        // In this time, waits of the task that sends the gathered bytes time out, and it tries
        // again.
        task::sleep(std::time::Duration::from_millis(50)).await;
        let mut buf = vec![0; total];
        read_exact(&peer, &mut buf).await.unwrap();
        assert_eq!(buf[total - 100..], [8; 100]);
    });
}

#[test]
fn flush_waits_for_room_and_can_be_dropped() {
    run(async {
        let (ours, peer) = common::by_hand::narrow_pair().await;
        let total = block(&ours, ours.as_raw_fd()).await;
        let mut flush = ours.flush();
        assert!(poll_once(&mut flush).await.is_pending());
        drop(flush);
        let mut flush = ours.flush();
        assert!(poll_once(&mut flush).await.is_pending());
        let reader = task::spawn(async move { read_exact(&peer, &mut vec![0; total]).await });
        flush.await.unwrap();
        reader.await.unwrap();
        assert!(matches!(poll_once(&mut ours.flush()).await, Poll::Ready(Ok(()))));
    });
}

#[test]
fn write_alls_keep_their_order_through_a_full_socket() {
    run(async {
        let (ours, peer) = narrow_pair().await;
        let reader = task::spawn(async move { read_to_end(&peer).await.unwrap() });
        let mut at = 0;
        for size in [1, 100, 20_000, 7, 70_000, 3, 3, 300_000, 16_383, 16_384, 16_385, 1] {
            ours.write_all(&pattern(at, size)).await.unwrap();
            at += size;
        }
        drop(ours);
        assert!(reader.await == pattern(0, at));
    });
}

#[test]
fn cancelled_write_all_leaves_the_stream_usable() {
    run(async {
        let (ours, peer) = narrow_pair().await;
        ours.write_all(&pattern(0, 100)).await.unwrap();
        let large = pattern(100, 4_000_000);
        let mut write = ours.write_all(&large);
        assert!(poll_once(&mut write).await.is_pending());
        drop(write);
        ours.write_all(b"end").await.unwrap();
        let reader = task::spawn(async move { read_to_end(&peer).await.unwrap() });
        ours.flush().await.unwrap();
        drop(ours);
        let received = reader.await;
        let (written, end) = received.split_at(received.len() - 3);
        assert!(written == pattern(0, written.len()) && written.len() > 100);
        assert_eq!(end, b"end");
    });
}

#[test]
fn other_calls_that_write_send_gathered_bytes_first() {
    run(async {
        let (ours, peer) = super::pair().await;
        ours.write_all(b"one ").await.unwrap();
        ours.write_with(|fd| rustix::io::write(fd, b"raw ").map_err(Into::into)).await.unwrap();
        ours.write_all(b"two ").await.unwrap();
        rustix::io::write(ours.as_fd(), b"exposed ").unwrap();
        ours.write_all(b"three ").await.unwrap();
        ours.control(|fd| rustix::io::write(fd, b"controlled ").map_err(Into::into)).unwrap();
        ours.write_all(b"four ").await.unwrap();
        let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
        ours.send_file(&file, 0, 4).await.unwrap();
        let mut expected = b"one raw two exposed three controlled four \x7fELF".to_vec();
        #[cfg(target_os = "linux")]
        {
            ours.write_all(b" five ").await.unwrap();
            ours.send_zerocopy(&b"zero"[..]).await.unwrap();
            expected.extend_from_slice(b" five zero");
        }
        ours.write_all(b" six ").await.unwrap();
        netpoll::io::copy(&mut &b"copied"[..], &mut &ours).await.unwrap();
        expected.extend_from_slice(b" six copied");
        drop(ours);
        assert_eq!(String::from_utf8_lossy(&read_to_end(&peer).await.unwrap()), String::from_utf8_lossy(&expected));
    });
}

#[test]
fn spliced_bytes_follow_gathered_ones() {
    run(async {
        let (ours, peer) = super::pair().await;
        let (source, feeder) = super::pair().await;
        feeder.write_all(&pattern(0, 10_000)).await.unwrap();
        feeder.close_write().unwrap();
        ours.write_all(b"first").await.unwrap();
        netpoll::io::copy(&mut &source, &mut &ours).await.unwrap();
        drop(ours);
        let received = read_to_end(&peer).await.unwrap();
        assert!(&received[..5] == b"first" && received[5..] == pattern(0, 10_000));
    });
}

/// The writer may have gathered bytes before a copy that moves none.
#[test]
fn copy_of_nothing_sends_gathered_bytes() {
    run(async {
        for limit in [0, 10] {
            let (ours, peer) = super::pair().await;
            let (source, feeder) = super::pair().await;
            feeder.close_write().unwrap();
            // The copy finds the end of the stream at once.
            source.readable().await.unwrap();
            ours.write_all(b"first").await.unwrap();
            let mut reader = (&source).take(limit);
            let copied = poll_once(&mut std::pin::pin!(netpoll::io::copy(&mut reader, &mut &ours))).await;
            assert!(matches!(copied, Poll::Ready(Ok(0))), "{copied:?}");
            // A read that waits would flush the gathered bytes.
            assert_eq!(rustix::io::ioctl_fionread(&peer).unwrap(), 5);
        }
    });
}

/// A copy flushes the writer at the end, even if it has moved no bytes.
#[test]
fn copy_of_nothing_in_the_kernel_waits_until_gathered_bytes_are_sent() {
    run(async {
        for of_file in [false, true] {
            let (ours, peer) = common::by_hand::narrow_pair().await;
            let total = block(&ours, ours.as_raw_fd()).await;
            let (source, feeder) = super::pair().await;
            feeder.close_write().unwrap();
            source.readable().await.unwrap();
            let mut file = netpoll::io::AssertAsync::new(std::fs::File::open("/proc/self/exe").unwrap()).take(0);
            let mut copy = Box::pin(async {
                match of_file {
                    false => netpoll::io::copy(&mut &source, &mut &ours).await,
                    true => netpoll::io::copy(&mut file, &mut &ours).await,
                }
            });
            assert!(poll_once(&mut copy).await.is_pending());
            let reader = task::spawn(async move { read_exact(&peer, &mut vec![0; total]).await });
            assert_eq!(copy.await.unwrap(), 0);
            assert!(matches!(poll_once(&mut ours.flush()).await, Poll::Ready(Ok(()))));
            reader.await.unwrap();
        }
    });
}

/// If one side fails, a bidirectional copy ends the stream of the other side without waiting.
#[test]
fn failed_copy_ends_the_stream_behind_gathered_bytes() {
    run(async {
        let (mut ours, peer) = common::by_hand::narrow_pair().await;
        let total = block(&ours, ours.as_raw_fd()).await;
        let (mut source, feeder) = super::pair().await;
        feeder.set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(feeder);
        source.peer_closed().await.unwrap();
        let ended = netpoll::io::copy_bidirectional(&mut source, &mut ours).await;
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(read_to_end(&peer).await.unwrap().len(), total);
    });
}

#[test]
fn descriptors_follow_gathered_bytes() {
    run(async {
        let (ours, peer) = netpoll::os::unix::net::UnixStream::pair().unwrap();
        ours.set_auto_cork(true).unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        ours.write_all(b"before").await.unwrap();
        ours.send_with_fds(b"with", &[file.as_fd()]).await.unwrap();
        drop(ours);
        let (mut buf, mut fds) = ([0; 6], Vec::new());
        ReadExt::read_exact(&mut &peer, &mut buf).await.unwrap();
        assert_eq!(&buf, b"before");
        assert_eq!(peer.recv_with_fds(&mut buf, &mut fds).await.unwrap(), 4);
        assert_eq!((&buf[..4], fds.len()), (&b"with"[..], 1));
    });
}

#[test]
fn expired_deadline_precedes_gathering() {
    run(async {
        let (ours, _peer) = super::pair().await;
        ours.set_write_deadline(past()).unwrap();
        assert_timeout(ours.write_all(b"x").await);
        assert_timeout(ours.write(b"x").await);
    });
}

/// The deadline passes after the write. The flush sends the bytes nevertheless, so it succeeds.
#[test]
fn flush_after_the_deadline_succeeds_if_everything_is_sent() {
    run(async {
        let (ours, peer) = super::pair().await;
        let mut sent = 0;
        for _ in 0..50 {
            ours.set_write_deadline(in_ms(2)).unwrap();
            // On a busy machine the deadline may pass before the write.
            if ours.write(b"x").await.is_ok() {
                std::thread::sleep(std::time::Duration::from_millis(5));
                ours.flush().await.unwrap();
                sent += 1;
            }
            ours.set_write_deadline(None).unwrap();
        }
        read_exact(&peer, &mut vec![0; sent]).await.unwrap();
    });
}

/// A flush after a close cannot promise that the gathered bytes are sent, because a task may still
/// have some of them.
#[test]
fn flush_after_a_close_is_an_error() {
    run(async {
        let (ours, _peer) = common::by_hand::narrow_pair().await;
        let number = ours.as_raw_fd();
        block(&ours, number).await;
        let mut flush = Box::pin(ours.flush());
        assert!(poll_once(&mut flush).await.is_pending());
        ours.force_close().await.unwrap();
        assert!(netpoll::net::is_closed(&flush.await.unwrap_err()));
        assert!(netpoll::net::is_closed(&ours.flush().await.unwrap_err()));
    });
}

/// A stream that has never gathered has nothing to flush, so a flush does nothing, as in async-std
/// and tokio.
#[test]
fn flush_without_gathering_succeeds_even_after_a_close() {
    run(async {
        let (ours, _peer) = common::pair().await;
        ours.set_auto_cork(false).unwrap();
        ours.force_close().await.unwrap();
        ours.flush().await.unwrap();
        WriteExt::flush(&mut &ours).await.unwrap();
        assert!(netpoll::net::is_closed(&ours.set_auto_cork(false).unwrap_err()));
    });
}

/// After the shutdown, nothing can follow the gathered bytes, although the socket does not accept
/// them yet.
#[test]
fn shutdown_ends_waiting_writes_while_gathered_bytes_are_left() {
    run(async {
        let (ours, peer) = common::by_hand::narrow_pair().await;
        let number = ours.as_raw_fd();
        let total = block(&ours, number).await;
        let wakers = [(); 3].map(|()| Wakes::new());
        let (mut write, mut other, mut writable) = (ours.write(b"x"), ours.write(b"x"), ours.writable());
        assert!(poll_with(&mut write, &wakers[0].1).is_pending());
        assert!(poll_with(&mut other, &wakers[1].1).is_pending());
        assert!(poll_with(&mut writable, &wakers[2].1).is_pending());
        ours.close_write().unwrap();
        are_woken(&wakers).await;
        for write in [write, other] {
            assert_eq!(write.await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        }
        writable.await.unwrap();
        let file = std::fs::File::open("Cargo.toml").unwrap();
        assert_eq!(ours.send_file(&file, 0, 1).await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert_eq!(info(number).gathered(), 100);
        assert_eq!(read_to_end(&peer).await.unwrap().len(), total);
    });
}

//! `send_zerocopy`: a buffer stays alive until the kernel has released it, and is then returned to
//! the caller or, if the future was dropped, freed. Completions disturb no other operation.
#![cfg(target_os = "linux")] // MSG_ZEROCOPY

mod common;

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use common::*;
use netpoll::io::ReadExt;
use netpoll::net::{TcpStream, is_closed, is_timeout};
use netpoll::{rt, task};

/// Returns the two ends of a connection. The first end has SO_ZEROCOPY set.
async fn zerocopy_pair() -> (TcpStream, TcpStream) {
    let (to, from) = pair().await;
    to.set_zerocopy(true).unwrap();
    (to, from)
}

/// A buffer that adds 1 to a counter when it is freed.
struct Tracked(Vec<u8>, Arc<AtomicUsize>);

impl AsRef<[u8]> for Tracked {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        // If the kernel still reads the memory, it sends this value.
        self.0.fill(0xdd);
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

/// A number of bytes that exceeds the buffers of both sockets.
const MUCH: usize = 32 << 20;

fn pattern(len: usize) -> Vec<u8> {
    static PATTERN: LazyLock<Vec<u8>> =
        LazyLock::new(|| (0..1_048_573u32).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect());
    let mut bytes = PATTERN.repeat(len / PATTERN.len());
    bytes.extend_from_slice(&PATTERN[..len - bytes.len()]);
    bytes
}

async fn read_all(from: TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    (&from).read_to_end(&mut all).await.unwrap();
    all
}

#[test]
fn buffers_of_any_size_are_sent_and_returned() {
    run(async {
        let (to, from) = zerocopy_pair().await;
        let reader = task::spawn(read_all(from));
        let mut expected = Vec::new();
        for len in [0, 1, 4096, 100_000, 8 << 20, 3] {
            let bytes = pattern(len);
            expected.extend_from_slice(&bytes);
            let sent = to.send_zerocopy(bytes).await.unwrap();
            assert!(sent.buf == pattern(len));
            // The kernel copies, because the peer is on this machine.
            assert_eq!(sent.copied, len > 0, "{len}");
        }
        // Data stored inside the value is sent from its final place.
        expected.extend_from_slice(&[9; 5000]);
        assert_eq!(to.send_zerocopy([9; 5000]).await.unwrap().buf, [9; 5000]);
        drop(to);
        assert!(reader.await == expected);
    });
}

#[test]
fn without_so_zerocopy_data_is_copied() {
    run(async {
        let (to, from) = pair().await;
        let sent = to.send_zerocopy(pattern(100_000)).await.unwrap();
        assert!(sent.copied && sent.buf == pattern(100_000));
        // The option is switched on and off between sends.
        to.set_zerocopy(true).unwrap();
        to.send_zerocopy(vec![1; 1000]).await.unwrap();
        to.set_zerocopy(false).unwrap();
        to.send_zerocopy(vec![2; 1000]).await.unwrap();
        drop(to);
        assert!(read_all(from).await == [pattern(100_000), vec![1; 1000], vec![2; 1000]].concat());
    });
}

/// Each send also reads completions of the other sends.
#[test]
fn concurrent_zerocopy_sends_do_not_interleave() {
    run(async {
        let (to, from) = zerocopy_pair().await;
        let senders: Vec<_> = (0..8u8)
            .map(|id| {
                let to = to.clone();
                task::spawn(async move {
                    for _ in 0..20 {
                        to.send_zerocopy(vec![id; 50_000]).await.unwrap();
                    }
                })
            })
            .collect();
        drop(to);
        let mut message = vec![0; 50_000];
        for _ in 0..8 * 20 {
            read_exact(&from, &mut message).await.unwrap();
            assert!(message.iter().all(|&byte| byte == message[0]));
        }
        for sender in senders {
            sender.await;
        }
        assert_eq!(from.read(&mut [0]).await.unwrap(), 0);
    });
}

/// A completion causes an edge with EPOLLERR, although there is no data, room or error. (Go's
/// readers report "not pollable" after an edge with EPOLLERR alone.)
#[test]
fn completions_do_not_end_other_waits() {
    run(async {
        let (to, from) = zerocopy_pair().await;
        let mut buf = [0; 8];
        {
            let mut read = to.read(&mut buf);
            let mut readable = to.readable();
            let mut gone = to.peer_closed();
            assert!(poll_once(&mut read).await.is_pending());
            assert!(poll_once(&mut readable).await.is_pending());
            assert!(poll_once(&mut gone).await.is_pending());
            for _ in 0..20 {
                let mut bytes = vec![0; 10_000];
                let (sent, ()) = futures::join!(to.send_zerocopy(vec![1; 10_000]), async {
                    read_exact(&from, &mut bytes).await.unwrap()
                });
                sent.unwrap();
                assert!(poll_once(&mut read).await.is_pending());
                assert!(poll_once(&mut readable).await.is_pending());
                assert!(poll_once(&mut gone).await.is_pending());
            }
            assert!(!to.is_peer_closed());
            from.write_all(b"data").await.unwrap();
            readable.await.unwrap();
            assert_eq!(read.await.unwrap(), 4);
        }
        assert_eq!(&buf[..4], b"data");
        // A full socket is not reported as writable.
        fill(&to).await;
        {
            let mut writable = to.writable();
            assert!(poll_once(&mut writable).await.is_pending());
        }
        to.set_read_deadline(Instant::now() + Duration::from_millis(5)).unwrap();
        assert!(is_timeout(&to.read(&mut buf).await.unwrap_err()));
        to.set_read_deadline(None).unwrap();
        assert!(to.take_error().unwrap().is_none());
        drop(from);
        to.peer_closed().await.unwrap();
    });
}

/// Waits for the other tests that call this function, and excludes them while the returned guard
/// lives. These tests rely on the kernel not to copy their buffers. A user other than root may pin
/// a limited number of pages. Beyond this limit, send(2) fails with ENOBUFS, and the crate copies.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends more than the peer, which does not read, can acknowledge, and drops the future. Returns
/// the number of buffers that were freed before the drop.
async fn abandon(to: &TcpStream, freed: &Arc<AtomicUsize>) -> usize {
    let mut send = to.send_zerocopy(Tracked(pattern(MUCH), freed.clone()));
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(20) {
        assert!(poll_once(&mut send).await.is_pending());
        task::yield_now().await;
    }
    freed.load(Ordering::SeqCst)
}

#[test]
fn dropped_send_keeps_buffer_until_acknowledged() {
    let _alone = alone();
    run(async {
        let freed = Arc::new(AtomicUsize::new(0));
        let (to, from) = zerocopy_pair().await;
        assert_eq!(abandon(&to, &freed).await, 0);
        assert_eq!(freed.load(Ordering::SeqCst), 0, "the kernel still reads the buffer");
        // The peer reads the original contents of the buffer, not those after it was freed.
        let reader = task::spawn(read_all(from));
        to.write_all(b"end").await.unwrap();
        // A later send finds the completion.
        let start = Instant::now();
        while freed.load(Ordering::SeqCst) == 0 {
            assert!(start.elapsed() < BOUND);
            to.send_zerocopy(*b"x").await.unwrap();
        }
        // SO_LINGER is unchanged, so dropping the stream closes the connection in an orderly way.
        assert_eq!(to.linger().unwrap(), None);
        drop(to);
        let all = reader.await;
        let end = all.windows(3).rposition(|window| window == b"end").unwrap();
        assert!(end > 0 && all[..end] == pattern(MUCH)[..end]);
        assert!(all[end + 3..].iter().all(|&byte| byte == b'x'));
    });
}

#[test]
fn close_before_completion_resets_connection() {
    let _alone = alone();
    run(async {
        let freed = Arc::new(AtomicUsize::new(0));
        let (to, from) = zerocopy_pair().await;
        abandon(&to, &freed).await;
        assert_eq!(freed.load(Ordering::SeqCst), 0);
        drop(to);
        assert_eq!(freed.load(Ordering::SeqCst), 1);
        let mut all = Vec::new();
        assert_eq!((&from).read_to_end(&mut all).await.unwrap_err().kind(), ErrorKind::ConnectionReset);

        // The stream is closed explicitly while the future is alive.
        let (to, from) = zerocopy_pair().await;
        let mut send = to.send_zerocopy(Tracked(pattern(MUCH), freed.clone()));
        assert!(poll_once(&mut send).await.is_pending());
        to.force_close().await.unwrap();
        assert!(is_closed(&send.await.err().unwrap()));
        drop(to);
        assert_eq!(freed.load(Ordering::SeqCst), 2);
        assert_eq!((&from).read_to_end(&mut Vec::new()).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

/// Regression: with SO_LINGER the kernel continued after the close, and sent from the freed memory.
#[test]
fn linger_does_not_expose_freed_memory() {
    let _alone = alone();
    child("linger_does_not_expose_freed_memory", || {
        rt::Builder::new().blocking_threads(1).start().unwrap();
        run(async {
            // Occupies the only thread for closes that may wait.
            let (lingers, reader) = pair().await;
            fill(&lingers).await;
            lingers.set_linger(Some(BOUND)).unwrap();
            drop(lingers);
            for (before, after) in [(None, Some(None)), (None, Some(Some(30))), (Some(30), None)] {
                let linger = |seconds: Option<u64>| seconds.map(Duration::from_secs);
                let freed = Arc::new(AtomicUsize::new(0));
                let (to, from) = zerocopy_pair().await;
                to.set_linger(linger(before)).unwrap();
                assert_eq!(abandon(&to, &freed).await, 0);
                if let Some(after) = after {
                    to.set_linger(linger(after)).unwrap();
                }
                assert_eq!(to.linger().unwrap(), linger(after.unwrap_or(before)));
                drop(to);
                assert_eq!(freed.load(Ordering::SeqCst), 1);
                from.set_read_deadline(Instant::now() + BOUND / 6).unwrap();
                let mut all = Vec::new();
                assert_eq!((&from).read_to_end(&mut all).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
                assert!(all == pattern(MUCH)[..all.len()]);
            }
            drop(reader);
        });
    });
}

/// The connection is not reset, because the duplicate may still use it. So the buffer is not freed.
#[test]
fn duplicate_does_not_expose_freed_memory() {
    let _alone = alone();
    run(async {
        let freed = Arc::new(AtomicUsize::new(0));
        let (to, from) = zerocopy_pair().await;
        assert_eq!(abandon(&to, &freed).await, 0);
        let duplicate = to.as_fd().try_clone_to_owned().unwrap();
        drop(to);
        assert_eq!(freed.load(Ordering::SeqCst), 0);
        from.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut all = Vec::new();
        assert!(is_timeout(&(&from).read_to_end(&mut all).await.unwrap_err()));
        assert!(!all.is_empty() && all == pattern(MUCH)[..all.len()]);
        drop(duplicate);
    });
}

/// The byte with which some of the tests below fill their buffers. [`Tracked`] fills freed memory
/// with another value.
const OURS: u8 = 0x11;

/// Sends `count` buffers and drops the futures, some of them before all of their bytes are sent.
async fn abandon_many(to: &TcpStream, count: usize) {
    let freed = Arc::new(AtomicUsize::new(0));
    for _ in 0..count {
        let mut send = to.send_zerocopy(Tracked(vec![OURS; 96 << 10], freed.clone()));
        let _ = poll_once(&mut send).await;
    }
}

/// Reads until the end of the stream, a reset or a timeout, and checks that every byte is [`OURS`].
async fn assert_only_ours(from: &TcpStream) {
    let mut all = Vec::new();
    from.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut reader = from;
    if let Err(error) = reader.read_to_end(&mut all).await {
        assert!(is_timeout(&error) || error.kind() == ErrorKind::ConnectionReset, "{error}");
    }
    let foreign = all.iter().filter(|&&byte| byte != OURS).count();
    assert_eq!(foreign, 0, "of {} bytes", all.len());
}

/// Returns a duplicate of a std stream, the stream that was converted from it, and the peer.
fn adopted_pair() -> (std::net::TcpStream, TcpStream, TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let from = listener.accept().unwrap().0;
    (to.try_clone().unwrap(), to.into(), from.into())
}

/// Regression: the socket outlived its stream, and the kernel continued to send from freed memory.
#[test]
fn duplicate_of_adopted_stream_sends_no_freed_memory() {
    run(async {
        let (duplicate, to, from) = adopted_pair();
        to.set_zerocopy(true).unwrap();
        abandon_many(&to, 200).await;
        drop(to);
        assert_only_ours(&from).await;
        drop(duplicate);

        // The stream is closed explicitly while the future is alive and after a clone was dropped.
        let (duplicate, to, from) = adopted_pair();
        to.set_zerocopy(true).unwrap();
        let clone = to.clone();
        abandon_many(&clone, 100).await;
        drop(clone);
        let mut send = to.send_zerocopy(vec![OURS; 1 << 20]);
        let _ = poll_once(&mut send).await;
        to.force_close().await.unwrap();
        drop(send);
        drop(to);
        assert_only_ours(&from).await;
        drop(duplicate);
    });
}

/// Regression: each of two streams of one socket counted its own calls from 0, so each stream
/// counted the other's completions as its own.
#[test]
fn streams_sharing_a_socket_do_not_free_each_others_buffers() {
    run(async {
        let (duplicate, one, from) = adopted_pair();
        let other = TcpStream::from(duplicate);
        for stream in [&one, &other] {
            stream.set_zerocopy(true).unwrap();
        }
        for _ in 0..50 {
            abandon_many(&one, 2).await;
            abandon_many(&other, 2).await;
        }
        drop(one);
        assert_only_ours(&from).await;
        drop(other);

        // The stream itself makes the duplicate, while calls are in progress.
        let (one, from) = zerocopy_pair().await;
        abandon_many(&one, 10).await;
        let other = TcpStream::from(std::os::fd::OwnedFd::from(one.clone()));
        other.set_zerocopy(true).unwrap();
        for _ in 0..50 {
            abandon_many(&other, 2).await;
            abandon_many(&one, 2).await;
        }
        drop(other);
        assert_only_ours(&from).await;
        drop(one);
    });
}

/// A child process between fork(2) and execve(2) holds a duplicate of every socket, so close(2)
/// alone does not end the connection. The child of this test never calls execve(2).
#[test]
fn child_before_exec_does_not_expose_freed_memory() {
    let _alone = alone();
    child("child_before_exec_does_not_expose_freed_memory", || {
        run(async {
            for explicit in [false, true] {
                let freed = Arc::new(AtomicUsize::new(0));
                let (to, from) = zerocopy_pair().await;
                assert_eq!(abandon(&to, &freed).await, 0);
                // SAFETY: the child only makes calls that are safe after a fork.
                let pid = unsafe { libc::fork() };
                if pid == 0 {
                    // Ends the child if the test fails.
                    // SAFETY: the arguments are numbers.
                    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
                    loop {
                        // SAFETY: the call takes no arguments.
                        unsafe { libc::pause() };
                    }
                }
                assert!(pid > 0);
                if explicit {
                    to.force_close().await.unwrap();
                }
                drop(to);
                becomes("the buffer is freed", || freed.load(Ordering::SeqCst) == 1).await;
                from.set_read_timeout(Some(BOUND / 6)).unwrap();
                let mut all = Vec::new();
                let error = (&from).read_to_end(&mut all).await.unwrap_err();
                assert!(all == pattern(MUCH)[..all.len()], "the peer was sent freed memory");
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                // SAFETY: the arguments are numbers, and the process is this process's child, which
                // was not waited for yet.
                unsafe { libc::kill(pid, libc::SIGKILL) };
                // SAFETY: no status is requested.
                unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
            }
        });
    });
}

/// Regression: the close checked for sends in progress before the first call was made, and did not
/// reset the connection.
#[test]
fn close_during_first_send_does_not_expose_freed_memory() {
    run(async {
        for round in 0..300 {
            let (to, from) = zerocopy_pair().await;
            let barrier = Arc::new(Barrier::new(2));
            let closer = std::thread::spawn({
                let (to, barrier) = (to.clone(), barrier.clone());
                move || {
                    barrier.wait();
                    for _ in 0..round % 50 * 20 {
                        std::hint::spin_loop();
                    }
                    drop(to.force_close());
                }
            });
            let freed = Arc::new(AtomicUsize::new(0));
            let mut send = to.send_zerocopy(Tracked(vec![OURS; 4 << 20], freed.clone()));
            barrier.wait();
            let _ = poll_once(&mut send).await;
            drop(send);
            closer.join().unwrap();
            to.force_close().await.unwrap();
            drop(to);
            let mut all = Vec::new();
            if let Err(error) = (&from).read_to_end(&mut all).await {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            }
            assert!(all.iter().all(|&byte| byte == OURS), "round {round}: the peer was sent freed memory");
            assert_eq!(freed.load(Ordering::SeqCst), 1);
        }
    });
}

/// This crate does not own the converted socket, so it does not learn when the kernel has released
/// the buffer.
#[test]
fn converted_socket_leaks_pending_buffer() {
    let _alone = alone();
    run(async {
        let freed = Arc::new(AtomicUsize::new(0));
        let (to, from) = zerocopy_pair().await;
        abandon(&to, &freed).await;
        let to: std::net::TcpStream = to.try_into().unwrap();
        assert_eq!(freed.load(Ordering::SeqCst), 0);
        let reader = task::spawn(read_all(from));
        drop(to);
        let all = reader.await;
        assert!(!all.is_empty() && all == pattern(MUCH)[..all.len()]);
        assert_eq!(freed.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn deadline_and_dead_peer_end_zerocopy_send() {
    let _alone = alone();
    run(async {
        let freed = Arc::new(AtomicUsize::new(0));
        let (to, from) = zerocopy_pair().await;
        let mut send = to.send_zerocopy(Tracked(pattern(MUCH), freed.clone()));
        assert!(poll_once(&mut send).await.is_pending());
        to.set_write_deadline(Instant::now()).unwrap();
        let error = send.await.err().unwrap();
        assert!(is_timeout(&error), "{error}");
        assert_eq!(freed.load(Ordering::SeqCst), 0);
        to.set_write_deadline(None).unwrap();
        // Fills the connection, so that the peer acknowledges no further bytes, including those of
        // the next send.
        fill(&to).await;
        let mut send = to.send_zerocopy(Tracked(pattern(1000), freed.clone()));
        assert!(poll_once(&mut send).await.is_pending());
        from.set_linger(Some(Duration::ZERO)).unwrap();
        drop(from);
        let error = send.await.err().unwrap();
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
        drop(to);
        assert_eq!(freed.load(Ordering::SeqCst), 2);
        let (to, _from) = zerocopy_pair().await;
        to.force_close().await.unwrap();
        assert!(is_closed(&to.set_zerocopy(true).unwrap_err()));
        assert!(is_closed(&to.send_zerocopy(*b"x").await.unwrap_err()));
    });
}

/// Runs under another executor, with a future that is polled and forgotten.
#[test]
fn zerocopy_futures_are_send_unpin_and_forgettable() {
    fn check<T: Send + Unpin>(future: T) -> T {
        future
    }
    let _watchdog = Watchdog::new();
    park_on(async {
        let (to, from) = zerocopy_pair().await;
        let freed = Arc::new(AtomicUsize::new(0));
        let mut forgotten = check(to.send_zerocopy(Tracked(pattern(1000), freed.clone())));
        if let Poll::Ready(sent) = poll_once(&mut forgotten).await {
            drop(sent.unwrap());
        }
        std::mem::forget(forgotten);
        to.send_zerocopy(vec![1; 1000]).await.unwrap();
        read_exact(&from, &mut [0; 2000]).await.unwrap();
    });
}

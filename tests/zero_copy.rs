//! Copies in the kernel (`io::copy` between sockets and from files, `send_file`), and
//! `write_vectored_all`. Cases that the kernel refuses are in `src/io/copy/refusal_tests.rs`.
//!
//! A copy holds a pipe while it has data to move, so tests that count descriptors run in child
//! processes.

mod common;

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::by_hand::Wakes;
use common::*;
use netpoll::io::{AssertAsync, ReadExt, copy};
use netpoll::net::{TcpStream, is_closed, is_timeout};
use netpoll::{rt, task};

/// A pattern of prime length, so that lost, duplicated or swapped pieces are detected.
static BLOCK: LazyLock<Vec<u8>> =
    LazyLock::new(|| (0..1_048_573u32).map(|at| (at ^ at >> 7 ^ at >> 13) as u8).collect());

/// Returns `len` bytes of the pattern from `start` on.
fn pattern(start: u64, len: usize) -> Vec<u8> {
    BLOCK.iter().copied().cycle().skip((start % BLOCK.len() as u64) as usize).take(len).collect()
}

/// Starts a peer that sends `total` bytes of the pattern and ends its stream.
fn sender(addr: SocketAddr, total: u64) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut peer = std::net::TcpStream::connect(addr).unwrap();
        let mut left = total;
        while left > 0 {
            let chunk = &BLOCK[..BLOCK.len().min(left as usize)];
            peer.write_all(chunk).unwrap();
            left -= chunk.len() as u64;
        }
        peer.shutdown(Shutdown::Write).unwrap();
    })
}

/// Starts a peer that checks the pattern from `start` on until the end of the stream. The thread
/// returns the number of bytes.
fn checker(addr: SocketAddr, start: u64) -> JoinHandle<u64> {
    thread::spawn(move || {
        let mut peer = std::net::TcpStream::connect(addr).unwrap();
        let (mut buf, mut total) = (vec![0; 256 << 10], 0);
        loop {
            let count = peer.read(&mut buf).unwrap();
            if count == 0 {
                return total;
            }
            let mut read = &buf[..count];
            while !read.is_empty() {
                let at = ((start + total) % BLOCK.len() as u64) as usize;
                let part = read.len().min(BLOCK.len() - at);
                assert!(read[..part] == BLOCK[at..at + part], "differs after {total}");
                total += part as u64;
                read = &read[part..];
            }
        }
    })
}

/// Returns a stream from which `total` bytes of the pattern can be read, and the thread of its
/// peer.
async fn source(total: u64) -> (TcpStream, JoinHandle<()>) {
    let listener = listener().await;
    let peer = sender(listener.local_addr().unwrap(), total);
    (listener.accept().await.unwrap().0, peer)
}

/// Returns a stream whose peer expects the pattern from `start` on, and the thread of this peer.
async fn target(start: u64) -> (TcpStream, JoinHandle<u64>) {
    let listener = listener().await;
    let peer = checker(listener.local_addr().unwrap(), start);
    (listener.accept().await.unwrap().0, peer)
}

/// Creates a temporary file and removes its name.
fn empty_file() -> File {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("netpoll-zero-copy-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path: PathBuf = std::env::temp_dir().join(name);
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file
}

/// Returns a file with `len` bytes of the pattern, at its beginning.
fn file(len: usize) -> File {
    let mut file = empty_file();
    file.write_all(&pattern(0, len)).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file
}

/// Go: TestSplice, large.
#[test]
fn splice_copies_stream_exactly() {
    child("splice_copies_stream_exactly", || {
        const TOTAL: u64 = 64 << 20;
        run(async {
            let ((mut from, sender), (mut to, checker)) = (source(TOTAL).await, target(0).await);
            let before = rt::metrics().kernel_copies;
            assert_eq!(copy(&mut from, &mut to).await.unwrap(), TOTAL);
            // A call moves at most 1 MiB.
            assert!(rt::metrics().kernel_copies - before >= TOTAL >> 20);
            drop(to);
            sender.join().unwrap();
            assert_eq!(checker.join().unwrap(), TOTAL);
        });
    });
}

/// The kernel also moves data between TCP and Unix sockets.
#[test]
fn unix_streams_are_spliced() {
    const TOTAL: u64 = 4 << 20;
    child("unix_streams_are_spliced", || {
        run(async {
            let before = rt::metrics().kernel_copies;
            let ((source, sent), (sink, received)) = (source(TOTAL).await, target(0).await);
            let (near, far) = netpoll::os::unix::net::UnixStream::pair().unwrap();
            let inward = task::spawn(async move {
                let copied = copy(&mut &source, &mut &near).await;
                near.shutdown(Shutdown::Write).unwrap();
                copied
            });
            assert_eq!(copy(&mut &far, &mut &sink).await.unwrap(), TOTAL);
            assert_eq!(inward.await.unwrap(), TOTAL);
            sink.close_write().unwrap();
            sent.join().unwrap();
            assert_eq!(received.join().unwrap(), TOTAL);
            assert!(rt::metrics().kernel_copies - before >= 2 * (TOTAL >> 20));
        })
    });
}

/// Go: TestSplice with a LimitedReader. The copy observes the limit and decrements it. Bytes beyond
/// the limit stay in the source.
#[test]
fn take_limit_is_kept_and_decremented() {
    run(async {
        for (total, limit) in [(1, 1), (128, 100), (4096, 5000), (1 << 20, (1 << 20) - 1), (3 << 20, 2 << 20), (10, 0)]
        {
            let ((mut from, sender), (to, checker)) = (source(total).await, target(0).await);
            let moved = total.min(limit);
            let mut limited = (&mut from).take(limit);
            assert_eq!(copy(&mut limited, &mut &to).await.unwrap(), moved);
            assert_eq!(limited.limit(), limit - moved);
            drop(to);
            assert_eq!(checker.join().unwrap(), moved);
            let mut rest = Vec::new();
            from.read_to_end(&mut rest).await.unwrap();
            assert!(rest == pattern(moved, (total - moved) as usize));
            sender.join().unwrap();
        }
    });
}

#[test]
fn empty_copy_moves_nothing() {
    run(async {
        let ((mut from, sender), (mut to, checker)) = (source(0).await, target(0).await);
        assert_eq!(copy(&mut from, &mut to).await.unwrap(), 0);
        assert_eq!(copy(&mut AssertAsync::new(empty_file()), &mut to).await.unwrap(), 0);
        assert_eq!(to.send_file(&empty_file(), 0, 10).await.unwrap(), 0);
        assert_eq!(to.send_file(&file(10), 3, 0).await.unwrap(), 0);
        assert_eq!(to.send_file(&file(10), 10, u64::MAX).await.unwrap(), 0);
        drop(to);
        sender.join().unwrap();
        assert_eq!(checker.join().unwrap(), 0);
    });
}

/// A reader that wraps a stream may hold bytes of the stream, so the copy uses a buffer instead of
/// the kernel.
#[test]
fn copy_from_buffered_reader_loses_nothing() {
    use netpoll::io::BufReader;
    run(async {
        let ((from, sender), (mut to, checker)) = (source(100_000).await, target(10).await);
        let mut reader = BufReader::new(from);
        let mut head = [0; 10];
        reader.read_exact(&mut head).await.unwrap();
        assert_eq!(copy(&mut reader, &mut to).await.unwrap(), 100_000 - 10);
        drop(to);
        sender.join().unwrap();
        assert_eq!(checker.join().unwrap(), 100_000 - 10);
    });
}

/// Each small message is forwarded before the next one is written.
#[test]
fn small_messages_are_forwarded_immediately() {
    run(async {
        let ((client, mut inbound), (mut outbound, server)) = (pair().await, pair().await);
        let proxy = task::spawn(async move { copy(&mut inbound, &mut outbound).await });
        for round in 0..200u32 {
            let message = round.to_le_bytes();
            client.write_all(&message).await.unwrap();
            let mut got = [0; 4];
            read_exact(&server, &mut got).await.unwrap();
            assert_eq!(got, message);
        }
        drop(client);
        assert_eq!(proxy.await.unwrap(), 800);
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
    });
}

/// Go: TestSplice, with a target that does not read. This test also checks that the data of a
/// dropped copy does not get into a later copy.
#[test]
fn pipe_of_a_dropped_copy_is_not_reused() {
    child("pipe_of_a_dropped_copy_is_not_reused", || {
        run(async {
            for _ in 0..8 {
                let (client, mut inbound) = pair().await;
                let (mut outbound, _server) = pair().await;
                fill(&outbound).await;
                client.write_all(b"these bytes stay in the pipe").await.unwrap();
                let mut copying = pin!(copy(&mut inbound, &mut outbound));
                becomes("the copy has taken the bytes and waits for the target", || {
                    let polled = copying.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
                    assert!(polled.is_pending());
                    fd_count_of_pipes() > 0
                })
                .await;
            }
            let ((mut from, sender), (mut to, checker)) = (source(3 << 20).await, target(0).await);
            assert_eq!(copy(&mut from, &mut to).await.unwrap(), 3 << 20);
            drop(to);
            sender.join().unwrap();
            assert_eq!(checker.join().unwrap(), 3 << 20);
        });
    });
}

/// Returns the number of this process's descriptors of pipes, except the standard streams.
fn fd_count_of_pipes() -> usize {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()).is_some_and(|fd| fd > 2))
        .filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("pipe:")))
        .count()
}

/// Idle connections of a proxy hold no pipe. When all copies have ended, at most four pipes are
/// kept.
#[test]
fn waiting_copy_holds_no_pipe() {
    child("waiting_copy_holds_no_pipe", || {
        run(async {
            let before = fd_count_of_pipes();
            let (mut clients, mut copies, mut servers) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..50 {
                let ((client, mut inbound), (mut outbound, server)) = (pair().await, pair().await);
                copies.push(task::spawn(async move { copy(&mut inbound, &mut outbound).await }));
                ping_through(&client, &server).await;
                clients.push(client);
                servers.push(server);
            }
            // The connections are used one after another, so few pipes exist at a time.
            becomes("the pipes are returned", || fd_count_of_pipes() - before <= 2 * 8).await;
            drop(clients);
            for copying in copies {
                assert_eq!(copying.await.unwrap(), 4);
            }
            becomes("few pipes are kept", || fd_count_of_pipes() - before <= 2 * 4).await;
        });
    });
}

async fn ping_through(client: &TcpStream, server: &TcpStream) {
    client.write_all(b"ping").await.unwrap();
    read_exact(server, &mut [0; 4]).await.unwrap();
}

#[test]
fn copy_without_pipe_descriptors_uses_buffer() {
    child("copy_without_pipe_descriptors_uses_buffer", || {
        run(async {
            let ((mut from, sender), (mut to, checker)) = (source(1 << 20).await, target(0).await);
            // The first wait creates the last descriptors of the runtime.
            from.readable().await.unwrap();
            set_nofile(256);
            let held = exhaust_descriptors();
            let before = rt::metrics().kernel_copies;
            assert_eq!(copy(&mut from, &mut to).await.unwrap(), 1 << 20);
            assert_eq!(rt::metrics().kernel_copies, before);
            drop((held, to));
            sender.join().unwrap();
            assert_eq!(checker.join().unwrap(), 1 << 20);
        });
    });
}

/// Go: TestSendfileOnWriteTimeoutExceeded (issue 43822). Here, a socket is also a source. Go loses
/// bytes in this case.
#[test]
fn expired_write_deadline_consumes_no_source_data() {
    run(async {
        let ((mut from, sender), (mut to, checker)) = (source(1000).await, target(0).await);
        from.readable().await.unwrap();
        to.set_write_deadline(Instant::now()).unwrap();
        assert!(is_timeout(&copy(&mut from, &mut to).await.unwrap_err()));
        let mut reader = AssertAsync::new(file(1000));
        assert!(is_timeout(&copy(&mut reader, &mut to).await.unwrap_err()));
        assert_eq!(reader.get_mut().stream_position().unwrap(), 0);
        let whole = file(1000);
        let mut sending = to.send_file(&whole, 0, 1000);
        assert!(is_timeout(&(&mut sending).await.unwrap_err()));
        assert_eq!(sending.sent(), 0);
        drop(sending);
        // A copy through the buffer also fails.
        let mut bytes = &b"bytes"[..];
        assert!(is_timeout(&copy(&mut bytes, &mut to).await.unwrap_err()));
        assert_eq!(bytes.len(), 5);
        to.set_write_deadline(None).unwrap();
        assert_eq!(copy(&mut from, &mut to).await.unwrap(), 1000);
        drop(to);
        sender.join().unwrap();
        assert_eq!(checker.join().unwrap(), 1000);
    });
}

/// An expired read deadline ends the copy. With a later deadline, the next copy continues where the
/// previous one ended.
#[test]
fn read_deadline_interrupts_copy_without_loss() {
    run(async {
        let ((client, mut inbound), (mut outbound, server)) = (pair().await, pair().await);
        for round in 0..20u8 {
            client.write_all(&[round; 3]).await.unwrap();
            inbound.set_read_deadline(Instant::now() + Duration::from_millis(5)).unwrap();
            assert!(is_timeout(&copy(&mut inbound, &mut outbound).await.unwrap_err()));
        }
        inbound.set_read_deadline(None).unwrap();
        drop(client);
        copy(&mut inbound, &mut outbound).await.unwrap();
        drop(outbound);
        assert_eq!(bytes_until_end(&server).await, (0..20).flat_map(|round| [round; 3]).collect::<Vec<u8>>());
    });
}

#[test]
fn close_of_either_socket_ends_copy() {
    run(async {
        for source_first in [true, false] {
            let ((_client, mut inbound), (mut outbound, _server)) = (pair().await, pair().await);
            let closes = if source_first { inbound.clone() } else { outbound.clone() };
            let (wakes, waker) = Wakes::new();
            let mut copying = pin!(copy(&mut inbound, &mut outbound));
            assert!(poll_with(&mut copying, &waker).is_pending());
            closes.force_close().await.unwrap();
            becomes("the copy is woken", || wakes.count() > 0).await;
            let error = copying.await.unwrap_err();
            assert!(is_closed(&error), "{error}");
        }
    });
}

/// Go: TestSendfile, TestSendfileExactLimit, TestSendfileLimitLargerThanFile, TestSendfileParts,
/// TestSendfileSeeked.
#[test]
fn copy_sends_file_from_its_position_up_to_limit() {
    child("copy_sends_file_from_its_position_up_to_limit", || {
        const LEN: usize = (2 << 20) + 17;
        run(async {
            let (to, checker) = target(100).await;
            let before = rt::metrics().kernel_copies;
            let mut whole = file(LEN);
            whole.seek(SeekFrom::Start(100)).unwrap();
            // Each part continues at the file's position, where the previous part ended, and sends
            // at most its limit.
            let mut part = AssertAsync::new(&mut whole).take(1 << 20);
            assert_eq!(copy(&mut part, &mut &to).await.unwrap(), 1 << 20);
            assert_eq!(part.limit(), 0);
            assert_eq!(whole.stream_position().unwrap(), 100 + (1 << 20));
            let mut part = AssertAsync::new(&whole).take(3);
            assert_eq!(copy(&mut part, &mut &to).await.unwrap(), 3);
            let mut rest = AssertAsync::new(whole).take(LEN as u64);
            let left = LEN as u64 - 100 - (1 << 20) - 3;
            assert_eq!(copy(&mut rest, &mut &to).await.unwrap(), left);
            assert_eq!(rest.limit(), LEN as u64 - left);
            assert!(rt::metrics().kernel_copies - before >= 3, "sendfile(2) was used");
            drop(to);
            assert_eq!(checker.join().unwrap(), LEN as u64 - 100);
        });
    });
}

#[test]
fn send_file_uses_own_offset_and_holds_lock() {
    const LEN: usize = 8 << 20;
    run(async {
        let (to, checker) = target(7).await;
        let mut whole = file(LEN);
        let other = pattern(LEN as u64, 1000);
        let mut sending = to.send_file(&whole, 7, u64::MAX);
        // The send is in progress or already complete. In both cases the written bytes must follow
        // those of the file.
        let polled = poll_once(&mut sending).await;
        let (sent, written) = futures::join!(
            async { if let Poll::Ready(sent) = polled { sent } else { sending.await } },
            to.write_all(&other)
        );
        assert_eq!(sent.unwrap(), LEN as u64 - 7);
        written.unwrap();
        assert_eq!(whole.stream_position().unwrap(), 0);
        drop(to);
        assert_eq!(checker.join().unwrap(), LEN as u64 - 7 + 1000);
    });
}

/// Go: TestSendfileLargeFile. The offsets need more than 32 bits.
#[test]
fn file_offsets_beyond_4_gib_work() {
    run(async {
        let far = (5u64 << 30) + 123;
        let mut sparse = empty_file();
        sparse.seek(SeekFrom::Start(far)).unwrap();
        if let Err(error) = sparse.write_all(&pattern(far, 70_000)) {
            eprintln!("skipped: the temporary directory has no sparse files: {error}");
            return;
        }
        let (mut to, checker) = target(far).await;
        assert_eq!(to.send_file(&sparse, far, 60_000).await.unwrap(), 60_000);
        sparse.seek(SeekFrom::Start(far + 60_000)).unwrap();
        assert_eq!(copy(&mut AssertAsync::new(&sparse), &mut to).await.unwrap(), 10_000);
        drop(to);
        assert_eq!(checker.join().unwrap(), 70_000);
        let (to, _peer) = pair().await;
        assert_eq!(to.send_file(&sparse, u64::MAX, 1).await.unwrap_err().raw_os_error(), Some(libc::EOVERFLOW));
    });
}

/// Sends special files that have no page cache, and a part of an endless file.
#[test]
fn special_files_are_sent() {
    run(async {
        for path in ["/proc/self/cmdline", "/sys/kernel/mm/transparent_hugepage/enabled", "/proc/version"] {
            let Ok(mut special) = File::open(path) else { continue };
            let mut expected = Vec::new();
            special.read_to_end(&mut expected).unwrap();
            for own_offset in [false, true] {
                let (mut to, from) = pair().await;
                let mut special = AssertAsync::new(File::open(path).unwrap());
                let sent = if own_offset {
                    to.send_file(special.get_ref(), 0, u64::MAX).await.unwrap()
                } else {
                    copy(&mut special, &mut to).await.unwrap()
                };
                assert_eq!(sent, expected.len() as u64, "{path}");
                drop(to);
                assert_eq!(bytes_until_end(&from).await, expected, "{path}");
            }
        }
        let ((mut to, from), mut zeros) =
            (pair().await, AssertAsync::new(File::open("/dev/zero").unwrap()).take(100_000));
        let (sent, got) = futures::join!(async move { copy(&mut zeros, &mut to).await }, bytes_until_end(&from));
        assert_eq!((sent.unwrap(), got), (100_000, vec![0; 100_000]));
    });
}

async fn bytes_until_end(mut stream: &TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    all
}

/// Go: TestSendfilePipe and TestCopyPipeIntoTCP.
#[test]
fn pipe_file_is_copied_and_stays_blocking() {
    run(async {
        let (reader, mut writer) = io::pipe().unwrap();
        let trickle = thread::spawn(move || {
            for piece in pattern(0, 10_000).chunks(999) {
                writer.write_all(piece).unwrap();
                thread::yield_now();
            }
        });
        let (mut to, checker) = target(0).await;
        let mut file = AssertAsync::new(File::from(OwnedFd::from(reader)));
        assert_eq!(copy(&mut file, &mut to).await.unwrap(), 10_000);
        trickle.join().unwrap();
        // SAFETY: the command takes no argument.
        let flags = unsafe { libc::fcntl(file.get_ref().as_raw_fd(), libc::F_GETFL) };
        assert_eq!(flags & libc::O_NONBLOCK, 0);
        assert_eq!(to.send_file(file.get_ref(), 0, 1).await.unwrap_err().raw_os_error(), Some(libc::ESPIPE));
        drop(to);
        assert_eq!(checker.join().unwrap(), 10_000);
    });
}

#[test]
fn unreadable_files_are_errors() {
    run(async {
        let (mut to, _peer) = pair().await;
        let directory = File::open("/").unwrap();
        assert_eq!(to.send_file(&directory, 0, 1).await.unwrap_err().raw_os_error(), Some(libc::EISDIR));
        let error = copy(&mut AssertAsync::new(directory), &mut to).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EISDIR));
        let write_only = File::options().write(true).open("/dev/null").unwrap();
        assert_eq!(to.send_file(&write_only, 0, 1).await.unwrap_err().raw_os_error(), Some(libc::EBADF));
    });
}

/// The sending side is shut down, so writes fail with EPIPE. SIGPIPE has its default disposition,
/// as in a program that is not written in Rust.
#[test]
fn copy_after_close_write_fails_without_sigpipe() {
    child("copy_after_close_write_fails_without_sigpipe", || {
        // SAFETY: SIG_DFL is a valid disposition, and no other test runs in this process.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        run(async {
            let whole = file(1 << 20);
            let dead = || async {
                let (to, peer) = pair().await;
                to.close_write().unwrap();
                (to, peer)
            };
            let (to, _peer) = dead().await;
            assert_eq!(to.send_file(&whole, 0, 1 << 20).await.unwrap_err().kind(), ErrorKind::BrokenPipe);
            let (mut to, _peer) = dead().await;
            let error = copy(&mut AssertAsync::new(&whole), &mut to).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
            let ((mut to, _peer), (mut from, sender)) = (dead().await, source(100).await);
            from.readable().await.unwrap();
            assert_eq!(copy(&mut from, &mut to).await.unwrap_err().kind(), ErrorKind::BrokenPipe);
            sender.join().unwrap();
            let error = to.write_vectored_all(&mut [IoSlice::new(b"x")]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        });
    });
}

/// Go: TestBuffers_WriteTo.
#[test]
fn write_vectored_all_writes_any_number_of_buffers() {
    run(async {
        for count in [0, 1, 10, 1023, 1024, 1025, 5000] {
            let (to, checker) = target(0).await;
            let bytes = pattern(0, count * 37);
            let mut slices: Vec<_> = bytes.chunks(37).map(IoSlice::new).collect();
            to.write_vectored_all(&mut slices).await.unwrap();
            drop(to);
            assert_eq!(checker.join().unwrap(), bytes.len() as u64, "{count}");
        }
    });
}

/// Go: TestConsume. Buffers may be empty at any position, a system call may end at any byte, and
/// the bytes do not fit into the socket's buffer.
#[test]
fn write_vectored_all_writes_buffers_of_any_size() {
    run(async {
        let (to, checker) = target(0).await;
        let bytes = pattern(0, 9 << 20);
        let (mut rest, mut slices) = (&bytes[..], vec![IoSlice::new(b""); 3000]);
        for size in (0..).map(|n: usize| (n * n * 131) % 300_001) {
            let (head, tail) = rest.split_at(size.min(rest.len()));
            slices.push(IoSlice::new(head));
            slices.extend([IoSlice::new(b""); 2]);
            rest = tail;
            if rest.is_empty() {
                break;
            }
        }
        slices.extend([IoSlice::new(b""); 3000]);
        to.write_vectored_all(&mut slices).await.unwrap();
        to.write_vectored_all(&mut [IoSlice::new(b""); 2000]).await.unwrap();
        drop(to);
        assert_eq!(checker.join().unwrap(), bytes.len() as u64);
    });
}

#[test]
fn write_vectored_all_does_not_interleave() {
    run(async {
        let (to, from) = pair().await;
        let writers: Vec<_> = (0..4u8)
            .map(|id| {
                let to = to.clone();
                task::spawn(async move {
                    let parts = vec![[id; 100]; 3000];
                    for _ in 0..3 {
                        let mut slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
                        to.write_vectored_all(&mut slices).await.unwrap();
                    }
                })
            })
            .collect();
        drop(to);
        let mut message = vec![0; 300_000];
        for _ in 0..4 * 3 {
            read_exact(&from, &mut message).await.unwrap();
            assert!(message.iter().all(|&byte| byte == message[0]));
        }
        assert_eq!(from.read(&mut [0]).await.unwrap(), 0);
        for writer in writers {
            writer.await;
        }
    });
}

/// Go: TestWritevError. An expired deadline and a closed socket are errors even if there is nothing
/// to write.
#[test]
fn write_vectored_all_fails_after_reset_expiry_and_close() {
    run(async {
        let (to, peer) = pair().await;
        peer.set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        to.peer_closed().await.unwrap();
        let block = vec![0; 1 << 20];
        let error = to.write_vectored_all(&mut [IoSlice::new(&block); 3]).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
        let (to, _peer) = pair().await;
        to.set_write_deadline(Instant::now()).unwrap();
        assert!(is_timeout(&to.write_vectored_all(&mut []).await.unwrap_err()));
        to.force_close().await.unwrap();
        assert!(is_closed(&to.write_vectored_all(&mut []).await.unwrap_err()));
    });
}

//! An operation that is polled once reports the kernel's current state, even if no thread has
//! received the event yet. Connection pools rely on this to test whether a connection is alive. The
//! exception is a read that waits without a system call, because an earlier read of the same turn
//! was short (`src/net/fd/short_wait.rs`). Other tests check which polls return `Pending` for
//! fairness although the operation could proceed.
#![cfg(target_os = "linux")] // POLLRDHUP

mod common;

use std::future::{Future, poll_fn};
use std::io::{self, Write as _};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use common::by_hand::Wakes;
use common::{BOUND, Watchdog, child, pair, park_on, run};
use netpoll::io::{AsyncFd, Read as _};
use netpoll::net::{TcpListener, TcpStream, UdpSocket};
use netpoll::os::unix::net::{UnixDatagram, UnixListener, UnixSeqpacket, UnixSeqpacketListener, UnixStream};
use netpoll::{rt, task};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const ROUNDS: usize = 100;

/// Blocks until poll(2) reports one of `flags`.
fn wait_for(fd: impl AsFd, flags: PollFlags) {
    let limit = Timespec { tv_sec: BOUND.as_secs() as i64, tv_nsec: 0 };
    let mut entry = [PollFd::new(&fd, flags)];
    assert_eq!(poll(&mut entry, Some(&limit)).unwrap(), 1, "poll(2) reported nothing in time");
    assert!(entry[0].revents().intersects(flags), "{:?}", entry[0].revents());
}

/// The waker passed to a poll.
#[derive(Clone, Copy, Debug)]
enum By {
    /// A waker that does nothing.
    Noop,
    /// The waker of the task.
    Own,
}

const BOTH: [By; 2] = [By::Noop, By::Own];

/// Polls `future` once, and a second time if a poll with the task's own waker returns `Pending`.
/// Returns the output if the future completes.
async fn once<F: Future + Unpin>(by: By, mut future: F) -> Option<F::Output> {
    once_with(by, |cx| Pin::new(&mut future).poll(cx)).await
}

/// Works like [`once`], with a poll function instead of a future.
async fn once_with<T>(by: By, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Option<T> {
    let polled = poll_fn(|cx| {
        Poll::Ready(match by {
            By::Noop => poll(&mut Context::from_waker(Waker::noop())),
            // For fairness some polls return Pending and call the waker. The next poll proceeds.
            By::Own => match poll(cx) {
                Poll::Pending => poll(cx),
                ready => ready,
            },
        })
    });
    match polled.await {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// Returns a connection and its peer, which is a std socket.
async fn connection() -> (TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (stream, listener.accept().unwrap().0)
}

/// Reads an answer of 6 bytes, which another thread sends. The first read usually waits, which
/// registers the stream. Afterwards the stream is idle.
async fn read_short(stream: &TcpStream, mut peer: impl io::Write + Send + 'static) {
    let thread = std::thread::spawn(move || peer.write_all(b"answer").unwrap());
    let mut buf = [0; 64];
    let count = stream.read(&mut buf).await.unwrap();
    assert!(count > 0 && count < 64);
    thread.join().unwrap();
    // The answer may arrive in several parts.
    let mut left = 6 - count;
    while left > 0 {
        left -= stream.read(&mut buf).await.unwrap();
    }
}

/// Checks that a poll sees the close of the peer, after `answers` answers. After many reads that
/// waited, the crate expects the next read to wait as well, but the read must still make its system
/// call.
async fn end_of_stream_is_seen(answers: usize) {
    for by in BOTH {
        for round in 0..(ROUNDS / answers).max(5) {
            let (mut stream, peer) = connection().await;
            for _ in 0..answers {
                task::yield_now().await;
                read_short(&stream, peer.try_clone().unwrap()).await;
            }
            drop(peer);
            wait_for(&stream, PollFlags::RDHUP);
            let mut buf = [0; 64];
            let seen = match round % 5 {
                0 => once(by, stream.read(&mut buf)).await.map(|count| assert_eq!(count.unwrap(), 0)),
                1 => once_with(by, |cx| Pin::new(&mut stream).poll_read(cx, &mut buf))
                    .await
                    .map(|count| assert_eq!(count.unwrap(), 0)),
                2 => once(by, stream.readable()).await.map(Result::unwrap),
                3 => once(by, stream.peer_closed()).await.map(Result::unwrap),
                _ => stream.is_peer_closed().then_some(()),
            };
            assert!(seen.is_some(), "{by:?}, round {round}");
        }
    }
}

/// Checks that a poll sees an answer that arrived before the poll. If `has_waited` is false, the
/// connection may be unregistered at the first poll. At the other polls it is registered, but
/// possibly no thread has received the event.
async fn answers_are_seen(has_waited: bool) {
    for by in BOTH {
        let (mut stream, mut peer) = connection().await;
        if has_waited {
            read_short(&stream, peer.try_clone().unwrap()).await;
        }
        let mut buf = [0; 64];
        for round in 0..ROUNDS {
            stream.write_all(b"request").await.unwrap();
            peer.write_all(b"answer").unwrap();
            wait_for(&stream, PollFlags::IN);
            let count = if round % 2 == 0 {
                once(by, stream.read(&mut buf)).await
            } else {
                once_with(by, |cx| Pin::new(&mut stream).poll_read(cx, &mut buf)).await
            };
            assert_eq!(count.unwrap_or_else(|| panic!("{by:?}, round {round}")).unwrap(), 6);
            // The receive buffer is empty.
            assert!(once(by, stream.read(&mut buf)).await.is_none());
            task::yield_now().await;
        }
    }
}

/// Returns the descriptor of `stream`. Does not call `as_fd`, which would expose the socket: a
/// short count on an exposed socket is not evidence that the next call would wait.
fn descriptor(stream: &TcpStream) -> BorrowedFd<'_> {
    let ends = [stream.local_addr().unwrap(), stream.peer_addr().unwrap()].map(Some);
    let is_of_stream = |fd: &BorrowedFd<'_>| {
        let socket = socket2::SockRef::from(fd);
        [socket.local_addr(), socket.peer_addr()].map(|addr| addr.ok()?.as_socket()) == ends
    };
    // SAFETY: the numbers are passed only to getsockname(2) and getpeername(2), which fail if a
    // number is not open. The descriptor of the stream, which is returned, is open while the stream
    // is borrowed.
    let descriptors = (0..1 << 16).map(|number| unsafe { BorrowedFd::borrow_raw(number) });
    descriptors.into_iter().find(is_of_stream).expect("the stream has a descriptor")
}

/// Makes many reads that wait. After them, a short count may replace the call of the next read.
async fn wait_often(stream: &TcpStream, peer: &mut std::net::TcpStream) {
    let mut buf = [0; 64];
    for _ in 0..20 {
        let mut read = stream.read(&mut buf);
        assert!(once(By::Own, &mut read).await.is_none());
        peer.write_all(b"answer").unwrap();
        // The read is not polled again before the event wakes the task.
        let mut is_woken = false;
        let count = poll_fn(|cx| match std::mem::replace(&mut is_woken, true) {
            true => Pin::new(&mut read).poll(cx),
            false => Poll::Pending,
        });
        assert_eq!(count.await.unwrap(), 6);
    }
}

/// Checks that the second read of a turn sees data that arrived before its poll. The first read of
/// the turn has a short count, although the runtime has not received the event of its data. If
/// `yields` is true, the first read is the first operation of the turn. The caller's thread must be
/// the only one that polls the back end. On a busy machine sysmon may receive an event, and a read
/// may then miss its data, so a quarter of the reads may miss theirs.
async fn data_after_an_early_read_is_seen(yields: bool) {
    const ROUNDS: usize = 20;
    let mut missed = 0;
    for round in 0..ROUNDS {
        let (stream, mut peer) = connection().await;
        let mut buf = [0; 64];
        wait_often(&stream, &mut peer).await;
        let fd = descriptor(&stream);
        if yields {
            task::yield_now().await;
        }
        for data in [b"early", b"later"] {
            peer.write_all(data).unwrap();
            wait_for(fd, PollFlags::IN);
            let mut poll = |cx: &mut Context<'_>| match round % 2 {
                0 => Pin::new(&mut stream.read(&mut buf)).poll(cx),
                _ => Pin::new(&mut &stream).poll_read(cx, &mut buf),
            };
            // After a yield, the turn has too few operations for one of them to return Pending for
            // fairness, so one poll must suffice.
            let polled = poll_fn(|cx| Poll::Ready(poll(cx))).await;
            let polled = if yields || polled.is_ready() { polled } else { poll_fn(|cx| Poll::Ready(poll(cx))).await };
            let count = match polled {
                Poll::Ready(count) => count,
                Poll::Pending => {
                    missed += 1;
                    stream.read(&mut buf).await
                }
            };
            assert_eq!(&buf[..count.unwrap()], data);
            stream.write_all(b"request").await.unwrap();
        }
    }
    assert!(missed <= ROUNDS / 2, "{missed} of {} reads, yields: {yields}", 2 * ROUNDS);
}

/// Checks that a read sees the end of the stream although `poll_read_uninit`, the read of adapters,
/// has had a short count earlier in the same turn. (A further `poll_read_uninit` may wait without a
/// call.) In between, `poll_read_uninit` is called with a waker that is not the task's own. The
/// caller's thread must be the only one that polls the back end. If sysmon receives an event, the
/// read may miss the end of the stream, so half of the rounds may miss it.
async fn end_after_a_read_of_an_adapter_is_seen() {
    const ROUNDS: usize = 20;
    let mut missed = 0;
    for round in 0..ROUNDS {
        let (stream, mut peer) = connection().await;
        let mut buf = [0; 64];
        wait_often(&stream, &mut peer).await;
        task::yield_now().await;
        let (fd, mut peer) = (descriptor(&stream), Some(peer));
        let mut room = [MaybeUninit::uninit(); 64];
        poll_fn(|cx| {
            let Poll::Ready(count) = stream.poll_read_uninit(cx, &mut room) else {
                peer.as_mut().expect("polled again").write_all(b"answer").unwrap();
                return Poll::Pending;
            };
            assert_eq!(count.unwrap(), 6);
            assert!(stream.poll_read_uninit(&mut Context::from_waker(Waker::noop()), &mut room).is_pending());
            drop(peer.take());
            wait_for(fd, PollFlags::RDHUP);
            let polled = match round % 2 {
                0 => Pin::new(&mut stream.read(&mut buf)).poll(cx),
                _ => Pin::new(&mut &stream).poll_read(cx, &mut buf),
            };
            missed += usize::from(polled.is_pending());
            Poll::Ready(())
        })
        .await;
    }
    assert!(missed <= ROUNDS / 2, "{missed} of {ROUNDS} rounds");
}

async fn connections_are_seen() {
    for by in BOTH {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for _ in 0..ROUNDS / 4 {
            assert!(once(by, listener.accept()).await.is_none());
            let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            wait_for(&listener, PollFlags::IN);
            assert!(once(by, listener.accept()).await.is_some(), "{by:?}");
            task::yield_now().await;
        }
    }
}

async fn room_is_seen() {
    for by in BOTH {
        let (mut stream, mut peer) = connection().await;
        let chunk = vec![7; 1 << 20];
        let mut buf = vec![0; 1 << 20];
        for round in 0..5 {
            let mut written = 0;
            loop {
                match once(by, stream.write(&chunk)).await {
                    Some(count) => written += count.unwrap(),
                    // The write may have returned Pending for fairness, and the kernel may have
                    // moved bytes to the peer since.
                    None if !has_room(&stream) => break,
                    None => {}
                }
                task::yield_now().await;
            }
            while written > 0 {
                written -= io::Read::read(&mut peer, &mut buf).unwrap();
            }
            wait_for(&stream, PollFlags::OUT);
            let seen = match round % 3 {
                0 => once(by, stream.write(b"x")).await.map(|count| count.unwrap()),
                1 => once_with(by, |cx| netpoll::io::Write::poll_write(Pin::new(&mut stream), cx, b"x"))
                    .await
                    .map(Result::unwrap),
                _ => once(by, stream.writable()).await.map(|ready| ready.map(|()| 0).unwrap()),
            };
            let count = seen.unwrap_or_else(|| panic!("{by:?}, round {round}"));
            io::Read::read_exact(&mut peer, &mut buf[..count]).unwrap();
        }
    }
}

fn has_room(stream: &TcpStream) -> bool {
    poll(&mut [PollFd::new(stream, PollFlags::OUT)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
}

async fn datagrams_are_seen() {
    for by in BOTH {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(peer.local_addr().unwrap()).await.unwrap();
        peer.connect(socket.local_addr().unwrap()).unwrap();
        let (one, other) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let one = UnixDatagram::from(one);
        let mut buf = [0; 64];
        for round in 0..ROUNDS {
            assert!(once(by, socket.recv(&mut buf)).await.is_none() && once(by, one.recv(&mut buf)).await.is_none());
            peer.send(b"datagram").unwrap();
            other.send(b"datagram").unwrap();
            wait_for(&socket, PollFlags::IN);
            let (udp, unix) = match round % 3 {
                0 => (once(by, socket.recv(&mut buf)).await, once(by, one.recv(&mut buf)).await),
                1 => (
                    once(by, socket.readable()).await.map(|ready| ready.map(|()| 8)),
                    once(by, one.readable()).await.map(|ready| ready.map(|()| 8)),
                ),
                _ => (
                    once(by, socket.recv_from(&mut buf)).await.map(|from| from.map(|from| from.0)),
                    once(by, one.recv_from(&mut buf)).await.map(|from| from.map(|from| from.0)),
                ),
            };
            assert_eq!(udp.unwrap_or_else(|| panic!("UDP, {by:?}, round {round}")).unwrap(), 8);
            assert_eq!(unix.unwrap_or_else(|| panic!("Unix, {by:?}, round {round}")).unwrap(), 8);
            if round % 3 == 1 {
                assert_eq!((socket.recv(&mut buf).await.unwrap(), one.recv(&mut buf).await.unwrap()), (8, 8));
            }
            task::yield_now().await;
        }
    }
}

async fn unix_streams_are_seen() {
    for by in BOTH {
        for round in 0..ROUNDS {
            let (one, mut other) = std::os::unix::net::UnixStream::pair().unwrap();
            let mut one = UnixStream::from(one);
            let mut buf = [0; 64];
            assert!(once(by, one.read(&mut buf)).await.is_none() && once(by, one.peer_closed()).await.is_none());
            assert!(!one.is_peer_closed());
            other.write_all(b"answer").unwrap();
            assert_eq!(once(by, one.read(&mut buf)).await.map(Result::unwrap), Some(6), "{by:?}, round {round}");
            assert!(once(by, one.read(&mut buf)).await.is_none());
            other.shutdown(Shutdown::Write).unwrap();
            let seen = match round % 5 {
                0 => once(by, one.read(&mut buf)).await.map(|count| assert_eq!(count.unwrap(), 0)),
                1 => once_with(by, |cx| Pin::new(&mut one).poll_read(cx, &mut buf))
                    .await
                    .map(|count| assert_eq!(count.unwrap(), 0)),
                2 => once(by, one.readable()).await.map(Result::unwrap),
                3 => once(by, one.peer_closed()).await.map(Result::unwrap),
                _ => one.is_peer_closed().then_some(()),
            };
            assert!(seen.is_some(), "{by:?}, round {round}");
            task::yield_now().await;
        }
    }
}

async fn other_descriptors_are_seen() {
    for by in BOTH {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let reader = AsyncFd::new(reader).unwrap();
        let mut buf = [0; 64];
        for round in 0..ROUNDS {
            if round % 2 == 0 {
                // A second poll may find the event of bytes that were read before.
                assert!(once(By::Noop, reader.readable()).await.is_none());
            } else {
                assert!(once(by, reader.read_with(|mut pipe| io::Read::read(&mut pipe, &mut buf))).await.is_none());
            }
            writer.write_all(b"bytes").unwrap();
            let count = if round % 4 < 2 {
                let guard = once(by, reader.readable()).await;
                let mut guard = guard.unwrap_or_else(|| panic!("{by:?}, round {round}")).unwrap();
                let count = guard.try_io(|fd| io::Read::read(&mut fd.get_ref(), &mut buf)).unwrap();
                assert!(guard.try_io(|fd| io::Read::read(&mut fd.get_ref(), &mut buf)).is_err(), "the pipe is empty");
                count
            } else {
                let read = once(by, reader.read_with(|mut pipe| io::Read::read(&mut pipe, &mut buf))).await;
                read.unwrap_or_else(|| panic!("{by:?}, round {round}"))
            };
            assert_eq!(count.unwrap(), 5);
            task::yield_now().await;
        }
    }
}

/// Checks seqpacket sockets, connections of Unix listeners, resets, refusals and dials.
async fn packets_and_ends_are_seen() {
    for by in BOTH {
        let listener = UnixListener::bind("").await.unwrap();
        let packets = UnixSeqpacketListener::bind("").await.unwrap();
        for round in 0..ROUNDS / 4 {
            let mut buf = [0; 64];
            let (one, other) = UnixSeqpacket::pair().unwrap();
            assert!(once(by, one.recv(&mut buf)).await.is_none() && once(by, one.peer_closed()).await.is_none());
            other.send(b"packet").await.unwrap();
            assert_eq!(once(by, one.recv(&mut buf)).await.map(Result::unwrap), Some(6), "{by:?}, round {round}");
            assert!(once(by, one.recv(&mut buf)).await.is_none());
            drop(other);
            wait_for(&one, PollFlags::RDHUP);
            let seen = match round % 5 {
                0 => once(by, one.recv(&mut buf)).await.map(|count| assert_eq!(count.unwrap(), 0)),
                1 => once(by, one.peek(&mut buf)).await.map(|count| assert_eq!(count.unwrap(), 0)),
                2 => once(by, one.readable()).await.map(Result::unwrap),
                3 => once(by, one.peer_closed()).await.map(Result::unwrap),
                _ => one.is_peer_closed().then_some(()),
            };
            assert!(seen.is_some(), "{by:?}, round {round}");

            assert!(once(by, listener.accept()).await.is_none() && once(by, packets.accept()).await.is_none());
            let _client = UnixStream::connect_addr(&listener.local_addr().unwrap()).await.unwrap();
            assert!(once(by, listener.accept()).await.is_some(), "{by:?}, round {round}");
            let _client = UnixSeqpacket::connect_addr(&packets.local_addr().unwrap()).await.unwrap();
            assert!(once(by, packets.accept()).await.is_some(), "{by:?}, round {round}");

            // A reset is reported by the first poll.
            let (stream, peer) = connection().await;
            read_short(&stream, peer.try_clone().unwrap()).await;
            socket2::SockRef::from(&peer).set_linger(Some(std::time::Duration::ZERO)).unwrap();
            drop(peer);
            wait_for(&stream, PollFlags::RDHUP);
            let seen = if round % 2 == 0 {
                once(by, stream.read(&mut buf)).await.map(Result::unwrap_err)
            } else {
                once(by, stream.write(b"x")).await.map(Result::unwrap_err)
            };
            assert!(seen.is_some(), "{by:?}, round {round}");

            // The refusal from a port without a socket is reported by the first poll.
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let closed_port = {
                let _no_forks = common::no_forks();
                std::net::UdpSocket::bind(common::own_address()).unwrap().local_addr().unwrap()
            };
            socket.connect(closed_port).await.unwrap();
            assert!(once(by, socket.recv(&mut buf)).await.is_none());
            socket.send(b"x").await.unwrap();
            wait_for(&socket, PollFlags::ERR);
            let refused = once(by, socket.recv(&mut buf)).await.unwrap_or_else(|| panic!("{by:?}, round {round}"));
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);

            // The handshake of a dial ends during the first poll of the dial, or before the next
            // poll.
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut dial = Box::pin(TcpStream::connect(tcp.local_addr().unwrap()));
            let mut dialled = once(by, &mut dial).await;
            if dialled.is_none() {
                // The client's side of the connection is established before the listener has it.
                wait_for(&tcp, PollFlags::IN);
                dialled = once(by, &mut dial).await;
            }
            assert!(dialled.is_some_and(|dialled| dialled.is_ok()), "{by:?}, round {round}");
            task::yield_now().await;
        }
    }
}

async fn everything_is_seen() {
    packets_and_ends_are_seen().await;
    end_of_stream_is_seen(1).await;
    end_of_stream_is_seen(40).await;
    answers_are_seen(false).await;
    answers_are_seen(true).await;
    connections_are_seen().await;
    room_is_seen().await;
    datagrams_are_seen().await;
    unix_streams_are_seen().await;
    other_descriptors_are_seen().await;
}

#[test]
fn one_poll_sees_kernel_state_in_block_on() {
    run(everything_is_seen());
}

#[test]
fn one_poll_sees_kernel_state_on_a_worker() {
    child("one_poll_sees_kernel_state_on_a_worker", || {
        rt::Builder::new().workers(1).start().unwrap();
        task::block_on(task::spawn(everything_is_seen()));
    });
}

/// No other thread receives events while the task runs, except sysmon on a busy machine.
#[test]
fn one_poll_sees_kernel_state_on_the_only_polling_thread() {
    child("one_poll_sees_kernel_state_on_the_only_polling_thread", || {
        rt::Builder::new().workers(1).start().unwrap();
        park_on(task::spawn(async {
            everything_is_seen().await;
            data_after_an_early_read_is_seen(false).await;
            data_after_an_early_read_is_seen(true).await;
            end_after_a_read_of_an_adapter_is_seen().await;
        }));
    });
}

#[test]
fn one_poll_sees_kernel_state_on_many_workers() {
    child("one_poll_sees_kernel_state_on_many_workers", || {
        rt::Builder::new().workers(4).start().unwrap();
        // Makes other workers poll the back end, and sleep in it, during the checks.
        let traffic = task::spawn(async {
            let (one, other) = pair().await;
            loop {
                common::ping_pong(&one, &other).await;
                task::sleep(std::time::Duration::from_micros(50)).await;
            }
        });
        let tasks: Vec<_> = (0..2).map(|_| task::spawn(everything_is_seen())).collect();
        task::block_on(async {
            for task in tasks {
                task.await;
            }
        });
        drop(traffic);
    });
}

#[test]
fn one_poll_sees_kernel_state_under_other_executors() {
    let _watchdog = Watchdog::new();
    park_on(everything_is_seen());
    futures::executor::block_on(everything_is_seen());
}

/// Another executor may poll operations for any length of time without a turn of this runtime. In
/// each round, an operation waits, and a second operation follows its wake-up. Neither of the two
/// polls after the wake-up returns `Pending` for fairness.
#[test]
fn operation_after_a_wait_is_never_deferred_under_other_executors() {
    let _watchdog = Watchdog::new();
    let (listener, udp, (tcp, mut tcp_peer)) = park_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        (listener, UdpSocket::bind("127.0.0.1:0").await.unwrap(), connection().await)
    });
    let udp_peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    udp_peer.connect(udp.local_addr().unwrap()).unwrap();
    let (unix, mut unix_peer) = std::os::unix::net::UnixStream::pair().unwrap();
    let unix = UnixStream::from(unix);
    let (receiver, mut sender) = io::pipe().unwrap();
    let pipe = AsyncFd::new(receiver).unwrap();

    // A read that fills its buffer leaves the direction marked as ready.
    after_waits("TCP", async || tcp.read(&mut [0; 4]).await, || tcp_peer.write_all(&[1; 8]).unwrap());
    after_waits("Unix", async || unix.read(&mut [0; 4]).await, || unix_peer.write_all(&[1; 8]).unwrap());
    let call = |fd: &io::PipeReader| rustix::io::read(fd, &mut [0; 4]).map_err(io::Error::from);
    after_waits("pipe", async || pipe.read_with(call).await, || sender.write_all(&[1; 8]).unwrap());
    let send = || [(); 2].iter().for_each(|()| assert_eq!(udp_peer.send(&[1; 4]).unwrap(), 4));
    after_waits("UDP", async || udp.recv_from(&mut [0; 4]).await, send);
    let addr = listener.local_addr().unwrap();
    let dial = || [(); 2].iter().for_each(|()| drop(std::net::TcpStream::connect(addr).unwrap()));
    after_waits("accept", async || listener.accept().await, dial);
}

/// Runs the rounds for one kind of operation. `ready` makes two operations ready.
fn after_waits<T, F: AsyncFnMut() -> io::Result<T>>(kind: &str, mut operation: F, mut ready: impl FnMut()) {
    let (wakes, waker) = Wakes::new();
    let mut cx = Context::from_waker(&waker);
    for round in 0..ROUNDS {
        let before = wakes.count();
        {
            let mut waiting = std::pin::pin!(operation());
            assert!(waiting.as_mut().poll(&mut cx).is_pending(), "{kind}, {round}");
            ready();
            let begun = std::time::Instant::now();
            while wakes.count() == before {
                assert!(begun.elapsed() < BOUND, "{kind}, {round}: not woken");
                std::thread::yield_now();
            }
            assert!(waiting.as_mut().poll(&mut cx).is_ready(), "{kind}, {round}");
        }
        assert!(std::pin::pin!(operation()).poll(&mut cx).is_ready(), "{kind}, {round}");
    }
}

/// A task that polls more waiting operations than its budget permits is not asked to yield.
#[test]
fn polls_of_many_idle_sockets_do_not_yield() {
    run(async {
        let mut pairs = Vec::new();
        for _ in 0..100 {
            pairs.push(UnixStream::pair().unwrap());
        }
        task::yield_now().await;
        let (wakes, waker) = Wakes::new();
        let mut bufs = [0; 100];
        let mut reads: Vec<_> = pairs.iter().zip(bufs.chunks_mut(1)).map(|((one, _), buf)| one.read(buf)).collect();
        let poll = |read: &mut netpoll::net::futures::Read<'_>| {
            assert!(Pin::new(read).poll(&mut Context::from_waker(&waker)).is_pending())
        };
        for read in &mut reads {
            // The first poll clears the initial readiness.
            poll(read);
            poll(read);
            task::yield_now().await;
        }
        let before = wakes.count();
        for _ in 0..3 {
            reads.iter_mut().for_each(poll);
        }
        assert_eq!(wakes.count(), before, "an idle socket causes no yield");
    });
}

/// A task whose reads always succeed, although the runtime has received no event, still yields to
/// other tasks.
#[test]
fn successful_reads_use_up_the_budget() {
    async fn yields_in_200_reads() -> usize {
        let (stream, mut peer) = connection().await;
        read_short(&stream, peer.try_clone().unwrap()).await;
        let mut yields = 0;
        let mut buf = [0; 64];
        for _ in 0..200 {
            peer.write_all(b"x").unwrap();
            wait_for(&stream, PollFlags::IN);
            // All polls are in one turn, because nothing waits in between.
            let mut read = stream.read(&mut buf);
            poll_fn(|cx| {
                while Pin::new(&mut read).poll(cx).is_pending() {
                    yields += 1;
                }
                Poll::Ready(())
            })
            .await;
        }
        yields
    }
    run(async {
        let yields = yields_in_200_reads().await;
        // A turn that takes long also yields when its time is checked, but not twice in a row.
        assert!((4..=100).contains(&yields), "{yields} yields in 200 reads");
    });
}

/// Sends in a turn after `operations` operations, which may have used up the budget. The kernel
/// accepts messages although poll(2) and epoll report the socket as not writable, so no edge
/// follows.
async fn room_is_used_after(operations: usize) {
    let (ready, mut peer) = connection().await;
    peer.write_all(b"x").unwrap();
    wait_for(&ready, PollFlags::IN);
    let message = [7; 1024];
    let (one, other) = UnixSeqpacket::pair().unwrap();
    let (stream, bytes) = UnixStream::pair().unwrap();
    while let Some(sent) = once(By::Noop, one.send(&message)).await {
        sent.unwrap();
    }
    while let Some(sent) = once(By::Noop, stream.write(&message)).await {
        sent.unwrap();
    }
    for _ in 0..3 {
        assert_eq!(other.recv(&mut [0; 1024]).await.unwrap(), 1024);
        assert_eq!(bytes.read(&mut [0; 1024]).await.unwrap(), 1024);
    }
    for sends in [true, false] {
        task::yield_now().await;
        for _ in 0..operations {
            assert_eq!(ready.peek(&mut [0; 1]).await.unwrap(), 1);
        }
        let sent = async { if sends { one.send(&message).await } else { stream.write(&message).await } };
        let sent = netpoll::future::timeout(common::BOUND / 4, sent).await;
        assert_eq!(sent.expect("there is room").unwrap(), 1024, "after {operations} operations");
    }
}

#[test]
fn room_is_used_when_the_budget_is_used_up() {
    run(async {
        for operations in 20..45 {
            room_is_used_after(operations).await;
            task::spawn(room_is_used_after(operations)).await;
        }
    });
}

/// poll(2) reports the descriptor as readable, but the user's call returns `WouldBlock` because it
/// needs a whole message.
#[test]
fn call_that_needs_more_bytes_does_not_spin() {
    run(async {
        let (one, mut other) = std::os::unix::net::UnixStream::pair().unwrap();
        let one = AsyncFd::new(one).unwrap();
        other.write_all(b"half").unwrap();
        let whole = |fd: &AsyncFd<std::os::unix::net::UnixStream>| {
            let mut buf = [0; 8];
            let count = peek(fd.get_ref(), &mut buf)?;
            if count < 8 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(count) }
        };
        let (mut tries, mut is_done, mut second_half) = (0, false, Some(other));
        while !is_done {
            let mut readable = one.readable();
            let guard = poll_fn(|cx| {
                tries += usize::from(tries < 1000);
                Pin::new(&mut readable).poll(cx)
            });
            let mut guard = guard.await.unwrap();
            is_done = guard.try_io(whole).is_ok();
            drop(guard);
            if let Some(mut other) = second_half.take() {
                drop(task::spawn(async move {
                    task::sleep(std::time::Duration::from_millis(50)).await;
                    other.write_all(b"half").unwrap();
                }));
            }
        }
        assert!(tries < 20, "{tries} polls for two edges");
    });
}

fn peek(stream: &std::os::unix::net::UnixStream, buf: &mut [u8]) -> io::Result<usize> {
    use std::os::fd::AsRawFd;
    // SAFETY: the buffer is valid for the call.
    let count = unsafe {
        libc::recv(stream.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), libc::MSG_PEEK | libc::MSG_DONTWAIT)
    };
    if count < 0 { Err(io::Error::last_os_error()) } else { Ok(count as usize) }
}

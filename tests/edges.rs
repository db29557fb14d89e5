//! Edge cases of streams: the end of the stream, waiting writers, the address of a wildcard
//! listener, the bytes per turn, and events and writes that come before a wait.

mod common;

use std::future::Future;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};
use std::thread;
use std::time::{Duration, Instant};

use common::{becomes, child, eventually, pair, poll_now, poll_once, run};
use netpoll::io::ReadExt;
use netpoll::net::{Dialer, TcpListener, TcpStream};
use netpoll::os::unix::net::UnixStream;
use netpoll::{rt, task};

/// Go: TestEOFError. A read that returns 0 means the end of the stream only if its buffer is not
/// empty. A reset is an error.
#[test]
fn count_of_zero_is_eof_only_for_a_nonempty_buffer() {
    run(async {
        let (client, server) = pair().await;
        client.write_all(b"ab").await.unwrap();
        assert_eq!(server.read(&mut []).await.unwrap(), 0, "an empty buffer: 0 says nothing about the end");
        assert_eq!(server.peek(&mut [0; 4]).await.unwrap(), 2);
        assert_eq!(server.read(&mut [0; 4]).await.unwrap(), 2);
        client.close_write().unwrap();
        for _ in 0..2 {
            assert_eq!(server.read(&mut [0; 4]).await.unwrap(), 0, "the end of the stream, each time");
            assert_eq!(server.peek(&mut [0; 4]).await.unwrap(), 0);
        }
        let mut all = Vec::new();
        let mut reader: &TcpStream = &server;
        assert_eq!(reader.read_to_end(&mut all).await.unwrap(), 0);
        // A reset is an error and not the end of the stream. A read into an empty buffer still
        // returns 0.
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
            // The writer fills the buffers and then waits.
            becomes("the writer waits", || rt::metrics().waiters == 1).await;
            // The kernel may still move bytes to the peer's buffer, which makes room in the send
            // buffer and wakes the writer. So the test waits for a period of 300 ms with few polls.
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

/// Go: TestDialListenerAddr. The address of a wildcard listener can be dialled, because it means
/// this host.
#[test]
fn wildcard_listener_address_can_be_dialled() {
    run(async {
        let v4: SocketAddr = (Ipv4Addr::UNSPECIFIED, 0).into();
        let v6: SocketAddr = (Ipv6Addr::UNSPECIFIED, 0).into();
        for wildcard in [v4, v6] {
            let Ok(listener) = TcpListener::bind(wildcard).await else {
                eprintln!("skipped: this host does not support the address family of {wildcard}");
                continue;
            };
            let addr = listener.local_addr().unwrap();
            for dialled in [TcpStream::connect(addr).await.unwrap(), Dialer::new().dial(addr).await.unwrap()] {
                let (accepted, peer) = listener.accept().await.unwrap();
                assert_eq!(dialled.local_addr().unwrap(), peer);
                assert_eq!(accepted.local_addr().unwrap().port(), addr.port());
            }
            // Both listeners can be reached over IPv4, because the listener on [::] is dual-stack.
            let dialled = TcpStream::connect((Ipv4Addr::LOCALHOST, addr.port())).await.unwrap();
            let (_, peer) = listener.accept().await.unwrap();
            assert_eq!(dialled.local_addr().unwrap().port(), peer.port());
        }
    });
}

/// A task whose connection always has data yields after a bounded number of bytes, even with large
/// reads.
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
                // Reads until a read returns Pending, in one turn.
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
        // A turn has 31 units, each of which pays for at most 16 KiB. The last unit pays for a
        // whole read. If the previous turn ended with a refused read, one more read may be granted.
        // The limit is twice this amount.
        assert!(most <= 2 * (30 * (16 << 10) + 2 * (256 << 10)), "{most} bytes in one turn");
        writer.join().unwrap();
    });
}

/// A waker that calls a hook when it is first cloned. An operation clones its waker between the
/// registration and the wait.
struct Hooked {
    hook: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    woken: AtomicUsize,
}

mod hooked {
    use super::{Arc, Hooked, Ordering, RawWaker, RawWakerVTable, Waker};

    static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, release);

    pub(super) fn waker(hooked: Arc<Hooked>) -> Waker {
        // SAFETY: the functions of the table keep one count of the `Arc` per waker.
        unsafe { Waker::from_raw(RawWaker::new(Arc::into_raw(hooked).cast(), &VTABLE)) }
    }

    fn borrow<'a>(data: *const ()) -> &'a Hooked {
        // SAFETY: the waker has a count, and the reference does not outlive the call.
        unsafe { &*data.cast() }
    }

    unsafe fn clone(data: *const ()) -> RawWaker {
        let hook = borrow(data).hook.lock().unwrap().take();
        if let Some(hook) = hook {
            hook();
        }
        // SAFETY: the pointer came from `Arc::into_raw`, and the waker owns a count.
        unsafe { Arc::increment_strong_count(data.cast::<Hooked>()) };
        RawWaker::new(data, &VTABLE)
    }

    unsafe fn wake(data: *const ()) {
        borrow(data).woken.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the call consumes the waker, and with it the count that the waker owns.
        unsafe { release(data) };
    }

    unsafe fn wake_by_ref(data: *const ()) {
        borrow(data).woken.fetch_add(1, Ordering::SeqCst);
    }

    unsafe fn release(data: *const ()) {
        // SAFETY: the waker owns one count, which is given up here.
        unsafe { Arc::decrement_strong_count(data.cast::<Hooked>()) };
    }
}

/// An event arrives after a reader has registered and before it waits. Another reader consumes the
/// event. The next event wakes the first reader.
#[test]
fn reader_that_was_delayed_before_its_wait_gets_the_next_edge() {
    child("reader_that_was_delayed_before_its_wait_gets_the_next_edge", delayed_reader);
}

fn delayed_reader() {
    let (server, client) = run(async {
        let (client, server) = pair().await;
        (Arc::new(server), Arc::new(client))
    });
    let (other, sender) = (server.clone(), client.clone());
    let events = || rt::metrics().events;
    let hook = move || {
        let before = events();
        run(async { sender.write_all(b"a").await.unwrap() });
        eventually("the poller reports the byte", || events() > before);
        let read = thread::spawn(move || run(async { other.read(&mut [0; 64]).await.unwrap() }));
        assert_eq!(read.join().unwrap(), 1, "a short count");
    };
    let hooked = Arc::new(Hooked { hook: Mutex::new(Some(Box::new(hook))), woken: AtomicUsize::new(0) });
    let waker = hooked::waker(hooked.clone());
    let mut buf = [0; 64];
    let mut read = pin!(server.read(&mut buf));
    assert!(read.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    assert!(hooked.hook.lock().unwrap().is_none(), "the operation has cloned its waker");
    run(async { client.write_all(b"b").await.unwrap() });
    eventually("the reader is woken", || hooked.woken.load(Ordering::SeqCst) > 0);
    assert!(matches!(read.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(Ok(1))));
}

/// A write sends the gathered bytes after a flush has tried to send them and before the flush
/// waits. The socket then has room for a write, but not enough room for an event.
#[test]
fn flush_ends_if_a_write_sends_the_gathered_bytes_before_the_flush_waits() {
    run(async {
        let (ours, peer) = UnixStream::pair().unwrap();
        while poll_once(&mut ours.write(&[7; 7000])).await.is_ready() {}
        // The next turn has its whole budget.
        task::yield_now().await;
        ours.set_auto_cork(true).unwrap();
        assert!(matches!(poll_once(&mut ours.write(&[8; 100])).await, Poll::Ready(Ok(100))), "gathered in this turn");
        let (sender, reader) = (ours.clone(), peer.clone());
        let hook = move || {
            assert!(matches!(poll_now(&mut reader.read(&mut [0; 7000])), Poll::Ready(Ok(7000))));
            assert!(matches!(poll_now(&mut sender.write(&[9])), Poll::Ready(Ok(1))));
        };
        let hooked = Arc::new(Hooked { hook: Mutex::new(Some(Box::new(hook))), woken: AtomicUsize::new(0) });
        // The new thread is in no turn, so no end of a turn flushes the stream.
        let flusher = thread::spawn(move || {
            let waker = hooked::waker(hooked.clone());
            let mut flush = pin!(ours.flush());
            let polled = flush.as_mut().poll(&mut Context::from_waker(&waker));
            assert!(hooked.hook.lock().unwrap().is_none(), "the flush has cloned its waker");
            if polled.is_pending() {
                eventually("the flush is woken", || hooked.woken.load(Ordering::SeqCst) > 0);
                assert!(matches!(flush.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(Ok(()))));
            }
        });
        flusher.join().unwrap();
        drop(peer);
    });
}

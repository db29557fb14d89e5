//! Sockets and sleeps under other executors, and wakers that use sockets. Wakers are foreign code,
//! and run under no lock of this crate.
//!
//! `ecosystem/tests/executors.rs` has the tests with Tokio and smol.

mod common;
#[path = "common/executors.rs"]
mod executors;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use common::{Watchdog, becomes, child, echo, eventually, listener, pair, park_on, ping};
use executors::everything;
use futures::io::AsyncReadExt;
use netpoll::net::TcpStream;
use netpoll::task;

#[test]
fn sockets_work_under_futures_executor() {
    let _watchdog = Watchdog::new();
    futures::executor::block_on(everything());
    let mut pool = futures::executor::LocalPool::new();
    use futures::task::LocalSpawnExt;
    for _ in 0..5 {
        pool.spawner().spawn_local(everything()).unwrap();
    }
    pool.run();
}

#[test]
fn sockets_work_under_parking_threads() {
    let _watchdog = Watchdog::new();
    let threads: Vec<_> = (0..8).map(|_| thread::spawn(|| park_on(everything()))).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn block_on_nests_with_other_executors() {
    let _watchdog = Watchdog::new();
    futures::executor::block_on(async { task::block_on(everything()) });
    task::block_on(async { task::spawn(async { park_on(everything()) }).await });
}

/// Runs in a process that never calls `block_on` or `spawn`, with one worker.
#[test]
fn poller_runs_without_netpoll_tasks() {
    child("poller_runs_without_netpoll_tasks", || {
        for _ in 0..20 {
            netpoll::rt::Builder::new().workers(1).start().unwrap();
            let (client, server) = park_on(pair());
            let reader = thread::spawn(move || park_on(echo(&server)));
            for _ in 0..20 {
                park_on(ping(&client, b"hello")).unwrap();
            }
            assert_eq!(netpoll::rt::metrics().tasks_spawned, 0);
            drop(client);
            reader.join().unwrap().unwrap();
            park_on(task::sleep(Duration::from_millis(1)));
            netpoll::rt::shutdown(common::BOUND).unwrap();
        }
    });
}

/// A waker that uses `stream` when it is called and, with the functions of `raw`, also when it is
/// cloned or dropped.
struct Reenter {
    stream: TcpStream,
    calls: AtomicUsize,
    woken: AtomicBool,
}

impl Reenter {
    /// Uses the socket, a timer and a task, without waiting.
    fn use_the_socket(&self) {
        let mut cx = Context::from_waker(Waker::noop());
        let stream = &self.stream;
        let _ = Pin::new(&mut stream.read(&mut [0; 1])).poll(&mut cx);
        let _ = Pin::new(&mut stream.write(b"w")).poll(&mut cx);
        let _ = Pin::new(&mut stream.readable()).poll(&mut cx);
        let _ = Pin::new(&mut stream.peer_closed()).poll(&mut cx);
        let _ = futures::io::AsyncRead::poll_read(Pin::new(&mut &*stream), &mut cx, &mut [0; 1]);
        let _ = stream.set_read_deadline(Instant::now() + Duration::from_secs(100));
        let _ = stream.set_write_deadline(None);
        let _ = (stream.peer_addr(), stream.local_addr(), stream.nodelay(), format!("{stream:?}"));
        let _ = netpoll::rt::metrics();
        let _ = Pin::new(&mut netpoll::time::Sleep::new(Duration::from_secs(1))).poll(&mut cx);
        drop(task::spawn(async {}));
        self.calls.fetch_add(1, Ordering::SeqCst);
    }
}

impl Wake for Reenter {
    fn wake(self: Arc<Self>) {
        self.use_the_socket();
        self.woken.store(true, Ordering::SeqCst);
    }
}

mod raw {
    //! A waker whose clone and drop also run foreign code.
    use super::Reenter;
    use std::sync::Arc;
    use std::task::{RawWaker, RawWakerVTable, Waker};

    static TABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop);

    pub(super) fn waker(data: Arc<Reenter>) -> Waker {
        // SAFETY: the functions below keep the contract: `data` is a counted reference, which each
        // function consumes, copies or borrows.
        unsafe { Waker::from_raw(raw(data)) }
    }

    fn raw(data: Arc<Reenter>) -> RawWaker {
        RawWaker::new(Arc::into_raw(data).cast(), &TABLE)
    }

    fn borrowed(data: *const ()) -> std::mem::ManuallyDrop<Arc<Reenter>> {
        // SAFETY: the pointer came from `Arc::into_raw`, the waker owns a count, and `ManuallyDrop`
        // leaves the count unchanged.
        std::mem::ManuallyDrop::new(unsafe { Arc::from_raw(data.cast::<Reenter>()) })
    }

    unsafe fn clone(data: *const ()) -> RawWaker {
        let data = borrowed(data);
        data.use_the_socket();
        raw(Arc::clone(&data))
    }

    unsafe fn wake(data: *const ()) {
        // SAFETY: this call owns the reference.
        std::task::Wake::wake(unsafe { Arc::from_raw(data.cast::<Reenter>()) });
    }

    unsafe fn wake_by_ref(data: *const ()) {
        std::task::Wake::wake_by_ref(&borrowed(data));
    }

    unsafe fn drop(data: *const ()) {
        // SAFETY: this call owns the reference.
        let data = unsafe { Arc::from_raw(data.cast::<Reenter>()) };
        data.use_the_socket();
    }
}

/// Invariant 12.
#[test]
fn wakers_may_use_the_waking_socket() {
    let _watchdog = Watchdog::new();
    for cause in ["sleep", "data", "deadline", "close"] {
        let (client, server) = park_on(pair());
        let reenter =
            Arc::new(Reenter { stream: server.clone(), calls: AtomicUsize::new(0), woken: AtomicBool::new(false) });
        let waker = raw::waker(reenter.clone());
        let mut cx = Context::from_waker(&waker);
        let (mut buf, mut more) = ([0; 1], [0; 1]);
        let mut read = server.read(&mut buf);
        let mut peek = server.peek(&mut more);
        let mut end = server.peer_closed();
        // In the other cases the sleep is long, so that it does not call the waker.
        let time = if cause == "sleep" { Duration::from_millis(100) } else { 2 * common::BOUND };
        let mut sleep = netpoll::time::Sleep::new(time);
        assert!(common::poll_with(&mut sleep, &waker).is_pending());
        if cause != "sleep" {
            assert!(common::poll_with(&mut read, &waker).is_pending());
            assert!(common::poll_with(&mut peek, &waker).is_pending());
            assert!(common::poll_with(&mut end, &waker).is_pending());
            assert!(futures::io::AsyncRead::poll_read(Pin::new(&mut &server), &mut cx, &mut [0; 8]).is_pending());
            // This poll replaces the waker of `peek`.
            assert!(common::poll_now(&mut peek).is_pending());
            reenter.woken.store(false, Ordering::SeqCst);
        }
        match cause {
            "sleep" => {}
            "data" => park_on(client.write_all(b"x")).unwrap(),
            "deadline" => server.set_read_deadline(Instant::now() + Duration::from_millis(3)).unwrap(),
            _ => park_on(server.force_close()).unwrap(),
        }
        eventually(&format!("the {cause} calls the waker"), || reenter.woken.load(Ordering::SeqCst));
        drop((read, peek, end, sleep));
        let calls = reenter.calls.load(Ordering::SeqCst);
        assert!(calls >= 2, "a clone and the call of the waker use the socket: {calls}");
    }
}

/// Invariant 12. A waker may drop the future that waits next.
#[test]
fn wakers_may_drop_other_waiters() {
    struct DropsFuture {
        future: Mutex<Option<Box<dyn std::any::Any + Send>>>,
        woken: AtomicBool,
    }
    impl Wake for DropsFuture {
        fn wake(self: Arc<Self>) {
            drop(self.future.lock().unwrap().take());
            self.woken.store(true, Ordering::SeqCst);
        }
    }
    let _watchdog = Watchdog::new();
    for _ in 0..50 {
        let (client, server) = park_on(pair());
        let server: &'static TcpStream = Box::leak(Box::new(server));
        let mut second = Box::pin(async move { server.readable().await });
        let dropper = Arc::new(DropsFuture { future: Mutex::new(None), woken: AtomicBool::new(false) });
        let waker = Waker::from(dropper.clone());
        let mut first = server.readable();
        assert!(common::poll_with(&mut first, &waker).is_pending());
        assert!(common::poll_now(&mut second).is_pending());
        *dropper.future.lock().unwrap() = Some(Box::new(second));
        park_on(client.write_all(b"x")).unwrap();
        eventually("the waker is called", || dropper.woken.load(Ordering::SeqCst));
        park_on(first).unwrap();
        assert_eq!(park_on(server.read(&mut [0; 8])).unwrap(), 1);
        park_on(server.force_close()).unwrap();
    }
}

/// A future may move to another executor between two polls.
#[test]
fn moved_future_is_woken_by_its_last_waker() {
    let _watchdog = Watchdog::new();
    for _ in 0..20 {
        let (client, server) = park_on(pair());
        let moving = async move {
            let mut buf = [0; 4];
            common::read_exact(&server, &mut buf).await.unwrap();
            buf
        };
        let mut moving = Box::pin(moving);
        assert!(common::poll_now(&mut moving).is_pending());
        futures::executor::block_on(async {
            assert!(common::poll_once(&mut moving).await.is_pending());
        });
        let moved = task::spawn(moving);
        park_on(async {
            client.write_all(b"a").await.unwrap();
            task::sleep(Duration::from_millis(1)).await;
            client.write_all(b"bcd").await.unwrap();
        });
        assert_eq!(&park_on(moved), b"abcd");
    }
}

/// Tasks of several executors wait on one socket, and together read all data.
#[test]
fn many_kinds_of_waiters_share_one_socket() {
    let _watchdog = Watchdog::new();
    let (client, server) = park_on(pair());
    let taken = Arc::new(AtomicUsize::new(0));
    let read = |kind: usize| {
        let (server, taken) = (server.clone(), taken.clone());
        async move {
            loop {
                let mut buf = [0; 1];
                let count = match kind % 3 {
                    0 => server.read(&mut buf).await.unwrap(),
                    1 => AsyncReadExt::read(&mut &server, &mut buf).await.unwrap(),
                    _ => {
                        server.readable().await.unwrap();
                        server.read(&mut buf).await.unwrap()
                    }
                };
                if count == 0 {
                    return;
                }
                taken.fetch_add(1, Ordering::SeqCst);
            }
        }
    };
    let mut threads = Vec::new();
    let mut tasks = Vec::new();
    for kind in 0..12 {
        match kind / 3 {
            0 => tasks.push(task::spawn(read(kind))),
            1 => threads.push(thread::spawn({
                let read = read(kind);
                move || futures::executor::block_on(read)
            })),
            2 => threads.push(thread::spawn({
                let read = read(kind);
                move || park_on(read)
            })),
            _ => threads.push(thread::spawn({
                let read = read(kind);
                move || task::block_on(read)
            })),
        }
    }
    park_on(async {
        for n in 0..2000 {
            client.write_all(b"x").await.unwrap();
            if n % 50 == 0 {
                becomes("all data is read", || taken.load(Ordering::SeqCst) == n + 1).await;
            }
        }
        becomes("all data is read", || taken.load(Ordering::SeqCst) == 2000).await;
    });
    drop(client);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    tasks.into_iter().for_each(park_on);
}

/// Invariant 1. Accepts are polled once, which registers the listener, and never again. Another
/// accept gets the connection, and the close completes.
#[test]
fn abandoned_future_keeps_no_descriptor() {
    let _watchdog = Watchdog::new();
    let listener = park_on(listener());
    let addr = listener.local_addr().unwrap();
    for _ in 0..10 {
        let mut accept = Box::pin(listener.accept());
        assert!(matches!(common::poll_now(&mut accept), Poll::Pending));
        std::mem::forget(accept);
    }
    let client = thread::spawn(move || park_on(TcpStream::connect(addr)).unwrap());
    let client = client.join().unwrap();
    // The edge wakes only one of these accepts, which is never polled again. An accept that starts
    // after the edge still finds the connection.
    let mut accepted = None;
    common::eventually("the connection is accepted", || {
        if let Poll::Ready(result) = common::poll_now(&mut listener.accept()) {
            accepted = Some(result.unwrap());
        }
        accepted.is_some()
    });
    let (server, _) = accepted.unwrap();
    assert_eq!(server.peer_addr().unwrap(), client.local_addr().unwrap());
    park_on(listener.close()).unwrap();
}
